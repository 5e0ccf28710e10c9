//! How the modules' numbers become Prometheus metrics: at each scrape, every module writes its own on a [`Sheet`].
//! Knows none of the modules.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use procfs::process::{LimitValue, Process};
use procfs::{page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

use crate::wall_clock;

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

    /// A counter of what is no whole number.
    pub(crate) fn total(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, u64>(&value, None)
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

    /// A histogram.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, values: &Histogram) -> fmt::Result {
        values.encode(self.0.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }
}

/// The runtimes of an agent, as a source of metrics.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes(Vec<tokio::runtime::Handle>);

impl Runtimes {
    /// The runtime of the caller, and that of gost's calls if it is another.
    pub(crate) fn current_and(calls: Option<tokio::runtime::Handle>) -> Self {
        Self(std::iter::once(tokio::runtime::Handle::current()).chain(calls).collect())
    }
}

impl Collector for Runtimes {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tasks = self.0.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        Sheet::new(encoder).level(
            "gossd_tasks",
            "Running tasks: some, and some for each connection",
            amount(tasks),
        )
    }
}

/// The process, as a source of the metrics that every Prometheus client has.
#[derive(Clone, Debug)]
pub(crate) struct ProcessMetrics {
    started: SystemTime,
}

impl ProcessMetrics {
    /// Of this process.
    pub(crate) fn of_this_one() -> Self {
        Self { started: wall_clock::now() }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        sheet.level(
            "process_start_time_seconds",
            "Start of the process, since 1970",
            started.as_secs_f64(),
        )?;
        // What cannot be read is left out.
        let Ok(process) = Process::myself() else { return Ok(()) };
        if let Ok(stat) = process.stat() {
            let ticks = amount(usize::try_from(stat.utime + stat.stime).unwrap_or_default());
            let seconds = ticks / amount(usize::try_from(ticks_per_second()).unwrap_or(1));
            sheet.total("process_cpu_seconds", "Processor time, in user and system mode", seconds)?;
            let resident = usize::try_from(stat.rss * page_size()).unwrap_or_default();
            sheet.level("process_resident_memory_bytes", "Resident memory", amount(resident))?;
            let mapped = usize::try_from(stat.vsize).unwrap_or_default();
            sheet.level("process_virtual_memory_bytes", "Virtual memory", amount(mapped))?;
        }
        if let Ok(open) = process.fd_count() {
            sheet.level("process_open_fds", "Open file descriptors", amount(open))?;
        }
        if let Ok(limits) = process.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            let most = usize::try_from(most).unwrap_or_default();
            sheet.level("process_max_fds", "Most file descriptors", amount(most))?;
        }
        Ok(())
    }
}

/// The same in the classic text format of Prometheus, for a reader that does not take `OpenMetrics`: there, the type line of a
/// counter has the name of its samples, and nothing marks the end.
pub(crate) fn classic(open_metrics: &str) -> String {
    let types = open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: BTreeMap<&str, &str> = types.collect();
    let mut text = String::with_capacity(open_metrics.len() + 1_024);
    for line in open_metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let comment =
            ["# TYPE ", "# HELP "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        let Some((mark, rest)) = comment else {
            text = text + line + "\n";
            continue;
        };
        let (name, what) = rest.split_once(' ').unwrap_or((rest, ""));
        let suffix = match types.get(name) {
            Some(&"counter") => "_total",
            Some(&"info") => "_info",
            _ => "",
        };
        let what = if mark == "# TYPE " && what == "info" { "gauge" } else { what };
        text = text + mark + name + suffix + " " + what + "\n";
    }
    text
}

/// A count as the value of a gauge: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of records and bytes are far smaller")]
pub(crate) fn amount(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_format_names_counters_by_their_samples() {
        let open = "# HELP x_y Times\n# TYPE x_y counter\nx_y_total{a=\"b\"} 3\n# TYPE z gauge\nz 1.5\n\
                    # HELP i Version\n# TYPE i info\ni_info{version=\"1\"} 1\n# EOF\n";
        let want = "# HELP x_y_total Times\n# TYPE x_y_total counter\nx_y_total{a=\"b\"} 3\n# TYPE z gauge\nz 1.5\n\
                    # HELP i_info Version\n# TYPE i_info gauge\ni_info{version=\"1\"} 1\n";
        assert_eq!(classic(open), want);
    }
}
