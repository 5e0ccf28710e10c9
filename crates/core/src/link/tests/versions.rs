//! Agents of versions that follow each other in one cluster: what the first version said is frozen, and what a later
//! one will say beyond that is made up.

use super::*;
use crate::codec::encode_cell;
use crate::label::Label;
use crate::link::keys::{Filed, KeyringSummary};
use crate::link::wire::{
    Absent, Answer, Card, Cards, Conflict, Digest, Handover, KeyStatus, Ping, Pong, Push, PushAck, Question,
};
use crate::record::{Network, Record};

/// A line for each kind: its word, and a payload as the first version spells it, in hexadecimal digits; then a whole
/// frame. Never changed, only added to.
const FROZEN: &str = include_str!("../../../../../tests/frozen/frames-0.1.txt");

fn frozen(word: &str) -> Vec<u8> {
    let line = FROZEN.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    let digits = line.unwrap_or_else(|| panic!("{word} is frozen"));
    digits
        .as_bytes()
        .chunks(2)
        .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn record() -> Cell {
    let [id, name, node] = ["i", "t", "n"].map(Label::from);
    let record = Record { id, name, node, network: Network::Tcp, address: "h:1".into() };
    Cell { version: 9, content: Content::Record(Arc::new(record)) }
}

fn bytes_of(cell: &Cell) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_cell(cell, &mut bytes);
    bytes
}

/// What is said is what the first version reads, and what it says is read.
fn assert_frozen<'a, T>(kind: Kind, said: &T, frozen: &'a [u8])
where
    T: serde::Serialize + Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    assert!(wire::encode(said).starts_with(frozen), "{kind:?}: {:02x?}", wire::encode(said));
    assert_eq!(wire::decode::<T>(frozen).as_ref(), Ok(said));
}

#[test]
fn payloads_are_read_and_said_as_in_the_first_version() {
    let told = || KeyringSummary::of(&Keyring::public(), Filed::Written);
    let (from, taken_by) = (2, "10.0.0.3:8002".parse().unwrap());
    let (record, empty) = (bytes_of(&record()), bytes_of(&Cell { version: 3, content: Content::Empty }));
    let changes = || vec![(1, &record[..]), (7, &empty)];
    let frozen = Kind::ALL.map(|kind| frozen(kind.word()));
    for (kind, bytes) in Kind::ALL.into_iter().zip(&frozen) {
        match kind {
            Kind::Digest => assert_frozen(kind, &Digest { hash: 9, silent: vec!["b", "c"] }, bytes),
            Kind::Cards => {
                let (generation, addr, left, version, age_ms) = (8, taken_by, true, 9, 700);
                let card = Card { name: "b", generation, addr, left, version, age_ms };
                assert_frozen(kind, &Cards { differs: true, cards: vec![card] }, bytes);
            }
            Kind::Push => {
                let (since, until) = (2, 9);
                let push = Push { age_us: 300, id: 5, former: Some(6), since, until, changes: changes() };
                assert_frozen(kind, &push, bytes);
            }
            Kind::PushAck => assert_frozen(kind, &PushAck { id: 500 }, bytes),
            Kind::Ping => assert_frozen(kind, &Ping { nonce: Some(77), told: 9 }, bytes),
            Kind::Pong => assert_frozen(kind, &Pong { nonce: 77, name: "a", generation: 8 }, bytes),
            Kind::Conflict => assert_frozen(kind, &Conflict { session: [3; 8], taken_by }, bytes),
            Kind::KeyStatus => {
                let absent = vec![Absent { name: "b", generation: 4, silent: 60, told: Some(told()) }];
                let (revision, heard, ask, public) = (2, 1, true, [5; 32]);
                let status = KeyStatus { revision, heard, ask, public, told: told(), absent };
                assert_frozen(kind, &status, bytes);
            }
            Kind::Handover => {
                assert_frozen(kind, &Handover { public: [5; 32], nonce: [6; 24], sealed: &[7; 9] }, bytes);
            }
            Kind::Question => {
                assert_frozen(kind, &Question { name: "a", generation: 8, after: 9, from }, bytes);
            }
            Kind::Answer => {
                let (generation, next, whole, until) = (8, Some(9), true, 9);
                let changes = changes();
                assert_frozen(
                    kind,
                    &Answer { name: "a", generation, from, next, whole, until, changes },
                    bytes,
                );
            }
        }
    }
}

#[test]
fn a_frame_of_the_first_version_opens_and_ours_are_sealed_like_it() {
    let sealer = Sealer::new(Keyring::public(), "gossd");
    let frame = frozen("frame");
    let opened = sealer.open(&frame).unwrap();
    let (header, payload) = wire::split(&opened.plain).unwrap();
    let from = "[2001:db8::1]:8002".parse().unwrap();
    let counter = 300;
    let kind = Kind::Ping.number();
    assert_eq!(header, Header { session: [1; 8], counter, from, kind });
    assert_eq!(payload, frozen("ping"));
    assert_eq!(sealer.seal(opened.key, [9; 24], &opened.plain), frame);
}

/// What a later version would send instead of a frame: fields more in all that it says, and kinds more.
fn of_a_later_version(frame: &Opened) -> Vec<Opened> {
    let (header, payload) = wire::split(&frame.plain).unwrap();
    let payload = [payload, b"fields that nobody knows yet"].concat();
    let plain = wire::pack(header, &payload);
    let unknown = Header { kind: 200, ..header };
    let unknown = wire::pack(unknown, b"what nobody knows yet");
    [plain, unknown].map(|plain| Opened { plain, key: frame.key }).into()
}

#[test]
fn agents_of_this_version_and_of_a_later_one_are_one_cluster() {
    let mut room = Room::new(3);
    room.translate = of_a_later_version;
    room.meet();
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [2, 2, 2]);
    room.publish(1, 7);
    room.run(2_000);
    assert_eq!(room.numbers().len(), 2, "both others hear it");
    assert!(room.agents.values().all(|agent| agent.link.is_settled()), "and say so");
    for n in 1..=3 {
        let counters = room.counters(n);
        assert!(counters.dropped(Dropped::UnknownKind) > 0 && counters.dropped(Dropped::UnknownField) > 0);
        assert_eq!([Dropped::Malformed, Dropped::NotASlot].map(|why| counters.dropped(why)), [0, 0]);
    }
}

#[test]
fn what_a_later_version_writes_in_a_slot_is_kept_as_it_came_and_counted() {
    let mut room = Room::new(1);
    let now = room.now;
    let known = bytes_of(&record());
    let (later, unknown) = ([&known[..], b"and more"].concat(), b"\x05\x63what nobody knows yet");
    let Member { link, copies, .. } = room.at(addr(1));
    let values = vec![(1, &known[..]), (2, &later), (3, unknown), (4, b"")];
    let by = Owner { name: "b".parse().unwrap(), generation: 1 };
    let changes = link.changes(now, &by, values, 0, &mut Noting(copies.into()));
    assert_eq!(changes.iter().map(|change| change.slot).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(changes[0].cell.content.record(), changes[1].cell.content.record());
    let again: Vec<_> = changes.iter().map(|change| bytes_of(&change.cell)).collect();
    assert_eq!(again, [known, later, unknown.to_vec()]);
    let counted = [Dropped::UnknownField, Dropped::NotASlot].map(|why| room.counters(1).dropped(why));
    assert_eq!(counted, [2, 1]);
}
