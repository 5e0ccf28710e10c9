//! Keys between agents: each states on its card which keys it has, and a peer that differs is given the keyring, in a session
//! made with a key that both have. So a key that is added, used or removed anywhere is so everywhere, also at an agent that
//! was away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::keyring::{Fingerprint, KeyId, Keyring, KeyringChange, Spelled};
use super::keys::{AgentKeys, Filed, KeyReport, KeyringSummary, KeysRefused, Unsafe};
use super::look::SUSPECT;
use super::peers::{KnownPeer, Peers};
use super::wire::{self, Kind, Malformed};
use super::{Link, LinkEffects, LinkLine, Peer};

/// A peer whose keys differ from ours is given our keyring again after this, and then after twice as long.
const GIVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

impl Link {
    /// Changes the keyring, if it is safe or forced. What changed reaches the peers by itself.
    pub fn change_keys(
        &mut self,
        now: Instant,
        change: KeyringChange,
        force: bool,
    ) -> Result<LinkEffects, KeysRefused> {
        let report = self.key_report(now)?;
        let judged = if force { None } else { Unsafe::judge(&change, &report) };
        let keyring = self.keyring.clone();
        let changed = keyring.changed(change)?;
        if changed.fingerprint() == keyring.fingerprint() {
            return Ok(LinkEffects::default());
        }
        if let Some(danger) = judged {
            return Err(KeysRefused::Unsafe(danger));
        }
        self.rekey(now, changed);
        Ok(self.take_effects())
    }

    /// Takes a keyring that was read from the key file again. Whether it, or a part of it, came into force.
    pub fn handle_key_file(&mut self, now: Instant, read: Keyring) -> (bool, LinkEffects) {
        let keyring = self.keyring.clone();
        let by_hand = !keyring.is_shared() && !read.is_shared();
        let merged = if by_hand { read } else { keyring.merged(&read) };
        let new = merged.fingerprint() != keyring.fingerprint();
        // Also one that is the same: the file may lack a part of it.
        self.rekey(now, merged);
        (new, self.take_effects())
    }

    /// The key file was written with that keyring, or not.
    pub fn handle_filed(
        &mut self,
        now: Instant,
        what: Fingerprint,
        written: Result<(), String>,
    ) -> LinkEffects {
        if what == self.peers.own.keys.fingerprint {
            let filed = if written.is_ok() { Filed::Written } else { Filed::MemoryOnly };
            self.peers.state(|own| own.keys.filed = filed);
            self.key_problem = written.err();
            self.announce(now);
        }
        self.take_effects()
    }

    /// Everybody's keys.
    pub fn key_report(&self, now: Instant) -> Result<KeyReport, KeysRefused> {
        if self.keyring.is_public() { Err(KeysRefused::Public) } else { Ok(self.report(now)) }
    }

    fn report(&self, now: Instant) -> KeyReport {
        let own = &self.peers.own.keys;
        let ran = self.ran.now.unwrap_or(now);
        let known = self.peers.table.values().filter(|known| !known.left);
        let mut agents: Vec<_> = known.map(|known| agent_keys(ran, known, own)).collect();
        agents.push(AgentKeys {
            name: self.us().owner.name.to_string(),
            asked: true,
            silent_seconds: None,
            keys: Some(own.keys.clone()),
            seals: own.keys.first().copied(),
            newest: true,
            file: Some(own.filed),
            problem: self.key_problem.clone(),
        });
        agents.sort_by(|a, b| a.name.cmp(&b.name));
        KeyReport { keys: own.keys.clone(), seals: self.keyring.sealing(), agents }
    }

    /// Gives our keyring to the live peers whose keys differ. They take what is new to them, and give theirs.
    pub(super) fn give_keys(&mut self, now: Instant, ran: Instant) {
        let Peers { table, own, .. } = &mut self.peers;
        if !own.keys.shared {
            return;
        }
        let mut to = Vec::new();
        for known in table.values_mut().filter(|known| known.is_live(ran)) {
            let differs = known.keys.as_ref().is_some_and(|keys| keys.differs(&own.keys));
            let (next, pause) = known.give.unwrap_or((now, GIVE.0));
            if differs && next <= now {
                known.give = Some((now + pause, (pause * 2).min(GIVE.1)));
                to.push(known.peer.addr);
            }
        }
        if !to.is_empty() {
            // The session is of ephemeral keys: who records it, and learns its key of the cluster later, learns no other.
            let handover = wire::encode(&self.keyring.spell());
            for addr in to {
                self.send(Kind::Handover, &handover, addr);
            }
        }
    }

    pub(super) fn take_handover(
        &mut self,
        now: Instant,
        peer: &Peer,
        payload: &[u8],
    ) -> Result<(), Malformed> {
        let with = self.peers.key_of(peer.addr).ok_or(Malformed)?;
        let given = wire::decode::<Spelled>(payload)?.read(with).ok_or(Malformed)?;
        let keyring = self.keyring.clone();
        let merged = keyring.merged(&given);
        // It may have been taken away by ourselves meanwhile; then there is nothing to learn from it.
        let speaks = merged.has(with);
        if keyring.is_public() || !speaks || merged.fingerprint() == keyring.fingerprint() {
            return Ok(());
        }
        self.rekey(now, merged);
        self.effects.lines.push(LinkLine::KeysTaken { agent: peer.owner.name.clone() });
        Ok(())
    }

    /// The key to begin a handshake with: mostly our first, but others too, because the other end may have been away while
    /// keys were changed.
    pub(super) fn guess_key(&mut self) -> KeyId {
        let tried: Vec<KeyId> = self.keyring.tried().collect();
        if tried.len() == 1 || self.rng.random() {
            tried[0]
        } else {
            tried[self.rng.random_range(1..tried.len())]
        }
    }

    fn rekey(&mut self, now: Instant, keyring: Keyring) {
        self.peers.state(|own| {
            let filed = match own.keys.filed {
                Filed::Written => Filed::Pending,
                filed @ (Filed::Pending | Filed::MemoryOnly) => filed,
            };
            own.keys = KeyringSummary::of(&keyring, filed);
        });
        self.peers.table.values_mut().for_each(|known| known.give = None);
        self.cluster_keys = keyring.for_cluster(&self.cluster);
        let keyring = Arc::new(keyring);
        self.keyring = keyring.clone();
        self.effects.keyring = Some(keyring.clone());
        self.announce(now);
        for addr in self.peers.drop_keys(|key| keyring.has(key)) {
            self.hello(now, addr);
        }
    }
}

fn agent_keys(ran: Instant, known: &KnownPeer, ours: &KeyringSummary) -> AgentKeys {
    let keys = known.keys.as_ref();
    let silence = ran.saturating_duration_since(known.sign);
    AgentKeys {
        name: known.peer.owner.name.to_string(),
        asked: false,
        silent_seconds: (silence >= SUSPECT).then_some(silence.as_secs()),
        keys: keys.map(|keys| keys.keys.clone()),
        seals: keys.and_then(|keys| keys.keys.first().copied()),
        newest: keys.is_some_and(|keys| keys.fingerprint == ours.fingerprint),
        file: keys.map(|keys| keys.filed),
        problem: None,
    }
}
