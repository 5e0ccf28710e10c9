//! What visitors felt: every request with its moment, its entrypoint and its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// A moment, in milliseconds since 1970: all containers have this host's clock.
pub(crate) type Moment = u64;
/// What takes longer is as bad as a failure, where a scenario does not say otherwise: one sent to a dead host takes
/// 15 s, and a busy machine may take more than one.
const SLOW: Duration = Duration::from_secs(2);

/// Where gost takes clients, those that visit among them.
const MEMBERS_PORT: &str = ":8421";

#[expect(clippy::disallowed_methods, reason = "visitors tell the time by the same clock")]
pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500,000,000")
}

/// One request, as the visitor says it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Visit {
    pub(crate) at_ms: Moment,
    pub(crate) to: String,
    pub(crate) ok: bool,
    took_ms: f64,
    pub(crate) answer: String,
}

impl Visit {
    pub(crate) fn took(&self) -> Duration {
        Duration::from_secs_f64(self.took_ms / 1_000.0)
    }

    /// Whether its visitor felt something.
    pub(crate) fn is_bad(&self) -> bool {
        !self.ok || self.took() > SLOW
    }
}

/// All requests so far.
#[derive(Clone, Default)]
pub(crate) struct Visits(Arc<Mutex<Vec<Visit>>>);

impl Visits {
    pub(crate) fn add(&self, line: &str) {
        if let Ok(visit) = serde_json::from_str(line) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
        }
    }

    /// Those that began in a time, at entrypoints of these hosts; all hosts if none is named.
    pub(crate) fn between(&self, from: Moment, until: Moment, hosts: &[&str]) -> Vec<Visit> {
        let visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |visit: &&Visit| {
            let host = visit.to.split(':').next().unwrap_or_default();
            (from..until).contains(&visit.at_ms) && (hosts.is_empty() || hosts.contains(&host))
        };
        visits.iter().filter(at).cloned().collect()
    }

    /// Those at gosts' tunnel ports.
    pub(crate) fn members_between(&self, from: Moment) -> Vec<Visit> {
        let visits = self.between(from, Moment::MAX, &[]);
        visits.into_iter().filter(|visit| visit.to.ends_with(MEMBERS_PORT)).collect()
    }

    /// How many failed.
    pub(crate) fn failed(&self, from: Moment, until: Moment, hosts: &[&str]) -> usize {
        self.between(from, until, hosts).iter().filter(|visit| !visit.ok).count()
    }
}
