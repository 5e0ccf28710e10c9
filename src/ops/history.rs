//! `/history.json`: how it went in the last ten minutes, for the page's small curves. A sample every five seconds, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use tokio::time::{MissedTickBehavior, interval};

use super::Ops;
use super::report::HistoryReport;
use super::routes::{Shared, json};
use super::status::millis;
use crate::metrics::CALL_BUCKETS;

/// Between two samples.
const STEP: Duration = Duration::from_secs(5);
/// Samples that are kept: ten minutes of them.
const KEPT: usize = 120;

/// Plugin calls since the start: how many took no longer than each of [`CALL_BUCKETS`], but longer than the one before; and
/// those that took longer than all.
pub(crate) type CallCounts = [u64; CALL_BUCKETS.len() + 1];

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    calls: f64,
    p99_ms: Option<f64>,
    changes: f64,
    rtt_ms: Option<f64>,
}

/// The last samples.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

pub(super) async fn history_json(State(ops): Shared) -> Response {
    json(&ops.history.report())
}

impl History {
    fn push(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn report(&self) -> HistoryReport {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        HistoryReport {
            step_seconds: STEP.as_secs_f64(),
            calls_per_second: samples.iter().map(|sample| sample.calls).collect(),
            p99_ms: samples.iter().map(|sample| sample.p99_ms).collect(),
            changes_per_second: samples.iter().map(|sample| sample.changes).collect(),
            rtt_ms: samples.iter().map(|sample| sample.rtt_ms).collect(),
        }
    }
}

/// Takes samples for ever.
pub(crate) async fn record(ops: Arc<Ops>) -> anyhow::Result<()> {
    let mut ticks = interval(STEP);
    // A pause of this process is a gap, and no burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut calls, mut changes) = ((ops.outside.calls)(), ops.agent.view().last_event);
    loop {
        ticks.tick().await;
        let (now, view) = ((ops.outside.calls)(), ops.agent.view());
        let since: CallCounts = std::array::from_fn(|at| now[at].saturating_sub(calls[at]));
        let trips = view.members.iter().skip(1).filter(|member| member.standing.is_alive());
        let trips: Vec<f64> = trips.filter_map(|member| member.trip.map(millis)).collect();
        ops.history.push(Sample {
            calls: rate(since.iter().sum()),
            p99_ms: p99(&since),
            changes: rate(view.last_event.saturating_sub(changes)),
            rtt_ms: median(trips),
        });
        (calls, changes) = (now, view.last_event);
    }
}

#[expect(clippy::cast_precision_loss, reason = "of five seconds")]
fn rate(count: u64) -> f64 {
    count as f64 / STEP.as_secs_f64()
}

/// The bound of the bucket that the 99th of a hundred calls is in; none without calls.
fn p99(counts: &CallCounts) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let wanted = all - all / 100;
    let mut seen = 0;
    let at = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    })?;
    let bound = CALL_BUCKETS.get(at).or(CALL_BUCKETS.last())?;
    (all > 0).then_some(bound * 1e3)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hundredth_is_left_out() {
        let mut counts: CallCounts = [0; CALL_BUCKETS.len() + 1];
        assert_eq!(p99(&counts), None);
        counts[1] = 99;
        counts[9] = 1;
        assert_eq!(p99(&counts), Some(CALL_BUCKETS[1] * 1e3));
        counts[9] = 2;
        assert_eq!(p99(&counts), Some(CALL_BUCKETS[9] * 1e3));
        let slow: CallCounts = std::array::from_fn(|at| u64::from(at == CALL_BUCKETS.len()));
        assert_eq!(p99(&slow), Some(1_000.0), "at least that");
    }

    #[test]
    fn ten_minutes_are_kept() {
        let history = History::default();
        for n in 0..500_u32 {
            history.push(Sample { calls: n.into(), p99_ms: None, changes: 0.0, rtt_ms: None });
        }
        let report = history.report();
        assert_eq!((report.calls_per_second.len(), report.calls_per_second[0]), (KEPT, 380.0));
    }
}
