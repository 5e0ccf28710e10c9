//! A keyring on its way to one peer. It is sealed once more inside its frame, for this peer's process alone, so that
//! whoever recorded the frame, and gets hold of the frame's key when that is long removed, does not learn the new ones.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::keyring::{KeyId, Keyring};
use super::wire;

/// What a process tells of its [`Secret`].
pub(crate) type Public = [u8; 32];
/// A random number, never used twice.
pub(crate) type Nonce = [u8; 24];

/// A secret of this process, made at its start and kept nowhere.
pub(crate) struct Secret {
    secret: StaticSecret,
    public: Public,
}

impl Secret {
    /// From 32 random bytes.
    pub(crate) fn new(random: [u8; 32]) -> Self {
        let secret = StaticSecret::from(random);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    /// For the peers.
    pub(crate) fn public(&self) -> Public {
        self.public
    }

    /// Seals a keyring for one peer; none if what it told is no public key.
    pub(crate) fn seal(&self, to: Public, nonce: Nonce, keyring: &Keyring) -> Option<Vec<u8>> {
        let cipher = self.cipher(to, [self.public, to])?;
        let plain = Zeroizing::new(wire::encode(&keyring.spell()));
        cipher.encrypt(XNonce::from_slice(&nonce), plain.as_slice()).ok()
    }

    /// Opens what a peer sealed for us, if it is a keyring with the key that its frame was sealed with.
    pub(crate) fn open(&self, from: Public, nonce: Nonce, sealed: &[u8], with: KeyId) -> Option<Keyring> {
        let cipher = self.cipher(from, [from, self.public])?;
        let plain = Zeroizing::new(cipher.decrypt(XNonce::from_slice(&nonce), sealed).ok()?);
        wire::decode::<super::keyring::Spelled>(&plain).ok()?.read(with)
    }

    fn cipher(&self, peer: Public, [giver, taker]: [Public; 2]) -> Option<XChaCha20Poly1305> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return None;
        }
        let hash = Sha256::new().chain_update(b"gossd handover").chain_update(shared.as_bytes());
        let key = Zeroizing::new(<[u8; 32]>::from(hash.chain_update(giver).chain_update(taker).finalize()));
        Some(XChaCha20Poly1305::new(key.as_slice().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::keyring::{Key, KeyringChange};

    fn keyring() -> Keyring {
        let first = Keyring::parse(&Key::generate().line()).unwrap();
        first.changed(KeyringChange::Add(Key::generate())).unwrap()
    }

    #[test]
    fn a_keyring_opens_for_whom_it_was_sealed_and_for_nobody_else() {
        let [giver, taker, other] = [1, 2, 3].map(|n| Secret::new([n; 32]));
        let keyring = keyring();
        let with = keyring.sealing();
        let sealed = giver.seal(taker.public(), [7; 24], &keyring).unwrap();
        let opened = taker.open(giver.public(), [7; 24], &sealed, with).unwrap();
        assert_eq!(opened.fingerprint(), keyring.fingerprint());
        assert!(other.open(giver.public(), [7; 24], &sealed, with).is_none());
        assert!(taker.open(other.public(), [7; 24], &sealed, with).is_none());
        assert!(giver.open(taker.public(), [7; 24], &sealed, with).is_none(), "thrown back");
        assert!(taker.open(giver.public(), [8; 24], &sealed, with).is_none());
    }

    #[test]
    fn a_peer_cannot_take_away_the_key_that_it_speaks_with() {
        let [giver, taker] = [1, 2].map(|n| Secret::new([n; 32]));
        let sealed = giver.seal(taker.public(), [7; 24], &keyring()).unwrap();
        assert!(taker.open(giver.public(), [7; 24], &sealed, Key::generate().id()).is_none());
    }

    #[test]
    fn what_is_no_public_key_gets_nothing() {
        assert!(Secret::new([1; 32]).seal([0; 32], [7; 24], &keyring()).is_none());
    }
}
