//! What visitors felt of a fault, beside what was promised. Knows nothing of hosts.

use std::fmt;
use std::time::Duration;

use crate::visits::{Moment, Visit, Visits};

/// How much longer than promised a shared machine may take.
pub(crate) const ALLOWANCE: u32 = 2;
/// A wait that is worth telling.
const LONG: Duration = Duration::from_millis(500);

/// What visitors are promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// No request fails. One that takes long does not count: the machine may be busy.
    NoneFails,
    /// The same, and none takes longer than this.
    NoneWaits(Duration),
    /// So long after the fault began, none fails or takes long any more.
    Within(Duration),
    /// None: what is felt is measured.
    Measured,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// How long after the fault began the last request began that felt it.
    pub(crate) felt: Duration,
    /// What the slowest request took that did not fail.
    pub(crate) longest: Duration,
    /// Requests that failed.
    pub(crate) failed: usize,
    pub(crate) of: usize,
    pub(crate) promised: Promise,
}

impl Measured {
    /// How visitors at these hosts felt what began at a moment, until now.
    pub(crate) fn of(visits: &Visits, since: Moment, hosts: &[&str], promised: Promise) -> Self {
        let visits = visits.between(since, Moment::MAX, hosts);
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

    /// Several steps as one: the worst of what was felt, and all that failed. The first one's promise.
    pub(crate) fn sum(steps: impl IntoIterator<Item = Self>) -> Option<Self> {
        steps.into_iter().reduce(|all, step| Self {
            felt: all.felt.max(step.felt),
            longest: all.longest.max(step.longest),
            failed: all.failed + step.failed,
            of: all.of + step.of,
            promised: all.promised,
        })
    }

    /// The same without words.
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
