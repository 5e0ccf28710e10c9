//! Handshakes under way: begun here, answered here, and proven but not yet confirmed by a frame of the other end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::board::MAX_PROGRAM;
use super::counters::Dropped;
use super::frame::{self, Index, Sealed};
use super::joins::JoinState;
use super::keyring::KeyId;
use super::noise::{self, Code, Handshake};
use super::session::{Peer, Session, Unopened};
use super::wire::{self, Introduction, Kind, Malformed};
use super::{Frame, Link, ReplicaStore};
use crate::address::canonical;
use crate::record::Owner;

/// How long an answer is waited for.
const EXPIRY: Duration = Duration::from_secs(3);
/// Handshakes of each kind that are under way: of all agents that are pinged, and some.
pub(super) const MAX_HANDSHAKES: usize = 2_048;
/// Hellos of one address that are answered without a cookie: at once, and each second.
const PER_ADDRESS: (f64, f64) = (16.0, 8.0);
/// Hellos that are answered at all: at once, and each second. An answer costs 0.3 ms.
const ALL: (f64, f64) = (512.0, 256.0);
/// What is kept of those for Hellos that show a cookie: somebody who sends recorded ones from made-up addresses must not
/// take the turn of agents that are there.
const RESERVE: f64 = 256.0;
/// Addresses whose pace is known; beyond, a cookie is asked for.
const MAX_ADDRESSES: usize = 4_096;
/// A cookie is good for this long at least.
const COOKIE: Duration = Duration::from_secs(120);

/// See the module.
pub(super) struct Handshakes {
    begun: BTreeMap<Index, HandshakeBegun>,
    answered: BTreeMap<Index, HandshakeAnswered>,
    proven: BTreeMap<Index, Proven>,
    /// Cookies that were given to us, and when.
    cookies: BTreeMap<SocketAddr, (Code, Instant)>,
    /// What makes ours, and the one before it.
    secrets: [[u8; 32]; 2],
    rotated: Instant,
    all: Bucket,
    addresses: BTreeMap<IpAddr, Bucket>,
}

struct HandshakeBegun {
    handshake: Handshake,
    key: KeyId,
    to: SocketAddr,
    /// What a Hello of ours begins with, should it come back.
    first: Vec<u8>,
    /// The Hello, to be sent again: an ephemeral key for each would cost more than all other frames to whoever is silent.
    hello: Arc<[u8]>,
    at: Instant,
    /// Whether it was sent once only, so that its answer tells the round trip.
    is_first: bool,
}

struct HandshakeAnswered {
    handshake: Handshake,
    key: KeyId,
    theirs: Index,
    /// What the Hello began with, and the answer: a Hello that was sent again gets the same one.
    first: [u8; 32],
    reply: Arc<[u8]>,
    at: Instant,
}

/// A handshake that we finished, and the other end perhaps not.
struct Proven {
    session: Session,
    to: SocketAddr,
    /// What proves us, to be sent again.
    proof: Arc<[u8]>,
    at: Instant,
}

/// So many at once, and so many each second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// How many are left.
    fn fill(&mut self, now: Instant, (most, rate): (f64, f64)) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * rate).min(most);
        self.left
    }

    fn take(&mut self, now: Instant, pace: (f64, f64)) -> bool {
        let has = self.fill(now, pace) >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }
}

impl Handshakes {
    pub(super) fn new(now: Instant, secrets: [[u8; 32]; 2]) -> Self {
        Self {
            begun: BTreeMap::new(),
            answered: BTreeMap::new(),
            proven: BTreeMap::new(),
            cookies: BTreeMap::new(),
            secrets,
            rotated: now,
            all: Bucket { left: ALL.0, at: now },
            addresses: BTreeMap::new(),
        }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.begun.len().max(self.answered.len()).max(self.proven.len())
    }

    /// Gives up those that took too long.
    pub(super) fn forget(&mut self, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < EXPIRY;
        self.begun.retain(|_, begun| is_recent(begun.at));
        self.answered.retain(|_, answered| is_recent(answered.at));
        self.proven.retain(|_, proven| is_recent(proven.at));
        self.cookies.retain(|_, (_, at)| now.saturating_duration_since(*at) < COOKIE);
        self.addresses.retain(|_, bucket| now.saturating_duration_since(bucket.at) < EXPIRY);
    }

    /// Gives up those that were answered and not proven yet.
    pub(super) fn forget_answered(&mut self) {
        self.answered.clear();
    }

    /// Whether to answer a Hello without a cookie.
    fn may_answer(&mut self, now: Instant, ip: IpAddr) -> bool {
        if self.all.fill(now, ALL) < RESERVE {
            return false;
        }
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&ip) {
            return false;
        }
        let bucket = self.addresses.entry(ip).or_insert(Bucket { left: PER_ADDRESS.0, at: now });
        bucket.take(now, PER_ADDRESS)
    }

    /// Whether a Hello shows a cookie of ours.
    fn shows_cookie(&self, from: SocketAddr, shown: &Code, coded: &[u8]) -> bool {
        self.secrets.iter().any(|secret| noise::code(&noise::cookie(secret, from), coded) == *shown)
    }
}

fn oldest<T>(entries: &BTreeMap<Index, T>, at: impl Fn(&T) -> Instant) -> Option<Index> {
    entries.iter().min_by_key(|(_, entry)| at(entry)).map(|(index, _)| *index)
}

impl Link {
    /// Whether to answer somebody at an address without a cookie.
    pub(super) fn may_answer(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.handshakes.may_answer(now, ip)
    }

    /// Where the handshake under way goes that has this index.
    pub(super) fn begun_at(&self, index: Index) -> Option<SocketAddr> {
        self.handshakes.begun.get(&index).map(|begun| begun.to)
    }

    /// Something came in a session whose frames count for nothing any more, so its peer is perhaps there: another handshake,
    /// at the pace of a peer that is looked for.
    pub(super) fn meet_again(&mut self, now: Instant, index: Index, why: Unopened) {
        if why == Unopened::Stale
            && let Some(addr) = self.peers.address_of(index)
            && self.pings.looked_for(now, addr)
        {
            self.hello(now, addr);
        }
    }

    /// Begins a handshake with whoever is at an address.
    pub(super) fn hello(&mut self, now: Instant, to: SocketAddr) {
        let id = self.guess_key();
        let Some(key) = self.cluster_keys.get(&id) else { return };
        let begun = self.handshakes.begun.values_mut();
        if let Some(begun) = begun.filter(|begun| begun.to == to && begun.key == id).last() {
            begun.is_first = false;
            let bytes = begun.hello.clone();
            self.effects.frames.push(Frame { to, kind: Kind::Hello, bytes });
            return;
        }
        let (handshake, first) = Handshake::begin(key, &self.identity, self.rng.random());
        let index = self.rng.random();
        let cookie = self.handshakes.cookies.get(&to).map(|(cookie, _)| cookie);
        let hello: Arc<[u8]> = frame::hello((id, key), index, &first, cookie).into();
        let Handshakes { begun, .. } = &mut self.handshakes;
        if begun.len() >= MAX_HANDSHAKES
            && let Some(oldest) = oldest(begun, |begun| begun.at)
        {
            begun.remove(&oldest);
        }
        let first = first[..32].to_vec();
        begun.insert(
            index,
            HandshakeBegun { handshake, key: id, to, first, hello: hello.clone(), at: now, is_first: true },
        );
        self.effects.frames.push(Frame { to, kind: Kind::Hello, bytes: hello });
    }

    pub(super) fn take_hello(
        &mut self,
        now: Instant,
        from: SocketAddr,
        hello: &Sealed<'_>,
    ) -> Result<(), Dropped> {
        let Sealed::Hello { key: id, index, first, coded, code, cookie_coded, cookie_code } = *hello else {
            return Err(Dropped::Malformed);
        };
        let key = self.cluster_keys.get(&id).ok_or(Dropped::UnknownKey)?;
        if !key.is_code_of(&code, coded) {
            return Err(Dropped::BadSeal);
        }
        let ours = self.handshakes.begun.iter().find(|(_, begun)| first.starts_with(&begun.first));
        if let Some((ours, to)) = ours.map(|(ours, begun)| (*ours, begun.to)) {
            // An address to join at is ours, or somebody throws our Hello back.
            self.met_elsewhere(now, to);
            self.note_join(to, JoinState::Ourselves);
            self.handshakes.begun.remove(&ours);
            return Err(Dropped::Reflected);
        }
        let shows = self.handshakes.shows_cookie(from, &cookie_code, cookie_coded);
        if !shows && !self.handshakes.may_answer(now, from.ip()) {
            let cookie = noise::cookie(&self.handshakes.secrets[0], from);
            let cookie = frame::cookie(key, index, &cookie);
            self.transmit(Kind::Cookie, cookie, from);
            return Err(Dropped::Paced);
        }
        let mut again = self.handshakes.answered.values().filter(|answered| answered.theirs == index);
        if let Some(answered) = again.find(|answered| first.starts_with(&answered.first)) {
            let bytes = answered.reply.clone();
            self.effects.frames.push(Frame { to: from, kind: Kind::Reply, bytes });
            return Ok(());
        }
        if !self.handshakes.all.take(now, ALL) {
            return Err(Dropped::Paced);
        }
        let introduction = self.introduction(now);
        let answered = Handshake::answer(key, &self.identity, self.rng.random(), first, &introduction);
        let (handshake, second) = answered.map_err(|noise::Mismatch| Dropped::BadSeal)?;
        let ours = self.rng.random();
        let reply = frame::reply(key, ours, index, &second);
        let Handshakes { answered, .. } = &mut self.handshakes;
        if answered.len() >= MAX_HANDSHAKES
            && let Some(oldest) = oldest(answered, |answered| answered.at)
        {
            answered.remove(&oldest);
        }
        let reply: Arc<[u8]> = reply.into();
        let mut begins = [0; 32];
        begins.copy_from_slice(&first[..32]);
        let bytes = reply.clone();
        answered.insert(
            ours,
            HandshakeAnswered { handshake, key: id, theirs: index, first: begins, reply, at: now },
        );
        self.effects.frames.push(Frame { to: from, kind: Kind::Reply, bytes });
        Ok(())
    }

    pub(super) fn take_reply(&mut self, now: Instant, reply: &Sealed<'_>) -> Result<(), Dropped> {
        let Sealed::Reply { index: theirs, to: ours, second, coded, code } = *reply else {
            return Err(Dropped::Malformed);
        };
        if let Some(proven) =
            self.handshakes.proven.get(&ours).filter(|proven| proven.session.theirs == theirs)
        {
            // The other end does not know yet: what proved us was lost.
            let (to, bytes) = (proven.to, proven.proof.clone());
            self.effects.frames.push(Frame { to, kind: Kind::Proof, bytes });
            return Ok(());
        }
        let begun = self.handshakes.begun.get(&ours).ok_or(Dropped::Stranger)?;
        // Whoever saw the Hello knows our index: without the key, that is worth no Diffie-Hellman.
        let key = self.cluster_keys.get(&begun.key).ok_or(Dropped::UnknownKey)?;
        if !key.is_code_of(&code, coded) {
            return Err(Dropped::BadSeal);
        }
        let begun = self.handshakes.begun.remove(&ours).ok_or(Dropped::Stranger)?;
        let HandshakeBegun { key: id, to, at, is_first, .. } = begun;
        let (channel, third, introduction) = match begun.handshake.prove(second, &self.introduction(now)) {
            Ok(proven) => proven,
            Err((handshake, noise::Mismatch)) => {
                self.handshakes.begun.insert(ours, HandshakeBegun { handshake, ..begun });
                return Err(Dropped::BadSeal);
            }
        };
        let (peer, program, uptime) =
            read_introduction(&introduction).map_err(|Malformed| Dropped::Malformed)?;
        let proof: Arc<[u8]> = frame::proof(key, theirs, &third).into();
        if peer.owner.name == self.us().owner.name {
            self.contest_own_name(now, &peer, channel.identity(), uptime);
        }
        self.note_join(to, JoinState::Answered);
        if peer.addr != to {
            // An alias of a peer that has an address of its own. It may move to another agent.
            self.met_elsewhere(now, to);
        }
        let mut session =
            Session::new((at, now), (&self.us().owner.name, true), (peer, program), id, theirs, channel);
        session.via = to;
        if self.refuses_loopback(&session) {
            return Err(Dropped::ForeignLoopback);
        }
        let peer = &session.peer;
        self.effects.frames.push(Frame { to, kind: Kind::Proof, bytes: proof.clone() });
        if is_first {
            self.pings.measured(now, peer.addr, now.saturating_duration_since(at));
        }
        let Handshakes { proven, .. } = &mut self.handshakes;
        if proven.len() >= MAX_HANDSHAKES
            && let Some(oldest) = oldest(proven, |proven| proven.at)
        {
            proven.remove(&oldest);
        }
        proven.insert(ours, Proven { session, to, proof, at: now });
        Ok(())
    }

    pub(super) fn take_proof(
        &mut self,
        now: Instant,
        from: SocketAddr,
        proof: &Sealed<'_>,
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Dropped> {
        let Sealed::Proof { to: ours, third, coded, code } = *proof else { return Err(Dropped::Malformed) };
        let answered = self.handshakes.answered.get(&ours).ok_or(Dropped::Stranger)?;
        // Whoever saw the Reply knows our index: without the key, that does not end the handshake.
        let key = self.cluster_keys.get(&answered.key).ok_or(Dropped::UnknownKey)?;
        if !key.is_code_of(&code, coded) {
            return Err(Dropped::BadSeal);
        }
        let HandshakeAnswered { handshake, key, theirs, at, .. } =
            self.handshakes.answered.remove(&ours).ok_or(Dropped::Stranger)?;
        let (channel, introduction) =
            handshake.complete(third).map_err(|noise::Mismatch| Dropped::BadSeal)?;
        let (peer, program, uptime) =
            read_introduction(&introduction).map_err(|Malformed| Dropped::Malformed)?;
        let mut session =
            Session::new((at, now), (&self.us().owner.name, false), (peer, program), key, theirs, channel);
        session.via = from;
        if session.peer.owner.name == self.us().owner.name {
            self.contest_own_name(now, &session.peer, session.channel.identity(), uptime);
            self.refuse(session, self.us().addr);
            return Err(Dropped::Stranger);
        }
        self.note_join(from, JoinState::Answered);
        if self.refuses_loopback(&session) {
            return Err(Dropped::ForeignLoopback);
        }
        self.admit(now, ours, session, replicas).ok_or(Dropped::Stranger)?;
        Ok(())
    }

    /// Takes the first frame of a session that we proved ourselves in: the other end has admitted us, and lives.
    pub(super) fn take_confirmation(
        &mut self,
        now: Instant,
        ours: Index,
        (counter, encrypted): (u64, &[u8]),
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(Peer, Vec<u8>), Dropped> {
        let mut proven = self.handshakes.proven.remove(&ours).ok_or(Dropped::Stranger)?;
        let Ok(plain) = proven.session.open(counter, encrypted) else {
            self.handshakes.proven.insert(ours, proven);
            return Err(Dropped::BadSeal);
        };
        let session = proven.session;
        let peer = session.peer.clone();
        let refusals = [Kind::Conflict, Kind::Superseded].map(Kind::number);
        if wire::split(&plain).is_ok_and(|(kind, _)| refusals.contains(&kind)) {
            return Ok((peer, plain));
        }
        if peer.owner.name == self.us().owner.name {
            return Err(Dropped::Stranger);
        }
        self.admit(now, ours, session, replicas).ok_or(Dropped::Stranger)?;
        Ok((peer, plain))
    }

    pub(super) fn take_cookie(
        &mut self,
        now: Instant,
        ours: Index,
        cookie: Code,
        code: &Code,
        coded: &[u8],
    ) -> Result<(), Dropped> {
        let begun = self.handshakes.begun.get(&ours).ok_or(Dropped::Stranger)?;
        let (key, to) = (self.cluster_keys.get(&begun.key).ok_or(Dropped::UnknownKey)?, begun.to);
        if !key.is_code_of(code, coded) {
            return Err(Dropped::BadSeal);
        }
        self.handshakes.begun.remove(&ours);
        let Handshakes { cookies, .. } = &mut self.handshakes;
        let had_one = cookies.contains_key(&to);
        if had_one || cookies.len() < MAX_ADDRESSES {
            cookies.insert(to, (cookie, now));
            // Whoever wants another one each time gets the next Hello when it is due, and not at the pace of its answers.
            if !had_one {
                self.hello(now, to);
            }
        }
        Ok(())
    }

    /// What makes cookies changes from time to time.
    pub(super) fn rotate_cookies(&mut self, now: Instant) {
        if now.saturating_duration_since(self.handshakes.rotated) >= COOKIE {
            self.handshakes.rotated = now;
            self.handshakes.secrets = [self.rng.random(), self.handshakes.secrets[0]];
        }
    }

    fn introduction(&self, now: Instant) -> Vec<u8> {
        let Peer { owner: Owner { name, generation }, addr } = self.us();
        let uptime = now.saturating_duration_since(self.started).as_millis();
        let introduction = wire::encode(&Introduction {
            name: name.as_str(),
            generation: *generation,
            addr: *addr,
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            version: &self.peers.own.program,
        });
        debug_assert!(introduction.len() <= noise::MAX_INTRODUCTION);
        introduction
    }

    pub(super) fn transmit(&mut self, kind: Kind, bytes: Vec<u8>, to: SocketAddr) {
        self.effects.frames.push(Frame { to, kind, bytes: bytes.into() });
    }
}

/// Who is at the other end, and for how many milliseconds it has run.
fn read_introduction(introduction: &[u8]) -> Result<(Peer, Arc<str>, u64), Malformed> {
    let Introduction { name, generation, addr, uptime_ms, version } = wire::decode(introduction)?;
    if addr.ip().is_unspecified() || addr.port() == 0 || version.len() > MAX_PROGRAM {
        return Err(Malformed);
    }
    let owner = Owner { name: name.parse().map_err(|_| Malformed)?, generation };
    Ok((Peer { owner, addr: canonical(addr) }, version.into(), uptime_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_so_many_at_once_and_so_many_each_second() {
        let now = Instant::now();
        let mut bucket = Bucket { left: 16.0, at: now };
        assert_eq!((0..100).filter(|_| bucket.take(now, (16.0, 8.0))).count(), 16);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(later, (16.0, 8.0))).count(), 8);
        let much_later = now + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| bucket.take(much_later, (16.0, 8.0))).count(), 16);
    }

    #[test]
    fn hellos_from_made_up_addresses_leave_turns_for_those_who_show_a_cookie() {
        let now = Instant::now();
        let mut handshakes = Handshakes::new(now, [[1; 32], [2; 32]]);
        let (mut answered, mut with_cookie) = (0, 0);
        for n in 0..4_000_u32 {
            let answers = handshakes.may_answer(now, IpAddr::from(n.to_be_bytes()));
            answered += u32::from(answers && handshakes.all.take(now, ALL));
        }
        while handshakes.all.take(now, ALL) {
            with_cookie += 1;
        }
        assert_eq!((answered, with_cookie), (257, 255));
    }

    #[test]
    fn one_address_takes_no_others_turn() {
        let now = Instant::now();
        let mut handshakes = Handshakes::new(now, [[1; 32], [2; 32]]);
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        while handshakes.may_answer(now, ip(1)) {}
        assert!(handshakes.may_answer(now, ip(2)));
        for n in 0..2 * MAX_ADDRESSES {
            handshakes.may_answer(now, ip(u32::try_from(n).unwrap()));
        }
        assert_eq!(handshakes.addresses.len(), MAX_ADDRESSES);
        handshakes.forget(now + EXPIRY);
        assert!(handshakes.addresses.is_empty());
    }
}
