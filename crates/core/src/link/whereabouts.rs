//! Where peers are, and where we are. A peer is at the address that it advertises. Behind NAT that address may not answer,
//! while the one that its frames come from does: then frames go there. Our own address may change while we run: then every
//! peer gets another handshake, which brings it the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::peers::{KnownPeer, Peers};
use super::session::Session;
use super::wire::{self, Kind};
use super::{Link, LinkEffects, LinkLine, Peer};
use crate::record::AgentName;

/// The largest frame that goes by a datagram. A larger one goes by a connection, which is dialled at the advertised address:
/// the one that datagrams come from has no listener.
pub const MAX_DATAGRAM: usize = 1_200;
/// How often both addresses of a peer are asked, while neither has answered. Longer than any round trip: a later question
/// takes the place of an earlier one.
const ASK: Duration = Duration::from_secs(1);
/// The same while frames go to where the peer's come from: the advertised address is the first choice, once it answers.
const ASK_DETOUR: Duration = Duration::from_secs(2);
/// The same while the advertised address answers: the peer's host has two addresses, and there is nothing to mend.
const ASK_DIRECT: Duration = Duration::from_secs(10);
/// Peers whose refusal was logged. A bound against made-up ones.
const MAX_REFUSED: usize = 64;

/// The way to a peer: to the address that it advertises, or to the one that its frames come from.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Where its frames come from, unless that is the advertised address.
    seen: Option<SocketAddr>,
    /// Whether frames go there.
    is_detour: bool,
    /// Whether the advertised address has answered the last question.
    is_direct: bool,
    asked: Option<Instant>,
    /// Of the last question to the advertised address, and to the other one.
    nonces: Option<(u64, u64)>,
}

impl Way {
    /// After a handshake with somebody at `via`: that address has answered a challenge, the advertised one has not yet.
    pub(super) fn proven(via: SocketAddr, advertised: SocketAddr) -> Self {
        let seen = (via != advertised).then_some(via);
        Self { seen, is_detour: seen.is_some(), ..Self::default() }
    }

    /// Where frames go.
    fn to(&self, advertised: SocketAddr) -> SocketAddr {
        self.seen.filter(|_| self.is_detour).unwrap_or(advertised)
    }

    /// Whether its frames come from elsewhere than it advertises.
    pub(super) fn is_indirect(&self) -> bool {
        self.seen.is_some()
    }

    /// A new frame of the peer came from there. Whether to ask both addresses now.
    fn notice(&mut self, now: Instant, from: SocketAddr, advertised: SocketAddr) -> bool {
        if from == advertised {
            if self.seen.is_some() {
                *self = Self::default();
            }
            return false;
        }
        if self.seen != Some(from) {
            (self.seen, self.is_detour, self.is_direct) = (Some(from), false, false);
        }
        let pause = match (self.is_direct, self.is_detour) {
            (true, _) => ASK_DIRECT,
            (false, true) => ASK_DETOUR,
            (false, false) => ASK,
        };
        self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= pause)
    }

    fn ask(&mut self, now: Instant, nonces: (u64, u64)) {
        (self.asked, self.nonces, self.is_direct) = (Some(now), Some(nonces), false);
    }

    /// An answer came from there. An address is used once it was asked, and the answer came from it.
    fn answered(&mut self, from: SocketAddr, nonce: u64) {
        let Some((advertised, other)) = self.nonces else { return };
        if nonce == advertised {
            (self.is_direct, self.is_detour) = (true, false);
        } else if nonce == other && self.seen == Some(from) && !self.is_direct {
            self.is_detour = true;
        }
    }
}

impl Peers {
    /// Where a datagram for the peer that advertises an address is to be sent.
    pub(super) fn route(&self, advertised: SocketAddr) -> SocketAddr {
        let known = self.addresses.get(&advertised).and_then(|name| self.table.get(name));
        let way = known.and_then(|known| known.contact.as_ref()).map(|contact| &contact.way);
        way.map_or(advertised, |way| way.to(advertised))
    }

    /// Where all are that did not leave. A loopback address of another host's agent leads nowhere from here.
    pub(super) fn known_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let is_here = |known: &&KnownPeer| known.is_near || !known.peer.addr.ip().is_loopback();
        self.table.values().filter(|known| !known.left).filter(is_here).map(|known| known.peer.addr)
    }

    fn way(&mut self, name: &AgentName) -> Option<&mut Way> {
        Some(&mut self.table.get_mut(name)?.contact.as_mut()?.way)
    }
}

/// A peer is at its address no longer. Another one may be there already.
pub(super) fn free(addresses: &mut BTreeMap<SocketAddr, AgentName>, peer: &Peer) {
    if addresses.get(&peer.addr) == Some(&peer.owner.name) {
        addresses.remove(&peer.addr);
    }
}

/// What a link knows of its host.
#[derive(Debug, Default)]
pub(super) struct HostAddresses {
    /// The addresses of this host, as far as they are known.
    addresses: BTreeSet<IpAddr>,
    /// When the advertised address changed last. Sessions made before are made anew.
    pub(super) moved: Option<Instant>,
    /// Peers whose loopback address was refused, and logged.
    refused: BTreeSet<AgentName>,
}

impl Link {
    /// Is reached by peers at this address from now on; `addresses` are all those of this host.
    pub fn handle_address(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        addresses: BTreeSet<IpAddr>,
    ) -> LinkEffects {
        self.host.addresses = addresses;
        if addr != self.us().addr {
            self.peers.state(|own| own.peer.addr = addr);
            self.host.moved = Some(now);
            // Those under way would bring the former address.
            self.handshakes.forget_answered();
            self.retarget(now);
            self.announce(now);
            self.tell_address(now);
        }
        self.take_effects()
    }

    /// Begins a handshake with each peer that got our former address in its last one.
    pub(super) fn tell_address(&mut self, now: Instant) {
        let Some(moved) = self.host.moved else { return };
        let untold = self.peers.older_than(moved);
        if untold.is_empty() {
            self.host.moved = None;
        }
        for peer in untold {
            if self.pings.provoked(now, peer.addr) {
                self.hello(now, peer.addr);
            }
        }
    }

    /// A new frame of a peer came from there. A connection comes from any port of its host, which tells nothing.
    pub(super) fn notice_way(&mut self, now: Instant, peer: &Peer, from: SocketAddr, bytes: usize) {
        if bytes > MAX_DATAGRAM {
            return;
        }
        let way = self.peers.way(&peer.owner.name);
        if way.is_some_and(|way| way.notice(now, from, peer.addr)) {
            self.ask_both(now, peer);
        }
    }

    /// Asks a peer for an answer at the address that it advertises, and at the one that its frames come from.
    pub(super) fn ask_both(&mut self, now: Instant, peer: &Peer) {
        let nonces: (u64, u64) = self.rng.random();
        let Some(way) = self.peers.way(&peer.owner.name) else { return };
        let Some(seen) = way.seen else { return };
        way.ask(now, nonces);
        for (nonce, via) in [(nonces.0, peer.addr), (nonces.1, seen)] {
            self.pings.await_answer(now, peer.addr, nonce);
            let ping = self.ping_with(now, Some(nonce), peer.addr);
            self.send_via(Kind::Ping, &wire::pack(Kind::Ping, &ping), peer.addr, Some(via));
        }
    }

    pub(super) fn notice_answer(&mut self, peer: &Peer, from: SocketAddr, nonce: u64) {
        if let Some(way) = self.peers.way(&peer.owner.name) {
            way.answered(from, nonce);
        }
    }

    /// Whether a session is with somebody on another host who says that it is reached at a loopback address. There, we would
    /// only reach ourselves.
    pub(super) fn is_foreign_loopback(&self, peer: &Peer, via: SocketAddr) -> bool {
        let via = via.ip();
        let is_here = via.is_loopback() || via == self.us().addr.ip() || self.host.addresses.contains(&via);
        peer.addr.ip().is_loopback() && !is_here
    }

    /// The same for a session; it is logged once for each peer.
    pub(super) fn refuses_loopback(&mut self, session: &Session) -> bool {
        let peer = &session.peer;
        if !self.is_foreign_loopback(peer, session.via) {
            self.host.refused.remove(&peer.owner.name);
            return false;
        }
        if self.host.refused.len() < MAX_REFUSED && self.host.refused.insert(peer.owner.name.clone()) {
            self.effects.lines.push(LinkLine::LoopbackRefused { peer: peer.clone(), from: session.via.ip() });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 8002))
    }

    #[test]
    fn frames_go_where_they_come_from_only_while_the_advertised_address_does_not_answer() {
        let (mut way, now) = (Way::default(), Instant::now());
        assert!(!way.notice(now, at(1), at(1)));
        assert!(way.notice(now, at(2), at(1)));
        way.ask(now, (7, 8));
        assert!(!way.notice(now, at(2), at(1)), "it has just been asked");
        way.answered(at(3), 8);
        assert_eq!(way.to(at(1)), at(1), "the answer came from elsewhere");
        way.answered(at(2), 8);
        assert_eq!(way.to(at(1)), at(2));
        assert!(way.notice(now + ASK_DETOUR, at(2), at(1)), "the advertised address is asked again");
        way.ask(now + ASK_DETOUR, (9, 10));
        way.answered(at(2), 10);
        way.answered(at(2), 9);
        assert_eq!(way.to(at(1)), at(1), "it answers");
        assert!(!way.notice(now + ASK_DIRECT, at(2), at(1)), "two addresses, and nothing to mend");
    }

    #[test]
    fn an_address_that_was_not_asked_is_not_used() {
        let (mut way, now) = (Way::proven(at(2), at(1)), Instant::now());
        assert_eq!(way.to(at(1)), at(2), "the handshake was its challenge");
        assert!(way.notice(now, at(3), at(1)));
        assert_eq!(way.to(at(1)), at(1));
        way.answered(at(3), 8);
        assert_eq!(way.to(at(1)), at(1));
        way.notice(now, at(1), at(1));
        assert_eq!(way.to(at(1)), at(1));
    }
}
