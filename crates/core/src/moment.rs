//! Instants in half their place: there are several for every record.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::{Duration, Instant};

/// Nanoseconds before or after a [`Start`], from the middle of what there is room for: 292 years each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

/// What moments are counted from; those of different starts have nothing to do with each other.
#[derive(Clone, Copy, Debug)]
pub struct Start(pub Instant);

impl Start {
    const AT: NonZeroU64 = NonZeroU64::MIN.saturating_add(1 << 63);

    /// An instant's moment; the nearest if there is none so far away.
    pub fn moment(self, at: Instant) -> Moment {
        let before = nanos(self.0.saturating_duration_since(at));
        let until = NonZeroU64::new(Self::AT.get().saturating_sub(before)).unwrap_or(NonZeroU64::MIN);
        Moment(until.saturating_add(nanos(at.saturating_duration_since(self.0))))
    }

    /// A moment's instant.
    pub fn instant(self, moment: Moment) -> Instant {
        let before = Self::AT.get().saturating_sub(moment.0.get());
        let after = moment.0.get().saturating_sub(Self::AT.get());
        (self.0 + Duration::from_nanos(after)).checked_sub(Duration::from_nanos(before)).unwrap_or(self.0)
    }
}

impl Moment {
    /// The time from an earlier moment; nothing if that was later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_back_whether_before_or_after_the_start() {
        let (before, hour) = (Instant::now(), Duration::from_secs(3_600));
        let start = before + hour;
        let moment = |at| Start(start).moment(at);
        for at in [start, start + hour, before, start + Duration::from_nanos(1)] {
            assert_eq!(Start(start).instant(moment(at)), at);
        }
        assert!(moment(before) < moment(start));
        assert_eq!(moment(before) + hour, moment(start));
        assert_eq!(moment(start).since(moment(before)), hour);
        assert_eq!(moment(before).since(moment(start)), Duration::ZERO);
    }
}
