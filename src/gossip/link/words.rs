//! Words between agents: pushes of what each says, and questions and answers for what did not come.

use std::sync::Arc;

use super::super::push::Outgoing;
use super::super::recent::Recent;
use super::super::repair::{self, Told};
use super::super::slots;
use super::{
    Dropped, Duration, Effect, Instant, KeyId, Kind, Link, Malformed, Peer, Session, SocketAddr, wire,
};
use gossd_core::agent::News;
use gossd_core::complaint::Refusal;
use gossd_core::record::{Generation, Owner};
use gossd_core::replica::{Extent, Part};
use gossd_core::slot::{Change, Slot, Version};

/// What a peer wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub by: SocketAddr,
    /// Whose words.
    pub owner: Owner,
    /// All to this is known to it.
    pub after: Version,
    /// Of this slot and those above.
    pub from: Slot,
}

impl Link {
    /// Asks for what an owner said after a version: the owner, if it is heard, or else some other peer.
    pub fn ask(&mut self, now: Instant, owner: &Owner, after: Version) -> Vec<Effect> {
        let live: Vec<&Peer> = self.live().collect();
        let peer = live.iter().find(|peer| peer.owner == *owner);
        let peer = peer.or_else(|| live.get(self.turn % live.len().max(1))).map(|peer| peer.addr);
        self.turn = self.turn.wrapping_add(1);
        let ask = peer.and_then(|peer| self.repairs.ask(now, owner, after, (peer, self.pings.trip(peer))));
        ask.map(|ask| self.frame(Kind::Question, &ask.payload, ask.peer)).into_iter().collect()
    }

    /// Answers a question with what is known.
    pub fn answer(&mut self, Question { by, owner, from, .. }: &Question, part: Option<Part>) -> Vec<Effect> {
        vec![self.frame(Kind::Answer, &repair::answer(owner, *from, part), *by)]
    }

    pub(super) fn flush(&mut self, now: Instant) -> Vec<Effect> {
        if !self.pusher.is_due(now) {
            return Vec::new();
        }
        let peers: Vec<_> = self.live().map(|peer| (peer.addr, self.pings.trip(peer.addr))).collect();
        let mut effects = Vec::new();
        for outgoing in self.pusher.flush(now, &peers) {
            self.send_push(&outgoing, &mut effects);
        }
        effects
    }

    /// Every peer that opens the same key gets the same sealed bytes: the session and the counter are the same for all.
    pub(super) fn send_push(&mut self, outgoing: &Outgoing, effects: &mut Vec<Effect>) {
        let mut sealed: Vec<(KeyId, Arc<[u8]>)> = Vec::with_capacity(1);
        for to in &outgoing.to {
            let key = self.key_for(*to);
            let at = sealed.iter().position(|(with, _)| *with == key).unwrap_or_else(|| {
                sealed.push((key, self.seal(Kind::Push, &outgoing.payload, key)));
                sealed.len() - 1
            });
            effects.push(Effect::Send { to: *to, kind: Kind::Push, frame: sealed[at].1.clone() });
        }
    }

    pub(super) fn take_push(
        &mut self,
        now: Instant,
        session: Session,
        peer: Peer,
        payload: &[u8],
    ) -> Result<Vec<Effect>, Malformed> {
        let push: wire::Push<'_> = self.read(payload)?;
        let (changes, refused) = self.changes(&peer.owner, push.changes, 0);
        let (since, until) = (push.since, push.until);
        let extent = Extent { since, until, whole: None };
        let ack = wire::encode(&wire::PushAck { id: push.id });
        let ack = self.frame(Kind::PushAck, &ack, peer.addr);
        let mut ask = None;
        let owner = if let Some(generation) = push.former {
            // These were its last words: those before are to be had where they were remembered.
            let said = changes.iter().map(|change| change.cell.version).max();
            let owner = Owner { name: self.owner.name.clone(), generation };
            ask = Some(Effect::Ask { owner: owner.clone(), said });
            owner
        } else {
            let way = self.pings.trip(peer.addr).unwrap_or_default() / 2;
            let lag = Duration::from_micros(push.age_us.into()) + way;
            self.sessions.note_push(now, session, payload, lag);
            peer.owner
        };
        let heard = Effect::Tell(News::Changed { owner, changes, extent });
        Ok(refused.into_iter().chain([heard, ack]).chain(ask).collect())
    }

    pub(super) fn take_answer(
        &mut self,
        now: Instant,
        from: &Peer,
        payload: &[u8],
    ) -> Result<Vec<Effect>, Malformed> {
        let answer = self.read(payload)?;
        let Some(told) = self.repairs.take(now, from.addr, answer) else { return Ok(Vec::new()) };
        let Told { owner, values, misplaced, extent, next } = told;
        let (changes, refused) = self.changes(&from.owner, values, misplaced);
        let next = next.map(|ask| self.frame(Kind::Question, &ask.payload, ask.peer));
        // The next part is under way while this one is taken.
        let heard = Effect::Tell(News::Changed { owner, changes, extent });
        Ok(next.into_iter().chain(refused).chain([heard]).collect())
    }

    /// What an agent's former start pushed last may be all that is left of it.
    pub(super) fn say_back(
        &mut self,
        now: Instant,
        former: Generation,
        recent: &Recent,
        peer: (SocketAddr, Option<Duration>),
        effects: &mut Vec<Effect>,
    ) {
        // It was understood when it came.
        let pushes = recent.pushes().filter_map(|push| wire::decode::<wire::Push<'_>>(push).ok());
        let mut words: Vec<_> = pushes.map(|push| push.changes).collect();
        if words.is_empty() {
            // We heard that start's words otherwise. Told which one it was, its next one asks for them.
            words.push(Vec::new());
        }
        for changes in words {
            let outgoing = self.pusher.say_back(now, former, changes, peer);
            self.send_push(&outgoing, effects);
        }
    }

    pub(super) fn take_question(&mut self, by: SocketAddr, payload: &[u8]) -> Result<Vec<Effect>, Malformed> {
        let question: wire::Question<'_> = self.read(payload)?;
        let name = question.name.parse().map_err(|_| Malformed)?;
        let owner = Owner { name, generation: question.generation };
        let after = question.after;
        Ok(vec![Effect::Asked(Question { by, owner, after, from: question.from })])
    }

    /// The changes of slots and their values. What is none is counted, with `misplaced` that were left out already, and
    /// whoever said it is named.
    pub(super) fn changes(
        &self,
        by: &Owner,
        values: Vec<(Slot, &str)>,
        misplaced: usize,
    ) -> (Vec<Change>, Option<Effect>) {
        let (said, mut changes) = (values.len(), Vec::with_capacity(values.len()));
        for (slot, value) in values {
            let Some((cell, more)) = slots::read(slot, value) else { continue };
            if !more.is_empty() {
                self.counters.count(Dropped::UnknownField);
            }
            changes.push(Change { slot, cell });
        }
        let refused = said - changes.len() + misplaced;
        (0..refused).for_each(|_| self.counters.count(Dropped::NotASlot));
        let times = u32::try_from(refused).unwrap_or(u32::MAX);
        let refused = News::Refused { by: by.clone(), why: Refusal::NotASlot, times };
        (changes, (times > 0).then_some(Effect::Tell(refused)))
    }
}
