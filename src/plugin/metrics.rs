//! The plugin's figures: its calls by verb, protocol and result with the time that each took, and the connections
//! that were closed for their callers' faults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::bounds::{Closed, Counters};
use super::{grpc, http};
use crate::metrics::{CALL_BUCKETS, Sheet};

/// What the plugin measures; clones share it.
#[derive(Clone, Debug)]
pub struct Meter {
    calls: Family<Labels, Histogram, fn() -> Histogram>,
    /// Connections that were closed.
    pub closed: Arc<Counters>,
}

/// A kind of call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    verb: &'static str,
    protocol: &'static str,
    result: &'static str,
}

/// An answer says with it that it is about an id that nobody knows, where its protocol's own words do not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unknown;

impl Default for Meter {
    fn default() -> Self {
        let calls = Family::new_with_constructor((|| Histogram::new(CALL_BUCKETS)) as fn() -> Histogram);
        Self { calls, closed: Arc::default() }
    }
}

impl Meter {
    pub(super) fn observe(&self, labels: &Labels, took: Duration) {
        self.calls.get_or_create(labels).observe(took.as_secs_f64());
    }
}

impl Collector for Meter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Plugin calls, and the time from their head to their answer";
        let metric =
            encoder.encode_descriptor("gossd_plugin_call_seconds", help, None, MetricType::Histogram)?;
        self.calls.encode(metric)?;
        let closed = Closed::ALL.map(|(why, word)| ([("reason", word)], self.closed.closed(why)));
        let help = "Plugin connections closed for their callers' faults";
        Sheet::new(encoder).counts("gossd_plugin_connections_closed", help, closed)
    }
}

impl Labels {
    /// Of a call whose result is not known yet.
    pub(super) fn of(request: &Request) -> Self {
        let (protocol, path) = (protocol(request), request.uri().path());
        let verb = match (request.method().as_str(), path) {
            (_, grpc) if protocol == "grpc" => grpc_verb(grpc),
            ("POST", http::PATH) => "register",
            ("PUT", http::PATH) => "renew",
            ("DELETE", http::PATH) => "deregister",
            ("GET", http::PATH) => "get",
            ("GET", http::INGRESS_PATH) => "get_rule",
            ("PUT", http::INGRESS_PATH) => "set_rule",
            _ => "other",
        };
        Self { verb, protocol, result: "" }
    }

    pub(super) fn with(self, response: &Response) -> Self {
        Self { result: result(response), ..self }
    }
}

fn protocol(request: &Request) -> &'static str {
    if grpc::is_call(request.headers()) { "grpc" } else { "http" }
}

fn grpc_verb(path: &str) -> &'static str {
    match path {
        "/proto.SD/Register" => "register",
        "/proto.SD/Renew" => "renew",
        "/proto.SD/Deregister" => "deregister",
        "/proto.SD/Get" => "get",
        "/proto.Ingress/GetRule" => "get_rule",
        "/proto.Ingress/SetRule" => "set_rule",
        _ => "other",
    }
}

/// One word for both protocols' answers. A gRPC status of an answer without a message stands in its head.
fn result(response: &Response) -> &'static str {
    let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    match (grpc, response.status()) {
        _ if response.extensions().get::<Unknown>().is_some() => "unknown",
        (None | Some("0"), status) if status.is_success() => "ok",
        (Some("5"), _) | (None, StatusCode::NOT_FOUND) => "unknown",
        (Some("8"), _) | (None, StatusCode::TOO_MANY_REQUESTS) => "full",
        (Some("16"), _) | (None, StatusCode::UNAUTHORIZED) => "unauthenticated",
        (Some("4"), _) | (None, StatusCode::REQUEST_TIMEOUT) => "slow",
        _ => "refused",
    }
}
