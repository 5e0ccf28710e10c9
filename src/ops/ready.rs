//! `/livez` and `/readyz`: whether an agent is ready, and why not, for load balancers, orchestrators and operators.
//! Plugin calls are answered in any case.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use super::report::{IngressFileReport, Problem, ProblemKind};
use super::routes::Shared;
use super::{matrix, problems};
use crate::sentence::sentence;
use gossd_core::agent::View;

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
    // Nor is a peer that is away, or that is not reached.
    let notes = problems::unanswered(&ops).chain(matrix::problems(&view)).chain(problems::draining(&view));
    let lines = |problems: &mut dyn Iterator<Item = Problem>| -> String {
        problems.map(|problem| problem.text.to_string() + "\n").collect()
    };
    let notes = lines(&mut notes.into_iter());
    if reasons.is_empty() {
        return (StatusCode::OK, format!("ready\n{notes}"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, lines(&mut reasons.into_iter()) + &notes)
}

impl Readiness {
    /// Of an agent that has peers to join, or none.
    pub(super) fn new(joins: bool) -> Self {
        Self { joins, met: AtomicBool::new(false), caught_up: AtomicBool::new(false) }
    }

    /// Why the agent is not ready; empty if it is.
    pub(super) fn reasons(
        &self,
        view: &View,
        peers: usize,
        file: Option<&IngressFileReport>,
    ) -> Vec<Problem> {
        let mut reasons = Vec::new();
        let unwritten = view.journal.problem.as_ref();
        reasons
            .extend(unwritten.map(|why| Problem::bad(ProblemKind::Journal, sentence!("the journal: {why}"))));
        let unwritten = file.and_then(|file| file.problem.as_ref());
        reasons.extend(
            unwritten.map(|why| Problem::bad(ProblemKind::IngressFile, sentence!("the ingress file: {why}"))),
        );
        if peers > 0 {
            self.met.store(true, Ordering::Relaxed);
        }
        if self.joins && !self.met.load(Ordering::Relaxed) {
            reasons.push(Problem::bad(ProblemKind::NoPeer, sentence!("no peer of --join is reached yet")));
        }
        reasons.extend(self.behind(view));
        reasons
    }

    fn behind(&self, view: &View) -> Option<Problem> {
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
            let text = sentence!("catching up: {names} has not sent all its records yet");
            Problem::warn(ProblemKind::CatchingUp, text)
        } else {
            let late = CATCH_UP.as_secs();
            let text = sentence!("not caught up within {late} s: {names} has not sent all its records");
            Problem::bad(ProblemKind::CatchingUp, text)
        })
    }
}
