//! The Noise framework between two agents: `XXpsk0`, with a key of the keyring as the pre-shared key. A handshake takes three
//! messages. It proves to each side that the other one has the key, holds its identity, and is there now. It leaves a
//! [`Channel`]: frames that only the other end decrypts.
//!
//! The first message goes with a code under the key, as in `WireGuard`: what was not made with the key costs its receiver no
//! Diffie-Hellman and gets no answer. The first message is padded, so that no answer is larger.

use std::net::SocketAddr;

use blake2::Blake2sMac;
use blake2::digest::consts::{U16, U32};
use blake2::digest::{FixedOutput as _, Update as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The protocol by its name in the Noise specification.
const PROTOCOL: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
/// A code over a message, under a key or a cookie.
pub type Code = [u8; 16];
/// Bytes that a channel adds to a payload.
pub const TAG: usize = 16;
/// Longest introduction: with it, a second message is no larger than a first one.
pub const MAX_INTRODUCTION: usize = 140;
/// Bytes of the first message's payload.
const PADDING: usize = 192;
/// Bytes of the first message: an ephemeral key, and the padding with its tag.
pub const FIRST: usize = 32 + PADDING + TAG;

/// What a key of the keyring is to one cluster: its codes and its pre-shared key.
#[derive(Clone)]
pub struct ClusterKey {
    psk: Zeroizing<[u8; 32]>,
    code: Zeroizing<[u8; 32]>,
}

impl ClusterKey {
    /// Of a secret, for a cluster. Clusters of different ids have nothing in common.
    pub fn new(secret: &[u8; 32], cluster: &str) -> Self {
        let derive = |purpose: &[u8]| {
            let mut mac = mac32(secret);
            mac.update(purpose);
            mac.update(cluster.as_bytes());
            Zeroizing::new(mac.finalize_fixed().into())
        };
        Self { psk: derive(b"gossd psk "), code: derive(b"gossd code ") }
    }

    /// The code of a message.
    pub fn code(&self, message: &[u8]) -> Code {
        code(&*self.code, message)
    }

    /// Whether a code is that of a message, in constant time.
    pub fn is_code_of(&self, code: &Code, message: &[u8]) -> bool {
        self.code(message).ct_eq(code).into()
    }
}

fn mac32(key: &[u8]) -> Blake2sMac<U32> {
    Blake2sMac::new_with_salt_and_personal(key, &[], &[]).expect("a key of up to 32 bytes")
}

/// The code of a message under a key of up to 32 bytes, such as a cookie.
pub fn code(key: &[u8], message: &[u8]) -> Code {
    let mac = Blake2sMac::<U16>::new_with_salt_and_personal(key, &[], &[]);
    let mut mac = mac.expect("a key of up to 32 bytes");
    mac.update(message);
    mac.finalize_fixed().into()
}

/// The cookie of an address, under a secret: whoever shows it receives what is sent there.
pub fn cookie(secret: &[u8; 32], addr: SocketAddr) -> Code {
    code(secret, addr.to_string().as_bytes())
}

/// A long-lived key pair: who an agent is, whatever it is called.
#[derive(Clone)]
pub struct Identity {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Identity {
    /// Of 32 random bytes.
    pub fn new(private: &[u8; 32]) -> Self {
        let mut dh = Resolver([0; 32]).resolve_dh(&DHChoice::Curve25519).expect("a feature of this build");
        dh.set(private);
        let mut public = [0; 32];
        public.copy_from_slice(dh.pubkey());
        Self { private: Zeroizing::new(*private), public }
    }

    /// What others know of it.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// One side of a handshake under way.
pub struct Handshake(Box<HandshakeState>);

/// A message of a handshake that does not fit: forged, damaged, or of another handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch;

impl Handshake {
    fn new(key: &ClusterKey, identity: &Identity, random: [u8; 32], initiates: bool) -> Self {
        let builder =
            Builder::with_resolver(PROTOCOL.parse().expect("a protocol"), Box::new(Resolver(random)));
        let builder =
            builder.psk(0, &key.psk).and_then(|builder| builder.local_private_key(&*identity.private));
        let built =
            builder.and_then(
                |builder| if initiates { builder.build_initiator() } else { builder.build_responder() },
            );
        Self(Box::new(built.expect("all that the pattern needs is there")))
    }

    /// Begins: the first message.
    pub fn begin(key: &ClusterKey, identity: &Identity, random: [u8; 32]) -> (Self, Vec<u8>) {
        let mut handshake = Self::new(key, identity, random, true);
        let first = handshake.write(&[0; PADDING]);
        (handshake, first)
    }

    /// Answers a first message: the second one, with an introduction.
    pub fn answer(
        key: &ClusterKey,
        identity: &Identity,
        random: [u8; 32],
        first: &[u8],
        introduction: &[u8],
    ) -> Result<(Self, Vec<u8>), Mismatch> {
        let mut handshake = Self::new(key, identity, random, false);
        handshake.read(first)?;
        let second = handshake.write(introduction);
        Ok((handshake, second))
    }

    /// Takes the second message, whose introduction comes with it: the third one, and the channel.
    #[expect(clippy::type_complexity, reason = "a handshake that is not done with is given back")]
    pub fn prove(
        mut self,
        second: &[u8],
        introduction: &[u8],
    ) -> Result<(Channel, Vec<u8>, Vec<u8>), (Self, Mismatch)> {
        match self.read(second) {
            Ok(theirs) => {
                let third = self.write(introduction);
                Ok((self.finish(), third, theirs))
            }
            Err(mismatch) => Err((self, mismatch)),
        }
    }

    /// Takes the third message: the channel, and its introduction.
    pub fn complete(mut self, third: &[u8]) -> Result<(Channel, Vec<u8>), Mismatch> {
        let theirs = self.read(third)?;
        Ok((self.finish(), theirs))
    }

    fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; payload.len() + 128];
        let len = self.0.write_message(payload, &mut message).expect("it is our turn, and there is room");
        message.truncate(len);
        message
    }

    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Mismatch> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload).map_err(|_| Mismatch)?;
        payload.truncate(len);
        Ok(payload)
    }

    fn finish(self) -> Channel {
        let mut identity = [0; 32];
        identity.copy_from_slice(self.0.get_remote_static().expect("the pattern sends it"));
        let state = self.0.into_stateless_transport_mode().expect("it is finished");
        Channel { state, identity, sent: 0 }
    }
}

/// What a finished handshake leaves: encrypts for the other end, and decrypts what comes from there.
pub struct Channel {
    state: StatelessTransportState,
    identity: [u8; 32],
    sent: u64,
}

impl Channel {
    /// The other end's.
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Encrypts a payload: the counter that it goes with, and the bytes.
    pub fn encrypt(&mut self, payload: &[u8]) -> (u64, Vec<u8>) {
        let counter = self.sent;
        self.sent += 1;
        (counter, self.encrypt_as(counter, payload))
    }

    /// Encrypts with a counter, which must be used once only.
    pub fn encrypt_as(&self, counter: u64, payload: &[u8]) -> Vec<u8> {
        let mut encrypted = vec![0; payload.len() + TAG];
        let len =
            self.state.write_message(counter, payload, &mut encrypted).expect("no payload is that long");
        encrypted.truncate(len);
        encrypted
    }

    /// Decrypts. Whether the counter is new is the session's matter.
    pub fn decrypt(&self, counter: u64, encrypted: &[u8]) -> Result<Vec<u8>, Mismatch> {
        let mut payload = vec![0; encrypted.len()];
        let len = self.state.read_message(counter, encrypted, &mut payload).map_err(|_| Mismatch)?;
        payload.truncate(len);
        Ok(payload)
    }
}

/// The default resolver, but for what is random: that is given.
struct Resolver([u8; 32]);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded(StdRng::from_seed(self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        #[cfg(test)]
        if let Some(toy) = super::toy::dh() {
            return Some(toy);
        }
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Seeded(StdRng);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (ClusterKey, Identity, Identity) {
        (ClusterKey::new(&[1; 32], "c"), Identity::new(&[2; 32]), Identity::new(&[3; 32]))
    }

    /// Both ends of a handshake, with what each said of itself.
    fn channels() -> [Channel; 2] {
        let (key, a, b) = keys();
        let (ours, first) = Handshake::begin(&key, &a, [4; 32]);
        let (theirs, second) = Handshake::answer(&key, &b, [5; 32], &first, &[7; MAX_INTRODUCTION]).unwrap();
        assert_eq!(first.len(), FIRST);
        assert!(second.len() <= first.len(), "no answer is larger than its question");
        let Ok((one, third, introduction)) = ours.prove(&second, b"a") else { panic!("it is its answer") };
        assert_eq!(introduction, [7; MAX_INTRODUCTION]);
        let (other, introduction) = theirs.complete(&third).unwrap();
        assert_eq!(introduction, b"a");
        [one, other]
    }

    #[test]
    fn both_ends_know_each_other_and_nobody_else_decrypts() {
        let ([mut one, other], (_, a, b)) = (channels(), keys());
        assert_eq!([one.identity(), other.identity()], [b.public(), a.public()]);
        let (counter, encrypted) = one.encrypt(b"hello");
        assert_eq!(other.decrypt(counter, &encrypted).unwrap(), b"hello");
        assert_eq!(other.decrypt(counter + 1, &encrypted), Err(Mismatch), "another frame's counter");
        assert_eq!(one.decrypt(counter, &encrypted), Err(Mismatch), "thrown back");
        for bit in 0..encrypted.len() * 8 {
            let mut changed = encrypted.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(other.decrypt(counter, &changed), Err(Mismatch));
        }
    }

    #[test]
    fn another_key_or_cluster_or_a_changed_byte_ends_a_handshake() {
        let (key, a, b) = keys();
        let (_, first) = Handshake::begin(&key, &a, [4; 32]);
        for other in [ClusterKey::new(&[9; 32], "c"), ClusterKey::new(&[1; 32], "d")] {
            assert!(Handshake::answer(&other, &b, [5; 32], &first, b"b").is_err());
            assert!(!other.is_code_of(&key.code(&first), &first));
        }
        assert!(key.is_code_of(&key.code(&first), &first));
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1;
            assert!(Handshake::answer(&key, &b, [5; 32], &changed, b"b").is_err(), "byte {at}");
        }
    }

    /// A message with any one byte changed, or cut.
    fn forged(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let changed = (0..message.len()).map(|at| {
            let mut changed = message.to_vec();
            changed[at] ^= 1;
            changed
        });
        changed.chain((0..message.len()).map(|len| message[..len].to_vec()))
    }

    #[test]
    fn a_forged_answer_leaves_the_handshake_to_the_true_one() {
        let (key, a, b) = keys();
        let (ours, first) = Handshake::begin(&key, &a, [4; 32]);
        let (theirs, second) = Handshake::answer(&key, &b, [5; 32], &first, b"b").unwrap();
        let mut ours = Some(ours);
        for forged in forged(&second) {
            let Err((again, Mismatch)) = ours.take().unwrap().prove(&forged, b"a") else { panic!("forged") };
            ours = Some(again);
        }
        let Ok((_, third, _)) = ours.unwrap().prove(&second, b"a") else { panic!("the true one") };
        assert!(theirs.complete(&third).is_ok());
    }
}
