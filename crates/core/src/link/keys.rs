//! Who has which keys, as an operator sees it, and what keeps a change of them from being safe. Knows neither frames nor
//! secrets.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::keyring::{ChangeError, Fingerprint, KeyId, Keyring, KeyringChange, MAX_KEYS};

/// Whether a keyring outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Filed {
    /// The key file has it.
    Written,
    /// It is being written.
    Pending,
    /// It cannot be written: a restart would lose it.
    MemoryOnly,
}

/// What an agent tells of its keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringSummary {
    /// Its keys, the sealing one first.
    pub keys: Vec<KeyId>,
    /// What tells it from others.
    pub fingerprint: Fingerprint,
    /// See [`Keyring::is_shared`].
    pub shared: bool,
    /// Where it is.
    pub filed: Filed,
}

impl KeyringSummary {
    /// What to tell of a keyring.
    pub fn of(keyring: &Keyring, filed: Filed) -> Self {
        let keys = keyring.ids().collect();
        Self { keys, fingerprint: keyring.fingerprint(), shared: keyring.is_shared(), filed }
    }

    /// Whether it has one to [`MAX_KEYS`] keys.
    pub(super) fn is_plausible(&self) -> bool {
        (1..=MAX_KEYS).contains(&self.keys.len())
    }

    /// Whether the two have something to learn from each other. Keyrings made by hand are left alone.
    pub fn differs(&self, other: &Self) -> bool {
        self.fingerprint != other.fingerprint && (self.shared || other.shared)
    }
}

/// Everybody's keys, as one agent knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyReport {
    /// The keys of the agent that was asked, the sealing one first.
    pub keys: Vec<KeyId>,
    /// The sealing one.
    pub seals: KeyId,
    /// All agents that are known, also those that are silent, by name.
    pub agents: Vec<AgentKeys>,
}

/// One agent's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentKeys {
    /// Its name.
    pub name: String,
    /// Whether it is the one that was asked.
    #[serde(rename = "this")]
    pub asked: bool,
    /// For how long it has been silent; none if it is heard.
    pub silent_seconds: Option<u64>,
    /// Its keys, the sealing one first; none if it never told.
    pub keys: Option<Vec<KeyId>>,
    /// The sealing one.
    pub seals: Option<KeyId>,
    /// Whether it has all that the asked one has, and nothing else.
    pub newest: bool,
    /// Where its keyring is; none if it never told.
    pub file: Option<Filed>,
    /// Why it is not in its file, if that is known.
    pub problem: Option<String>,
}

/// What every agent has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That key, to open with.
    Key(KeyId),
    /// The keyring of the asked one, as it is.
    Newest,
}

/// An agent that does not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lack {
    /// Its name.
    pub agent: String,
    /// Why it is not known to have it.
    pub why: String,
    /// Whether a moment's patience may help.
    pub soon: bool,
}

impl KeyReport {
    /// Who is not known to have it, so that it outlives a restart.
    pub fn lacking(&self, need: Need) -> Vec<Lack> {
        self.agents.iter().filter_map(|agent| agent.lacks(need)).collect()
    }
}

impl AgentKeys {
    fn lacks(&self, need: Need) -> Option<Lack> {
        let has = match need {
            Need::Key(id) => self.keys.as_ref().is_some_and(|keys| keys.contains(&id)),
            Need::Newest => self.newest,
        };
        if has && self.file == Some(Filed::Written) {
            return None;
        }
        let silent = self.silent_seconds.map(|seconds| format!("silent for {}", Span(seconds)));
        let soon = silent.is_none() && self.keys.is_some() && self.file != Some(Filed::MemoryOnly);
        let what = self.what_is_wrong(has, need);
        let why = [silent, Some(what)].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Some(Lack { agent: self.name.clone(), why, soon })
    }

    fn what_is_wrong(&self, has: bool, need: Need) -> String {
        match (self.file, has, need) {
            (None, ..) if self.silent_seconds.is_some() => "what keys it has is not known".into(),
            (None, ..) => "has not told what keys it has: is it an older gossd?".into(),
            (_, false, Need::Key(id)) => format!("does not have the key {id}"),
            (_, false, Need::Newest) => "does not have the newest keyring".into(),
            (Some(Filed::MemoryOnly), ..) => self.where_it_is(),
            (Some(Filed::Pending | Filed::Written), ..) => "is writing its key file".into(),
        }
    }

    /// What to say of its key file.
    pub fn where_it_is(&self) -> String {
        match (self.file, &self.problem) {
            (None, _) => "not known".into(),
            (Some(Filed::Written), _) => "written".into(),
            (Some(Filed::Pending), _) => "being written".into(),
            (Some(Filed::MemoryOnly), None) => "in memory only: key file not writable".into(),
            (Some(Filed::MemoryOnly), Some(why)) => format!("in memory only: {why}"),
        }
    }
}

/// A time as people say it.
pub struct Span(
    /// Seconds.
    pub u64,
);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds @ ..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ ..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// Why keys were not changed. Nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysRefused {
    /// There is no key file.
    #[error(
        "this agent has no keys of its own: without --key-file its gossip stays on this host. For a cluster, run \
         `gossd keys generate > key`, copy the file to every host, and start each agent with `--key-file key`"
    )]
    Public,
    /// Not a line of a key file.
    #[error("that is no key: `gossd keys generate` makes one")]
    NoKey,
    /// The agent is about to end.
    #[error("the agent is ending")]
    Ending,
    /// It makes no sense.
    #[error(transparent)]
    Senseless(#[from] ChangeError),
    /// Somebody would be cut off.
    #[error("{0}")]
    Unsafe(Unsafe),
}

/// A change that is made only with `--force`, and who is not ready for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsafe {
    change: &'static str,
    id: KeyId,
    lacking: Vec<Lack>,
    danger: &'static str,
}

impl Unsafe {
    /// Whether and why a change is unsafe, as far as that report tells.
    pub fn judge(change: &KeyringChange, report: &KeyReport) -> Option<Self> {
        let (change, id, need, danger) = match change {
            KeyringChange::Add(_) => return None,
            KeyringChange::Use(id) => {
                let danger = "an agent without it stays in only while another key of theirs opens";
                ("used", *id, Need::Key(*id), danger)
            }
            KeyringChange::Remove(id) => {
                let danger =
                    "an agent without another key of theirs is cut off until a key file is copied to it";
                ("removed", *id, Need::Newest, danger)
            }
        };
        let lacking = report.lacking(need);
        (!lacking.is_empty()).then_some(Self { change, id, lacking, danger })
    }

    /// Whether all that it needs is a moment's patience.
    pub fn may_pass(&self) -> bool {
        self.lacking.iter().all(|lack| lack.soon)
    }
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the key {} is not {} yet, because not every agent is ready for it:",
            self.id, self.change
        )?;
        for Lack { agent, why, .. } in &self.lacking {
            writeln!(f, "  {agent}: {why}")?;
        }
        write!(f, "Say --force to do it all the same: {}.", self.danger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::keyring::Key;

    fn agent(name: &str, keyring: &Keyring, filed: Filed) -> AgentKeys {
        AgentKeys {
            name: name.into(),
            asked: false,
            silent_seconds: None,
            keys: Some(keyring.ids().collect()),
            seals: Some(keyring.sealing()),
            newest: true,
            file: Some(filed),
            problem: None,
        }
    }

    #[test]
    fn who_does_not_have_a_key_for_good_is_named_with_the_reason() {
        let keyring = Keyring::parse(&Key::generate().line()).unwrap();
        let id = keyring.sealing();
        let good = agent("a", &keyring, Filed::Written);
        let agents = [
            (good.clone(), None),
            (AgentKeys { silent_seconds: Some(90), ..good.clone() }, None),
            (AgentKeys { file: Some(Filed::Pending), ..good.clone() }, Some(("is writing", true))),
            (AgentKeys { file: Some(Filed::MemoryOnly), ..good.clone() }, Some(("in memory only", false))),
            (AgentKeys { keys: Some(vec![]), ..good.clone() }, Some(("does not have the key", true))),
            (AgentKeys { keys: None, file: None, ..good.clone() }, Some(("an older gossd", false))),
            (
                AgentKeys { keys: None, file: None, silent_seconds: Some(180), ..good.clone() },
                Some(("silent for 3 min; what keys it has is not known", false)),
            ),
        ];
        for (agent, expected) in agents {
            let report = KeyReport { keys: vec![id], seals: id, agents: vec![agent] };
            let told = report.lacking(Need::Key(id));
            let expected = expected.map(|(why, soon)| (why.to_owned(), soon));
            assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
            if let Some((why, soon)) = expected {
                assert!(told[0].why.contains(&why) && told[0].soon == soon, "{told:?}");
            }
        }
    }

    #[test]
    fn a_removal_needs_everybody_to_have_this_very_keyring() {
        let keyring = Keyring::parse(&Key::generate().line()).unwrap();
        let id = keyring.sealing();
        let behind = AgentKeys { newest: false, ..agent("b", &keyring, Filed::Written) };
        let report = KeyReport {
            keys: vec![id],
            seals: id,
            agents: vec![agent("a", &keyring, Filed::Written), behind],
        };
        assert_eq!(Unsafe::judge(&KeyringChange::Use(id), &report), None, "it has the key");
        let refused = Unsafe::judge(&KeyringChange::Remove(id), &report).unwrap().to_string();
        assert!(refused.contains("  b: does not have the newest keyring\n"), "{refused}");
        assert!(!refused.contains("  a: ") && refused.contains("--force"), "{refused}");
    }

    #[test]
    fn a_time_is_said_in_one_unit() {
        for (seconds, said) in
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 days")]
        {
            assert_eq!(Span(seconds).to_string(), said);
        }
    }
}
