//! The seam between what a call means and how it is spelled: each protocol is an adapter, and the rest of the plugin knows
//! none of them.

use async_trait::async_trait;
use axum::Router;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;

use super::{Plugin, grpc, http};

/// The protocols in which gost calls. What no other takes is the last one's.
const ADAPTERS: [&dyn Adapter; 2] = [&grpc::Grpc, &http::Http];

/// A protocol.
#[async_trait]
pub(super) trait Adapter: Sync {
    /// Its name in metrics.
    fn word(&self) -> &'static str;

    /// Whether a call is in it, whatever its path.
    fn takes(&self, headers: &HeaderMap) -> bool;

    /// What is served in it; other calls are [turned away](Self::turn_away).
    async fn routes(&self, plugin: &Plugin) -> Router;

    /// What a call asks for, as metrics name it.
    fn verb(&self, method: &Method, path: &str) -> Option<&'static str>;

    /// What came of a call, as metrics name it.
    fn outcome(&self, response: &Response) -> &'static str;

    /// Whether a call was not refused: then whoever called is of use to us.
    fn is_served(&self, response: &Response) -> bool;

    /// The answer to a call that no plugin answers.
    fn turn_away(&self, why: Unserved<'_>) -> Response;
}

/// Why no plugin answers a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unserved<'a> {
    /// The agent has not read its journal yet.
    Starting,
    /// The body does not arrive.
    TooSlow,
    /// There is none at this path.
    Elsewhere(&'a Uri),
}

/// The protocol of a call.
pub(super) fn of(headers: &HeaderMap) -> &'static dyn Adapter {
    let [others @ .., last] = &ADAPTERS;
    *others.iter().find(|adapter| adapter.takes(headers)).unwrap_or(last)
}

/// What is served in all protocols.
pub(super) async fn routes(plugin: &Plugin) -> Router {
    let mut routes = Router::new();
    for adapter in ADAPTERS {
        routes = routes.merge(adapter.routes(plugin).await);
    }
    routes
}
