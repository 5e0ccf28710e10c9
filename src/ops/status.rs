//! `/status.json`, `/services.json`, `/metrics`: from the agent's view to the words and units of the report, which stay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::encode;
use serde::Deserialize;

use super::report::{
    Holds, JournalReport, Member, MemberState, Refused, StatusReport, TunnelReport, TunnelsReport,
};
use super::routes::{Answered, Failure, Params, Shared, json};
use super::{Ops, matrix};
use gossd_core::agent::{DRAINING, MemberView, TunnelSummary, View};
use gossd_core::liveness::Standing;
use gossd_core::rank::Order;
use gossd_core::slot;

/// Tunnels in one answer, if the query sets no limit.
pub(crate) const LIMIT: usize = 100;
/// Tunnels in one answer at most.
pub(crate) const MAX_LIMIT: usize = 10_000;

pub(super) async fn status_json(extract::State(ops): Shared) -> Response {
    json(&status(&ops))
}

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    search: String,
    limit: Option<usize>,
}

pub(super) async fn services_json(
    extract::State(ops): Shared,
    Params(Search { search, limit }): Params<Search>,
) -> Response {
    let (total, tunnels) = ops.agent.tunnels(&search, limit.unwrap_or(LIMIT).min(MAX_LIMIT));
    json(&TunnelsReport { total, services: tunnels.iter().map(service).collect() })
}

pub(super) async fn metrics(extract::State(ops): Shared) -> Answered {
    const TYPE: (HeaderName, &str) =
        (header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let mut text = String::new();
    match encode(&mut text, &ops.outside.metrics) {
        Ok(()) => Ok(([TYPE], text).into_response()),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn status(ops: &Ops) -> StatusReport {
    let (view, outside) = (ops.agent.view(), &ops.outside);
    let peers = ops.cluster.peers_now().into_iter();
    let addresses: HashMap<_, _> = peers.map(|peer| (peer.owner.name, peer.addr)).collect();
    let ingress_file = (outside.ingress_file)();
    let unready = ops.readiness.reasons(&view, addresses.len(), ingress_file.as_ref());
    let ready = unready.is_empty();
    let mut problems = unready;
    problems.extend(ops.cluster.unanswered());
    problems.extend(outside.standing.iter().cloned());
    let own = outside.about.host.borrow().clone();
    problems.extend(own.problem(outside.about.gossip));
    if view.draining {
        problems.push(format!("draining: {DRAINING}"));
    }
    if view.doubts_itself {
        let text = "more than half of the peers vanished together: it was probably this host or its network, so \
                    their records stay, last, for an hour";
        problems.push(text.into());
    }
    problems.extend(matrix::problems(&view));
    problems.extend(view.journal.late.map(|took| {
        format!(
            "a commit of the journal took {:.1} s: a kill loses the changes of the last 35 ms and of two commits; a faster \
             disk for --data-dir, or less load on this one, helps",
            took.as_secs_f64()
        )
    }));
    problems.extend(ingress_file.as_ref().filter(|file| file.left_out > 0).map(|file| {
        format!(
            "{} host names are left out of {}: a gost that reads it has no rule for them",
            file.left_out, file.path
        )
    }));
    problems.extend(view.members.iter().filter_map(|member| {
        let (name, refused) = (&member.name, refused(member)?);
        let Refused { count, last } = refused;
        Some(format!(
            "{count} messages from {name} were rejected, the last ones {last}: it is broken, or somebody else has its key"
        ))
    }));
    let members = view.members.iter().enumerate().map(|(at, member)| {
        let address = if at == 0 { Some(own.gossip) } else { addresses.get(&member.name).copied() };
        as_member(member, at == 0, address)
    });
    StatusReport {
        version: env!("CARGO_PKG_VERSION").into(),
        name: ops.agent.owner().name.as_str().into(),
        generation: ops.agent.owner().generation,
        cluster: outside.about.cluster.clone(),
        address: own.gossip.to_string(),
        uptime_seconds: view.uptime.as_secs_f64(),
        ready,
        problems,
        order: match view.order {
            Order::Random => "random".into(),
            Order::Nearest => "nearest".into(),
        },
        holds: Holds {
            own_records: view.counts.own_records,
            records: view.counts.records,
            lapsed_records: view.lapsed,
            max_records: view.quota.records,
            tunnels: view.tunnels,
            own_rules: view.counts.own_claims,
            rules: view.counts.claims,
            private_tunnels: view.counts.private,
        },
        members: members.collect(),
        journal: journal(&view),
        ingress_file,
        last_event: view.last_event,
    }
}

fn journal(view: &View) -> JournalReport {
    let state = match &view.journal {
        journal if journal.problem.is_some() => "failing",
        journal if !journal.present => "none",
        journal if journal.pending > 0 => "behind",
        _ => "kept",
    };
    let (problem, pending) = (view.journal.problem.clone(), view.journal.pending);
    JournalReport { state: state.into(), problem, pending, errors: view.changes.journal_errors }
}

fn as_member(member: &MemberView, this: bool, address: Option<SocketAddr>) -> Member {
    Member {
        name: member.name.as_str().into(),
        this,
        generation: member.generation,
        address: address.map(|address| address.to_string()),
        state: state(member),
        zone: member.locality.zone.as_ref().into(),
        weight: member.locality.weight,
        rtt_ms: member.trip.filter(|_| !this).map(millis),
        silent_seconds: member.silence.map(|silence| silence.as_secs_f64()),
        records: member.records,
        refused: refused(member),
    }
}

fn refused(member: &MemberView) -> Option<Refused> {
    let complaint = member.complaint?;
    Some(Refused { count: complaint.recent, last: complaint.last.text().into() })
}

/// The state of an agent.
pub(super) fn state(member: &MemberView) -> MemberState {
    match (member.status, member.standing) {
        (Some(slot::Status::Left), _) => MemberState::Left,
        (_, Standing::Hidden) => MemberState::Dead,
        (Some(slot::Status::Draining), _) => MemberState::Draining,
        (_, Standing::Suspect) => MemberState::Suspect,
        (None, Standing::Live | Standing::Doubted) => MemberState::Starting,
        (Some(slot::Status::Ready), Standing::Live) => MemberState::Alive,
        (Some(slot::Status::Ready), Standing::Doubted) => MemberState::Doubted,
    }
}

/// A tunnel in `/services.json`.
fn service(tunnel: &TunnelSummary) -> TunnelReport {
    let agents = tunnel.agents.iter().map(|name| name.as_str().to_owned()).collect();
    let TunnelSummary { name, listed, eligible, hidden, agents: _ } = tunnel;
    TunnelReport { name: name.to_string(), listed: *listed, eligible: *eligible, hidden: *hidden, agents }
}

/// Milliseconds, rounded to microseconds.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
