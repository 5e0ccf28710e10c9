//! Frames that are not understood are worth a line a minute for each address that sends them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::counters::Dropped;
use super::{Link, LinkLine};

/// The pace of lines about one address.
pub(super) const PACE: Duration = Duration::from_secs(60);
/// Addresses that are remembered; beyond, rejections are only counted.
const MAX_REJECTIONS: usize = 1_024;

/// Which addresses had a line of late.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    logged: BTreeMap<IpAddr, Instant>,
}

impl Rejections {
    /// Whether an address gets a line now; if so, it gets no other for a while.
    fn is_due(&mut self, now: Instant, from: IpAddr) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < PACE;
        if self.logged.get(&from).is_some_and(is_recent) {
            return false;
        }
        if self.logged.len() >= MAX_REJECTIONS {
            self.logged.retain(|_, at| is_recent(at));
            if self.logged.len() >= MAX_REJECTIONS {
                return false;
            }
        }
        self.logged.insert(from, now);
        true
    }
}

impl Link {
    /// A frame from that address was dropped, and counted, because it is none of this cluster's.
    pub(super) fn reject(&mut self, now: Instant, from: IpAddr, why: Dropped) {
        if self.rejections.is_due(now, from) {
            self.effects.lines.push(LinkLine::Rejected { from, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_one_line_a_minute_and_the_memory_of_it_is_bounded() {
        let (mut rejections, mut now) = (Rejections::default(), Instant::now());
        let addr = |n: u32| IpAddr::from(n.to_be_bytes());
        assert!(rejections.is_due(now, addr(1)) && !rejections.is_due(now, addr(1)));
        assert!(rejections.is_due(now, addr(2)));
        now += PACE;
        assert!(rejections.is_due(now, addr(1)));
        for n in 10..5_000 {
            rejections.is_due(now, addr(n));
        }
        assert_eq!(rejections.logged.len(), MAX_REJECTIONS);
    }
}
