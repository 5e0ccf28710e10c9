//! Keys between agents: each tells the others what its keyring is, and whoever differs is given the other's, sealed with a
//! key that it opens. So a key that is added, used or removed anywhere is so everywhere, also at an agent that was away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt as _;

use super::handover::Secret;
use super::keyring::{Fingerprint, KeyId, Keyring, KeyringChange};
use super::keys::{AgentKeys, Filed, KeyReport, KeyringSummary, KeysRefused, Unsafe};
use super::roll::{KnownAgent, Ours, Roll};
use super::wire::{self, Kind, Malformed, Session};
use super::{Link, LinkEffects, LinkLine, Peer};
use crate::record::AgentName;

/// What the link knows of keys, besides the keyring in force, which its sealer has.
pub(super) struct Keys {
    pub(super) roll: Roll,
    secret: Secret,
    /// What we tell.
    told: KeyringSummary,
    /// Why the key file is not written.
    problem: Option<String>,
}

impl Keys {
    /// With a keyring that was just read from its file, if there is one.
    pub(super) fn new(keyring: &Keyring, key_file: bool, random: [u8; 32]) -> Self {
        let (filed, problem) = if key_file {
            (Filed::Written, None)
        } else {
            (Filed::MemoryOnly, Some("there is no --key-file".to_owned()))
        };
        Self {
            roll: Roll::default(),
            secret: Secret::new(random),
            told: KeyringSummary::of(keyring, filed),
            problem,
        }
    }
}

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
        let keyring = self.sealer.keyring.clone();
        let changed = keyring.changed(change)?;
        if changed.fingerprint() == keyring.fingerprint() {
            return Ok(LinkEffects::default());
        }
        if let Some(danger) = judged {
            return Err(KeysRefused::Unsafe(danger));
        }
        self.rekey(now, changed);
        self.tell_keys(now);
        Ok(self.take_effects())
    }

    /// Takes a keyring that was read from the key file again. Whether it, or a part of it, came into force.
    pub fn handle_key_file(&mut self, now: Instant, read: Keyring) -> (bool, LinkEffects) {
        let keyring = self.sealer.keyring.clone();
        let by_hand = !keyring.is_shared() && !read.is_shared();
        let merged = if by_hand { read } else { keyring.merged(&read) };
        let new = merged.fingerprint() != keyring.fingerprint();
        // Also one that is the same: the file may lack a part of it.
        self.rekey(now, merged);
        (new, self.take_effects())
    }

    /// The key file was written with that keyring, or not.
    pub fn handle_filed(&mut self, now: Instant, what: Fingerprint, written: Result<(), String>) {
        if what != self.keys.told.fingerprint {
            return;
        }
        self.keys.told.filed = if written.is_ok() { Filed::Written } else { Filed::MemoryOnly };
        self.keys.problem = written.err();
        self.keys.roll.revise(now);
    }

    /// Everybody's keys.
    pub fn key_report(&self, now: Instant) -> Result<KeyReport, KeysRefused> {
        if self.sealer.keyring.clone().is_public() { Err(KeysRefused::Public) } else { Ok(self.report(now)) }
    }

    fn report(&self, now: Instant) -> KeyReport {
        let told = &self.keys.told;
        let mut agents: Vec<_> =
            self.keys.roll.known().map(|(name, entry)| agent_keys(now, name, entry, told)).collect();
        agents.push(AgentKeys {
            name: self.us.owner.name.to_string(),
            asked: true,
            silent_seconds: None,
            keys: Some(told.keys.clone()),
            seals: told.keys.first().copied(),
            newest: true,
            file: Some(told.filed),
            problem: self.keys.problem.clone(),
        });
        agents.sort_by(|a, b| a.name.cmp(&b.name));
        KeyReport { keys: told.keys.clone(), seals: self.sealer.keyring.clone().sealing(), agents }
    }

    /// Tells the peers that do not know, or have other keys.
    pub(super) fn tell_keys(&mut self, now: Instant) {
        for due in self.keys.roll.due(now, &self.keys.told) {
            self.send_key_status(now, due.to, due.heard, true);
        }
    }

    pub(super) fn take_key_status(
        &mut self,
        now: Instant,
        session: Session,
        peer: &Peer,
        payload: &[u8],
    ) -> Result<(), Malformed> {
        let status: wire::KeyStatus<'_> = wire::decode(payload)?;
        let keyring = self.sealer.keyring.clone();
        let Keys { roll, told, .. } = &mut self.keys;
        let name = &peer.owner.name;
        let ours = Ours { name: &self.us.owner.name, told, keyring: &keyring };
        let answer = roll.take(now, (session, name), &status, &ours);
        if answer.status {
            let heard = self.keys.roll.taken(name);
            self.send_key_status(now, peer.addr, heard, false);
        }
        if let Some(public) = answer.give {
            let nonce = self.rng.random();
            let Some(sealed) = self.keys.secret.seal(public, nonce, &keyring) else { return Err(Malformed) };
            let handover = wire::Handover { public: self.keys.secret.public(), nonce, sealed: &sealed };
            self.send(Kind::Handover, &wire::encode(&handover), peer.addr);
        }
        Ok(())
    }

    pub(super) fn take_handover(
        &mut self,
        now: Instant,
        peer: &Peer,
        with: KeyId,
        payload: &[u8],
    ) -> Result<(), Malformed> {
        let wire::Handover { public, nonce, sealed } = wire::decode(payload)?;
        let given = self.keys.secret.open(public, nonce, sealed, with).ok_or(Malformed)?;
        let keyring = self.sealer.keyring.clone();
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

    /// The key to seal for an address with: the newest that is known to open there.
    pub(super) fn key_for(&self, to: SocketAddr) -> KeyId {
        self.keys.roll.exception(to).unwrap_or_else(|| self.sealer.keyring.clone().sealing())
    }

    /// The key for somebody who is not heard: perhaps it was away while another sealed.
    pub(super) fn guess_key(&mut self) -> KeyId {
        let tried: Vec<KeyId> = self.sealer.keyring.clone().tried().collect();
        tried[self.rng.random_range(0..tried.len())]
    }

    fn rekey(&mut self, now: Instant, keyring: Keyring) {
        self.keys.roll.rekeyed(&keyring);
        self.keys.roll.revise(now);
        let filed = match self.keys.told.filed {
            Filed::Written => Filed::Pending,
            filed @ (Filed::Pending | Filed::MemoryOnly) => filed,
        };
        self.keys.told = KeyringSummary::of(&keyring, filed);
        self.sealer.keyring = Arc::new(keyring);
        self.effects.sealer = Some(self.sealer.clone());
    }

    fn send_key_status(&mut self, now: Instant, to: SocketAddr, heard: u64, ask: bool) {
        let status = wire::KeyStatus {
            revision: self.keys.roll.revision(),
            heard,
            ask,
            public: self.keys.secret.public(),
            told: self.keys.told.clone(),
            absent: self.keys.roll.absent(now),
        };
        let payload = wire::encode(&status);
        self.send(Kind::KeyStatus, &payload, to);
    }
}

fn agent_keys(now: Instant, name: &AgentName, entry: &KnownAgent, ours: &KeyringSummary) -> AgentKeys {
    let told = entry.told.as_ref();
    AgentKeys {
        name: name.to_string(),
        asked: false,
        silent_seconds: entry.silent.map(|since| now.saturating_duration_since(since).as_secs()),
        keys: told.map(|told| told.keys.clone()),
        seals: told.and_then(|told| told.keys.first().copied()),
        newest: told.is_some_and(|told| told.fingerprint == ours.fingerprint),
        file: told.map(|told| told.filed),
        problem: None,
    }
}
