//! Two live processes with one name: which of them keeps it, and how the other one learns of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::contest::Contest;
use super::rejections::PACE;
use super::wire::{self, Kind, Session};
use super::{Link, LinkLine, Peer};

/// An agent that finds its name taken within this time of its start ends.
const YOUNG: Duration = Duration::from_secs(60);

impl Link {
    /// Two live processes with one name would overwrite each other's records: the one that was there first stays, the
    /// other is told. False if the newcomer may be admitted: the name is free, or its former holder does not answer any
    /// more, or was at the same address.
    pub(super) fn is_contested(&mut self, now: Instant, session: Session, peer: &Peer) -> bool {
        let name = &peer.owner.name;
        if *name == self.us.owner.name {
            self.contest_own_name(now, session, peer);
            return true;
        }
        let Some((_, holder, heard)) = self.sessions.of(name) else { return false };
        if holder.addr == peer.addr {
            return false;
        }
        let holder = holder.addr;
        let ran = self.ran.now.unwrap_or(now);
        match self.contests.judge(name, ran, heard) {
            Contest::Undecided => self.ping(now, holder, true, self.key_for(holder)),
            Contest::HolderLives => self.conflict(session, holder, peer.addr),
            Contest::HolderGone => return false,
        }
        true
    }

    /// The later start gives way.
    fn contest_own_name(&mut self, now: Instant, session: Session, peer: &Peer) {
        let theirs = (peer.owner.generation, session);
        if theirs < (self.us.owner.generation, self.session) {
            self.name_taken(now, peer.addr);
        } else {
            self.conflict(session, self.us.addr, peer.addr);
        }
    }

    fn conflict(&mut self, session: Session, taken_by: SocketAddr, to: SocketAddr) {
        let conflict = wire::encode(&wire::Conflict { session, taken_by });
        self.send(Kind::Conflict, &conflict, to);
    }

    /// An agent that has just started ends. One that has served for a while stays: to end it would take its records away,
    /// and it is for the operator to say which of the two is wrong.
    pub(super) fn name_taken(&mut self, now: Instant, by: SocketAddr) {
        if now.saturating_duration_since(self.started) <= YOUNG {
            self.effects.name_taken = Some(by);
        } else if self.conflict_logged.is_none_or(|at| now.saturating_duration_since(at) > PACE) {
            self.conflict_logged = Some(now);
            self.effects.lines.push(LinkLine::TwoOfOneName { name: self.us.owner.name.clone(), other: by });
        }
    }
}
