//! The bytes of slots: what each content is encoded as, what is kept of later versions, and what is refused.

use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::address::Address;
use crate::cells::Cells;
use crate::directory::Directory;
use crate::hostname::{Claim, Clock, Endpoint, MAX_CLOCK, TunnelId};
use crate::label::Label;
use crate::record::{Network, Owner};
use crate::replica::{Extent, Replica};
use crate::replicas::Applied;
use crate::slot::{Change, FIRST_CLAIM, FIRST_UNREACHED, LOCALITY_SLOT, MAX_EACH, MAX_SLOT, STATUS_SLOT};

const UUID: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const HASH: &str = "a6265c6d9847a4be";

fn rule(host: &str, endpoint: &str, clock: Clock) -> Content {
    let endpoint = Endpoint::parse(endpoint).unwrap();
    Content::Claim(Arc::new(Claim { host: host.into(), endpoint, clock }))
}

fn record([id, name, node, address]: [&str; 4]) -> Content {
    let ([id, name, node], address) = ([id, name, node].map(Label::from), address.into());
    Content::Record(Arc::new(Record { id, name, node, network: Network::Udp, address }))
}

fn locality(zone: &str, weight: u8) -> Content {
    Content::Locality(Arc::new(Locality { zone: zone.into(), weight }))
}

fn unreached(entrypoint: &str) -> Content {
    Content::Unreached(Arc::new(Unreached { entrypoint: entrypoint.into(), is_silent: true }))
}

fn encoded(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(content, &mut bytes);
    bytes
}

fn of_cell(version: Version, content: Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_cell(&Cell { version, content }, &mut bytes);
    bytes
}

/// A kind of content that there is not.
fn unknown() -> Vec<u8> {
    let mut bytes = vec![77];
    bytes.extend([1; 300]);
    bytes
}

#[test]
fn every_content_comes_back() {
    for (slot, content) in [
        (7, Content::Empty),
        (STATUS_SLOT, Content::Status(Status::Ready)),
        (STATUS_SLOT, Content::Status(Status::Draining)),
        (STATUS_SLOT, Content::Status(Status::Left)),
        (MAX_EACH, record(["i", "host@0c4d", "n", "[fd00::1]:80"])),
        (1, record([UUID, "host@0c4d", UUID, "255.255.255.255:65535"])),
        (1, record([&UUID.to_uppercase(), UUID, "4d21094e-b74c-1916-86c1-d9fa36ea677b", "10.0.0.1:080"])),
        (FIRST_CLAIM, rule("x", UUID, 0)),
        (LOCALITY_SLOT - 1, rule(".example.org", &format!("${UUID}"), MAX_CLOCK)),
        (FIRST_CLAIM, rule(HASH, UUID, 7)),
        (FIRST_CLAIM + 1, Content::Empty),
        (LOCALITY_SLOT, locality("eu-central-1", 0)),
        (FIRST_UNREACHED, unreached("10.0.0.1:8420")),
        (MAX_SLOT, unreached("b.example.org:80")),
        (
            1,
            record([&"i".repeat(512), &"ü".repeat(256), &"n".repeat(512), &format!("{}:1", "a".repeat(510))]),
        ),
    ] {
        let bytes = of_cell(3, content.clone());
        assert!(bytes.len() <= MAX_CELL);
        assert_eq!(decode_cell(slot, &bytes), Some(Cell { version: 3, content }));
    }
}

/// Agents of all versions read this, and journals hold it.
#[test]
fn the_bytes_are_as_they_always_were() {
    let tunnel =
        [0x4d, 0x21, 0x09, 0x4e, 0xb7, 0x4c, 0x49, 0x16, 0x86, 0xc1, 0xd9, 0xfa, 0x36, 0xea, 0x67, 0x7b];
    for (content, want) in [
        (Content::Empty, vec![0]),
        (Content::Status(Status::Ready), vec![1, 0]),
        (Content::Status(Status::Draining), vec![1, 1]),
        (Content::Status(Status::Left), vec![1, 2]),
        (
            record([UUID, "t", "n", "10.0.0.1:80"]),
            [&[2, 0][..], &tunnel, b"\x01\x01t\x01\x01n\x01\x00\x0a\x00\x00\x01\x00\x50"].concat(),
        ),
        (record(["i", "t", "n", "h:1"]), b"\x02\x01\x01i\x01\x01t\x01\x01n\x01\x01\x03h:1".to_vec()),
        (rule("x", UUID, 300), [&b"\x03\x01x"[..], &tunnel, &[0, 0xac, 0x02]].concat()),
        (rule("x", &format!("${UUID}"), 0), [&b"\x03\x01x"[..], &tunnel, &[1, 0]].concat()),
        (locality("eu", 100), b"\x04\x02eu\x64".to_vec()),
        (unreached("10.0.0.1:80"), b"\x05\x00\x0a\x00\x00\x01\x00\x50\x01".to_vec()),
    ] {
        assert_eq!(encoded(&content), want, "{content:?}");
        assert_eq!(of_cell(300, content), [&[0xac, 0x02][..], &want].concat());
    }
}

#[test]
fn what_gost_registers_takes_75_bytes_with_its_version() {
    let content = record([UUID, UUID, UUID, "192.168.100.200:65535"]);
    let bytes = of_cell(99_999_999, content);
    assert!(bytes.len() <= 75, "{} bytes", bytes.len());
}

#[test]
fn what_no_agent_can_have_written_is_refused() {
    let long = "x".repeat(MAX_FIELD + 1);
    let good = ["i", "t", "n", "h:1"];
    assert!(decode(&encoded(&record(good))).is_some());
    for (at, fields) in [
        (0, &["", "a\nb", &long][..]),
        (1, &["", "\u{7f}", &long]),
        (2, &["", "n\t", &long]),
        (3, &["", "h", "h:0", "10.0.0.1:0", "h:1\n", &format!("{}:1", "a".repeat(MAX_FIELD))]),
    ] {
        for field in fields {
            let mut fields = good;
            fields[at] = field;
            assert_eq!(decode(&encoded(&record(fields))), None, "{fields:?}");
        }
    }
    for (host, clock) in [("", 1), ("0123456789abcdef", 1), ("x\n", 1), (&long, 1), ("x", MAX_CLOCK + 1)] {
        assert_eq!(decode(&encoded(&rule(host, UUID, clock))), None, "{host:?} {clock}");
    }
    let uuid = encoded(&record([UUID, "t", "n", "h:1"]));
    let mut other = uuid.clone();
    other[2..18].fill(0);
    assert!(decode(&uuid).is_some());
    assert_eq!(decode(&other), None, "no random UUID");
    for cut in 0..uuid.len() {
        assert_eq!(decode(&uuid[..cut]), None, "{cut} bytes");
    }
    for bytes in
        [&b"\x02\x01\x01\xff\x01\x01t\x01\x01n\x01\x01\x03h:1"[..], &[0xff; 20], &[0; MAX_CONTENT + 1]]
    {
        assert_eq!(decode(bytes), None, "{bytes:?}");
    }
    assert_eq!(decode(&[99; MAX_CONTENT + 1]), None, "of a later version, and too long");
}

#[test]
fn each_content_has_its_slots_and_each_cell_a_version() {
    let kinds = [
        (Content::Empty, [false, true, true, true, true, true]),
        (Content::Status(Status::Ready), [true, false, false, false, false, false]),
        (record(["i", "t", "n", "h:1"]), [false, true, true, false, false, false]),
        (rule("x", UUID, 7), [false, false, false, true, false, false]),
        (locality("eu", 100), [false, false, false, false, true, false]),
        (unreached("h:1"), [false, false, false, false, false, true]),
        (decode(&unknown()).unwrap(), [true; 6]),
    ];
    for (content, fits) in kinds {
        let bytes = encoded(&content);
        let later = decode(&[&bytes[..], b"more"].concat()).unwrap();
        for content in [content, later] {
            let cell = of_cell(3, content.clone());
            for (slot, fits) in
                [STATUS_SLOT, 1, MAX_EACH, FIRST_CLAIM, LOCALITY_SLOT, MAX_SLOT].into_iter().zip(fits)
            {
                assert_eq!(decode_cell(slot, &cell).is_some(), fits, "{content:?} in {slot}");
            }
            for slot in [MAX_SLOT + 1, Slot::MAX] {
                assert_eq!(decode_cell(slot, &cell), None, "{slot}");
            }
        }
    }
    for (version, good) in
        [(0, false), (1, true), (MAX_VERSION, true), (MAX_VERSION + 1, false), (u64::MAX, false)]
    {
        assert_eq!(decode_cell(1, &of_cell(version, Content::Empty)).is_some(), good, "{version}");
    }
    assert_eq!(decode_cell(1, &[]), None);
    assert_eq!(decode_cell(1, &[7]), None, "no content");
}

#[test]
fn what_a_later_version_appends_is_kept_and_what_stands_before_it_is_used() {
    for content in
        [Content::Empty, Content::Status(Status::Left), record(["i", "t", "n", "h:1"]), rule("x", UUID, 7)]
    {
        let bytes = [&encoded(&content)[..], b"\x02more"].concat();
        let later = decode(&bytes).unwrap();
        assert!(matches!(later, Content::Later(_)));
        assert_eq!(encoded(&later), bytes, "{content:?}");
        assert_eq!((later.record(), later.claim()), (content.record(), content.claim()));
        assert_eq!((later.status(), later.is_empty()), (content.status(), content.is_empty()));
        assert!(later.size() >= content.size() + bytes.len());
    }
    for bytes in [
        encoded(&record(["", "t", "n", "h:1"])),
        encoded(&rule("", UUID, 7)),
        encoded(&locality("e u", 1)),
        encoded(&unreached("nowhere")),
    ] {
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(&[&bytes[..], b"more"].concat()), None, "what is known of it has to be good");
    }
}

#[test]
fn what_is_not_known_at_all_is_kept_wherever_it_stands() {
    let network = b"\x02\x01\x01i\x01\x01t\x01\x01n\x02\x01\x03h:1".to_vec();
    let label = b"\x02\x02\x01i\x01\x01t\x01\x01n\x01\x01\x03h:1".to_vec();
    let address = b"\x02\x01\x01i\x01\x01t\x01\x01n\x01\x02\x03h:1".to_vec();
    for bytes in [vec![6], vec![0x80, 0x01, 5], unknown(), vec![1, 3], vec![1, 3, 9], network, label, address]
    {
        let content = decode(&bytes).unwrap();
        assert_eq!(encoded(&content), bytes);
        assert_eq!((content.record(), content.claim(), content.status()), (None, None, None));
        assert!(!content.is_empty() && content.size() >= bytes.len());
    }
}

/// Of its bytes behind the version.
fn change(slot: Slot, version: Version, content: &[u8]) -> Change {
    Change { slot, cell: Cell { version, content: decode(content).unwrap() } }
}

fn later_record() -> Vec<u8> {
    [&encoded(&record(["i", "t", "n", "h:1"]))[..], b"\x01z"].concat()
}

#[test]
fn cells_of_a_later_version_travel_through_a_replica_byte_for_byte() {
    let owner = Arc::new(Owner { name: "a".parse().unwrap(), generation: 1 });
    let (mut replica, now) = (Replica::new(owner), Instant::now());
    let released = [&encoded(&Content::Empty)[..], b"z"].concat();
    let all = [
        (STATUS_SLOT, 4, vec![1, 9]),
        (1, 1, later_record()),
        (2, 2, unknown()),
        (3, 5, released),
        (FIRST_CLAIM, 3, unknown()),
    ];
    for (slot, version, content) in &all {
        assert!(replica.take(now, &change(*slot, *version, content)).is_some());
    }
    replica.reach(0, 5);
    assert!(replica.is_complete());
    assert_eq!(replica.status(), Some(Status::Ready), "its records are to be shown");
    let part = replica.part(0, 0).unwrap();
    let passed_on: Vec<_> =
        part.changes.iter().map(|c| (c.slot, c.cell.version, encoded(&c.cell.content))).collect();
    assert_eq!(passed_on, all);
    let whole = Extent { whole: Some((0..MAX_SLOT, 5)), ..Extent::default() };
    let emptied: Vec<_> = replica.emptied(&whole, &[]).iter().map(|change| change.slot).collect();
    assert_eq!(emptied, [0, 1, 2, FIRST_CLAIM], "what was released is empty already");
    let mut cells = Cells::default();
    cells.insert(now, 3, change(3, 5, &all[3].2).cell);
    assert_eq!(cells.drop_empty(now, std::time::Duration::ZERO, 5), 5);
}

#[test]
fn a_record_with_appended_fields_is_listed_as_the_record_it_is() {
    let owner = Owner { name: "a".parse().unwrap(), generation: 1 };
    let us = Owner { name: "us".parse().unwrap(), generation: 1 };
    let (mut directory, now, mut events) = (Directory::new(&us), Instant::now(), Vec::new());
    let claim = [&encoded(&rule("x", UUID, 7))[..], b"more"].concat();
    for change in [
        change(1, 1, &later_record()),
        change(2, 2, &unknown()),
        change(FIRST_CLAIM, 3, &claim),
        change(FIRST_CLAIM + 1, 4, &unknown()),
        change(STATUS_SLOT, 5, &[1, 0, 9]),
    ] {
        assert_eq!(directory.apply(now, &owner, &change, &mut events), Applied::New);
    }
    directory.reach(now, &owner, &Extent { since: 0, until: 5, whole: None }, &mut events);
    assert_eq!(directory.replicas.status(&owner.name), Some(Status::Ready));
    let Content::Record(record) = record(["i", "t", "n", "h:1"]) else { unreachable!() };
    let listed =
        |directory: &Directory| directory.lookup("t").iter().map(|e| e.record.clone()).collect::<Vec<_>>();
    assert_eq!((listed(&directory), directory.replicas.records()), (vec![record], 1));
    let claims = directory.replicas.claims_of(&owner);
    assert_eq!(claims.len(), 1);
    let holders = |directory: &Directory| directory.claims.others(&claims[0].key()).count();
    assert_eq!(holders(&directory), 1);
    assert!(directory.replicas.bytes() > 2 * unknown().len(), "what is not known counts");
    for (slot, version) in [(1, 6), (FIRST_CLAIM, 7)] {
        directory.apply(now, &owner, &change(slot, version, &unknown()), &mut events);
    }
    assert_eq!((listed(&directory), holders(&directory)), (vec![], 0));
}

fn label() -> impl Strategy<Value = Label> {
    let random = any::<u128>().prop_map(|bits| uuid::Builder::from_u128(bits).into_uuid());
    let random =
        random.prop_map(|uuid| uuid::Builder::from_random_bytes(uuid.into_bytes()).into_uuid().into());
    prop_oneof![random, "[!-~ü]{1,40}".prop_map(Label::from)]
}

fn address() -> impl Strategy<Value = Address> {
    let v4 = (any::<u32>(), 1..=u16::MAX)
        .prop_map(|(ip, port)| std::net::SocketAddrV4::new(ip.into(), port).into());
    prop_oneof![v4, "[a-z0-9.-]{1,20}:[1-9][0-9]{0,3}".prop_map(Address::from)]
}

fn content() -> impl Strategy<Value = Content> {
    let status = prop::sample::select(vec![Status::Ready, Status::Draining, Status::Left]);
    let network = prop::sample::select(vec![Network::Tcp, Network::Udp]);
    let record = (label(), label(), label(), network, address());
    let record =
        record.prop_map(|(id, name, node, network, address)| Record { id, name, node, network, address });
    let claim = ("[g-z.*]{1,60}", any::<[u8; 16]>(), any::<bool>(), 0..=MAX_CLOCK);
    let claim = claim.prop_map(|(host, tunnel, private, clock)| {
        let endpoint = Endpoint { tunnel: TunnelId::from_bytes(tunnel), private };
        Content::Claim(Arc::new(Claim { host: host.into(), endpoint, clock }))
    });
    let record = record.prop_map(|record| Content::Record(Arc::new(record)));
    prop_oneof![Just(Content::Empty), status.prop_map(Content::Status), record, claim]
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(
        content in content(),
        more in proptest::collection::vec(any::<u8>(), 0..20),
        version in 1..=MAX_VERSION,
    ) {
        let bytes = encoded(&content);
        prop_assert_eq!(decode(&bytes), Some(content.clone()));
        let longer = [bytes, more].concat();
        let later = decode(&longer).unwrap();
        prop_assert_eq!(encoded(&later), longer);
        prop_assert_eq!(later.record(), content.record());
        let slot = [STATUS_SLOT, 1, FIRST_CLAIM].into_iter().find(|slot| content.fits(*slot)).unwrap();
        let cell = Cell { version, content: later };
        prop_assert_eq!(decode_cell(slot, &of_cell(version, cell.content.clone())), Some(cell));
    }

    #[test]
    fn no_bytes_can_make_it_panic(
        content in content(),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<Index>(),
        slot in 0..3_000_000_u32,
    ) {
        let mut damaged = of_cell(5, content);
        let at = at.index(damaged.len());
        damaged[at] = noise.first().copied().unwrap_or_default();
        for bytes in [&noise[..], &damaged, &damaged[..at], &[&[1, 2][..], &noise].concat()] {
            if let Some(Cell { version, content }) = decode_cell(slot, bytes) {
                let again = of_cell(version, content.clone());
                prop_assert_eq!(decode_cell(slot, &again), Some(Cell { version, content }));
            }
        }
    }
}
