//! Every visitor's request: its moment, its entrypoint and its result.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// Milliseconds since 1970. All containers share this host's clock.
pub(crate) type UnixMillis = u64;
/// A slower request is as bad as a failed one, unless a scenario decides otherwise. A request sent to a dead host takes
/// 15 s; on a busy machine, a good one may take more than one second.
const SLOW: Duration = Duration::from_secs(2);

/// The port at which gost accepts clients, including members.
const MEMBERS_PORT: &str = ":8421";

#[expect(clippy::disallowed_methods, reason = "visitors tell the time by the same clock")]
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500,000,000")
}

/// One request, as the visitor reports it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Visit {
    pub(crate) at_ms: UnixMillis,
    pub(crate) to: String,
    pub(crate) ok: bool,
    took_ms: f64,
    pub(crate) answer: String,
}

impl Visit {
    pub(crate) fn took(&self) -> Duration {
        Duration::from_secs_f64(self.took_ms / 1_000.0)
    }

    /// Whether the visitor noticed something.
    pub(crate) fn is_bad(&self) -> bool {
        !self.ok || self.took() > SLOW
    }
}

#[derive(Clone, Default)]
pub(crate) struct Visits(Arc<Mutex<Vec<Visit>>>);

impl Visits {
    pub(crate) fn add(&self, line: &str) {
        if let Ok(visit) = serde_json::from_str(line) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
        }
    }

    /// Requests that began in this time at the entrypoints of these hosts; of all hosts if none is named.
    pub(crate) fn between(&self, from: UnixMillis, until: UnixMillis, hosts: &[&str]) -> Vec<Visit> {
        let visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |visit: &&Visit| {
            let host = visit.to.split(':').next().unwrap_or_default();
            (from..until).contains(&visit.at_ms) && (hosts.is_empty() || hosts.contains(&host))
        };
        visits.iter().filter(at).cloned().collect()
    }

    /// When the first request since a moment began that a visitor at these hosts noticed; else that moment.
    pub(crate) fn struck(&self, since: UnixMillis, hosts: &[&str]) -> UnixMillis {
        let visits = self.between(since, UnixMillis::MAX, hosts);
        visits.iter().filter(|visit| visit.is_bad()).map(|visit| visit.at_ms).min().unwrap_or(since)
    }

    /// Requests at tunnel ports, which are those of members.
    pub(crate) fn members_between(&self, from: UnixMillis) -> Vec<Visit> {
        let visits = self.between(from, UnixMillis::MAX, &[]);
        visits.into_iter().filter(|visit| visit.to.ends_with(MEMBERS_PORT)).collect()
    }

    pub(crate) fn failed(&self, from: UnixMillis, until: UnixMillis, hosts: &[&str]) -> usize {
        self.between(from, until, hosts).iter().filter(|visit| !visit.ok).count()
    }
}
