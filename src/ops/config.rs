//! `/config.json`, `/log`: the flags that are in force, and the newest lines of the log; for `gossd debug`.

use std::sync::PoisonError;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::report::ConfigReport;
use super::routes::{Shared, json};

pub(super) async fn config_json(State(ops): Shared) -> Response {
    let flags = ops.flags.lock().unwrap_or_else(PoisonError::into_inner).clone();
    json(&ConfigReport { flags })
}

/// A JSON object a line, whatever `--log-format` is.
pub(super) async fn log(State(ops): Shared) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, ops.outside.log.text()).into_response()
}
