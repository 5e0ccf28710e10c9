//! Addresses to join at, and how it went with each: whoever starts a cluster with a wrong key, a closed port or a wrong
//! address is told so on the host where that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use super::counters::Dropped;
use super::frame::{self, HELLO, Index};
use super::wire::Kind;
use super::{Link, LinkEffects};

/// How it went with an address to join at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinState {
    /// Nobody answered.
    Silent,
    /// Somebody there turned us away, as far as bytes without authentication tell.
    TurnedAway(TurnedAway),
    /// Our own frames came back: the address is ours.
    Ourselves,
    /// An agent answered a handshake.
    Answered,
}

/// Why the agent at an address does not answer a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// It does not have our key.
    UnknownKey,
    /// It has our key, and another cluster id.
    OtherCluster,
    /// It is of a version whose frames are others.
    OtherVersion,
}

impl TurnedAway {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::UnknownKey => 1,
            Self::OtherCluster => 2,
            Self::OtherVersion => 3,
        }
    }

    /// The reason of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::UnknownKey, Self::OtherCluster, Self::OtherVersion]
            .into_iter()
            .find(|why| why.number() == number)
    }
}

impl Link {
    /// Looks for peers at these addresses from now on, besides those that it knows.
    pub fn handle_joins(&mut self, now: Instant, joins: BTreeSet<SocketAddr>) -> LinkEffects {
        let before = std::mem::take(&mut self.joins);
        let us = self.us().addr;
        let met: BTreeSet<SocketAddr> = self.live().map(|peer| peer.addr).collect();
        let unknown = |addr| match addr {
            _ if addr == us => JoinState::Ourselves,
            // Whoever is there is not asked who it is again.
            _ if met.contains(&addr) => JoinState::Answered,
            _ => JoinState::Silent,
        };
        let state = |addr: SocketAddr| before.get(&addr).copied().unwrap_or_else(|| unknown(addr));
        self.joins = joins.into_iter().map(|addr| (addr, state(addr))).collect();
        self.effects.joins = Some(self.joins.clone());
        self.retarget(now);
        self.take_effects()
    }

    /// It went otherwise with an address. What an agent there once answered is not taken back: when it is gone, it is a
    /// silent peer.
    pub(super) fn note_join(&mut self, addr: SocketAddr, state: JoinState) {
        if let Some(before) = self.joins.get_mut(&addr)
            && *before != JoinState::Answered
            && *before != state
        {
            *before = state;
            self.effects.joins = Some(self.joins.clone());
        }
    }

    /// Tells whoever begins a handshake in vain why, in a few bytes and at a bounded pace. It proves nothing to the
    /// receiver, and is of use to its operator only.
    pub(super) fn turn_away(&mut self, now: Instant, from: SocketAddr, index: Index, why: Dropped) {
        let why = match why {
            Dropped::UnknownKey => TurnedAway::UnknownKey,
            Dropped::BadSeal => TurnedAway::OtherCluster,
            Dropped::Version => TurnedAway::OtherVersion,
            _ => return,
        };
        if self.may_answer(now, from.ip()) {
            self.transmit(Kind::Refusal, frame::refusal(index, why.number()), from);
        }
    }

    /// A frame of another version's came: perhaps the beginning of a handshake, or the answer to ours.
    pub(super) fn take_other_version(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        self.note_join(from, JoinState::TurnedAway(TurnedAway::OtherVersion));
        if bytes.len() >= HELLO / 2 {
            self.turn_away(now, from, 0, Dropped::Version);
        }
    }

    pub(super) fn take_refusal(&mut self, to: Index, why: u8) -> Result<(), Dropped> {
        let addr = self.begun_at(to).ok_or(Dropped::Stranger)?;
        let why = TurnedAway::from_number(why).ok_or(Dropped::UnknownKind)?;
        self.note_join(addr, JoinState::TurnedAway(why));
        Ok(())
    }
}

/// Addresses to join at, by how it went with each.
pub type Joins = BTreeMap<SocketAddr, JoinState>;
