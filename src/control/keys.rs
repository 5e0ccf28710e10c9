//! `gossd keys`: keys changed at this agent, and a moment's wait until every other one has them too.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::{Answer, Control};
use crate::gossip::keyring::{Change, Key, KeyId};
use crate::gossip::keys::{Lack, Need, Refused, Report};

/// How long the peers have to become ready for a change, and to take it.
pub(super) const WAIT: Duration = Duration::from_secs(5);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// What can be asked of an agent's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum KeyRequest {
    /// Say who has which.
    List,
    /// Let one more open.
    Add(Secret),
    /// Seal with that one.
    Use {
        /// Which.
        id: KeyId,
        /// Although some agent does not have it.
        force: bool,
    },
    /// Do not open with that one any more.
    Remove {
        /// Which.
        id: KeyId,
        /// Although some agent may have no other.
        force: bool,
    },
}

/// A key as a line of a key file. Not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// That key.
    pub(crate) fn of(key: &Key) -> Self {
        Self(key.line().to_string())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        drop(Zeroizing::new(std::mem::take(&mut self.0)));
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who has which keys, after what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Everybody's keys.
    pub report: Report,
    /// Who does not have what was asked for.
    pub lacking: Vec<Lack>,
}

impl Control {
    pub(super) async fn answer_keys(&self, request: KeyRequest) -> Answer {
        match self.perform_keys(request).await {
            Ok((text, outcome)) => Answer { done: true, text, keys: Some(outcome) },
            Err(refused) => Answer { done: false, text: refused.to_string(), keys: None },
        }
    }

    async fn perform_keys(&self, request: KeyRequest) -> Result<(String, Outcome), Refused> {
        let (change, force, need, text) = match request {
            KeyRequest::List => {
                let report = self.cluster.key_report().await?;
                return Ok((String::new(), Outcome { report, lacking: Vec::new() }));
            }
            KeyRequest::Add(secret) => {
                let key = Key::parse(&secret.0).ok_or(Refused::NoKey)?;
                let id = key.id();
                (Change::Add(key), false, Need::Key(id), format!("the key {id} opens"))
            }
            KeyRequest::Use { id, force } => {
                (Change::Use(id), force, Need::Newest, format!("the key {id} seals"))
            }
            KeyRequest::Remove { id, force } => {
                (Change::Remove(id), force, Need::Newest, format!("the key {id} is removed"))
            }
        };
        let until = Instant::now() + WAIT;
        self.change(&change, force, until).await?;
        Ok((text, self.wait_for(need, until).await?))
    }

    /// Changes the keys, if need be when all are ready for it who are about to be.
    async fn change(&self, change: &Change, force: bool, until: Instant) -> Result<(), Refused> {
        loop {
            match self.cluster.change_keys(change.clone(), force).await {
                Err(Refused::Unsafe(unready)) if unready.may_pass() && Instant::now() < until => {
                    sleep(LOOK).await;
                }
                result => return result,
            }
        }
    }

    /// Waits until all have it who are about to.
    async fn wait_for(&self, need: Need, until: Instant) -> Result<Outcome, Refused> {
        loop {
            let report = self.cluster.key_report().await?;
            let lacking = report.lacking(need);
            if Instant::now() >= until || !lacking.iter().any(|lack| lack.soon) {
                return Ok(Outcome { report, lacking });
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_does_not_print_its_key() {
        let key = Key::generate();
        let request = KeyRequest::Add(Secret::of(&key));
        assert!(!format!("{request:?}").contains(&**key.line()));
        let said = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<KeyRequest>(&said).unwrap(), request);
    }
}
