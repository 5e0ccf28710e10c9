//! The keys of a cluster: the first seals, all of them open. A key is never printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::KeyInit as _;
use chacha20poly1305::{Key, XChaCha20Poly1305};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// More keys than any rotation needs; a bound for the file's reader.
pub const MAX_KEYS: usize = 8;

/// The public name of a key, carried by frames so that the right one is tried and no other.
pub type KeyId = [u8; 4];

/// One to [`MAX_KEYS`] keys, in the file's order.
pub struct Keyring {
    keys: Vec<(KeyId, XChaCha20Poly1305)>,
    public: bool,
}

/// A text that is no keyring. Never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// No line with a key.
    #[error("has no key; `gossd keygen` makes one")]
    Empty,
    /// Neither blank, a comment, nor a key.
    #[error("line {0} is not a base64 key of {KEY_LEN} bytes; `gossd keygen` makes one")]
    BadLine(usize),
    /// Over [`MAX_KEYS`].
    #[error("has more than {MAX_KEYS} keys")]
    TooMany,
}

impl Keyring {
    /// Parses a key file: one base64 key per line, blank lines and `#` comments allowed.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = Zeroizing::new(BASE64.decode(line).map_err(|_| KeyringError::BadLine(at + 1))?);
            let key: &[u8; KEY_LEN] =
                bytes.as_slice().try_into().map_err(|_| KeyringError::BadLine(at + 1))?;
            keys.push(named(key));
        }
        match keys.len() {
            0 => Err(KeyringError::Empty),
            1..=MAX_KEYS => Ok(Self { keys, public: false }),
            _ => Err(KeyringError::TooMany),
        }
    }

    /// The key that everybody knows, for agents on loopback: the same code runs, nothing is secret.
    pub fn public() -> Self {
        Self { keys: vec![named(&[0; KEY_LEN])], public: true }
    }

    /// Whether this is [`Self::public`].
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// The sealing key.
    pub(super) fn first(&self) -> &(KeyId, XChaCha20Poly1305) {
        &self.keys[0]
    }

    /// The opening key of that name.
    pub(super) fn get(&self, id: KeyId) -> Option<&XChaCha20Poly1305> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

/// A new random key, as a line of a key file.
pub fn generate() -> Zeroizing<String> {
    let key = Zeroizing::new(rand::random::<[u8; KEY_LEN]>());
    Zeroizing::new(BASE64.encode(key.as_slice()))
}

fn named(key: &[u8; KEY_LEN]) -> (KeyId, XChaCha20Poly1305) {
    let hash = Sha256::new().chain_update(b"gossd key id").chain_update(key).finalize();
    ([hash[0], hash[1], hash[2], hash[3]], XChaCha20Poly1305::new(Key::from_slice(key)))
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_a_key_file() {
        let (one, two) = (generate(), generate());
        assert_ne!(one, two);
        let ring = Keyring::parse(&format!("# current\n{}\n\n{}\n", *one, *two)).unwrap();
        assert_eq!(ring.keys.len(), 2);
        assert_eq!(ring.first().0, Keyring::parse(&one).unwrap().first().0);
    }

    #[test]
    fn what_is_not_a_key_file_says_where_and_never_what() {
        let parse = |text: &str| Keyring::parse(text).unwrap_err();
        assert_eq!(parse("# nothing\n"), KeyringError::Empty);
        assert_eq!(parse("\nsecret!\n"), KeyringError::BadLine(2));
        assert_eq!(parse("c2hvcnQ="), KeyringError::BadLine(1));
        assert_eq!(parse(&format!("{}\n", *generate()).repeat(9)), KeyringError::TooMany);
        assert!(!parse("secret!").to_string().contains("secret"));
        assert_eq!(format!("{:?}", Keyring::public()), "Keyring(1 keys)");
    }
}
