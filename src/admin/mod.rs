//! The admin listener: read-only answers about this agent for operators, probes and metrics. It changes nothing,
//! and no plugin call waits for it. Knows neither plugin nor gossip: what it tells of them it is given.

mod events;
mod explain;
mod page;
mod ready;
pub(crate) mod report;
mod server;
mod status;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use self::ready::Readiness;
use self::report::{Host, Services, Status};
use crate::agent::Agent;
use gossd_core::agent::DRAINING;
use gossd_core::record::AgentName;

pub(crate) use self::server::serve;

/// Tunnels in one answer, if the question says nothing else.
pub(crate) const LIMIT: usize = 100;
/// Tunnels in one answer at most.
pub(crate) const MAX_LIMIT: usize = 10_000;

/// Finds the tunnel of a host name, and how it comes to it.
pub(crate) type Lookup = Box<dyn Fn(&str) -> Option<(Host, String)> + Send + Sync>;

/// What an agent knows that is not the agent's own.
pub(crate) struct Outside {
    /// The cluster's id.
    pub cluster: String,
    /// Where peers reach its gossip.
    pub address: SocketAddr,
    /// Whether there are peers to join.
    pub joins: bool,
    /// The peers that are heard, and where.
    pub peers: Box<dyn Fn() -> HashMap<AgentName, SocketAddr> + Send + Sync>,
    /// The tunnels of host names.
    pub host: Lookup,
    /// The file of host names, if there is one.
    pub ingress_file: Box<dyn Fn() -> Option<report::IngressFile> + Send + Sync>,
    /// Every module's metrics.
    pub metrics: Registry,
}

/// What the admin listener answers from.
#[derive(Clone)]
pub(crate) struct Admin {
    agent: Agent,
    outside: Arc<Outside>,
    readiness: Arc<Readiness>,
}

impl Admin {
    /// Answers for this agent.
    pub(crate) fn new(agent: Agent, outside: Outside) -> Self {
        let readiness = Arc::new(Readiness::new(outside.joins));
        Self { agent, outside: Arc::new(outside), readiness }
    }

    /// The report, as of now.
    pub(crate) fn status(&self) -> Status {
        let view = self.agent.view();
        let addresses = (self.outside.peers)();
        let file = (self.outside.ingress_file)();
        let unready = self.readiness.reasons(&view, addresses.len(), file.as_ref());
        status::status(self.agent.owner(), &view, &self.outside, &addresses, file, unready)
    }
}

/// What is served.
fn routes(admin: Admin) -> Router {
    // What names tunnels is for pages of this host only, whatever name leads a browser to it: a tunnel's id lets
    // its owner attach.
    let told = Router::new()
        .route("/", get(page::page))
        .route("/status.json", get(status_json))
        .route("/services.json", get(services_json))
        .route("/explain.json", get(explain::explain_json))
        .route("/events", get(events::events))
        .layer(from_fn(server::only_by_address));
    let probes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    told.merge(probes).fallback(nowhere).with_state(admin)
}

async fn status_json(State(admin): State<Admin>) -> Response {
    json(&admin.status())
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    search: String,
    limit: Option<usize>,
}

async fn services_json(State(admin): State<Admin>, Query(query): Query<Search>) -> Response {
    let limit = query.limit.unwrap_or(LIMIT).min(MAX_LIMIT);
    let (total, tunnels) = admin.agent.tunnels(&query.search, limit);
    json(&Services { total, services: tunnels.iter().map(status::service).collect() })
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let peers = (admin.outside.peers)().len();
    let view = admin.agent.view();
    let file = (admin.outside.ingress_file)();
    let reasons = admin.readiness.reasons(&view, peers, file.as_ref());
    // Draining is no reason: this host goes on using the agent.
    let draining = if view.draining { format!("draining: {DRAINING}\n") } else { String::new() };
    if reasons.is_empty() {
        return (StatusCode::OK, format!("ready\n{draining}"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n" + &draining)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    const TYPE: (HeaderName, &str) =
        (header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.outside.metrics) {
        Ok(()) => ([TYPE], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn nowhere() -> (StatusCode, &'static str) {
    let text = "nothing is served there: see /, /status.json, /services.json, /explain.json, /events, /metrics, \
                /livez and /readyz; gost's plugins are on another port\n";
    (StatusCode::NOT_FOUND, text)
}

/// Never from a cache: it is about now.
fn json<T: serde::Serialize>(answer: &T) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}
