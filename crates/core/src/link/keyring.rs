//! The keys of a cluster: the first seals, all of them open. What becomes of a keyring when keys are added, used and
//! removed, here and elsewhere at the same time. A key is never printed, but to its file.
//!
//! Keyrings that met the same changes are the same, in whatever order they met: of every key the last turn counts, and a
//! removal counts for ever. The key that had the last turn seals. A keyring without any turn is its operator's: it is
//! what a hand wrote into a file, and two such are never merged.

mod file;
mod id;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use self::file::KeyringError;
pub use self::id::{KeyId, NoKeyId};

use super::noise::ClusterKey;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Most keys of a keyring; of more, those that never had a turn go. A bound for files and for what peers say.
pub const MAX_KEYS: usize = 16;
/// Most keys that one can add up to: the two halves of a cluster that is cut may each have so many.
pub const MAX_ADDED: usize = MAX_KEYS / 2;
/// Removals that are remembered; of more, the oldest go.
pub const MAX_REMOVED: usize = 32;
/// Higher turns are hostile.
const MAX_TURN: Turn = 1 << 53;

/// Of changes that have to be in order, which: the first is 1, 0 is none.
pub type Turn = u64;

/// A secret, and its name.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    /// In a place of its own: what moves leaves copies behind.
    secret: Box<Zeroizing<[u8; KEY_LEN]>>,
}

/// What tells one keyring from another, and nothing of its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(u64);

/// One to [`MAX_KEYS`] keys, in their order.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<HeldKey>,
    removed: BTreeMap<KeyId, Turn>,
    public: bool,
}

#[derive(Clone)]
struct HeldKey {
    key: Key,
    /// When it was told to seal, for the last time.
    turn: Turn,
}

/// A change of a keyring.
#[derive(Clone, Debug)]
pub enum KeyringChange {
    /// One more key opens.
    Add(Key),
    /// That key seals.
    Use(KeyId),
    /// That key does not open any more, and never will.
    Remove(KeyId),
}

/// Why a change makes no sense. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// See [`KeyringChange::Use`] and [`KeyringChange::Remove`].
    #[error("there is no key {0}: `gossd keys list` shows them")]
    Unknown(KeyId),
    /// Whoever still has it from that time must not be let in.
    #[error("the key {0} was removed, and cannot come back: make another with `gossd keys add --generate`")]
    Removed(KeyId),
    /// Over [`MAX_ADDED`].
    #[error("there are {MAX_ADDED} keys already: remove one first")]
    Full,
    /// The sealing key cannot go.
    #[error("the key {0} seals: `gossd keys use` another first")]
    Seals(KeyId),
    /// A peer made up a turn that leaves none for us.
    #[error("no turn is left: write new key files and restart every agent")]
    NoTurn,
}

impl Keyring {
    /// The key that everybody knows, for agents on loopback: the same code runs, nothing is secret.
    pub fn public() -> Self {
        let key = HeldKey { key: Key::new(&[0; KEY_LEN]), turn: 0 };
        Self { keys: vec![key], removed: BTreeMap::new(), public: true }
    }

    /// Whether this is [`Self::public`].
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// Whether it was ever changed but by hand, and so is one that peers share.
    pub fn is_shared(&self) -> bool {
        self.keys[0].turn > 0
    }

    /// Its key, if it has just one.
    pub fn single(&self) -> Option<&Key> {
        if let [held] = &self.keys[..] { Some(&held.key) } else { None }
    }

    /// The keys' names, the sealing key's first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|held| held.key.id)
    }

    /// Those that somebody may seal with who has been away: all that are shared, or the first of what a hand made.
    pub fn tried(&self) -> impl Iterator<Item = KeyId> {
        self.ids().take(if self.is_shared() { MAX_KEYS } else { 1 })
    }

    /// The sealing key's name.
    pub fn sealing(&self) -> KeyId {
        self.keys[0].key.id
    }

    /// Whether a key opens.
    pub fn has(&self, id: KeyId) -> bool {
        self.ids().any(|known| known == id)
    }

    /// What tells it from others.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new().chain_update(b"gossd keyring");
        for HeldKey { key, turn } in &self.keys {
            hash.update(key.id.bytes());
            hash.update(turn.to_le_bytes());
        }
        hash.update(b"removed");
        for (id, turn) in &self.removed {
            hash.update(id.bytes());
            hash.update(turn.to_le_bytes());
        }
        Fingerprint(u64::from_le_bytes(start(&hash.finalize())))
    }

    /// Whether both have the same keys, and the same one seals: to start from either is the same.
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        self.sealing() == other.sealing()
            && self.keys.len() == other.keys.len()
            && self.ids().all(|id| other.has(id))
    }

    /// The keyring after a change; the same if it was made before.
    pub fn changed(&self, change: KeyringChange) -> Result<Self, ChangeError> {
        let mut changed = self.clone();
        if changed.keys[0].turn == 0 {
            changed.keys[0].turn = 1;
        }
        match change {
            KeyringChange::Add(key) => changed.add(key)?,
            KeyringChange::Use(id) if self.sealing() == id && self.is_shared() => {}
            KeyringChange::Use(id) => {
                let turn = changed.next_turn()?;
                let held = changed.keys.iter_mut().find(|held| held.key.id == id);
                held.ok_or(ChangeError::Unknown(id))?.turn = turn;
            }
            KeyringChange::Remove(id) if self.removed.contains_key(&id) => {}
            KeyringChange::Remove(id) if self.sealing() == id => return Err(ChangeError::Seals(id)),
            KeyringChange::Remove(id) if !self.has(id) => return Err(ChangeError::Unknown(id)),
            KeyringChange::Remove(id) => drop(changed.removed.insert(id, changed.next_turn()?)),
        }
        changed.settle();
        Ok(changed)
    }

    /// What both together know. Two of which neither was ever changed but by hand have nothing to tell each other, nor
    /// have two of which each removed all keys of the other.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        if !self.is_shared() && !other.is_shared() {
            return merged;
        }
        for (id, turn) in &other.removed {
            let known = merged.removed.entry(*id).or_default();
            *known = (*known).max(*turn);
        }
        for other in &other.keys {
            match merged.keys.iter_mut().find(|held| held.key.id == other.key.id) {
                Some(held) => held.turn = held.turn.max(other.turn),
                None => merged.keys.push(other.clone()),
            }
        }
        merged.settle();
        if merged.keys.is_empty() { self.clone() } else { merged }
    }

    /// For a peer.
    pub fn spell(&self) -> Spelled {
        let keys = self.keys.iter().map(|held| (held.turn, **held.key.secret)).collect();
        let removed = self.removed.iter().map(|(id, turn)| (*turn, *id)).collect();
        Spelled { keys, removed }
    }

    fn add(&mut self, key: Key) -> Result<(), ChangeError> {
        match self.has(key.id) {
            true => return Ok(()),
            false if self.removed.contains_key(&key.id) => return Err(ChangeError::Removed(key.id)),
            false if self.keys.len() >= MAX_ADDED => return Err(ChangeError::Full),
            false => self.keys.push(HeldKey { key, turn: 0 }),
        }
        Ok(())
    }

    fn next_turn(&self) -> Result<Turn, ChangeError> {
        let turns = self.keys.iter().map(|held| held.turn).chain(self.removed.values().copied());
        let next = turns.max().unwrap_or_default() + 1;
        if next > MAX_TURN { Err(ChangeError::NoTurn) } else { Ok(next) }
    }

    /// Takes out what was removed, puts the last turn first, and keeps to the bounds, all by rules that give the same
    /// in whatever order changes came.
    fn settle(&mut self) {
        self.keys.retain(|held| !self.removed.contains_key(&held.key.id));
        self.keys.sort_by_key(|held| (std::cmp::Reverse(held.turn), held.key.id));
        self.keys.truncate(MAX_KEYS);
        while self.removed.len() > MAX_REMOVED
            && let Some(oldest) = self.removed.iter().map(|(id, turn)| (*turn, *id)).min()
        {
            self.removed.remove(&oldest.1);
        }
    }

    /// What each of the keys is to a cluster.
    pub fn for_cluster(&self, cluster: &str) -> BTreeMap<KeyId, ClusterKey> {
        self.keys.iter().map(|held| (held.key.id, ClusterKey::new(&held.key.secret, cluster))).collect()
    }
}

/// A keyring as a peer gets it.
#[derive(Serialize, Deserialize)]
pub struct Spelled {
    keys: Vec<(Turn, [u8; KEY_LEN])>,
    removed: Vec<(Turn, KeyId)>,
}

impl Spelled {
    /// The keyring, if it is one, and that key is in it: a peer never takes away the key it speaks with.
    pub fn read(self, with: KeyId) -> Option<Keyring> {
        let turns = self.keys.iter().map(|(turn, _)| turn).chain(self.removed.iter().map(|(turn, _)| turn));
        let fits = self.keys.len() <= MAX_KEYS && self.removed.len() <= MAX_REMOVED;
        if !fits || turns.max().is_some_and(|turn| *turn > MAX_TURN) {
            return None;
        }
        let keys = self.keys.iter().map(|(turn, secret)| HeldKey { key: Key::new(secret), turn: *turn });
        let removed = self.removed.iter().map(|(turn, id)| (*id, *turn)).collect();
        let mut keyring = Keyring { keys: keys.collect(), removed, public: false };
        keyring.settle();
        Some(keyring).filter(|keyring| keyring.has(with))
    }
}

impl Drop for Spelled {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.keys.iter_mut().for_each(|(_, secret)| secret.zeroize());
    }
}

impl Key {
    /// The next of a test's keys, which differ from each other.
    #[cfg(test)]
    pub(crate) fn generate() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::new(&Sha256::digest(NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes()).into())
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A line of a key file.
    pub fn line(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.secret.as_slice()))
    }

    /// Takes random bytes where they lie: an argument by value would leave a copy on the stack.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let mut secret = Box::new(Zeroizing::new([0; KEY_LEN]));
        secret.copy_from_slice(bytes);
        let hash = Sha256::new().chain_update(b"gossd key id").chain_update(secret.as_slice()).finalize();
        Self { id: KeyId::of(start(&hash)), secret }
    }
}

fn start<const N: usize>(hash: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| hash[at])
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests;
