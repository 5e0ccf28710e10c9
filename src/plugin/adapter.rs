//! The seam between the meaning of a call and its encoding: each protocol is an adapter, and no other part of the
//! plugin knows a protocol.

use async_trait::async_trait;
use axum::Router;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;

use super::{Plugin, grpc, http};

/// The protocols in which gost calls, most specific first: the last one takes every other call.
const ADAPTERS: [&dyn Adapter; 2] = [&grpc::Grpc, &http::Http];

/// A protocol.
#[async_trait]
pub(super) trait Adapter: Sync {
    /// The protocol's name in metrics.
    fn word(&self) -> &'static str;

    /// Whether a call is in this protocol, whatever its path.
    fn takes(&self, headers: &HeaderMap) -> bool;

    /// The routes of this protocol; other calls are [turned away](Self::turn_away).
    async fn routes(&self, plugin: &Plugin) -> Router;

    /// The verb of a call, as metrics name it.
    fn verb(&self, method: &Method, path: &str) -> Option<&'static str>;

    /// The result of a call, as metrics name it.
    fn outcome(&self, response: &Response) -> &'static str;

    /// Whether a call was served and not refused: a caller that was served once is not the first to lose its
    /// connection.
    fn is_served(&self, response: &Response) -> bool;

    /// The answer to a call that no plugin answers.
    fn turn_away(&self, why: Unserved<'_>) -> Response;
}

/// Why no plugin answers a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unserved<'a> {
    /// The agent has not read its journal yet.
    Starting,
    /// The request body did not arrive in time.
    TooSlow,
    /// No plugin is at this path.
    Elsewhere(&'a Uri),
    /// It is no call of gost's but a web page's.
    WebPage(Forged),
}

/// How a web page's request was recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forged {
    /// By headers that only browsers send.
    Browser,
    /// By a host that is not this one.
    Host,
}

impl Forged {
    /// For the caller, who may be an operator.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Browser => "a browser sent this, and gost's plugins are for gost: web pages are refused",
            Self::Host => {
                "the host of this URL is not known to be this one: use an IP address, localhost or a name without a dot, \
                 set --plugin-host on the agent, or use tokens"
            }
        }
    }
}

/// The protocol of a call.
pub(super) fn of(headers: &HeaderMap) -> &'static dyn Adapter {
    let [others @ .., last] = &ADAPTERS;
    *others.iter().find(|adapter| adapter.takes(headers)).unwrap_or(last)
}

/// The routes of all protocols.
pub(super) async fn routes(plugin: &Plugin) -> Router {
    let mut routes = Router::new();
    for adapter in ADAPTERS {
        routes = routes.merge(adapter.routes(plugin).await);
    }
    routes
}
