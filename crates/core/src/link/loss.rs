//! How many frames get lost on the way to each peer and back, counted by the acks of pushes, and as how many copies a push goes
//! therefore. Where nothing is lost, that is one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Frames after which a count begins anew, at the earliest.
const WINDOW: u32 = 16;
/// The least time of a count; an ack may come as late without counting as lost.
const LEAST: Duration = Duration::from_millis(100);
/// From this share of lost frames on, there are copies.
const NOTICED: f64 = 0.01;
/// Over a leg whose round trip is longer, all copies go before one can be acknowledged; and so many that all of them are lost
/// more rarely than
const LONG: Duration = Duration::from_millis(40);
/// once in so many times.
const RARE: f64 = 1e-4;
/// Copies over a short leg: who is near asks for more by its silence.
const SHORT: u32 = 2;
/// Copies at most.
const MOST: u32 = 6;
/// For how many tries the share of those that were not enough remembers.
const TRIES: f64 = 32.0;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    legs: HashMap<SocketAddr, Leg>,
    /// The share of first tries that were not enough, of late, at any peer. What counts for a peer that is not known yet.
    share: f64,
}

#[derive(Debug)]
struct Leg {
    /// Of the pushes from this one on.
    now: Count,
    first: u64,
    newest: u64,
    began: Instant,
    /// Of those before: their acks may still come.
    before: Count,
    /// The share of lost frames.
    lost: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    sent: u32,
    acked: u32,
}

impl Losses {
    /// A frame of the push of that number goes to a peer.
    pub(super) fn sent(&mut self, now: Instant, push: u64, to: SocketAddr, trip: Option<Duration>) {
        let leg = self.legs.entry(to).or_insert_with(|| Leg::new(now, push));
        let lasted = now.saturating_duration_since(leg.began);
        if push > leg.newest && leg.now.sent >= WINDOW && lasted >= LEAST.max(trip.unwrap_or_default() * 2) {
            leg.turn(now, push);
        }
        leg.newest = leg.newest.max(push);
        leg.count(push).sent += 1;
    }

    /// One came back.
    pub(super) fn acked(&mut self, push: u64, from: SocketAddr) {
        if let Some(leg) = self.legs.get_mut(&from) {
            leg.count(push).acked += 1;
        }
    }

    /// A first try was enough, or not.
    pub(super) fn tried(&mut self, is_enough: bool) {
        let missed = f64::from(u8::from(!is_enough));
        self.share += (missed - self.share) / TRIES;
    }

    /// As how many copies a push goes to a peer whose round trip takes that long.
    pub(super) fn copies(&self, to: SocketAddr, trip: Option<Duration>) -> u32 {
        let lost = self.legs.get(&to).and_then(|leg| leg.lost).unwrap_or(self.share);
        if lost < NOTICED {
            return 1;
        }
        if trip.is_none_or(|trip| trip <= LONG) {
            return SHORT;
        }
        // As many get lost on the way there as on the way back, as far as anybody knows.
        let one_way = 1.0 - (1.0 - lost).max(0.0).sqrt();
        let (mut copies, mut all) = (1, one_way);
        while copies < MOST && (all > RARE || copies < SHORT) {
            (copies, all) = (copies + 1, all * one_way);
        }
        copies
    }

    /// Forgets those that are no peers any more, if they are many.
    pub(super) fn keep(&mut self, peers: usize, is_peer: impl Fn(&SocketAddr) -> bool) {
        if self.legs.len() > 2 * peers + 16 {
            self.legs.retain(|addr, _| is_peer(addr));
        }
    }
}

impl Leg {
    fn new(now: Instant, push: u64) -> Self {
        Self {
            now: Count::default(),
            first: push,
            newest: push,
            began: now,
            before: Count::default(),
            lost: None,
        }
    }

    fn count(&mut self, push: u64) -> &mut Count {
        if push >= self.first { &mut self.now } else { &mut self.before }
    }

    /// Begins another count. What was counted before the last one is complete.
    fn turn(&mut self, now: Instant, push: u64) {
        let Count { sent, acked } = std::mem::replace(&mut self.before, std::mem::take(&mut self.now));
        if sent > 0 {
            let lost = f64::from(sent.saturating_sub(acked)) / f64::from(sent);
            self.lost = Some(self.lost.map_or(lost, |before| f64::midpoint(before, lost)));
        }
        (self.first, self.began) = (push, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
    const NEAR: Option<Duration> = Some(Duration::from_millis(1));
    const FAR: Option<Duration> = Some(Duration::from_millis(200));

    /// After 500 pushes, of each hundred of which so many get lost.
    fn after(percent: u64, trip: Option<Duration>) -> Losses {
        let (mut losses, start) = (Losses::default(), Instant::now());
        for push in 0..500 {
            losses.sent(start + Duration::from_millis(20) * u32::try_from(push).unwrap(), push, PEER, trip);
            if push * 37 % 100 >= percent {
                losses.acked(push, PEER);
            }
        }
        losses
    }

    #[test]
    fn nothing_goes_twice_where_nothing_is_lost() {
        for trip in [None, NEAR, FAR] {
            assert_eq!(Losses::default().copies(PEER, trip), 1, "nothing is known");
            assert_eq!(after(0, trip).copies(PEER, trip), 1);
        }
    }

    #[test]
    fn over_a_long_leg_go_as_many_copies_as_make_it_rare_that_all_get_lost() {
        // Of frames and acks together; one way, half as many.
        for (percent, far) in [(5, 2..=4), (10, 3..=5), (36, 5..=MOST), (100, MOST..=MOST)] {
            assert_eq!(after(percent, NEAR).copies(PEER, NEAR), SHORT, "{percent} %");
            let copies = after(percent, FAR).copies(PEER, FAR);
            assert!(far.contains(&copies), "{percent} %: {copies}");
        }
    }

    #[test]
    fn a_leg_that_is_good_again_is_trusted_again() {
        let (mut losses, mut now) = (after(36, NEAR), Instant::now() + Duration::from_secs(60));
        let mut pushes = 0;
        while losses.copies(PEER, NEAR) > 1 {
            pushes += 1;
            now += Duration::from_millis(20);
            for _ in 0..losses.copies(PEER, NEAR) {
                losses.sent(now, 1_000 + pushes, PEER, NEAR);
                losses.acked(1_000 + pushes, PEER);
            }
        }
        assert!((16..200).contains(&pushes), "{pushes}");
    }

    #[test]
    fn what_other_peers_miss_counts_for_one_that_is_not_known() {
        let mut losses = Losses::default();
        losses.tried(false);
        assert_eq!((losses.copies(PEER, NEAR), losses.copies(PEER, FAR)), (SHORT, 3));
        (0..64).for_each(|_| losses.tried(true));
        assert_eq!(losses.copies(PEER, NEAR), 1);
    }

    #[test]
    fn an_ack_is_no_loss_because_it_is_late() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        for push in 0..500_u64 {
            losses.sent(start + Duration::from_millis(20) * u32::try_from(push).unwrap(), push, PEER, FAR);
            // 200 ms are ten pushes.
            push.checked_sub(10).into_iter().for_each(|push| losses.acked(push, PEER));
        }
        assert_eq!(losses.copies(PEER, FAR), 1);
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        for port in 1..=1_000 {
            let addr = SocketAddr::new(PEER.ip(), port);
            losses.sent(now, 1, addr, NEAR);
            losses.keep(2, |peer| peer.port() >= 999);
        }
        assert!(losses.legs.len() <= 21, "{}", losses.legs.len());
    }
}
