//! What a slot holds, as bytes: the same in a peer's frame and in a journal. First the number of what it is, then its
//! fields; the bytes end where whoever carries them says. A later version may append fields to each and have kinds of its
//! own: what this one does not understand is kept as it came, and encoded again byte for byte. Whoever adds a field reads it
//! from what is behind those that there are now, where there is nothing if a former version wrote it.
//!
//! What is read was written by a stranger: it is bounded before anything is allocated, and is only what an agent can have
//! written.

use std::sync::Arc;

use postcard::Error;
use serde::{Deserialize, Serialize};

use super::hostname::Claim;
use super::locality::Locality;
use super::record::{MAX_FIELD, Record};
use super::slot::{Cell, Content, Later, MAX_VERSION, Slot, Status, Unreached, Version};

/// Most bytes of a content: five fields, and what is around them.
pub const MAX_CONTENT: usize = 5 * MAX_FIELD + 64;
/// Most bytes of a cell: a content behind the longest number.
pub const MAX_CELL: usize = MAX_CONTENT + 10;

/// A content that this version understands, borrowed or not. A variant is never changed, only added.
#[derive(Serialize, Deserialize)]
enum KnownContent<R, C, L, U> {
    Empty,
    Status(Status),
    Record(R),
    Claim(C),
    Locality(L),
    Unreached(U),
}

type ReadContent = KnownContent<Record, Claim, Locality, Unreached>;

/// Appends the bytes of a content.
pub fn encode(content: &Content, to: &mut Vec<u8>) {
    append(
        to,
        &match content {
            Content::Empty => KnownContent::Empty,
            Content::Status(status) => KnownContent::Status(*status),
            Content::Record(record) => KnownContent::Record(&**record),
            Content::Claim(claim) => KnownContent::Claim(&**claim),
            Content::Locality(locality) => KnownContent::Locality(&**locality),
            Content::Unreached(unreached) => KnownContent::Unreached(&**unreached),
            Content::Later(later) => return to.extend_from_slice(&later.bytes),
        },
    );
}

/// Reads a content; none of what no version can have written.
pub fn decode(bytes: &[u8]) -> Option<Content> {
    if bytes.len() > MAX_CONTENT {
        return None;
    }
    let (known, more) = match postcard::take_from_bytes::<ReadContent>(bytes) {
        Ok((known, more)) => (Some(known.content()?), more),
        // What of postcard's errors is serde's, and not its own: a variant's number is not known.
        Err(Error::SerdeDeCustom) => (None, &[][..]),
        Err(_) => return None,
    };
    match known {
        Some(content) if more.is_empty() => Some(content),
        known => Some(Content::Later(Arc::new(Later { bytes: bytes.into(), known }))),
    }
}

/// Appends the bytes of a cell.
pub fn encode_cell(cell: &Cell, to: &mut Vec<u8>) {
    append(to, &cell.version);
    encode(&cell.content, to);
}

/// Reads the cell of a slot; none if there is no such slot, or it cannot hold that.
pub fn decode_cell(slot: Slot, bytes: &[u8]) -> Option<Cell> {
    let (version, content) = postcard::take_from_bytes::<Version>(bytes).ok()?;
    let content = decode(content).filter(|content| content.fits(slot))?;
    (1..=MAX_VERSION).contains(&version).then_some(Cell { version, content })
}

impl ReadContent {
    fn content(self) -> Option<Content> {
        Some(match self {
            Self::Empty => Content::Empty,
            Self::Status(status) => Content::Status(status),
            Self::Record(record) => record.is_plausible().then(|| Content::Record(Arc::new(record)))?,
            Self::Claim(claim) => claim.is_plausible().then(|| Content::Claim(Arc::new(claim)))?,
            Self::Locality(locality) => {
                locality.is_plausible().then(|| Content::Locality(Arc::new(locality)))?
            }
            Self::Unreached(unreached) => {
                unreached.is_plausible().then(|| Content::Unreached(Arc::new(unreached)))?
            }
        })
    }
}

fn append(to: &mut Vec<u8>, what: &impl Serialize) {
    // Memory takes everything.
    drop(postcard::to_io(what, to));
}

#[cfg(test)]
mod tests;
