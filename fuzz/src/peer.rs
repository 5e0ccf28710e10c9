//! A peer without an agent: it makes handshakes, under whatever name, and encrypts whatever an input says.

use std::net::SocketAddr;

use gossd_core::link::frame::{self, Index, Sealed};
use gossd_core::link::keyring::{KeyId, Keyring};
use gossd_core::link::noise::{Channel, ClusterKey, Code, Handshake, Identity, MAX_INTRODUCTION};
use gossd_core::link::wire::{self, Introduction, Kind};
use gossd_core::record::Owner;

/// The cluster of all links and peers here.
pub const CLUSTER: &str = "c";
/// Sessions and handshakes that it remembers.
const MOST: usize = 64;

pub struct Peer {
    pub owner: Owner,
    pub addr: SocketAddr,
    /// For how long it says that it has run.
    pub uptime_ms: u64,
    key: (KeyId, ClusterKey),
    identity: Identity,
    /// Of each handshake another one.
    random: u64,
    /// By our index.
    begun: Vec<(Index, Handshake)>,
    answered: Vec<(Index, Index, Handshake)>,
    sessions: Vec<Session>,
}

/// A handshake that it finished.
struct Session {
    /// Who is at the other end.
    with: SocketAddr,
    ours: Index,
    theirs: Index,
    channel: Channel,
}

/// What a frame was to it.
pub enum Taken {
    /// Of a handshake: what it sends next.
    Next(Vec<u8>),
    /// It ends a handshake.
    Finished,
    /// Something encrypted.
    Data(u8, Vec<u8>),
    /// Nothing that it understands.
    Nothing,
}

impl Peer {
    /// Its identity is a number; its key, the first of a keyring.
    pub fn new(owner: Owner, addr: SocketAddr, identity: u8, keyring: &Keyring) -> Self {
        let id = keyring.sealing();
        let key = keyring.for_cluster(CLUSTER).remove(&id).expect("a keyring has it");
        Self {
            owner,
            addr,
            uptime_ms: 60_000,
            key: (id, key),
            identity: Identity::new(&[identity; 32]),
            random: u64::from(identity) << 32,
            begun: Vec::new(),
            answered: Vec::new(),
            sessions: Vec::new(),
        }
    }

    /// Of the next handshake: random bytes, and our index.
    fn next(&mut self) -> ([u8; 32], Index) {
        self.random += 1;
        let mut bytes = [0x5a; 32];
        bytes[..8].copy_from_slice(&self.random.to_le_bytes());
        let low = u32::try_from(self.random & 0xffff).expect("16 bits");
        let high = u32::try_from(self.random >> 32).expect("a byte");
        (bytes, high << 16 | low)
    }

    fn introduction(&self) -> Vec<u8> {
        let Owner { name, generation } = &self.owner;
        let (name, generation, addr) = (name.as_str(), *generation, self.addr);
        let introduction = wire::encode(&Introduction {
            name,
            generation,
            addr,
            uptime_ms: self.uptime_ms,
            version: "0.1.0",
        });
        assert!(introduction.len() <= MAX_INTRODUCTION);
        introduction
    }

    /// Begins a handshake.
    pub fn hello(&mut self, cookie: Option<&Code>) -> Vec<u8> {
        let (random, index) = self.next();
        let (id, key) = &self.key;
        let (handshake, first) = Handshake::begin(key, &self.identity, random);
        let hello = frame::hello((*id, key), index, &first, cookie);
        push(&mut self.begun, (index, handshake));
        hello
    }

    /// A Cookie for whoever calls a handshake so.
    pub fn cookie(&self, to: Index, cookie: &Code) -> Vec<u8> {
        frame::cookie(&self.key.1, to, cookie)
    }

    /// Takes a frame of somebody: the next one of a handshake, or what is in it.
    pub fn take(&mut self, from: SocketAddr, bytes: &[u8]) -> Taken {
        match frame::read(bytes) {
            Ok(Sealed::Hello { index, first, .. }) => {
                let (random, ours) = self.next();
                let introduction = self.introduction();
                let (_, key) = &self.key;
                match Handshake::answer(key, &self.identity, random, first, &introduction) {
                    Ok((handshake, second)) => {
                        push(&mut self.answered, (ours, index, handshake));
                        Taken::Next(frame::reply(key, ours, index, &second))
                    }
                    Err(_) => Taken::Nothing,
                }
            }
            Ok(Sealed::Reply { index: theirs, to, second, .. }) => {
                let Some(at) = self.begun.iter().position(|(ours, _)| *ours == to) else {
                    return Taken::Nothing;
                };
                let (ours, handshake) = self.begun.remove(at);
                match handshake.prove(second, &self.introduction()) {
                    Ok((channel, third, _)) => {
                        push(&mut self.sessions, Session { with: from, ours, theirs, channel });
                        Taken::Next(frame::proof(&self.key.1, theirs, &third))
                    }
                    Err((handshake, _)) => {
                        self.begun.push((ours, handshake));
                        Taken::Nothing
                    }
                }
            }
            Ok(Sealed::Proof { to, third, .. }) => {
                let Some(at) = self.answered.iter().position(|(ours, ..)| *ours == to) else {
                    return Taken::Nothing;
                };
                let (ours, theirs, handshake) = self.answered.remove(at);
                match handshake.complete(third) {
                    Ok((channel, _)) => {
                        push(&mut self.sessions, Session { with: from, ours, theirs, channel });
                        Taken::Finished
                    }
                    Err(_) => Taken::Nothing,
                }
            }
            Ok(Sealed::Cookie { to, cookie, .. }) => {
                let known = self.begun.iter().any(|(ours, _)| *ours == to);
                if known { Taken::Next(self.hello(Some(&cookie))) } else { Taken::Nothing }
            }
            Ok(Sealed::Data { to, counter, encrypted }) => {
                let session = self.sessions.iter().find(|session| session.ours == to);
                let plain = session.and_then(|session| session.channel.decrypt(counter, encrypted).ok());
                match plain.as_deref().map(wire::split) {
                    Some(Ok((kind, payload))) => Taken::Data(kind, payload.to_vec()),
                    Some(Err(error)) => panic!("{error}"),
                    None => Taken::Nothing,
                }
            }
            Ok(Sealed::Refusal { .. }) | Err(_) => Taken::Nothing,
        }
    }

    /// A frame of its newest session with somebody; none if it has not finished a handshake.
    pub fn say(&mut self, to: SocketAddr, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        self.say_plain(to, &wire::pack(kind, payload))
    }

    /// The same, whatever is in it.
    pub fn say_plain(&mut self, to: SocketAddr, plain: &[u8]) -> Option<Vec<u8>> {
        let Session { theirs, channel, .. } =
            self.sessions.iter_mut().rev().find(|session| session.with == to)?;
        let (counter, encrypted) = channel.encrypt(plain);
        Some(frame::data(*theirs, counter, &encrypted))
    }

    /// Is another process from now on, which knows nothing of the one before.
    pub fn restart(&mut self, generation: u64) {
        self.owner.generation = generation;
        self.begun.clear();
        self.answered.clear();
        self.sessions.clear();
    }
}

/// Adds to what is remembered; the oldest goes.
fn push<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() == MOST {
        entries.remove(0);
    }
    entries.push(entry);
}
