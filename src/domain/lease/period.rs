//! How long a lease lasts: gost's Renew period differs per deployment and is not told, so each record's is
//! learned from its own Renews.

use std::num::NonZeroU32;
use std::time::Duration;

use super::KEEP_LAPSED;

/// A learned TTL is this many Renew periods: two Renews may be lost or late.
const PERIODS: u32 = 3;
/// Bounds of a learned TTL. Below the lower one, a pause of the host would take live tunnels away.
const LEARNED_TTL: (Duration, Duration) = (Duration::from_secs(5), KEEP_LAPSED);
/// A period is the longest of this many last intervals: gost's ticker, held up once, ticks early once.
const INTERVALS: usize = 3;
/// What a Renew may be late when only one is waited for.
const SLACK: Duration = Duration::from_secs(2);

/// The Renew period of one record, learned from its Renews.
#[derive(Debug, Default)]
pub(super) struct Period {
    /// In milliseconds, and one at least: a quarter of a duration's place.
    intervals: [Option<NonZeroU32>; INTERVALS],
}

impl Period {
    /// So long after the one before, a Renew came.
    pub(super) fn learn(&mut self, interval: Duration) {
        self.intervals.rotate_right(1);
        let millis = interval.as_nanos().div_ceil(1_000_000);
        let millis = u32::try_from(millis).unwrap_or(u32::MAX).max(1);
        self.intervals[0] = NonZeroU32::new(millis);
    }

    /// How long a lease lasts after a Renew. While the period is not known for sure, at least for `unknown`: of the first
    /// two intervals, one may be short because a Renew was late.
    pub(super) fn ttl(&self, unknown: Duration) -> Duration {
        let Some(period) = self.longest() else { return unknown };
        let learned = period.saturating_mul(PERIODS).clamp(LEARNED_TTL.0, LEARNED_TTL.1);
        if self.intervals.iter().all(Option::is_some) { learned } else { learned.max(unknown) }
    }

    /// The longest of the last intervals.
    pub(super) fn longest(&self) -> Option<Duration> {
        let millis = self.intervals.iter().flatten().max()?;
        Some(Duration::from_millis(millis.get().into()))
    }

    /// When a live gost will have renewed once more.
    pub(super) fn once_more(&self, unknown: Duration) -> Duration {
        self.ttl(unknown) / PERIODS + SLACK
    }
}
