//! How the modules' numbers become Prometheus metrics: at each scrape, every module writes its own on a [`Sheet`].
//! Knows none of the modules.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

/// Seconds: from the time of a call in memory to that on a starved host.
pub(crate) const CALL_BUCKETS: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0];
/// Seconds: from loopback to a repair over an ocean.
pub(crate) const LAG_BUCKETS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// A scrape's output, to which a module writes its metrics.
pub(crate) struct Sheet<'a>(DescriptorEncoder<'a>);

impl<'a> Sheet<'a> {
    /// Writes to the library's encoder.
    pub(crate) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A counter. The library adds `_total` to the name.
    pub(crate) fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    pub(crate) fn level(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A counter with a value for each set of labels.
    pub(crate) fn counts<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A gauge with a value for each set of labels.
    pub(crate) fn levels<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A histogram for each set of labels.
    pub(crate) fn histogram<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in values {
            histogram.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The tokio runtime, as a source of metrics.
#[derive(Clone, Debug)]
pub(crate) struct Runtime(tokio::runtime::Handle);

impl Runtime {
    /// The runtime of the caller.
    pub(crate) fn current() -> Self {
        Self(tokio::runtime::Handle::current())
    }
}

impl Collector for Runtime {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tasks = self.0.metrics().num_alive_tasks();
        Sheet::new(encoder).level(
            "gossd_tasks",
            "Running tasks: some, and some for each connection",
            amount(tasks),
        )
    }
}

/// A count as the value of a gauge: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of records and bytes are far smaller")]
pub(crate) fn amount(count: usize) -> f64 {
    count as f64
}
