//! How long registrations take to everybody who can receive them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use gossd_core::agent::State;

/// Registrations that are under way, and how long the others took, in milliseconds, by what the network was like.
#[derive(Default)]
pub(super) struct Arrivals {
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

impl Arrivals {
    /// A connector is registered now, and these hosts should list it soon.
    pub(super) fn expect(
        &mut self,
        now: Instant,
        id: Arc<str>,
        tunnel: String,
        missing: BTreeSet<usize>,
        weather: String,
    ) {
        if !missing.is_empty() {
            self.open.push(Expected { id, tunnel, born: now, missing, weather });
        }
    }

    /// Something happened on which no promise of milliseconds holds.
    pub(super) fn give_up(&mut self) {
        self.open.clear();
    }

    /// How many are under way.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Looks for what is expected at a host, whose directory changed.
    pub(super) fn look(&mut self, now: Instant, host: usize, state: &mut State) {
        let Self { open, took } = self;
        open.retain_mut(|expected| {
            let there = expected.missing.contains(&host)
                && state.resolve(now, &expected.tunnel, 0).iter().any(|record| record.id == *expected.id);
            if there {
                expected.missing.remove(&host);
            }
            if expected.missing.is_empty() {
                let ms = (now - expected.born).as_secs_f64() * 1e3;
                took.entry(expected.weather.clone()).or_default().push(ms);
            }
            !expected.missing.is_empty()
        });
    }

    /// By what the network was like: all times, in milliseconds.
    pub(super) fn took(&self) -> &BTreeMap<String, Vec<f64>> {
        &self.took
    }
}

/// The value below which this share, in hundredths, of all is.
pub(super) fn percentile(sorted: &[f64], share: usize) -> f64 {
    sorted.get(((sorted.len().max(1) - 1) * share).div_ceil(100)).copied().unwrap_or_default()
}
