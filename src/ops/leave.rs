//! `/leave`, `/drain`, `/undrain`: hides this agent's records at the peers, or shows them again. `/forget`: a dead peer is
//! gone.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::time::timeout;

use super::Ops;
use super::report::DoneReport;
use super::routes::{Answered, Failure, Params, Shared, json};
use super::server::Then;
use crate::agent::what_draining_means;
use gossd_core::link::NotBuried;
use gossd_core::record::AgentName;
use gossd_core::slot::Status;

/// How long a change of the status waits for the peers' acknowledgements.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) async fn leave(State(ops): Shared, Extension(then): Extension<Then>) -> Response {
    // Set first: an agent that has told its peers must stop, even if the client does not wait for the answer.
    tracing::info!("told to leave: peers hide our records, and this agent stops");
    let leaving = ops.clone();
    let _is_set = then.try_send(Box::pin(async move { leaving.left.notify_one() }));
    let answer =
        ops.done(ops.publish(Status::Left).await, "left: peers have hidden our records, and the agent stops");
    // The process stops when the connection has ended.
    ([(header::CONNECTION, "close")], answer).into_response()
}

pub(super) async fn drain(State(ops): Shared) -> Response {
    tracing::warn!("told to drain: {}", what_draining_means());
    let is_acknowledged = ops.publish(Status::Draining).await;
    let is_kept = ops.agent.has_journal() && ops.agent.journal_problem().is_none();
    let lost = if is_kept { "" } else { "; it is in no journal, so a restart undoes it" };
    let text = format!("draining: peers have hidden our records; this host still uses them{lost}");
    ops.done(is_acknowledged, &text)
}

pub(super) async fn undrain(State(ops): Shared) -> Response {
    tracing::info!("told to undo the drain: peers list our records again");
    ops.done(ops.publish(Status::Ready).await, "not draining: peers list our records again")
}

/// Which peer is forgotten.
#[derive(Debug, Deserialize)]
pub(super) struct Dead {
    name: String,
}

pub(super) async fn forget(State(ops): Shared, Params(Dead { name }): Params<Dead>) -> Answered {
    let agent: AgentName =
        name.parse().map_err(|_| Failure(StatusCode::BAD_REQUEST, "that is no agent's name".into()))?;
    let was_remembered = ops.cluster.forget_remembered(&agent);
    match ops.cluster.bury(agent).await {
        Err(NotBuried::Unknown) if was_remembered => {}
        Err(refused) => return Err(Failure(StatusCode::CONFLICT, format!("{name}: {refused}"))),
        Ok(()) => {}
    }
    tracing::info!(peer = name, "told by gossd forget that it will not come back");
    let text = format!(
        "{name} is forgotten: its records are gone here and at every peer as soon as it is dead from there"
    );
    Ok(json(&DoneReport { done: true, text }))
}

impl Ops {
    /// Resolves when an operator has made the agent leave.
    pub async fn left(&self) {
        self.left.notified().await;
    }

    /// Tells the peers that the agent leaves: they hide its records at once. True if all that are heard acknowledged it.
    pub async fn say_goodbye(&self) -> bool {
        self.publish(Status::Left).await
    }

    fn done(&self, is_acknowledged: bool, text: &str) -> Response {
        let rest = if self.cluster.watch_peers().borrow().is_empty() {
            " (no peer is heard that could acknowledge it)"
        } else if is_acknowledged {
            ""
        } else {
            " (not every peer has acknowledged it yet)"
        };
        json(&DoneReport { done: true, text: format!("{text}{rest}") })
    }

    async fn publish(&self, status: Status) -> bool {
        let acknowledged = async {
            self.agent.say(status).await;
            self.cluster.settled().await;
        };
        timeout(GOODBYE, acknowledged).await.is_ok()
    }
}
