//! The texts that every record has: its id, its tunnel's name, its instance. Nearly all are random UUIDs, of which
//! there are hundreds of thousands, so one that gost spelled as it spells its own is kept as its bits.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{Builder, Uuid};

use super::record::check_field;

/// A text of any length, in 16 bytes and without an allocation if it is a random (version 4) UUID in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Label(LabelForm);

/// Each text has one form, so equal forms are equal texts.
#[derive(Clone, PartialEq, Eq)]
enum LabelForm {
    /// The 122 bits that are random: two of them in `turn`, which leaves the compiler room to tell the forms apart.
    Random { turn: VariantDigit, rest: [u8; 15] },
    /// Any other text; behind a second pointer, for it to fit here.
    Other(Arc<Box<str>>),
}

/// The digit that starts the fourth group of a random UUID.
#[derive(Clone, Copy, PartialEq, Eq)]
enum VariantDigit {
    Eight,
    Nine,
    A,
    B,
}

const _: () = assert!(size_of::<Label>() == 16, "labels are most of what an agent keeps");

impl VariantDigit {
    /// In the order of their bits.
    const ALL: [Self; 4] = [Self::Eight, Self::Nine, Self::A, Self::B];
}

impl Label {
    /// Its text; `*` of it is a `str`.
    pub fn text(&self) -> Text<'_> {
        match &self.0 {
            LabelForm::Random { turn, rest } => {
                let mut spelled = [0; 36];
                join(*turn, rest).hyphenated().encode_lower(&mut spelled);
                Text(Spelling::Random(spelled))
            }
            LabelForm::Other(text) => Text(Spelling::Other(text)),
        }
    }

    /// The bytes of its text.
    pub fn text_len(&self) -> usize {
        match &self.0 {
            LabelForm::Random { .. } => uuid::fmt::Hyphenated::LENGTH,
            LabelForm::Other(text) => text.len(),
        }
    }

    /// The random UUID that it is, if it is one.
    pub fn random(&self) -> Option<Uuid> {
        match &self.0 {
            LabelForm::Random { turn, rest } => Some(join(*turn, rest)),
            LabelForm::Other(_) => None,
        }
    }

    /// Whether a call can have given it: it is neither empty nor what no field may be.
    pub fn is_given(&self) -> bool {
        match &self.0 {
            LabelForm::Random { .. } => true,
            LabelForm::Other(text) => !text.is_empty() && check_field("", text).is_ok(),
        }
    }
}

/// A label as it is encoded. A variant is never changed, only added.
#[derive(Serialize, Deserialize)]
enum EncodedLabel<'a> {
    Random([u8; 16]),
    Text(&'a str),
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = match &self.0 {
            LabelForm::Random { turn, rest } => EncodedLabel::Random(join(*turn, rest).into_bytes()),
            LabelForm::Other(text) => EncodedLabel::Text(text),
        };
        encoded.serialize(serializer)
    }
}

/// Of bytes that are no random UUID comes the empty label, which nothing takes: an error would look like that of a later
/// version's variant.
impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match EncodedLabel::deserialize(deserializer)? {
            EncodedLabel::Random(bytes) => match split(Uuid::from_bytes(bytes)) {
                Some((turn, rest)) => Self(LabelForm::Random { turn, rest }),
                None => "".into(),
            },
            EncodedLabel::Text(text) => text.into(),
        })
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        match parse(text) {
            Some(uuid) => uuid.into(),
            None => Self(LabelForm::Other(Arc::new(text.into()))),
        }
    }
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Uuid> for Label {
    fn from(uuid: Uuid) -> Self {
        match split(uuid) {
            Some((turn, rest)) => Self(LabelForm::Random { turn, rest }),
            None => Self(LabelForm::Other(Arc::new(uuid.to_string().into()))),
        }
    }
}

/// All at once: derived, every part would be hashed for itself.
impl Hash for LabelForm {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Random { turn, rest } => state.write_u128(order(*turn, rest)),
            Self::Other(text) => text.hash(state),
        }
    }
}

/// In the order of the texts.
impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (LabelForm::Random { turn, rest }, LabelForm::Random { turn: turn_b, rest: rest_b }) => {
                order(*turn, rest).cmp(&order(*turn_b, rest_b))
            }
            _ => self.text().cmp(&other.text()),
        }
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<str> for Label {
    fn eq(&self, text: &str) -> bool {
        *self.text() == *text
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text(), f)
    }
}

/// The text of a [`Label`], spelled out.
pub struct Text<'a>(Spelling<'a>);

enum Spelling<'a> {
    Random([u8; 36]),
    Other(&'a str),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // Digits and hyphens are always UTF-8.
            Spelling::Random(spelled) => str::from_utf8(spelled).unwrap_or_default(),
            Spelling::Other(text) => text,
        }
    }
}

/// The random UUID that a text is, if it is spelled as gost does.
fn parse(text: &str) -> Option<Uuid> {
    // The crate knows more spellings.
    if text.len() != uuid::fmt::Hyphenated::LENGTH || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok().filter(|uuid| split(*uuid).is_some())
}

/// What is random of a UUID; none if all of it may be shown.
fn split(uuid: Uuid) -> Option<(VariantDigit, [u8; 15])> {
    let bytes = uuid.as_bytes();
    if bytes[6] >> 4 != 4 || bytes[8] >> 6 != 0b10 {
        return None;
    }
    let mut rest = [0; 15];
    rest[..8].copy_from_slice(&bytes[..8]);
    rest[8..].copy_from_slice(&bytes[9..]);
    // In the place of the version.
    rest[6] = bytes[6] << 4 | bytes[8] & 0x0f;
    Some((VariantDigit::ALL[usize::from(bytes[8] >> 4 & 0b11)], rest))
}

/// What is random of a UUID as a number, in the order of their texts. Read in two words: an agent that starts compares
/// some millions of ids.
fn order(turn: VariantDigit, rest: &[u8; 15]) -> u128 {
    let [mut head, mut tail] = [[0; 8]; 2];
    head.copy_from_slice(&rest[..8]);
    tail.copy_from_slice(&rest[7..]);
    // The digit behind the turn stands in the head, in the place of the version; the head's last byte is the tail's first.
    let head = u64::from_be_bytes(head);
    let (digit, tail) = (head >> 8 & 0x0f, u64::from_be_bytes(tail) & !(0xff << 56));
    u128::from(head & !(0x0f << 8)) << 64 | u128::from((turn as u64) << 60 | digit << 56 | tail)
}

fn join(turn: VariantDigit, rest: &[u8; 15]) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&rest[..8]);
    bytes[9..].copy_from_slice(&rest[8..]);
    bytes[8] = (turn as u8) << 4 | rest[6] & 0x0f;
    bytes[6] = rest[6] >> 4;
    Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_comes_back_as_it_was_and_random_uuids_take_no_allocation() {
        for (text, random) in [
            ("4d21094e-b74c-4916-86c1-d9fa36ea677b", true),
            ("00000000-0000-4000-8000-000000000000", true),
            ("ffffffff-ffff-4fff-bfff-ffffffffffff", true),
            ("01234567-89ab-4cde-9f01-23456789abcd", true),
            ("01234567-89ab-4cde-af01-23456789abcd", true),
            ("4D21094E-B74C-4916-86C1-D9FA36EA677B", false),
            ("4d21094e-b74c-4916-86c1-d9fa36ea677B", false),
            ("4d21094e-b74c-1916-86c1-d9fa36ea677b", false),
            ("4d21094e-b74c-4916-c6c1-d9fa36ea677b", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("4d21094eb74c491686c1d9fa36ea677b", false),
            ("4d21094eb74c491686c1d9fa36ea677b----", false),
            ("host@4d21094e-b74c-4916-86c1-d9fa36ea677b", false),
            ("ü", false),
            ("", false),
        ] {
            let label = Label::from(text);
            assert_eq!((label.to_string().as_str(), label.random().is_some()), (text, random));
            assert_eq!((&*label.text(), label.text_len()), (text, text.len()));
            assert_eq!(format!("{label:?}"), format!("{text:?}"));
        }
    }

    proptest! {
        #[test]
        fn labels_are_equal_and_ordered_as_their_texts(
            one in "[a-c]{0,2}|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            other in "[a-c]{0,2}|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        ) {
            let labels = [&one, &other].map(|text| Label::from(text.as_str()));
            prop_assert_eq!(labels[0].cmp(&labels[1]), one.cmp(&other));
            prop_assert_eq!(labels[0] == labels[1], one == other);
            prop_assert_eq!(labels[0].to_string(), one);
        }
    }
}
