//! What may reach chitchat: it trusts its peers, and some messages that make no sense end it, and with it the process. So
//! every message is read here first, as far as to be sure that it is one which an agent writes.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use chitchat::{ChitchatId, Deserializable, Serializable as _};
use zstd::bulk::Decompressor;

use super::{STATUS, VERSION};
use crate::gossip::slots::MAX_VERSION;
use gossd_core::record::AgentName;

/// What chitchat's messages begin with: its magic number and the version of its protocol.
const HEADER: usize = 3;
/// Bytes of an agent in a digest, besides its id: three numbers.
const DIGEST: usize = 24;
/// Most bytes of all agents in a digest, so that it fits a message: chitchat ends at 65,507.
const MAX_DIGEST: usize = 60_000;
/// Most bytes of a delta, unpacked: two short values of each of the agents that fit a digest, three times over.
const MAX_DELTA: usize = 1 << 20;
/// Longest block of a delta, unpacked.
const MAX_BLOCK: usize = u16::MAX as usize;
/// Longest value: a version, in digits.
const MAX_VALUE: usize = 64;

/// A message that no agent writes, or about more agents than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

impl From<anyhow::Error> for Unfit {
    fn from(_: anyhow::Error) -> Self {
        Self
    }
}

/// Reads messages before chitchat does.
#[derive(Debug)]
pub struct Vet {
    us: ChitchatId,
    known: Mutex<Known>,
}

/// The agents that chitchat knows, and that it will know when it has read what was let through.
#[derive(Debug, Default)]
struct Known {
    ids: HashSet<ChitchatId>,
    /// What they take in a digest.
    bytes: usize,
    /// Those of the last message that was let through, which chitchat may not have read yet.
    last: Vec<ChitchatId>,
}

impl Known {
    fn add(&mut self, id: ChitchatId) {
        self.bytes += if self.ids.contains(&id) { 0 } else { id.serialized_len() + DIGEST };
        self.ids.insert(id);
    }
}

impl Vet {
    pub(super) fn new(us: ChitchatId) -> Self {
        Self { us, known: Mutex::default() }
    }

    /// These are known at present. To be called under chitchat's lock, so that no more than one message is under way to
    /// it.
    pub(super) fn set_known<'a>(&self, ids: impl Iterator<Item = &'a ChitchatId>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::take(&mut known.last);
        *known = Known::default();
        ids.for_each(|id| known.add(id.clone()));
        for id in &last {
            known.add(id.clone());
        }
        known.last = last;
    }

    /// Whether chitchat may have a message, which it is to read before the next one is looked at.
    pub fn look(&self, message: &[u8]) -> Result<(), Unfit> {
        let mut rest = message.get(HEADER..).ok_or(Unfit)?;
        let kind: u8 = read(&mut rest)?;
        let mut ids = Vec::new();
        if matches!(kind, 0 | 1) {
            read_digest(&mut rest, &mut ids)?;
        }
        if matches!(kind, 1 | 2) {
            self.read_delta(rest, &mut ids)?;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: HashSet<ChitchatId> = ids.into_iter().filter(|id| !known.ids.contains(id)).collect();
        let more: usize = fresh.iter().map(|id| id.serialized_len() + DIGEST).sum();
        if more > 0 && known.bytes + more > MAX_DIGEST {
            return Err(Unfit);
        }
        for id in &fresh {
            known.add(id.clone());
        }
        known.last = fresh.into_iter().collect();
        Ok(())
    }

    fn read_delta(&self, blocks: &[u8], ids: &mut Vec<ChitchatId>) -> Result<(), Unfit> {
        let bytes = unpack(blocks)?;
        let (mut rest, mut said) = (&bytes[..], None);
        while !rest.is_empty() {
            match (read(&mut rest)?, &mut said) {
                (0_u8, said) => {
                    let id = read_id(&mut rest)?;
                    let [collected, _from]: [u64; 2] = [read(&mut rest)?, read(&mut rest)?];
                    // Nothing is ever deleted, so there is nothing to collect; and only we write what we say.
                    if collected != 0 || id == self.us {
                        return Err(Unfit);
                    }
                    ids.push(id);
                    *said = Some(false);
                }
                (1, Some(said)) => {
                    let [key, value]: [String; 2] = [read(&mut rest)?, read(&mut rest)?];
                    let (version, deleted): (u64, u8) = (read(&mut rest)?, read(&mut rest)?);
                    let is_ours = matches!(&*key, VERSION | STATUS) && value.len() <= MAX_VALUE;
                    if !is_ours || version > MAX_VERSION || deleted != 0 {
                        return Err(Unfit);
                    }
                    *said = true;
                }
                // Instead of values, where there are none.
                (2, Some(false)) if read::<u64>(&mut rest)? <= MAX_VERSION => {}
                _ => return Err(Unfit),
            }
        }
        Ok(())
    }
}

fn read<T: Deserializable>(bytes: &mut &[u8]) -> Result<T, Unfit> {
    Ok(T::deserialize(bytes)?)
}

fn read_id(bytes: &mut &[u8]) -> Result<ChitchatId, Unfit> {
    let id: ChitchatId = read(bytes)?;
    let _name: AgentName = id.node_id.parse().map_err(|_| Unfit)?;
    Ok(id)
}

fn read_digest(bytes: &mut &[u8], ids: &mut Vec<ChitchatId>) -> Result<(), Unfit> {
    let count: u16 = read(bytes)?;
    for _ in 0..count {
        ids.push(read_id(bytes)?);
        for _ in 0..3 {
            // A heartbeat, what was collected, and a version.
            read::<u64>(bytes)?;
        }
    }
    Ok(())
}

/// The blocks of a delta, one after the other.
fn unpack(mut blocks: &[u8]) -> Result<Vec<u8>, Unfit> {
    let (mut bytes, mut zstd) = (Vec::new(), Decompressor::new().map_err(|_| Unfit)?);
    loop {
        let kind: u8 = read(&mut blocks)?;
        if kind == 0 {
            return Ok(bytes);
        }
        let len: u16 = read(&mut blocks)?;
        let (block, rest) = blocks.split_at_checked(len.into()).ok_or(Unfit)?;
        blocks = rest;
        match kind {
            1 => bytes.extend(zstd.decompress(block, MAX_BLOCK).map_err(|_| Unfit)?),
            2 => bytes.extend(block),
            _ => return Err(Unfit),
        }
        if bytes.len() > MAX_DELTA {
            return Err(Unfit);
        }
    }
}

#[cfg(test)]
mod tests {
    use chitchat::Serializable;
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> ChitchatId {
        ChitchatId::new(name, 1, ([10, 0, 0, 1], 8002).into())
    }

    fn vet() -> Vet {
        Vet::new(id("us"))
    }

    fn put(bytes: &mut Vec<u8>, what: &impl Serializable) {
        what.serialize(bytes);
    }

    fn head(kind: u8) -> Vec<u8> {
        vec![0x53, 0xb0, 0, kind]
    }

    fn syn(names: impl Iterator<Item = String>) -> Vec<u8> {
        let names: Vec<String> = names.collect();
        let mut bytes = head(0);
        put(&mut bytes, &u16::try_from(names.len()).unwrap());
        for name in names {
            put(&mut bytes, &id(&name));
            for number in [1_u64, 0, 1] {
                put(&mut bytes, &number);
            }
        }
        bytes
    }

    fn ack(operations: &[u8]) -> Vec<u8> {
        let mut bytes = head(2);
        bytes.push(2);
        put(&mut bytes, &u16::try_from(operations.len()).unwrap());
        bytes.extend(operations);
        bytes.push(0);
        bytes
    }

    fn node(name: &str, collected: u64) -> Vec<u8> {
        let mut bytes = vec![0];
        put(&mut bytes, &id(name));
        put(&mut bytes, &collected);
        put(&mut bytes, &0_u64);
        bytes
    }

    fn value(key: &str, value: &str, version: u64, deleted: u8) -> Vec<u8> {
        let mut bytes = vec![1];
        put(&mut bytes, &key.to_owned());
        put(&mut bytes, &value.to_owned());
        put(&mut bytes, &version);
        bytes.push(deleted);
        bytes
    }

    fn version(version: u64) -> Vec<u8> {
        let mut bytes = vec![2];
        put(&mut bytes, &version);
        bytes
    }

    #[test]
    fn what_an_agent_writes_is_let_through_and_what_ends_chitchat_is_not() {
        let look = |parts: &[Vec<u8>]| vet().look(&ack(&parts.concat()));
        assert_eq!(look(&[node("a", 0), value(VERSION, "1 2", 1, 0), value(STATUS, "ready", 2, 0)]), Ok(()));
        assert_eq!(look(&[node("a", 0), version(7), node("b", 0)]), Ok(()));
        assert_eq!(vet().look(&head(3)), Ok(()), "of another cluster");
        for (what, parts) in [
            ("about us", vec![node("us", 0), value(VERSION, "1 2", u64::MAX - 1, 0)]),
            ("collected", vec![node("a", 9)]),
            ("deleted", vec![node("a", 0), value(VERSION, "1 2", 1, 1)]),
            ("a version from nowhere", vec![node("a", 0), value(VERSION, "1 2", u64::MAX, 0)]),
            ("back to a former version", vec![node("a", 0), value(VERSION, "1 2", 5, 0), version(1)]),
            ("another key", vec![node("a", 0), value("é", "1", 1, 0)]),
            ("a long value", vec![node("a", 0), value(VERSION, &"1".repeat(65), 1, 0)]),
            ("no name", vec![node("\u{1b}[2J", 0)]),
            ("nobody's", vec![value(VERSION, "1 2", 1, 0)]),
            ("nothing known", vec![vec![9]]),
        ] {
            assert_eq!(look(&parts), Err(Unfit), "{what}");
        }
        let bomb = zstd::bulk::compress(&vec![0; MAX_BLOCK], 1).unwrap();
        let mut bytes = head(2);
        for _ in 0..100 {
            bytes.push(1);
            put(&mut bytes, &u16::try_from(bomb.len()).unwrap());
            bytes.extend(&bomb);
        }
        assert_eq!(vet().look(&bytes), Err(Unfit), "unpacks for ever");
    }

    #[test]
    fn no_more_agents_are_let_in_than_fit_a_digest_and_those_who_are_known_stay() {
        let vet = vet();
        let mut let_in = 0;
        while vet.look(&syn(std::iter::once(format!("made-up-{let_in}")))).is_ok() {
            let_in += 1;
        }
        assert!((1_000..2_000).contains(&let_in), "{let_in}");
        assert_eq!(vet.look(&syn((0..200).map(|n| format!("made-up-{n}")))), Ok(()));
        assert_eq!(vet.look(&syn((0..3_000).map(|n| format!("more-{n}")))), Err(Unfit));
        vet.set_known([id("made-up-1")].iter());
        vet.set_known(std::iter::empty());
        assert_eq!(vet.look(&syn(std::iter::once("late".into()))), Ok(()), "the others were forgotten");
    }

    proptest! {
        #[test]
        fn no_bytes_can_make_it_panic(
            kind in 0..4_u8,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = vet().look(&[head(kind), bytes.clone()].concat());
            let _ = vet().look(&ack(&bytes));
        }
    }
}
