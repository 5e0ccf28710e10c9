//! How long a lease lasts: gost's Renew period differs per deployment and is in no call, so it is learned from the Renews
//! of each gost instance.

use std::num::NonZeroU32;
use std::time::Duration;

use super::lease::KEEP_LAPSED;
use super::moment::Moment;

/// A learned TTL is this many Renew periods: two Renews may be lost or late.
const PERIODS: u32 = 3;
/// Bounds of a learned TTL. Below the lower one, a pause of the host would take live tunnels away.
const LEARNED_TTL: (Duration, Duration) = (Duration::from_secs(5), KEEP_LAPSED);
/// A period is the longest interval of this many last rounds: gost's ticker, held up once, ticks early once.
const ROUNDS: usize = 3;
/// What a Renew may be late when only one is waited for.
const SLACK: Duration = Duration::from_secs(2);

/// The Renew period of one gost instance. In a round, each of its connectors is renewed at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Period {
    /// The longest interval of each round, the newest first, in milliseconds, and one at least: a quarter of a
    /// duration's place.
    rounds: [Option<NonZeroU32>; ROUNDS],
    /// When the newest round began.
    since: Option<Moment>,
}

impl Period {
    /// As it was known before a restart.
    pub(super) fn of(period: Duration) -> Self {
        Self { rounds: [millis(period); ROUNDS], since: None }
    }

    /// A connector was renewed at `last`, and is now.
    pub(super) fn learn(&mut self, last: Moment, now: Moment) {
        let interval = millis(now.since(last));
        if self.since.is_none_or(|since| last >= since) {
            self.rounds.rotate_right(1);
            self.rounds[0] = interval;
            self.since = Some(now);
        } else {
            self.rounds[0] = self.rounds[0].max(interval);
        }
    }

    /// How long a lease lasts after a Renew. While the period is not known for sure, at least for `unknown`: of the first
    /// two intervals, one may be short because a Renew was late.
    pub(super) fn ttl(&self, unknown: Duration) -> Duration {
        let Some(period) = self.longest() else { return unknown };
        let learned = period.saturating_mul(PERIODS).clamp(LEARNED_TTL.0, LEARNED_TTL.1);
        if self.is_sure() { learned } else { learned.max(unknown) }
    }

    /// Whether as many rounds were seen as it takes to be sure.
    pub(super) fn is_sure(&self) -> bool {
        self.rounds.iter().all(Option::is_some)
    }

    /// The longest interval of the last rounds.
    pub(super) fn longest(&self) -> Option<Duration> {
        let millis = self.rounds.iter().flatten().max()?;
        Some(Duration::from_millis(millis.get().into()))
    }

    /// When a live gost will have renewed once more.
    pub(super) fn once_more(&self, unknown: Duration) -> Duration {
        self.ttl(unknown) / PERIODS + SLACK
    }
}

fn millis(interval: Duration) -> Option<NonZeroU32> {
    let millis = interval.as_nanos().div_ceil(1_000_000);
    NonZeroU32::new(u32::try_from(millis).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::moment::Start;
    use super::*;

    const UNKNOWN: Duration = Duration::from_secs(60);

    /// What is learned from connectors that are renewed at these seconds.
    fn learned(connectors: &[&[u64]]) -> Period {
        let start = Instant::now();
        let moment = |second: u64| Start(start).moment(start + Duration::from_secs(second));
        let pairs = connectors.iter().flat_map(|at| at.windows(2).map(|pair| (pair[1], pair[0])));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by_key(|(now, _)| *now);
        let mut period = Period::default();
        for (now, last) in pairs {
            period.learn(moment(last), moment(now));
        }
        period
    }

    #[test]
    fn connectors_that_are_renewed_together_are_one_round() {
        let at: &[u64] = &[0, 15, 30];
        let period = learned(&[at; 50]);
        assert!(!period.is_sure(), "two rounds, however many intervals");
        assert_eq!(period.ttl(UNKNOWN), UNKNOWN);
        assert_eq!(learned(&[&[0, 15, 30, 45]]).ttl(UNKNOWN), Duration::from_secs(45));
    }

    #[test]
    fn a_gost_that_was_held_up_ticks_early_once_and_loses_nothing_for_that() {
        // Its tunnels tick every 15 s, one of them 7 s later; nothing runs from 20 to 43.
        let held_up = learned(&[&[0, 15, 43, 45, 60, 75], &[7, 43, 44, 52, 67, 82], &[15, 43, 45, 60]]);
        assert!(held_up.ttl(UNKNOWN) >= Duration::from_secs(45), "{held_up:?}");
    }

    #[test]
    fn what_was_known_before_a_restart_is_sure_and_gives_way_to_what_is_seen() {
        let mut period = Period::of(Duration::from_secs(20));
        assert_eq!(period.ttl(UNKNOWN), Duration::from_secs(60));
        let start = Instant::now();
        let moment = |second: u64| Start(start).moment(start + Duration::from_secs(second));
        for second in [2, 4, 6] {
            period.learn(moment(second - 2), moment(second));
        }
        assert_eq!(period.ttl(UNKNOWN), Duration::from_secs(6));
    }
}
