//! `/import`: records and host names that another store kept, for this agent.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

use super::report::ImportOrder;
use super::routes::{Answered, Failure, Shared, json};

pub(super) async fn import(State(ops): Shared, body: Result<Bytes, BytesRejection>) -> Answered {
    let body = body.map_err(|error| Failure(error.status(), error.body_text()))?;
    let order: ImportOrder = serde_json::from_slice(&body)
        .map_err(|error| Failure(StatusCode::BAD_REQUEST, format!("that is nothing to import: {error}")))?;
    let report = (ops.outside.import)(&order);
    if !order.dry_run {
        let taken = report.records.iter().chain(&report.hosts).filter(|one| one.is_new()).count();
        tracing::info!(taken, "told to import what another store kept of the gosts of this host");
    }
    Ok(json(&report))
}

impl super::report::ImportedOne {
    /// Whether it was not known before.
    pub(crate) fn is_new(&self) -> bool {
        self.state == super::report::ImportState::Taken
    }
}
