//! Push: fresh changes go to every peer at once, are acknowledged, and are said again to those that did not
//! answer, a few times at the pace of their round trips; where frames get lost, each time as some copies. What is missed after
//! that, repair brings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ping::Leg;
use super::wire;
use crate::capacity::GiveBack as _;
use crate::codec::encode_cell;
use crate::record::Generation;
use crate::slot::{Cell, Change, Slot, Version};

/// The first change goes out at once; those of the next moments share a frame.
pub(crate) const COALESCE: Duration = Duration::from_millis(2);
/// Bytes of changes in one frame: with header, seal and IP it stays under the 1,200 that go by UDP, even if
/// nothing compresses.
const FRAME_BYTES: usize = 1_050;
/// Frames of one flush; a larger burst goes on with the next.
const FRAMES_PER_FLUSH: usize = 16;
/// How often a push is said to a peer that does not answer, the first time included. At 20 % loss each way, 6
/// leave one change in 2,100 to repair, without copies.
const TRIES: u32 = 6;
/// Where frames get lost, a try is as many copies as make it rarer than this that some peer gets none of them,
const RARE: f64 = 1e-3;
/// and as for so many peers at least,
const FEW: usize = 10;
/// but at most so many,
const MOST_COPIES: u32 = 10;
/// and this apart: a queue that was full has room again, and whoever is near has answered, so that there is no copy.
const COPY: Duration = Duration::from_millis(3);
/// What loses one frame may lose all for some ten milliseconds. Over a leg whose next try is far off, one more copy goes so much later.
const LATE: Duration = Duration::from_millis(60);
/// Bounds of the time until a push is said again.
const RETRY: (Duration, Duration) = (Duration::from_millis(12), Duration::from_millis(500));
/// The same while a peer's round trip is not known.
const RETRY_UNKNOWN: Duration = Duration::from_millis(25);
/// Pushes that wait for acks; beyond, the oldest is left to repair.
pub(super) const MAX_WAITING: usize = 2_048;

const EMPTY: wire::Push<'static> =
    wire::Push { age_us: 0, id: 0, former: None, since: 0, until: 0, changes: Vec::new() };

/// A push frame's content, to be sealed once and sent to each of the peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// The encoded [`wire::Push`].
    pub payload: Arc<[u8]>,
    /// Its receivers.
    pub to: Vec<SocketAddr>,
}

/// Changes that wait to be pushed, and pushes that wait to be acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Pusher {
    /// In the order in which they were said.
    fresh: BTreeMap<Version, Fresh>,
    /// Where a slot's change is among them.
    places: HashMap<Slot, Version>,
    /// All to here is in some push, or was when there was nobody to be told.
    told: Version,
    /// All that was ever to be pushed.
    last: Version,
    flushed: Option<Instant>,
    waiting: BTreeMap<u64, Waiting>,
    last_id: u64,
    /// Pushes given up on, to some peer.
    pub given_up: u64,
}

/// A change that is to be pushed.
#[derive(Debug)]
struct Fresh {
    slot: Slot,
    cell: Cell,
    published: Instant,
}

#[derive(Debug)]
struct Waiting {
    /// The encoded [`wire::Push`] without its age.
    rest: Vec<u8>,
    /// When its oldest change was published.
    born: Instant,
    sent: Instant,
    /// No later than the first retry; acks leave it as it is.
    due: Instant,
    peers: BTreeMap<SocketAddr, Retry>,
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    /// Between the last copy of a try and the next try.
    interval: Duration,
    /// Copies of this try that are to follow.
    copies: u32,
    /// Of each, after the first frame.
    more: u32,
    tries: u32,
}

impl Pusher {
    /// Takes changes to be pushed by the next [`Self::flush`]; a newer change of a slot replaces an older.
    pub(crate) fn add(&mut self, now: Instant, changes: Vec<Change>) {
        for Change { slot, cell } in changes {
            self.last = self.last.max(cell.version);
            let version = cell.version;
            if let Some(older) = self.places.insert(slot, version) {
                self.fresh.remove(&older);
            }
            self.fresh.insert(version, Fresh { slot, cell, published: now });
        }
    }

    /// Takes changes that nobody is to be told of, as there is nobody: at a start those may be a hundred thousand.
    pub(crate) fn skip(&mut self, changes: &[Change]) {
        let versions = changes.iter().map(|change| change.cell.version);
        self.last = versions.fold(self.last, Version::max);
        self.fresh.clear();
        self.places.clear();
        self.told = self.last;
    }

    /// Frames with fresh changes for `peers`, if it is time for them.
    pub(crate) fn flush(&mut self, now: Instant, peers: &[Leg]) -> Vec<Outgoing> {
        if !self.is_due(now) {
            return Vec::new();
        }
        if peers.is_empty() {
            self.skip(&[]);
            return Vec::new();
        }
        self.flushed = Some(now);
        let mut frames = Vec::new();
        while frames.len() < FRAMES_PER_FLUSH && !self.fresh.is_empty() {
            frames.push(self.next_frame(now, peers));
        }
        if self.fresh.is_empty() {
            self.places.give_back();
        }
        self.bound_waiting();
        frames
    }

    /// Pushes to say again, each to the peers that have not answered for too long; and the peers, each once, that have left all
    /// tries of a push without an answer.
    pub(crate) fn retry(&mut self, now: Instant) -> (Vec<Outgoing>, BTreeSet<SocketAddr>) {
        let (mut frames, mut silent) = (Vec::new(), BTreeSet::new());
        let Self { waiting, given_up, .. } = self;
        waiting.retain(|_, push| {
            if push.due > now {
                return true;
            }
            push.peers.retain(|addr, retry| {
                let done = retry.at <= now && retry.copies == 0 && retry.tries >= TRIES;
                if done {
                    *given_up += 1;
                    silent.insert(*addr);
                }
                !done
            });
            let due = push.peers.iter_mut().filter(|(_, retry)| retry.at <= now);
            let to: Vec<SocketAddr> = due.map(|(addr, retry)| retry.again(now, *addr)).collect();
            if !to.is_empty() {
                frames.push(Outgoing { payload: push.payload(now), to });
            }
            push.due = push.peers.values().map(|retry| retry.at).min().unwrap_or(now);
            !push.peers.is_empty()
        });
        (frames, silent)
    }

    /// A peer has it. The round-trip time, if the push was sent to it only once.
    pub(crate) fn acked(&mut self, now: Instant, id: u64, from: SocketAddr) -> Option<Duration> {
        let push = self.waiting.get_mut(&id)?;
        let retry = push.peers.remove(&from)?;
        let trip = retry.is_first().then(|| now.saturating_duration_since(push.sent));
        if push.peers.is_empty() {
            self.waiting.remove(&id);
        }
        trip
    }

    /// When [`Self::flush`] or [`Self::retry`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let retry = self.waiting.values().map(|push| push.due).min();
        let flush = if self.fresh.is_empty() { None } else { self.next_flush() };
        retry.into_iter().chain(flush).min()
    }

    /// How far pushes have come: all that was said up to here was in one, or there was nobody to be told.
    pub(crate) fn told(&self) -> Version {
        self.told
    }

    /// Whether there is nothing to push and nothing to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        self.fresh.is_empty() && self.waiting.is_empty()
    }

    /// How many pushes wait for acks.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether [`Self::flush`] has something to say.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        !self.fresh.is_empty() && self.next_flush().is_none_or(|at| at <= now)
    }

    fn next_flush(&self) -> Option<Instant> {
        self.flushed.map(|at| at + COALESCE)
    }

    fn next_frame(&mut self, now: Instant, peers: &[Leg]) -> Outgoing {
        let mut changes: Vec<(Slot, Vec<u8>)> = Vec::new();
        let (mut bytes, mut born, mut until) = (0, now, self.told);
        while let Some(first) = self.fresh.first_entry() {
            let mut value = Vec::new();
            encode_cell(&first.get().cell, &mut value);
            bytes += value.len() + 2 * size_of::<Slot>();
            if bytes > FRAME_BYTES && !changes.is_empty() {
                break;
            }
            let Fresh { slot, cell, published } = first.remove();
            self.places.remove(&slot);
            until = cell.version;
            born = born.min(published);
            changes.push((slot, value));
        }
        if self.fresh.is_empty() {
            until = self.last;
        }
        let since = std::mem::replace(&mut self.told, until);
        let changes = changes.iter().map(|(slot, value)| (*slot, value.as_slice())).collect();
        let push = wire::Push { since, until, changes, ..EMPTY };
        self.send(now, born, push, peers)
    }

    /// Says back to one peer what its start of that generation said: at once, and again as every push.
    pub(crate) fn say_back(
        &mut self,
        now: Instant,
        former: Generation,
        changes: Vec<(Slot, &[u8])>,
        peer: Leg,
    ) -> Outgoing {
        let push = wire::Push { former: Some(former), changes, ..EMPTY };
        let outgoing = self.send(now, now, push, &[peer]);
        self.bound_waiting();
        outgoing
    }

    fn send(&mut self, now: Instant, born: Instant, push: wire::Push<'_>, peers: &[Leg]) -> Outgoing {
        self.last_id += 1;
        let rest = wire::encode(&wire::Push { age_us: 0, id: self.last_id, ..push }).split_off(1);
        let retries: BTreeMap<_, _> =
            peers.iter().map(|leg| (leg.addr, Retry::first(now, leg, peers.len()))).collect();
        let due = retries.values().map(|retry| retry.at).min().unwrap_or(now);
        let waiting = Waiting { rest, born, sent: now, due, peers: retries };
        let payload = waiting.payload(now);
        self.waiting.insert(self.last_id, waiting);
        Outgoing { payload, to: peers.iter().map(|leg| leg.addr).collect() }
    }

    fn bound_waiting(&mut self) {
        while self.waiting.len() > MAX_WAITING
            && let Some((_, oldest)) = self.waiting.pop_first()
        {
            self.given_up += oldest.peers.len() as u64;
        }
    }
}

impl Waiting {
    /// With its age as of now, which stands first.
    fn payload(&self, now: Instant) -> Arc<[u8]> {
        let age = now.saturating_duration_since(self.born).as_micros();
        let mut payload = wire::encode(&u32::try_from(age).unwrap_or(u32::MAX));
        payload.extend_from_slice(&self.rest);
        payload.into()
    }
}

impl Retry {
    fn first(now: Instant, leg: &Leg, among: usize) -> Self {
        let interval =
            leg.trip.map_or(RETRY_UNKNOWN, |trip| (trip * 3 / 2 + RETRY.0 / 2).clamp(RETRY.0, RETRY.1));
        let late = leg.lost > 0 && is_far(interval);
        let more = copies(leg.lost, among) - 1 + u32::from(late);
        let mut first = Self { at: now, interval, copies: more, more, tries: 1 };
        first.at += first.pause();
        first
    }

    /// Counts a copy, or a try, which waits a quarter longer than the one before.
    fn again(&mut self, now: Instant, addr: SocketAddr) -> SocketAddr {
        if self.copies > 0 {
            self.copies -= 1;
        } else {
            self.tries += 1;
            self.interval = (self.interval * 5 / 4).min(RETRY.1);
            self.copies = self.more;
        }
        self.at = now + self.pause();
        addr
    }

    /// Until the next copy, or the next try.
    fn pause(&self) -> Duration {
        match self.copies {
            0 => self.interval,
            1 if is_far(self.interval) => LATE,
            _ => COPY,
        }
    }

    /// Whether nothing but the first frame was sent.
    fn is_first(&self) -> bool {
        self.tries == 1 && self.copies == self.more
    }
}

/// Whether the next try is far off.
fn is_far(interval: Duration) -> bool {
    interval > 2 * LATE
}

/// Where so many frames in a thousand get lost, as how many copies one goes to each of so many peers.
fn copies(lost: u16, among: usize) -> u32 {
    let lost = f64::from(lost.min(1_000)) / 1_000.0;
    let among = f64::from(u32::try_from(among.max(FEW)).unwrap_or(u32::MAX));
    let (mut copies, mut all) = (1, lost * among);
    while all > RARE && copies < MOST_COPIES {
        (copies, all) = (copies + 1, all * lost);
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Content;

    fn change(slot: Slot) -> Change {
        Change { slot, cell: Cell { version: u64::from(slot), content: Content::Empty } }
    }

    fn peers() -> Vec<Leg> {
        let leg = |n| Leg { addr: SocketAddr::from(([10, 0, 0, n], 8002)), trip: None, lost: 0 };
        [1, 2].map(leg).to_vec()
    }

    fn slots_of(frame: &Outgoing) -> Vec<Slot> {
        let push: wire::Push<'_> = wire::decode(&frame.payload).unwrap();
        push.changes.iter().map(|(slot, _)| *slot).collect()
    }

    #[test]
    fn the_first_change_goes_at_once_and_the_next_ones_together() {
        let (mut pusher, now) = (Pusher::default(), Instant::now());
        pusher.add(now, vec![change(1)]);
        assert_eq!(slots_of(&pusher.flush(now, &peers())[0]), [1]);
        pusher.add(now, vec![change(2)]);
        assert!(pusher.flush(now, &peers()).is_empty());
        pusher.add(now, vec![change(3), change(2)]);
        assert_eq!(pusher.next_deadline(), Some(now + COALESCE));
        let frames = pusher.flush(now + COALESCE, &peers());
        assert_eq!((frames.len(), slots_of(&frames[0])), (1, vec![2, 3]));
    }

    /// A peer that came later would take the next push for all that was ever said, and miss the rest for good.
    #[test]
    fn a_push_says_nothing_of_what_was_said_while_nobody_was_there() {
        let (mut pusher, now) = (Pusher::default(), Instant::now());
        pusher.skip(&[change(1), change(2)]);
        assert!(pusher.is_settled() && pusher.flush(now, &peers()).is_empty());
        let seen = change(3);
        let (before, until) = (pusher.told(), seen.cell.version);
        pusher.add(now, vec![seen]);
        let frames = pusher.flush(now, &peers());
        let push: wire::Push<'_> = wire::decode(&frames[0].payload).unwrap();
        assert_eq!((before, push.since, push.until), (change(2).cell.version, before, until));
    }

    #[test]
    fn only_the_silent_are_told_again_and_not_for_ever() {
        let (mut pusher, mut now) = (Pusher::default(), Instant::now());
        let peers = peers();
        pusher.add(now, vec![change(1)]);
        pusher.flush(now, &peers);
        now += Duration::from_millis(3);
        assert_eq!(pusher.acked(now, 1, peers[0].addr), Some(Duration::from_millis(3)));
        let mut frames = 1;
        while let Some(at) = pusher.next_deadline() {
            for frame in pusher.retry(at).0 {
                assert_eq!(frame.to, [peers[1].addr]);
                frames += 1;
            }
        }
        assert_eq!((frames, pusher.given_up, pusher.waiting()), (TRIES, 1, 0));
    }

    #[test]
    fn an_ack_after_a_second_try_tells_no_round_trip() {
        let (mut pusher, now) = (Pusher::default(), Instant::now());
        pusher.add(now, vec![change(1)]);
        pusher.flush(now, &peers());
        pusher.retry(now + RETRY_UNKNOWN);
        assert_eq!(pusher.acked(now + RETRY_UNKNOWN, 1, peers()[0].addr), None);
    }

    #[test]
    fn where_frames_get_lost_each_try_is_copies_and_an_ack_spares_the_rest() {
        let losses = [0, 1, 16, 50, 200, 1_000, u16::MAX];
        assert_eq!(losses.map(|lost| copies(lost, 2)), [1, 2, 3, 4, 6, 10, 10]);
        assert_eq!(losses.map(|lost| copies(lost, 1_000)), [1, 2, 4, 5, 9, 10, 10]);
        let (mut pusher, now) = (Pusher::default(), Instant::now());
        let lossy = |leg: Leg| Leg { lost: 50, trip: Some(Duration::from_millis(300)), ..leg };
        let peers: Vec<Leg> = peers().into_iter().map(lossy).collect();
        pusher.add(now, vec![change(1)]);
        assert_eq!(pusher.flush(now, &peers)[0].to.len(), 2);
        assert_eq!(pusher.next_deadline(), Some(now + COPY));
        assert_eq!(pusher.retry(now + COPY).0[0].to.len(), 2);
        assert_eq!(pusher.acked(now + COPY, 1, peers[0].addr), None, "of which copy is not known");
        assert_eq!(pusher.retry(now + COPY * 2).0[0].to, [peers[1].addr]);
        assert_eq!(pusher.retry(now + COPY * 3).0[0].to, [peers[1].addr]);
        assert_eq!(pusher.retry(now + COPY * 3 + LATE).0[0].to, [peers[1].addr], "when a bad moment is over");
        let again = pusher.next_deadline().unwrap();
        assert!(again > now + Duration::from_millis(450), "no more before the round trip is over");
        let mut frames = 5;
        while let Some(at) = pusher.next_deadline() {
            frames += u32::try_from(pusher.retry(at).0.len()).unwrap();
        }
        assert_eq!((frames, pusher.given_up), (5 * TRIES, 1));
    }

    #[test]
    fn a_burst_is_cut_into_frames_and_flushes_and_nothing_waits_without_bound() {
        let (mut pusher, mut now) = (Pusher::default(), Instant::now());
        pusher.add(now, (1..=100_000).map(change).collect());
        let mut told = 0;
        while let Some(frames) = Some(pusher.flush(now, &peers())).filter(|frames| !frames.is_empty()) {
            assert!(frames.len() <= FRAMES_PER_FLUSH);
            assert!(frames.iter().all(|frame| frame.payload.len() <= FRAME_BYTES));
            told += frames.iter().map(|frame| slots_of(frame).len()).sum::<usize>();
            now += COALESCE;
        }
        assert_eq!(told, 100_000);
        assert_eq!(pusher.places.capacity(), 0, "the burst is over");
        assert!(pusher.waiting() <= MAX_WAITING);
    }

    #[test]
    fn without_peers_nothing_is_kept() {
        let (mut pusher, now) = (Pusher::default(), Instant::now());
        pusher.add(now, vec![change(1)]);
        assert!(pusher.flush(Instant::now(), &[]).is_empty());
        assert_eq!(pusher.next_deadline(), None);
    }
}
