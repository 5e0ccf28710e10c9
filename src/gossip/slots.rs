//! What slots hold, as it is spelled in frames: text, that can be read in a trace. A letter says what it is, then come
//! the sequence number and fields; the control character in front of a field, which no field may contain, says how it
//! is spelled. What there are most of, random UUIDs and addresses of IPv4, is spelled in base64.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use uuid::Uuid;

use gossd_core::address::{Address, Entrypoint};
use gossd_core::hostname::{Claim, Endpoint};
use gossd_core::label::Label;
use gossd_core::record::{MAX_FIELD, Network, Record, check_field};
use gossd_core::slot::{Cell, Content, FIRST_CLAIM, MAX_SLOT, STATUS_SLOT, Slot, Status, Version};

/// Longest value, in bytes: five fields and their frame.
pub const MAX_VALUE: usize = 5 * MAX_FIELD + 64;
/// Numbers above are hostile: an owner that writes a million times a second needs 285 years to get there.
pub(super) const MAX_VERSION: Version = 1 << 53;
/// In front of a field that is spelled as it is.
const TEXT: char = '\u{1f}';
/// In front of the 16 bytes of a random UUID.
const RANDOM: char = '\u{1e}';
/// In front of the 4 bytes of an IP address and the 2 of a port.
const V4: char = '\u{1d}';

/// The value of a cell.
pub fn value(cell: &Cell) -> String {
    let version = cell.version;
    match &cell.content {
        Content::Empty => format!("-{version}"),
        Content::Status(status) => format!("s{version}{TEXT}{}", word(*status)),
        Content::Claim(rule) => {
            let Claim { host, endpoint, clock } = &**rule;
            format!("r{version}{TEXT}{host}{TEXT}{endpoint}{TEXT}{clock}")
        }
        Content::Record(record) => {
            let Record { id, name, node, network, address } = &**record;
            let mut value = match network {
                Network::Tcp => format!("t{version}"),
                Network::Udp => format!("u{version}"),
            };
            for label in [id, name, node] {
                match label.random() {
                    Some(uuid) => spell(&mut value, RANDOM, uuid.as_bytes()),
                    None => value.extend([TEXT.encode_utf8(&mut [0; 4]), &*label.text()]),
                }
            }
            match address.v4() {
                Some(v4) => {
                    let ([a, b, c, d], [high, low]) = (v4.ip().octets(), v4.port().to_be_bytes());
                    spell(&mut value, V4, &[a, b, c, d, high, low]);
                }
                // A string takes everything.
                None => drop(write!(value, "{TEXT}{address}")),
            }
            value
        }
    }
}

fn spell(value: &mut String, how: char, bytes: &[u8]) {
    value.push(how);
    BASE64.encode_string(bytes, value);
}

/// Reads the value of a slot; nothing if there is no such slot or it can't hold that. With it come the fields, perhaps
/// none, that a later version has appended.
pub fn read(slot: Slot, value: &str) -> Option<(Cell, &str)> {
    if value.len() > MAX_VALUE || slot > MAX_SLOT {
        return None;
    }
    let mut rest = value.get(1..)?;
    let version = &rest[..rest.find(is_mark).unwrap_or(rest.len())];
    rest = &rest[version.len()..];
    let version = version.parse().ok().filter(|version| (1..=MAX_VERSION).contains(version))?;
    let content = match (slot, &value[..1]) {
        (STATUS_SLOT, "s") => Content::Status(parse_status(text(&mut rest)?)?),
        (STATUS_SLOT, _) => return None,
        (_, "-") => Content::Empty,
        (FIRST_CLAIM.., "r") => Content::Claim(Arc::new(parse_rule(&mut rest)?)),
        (FIRST_CLAIM.., _) => return None,
        (_, "t") => Content::Record(Arc::new(parse_record(Network::Tcp, &mut rest)?)),
        (_, "u") => Content::Record(Arc::new(parse_record(Network::Udp, &mut rest)?)),
        _ => return None,
    };
    (rest.is_empty() || rest.starts_with(is_mark)).then_some((Cell { version, content }, rest))
}

/// Reads the value of a slot, without what a later version has appended.
pub fn parse_value(slot: Slot, value: &str) -> Option<Cell> {
    read(slot, value).map(|(cell, _)| cell)
}

fn is_mark(c: char) -> bool {
    matches!(c, TEXT | RANDOM | V4)
}

/// The next field, and how it is spelled.
fn field<'a>(rest: &mut &'a str) -> Option<(char, &'a str)> {
    let how = rest.chars().next().filter(|c| is_mark(*c))?;
    let after = &rest[how.len_utf8()..];
    let (field, others) = after.split_at(after.find(is_mark).unwrap_or(after.len()));
    *rest = others;
    Some((how, field))
}

fn text<'a>(rest: &mut &'a str) -> Option<&'a str> {
    field(rest).filter(|(how, _)| *how == TEXT).map(|(_, text)| text)
}

fn bytes<const N: usize>(base64: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Bounded by the array; a field that is too short leaves some of it unwritten.
    (BASE64.decode_slice(base64, &mut bytes) == Ok(N)).then_some(bytes)
}

pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Ready => "ready",
        Status::Draining => "draining",
        Status::Left => "left",
    }
}

fn parse_status(text: &str) -> Option<Status> {
    [Status::Ready, Status::Draining, Status::Left].into_iter().find(|status| word(*status) == text)
}

fn parse_record(network: Network, rest: &mut &str) -> Option<Record> {
    let (id, name, node) = (parse_label(rest)?, parse_label(rest)?, parse_label(rest)?);
    let address = match field(rest)? {
        (TEXT, text) if check_field("", text).is_ok() => text.into(),
        (V4, text) => {
            let [a, b, c, d, high, low] = bytes(text)?;
            Address::from(SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([high, low])))
        }
        _ => return None,
    };
    Entrypoint::parse(&address.to_string()).ok()?;
    Some(Record { id, name, node, network, address })
}

fn parse_label(rest: &mut &str) -> Option<Label> {
    match field(rest)? {
        (TEXT, text) if !text.is_empty() && check_field("", text).is_ok() => Some(text.into()),
        (RANDOM, text) => {
            Some(Label::from(Uuid::from_bytes(bytes(text)?))).filter(|label| label.random().is_some())
        }
        _ => None,
    }
}

/// Host names are spelled by whoever claims them, so only what every field keeps to is checked: one that is
/// spelled otherwise is never asked for.
fn parse_rule(rest: &mut &str) -> Option<Claim> {
    let host = text(rest).filter(|host| !host.is_empty() && check_field("", host).is_ok())?;
    let endpoint = Endpoint::parse(text(rest)?)?;
    let clock = text(rest)?.parse().ok()?;
    Some(Claim { host: host.into(), endpoint, clock }).filter(Claim::is_plausible)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use gossd_core::hostname::{Clock, MAX_CLOCK};
    use gossd_core::slot::MAX_EACH;

    const UUID: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

    fn rule(host: &str, endpoint: &str, clock: Clock) -> Content {
        let endpoint = Endpoint::parse(endpoint).unwrap();
        Content::Claim(Arc::new(Claim { host: host.into(), endpoint, clock }))
    }

    fn record([id, name, node, address]: [&str; 4]) -> Content {
        let ([id, name, node], address) = ([id, name, node].map(Label::from), address.into());
        Content::Record(Arc::new(Record { id, name, node, network: Network::Udp, address }))
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
            (MAX_SLOT, rule(".example.org", &format!("${UUID}"), MAX_CLOCK)),
            (FIRST_CLAIM + 1, Content::Empty),
            (
                1,
                record([
                    &"i".repeat(512),
                    &"ü".repeat(256),
                    &"n".repeat(512),
                    &format!("{}:1", "a".repeat(510)),
                ]),
            ),
        ] {
            let cell = Cell { version: 3, content };
            assert_eq!(parse_value(slot, &value(&cell)), Some(cell));
        }
    }

    #[test]
    fn what_is_not_a_slot_is_refused() {
        let good = value(&Cell { version: 3, content: record(["i", "t", "n", "h:1"]) });
        assert!(parse_value(1, &good).is_some());
        for slot in [STATUS_SLOT, FIRST_CLAIM, MAX_SLOT, MAX_SLOT + 1, Slot::MAX] {
            assert_eq!(parse_value(slot, &good), None, "{slot}");
        }
        assert_eq!(parse_value(MAX_SLOT + 1, "-3"), None);
        for value in [
            "",
            "-",
            "-0",
            "-99999999999999999",
            "-3more",
            "ü3",
            "tü",
            "s3\u{1f}ready",
            "t3\u{1f}i\u{1f}t\u{1f}n\u{1f}h:0",
            "t3\u{1f}\u{1f}t\u{1f}n\u{1f}h:1",
            "t3\u{1f}i\u{1f}t\u{1f}n\n\u{1f}h:1",
            "t3\u{1f}i\u{1f}t\u{1f}n\u{1d}CgAAAQAA",
            "t3\u{1f}i\u{1f}t\u{1f}n\u{1d}CgAAAQBQAA",
            "t3\u{1f}i\u{1f}t\u{1d}CgAAAQBQ\u{1d}CgAAAQBQ",
            "t3\u{1f}i\u{1f}t\u{1e}AAAAAAAAAAAAAAAAAAAAAA\u{1d}CgAAAQBQ",
            "t3\u{1f}i\u{1f}t\u{1e}TSEJTrdMSRaGwdn6NupneQ==\u{1d}CgAAAQBQ",
        ] {
            assert_eq!(parse_value(1, value), None, "{value:?}");
        }
        assert!(parse_value(1, "t3\u{1f}i\u{1f}t\u{1e}TSEJTrdMSRaGwdn6NupnQw\u{1d}CgAAAQBQ").is_some());
    }

    #[test]
    fn fields_that_a_later_version_appends_are_told_from_those_that_are_known() {
        for (slot, content) in [
            (1, record(["i", "t", "n", "h:1"])),
            (1, Content::Empty),
            (STATUS_SLOT, Content::Status(Status::Ready)),
            (FIRST_CLAIM, rule("x", UUID, 7)),
        ] {
            let cell = Cell { version: 3, content };
            let known = value(&cell);
            assert_eq!(read(slot, &known), Some((cell.clone(), "")));
            let later = format!("{known}\u{1f}more\u{1e}and more");
            assert_eq!(read(slot, &later), Some((cell, "\u{1f}more\u{1e}and more")));
        }
    }

    #[test]
    fn what_gost_registers_takes_88_bytes() {
        let content = record([UUID, UUID, UUID, "192.168.100.200:65535"]);
        let value = value(&Cell { version: 99_999_999, content });
        assert!(value.len() <= 88, "{} bytes", value.len());
    }

    #[test]
    fn a_rule_has_its_own_slots_and_nothing_else_has() {
        let good = value(&Cell { version: 3, content: rule("x", UUID, 7) });
        let parse = |value: &str| parse_value(FIRST_CLAIM, value);
        assert!(parse(&good).is_some());
        assert!(parse(&good.replace("\u{1f}x", "\u{1f}a6265c6d9847a4be")).is_some(), "its hash host");
        assert_eq!(parse_value(1, &good), None);
        assert_eq!(parse_value(STATUS_SLOT, &good), None);
        for value in [
            "t3\u{1f}i\u{1f}t\u{1f}n\u{1f}h:1".to_owned(),
            "s3\u{1f}ready".to_owned(),
            good.replace(UUID, "t"),
            good.replace("\u{1f}7", "\u{1f}-7"),
            good.replace("\u{1f}7", &format!("\u{1f}{}", MAX_CLOCK + 1)),
            good.replace("\u{1f}7", ""),
            good.replace("\u{1f}x", "\u{1f}"),
            good.replace("\u{1f}x", "\u{1f}0123456789abcdef"),
            good.replace("\u{1f}x", "\u{1e}x"),
        ] {
            assert_eq!(parse(&value), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_can_make_it_panic(value in ".{0,300}", slot in 0..3_000_000_u32) {
            let _ = parse_value(slot, &value);
            let _ = parse_value(slot, &format!("t3\u{1e}{value}"));
        }
    }
}
