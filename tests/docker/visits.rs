//! What visitors felt: every request with its moment, its entrypoint and its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// A moment, in milliseconds since 1970: all containers have this host's clock.
pub(crate) type Moment = u64;

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
    pub(crate) took_ms: f64,
    #[expect(dead_code, reason = "printed with a visit that failed")]
    pub(crate) answer: String,
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

    /// Those that began in a time, at entrypoints of these pods; all pods if none is named.
    pub(crate) fn between(&self, from: Moment, until: Moment, pods: &[&str]) -> Vec<Visit> {
        let visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |visit: &&Visit| {
            let pod = visit.to.split(':').next().unwrap_or_default();
            (from..until).contains(&visit.at_ms) && (pods.is_empty() || pods.contains(&pod))
        };
        visits.iter().filter(at).cloned().collect()
    }

    /// How long after a moment the last request began that failed; none if none did.
    pub(crate) fn last_failed(&self, since: Moment, pods: &[&str]) -> Option<Duration> {
        self.last(since, pods, |visit| !visit.ok)
    }

    /// The same, of those that failed or took long.
    pub(crate) fn last_bad(&self, since: Moment, pods: &[&str]) -> Option<Duration> {
        self.last(since, pods, |visit| !visit.ok || visit.took_ms > 1_000.0)
    }

    fn last(&self, since: Moment, pods: &[&str], bad: impl Fn(&Visit) -> bool) -> Option<Duration> {
        let visits = self.between(since, Moment::MAX, pods);
        let bad = visits.iter().filter(|visit| bad(visit)).map(|visit| visit.at_ms);
        bad.max().map(|at| Duration::from_millis(at + 1 - since))
    }

    /// How many failed.
    pub(crate) fn failed(&self, from: Moment, until: Moment, pods: &[&str]) -> usize {
        self.between(from, until, pods).iter().filter(|visit| !visit.ok).count()
    }
}
