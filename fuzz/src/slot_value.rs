//! Cells as peers and journals encode them: whatever is understood is encoded so that others understand the same, whatever
//! is not goes on as it came, and whatever a Register takes can be told.

use std::str;
use std::sync::Arc;

use gossd_core::address::{Entrypoint, Host};
use gossd_core::codec::{MAX_CELL, decode, decode_cell, encode, encode_cell};
use gossd_core::record::{Draft, check_field};
use gossd_core::slot::{Cell, Content, FIRST_CLAIM, MAX_SLOT, MAX_VERSION, STATUS_SLOT, Slot};

use super::input::Input;

/// One of the three kinds of slots, or any slot, or the fields of a Register.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    match how % 5 {
        0 => read(STATUS_SLOT, input.0),
        1 => read(1 + Slot::from(how), input.0),
        2 => read(FIRST_CLAIM + Slot::from(how), input.0),
        3 => read(Slot::from(input.number()) << (how / 5 % 16), input.0),
        _ => register(input.0),
    }
}

fn read(slot: Slot, bytes: &[u8]) {
    let Some(cell) = decode_cell(slot, bytes) else { return };
    assert!(slot <= MAX_SLOT && bytes.len() <= MAX_CELL);
    assert!((1..=MAX_VERSION).contains(&cell.version), "{}", cell.version);
    let content = &cell.content;
    if let Some(status) = content.status() {
        assert_eq!(slot, STATUS_SLOT, "{status:?}");
    }
    if let Some(rule) = content.claim() {
        assert!(slot >= FIRST_CLAIM && rule.is_plausible());
        assert!(!rule.host.is_empty() && check_field("", &rule.host).is_ok());
    }
    if let Some(record) = content.record() {
        assert!((STATUS_SLOT + 1..FIRST_CLAIM).contains(&slot));
        for label in [&record.id, &record.name, &record.node] {
            let text = label.text();
            assert!(!text.is_empty() && check_field("", &text).is_ok(), "{label:?}");
        }
        let address = record.address.to_string();
        assert!(check_field("", &address).is_ok() && Entrypoint::parse(&address).is_ok(), "{address:?}");
    }
    let mut encoded = Vec::new();
    encode(content, &mut encoded);
    if let Content::Later(_) = content {
        assert!(bytes.ends_with(&encoded), "{content:?}");
    } else {
        // With what a later version appends, it is what it is.
        encoded.extend(bytes.first());
        let later = decode(&encoded).expect("it is understood");
        assert_eq!((later.record(), later.claim()), (content.record(), content.claim()));
        assert_eq!((later.status(), later.is_empty()), (content.status(), content.is_empty()));
    }
    comes_back(slot, &cell);
}

/// What is told is understood, as it was meant, and has one encoding.
fn comes_back(slot: Slot, cell: &Cell) {
    let [mut encoded, mut again] = [Vec::new(), Vec::new()];
    encode_cell(cell, &mut encoded);
    assert!(encoded.len() <= MAX_CELL, "{} bytes", encoded.len());
    let read = decode_cell(slot, &encoded);
    assert_eq!(read.as_ref(), Some(cell), "{encoded:?}");
    encode_cell(&read.expect("it is"), &mut again);
    assert_eq!(again, encoded);
}

/// Fields on lines.
fn register(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let mut field = || lines.next().unwrap_or_default();
    let draft = Draft { id: field(), name: field(), node: field(), network: field(), address: field() };
    let Ok(record) = draft.register(&Host::Ip([192, 0, 2, 1].into())) else { return };
    assert_eq!((&*record.id.text(), &*record.name.text()), (draft.id, draft.name));
    assert_eq!(&*record.node.text(), draft.node);
    comes_back(1, &Cell { version: 1, content: Content::Record(Arc::new(record)) });
}
