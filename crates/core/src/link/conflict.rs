//! Two live processes with one name: which of them keeps it, and how the other one learns of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::contest::Contest;
use super::peers::NameHolder;
use super::rejections::PACE;
use super::session::Session;
use super::wire::{self, Kind};
use super::{Link, LinkLine, Peer, frame};
use crate::record::Generation;

/// Agents whose uptimes differ by no more were started together: a handshake's delay is in the difference, too.
const TOGETHER: Duration = Duration::from_secs(1);
/// Generations are milliseconds since 1970. One beyond this, 30,000 years later, is made up.
const MAX_GENERATION: Generation = 1 << 50;
/// An agent that finds its name taken within this time of its start ends.
const YOUNG: Duration = Duration::from_secs(60);

impl Link {
    /// Two live processes with one name would overwrite each other's records: the one that was there first stays, the
    /// other is told. The session, if its process may be admitted: the name is free, or its former holder does not answer
    /// any more, or was at the same address.
    pub(super) fn uncontested(&mut self, now: Instant, session: Session) -> Option<Session> {
        let (name, identity) = (session.peer.owner.name.clone(), session.channel.identity());
        let Some(NameHolder { peer: holder, identity: pinned, heard, is_stale }) = self.peers.holder(&name)
        else {
            return Some(session);
        };
        // The same process, or its next start, perhaps at another address; or another agent in the place of a former one.
        let is_same = pinned == identity && (holder.owner == session.peer.owner || is_stale);
        if is_same || holder.addr == session.peer.addr {
            return Some(session);
        }
        let holder = holder.addr;
        let ran = self.ran.now.unwrap_or(now);
        match self.contests.judge(&name, ran, heard) {
            Contest::Undecided if is_stale => self.hello(now, holder),
            Contest::Undecided => self.ping(now, holder, true),
            Contest::HolderLives => self.refuse(session, holder),
            Contest::HolderGone => return Some(session),
        }
        None
    }

    /// A live process with our own name: the one that has run for less long gives way. Of two that were started
    /// together, both ends name the same one.
    pub(super) fn contest_own_name(
        &mut self,
        now: Instant,
        other: &Peer,
        identity: [u8; 32],
        uptime_ms: u64,
    ) {
        let ours = now.saturating_duration_since(self.started);
        let theirs = Duration::from_millis(uptime_ms);
        let gives_way = if ours.abs_diff(theirs) > TOGETHER {
            ours < theirs
        } else {
            let us = (self.us().owner.generation, self.identity.public(), self.us().addr);
            us > (other.owner.generation, identity, other.addr)
        };
        if gives_way {
            self.name_taken(now, other.addr);
        }
    }

    /// Tells the other end of a session that its name is taken, and by whom.
    pub(super) fn refuse(&mut self, mut session: Session, taken_by: SocketAddr) {
        let conflict = wire::pack(Kind::Conflict, &wire::encode(&wire::Conflict { taken_by }));
        let (counter, encrypted) = session.channel.encrypt(&conflict);
        let bytes = frame::data(session.theirs, counter, &encrypted);
        self.transmit(Kind::Conflict, bytes, session.via);
    }

    /// Tells the other end of a session that a later start of its agent is known, so that nothing of it would count.
    pub(super) fn supersede(&mut self, mut session: Session, generation: Generation) {
        let superseded = wire::encode(&wire::Superseded { generation, ran: 0 });
        let superseded = wire::pack(Kind::Superseded, &superseded);
        let (counter, encrypted) = session.channel.encrypt(&superseded);
        let bytes = frame::data(session.theirs, counter, &encrypted);
        self.transmit(Kind::Superseded, bytes, session.via);
    }

    /// A peer knows a later start of ours: our clock went back, and no journal remembers. Or it knows more of this one than we
    /// do: our memory was put back to what it was, with the machine. The agent starts anew, above that.
    pub(super) fn take_superseded(&mut self, &wire::Superseded { generation, ran }: &wire::Superseded) {
        let ours = self.us().owner.generation;
        let is_later = generation > ours && generation < MAX_GENERATION;
        // Nobody has it from us that we ran for longer than we have.
        let is_put_back = generation == ours && ran > self.ran.since(self.started);
        if (is_later || is_put_back) && !self.is_superseded {
            self.is_superseded = true;
            self.effects.superseded = Some(generation);
        }
    }

    /// A peer says that our name is another's. We ask that one ourselves: its answer decides, and no word of others.
    pub(super) fn take_conflict(&mut self, now: Instant, taken_by: SocketAddr) {
        if taken_by != self.us().addr && self.pings.provoked(now, taken_by) {
            self.hello(now, taken_by);
        }
    }

    /// An agent that has just started ends. One that has served for a while stays: to end it would take its records away,
    /// and it is for the operator to say which of the two is wrong.
    fn name_taken(&mut self, now: Instant, by: SocketAddr) {
        if now.saturating_duration_since(self.started) <= YOUNG {
            self.effects.name_taken = Some(by);
        } else if self.conflict_logged.is_none_or(|at| now.saturating_duration_since(at) > PACE) {
            self.conflict_logged = Some(now);
            self.effects.lines.push(LinkLine::TwoOfOneName { name: self.us().owner.name.clone(), other: by });
        }
    }
}
