//! Sealed frames: `magic, version, key id, nonce, ciphertext`, the cluster's id as associated data. What does
//! not open under a key of ours and this cluster's id never reaches another parser.

use std::sync::Arc;

use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead as _, Payload};

use super::keyring::{KeyId, Keyring};

const MAGIC: [u8; 2] = [0x67, 0x73];
/// Of frames, in their third byte.
pub const VERSION: u8 = 2;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + 1 + KeyId::LEN + NONCE_LEN;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Why bytes are not a frame of this cluster. They are dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SealError {
    /// Too short, or not ours at all.
    #[error("not a gossd frame")]
    NotAFrame,
    /// Another format version.
    #[error("a frame of another gossd version")]
    Version,
    /// Sealed with a key that is not in our key file.
    #[error("sealed with a key that is not in our key file")]
    UnknownKey,
    /// Forged, damaged, or from another cluster with our key.
    #[error("forged, damaged, or of another --cluster")]
    BadSeal,
}

/// A frame that opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was inside.
    pub plain: Vec<u8>,
    /// The key that it was sealed with.
    pub key: KeyId,
}

/// Seals and opens the frames of one cluster, with the keyring that is in force.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// The keyring.
    pub keyring: Arc<Keyring>,
    cluster: Arc<[u8]>,
}

impl Sealer {
    /// For the cluster of that id and keyring.
    pub fn new(keyring: Keyring, cluster: &str) -> Self {
        Self { keyring: Arc::new(keyring), cluster: cluster.as_bytes().into() }
    }

    /// Seals a plaintext with that key; one that is not there any more is replaced by the sealing one. The nonce is
    /// random and must never be used twice.
    pub fn seal(&self, with: KeyId, nonce: [u8; NONCE_LEN], plain: &[u8]) -> Vec<u8> {
        let (id, key) = self.keyring.get(with).map_or_else(|| self.keyring.first(), |key| (with, key));
        let mut frame = Vec::with_capacity(plain.len() + OVERHEAD);
        frame.extend_from_slice(&MAGIC);
        frame.push(VERSION);
        frame.extend_from_slice(&id.bytes());
        frame.extend_from_slice(&nonce);
        let sealed = key
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &self.cluster })
            .expect("XChaCha20-Poly1305 fails only over 256 GB");
        frame.extend_from_slice(&sealed);
        frame
    }

    /// Opens a frame.
    pub fn open(&self, frame: &[u8]) -> Result<Opened, SealError> {
        if frame.len() < OVERHEAD || !frame.starts_with(&MAGIC) {
            return Err(SealError::NotAFrame);
        }
        if frame[MAGIC.len()] != VERSION {
            return Err(SealError::Version);
        }
        let (header, sealed) = frame.split_at(HEADER_LEN);
        let (id, nonce) = header[MAGIC.len() + 1..].split_at(KeyId::LEN);
        let id = KeyId::of(id.try_into().map_err(|_| SealError::NotAFrame)?);
        let key = self.keyring.get(id).ok_or(SealError::UnknownKey)?;
        let plain = key
            .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: &self.cluster })
            .map_err(|_| SealError::BadSeal)?;
        Ok(Opened { plain, key: id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::keyring::Key;

    fn generate() -> String {
        Key::generate().line().to_string()
    }

    fn sealer(keys: &[&str], cluster: &str) -> Sealer {
        Sealer::new(Keyring::parse(&keys.join("\n")).unwrap(), cluster)
    }

    fn seal(sealer: &Sealer) -> Vec<u8> {
        sealer.seal(sealer.keyring.sealing(), [7; 24], b"hello")
    }

    #[test]
    fn the_first_key_seals_and_every_key_opens() {
        let (old, new) = (generate(), generate());
        let before = sealer(&[&old, &new], "c");
        let after = sealer(&[&new, &old], "c");
        for (from, to) in [(&before, &after), (&after, &before)] {
            let opened = to.open(&seal(from)).unwrap();
            assert_eq!((&*opened.plain, opened.key), (&b"hello"[..], from.keyring.sealing()));
        }
    }

    #[test]
    fn a_keyring_that_comes_into_force_opens_from_then_on_and_what_it_lacks_does_not() {
        let (old, new) = (generate(), generate());
        let before = sealer(&[&old], "c");
        let mut turned = sealer(&[&old], "c");
        turned.keyring = Arc::new(Keyring::parse(&new).unwrap());
        assert_eq!(turned.open(&seal(&before)), Err(SealError::UnknownKey));
        assert_eq!(sealer(&[&new], "c").open(&seal(&turned)).unwrap().plain, b"hello");
        let gone = before.keyring.sealing();
        assert_eq!(turned.open(&turned.seal(gone, [7; 24], b"x")).unwrap().key, turned.keyring.sealing());
    }

    #[test]
    fn a_frame_of_others_does_not_open() {
        let (key, other) = (generate(), generate());
        let ours = sealer(&[&key], "c");
        let frame = seal(&ours);
        assert_eq!(sealer(&[&other], "c").open(&frame), Err(SealError::UnknownKey));
        assert_eq!(sealer(&[&key], "d").open(&frame), Err(SealError::BadSeal));
        assert_eq!(ours.open(b"GET / HTTP/1.1"), Err(SealError::NotAFrame));
        let mut newer = frame.clone();
        newer[2] += 1;
        assert_eq!(ours.open(&newer), Err(SealError::Version));
    }

    #[test]
    fn no_bit_can_be_changed_and_no_byte_cut() {
        let sealer = Sealer::new(Keyring::public(), "c");
        let frame = seal(&sealer);
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer.open(&changed).is_err(), "bit {bit}");
        }
        for len in 0..frame.len() {
            assert!(sealer.open(&frame[..len]).is_err(), "{len} bytes");
        }
    }
}
