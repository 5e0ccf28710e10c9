//! What visitors noticed of a fault, compared with the promise. Knows nothing of hosts.

use std::fmt;
use std::time::Duration;

use crate::visits::{UnixMillis, Visit, Visits};

/// How much longer than promised a shared machine may take.
pub(crate) const ALLOWANCE: u32 = 2;
/// A wait that is worth mentioning.
const LONG: Duration = Duration::from_millis(500);

/// What visitors were promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// No request fails. A slow one does not count, because the machine may be busy.
    NoneFails,
    /// No request fails, and none takes longer than this.
    NoneWaits(Duration),
    /// This long after the fault began, no request fails or is slow any more.
    Within(Duration),
    /// Nothing: the effect is only measured.
    Measured,
}

/// The measurement of a run.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// From the beginning of the fault to the start of the last affected request.
    pub(crate) felt: Duration,
    /// The duration of the slowest successful request.
    pub(crate) longest: Duration,
    pub(crate) failed: usize,
    pub(crate) of: usize,
    pub(crate) promised: Promise,
}

impl Measured {
    /// What visitors at these hosts noticed from `since` until now.
    pub(crate) fn of(visits: &Visits, since: UnixMillis, hosts: &[&str], promised: Promise) -> Self {
        Self::between(visits, since, UnixMillis::MAX, hosts, promised)
    }

    /// What visitors at these hosts noticed of a fault that began at `since`, if their requests began before `until`.
    pub(crate) fn between(
        visits: &Visits,
        since: UnixMillis,
        until: UnixMillis,
        hosts: &[&str],
        promised: Promise,
    ) -> Self {
        let visits = visits.between(since, until, hosts);
        let bad = |visit: &&Visit| match promised {
            Promise::NoneFails => !visit.ok,
            Promise::NoneWaits(longest) => !visit.ok || visit.took() > longest * ALLOWANCE,
            Promise::Within(_) | Promise::Measured => visit.is_bad(),
        };
        let last = visits.iter().filter(bad).map(|visit| visit.at_ms).max();
        let served = visits.iter().filter(|visit| visit.ok);
        Self {
            felt: last.map(|at| Duration::from_millis(at + 1 - since)).unwrap_or_default(),
            longest: served.map(Visit::took).max().unwrap_or_default(),
            failed: visits.iter().filter(|visit| !visit.ok).count(),
            of: visits.len(),
            promised,
        }
    }

    /// The measurement, if it keeps the promise.
    pub(crate) fn check(self) -> anyhow::Result<Self> {
        let most = match self.promised {
            Promise::NoneFails | Promise::NoneWaits(_) => Duration::ZERO,
            Promise::Within(time) => time * ALLOWANCE,
            Promise::Measured => Duration::MAX,
        };
        anyhow::ensure!(self.of > 0, "nobody visited");
        anyhow::ensure!(self.felt <= most, "{self}, promised {:?}", self.promised);
        Ok(self)
    }

    /// Several steps as one: the largest values, the sum of failures, and the promise of the first step.
    pub(crate) fn sum(steps: impl IntoIterator<Item = Self>) -> Option<Self> {
        steps.into_iter().reduce(|all, step| Self {
            felt: all.felt.max(step.felt),
            longest: all.longest.max(step.longest),
            failed: all.failed + step.failed,
            of: all.of + step.of,
            promised: all.promised,
        })
    }

    /// A short form.
    pub(crate) fn short(&self) -> String {
        let Self { felt, longest, failed, of, .. } = self;
        let waited =
            if *longest > LONG { format!(", {:.2} s waited", longest.as_secs_f64()) } else { String::new() };
        format!("{:.2} s, {failed}/{of}{waited}", felt.as_secs_f64())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { felt, longest, failed, of, .. } = self;
        write!(f, "{:.2} s, {failed} of {of} requests failed", felt.as_secs_f64())?;
        if *longest > LONG {
            write!(f, ", the longest took {:.2} s", longest.as_secs_f64())?;
        }
        Ok(())
    }
}
