//! `/keys.json` and `/keys/…`: the keys of the gossip, changed at this agent, and a moment's wait until every other one
//! has them too.

use std::str;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::Ops;
use super::report::KeyChange;
use super::routes::{Answered, Failure, Params, Shared, json};
use crate::secret_file;
use gossd_core::link::keyring::{Key, KeyId, KeyringChange};
use gossd_core::link::keys::{KeysRefused, Need};

/// How long the peers have to become ready for a change, and to take it.
const WAIT: Duration = Duration::from_secs(5);
/// How often the peers' state is read meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Longest line with a key.
const MAX_LINE: usize = 4_096;
/// How long that line may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which key, and whether it is changed although an agent is not ready for that.
#[derive(Debug, Deserialize)]
pub(super) struct KeyQuery {
    id: KeyId,
    #[serde(default)]
    force: bool,
}

pub(super) async fn list(State(ops): Shared) -> Answered {
    Ok(json(&ops.cluster.key_report().await?))
}

/// Takes a line of a key file as the body.
pub(super) async fn add(State(ops): Shared, body: Body) -> Answered {
    let line = timeout(PATIENCE, to_bytes(body, MAX_LINE)).await.ok().and_then(Result::ok);
    let key =
        line.as_deref().and_then(|line| Key::parse(str::from_utf8(line).ok()?)).ok_or(KeysRefused::NoKey)?;
    if line.as_deref().is_some_and(secret_file::is_guessable) {
        let text = "everybody can guess this key, which is one byte repeated: `gossd keygen` makes one";
        return Err(Failure(StatusCode::CONFLICT, text.into()));
    }
    let id = key.id();
    ops.change_keys(&KeyringChange::Add(key), false, Need::Key(id), format!("the key {id} opens")).await
}

pub(super) async fn seal(State(ops): Shared, Params(KeyQuery { id, force }): Params<KeyQuery>) -> Answered {
    ops.change_keys(&KeyringChange::Use(id), force, Need::Newest, format!("the key {id} seals")).await
}

pub(super) async fn remove(State(ops): Shared, Params(KeyQuery { id, force }): Params<KeyQuery>) -> Answered {
    ops.change_keys(&KeyringChange::Remove(id), force, Need::Newest, format!("the key {id} is removed")).await
}

impl Ops {
    /// Changes the keys; if that is unsafe only for a moment, at the end of it.
    async fn change_keys(&self, change: &KeyringChange, force: bool, need: Need, text: String) -> Answered {
        let until = Instant::now() + WAIT;
        while let Err(refused) = self.cluster.change_keys(change.clone(), force).await {
            let may_pass = matches!(&refused, KeysRefused::Unsafe(unready) if unready.may_pass());
            if !may_pass || Instant::now() >= until {
                return Err(refused.into());
            }
            sleep(LOOK).await;
        }
        tracing::info!(force, "told by gossd keys: {text}");
        loop {
            let report = self.cluster.key_report().await?;
            let lacking = report.lacking(need);
            if Instant::now() >= until || !lacking.iter().any(|lack| lack.soon) {
                return Ok(json(&KeyChange { text, report, lacking }));
            }
            sleep(LOOK).await;
        }
    }
}

impl From<KeysRefused> for Failure {
    fn from(refused: KeysRefused) -> Self {
        Self(StatusCode::CONFLICT, refused.to_string())
    }
}
