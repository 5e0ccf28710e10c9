//! Slots as chitchat's keys and values: the key is the slot's number, the value is text, because chitchat
//! stores strings. Fields are separated by U+001F, which no field may contain.

use std::str::Split;
use std::sync::Arc;

use crate::domain::address::Entrypoint;
use crate::domain::record::{MAX_FIELD, Network, Record, check_field};
use crate::domain::rule::{Endpoint, Rule};
use crate::domain::slot::{Cell, Change, Content, FIRST_RULE, MAX_SLOT, STATUS_SLOT, Seq, Slot, Status};

/// Longest value, in bytes: five fields and their frame. chitchat stops replicating an owner at about 65 kB.
pub const MAX_VALUE: usize = 5 * MAX_FIELD + 64;
/// Numbers above are hostile: an owner that writes a million times a second needs 285 years to get there.
const MAX_SEQ: Seq = 1 << 53;
const SEPARATOR: char = '\u{1f}';
/// First field of every value, so that a later format can be told apart.
const VERSION: &str = "1";

/// A key or value that is no slot. It is skipped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a slot")]
pub struct NotASlot;

/// The key of a slot.
pub fn key(slot: Slot) -> String {
    slot.to_string()
}

/// The value of a cell.
pub fn value(cell: &Cell) -> String {
    let seq = cell.seq;
    match &cell.content {
        Content::Empty => format!("{VERSION}\u{1f}{seq}\u{1f}-"),
        Content::Status(status) => format!("{VERSION}\u{1f}{seq}\u{1f}{}", word(*status)),
        Content::Rule(rule) => {
            let Rule { host, endpoint, clock } = &**rule;
            format!("{VERSION}\u{1f}{seq}\u{1f}rule\u{1f}{host}\u{1f}{endpoint}\u{1f}{clock}")
        }
        Content::Record(record) => {
            let Record { id, name, node, network, address } = &**record;
            let network = network.as_str();
            format!("{VERSION}\u{1f}{seq}\u{1f}{network}\u{1f}{id}\u{1f}{name}\u{1f}{node}\u{1f}{address}")
        }
    }
}

/// Reads a key and its value.
pub fn parse(key: &str, value: &str) -> Result<Change, NotASlot> {
    let slot = parse_key(key).ok_or(NotASlot)?;
    let cell = parse_value(slot, value).ok_or(NotASlot)?;
    Ok(Change { slot, cell })
}

/// Reads the value of a slot.
pub fn parse_value(slot: Slot, value: &str) -> Option<Cell> {
    if value.len() > MAX_VALUE {
        return None;
    }
    let mut fields = value.split(SEPARATOR);
    if fields.next()? != VERSION {
        return None;
    }
    let seq = fields.next()?.parse().ok().filter(|seq| (1..=MAX_SEQ).contains(seq))?;
    let content = match (slot, fields.next()?) {
        (STATUS_SLOT, word) => Content::Status(parse_status(word)?),
        (_, "-") => Content::Empty,
        (FIRST_RULE.., "rule") => Content::Rule(Arc::new(parse_rule(&mut fields)?)),
        (FIRST_RULE.., _) => return None,
        (_, network @ ("tcp" | "udp")) => Content::Record(Arc::new(parse_record(network, &mut fields)?)),
        _ => return None,
    };
    fields.next().is_none().then_some(Cell { seq, content })
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ready => "ready",
        Status::Draining => "draining",
        Status::Left => "left",
    }
}

fn parse_status(text: &str) -> Option<Status> {
    [Status::Ready, Status::Draining, Status::Left].into_iter().find(|status| word(*status) == text)
}

fn parse_key(key: &str) -> Option<Slot> {
    let canonical = !key.starts_with('0') || key == "0";
    let digits = (1..=7).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_digit());
    key.parse().ok().filter(|slot| canonical && digits && *slot <= MAX_SLOT)
}

fn parse_record(network: &str, fields: &mut Split<'_, char>) -> Option<Record> {
    let mut field = || fields.next().filter(|f| !f.is_empty() && check_field("", f).is_ok());
    let (id, name, node, address) = (field()?, field()?, field()?, field()?);
    Entrypoint::parse(address).ok()?;
    Some(Record {
        id: id.into(),
        name: name.into(),
        node: node.into(),
        network: Network::parse(network).ok()?,
        address: address.into(),
    })
}

/// Host names are spelled by whoever claims them, so only what every field keeps to is checked: one that is
/// spelled otherwise is never asked for.
fn parse_rule(fields: &mut Split<'_, char>) -> Option<Rule> {
    let host = fields.next().filter(|host| !host.is_empty() && check_field("", host).is_ok())?;
    let endpoint = Endpoint::parse(fields.next()?)?;
    let clock = fields.next()?.parse().ok()?;
    Some(Rule { host: host.into(), endpoint, clock }).filter(Rule::is_plausible)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::label::Label;
    use crate::domain::rule::{Clock, MAX_CLOCK};
    use crate::domain::slot::MAX_EACH;

    const UUID: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

    fn rule(host: &str, endpoint: &str, clock: Clock) -> Content {
        let endpoint = Endpoint::parse(endpoint).unwrap();
        Content::Rule(Arc::new(Rule { host: host.into(), endpoint, clock }))
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
            (FIRST_RULE, rule("x", UUID, 0)),
            (MAX_SLOT, rule(".example.org", &format!("${UUID}"), MAX_CLOCK)),
            (FIRST_RULE + 1, Content::Empty),
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
            let change = Change { slot, cell: Cell { seq: 3, content } };
            assert_eq!(parse(&key(slot), &value(&change.cell)), Ok(change));
        }
    }

    #[test]
    fn what_is_not_a_slot_is_refused() {
        let good = value(&Cell { seq: 3, content: record(["i", "t", "n", "h:1"]) });
        assert!(parse("1", &good).is_ok());
        for key in ["", "01", "+1", "1000001", "2000001", "99999999", "ü", "0"] {
            assert_eq!(parse(key, &good), Err(NotASlot), "{key}");
        }
        for value in [
            "",
            "2\u{1f}3\u{1f}-",
            "1\u{1f}0\u{1f}-",
            "1\u{1f}99999999999999999\u{1f}-",
            "1\u{1f}3\u{1f}-\u{1f}more",
            "1\u{1f}3\u{1f}ready",
            "1\u{1f}3\u{1f}tcp\u{1f}i\u{1f}t\u{1f}n\u{1f}h:0",
            "1\u{1f}3\u{1f}tcp\u{1f}\u{1f}t\u{1f}n\u{1f}h:1",
            "1\u{1f}3\u{1f}tcp\u{1f}i\u{1f}t\u{1f}n\n\u{1f}h:1",
        ] {
            assert_eq!(parse("1", value), Err(NotASlot), "{value:?}");
        }
    }

    #[test]
    fn a_rule_has_its_own_slots_and_nothing_else_has() {
        let good = value(&Cell { seq: 3, content: rule("x", UUID, 7) });
        let key = key(FIRST_RULE);
        assert!(parse(&key, &good).is_ok());
        assert!(parse(&key, &good.replace("\u{1f}x", "\u{1f}a6265c6d9847a4be")).is_ok(), "its hash host");
        assert_eq!(parse("1", &good), Err(NotASlot));
        assert_eq!(parse("0", &good), Err(NotASlot));
        for value in [
            "1\u{1f}3\u{1f}tcp\u{1f}i\u{1f}t\u{1f}n\u{1f}h:1".to_owned(),
            "1\u{1f}3\u{1f}ready".to_owned(),
            good.replace(UUID, "t"),
            good.replace("\u{1f}7", "\u{1f}-7"),
            good.replace("\u{1f}7", &format!("\u{1f}{}", MAX_CLOCK + 1)),
            good.replace("\u{1f}7", ""),
            good.replace("\u{1f}x", "\u{1f}"),
            good.replace("\u{1f}x", "\u{1f}0123456789abcdef"),
            format!("{good}\u{1f}more"),
        ] {
            assert_eq!(parse(&key, &value), Err(NotASlot), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_can_make_it_panic(key in ".{0,12}", value in ".{0,300}", number in 0..3_000_000_u32) {
            let _ = parse(&key, &value);
            let _ = parse(&number.to_string(), &format!("1\u{1f}3\u{1f}tcp\u{1f}{value}"));
        }
    }
}
