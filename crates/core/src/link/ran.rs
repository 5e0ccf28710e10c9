//! A clock that runs only while we do, so that our own pause is nobody's silence.

use std::time::{Duration, Instant};

/// Of a longer gap between two looks at the clock, in which we were paused or starved, only this much counts as
/// time that we ran.
const LONGEST_STEP: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// When we last looked at the world's clock.
    pub last: Option<Instant>,
    /// The time by this clock.
    pub now: Option<Instant>,
}

impl Ran {
    /// Looks at the world's clock; the time by this one.
    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        let step = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let ran = self.now.unwrap_or(now) + step.min(LONGEST_STEP);
        self.last = Some(now);
        self.now = Some(ran);
        ran
    }

    /// For how many whole seconds we have run since a time by this clock.
    pub(crate) fn since(&self, start: Instant) -> u32 {
        let ran = self.now.map_or(Duration::ZERO, |now| now.saturating_duration_since(start));
        u32::try_from(ran.as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_as_one_step() {
        let (mut ran, start) = (Ran::default(), Instant::now());
        ran.advance(start);
        ran.advance(start + Duration::from_millis(200));
        let after = ran.advance(start + Duration::from_secs(600));
        assert_eq!(after - start, Duration::from_millis(500));
    }
}
