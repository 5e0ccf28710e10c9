//! Two live processes with one name: who keeps it, and who is told.

use super::super::contest::Contest;
use super::{Effect, Instant, Kind, Link, Peer, Session, SocketAddr, wire};

impl Link {
    /// Two live processes with one name would overwrite each other's records: the one that was there first
    /// stays, the other is told. None if the newcomer may be admitted: the name is free, or its former holder
    /// does not answer any more, or was at the same address.
    pub(super) fn contest(&mut self, now: Instant, session: Session, peer: &Peer) -> Option<Vec<Effect>> {
        let name = &peer.owner.name;
        if *name == self.owner.name {
            return Some(self.contest_own_name(session, peer));
        }
        let (_, holder, heard) = self.sessions.of(name)?;
        if holder.addr == peer.addr {
            return None;
        }
        let holder = holder.addr;
        let ran = self.ran.now.unwrap_or(now);
        match self.contests.judge(name, ran, heard) {
            Contest::Undecided => Some(vec![self.ping(now, holder, true, self.key_for(holder))]),
            Contest::HolderLives => Some(vec![self.conflict(session, holder, peer.addr)]),
            Contest::HolderGone => None,
        }
    }

    /// The later start gives way.
    fn contest_own_name(&mut self, session: Session, peer: &Peer) -> Vec<Effect> {
        let theirs = (peer.owner.generation, session);
        if theirs < (self.owner.generation, self.session) {
            return vec![Effect::NameTaken(peer.addr)];
        }
        vec![self.conflict(session, self.addr, peer.addr)]
    }

    fn conflict(&mut self, session: Session, taken_by: SocketAddr, to: SocketAddr) -> Effect {
        let conflict = wire::encode(&wire::Conflict { session, taken_by });
        self.frame(Kind::Conflict, &conflict, to)
    }
}
