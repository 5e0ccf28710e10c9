//! What is inside a sealed frame: a header that says who sent it and as which of its frames, and a payload.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::keys::KeyringSummary;
use crate::hostname::TunnelId;
use crate::record::Generation;
use crate::slot::{Slot, Version};

/// Longest payload. Longer ones would only keep others waiting.
pub const MAX_PAYLOAD: usize = 65_507;

/// What a process says of itself at the end of a handshake.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction<'a> {
    /// The agent.
    #[serde(borrow)]
    pub name: &'a str,
    /// Which of its starts.
    pub generation: Generation,
    /// Where it wants frames sent.
    pub addr: SocketAddr,
    /// For how long it has run, in milliseconds.
    pub uptime_ms: u64,
    /// Of its program.
    #[serde(borrow)]
    pub version: &'a str,
}

/// What frames are for. Kinds of later versions are skipped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What the sender's board is like: [`Digest`].
    Digest,
    /// What is on it: [`Cards`].
    Cards,
    /// Fresh changes of the sender's own slots: [`Push`].
    Push,
    /// Thanks for a push: [`PushAck`].
    PushAck,
    /// A sign of life that may ask for one: [`Ping`].
    Ping,
    /// The answer to a ping that asked: [`Pong`].
    Pong,
    /// Another agent has the receiver's name: [`Conflict`].
    Conflict,
    /// A later start of the receiver is known: [`Superseded`].
    Superseded,
    /// The sender's keyring: [`super::keyring::Spelled`].
    Handover,
    /// Asks for what is missing: [`Question`].
    Question,
    /// Tells it: [`Answer`].
    Answer,
    /// The first message of a handshake.
    Hello,
    /// The second.
    Reply,
    /// The third.
    Proof,
    /// What a Hello has to show.
    Cookie,
    /// Why a Hello is not answered.
    Refusal,
    /// Asks for a detour: [`Seek`].
    Seek,
    /// Whether there is one: [`Offer`].
    Offer,
    /// What a watcher misses: [`Alert`].
    Alert,
    /// What the rows of the sender's board are like: [`Rows`].
    Rows,
    /// How far the sender's copies of owners' slots go, by the same rows: [`Rows`].
    Copies,
    /// And by owners: [`Versions`].
    Versions,
}

impl Kind {
    /// The word that metrics use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Cards => "cards",
            Self::Push => "push",
            Self::PushAck => "push_ack",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Conflict => "conflict",
            Self::Superseded => "superseded",
            Self::Handover => "handover",
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Hello => "hello",
            Self::Reply => "reply",
            Self::Proof => "proof",
            Self::Cookie => "cookie",
            Self::Refusal => "refusal",
            Self::Seek => "seek",
            Self::Offer => "offer",
            Self::Alert => "alert",
            Self::Rows => "rows",
            Self::Copies => "copies",
            Self::Versions => "versions",
        }
    }

    /// Every kind, in the order of its number.
    pub const ALL: [Self; 22] = [
        Self::Digest,
        Self::Cards,
        Self::Push,
        Self::PushAck,
        Self::Ping,
        Self::Pong,
        Self::Conflict,
        Self::Superseded,
        Self::Handover,
        Self::Question,
        Self::Answer,
        Self::Hello,
        Self::Reply,
        Self::Proof,
        Self::Cookie,
        Self::Refusal,
        Self::Seek,
        Self::Offer,
        Self::Alert,
        Self::Rows,
        Self::Copies,
        Self::Versions,
    ];

    /// Its number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The kind of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// What the sender's board is like.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest<'a> {
    /// The same for boards that know the same agents in the same state.
    pub hash: u64,
    /// How many cards are on it.
    pub cards: u32,
    /// Agents that do not reach the sender.
    #[serde(borrow)]
    pub silent: Vec<&'a str>,
    /// The same for agents whose copies of owners' slots go equally far; 0 where everybody says so in pings.
    pub copies: u64,
}

/// What the rows of the sender's board are like, or its copies of the slots of the agents there. An agent's name says in which row
/// it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows<'a> {
    /// The hash of each, 8 bytes, little-endian.
    #[serde(borrow)]
    pub hashes: &'a [u8],
}

/// How far the sender's copies of some owners' slots go.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions<'a> {
    /// Whether those of the receiver's that it knows are wanted no more.
    pub is_answer: bool,
    /// Name, start and version.
    #[serde(borrow)]
    pub owners: Vec<(&'a str, Generation, Version)>,
}

/// Cards of the sender's board.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cards<'a> {
    /// The rows, the first one as the lowest bit, whose last cards are among these. The receiver's cards of these rows are wanted
    /// if they are still others.
    pub rows: u128,
    /// The same for boards that know the same agents in these rows, in the same state.
    pub hash: u64,
    /// The cards.
    #[serde(borrow)]
    pub cards: Vec<Card<'a>>,
}

/// What is known of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: &'a str,
    /// Its last start that is known.
    pub generation: Generation,
    /// Rises with every change of what that start states of itself.
    pub revision: u64,
    /// Where it is, or was.
    pub addr: SocketAddr,
    /// Whether it said goodbye.
    pub left: bool,
    /// Whether an operator said that it will not come back.
    pub buried: bool,
    /// How far its slots have come.
    pub version: Version,
    /// How long ago it gave its last sign of life, in milliseconds.
    pub age_ms: u32,
    /// The version of its program.
    #[serde(borrow)]
    pub program: &'a str,
    /// Its keys, without their secrets; none if they are not known.
    pub keys: Option<KeyringSummary>,
}

/// Fresh changes, of the sender's slots as a rule.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push<'a> {
    /// How long ago its oldest change was published, in microseconds of the sender's. First, because it is
    /// another each time that the push is said.
    pub age_us: u32,
    /// The sender's number for it, to be said in the ack.
    pub id: u64,
    /// If so, not the sender's slots but those of the receiver's start of that generation, said back to it.
    pub former: Option<Generation>,
    /// Whoever knew all of the sender's to this [`Version`],
    pub since: Version,
    /// knows all to this one.
    pub until: Version,
    /// Slots and their cells, as [`crate::codec`] encodes them.
    #[serde(borrow)]
    pub changes: Vec<(Slot, &'a [u8])>,
}

/// What did an owner say?
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question<'a> {
    /// The owner's name.
    #[serde(borrow)]
    pub name: &'a str,
    /// Which of its starts.
    pub generation: Generation,
    /// All to this [`Version`] is known.
    pub after: Version,
    /// Of this slot and those above.
    pub from: Slot,
    /// Which question of its sender's this is; the answer repeats it.
    pub id: u64,
}

/// The answer to a [`Question`], in parts.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<'a> {
    /// See [`Question::name`].
    #[serde(borrow)]
    pub name: &'a str,
    /// See [`Question::generation`].
    pub generation: Generation,
    /// See [`Question::id`].
    pub id: u64,
    /// See [`Question::after`].
    pub after: Version,
    /// See [`Question::from`].
    pub from: Slot,
    /// What to ask from next; none if this is all.
    pub next: Option<Slot>,
    /// Whether the slots from `from` to `next` that are not among the changes are empty.
    pub whole: bool,
    /// How far the teller's copy goes; (0, 0) if it has none.
    pub until: Version,
    /// Slots and their cells, in slot order.
    #[serde(borrow)]
    pub changes: Vec<(Slot, &'a [u8])>,
}

/// The push of that id arrived.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAck {
    /// See [`Push::id`].
    pub id: u64,
}

/// A sign of life.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// A random number that a [`Pong`] must repeat; none if none is wanted.
    pub nonce: Option<u64>,
    /// How far its sender's pushes have come.
    pub told: Version,
    /// The revision of the receiver's card that it told the sender; 0 for none.
    pub revision: u64,
    /// How many in a thousand of the receiver's last frames did not arrive.
    pub lost: u16,
    /// For so many seconds its sender has run, by a clock that goes back with its memory.
    pub ran: u32,
}

/// What follows a [`Ping`], before anything that later versions append, where not everybody watches everybody: owners that said something of late, so that whoever missed it
/// notices.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumours<'a> {
    /// Whether not everybody watches everybody, to the sender.
    pub sparse: bool,
    /// Name, start, and how far its slots have come.
    #[serde(borrow)]
    pub owners: Vec<(&'a str, Generation, Version)>,
}

/// The answer to a [`Ping`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The ping's number.
    pub nonce: u64,
}

/// Can the receiver's host dial a record of a tunnel? The sender's cannot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// Which question of its sender's this is; the offer repeats it.
    pub id: u64,
    /// The tunnel.
    pub tunnel: TunnelId,
}

/// The answer to a [`Seek`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer<'a> {
    /// See [`Seek::id`].
    pub id: u64,
    /// Whether the sender's host can.
    pub reaches: bool,
    /// A gost of that host that takes visitors; none if none is known.
    #[serde(borrow)]
    pub gost: Option<OfferedGost<'a>>,
}

/// A gost that takes visitors for a tunnel which is attached elsewhere.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedGost<'a> {
    /// The instance.
    pub node: &'a str,
    /// Its entrypoint, `host:port`.
    pub address: &'a str,
}

/// How long agents have been silent whom the sender watches.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert<'a> {
    /// Which.
    #[serde(borrow)]
    pub silent: Vec<Silent<'a>>,
}

/// How long an agent has been silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: &'a str,
    /// Which of its starts.
    pub generation: Generation,
    /// For so many milliseconds; for less than it takes to doubt it, it is heard again.
    pub silence_ms: u32,
}

/// The name of the receiver's process is another agent's.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Where the agent is that has the name.
    pub taken_by: SocketAddr,
}

/// A later start of the receiver is known, so that nothing of this one counts; or a later moment of this one, so that what it
/// says from now on is taken for what it said then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// The latest that is known.
    pub generation: Generation,
    /// For so many seconds that one had run, as far as is known; see [`Ping::ran`].
    pub ran: u32,
}

/// A payload that is not what its header says. The frame is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame whose content makes no sense")]
pub struct Malformed;

/// What a channel encrypts: the kind, and the payload.
pub fn pack(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(1 + payload.len());
    plain.push(kind.number());
    plain.extend_from_slice(payload);
    plain
}

/// Splits it into the kind's number and the payload, of [`MAX_PAYLOAD`] bytes at most.
pub fn split(plain: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let (kind, payload) = plain.split_first().ok_or(Malformed)?;
    if payload.len() > MAX_PAYLOAD { Err(Malformed) } else { Ok((*kind, payload)) }
}

/// Writes one of the payloads above.
pub fn encode<T: Serialize>(payload: &T) -> Vec<u8> {
    postcard::to_stdvec(payload).expect("writing to memory does not fail")
}

/// Reads one of the payloads above. With it comes what a later version has appended.
pub fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<(T, &'a [u8]), Malformed> {
    postcard::take_from_bytes(payload).map_err(|_| Malformed)
}

/// Reads one of the payloads above, without what a later version has appended.
pub fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Malformed> {
    read(payload).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_comes_back_and_one_that_is_too_long_does_not() {
        for len in [0, 10, 5_000, MAX_PAYLOAD] {
            let payload = vec![b'x'; len];
            assert_eq!(split(&pack(Kind::Push, &payload)), Ok((Kind::Push.number(), &payload[..])));
        }
        assert_eq!(split(&pack(Kind::Push, &vec![0; MAX_PAYLOAD + 1])), Err(Malformed));
        assert_eq!(split(&[]), Err(Malformed));
    }

    #[test]
    fn kinds_have_fixed_numbers() {
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!((kind.number(), Kind::from_number(number)), (number, Some(kind)));
        }
        assert_eq!(Kind::from_number(22), None);
    }

    #[test]
    fn a_later_version_may_append_fields() {
        let mut payload = encode(&PushAck { id: 7 });
        payload.extend_from_slice(b"more");
        assert_eq!(read(&payload), Ok((PushAck { id: 7 }, &b"more"[..])));
    }

    proptest! {
        #[test]
        fn no_bytes_can_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = split(&bytes);
            let _ = decode::<Digest<'_>>(&bytes);
            let _ = decode::<Cards<'_>>(&bytes);
            let _ = decode::<Push<'_>>(&bytes);
            let _ = decode::<Pong>(&bytes);
            let _ = decode::<Introduction<'_>>(&bytes);
            let _ = decode::<Ping>(&bytes);
            let _ = decode::<Rumours<'_>>(&bytes);
            let _ = decode::<Superseded>(&bytes);
            let _ = decode::<Question<'_>>(&bytes);
            let _ = decode::<Answer<'_>>(&bytes);
            let _ = decode::<Seek>(&bytes);
            let _ = decode::<Offer<'_>>(&bytes);
            let _ = decode::<Alert<'_>>(&bytes);
            let _ = decode::<Rows<'_>>(&bytes);
            let _ = decode::<Versions<'_>>(&bytes);
        }
    }
}
