//! A keyring as a key file: one base64 key a line, the sealing one first, so that a hand can write it and any version of
//! gossd can read it. What only gossd knows stands in comments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::{HeldKey, KEY_LEN, Key, KeyId, Keyring, MAX_KEYS, MAX_REMOVED, MAX_TURN, Turn};

const HEAD: &str = "# Kept by `gossd keys`. The first key seals, all open.\n";
/// Before a key: its turn. Before none: a key that was removed, and when.
const TURN: &str = "# gossd: turn ";
const REMOVED: &str = "# gossd: removed ";

/// A text that is no keyring. Never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// No line with a key.
    #[error("has no key; `gossd keygen` makes one")]
    Empty,
    /// Neither blank, a comment, nor a key.
    #[error("line {0} is not a base64 key of {KEY_LEN} bytes; `gossd keygen` makes one")]
    BadLine(usize),
    /// Not UTF-8.
    #[error("is no text; `gossd keygen` makes a key")]
    NoText,
    /// Over [`MAX_KEYS`].
    #[error("has more than {MAX_KEYS} keys")]
    TooMany,
}

impl Keyring {
    /// Parses a key file: one base64 key per line, blank lines and `#` comments allowed.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keyring = Self { keys: Vec::new(), removed: BTreeMap::new(), public: false };
        let mut turn = 0;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(told) = line.strip_prefix(TURN) {
                turn = parse_turn(told).unwrap_or_default();
            } else if let Some(told) = line.strip_prefix(REMOVED) {
                keyring.removed.extend(parse_removed(told));
            } else if !line.is_empty() && !line.starts_with('#') {
                let key = Key::parse(line).ok_or(KeyringError::BadLine(at + 1))?;
                keyring.take(HeldKey { key, turn: std::mem::take(&mut turn) });
            }
        }
        match keyring.keys.len() {
            0 => return Err(KeyringError::Empty),
            1..=MAX_KEYS => {}
            _ => return Err(KeyringError::TooMany),
        }
        if keyring.keys.iter().any(|held| held.turn > 0) {
            keyring.settle();
        }
        if keyring.keys.is_empty() { Err(KeyringError::Empty) } else { Ok(keyring) }
    }

    /// The same, of a file's bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyringError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| KeyringError::NoText)?)
    }

    /// The key file's text.
    pub fn text(&self) -> Zeroizing<String> {
        // Set aside at once: a text that grows leaves secrets behind.
        let mut text = Zeroizing::new(String::with_capacity(128 * (1 + MAX_KEYS + MAX_REMOVED)));
        text.push_str(HEAD);
        let mut line = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("writing to memory does not fail");
        };
        for (id, turn) in &self.removed {
            line(format_args!("{REMOVED}{id} {turn}\n"));
        }
        for HeldKey { key, turn } in &self.keys {
            if *turn > 0 {
                line(format_args!("{TURN}{turn}\n"));
            }
            line(format_args!("{}\n", *key.line()));
        }
        text
    }

    fn take(&mut self, held: HeldKey) {
        match self.keys.iter_mut().find(|known| known.key.id == held.key.id) {
            Some(known) => known.turn = known.turn.max(held.turn),
            None => self.keys.push(held),
        }
    }
}

impl Key {
    /// A line of a key file.
    pub fn parse(line: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64.decode(line.trim()).ok()?);
        bytes.as_slice().try_into().ok().map(Self::new)
    }
}

fn parse_turn(text: &str) -> Option<Turn> {
    text.trim().parse().ok().filter(|turn| *turn <= MAX_TURN)
}

fn parse_removed(text: &str) -> Option<(KeyId, Turn)> {
    let (id, turn) = text.trim().split_once(' ')?;
    Some((id.parse().ok()?, parse_turn(turn)?))
}
