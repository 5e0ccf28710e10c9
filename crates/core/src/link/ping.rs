//! Pings: signs of life for the peers that know us, challenges for those that do not, and what their answers
//! tell: that a process is alive now, and how long a round trip takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::replicas::MAX_AGENTS;

/// How often every target is pinged: so often that a peer starved of CPU for 2 s is not suspected.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
/// A new target is pinged again after this, then after twice as long, and so on up to [`INTERVAL`]: agents
/// that are started together find each other at once.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
/// How often a target is pinged that has not answered for [`LONG_SILENT`].
const SLOW_INTERVAL: Duration = Duration::from_secs(5);
const LONG_SILENT: Duration = Duration::from_secs(3_600);
/// How often a peer is asked that has been silent for a moment: at 20 % loss each way, a live one fails to
/// answer all questions before it is suspected once in 10^9 times.
const PROBE: Duration = Duration::from_millis(50);
/// One question to those that others watch: to one after the other, so that many of them cost no more than few.
const FAR: Duration = Duration::from_millis(250);
/// Pings that are in no hurry are due at one moment in so long: a look costs more than the pings that it finds.
const BEAT: Duration = FAR;
/// How often an admitted peer is asked for an answer, to measure the round trip.
const MEASURE: Duration = Duration::from_secs(10);
/// Least time between two challenges to one address that were provoked by its frames.
const PROVOKED: Duration = Duration::from_millis(500);
/// How often it is looked for answers that will not come any more.
const PRUNED: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const EXPIRY: Duration = Duration::from_secs(5);
/// Addresses that are pinged, and answers that are waited for. Bounds against made-up members.
pub(super) const MAX_TARGETS: usize = 2 * MAX_AGENTS;

/// What is known of the process at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nearness {
    /// Not admitted, or not heard for long.
    Stranger,
    /// Heard of late, and expects our signs of life.
    Heard,
    /// Heard of late, and expects none.
    Watched,
    /// Others watch it.
    Far,
    /// Others watch it, and it is silent to them.
    Lost,
    /// Silent for a moment.
    Doubtful,
    /// The same, as many others are.
    Asked,
}

/// A ping to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DuePing {
    /// To whom.
    pub to: SocketAddr,
    /// Whether an answer is wanted.
    pub ask: bool,
    /// How near it is.
    pub near: Nearness,
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    /// Where it ends.
    pub addr: SocketAddr,
    /// The round-trip time, smoothed.
    pub trip: Option<Duration>,
    /// How many in a thousand of our last frames did not get there, as the peer says.
    pub lost: u16,
}

/// Whom to ping when, and which answers are still wanted.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    targets: BTreeMap<SocketAddr, PingTarget>,
    /// The same in the order in which they are due.
    queue: BTreeSet<(Instant, SocketAddr)>,
    awaited: BTreeMap<u64, (SocketAddr, Instant)>,
    /// When those were dropped last that nobody will answer any more.
    pruned: Option<Instant>,
    /// What those said last that get many of our frames, the median of it: so much may the others lose. One that has a bad way, or
    /// lies, changes little.
    usual_loss: u16,
    /// When the last of those is asked that others watch.
    last_far: Option<Instant>,
    /// One of the moments that are a [`BEAT`] apart.
    beat: Option<Instant>,
}

#[derive(Debug)]
struct PingTarget {
    since: Instant,
    /// As in the queue: [`Pings::plan`].
    next: Instant,
    interval: Duration,
    asked: Option<Instant>,
    measured: Option<Instant>,
    trip: Option<Duration>,
    /// See [`Leg::lost`].
    lost: u16,
    /// Whether whoever answered the last Hello is pinged at another address.
    is_alias: bool,
    /// Whether it was asked as one of those that others watch.
    is_far: bool,
    /// Whether it gets few of our frames, so that its word of what it lost is old, or of a handful.
    hears_little: bool,
}

impl PingTarget {
    /// How long to wait for the next ping.
    fn pause(
        &mut self,
        nearness: Nearness,
        now: Instant,
        last_far: &mut Option<Instant>,
        round: Duration,
    ) -> Duration {
        let silent = self.measured.unwrap_or(self.since);
        if std::mem::take(&mut self.is_alias) && nearness == Nearness::Stranger {
            return SLOW_INTERVAL;
        }
        match nearness {
            Nearness::Heard => self.hears_little = false,
            Nearness::Watched | Nearness::Far | Nearness::Lost => self.hears_little = true,
            Nearness::Stranger | Nearness::Doubtful | Nearness::Asked => {}
        }
        match nearness {
            Nearness::Doubtful => PROBE,
            Nearness::Heard => {
                (self.interval, self.is_far) = (FIRST_INTERVAL, false);
                INTERVAL
            }
            Nearness::Asked => INTERVAL,
            Nearness::Watched => {
                self.is_far = false;
                MEASURE
            }
            Nearness::Far | Nearness::Lost => {
                // The first time soon: its watchers may not have met it.
                if !std::mem::replace(&mut self.is_far, true) {
                    return MEASURE;
                }
                let next = last_far.map_or(now, |last| last + FAR).min(now + round).max(now + MEASURE);
                *last_far = Some(next);
                next - now
            }
            Nearness::Stranger if now.saturating_duration_since(silent) > LONG_SILENT => SLOW_INTERVAL,
            Nearness::Stranger => {
                let pause = self.interval;
                (self.interval, self.is_far) = ((pause * 2).min(INTERVAL), false);
                pause
            }
        }
    }

    /// Whether it is too early for another answer or another challenge.
    fn is_paced(&self, now: Instant) -> bool {
        within(self.asked, now, PROVOKED)
    }

    fn new(now: Instant) -> Self {
        Self {
            since: now,
            next: now,
            interval: FIRST_INTERVAL,
            asked: None,
            measured: None,
            trip: None,
            lost: 0,
            is_alias: false,
            is_far: false,
            hears_little: true,
        }
    }
}

fn within(at: Option<Instant>, now: Instant, pause: Duration) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < pause)
}

/// The last moment until then that is a whole number of [`BEAT`]s after one of them.
fn on_beat(beat: Instant, at: Instant) -> Instant {
    let beats = at.saturating_duration_since(beat).as_micros() / BEAT.as_micros();
    beat + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
}

impl Nearness {
    /// The longest pause before somebody so near is pinged, whatever was planned when it was farther.
    fn most(self) -> Duration {
        match self {
            Self::Doubtful => PROBE,
            Self::Heard | Self::Asked => INTERVAL,
            Self::Watched => MEASURE,
            Self::Stranger => SLOW_INTERVAL,
            Self::Far | Self::Lost => Duration::MAX,
        }
    }
}

impl Pings {
    /// Pings these addresses from now on, and no others, but that strangers who were just answered stay known for a
    /// moment: forgotten, they would be answered again at once. New ones are due at once.
    pub(crate) fn set_targets(&mut self, now: Instant, wanted: &BTreeSet<SocketAddr>) {
        let queue = &mut self.queue;
        self.targets.retain(|addr, target| {
            let stays = wanted.contains(addr) || target.is_paced(now);
            if !stays {
                queue.remove(&(target.next, *addr));
            }
            stays
        });
        for addr in wanted {
            if self.targets.len() >= MAX_TARGETS {
                break;
            }
            self.target(*addr, now);
        }
    }

    /// The pings that are due. A target that is not heard is asked for an answer every time.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        mut nearness: impl FnMut(SocketAddr) -> Nearness,
    ) -> Vec<DuePing> {
        if !within(self.pruned, now, PRUNED) {
            self.pruned = Some(now);
            self.awaited.retain(|_, (_, sent)| now.saturating_duration_since(*sent) < EXPIRY);
        }
        // Each place in the queue is left by somebody sooner or later.
        let round = FAR * u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        let beat = *self.beat.get_or_insert(now);
        let mut due = Vec::new();
        debug_assert_eq!(self.queue.len(), self.targets.len(), "each target is due once");
        while let Some((at, to)) = self.queue.first().copied().filter(|(at, _)| *at <= now) {
            self.queue.remove(&(at, to));
            let Some(target) = self.targets.get_mut(&to) else { continue };
            let near = nearness(to);
            let since = |at: Instant| now.saturating_duration_since(at);
            let mut next = now + target.pause(near, now, &mut self.last_far, round);
            if matches!(near, Nearness::Heard | Nearness::Watched | Nearness::Far | Nearness::Lost) {
                next = on_beat(beat, next);
            }
            target.next = next;
            self.queue.insert((target.next, to));
            let ask = near != Nearness::Heard || target.measured.is_none_or(|at| since(at) >= MEASURE);
            due.push(DuePing { to, ask, near });
        }
        due
    }

    /// Whoever is at an address has become so near: it is due now, if that is sooner than what was planned.
    pub(crate) fn approached(&mut self, now: Instant, addr: SocketAddr, near: Nearness) {
        let next = self.targets.get(&addr).map(|target| target.next);
        if next.is_some_and(|next| next.saturating_duration_since(now) > near.most()) {
            self.plan(addr, now);
        }
    }

    /// A target is due at that time, and no other.
    fn plan(&mut self, addr: SocketAddr, next: Instant) {
        if let Some(target) = self.targets.get_mut(&addr) {
            self.queue.remove(&(target.next, addr));
            target.next = next;
            self.queue.insert((next, addr));
        }
    }

    fn stranger(&mut self, now: Instant, addr: SocketAddr) -> Option<&mut PingTarget> {
        if self.targets.len() >= MAX_TARGETS && !self.targets.contains_key(&addr) {
            return None;
        }
        Some(self.target(addr, now + INTERVAL))
    }

    /// Whether to challenge an address whose frames came from a process that is not admitted.
    pub(crate) fn provoked(&mut self, now: Instant, addr: SocketAddr) -> bool {
        let Some(target) = self.stranger(now, addr) else { return false };
        if within(target.asked, now, PROVOKED) {
            return false;
        }
        target.asked = Some(now);
        true
    }

    /// There is a sign that somebody is at an address that does not answer: it is asked at the pace of a new one from now on,
    /// until it answers. Whether that is due.
    pub(crate) fn looked_for(&mut self, now: Instant, addr: SocketAddr) -> bool {
        let Some(target) = self.targets.get_mut(&addr) else { return false };
        let is_due = !within(target.asked, now, FIRST_INTERVAL);
        if is_due {
            (target.asked, target.interval) = (Some(now), FIRST_INTERVAL);
            self.plan(addr, now + FIRST_INTERVAL);
        }
        is_due
    }

    /// Pings an address from now on, until the targets are set anew.
    pub(crate) fn add_target(&mut self, now: Instant, addr: SocketAddr) {
        let Some(target) = self.stranger(now, addr) else { return };
        target.is_alias = false;
        let next = target.next.min(now + INTERVAL);
        self.plan(addr, next);
    }

    /// Remembers that an answer to `nonce` is wanted.
    pub(crate) fn await_answer(&mut self, now: Instant, to: SocketAddr, nonce: u64) {
        if self.awaited.len() < 2 * MAX_TARGETS {
            self.awaited.insert(nonce, (to, now));
        }
    }

    /// An answer came from the peer at `addr`: how long the round trip took. None if nobody asked, or too
    /// long ago.
    pub(crate) fn answered(&mut self, now: Instant, addr: SocketAddr, nonce: u64) -> Option<Duration> {
        let (_, sent) = self.awaited.remove(&nonce)?;
        let trip = now.saturating_duration_since(sent);
        if trip >= EXPIRY {
            return None;
        }
        self.measured(now, addr, trip);
        Some(trip)
    }

    /// A round trip to `addr` took that long. The new one counts for a quarter, a shorter one for half: queues
    /// only ever add.
    pub(crate) fn measured(&mut self, now: Instant, addr: SocketAddr, trip: Duration) {
        let Some(target) = self.targets.get_mut(&addr) else { return };
        target.measured = Some(now);
        target.trip = Some(match target.trip {
            None => trip,
            Some(before) if trip < before => (before + trip) / 2,
            Some(before) => (before * 3 + trip) / 4,
        });
    }

    /// What the peer at an address said of our frames.
    pub(crate) fn note_lost(&mut self, addr: SocketAddr, lost: u16) {
        if let Some(target) = self.targets.get_mut(&addr) {
            target.lost = lost;
            if !target.hears_little {
                let heard = self.targets.values().filter(|target| !target.hears_little);
                let mut words: Vec<u16> = heard.map(|target| target.lost).collect();
                words.sort_unstable();
                self.usual_loss = words[words.len() / 2];
            }
        }
    }

    /// The way to an address.
    pub(crate) fn leg(&self, addr: SocketAddr) -> Leg {
        let Some(target) = self.targets.get(&addr) else { return Leg { addr, trip: None, lost: 0 } };
        let lost = if target.hears_little { target.lost.max(self.usual_loss) } else { target.lost };
        Leg { addr, trip: target.trip, lost }
    }

    /// The round-trip time to an address, smoothed.
    pub(crate) fn trip(&self, addr: SocketAddr) -> Option<Duration> {
        self.targets.get(&addr)?.trip
    }

    /// Whoever is at an address has another one by which it is pinged: it is a peer, or ourselves. It is asked again from time to
    /// time, because a virtual address may move to another host.
    pub(crate) fn met_elsewhere(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(target) = self.targets.get_mut(&addr) {
            target.is_alias = true;
            self.plan(addr, now + SLOW_INTERVAL);
        }
    }

    /// How many addresses are pinged, and how many answers are waited for.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.targets.len(), self.awaited.len())
    }

    /// When [`Self::due`] has something next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// What is known of an address; it is pinged at `first` if that is nothing.
    fn target(&mut self, addr: SocketAddr, first: Instant) -> &mut PingTarget {
        self.targets.entry(addr).or_insert_with(|| {
            self.queue.insert((first, addr));
            PingTarget::new(first)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 8002))
    }

    /// Who is pinged, and whether it is asked.
    fn asked(due: Vec<DuePing>) -> Vec<(SocketAddr, bool)> {
        due.into_iter().map(|due| (due.to, due.ask)).collect()
    }

    #[test]
    fn a_stranger_is_asked_every_time_and_a_peer_now_and_then() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        pings.set_targets(now, &BTreeSet::from([addr(1)]));
        assert_eq!(asked(pings.due(now, |_| Nearness::Stranger)), [(addr(1), true)]);
        assert!(pings.due(now, |_| Nearness::Stranger).is_empty());
        let again = pings.due(now + FIRST_INTERVAL, |_| Nearness::Stranger);
        assert_eq!(asked(again), [(addr(1), true)]);

        pings.await_answer(now, addr(1), 7);
        assert!(pings.answered(now + Duration::from_millis(8), addr(1), 7).is_some());
        assert!(pings.answered(now, addr(1), 7).is_none(), "an answer counts once");
        assert_eq!(pings.trip(addr(1)), Some(Duration::from_millis(8)));
        assert_eq!(asked(pings.due(now + INTERVAL * 2, |_| Nearness::Heard)), [(addr(1), false)]);
        assert_eq!(asked(pings.due(now + MEASURE * 2, |_| Nearness::Heard)), [(addr(1), true)]);
    }

    #[test]
    fn a_stranger_that_asks_all_the_time_is_challenged_at_a_bounded_pace() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        let mut challenges = 0;
        for at in (0..1_000).map(|ms| now + Duration::from_millis(ms)) {
            // As after a round of gossip: whom nobody wants pinged has its pace all the same.
            pings.set_targets(at, &BTreeSet::new());
            challenges += u32::from(pings.provoked(at, addr(1)));
        }
        assert_eq!(challenges, 2);
        pings.set_targets(now + Duration::from_secs(2), &BTreeSet::new());
        assert!(pings.targets.is_empty(), "and is forgotten when it is quiet");
        for n in 0..=u16::try_from(MAX_TARGETS).unwrap() {
            let [high, low] = n.to_be_bytes();
            pings.provoked(now, SocketAddr::from(([10, 1, high, low], 1)));
        }
        assert_eq!(pings.targets.len(), MAX_TARGETS);
    }

    #[test]
    fn a_doubtful_peer_is_asked_again_and_again_at_once() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        pings.set_targets(now, &BTreeSet::from([addr(1)]));
        pings.due(now, |_| Nearness::Heard);
        let mut at = now + Duration::from_millis(10);
        pings.approached(at, addr(1), Nearness::Doubtful);
        for _ in 0..5 {
            assert_eq!(asked(pings.due(at, |_| Nearness::Doubtful)), [(addr(1), true)]);
            assert!(pings.due(at, |_| Nearness::Doubtful).is_empty());
            at += PROBE;
        }
    }

    #[test]
    fn whoever_hears_little_of_us_may_lose_what_the_others_do() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        pings.set_targets(now, &(1..=3).map(addr).collect());
        let nearness = |to| match to {
            to if to == addr(1) => Nearness::Heard,
            to if to == addr(2) => Nearness::Watched,
            _ => Nearness::Far,
        };
        pings.due(now, nearness);
        for _ in 0..64 {
            pings.note_lost(addr(1), 200);
            // Of the few frames that it got.
            pings.note_lost(addr(2), 0);
        }
        let lost = |pings: &Pings| [1, 2, 3].map(|n| pings.leg(addr(n)).lost);
        assert!(lost(&pings).into_iter().all(|lost| (180..=200).contains(&lost)), "{:?}", lost(&pings));
        pings.note_lost(addr(3), 500);
        assert_eq!((lost(&pings)[0], lost(&pings)[2]), (200, 500));
    }

    #[test]
    fn pings_in_no_hurry_are_due_together() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        let mut moments = BTreeSet::new();
        for n in 1..=100 {
            // Met one after the other.
            pings.add_target(now + Duration::from_millis(n * 7), addr(u8::try_from(n).unwrap()));
        }
        let (mut at, end) = (now, now + Duration::from_secs(10));
        while at < end {
            if !pings.due(at, |_| Nearness::Heard).is_empty() && at > now + Duration::from_secs(2) {
                moments.insert(at);
            }
            at = pings.next_deadline().unwrap().max(at + Duration::from_millis(1));
        }
        assert!(moments.len() <= 34, "{} moments in 8 s", moments.len());
    }

    #[test]
    fn who_is_silent_for_long_is_asked_less_often() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        pings.set_targets(now, &BTreeSet::from([addr(1)]));
        let late = now + LONG_SILENT * 2;
        assert_eq!(pings.due(late, |_| Nearness::Stranger).len(), 1);
        assert!(pings.due(late + INTERVAL, |_| Nearness::Stranger).is_empty());
        assert_eq!(pings.due(late + SLOW_INTERVAL, |_| Nearness::Stranger).len(), 1);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_or_is_late_says_nothing() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        assert!(pings.answered(now, addr(1), 7).is_none());
        pings.await_answer(now, addr(1), 7);
        assert!(pings.answered(now + EXPIRY, addr(1), 7).is_none());
    }

    #[test]
    fn provocations_are_answered_at_a_bounded_pace() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        assert!(pings.provoked(now, addr(1)));
        assert!(!pings.provoked(now, addr(1)));
        assert!(pings.provoked(now + PROVOKED, addr(1)));
    }

    #[test]
    fn our_own_address_is_left_alone_for_a_while() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        let wanted = BTreeSet::from([addr(1), addr(2)]);
        pings.set_targets(now, &wanted);
        pings.met_elsewhere(now, addr(1));
        pings.set_targets(now, &wanted);
        assert_eq!(asked(pings.due(now, |_| Nearness::Stranger)), [(addr(2), true)]);
        let later = now + SLOW_INTERVAL;
        assert_eq!(pings.due(later, |_| Nearness::Stranger).len(), 2, "it may have moved to another host");
    }
}
