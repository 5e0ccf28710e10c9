//! The table of paths: what answers at each, and who may ask. Every error is JSON, [`report::ErrorReport`].

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::access::{self, Access};
use super::{
    Ops, config, events, explain, history, hosts, import, invite, keys, leave, matrix, page, ready, report,
    status, takeover,
};

/// Who may ask for a path.
enum Open {
    /// Everybody: a probe or a scraper may use any name of this host.
    Wide,
    /// Only whom [`access::admit`] lets through: the answer names tunnels, and a tunnel's id lets its holder attach.
    Named,
    /// Only requests on the control socket, which the agent's own user alone can open: they change the agent, or tell
    /// which keys it has, how it is configured and what it logged.
    BySocket,
}

/// What is served on the control socket, on the admin listener, or on the listener for metrics.
pub(super) fn routes(ops: Arc<Ops>, access: &Access) -> Router {
    use Open::{BySocket, Named, Wide};
    let is_control = matches!(access, Access::Control);
    let asked = (ops.clone(), access.clone());
    let table = [
        ("/", Named, get(page::page)),
        ("/status.json", Named, get(status::status_json)),
        ("/services.json", Named, get(status::services_json)),
        ("/history.json", Named, get(history::history_json)),
        ("/hosts.json", Named, get(hosts::hosts_json)),
        ("/explain.json", Named, get(explain::explain_json)),
        ("/matrix.json", Named, get(matrix::matrix_json)),
        ("/events", Named, get(events::events)),
        ("/livez", Wide, get(async || "ok\n")),
        ("/readyz", Wide, get(ready::readyz)),
        ("/metrics", Wide, get(status::metrics)),
        ("/keys.json", BySocket, get(keys::list)),
        ("/keys/add", BySocket, post(keys::add)),
        ("/keys/use", BySocket, post(keys::seal)),
        ("/keys/remove", BySocket, post(keys::remove)),
        ("/config.json", BySocket, get(config::config_json)),
        ("/log", BySocket, get(config::log)),
        ("/invite", BySocket, post(invite::invite)),
        ("/import", BySocket, post(import::import)),
        ("/forget", BySocket, post(leave::forget)),
        ("/leave", BySocket, post(leave::leave)),
        ("/drain", BySocket, post(leave::drain)),
        ("/undrain", BySocket, post(leave::undrain)),
        ("/take-over", BySocket, post(takeover::successor::take_over)),
    ];
    let is_there = |open: &Open| matches!(open, Wide) || !matches!(access, Access::Metrics);
    let table: Vec<_> = table.into_iter().filter(|(_, open, _)| is_there(open)).collect();
    let paths = table.iter().map(|(path, ..)| *path).collect::<Vec<_>>().join(", ");
    let text = format!("no such path: there are {paths}; gost's plugins are on another port");
    let nowhere = Failure(StatusCode::NOT_FOUND, text);
    let mut router = Router::new();
    for (path, open, answer) in table {
        let answer = match open {
            BySocket if !is_control => any(only_by_socket),
            BySocket => {
                let answer = answer.fallback(wrong_method);
                answer.layer(from_fn_with_state(ops.clone(), access::admit_change))
            }
            Named => {
                let answer = answer.fallback(wrong_method);
                answer.layer(from_fn_with_state(asked.clone(), access::admit))
            }
            Wide => answer.fallback(wrong_method),
        };
        router = router.route(path, answer);
    }
    router.fallback(move || async { nowhere }).with_state(ops)
}

async fn only_by_socket(uri: Uri) -> Failure {
    let text = "is on the control socket only, which the agent's own user can open: use the verb of gossd, or \
                `curl --unix-socket`";
    Failure(StatusCode::FORBIDDEN, format!("{} {text}", uri.path()))
}

async fn wrong_method(uri: Uri) -> Failure {
    Failure(StatusCode::METHOD_NOT_ALLOWED, format!("{} has another method", uri.path()))
}

/// What handlers answer from.
pub(super) type Shared = State<Arc<Ops>>;
/// A handler's answer.
pub(super) type Answered = Result<Response, Failure>;

/// Why a request was not answered, or not obeyed.
#[derive(Clone, Debug)]
pub(super) struct Failure(
    /// The status of the answer.
    pub(super) StatusCode,
    /// For the operator.
    pub(super) String,
);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, json(&report::ErrorReport { error: self.1 })).into_response()
    }
}

/// The query of a request.
pub(super) struct Params<T>(
    /// Its fields.
    pub(super) T,
);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| Failure(error.status(), error.body_text()))
    }
}

/// An answer about this moment, which no cache may keep.
pub(super) fn json<T: Serialize>(answer: &T) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}
