//! How long changes take to everybody who can hear of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gossd::agent::Agent;
use tokio::time::Instant;

/// Registrations that are under way, and how long the others took, in milliseconds, by what the network was like.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    open: Vec<Expected>,
    took: BTreeMap<String, Vec<f64>>,
}

struct Expected {
    id: Arc<str>,
    tunnel: String,
    born: Instant,
    missing: BTreeSet<usize>,
    weather: String,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connector was registered just now, and these hosts should hear of it.
    pub(crate) fn expect(&self, id: Arc<str>, tunnel: String, missing: BTreeSet<usize>, weather: String) {
        if !missing.is_empty() {
            self.inner().open.push(Expected { id, tunnel, born: Instant::now(), missing, weather });
        }
    }

    /// Something happened on which no promise of milliseconds holds.
    pub(crate) fn give_up(&self) {
        self.inner().open.clear();
    }

    /// How many are under way.
    pub(crate) fn open(&self) -> usize {
        self.inner().open.len()
    }

    /// Looks for what is expected at a host whenever its directory changes, for ever.
    pub(crate) async fn observe(self, host: usize, agent: Agent) {
        let mut revision = agent.watch();
        while revision.changed().await.is_ok() {
            let mut inner = self.inner();
            let Inner { open, took } = &mut *inner;
            open.retain_mut(|expected| {
                let there = expected.missing.contains(&host)
                    && agent.resolve(&expected.tunnel).iter().any(|record| record.id == *expected.id);
                if there {
                    expected.missing.remove(&host);
                }
                if expected.missing.is_empty() {
                    let ms = expected.born.elapsed().as_secs_f64() * 1e3;
                    took.entry(expected.weather.clone()).or_default().push(ms);
                }
                !expected.missing.is_empty()
            });
        }
    }

    /// By what the network was like: all times, in milliseconds.
    pub(crate) fn took(&self) -> BTreeMap<String, Vec<f64>> {
        self.inner().took.clone()
    }
}

/// The value below which this share, in hundredths, of all is.
pub(crate) fn percentile(sorted: &[f64], share: usize) -> f64 {
    sorted.get(((sorted.len().max(1) - 1) * share).div_ceil(100)).copied().unwrap_or_default()
}
