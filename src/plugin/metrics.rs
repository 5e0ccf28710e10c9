//! The plugin's metrics: the duration of calls by verb, protocol and result, and the connections that were closed
//! through their callers' fault.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::adapter::Adapter;
use super::bounds::{Closed, ClosedCounts};
use super::call::{Outcome, Verb};
use crate::metrics::{CALL_BUCKETS, Sheet};
use crate::rejected::{Reason, RejectedCounts};

/// The plugin's counters; clones share them.
#[derive(Clone, Debug)]
pub struct Meter {
    calls: Family<Labels, Histogram, fn() -> Histogram>,
    /// All calls, by the buckets, and those above them.
    counts: Arc<[AtomicU64; CALL_BUCKETS.len() + 1]>,
    /// Connections that were closed, by reason.
    pub closed: Arc<ClosedCounts>,
    /// Calls that web pages made, by how they were recognized.
    pub(crate) rejected: Arc<RejectedCounts>,
}

/// The labels of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    verb: &'static str,
    protocol: &'static str,
    result: &'static str,
}

impl Default for Meter {
    fn default() -> Self {
        let calls = Family::new_with_constructor((|| Histogram::new(CALL_BUCKETS)) as fn() -> Histogram);
        let counts = Arc::new([const { AtomicU64::new(0) }; CALL_BUCKETS.len() + 1]);
        Self { calls, counts, closed: Arc::default(), rejected: Arc::default() }
    }
}

impl Meter {
    pub(super) fn observe(
        &self,
        adapter: &dyn Adapter,
        verb: Option<Verb>,
        outcome: Outcome,
        took: Duration,
    ) {
        let verb = verb.unwrap_or(Verb::Other).word();
        let labels = Labels { verb, protocol: adapter.word(), result: outcome.word() };
        let seconds = took.as_secs_f64();
        self.calls.get_or_create(&labels).observe(seconds);
        self.counts[CALL_BUCKETS.partition_point(|bound| *bound < seconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls were in each of [`CALL_BUCKETS`] so far, and how many above them.
    pub(crate) fn counts(&self) -> [u64; CALL_BUCKETS.len() + 1] {
        std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }
}

impl Collector for Meter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Duration of plugin calls, from the request's head to the answer";
        let metric =
            encoder.encode_descriptor("gossd_plugin_call_seconds", help, None, MetricType::Histogram)?;
        self.calls.encode(metric)?;
        let closed = Closed::ALL.map(|(why, word)| ([("reason", word)], self.closed.closed(why)));
        let help = "Plugin connections closed through their callers' fault";
        let mut sheet = Sheet::new(encoder);
        sheet.counts("gossd_plugin_connections_closed", help, closed)?;
        let rejected = self.rejected.labelled(|why| !matches!(why, Reason::Open | Reason::Streams));
        let help = "Plugin calls refused, because a web page may have made them, or gost has no token or the wrong address";
        sheet.counts("gossd_plugin_rejected", help, rejected)
    }
}
