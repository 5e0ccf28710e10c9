//! Slots as peers spell them: whatever is understood is spelled so that others understand the same, and whatever a
//! Register takes can be told.

use std::str;
use std::sync::Arc;

use gossd::gossip::slots;
use gossd_core::address::{Entrypoint, Host};
use gossd_core::record::{Draft, check_field};
use gossd_core::slot::{Cell, Content, FIRST_CLAIM, MAX_SLOT, STATUS_SLOT, Slot};

use super::input::Input;

/// Of one of the three kinds of slots, or any slot, or the fields of a Register.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let Ok(text) = str::from_utf8(input.0) else { return };
    match how % 5 {
        0 => value(STATUS_SLOT, text),
        1 => value(1 + Slot::from(how), text),
        2 => value(FIRST_CLAIM + Slot::from(how), text),
        3 => slot_and_value(text),
        _ => register(text),
    }
}

fn slot_and_value(text: &str) {
    let (slot, text) = text.split_once('\n').unwrap_or((text, "-1"));
    let Ok(slot) = slot.parse() else { return };
    if let Some((cell, more)) = slots::read(slot, text) {
        assert!(slot <= MAX_SLOT, "{slot}");
        // What is appended is left alone.
        assert_eq!(slots::read(slot, &text[..text.len() - more.len()]), Some((cell, "")));
    }
    value(slot, text);
}

fn value(slot: Slot, text: &str) {
    let Some(cell) = slots::parse_value(slot, text) else { return };
    assert!(text.len() <= slots::MAX_VALUE);
    assert!((1..=1 << 53).contains(&cell.version), "{}", cell.version);
    match &cell.content {
        Content::Empty => {}
        Content::Status(_) => assert_eq!(slot, STATUS_SLOT),
        Content::Claim(rule) => {
            assert!(slot >= FIRST_CLAIM && rule.is_plausible());
            assert!(!rule.host.is_empty() && check_field("", &rule.host).is_ok());
        }
        Content::Record(record) => {
            assert!((STATUS_SLOT + 1..FIRST_CLAIM).contains(&slot));
            for label in [&record.id, &record.name, &record.node] {
                let text = label.text();
                assert!(!text.is_empty() && check_field("", &text).is_ok(), "{label:?}");
            }
            let address = record.address.to_string();
            assert!(check_field("", &address).is_ok() && Entrypoint::parse(&address).is_ok(), "{address:?}");
        }
    }
    comes_back(slot, &cell);
}

/// What is told is understood, as it was meant, and has one spelling.
fn comes_back(slot: Slot, cell: &Cell) {
    let spelled = slots::value(cell);
    assert!(spelled.len() <= slots::MAX_VALUE, "{} bytes", spelled.len());
    let read = slots::parse_value(slot, &spelled);
    assert_eq!(read.as_ref(), Some(cell), "{spelled:?}");
    assert_eq!(read.map(|cell| slots::value(&cell)), Some(spelled));
}

/// Fields on lines.
fn register(text: &str) {
    let mut lines = text.split('\n');
    let mut field = || lines.next().unwrap_or_default();
    let draft = Draft { id: field(), name: field(), node: field(), network: field(), address: field() };
    let Ok(record) = draft.register(&Host::Ip([192, 0, 2, 1].into())) else { return };
    assert_eq!((&*record.id.text(), &*record.name.text()), (draft.id, draft.name));
    assert_eq!(&*record.node.text(), draft.node);
    comes_back(1, &Cell { version: 1, content: Content::Record(Arc::new(record)) });
}
