//! `/livez` and `/readyz`: whether an agent is ready, and why not, for load balancers, orchestrators and operators.
//! Plugin calls are answered in any case.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use super::matrix;
use super::report::IngressFileReport;
use super::routes::Shared;
use gossd_core::agent::{DRAINING, View};

/// How long a newcomer needs for all records of its peers, at most: ten times what 100,000 take on loopback.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Conditions that hold for good once they are met.
pub(super) struct Readiness {
    joins: bool,
    met: AtomicBool,
    caught_up: AtomicBool,
}

pub(super) async fn readyz(State(ops): Shared) -> (StatusCode, String) {
    let view = ops.agent.view();
    let file = (ops.outside.ingress_file)();
    let reasons = ops.readiness.reasons(&view, ops.cluster.peers(), file.as_ref());
    // Draining is no reason: this host goes on using the agent.
    let draining = if view.draining { format!("draining: {DRAINING}\n") } else { String::new() };
    // Nor is a peer that is away, or that is not reached.
    let mut notes = ops.cluster.unanswered();
    notes.extend(matrix::problems(&view));
    notes.push(draining);
    let notes = notes.join("\n");
    if reasons.is_empty() {
        return (StatusCode::OK, format!("ready\n{notes}"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n" + &notes)
}

impl Readiness {
    /// Of an agent that has peers to join, or none.
    pub(super) fn new(joins: bool) -> Self {
        Self { joins, met: AtomicBool::new(false), caught_up: AtomicBool::new(false) }
    }

    /// Why the agent is not ready, a sentence for each reason; empty if it is.
    pub(super) fn reasons(&self, view: &View, peers: usize, file: Option<&IngressFileReport>) -> Vec<String> {
        let mut reasons = Vec::new();
        reasons.extend(view.journal.problem.as_ref().map(|why| format!("the journal: {why}")));
        let unwritten = file.and_then(|file| file.problem.as_ref());
        reasons.extend(unwritten.map(|why| format!("the ingress file: {why}")));
        if peers > 0 {
            self.met.store(true, Ordering::Relaxed);
        }
        if self.joins && !self.met.load(Ordering::Relaxed) {
            reasons.push("no peer of --join is reached yet".into());
        }
        reasons.extend(self.behind(view));
        reasons
    }

    fn behind(&self, view: &View) -> Option<String> {
        if self.caught_up.load(Ordering::Relaxed) {
            return None;
        }
        let heard = view.members.iter().filter(|member| member.standing.is_alive());
        let missing: Vec<&str> =
            heard.filter(|member| member.status.is_none()).map(|member| member.name.as_str()).collect();
        if missing.is_empty() {
            if self.met.load(Ordering::Relaxed) || !self.joins {
                self.caught_up.store(true, Ordering::Relaxed);
            }
            return None;
        }
        let names = missing.join(", ");
        Some(if view.uptime < CATCH_UP {
            format!("catching up: {names} has not sent all its records yet")
        } else {
            format!("not caught up within {} s: {names} has not sent all its records", CATCH_UP.as_secs())
        })
    }
}
