//! Agents of versions that follow each other in one cluster: what the first version said is frozen, and what a later
//! one will say beyond that is made up.

use super::*;
use crate::codec::encode_cell;
use crate::label::Label;
use crate::link::keys::{Filed, KeyringSummary};
use crate::link::noise::Handshake;
use crate::link::wire::{
    Answer, Card, Cards, Conflict, Digest, Introduction, OfferedGost, Ping, Pong, Push, PushAck, Question,
    Superseded,
};
use crate::record::{Network, Record};

/// A line for each kind: its word, and a payload as the first version spells it, in hexadecimal digits; then the frames of
/// a handshake. Never changed, only added to.
const FROZEN: &str = include_str!("../../../../../tests/frozen/0.1/frames.txt");

/// What to do when a test here fails.
const WHY: &str = include_str!("../../../../../tests/frozen/README.md");

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
    assert!(wire::encode(said).starts_with(frozen), "{kind:?} is sent as {:02x?}. {WHY}", wire::encode(said));
    assert_eq!(wire::decode::<T>(frozen).as_ref(), Ok(said), "{kind:?} is read as another. {WHY}");
}

#[test]
fn payloads_are_read_and_said_as_in_the_first_version() {
    let told = || KeyringSummary::of(&Keyring::public(), Filed::Written);
    let (from, taken_by) = (2, "10.0.0.3:8002".parse().unwrap());
    let (record, empty) = (bytes_of(&record()), bytes_of(&Cell { version: 3, content: Content::Empty }));
    let changes = || vec![(1, &record[..]), (7, &empty)];
    let is_frame =
        |kind: &Kind| matches!(kind, Kind::Hello | Kind::Reply | Kind::Proof | Kind::Cookie | Kind::Refusal);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !is_frame(kind)).collect();
    let frozen: Vec<Vec<u8>> = kinds.iter().map(|kind| frozen(kind.word())).collect();
    for (kind, bytes) in kinds.into_iter().zip(&frozen) {
        match kind {
            Kind::Digest => {
                assert_frozen(kind, &Digest { hash: 9, cards: 3, silent: vec!["b", "c"], copies: 4 }, bytes);
            }
            Kind::Cards => {
                let (generation, addr, left, version, age_ms) = (8, taken_by, true, 9, 700);
                let (revision, program, keys) = (3, "0.1.0", Some(told()));
                let card = Card {
                    name: "b",
                    generation,
                    revision,
                    addr,
                    left,
                    buried: false,
                    version,
                    age_ms,
                    program,
                    keys,
                };
                assert_frozen(kind, &Cards { rows: 5, hash: 6, cards: vec![card] }, bytes);
            }
            Kind::Push => {
                let (since, until) = (2, 9);
                let push = Push { age_us: 300, id: 5, former: Some(6), since, until, changes: changes() };
                assert_frozen(kind, &push, bytes);
            }
            Kind::PushAck => assert_frozen(kind, &PushAck { id: 500 }, bytes),
            Kind::Ping => {
                assert_frozen(
                    kind,
                    &Ping { nonce: Some(77), told: 9, revision: 3, lost: 200, ran: 300 },
                    bytes,
                );
            }
            Kind::Pong => assert_frozen(kind, &Pong { nonce: 77 }, bytes),
            Kind::Conflict => assert_frozen(kind, &Conflict { taken_by }, bytes),
            Kind::Superseded => assert_frozen(kind, &Superseded { generation: 9, ran: 5 }, bytes),
            // The keyring of loopback, as a peer gets it.
            Kind::Handover => assert!(wire::encode(&Keyring::public().spell()).starts_with(bytes)),
            Kind::Hello | Kind::Reply | Kind::Proof | Kind::Cookie | Kind::Refusal => {
                panic!("a frame of its own")
            }
            Kind::Seek => {
                let tunnel = TunnelId::from_bytes([7; 16]);
                assert_frozen(kind, &wire::Seek { id: 4, tunnel }, bytes);
            }
            Kind::Offer => {
                let gost = Some(OfferedGost { node: "n", address: "h:1" });
                assert_frozen(kind, &wire::Offer { id: 4, reaches: true, gost }, bytes);
            }
            Kind::Alert => {
                let silent = vec![wire::Silent { name: "b", generation: 8, silence_ms: 1_300 }];
                assert_frozen(kind, &wire::Alert { silent }, bytes);
            }
            Kind::Rows | Kind::Copies => assert_frozen(kind, &wire::Rows { hashes: &[7; 16] }, bytes),
            Kind::Versions => {
                let versions = wire::Versions { is_answer: true, owners: vec![("a", 8, 9)] };
                assert_frozen(kind, &versions, bytes);
            }
            Kind::Question => {
                assert_frozen(kind, &Question { name: "a", generation: 8, after: 9, from, id: 4 }, bytes);
            }
            Kind::Answer => {
                let (generation, next, whole, until) = (8, Some(9), true, 9);
                let changes = changes();
                assert_frozen(
                    kind,
                    &Answer { name: "a", generation, id: 4, after: 9, from, next, whole, until, changes },
                    bytes,
                );
            }
        }
    }
}

#[test]
fn a_handshake_is_what_it_was_in_the_first_version() {
    let (key, [a, b]) = (ClusterKey::new(&[1; 32], "gossd"), [2, 3].map(|n| Identity::new(&[n; 32])));
    let addr = "[2001:db8::1]:8002".parse().unwrap();
    let introduction = Introduction { name: "a", generation: 8, addr, uptime_ms: 300, version: "0.1.0" };
    let introduction = wire::encode(&introduction);
    let (ours, first) = Handshake::begin(&key, &a, [4; 32]);
    let hello = frame::hello((KeyId::of([7; 4]), &key), 5, &first, Some(&[6; 16]));
    let (theirs, second) = Handshake::answer(&key, &b, [5; 32], &first, &introduction).unwrap();
    let reply = frame::reply(&key, 6, 5, &second);
    let Ok((mut channel, third, _)) = ours.prove(&second, &introduction) else { panic!("its answer") };
    let proof = frame::proof(&key, 6, &third);
    assert!(theirs.complete(&third).is_ok());
    let (counter, encrypted) = channel.encrypt(&wire::pack(Kind::PushAck, &frozen("push_ack")));
    let data = frame::data(6, counter, &encrypted);
    let cookie = frame::cookie(&key, 5, &[8; 16]);
    let refusal = frame::refusal(5, 2);
    let words = ["introduction", "hello", "reply", "proof", "data", "cookie", "refusal"];
    for (word, made) in words.into_iter().zip([introduction, hello, reply, proof, data, cookie, refusal]) {
        assert_eq!(made, frozen(word), "{word} is made as {made:02x?}. {WHY}");
    }
}

#[test]
fn agents_of_this_version_and_of_a_later_one_are_one_cluster() {
    let mut room = Room::new(3);
    (1..=3).for_each(|n| room.link(n).is_later = true);
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
