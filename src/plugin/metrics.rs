//! The plugin's figures: its calls by verb, protocol and result with the time that each took, and the connections
//! that were closed for their callers' faults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::adapter::Adapter;
use super::bounds::{Closed, Counters};
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
    pub(super) fn of(adapter: &dyn Adapter, request: &Request) -> Self {
        let verb = adapter.verb(request.method(), request.uri().path()).unwrap_or("other");
        Self { verb, protocol: adapter.word(), result: "" }
    }

    pub(super) fn with(self, result: &'static str) -> Self {
        Self { result, ..self }
    }
}
