//! Repair: what pushes missed, and all that a newcomer needs, is asked for and told in parts, one at a time for each
//! owner. Whom to ask, and when, is the link's matter; what there is to tell, the agent's.
//!
//! Asked is for what an owner said after a version, from a slot on. The first part says how far its teller goes; when the
//! last one has come, that is known here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{self, Answer, Question};
use crate::codec::encode_cell;
use crate::record::Owner;
use crate::replica::{Extent, Part};
use crate::replicas::MAX_AGENTS;
use crate::slot::{Change, MAX_SLOT, Slot, Version};

/// An unanswered question is asked again after a round trip and a bit, but not sooner than this, and after twice as long
/// each time: the first is in vain if the peer has not admitted us yet. An answer that is merely slow is told twice.
const PATIENCE: Duration = Duration::from_millis(25);
/// The same while the round trip is not known.
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(700);
/// How often; then it is left to the next sign that something is missing.
const TRIES: u32 = 5;
/// Questions that are open at a time: of more owners than there can be. A bound against made-up ones.
pub(super) const MAX_QUESTIONS: usize = 2 * MAX_AGENTS;
/// Bytes of changes in one answer, so that it fits the largest payload with all around them.
pub(super) const ANSWER_BYTES: usize = 60_000;
/// The same for an answer that has to fit a datagram, because TCP does not get through.
pub(super) const PIECE_BYTES: usize = 1_000;

/// The questions that are open.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    open: BTreeMap<Owner, Asking>,
    /// Not after any of them is due.
    next: Option<Instant>,
    /// The id of the last question.
    last: u64,
}

#[derive(Debug)]
struct Asking {
    peer: SocketAddr,
    /// What is known.
    after: Version,
    /// From where on it is asked.
    from: Slot,
    /// Of the question that is open.
    id: u64,
    /// What the parts so far were told as.
    begun: Option<Begun>,
    /// The round trip to the peer.
    trip: Option<Duration>,
    /// When it is asked again.
    due: Instant,
    tries: u32,
}

/// The first part's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    until: Version,
    whole: bool,
}

/// A question, to be sealed and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Who is asked.
    pub peer: SocketAddr,
    /// The encoded [`Question`].
    pub payload: Vec<u8>,
}

/// What an answer brings.
#[derive(Debug)]
pub(crate) struct RepairPart<'a> {
    /// Whose slots.
    pub owner: Owner,
    /// What was said of them: slots and their values.
    pub values: Vec<(Slot, &'a [u8])>,
    /// Values that are left out, because they were not in their place.
    pub misplaced: usize,
    /// How much that is of all that was said.
    pub extent: Extent,
    /// What to ask next, if that was not all.
    pub next: Option<Ask>,
}

impl Repairs {
    /// Asks a peer, so far away, for what an owner said after a version, unless that is being asked already.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        owner: &Owner,
        after: Version,
        (peer, trip): (SocketAddr, Option<Duration>),
    ) -> Option<Ask> {
        if self.asks(owner) || self.open.len() >= MAX_QUESTIONS {
            return None;
        }
        self.last += 1;
        let mut asking =
            Asking { peer, after, from: 0, id: self.last, begun: None, trip, due: now, tries: 0 };
        let ask = asking.ask(now, owner);
        sooner(&mut self.next, asking.due);
        self.open.insert(owner.clone(), asking);
        Some(ask)
    }

    /// Whether something of an owner is being asked.
    pub(crate) fn asks(&self, owner: &Owner) -> bool {
        self.open.contains_key(owner)
    }

    /// Takes an answer; nothing if it is none to an open question.
    pub(crate) fn take<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        answer: Answer<'a>,
    ) -> Option<RepairPart<'a>> {
        let owner = Owner { name: answer.name.parse().ok()?, generation: answer.generation };
        let asking = self.open.get_mut(&owner).filter(|asking| asking.is_answered_by(from, &answer))?;
        self.last += 1;
        let id = self.last;
        let until = answer.until;
        let word = Begun { until, whole: answer.whole };
        let begun = *asking.begun.get_or_insert(word);
        if begun.whole != word.whole {
            // What became empty since our version was dropped meanwhile: from the start.
            (asking.begun, asking.from, asking.id, asking.tries) = (None, 0, id, 0);
            let next = Some(asking.ask(now, &owner));
            sooner(&mut self.next, asking.due);
            let extent = Extent::default();
            return Some(RepairPart { owner, values: Vec::new(), misplaced: 0, extent, next });
        }
        if until < begun.until {
            // It was made before the first part was, for an earlier question; or by somebody who has forgotten all meanwhile.
            // It would have us believe that we know what it does not tell.
            return None;
        }
        let (mut values, mut lowest) = (answer.changes, asking.from);
        let said = values.len();
        values.retain(|(slot, _)| {
            let in_order = *slot >= lowest;
            lowest = lowest.max(slot.saturating_add(1));
            in_order
        });
        let misplaced = said - values.len();
        let end = answer.next.unwrap_or(MAX_SLOT + 1);
        let whole = begun.whole.then_some((asking.from..end, begun.until));
        let mut extent = Extent { whole, ..Extent::default() };
        let next = answer.next.map(|next| {
            (asking.from, asking.id, asking.tries) = (next, id, 0);
            let ask = asking.ask(now, &owner);
            sooner(&mut self.next, asking.due);
            ask
        });
        if next.is_none() {
            extent.since = if begun.whole { 0 } else { asking.after };
            extent.until = begun.until;
            self.open.remove(&owner);
        }
        Some(RepairPart { owner, values, misplaced, extent, next })
    }

    /// Questions to ask again.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Ask> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        self.open.retain(|_, asking| asking.due > now || asking.tries < TRIES);
        let due = self.open.iter_mut().filter(|(_, asking)| asking.due <= now);
        let asked = due.map(|(owner, asking)| asking.ask(now, owner)).collect();
        self.next = self.open.values().map(|asking| asking.due).min();
        asked
    }

    /// When [`Self::due`] may have something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Asks no more for an owner: what is told of it later is not taken.
    pub(crate) fn forget(&mut self, owner: &Owner) {
        self.open.remove(owner);
    }

    /// How many questions are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

fn sooner(next: &mut Option<Instant>, due: Instant) {
    *next = Some(next.map_or(due, |next| next.min(due)));
}

impl Asking {
    fn ask(&mut self, now: Instant, owner: &Owner) -> Ask {
        let patience = self.trip.map_or(PATIENCE_UNKNOWN, |trip| trip * 5 / 4);
        self.due = now + patience.max(PATIENCE * (1 << self.tries));
        self.tries += 1;
        let question = Question {
            name: owner.name.as_str(),
            generation: owner.generation,
            after: self.after,
            from: self.from,
            id: self.id,
        };
        Ask { peer: self.peer, payload: wire::encode(&question) }
    }

    fn is_answered_by(&self, from: SocketAddr, answer: &Answer<'_>) -> bool {
        let is_its = (answer.id, answer.after, answer.from) == (self.id, self.after, self.from);
        self.peer == from && is_its && answer.next.is_none_or(|next| next > self.from)
    }
}

/// The encoded [`Answer`] to a question, given what there is to tell, with at most so many bytes of changes; but with one
/// change at least.
pub(crate) fn answer(question: &Question<'_>, part: Option<Part>, most: usize) -> Vec<u8> {
    // Nothing is known of it: told so, the peer asks somebody else the next time.
    let part = part.unwrap_or(Part { changes: Vec::new(), next: None, whole: false, until: 0 });
    let (mut values, mut bytes, mut next) = (Vec::with_capacity(part.changes.len()), 0, part.next);
    for Change { slot, cell } in part.changes {
        let mut value = Vec::new();
        encode_cell(&cell, &mut value);
        bytes += value.len() + 2 * size_of::<Slot>();
        if bytes > most && !values.is_empty() {
            next = Some(slot);
            break;
        }
        values.push((slot, value));
    }
    wire::encode(&Answer {
        name: question.name,
        generation: question.generation,
        id: question.id,
        after: question.after,
        from: question.from,
        next,
        whole: part.whole,
        until: part.until,
        changes: values.iter().map(|(slot, value)| (*slot, value.as_slice())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::decode_cell;
    use crate::record::{MAX_FIELD, Network, Record};
    use crate::replica::Replica;
    use crate::slot::{Content, Status, Versions, Write};

    fn owner() -> Owner {
        Owner { name: "a".parse().unwrap(), generation: 7 }
    }

    fn peer(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 8002))
    }

    /// An owner's own copy, with records as long as they may be.
    fn full(records: usize) -> Replica {
        let (mut replica, mut versions) = (Replica::new(Arc::new(owner())), Versions::default());
        let long = "x".repeat(MAX_FIELD - 8);
        let record = |n| Record {
            id: format!("{n}{long}").into(),
            name: long.clone().into(),
            node: long.clone().into(),
            network: Network::Tcp,
            address: "10.0.0.1:80".into(),
        };
        let records = (1..).zip(0..records).map(|(slot, n)| {
            let content = Content::Record(Arc::new(record(n)));
            Write { slot, content }
        });
        for write in records.chain([Write::status(Status::Ready)]) {
            let change = versions.change(write);
            replica.take(Instant::now(), &change);
            replica.reach(replica.version(), change.cell.version);
        }
        replica
    }

    /// What comes of a question to somebody who has this copy.
    fn reply(
        repairs: &mut Repairs,
        now: Instant,
        of: &Replica,
        ask: &Ask,
    ) -> (Vec<Change>, Extent, Option<Ask>) {
        let question: Question<'_> = wire::decode(&ask.payload).unwrap();
        let part = of.part(question.after, question.from);
        let answer = answer(&question, part, ANSWER_BYTES);
        assert!(answer.len() <= wire::MAX_PAYLOAD);
        let RepairPart { values, extent, next, misplaced: 0, .. } =
            repairs.take(now, ask.peer, wire::decode(&answer).unwrap()).unwrap()
        else {
            panic!("out of order")
        };
        let change = |(slot, value)| Change { slot, cell: decode_cell(slot, value).unwrap() };
        (values.into_iter().map(change).collect(), extent, next)
    }

    #[test]
    fn a_copy_comes_in_parts_and_is_complete_with_the_last() {
        let (theirs, mut ours) = (full(500), Replica::new(Arc::new(owner())));
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let mut ask = repairs.ask(now, &owner(), 0, (peer(1), None));
        assert!(repairs.ask(now, &owner(), 0, (peer(2), None)).is_none(), "it is being asked");
        let mut parts = 0;
        while let Some(asked) = ask {
            assert_eq!(ours.version(), 0);
            let (changes, extent, next) = reply(&mut repairs, now, &theirs, &asked);
            for change in &changes {
                ours.take(now, change);
            }
            ours.reach(extent.since, extent.until);
            (ask, parts) = (next, parts + 1);
        }
        assert_eq!((ours.version(), ours.cells().iter().count()), (theirs.version(), 501));
        assert!(parts > 10 && repairs.len() == 0);
    }

    #[test]
    fn only_whoever_was_asked_is_listened_to_and_only_for_that() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let ask = repairs.ask(now, &owner(), 0, (peer(1), None)).unwrap();
        let told = answer(&wire::decode(&ask.payload).unwrap(), full(1).part(0, 0), ANSWER_BYTES);
        let told = || wire::decode::<Answer<'_>>(&told).unwrap();
        assert!(repairs.take(now, peer(2), told()).is_none());
        assert!(repairs.take(now, peer(1), Answer { generation: 8, ..told() }).is_none());
        assert!(repairs.take(now, peer(1), Answer { from: 5, ..told() }).is_none());
        assert!(repairs.take(now, peer(1), Answer { id: 9, ..told() }).is_none(), "to another question");
        assert!(repairs.take(now, peer(1), Answer { after: 1, ..told() }).is_none());
        assert!(repairs.take(now, peer(1), Answer { next: Some(0), ..told() }).is_none(), "in circles");
        assert_eq!(repairs.take(now, peer(1), told()).unwrap().values.len(), 2);
        assert!(repairs.take(now, peer(1), told()).is_none(), "once");
    }

    #[test]
    fn a_question_is_asked_again_a_few_times_each_after_a_longer_while() {
        for (trip, waits) in [
            (None, [700, 700, 700, 700, 700]),
            (Some(Duration::from_millis(1)), [25, 50, 100, 200, 400]),
            (Some(Duration::from_millis(100)), [125, 125, 125, 200, 400]),
        ] {
            let (mut repairs, mut now) = (Repairs::default(), Instant::now());
            let first = repairs.ask(now, &owner(), 0, (peer(1), trip)).unwrap();
            for (wait, again) in waits.into_iter().zip([true, true, true, true, false]) {
                let wait = Duration::from_millis(wait);
                assert_eq!(repairs.next_deadline(), Some(now + wait), "{trip:?}");
                assert!(repairs.due(now).is_empty());
                now += wait;
                assert_eq!(repairs.due(now), vec![first.clone(); again.into()]);
            }
            assert!(repairs.len() == 0 && repairs.next_deadline().is_none());
        }
    }

    #[test]
    fn a_part_from_before_the_first_one_is_not_listened_to() {
        let (now, after) = (Instant::now(), 3);
        for whole in [false, true] {
            let mut repairs = Repairs::default();
            let part = |from, next, until, changes| Answer {
                name: "a",
                generation: 7,
                id: if from == 0 { 1 } else { 2 },
                after,
                from,
                next,
                whole,
                until,
                changes,
            };
            repairs.ask(now, &owner(), after, (peer(1), None)).unwrap();
            repairs.take(now, peer(1), part(0, Some(10), 9, vec![(3, &b"-5"[..])])).unwrap();
            let earlier = part(10, None, 8, vec![(12, &b"-6"[..])]);
            assert!(repairs.take(now, peer(1), earlier).is_none(), "another slot was written since");
            let forgotten = part(10, None, 0, Vec::new());
            assert!(repairs.take(now, peer(1), forgotten).is_none());
            let told = repairs
                .take(now, peer(1), part(10, None, 10, vec![(12, &b"-6"[..]), (13, &b"-9"[..])]))
                .unwrap();
            assert_eq!((told.values.len(), told.extent.until), (2, 9));
        }
    }

    #[test]
    fn where_tcp_does_not_get_through_a_copy_comes_in_pieces_that_fit_datagrams() {
        let (theirs, now) = (full(10), Instant::now());
        let (mut repairs, mut ours) = (Repairs::default(), Replica::new(Arc::new(owner())));
        let mut ask = repairs.ask(now, &owner(), 0, (peer(1), None));
        let mut pieces = 0;
        while let Some(asked) = ask {
            let question: Question<'_> = wire::decode(&asked.payload).unwrap();
            let piece = answer(&question, theirs.part(question.after, question.from), PIECE_BYTES);
            let told = repairs.take(now, peer(1), wire::decode(&piece).unwrap()).unwrap();
            assert!(told.values.len() == 1 || piece.len() < PIECE_BYTES + 100, "{}", piece.len());
            for (slot, value) in told.values {
                ours.take(now, &Change { slot, cell: decode_cell(slot, value).unwrap() });
            }
            ours.reach(told.extent.since, told.extent.until);
            (ask, pieces) = (told.next, pieces + 1);
        }
        assert!(ours.version() == theirs.version() && pieces >= 10, "{pieces} pieces");
    }

    #[test]
    fn whoever_knows_nothing_says_so() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let ask = repairs.ask(now, &owner(), 0, (peer(1), None)).unwrap();
        let (changes, extent, next) = reply(&mut repairs, now, &Replica::new(Arc::new(owner())), &ask);
        assert_eq!((changes.len(), extent.until, next), (0, 0, None));
        assert_eq!(repairs.len(), 0, "somebody else may be asked");
    }

    #[test]
    fn slots_out_of_order_are_refused_one_by_one() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        repairs.ask(now, &owner(), 0, (peer(1), None)).unwrap();
        let changes = vec![(3, &b"-1"[..]), (2, &b"-2"[..]), (3, &b"-2"[..]), (5, &b"-3"[..])];
        let answer = Answer {
            name: "a",
            generation: 7,
            id: 1,
            after: 0,
            from: 0,
            next: None,
            whole: false,
            until: 9,
            changes,
        };
        let told = repairs.take(now, peer(1), answer).unwrap();
        assert_eq!((told.values, told.misplaced), (vec![(3, &b"-1"[..]), (5, &b"-3"[..])], 2));
    }

    #[test]
    fn a_repair_that_turns_out_to_be_of_the_whole_begins_again() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        repairs.ask(now, &owner(), 3, (peer(1), None)).unwrap();
        let part = |id, from, whole, changes| Answer {
            name: "a",
            generation: 7,
            id,
            after: 3,
            from,
            next: Some(from + 10),
            whole,
            until: 9,
            changes,
        };
        repairs.take(now, peer(1), part(1, 0, false, vec![(3, &b"-5"[..])])).unwrap();
        let told = repairs.take(now, peer(1), part(2, 10, true, vec![(12, &b"-1"[..])])).unwrap();
        let next: Question<'_> = wire::decode(&told.next.as_ref().unwrap().payload).unwrap();
        assert_eq!((told.values.len(), next.from), (0, 0));
        let told = repairs.take(now, peer(1), part(3, 0, true, vec![(3, &b"-5"[..])])).unwrap();
        assert_eq!(told.extent.whole, Some((0..10, 9)));
    }
}
