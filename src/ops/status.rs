//! `/status.json`, `/services.json`, `/metrics`: from the agent's view to the words and units of the report, which stay.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::encode;
use serde::Deserialize;

use super::Ops;
use super::problems::problems;
use super::report::{
    Holds, JournalReport, Member, MemberState, Refused, StatusReport, TunnelReport, TunnelsReport,
};
use super::routes::{Answered, Failure, Params, Shared, json};
use crate::agent::{TunnelList, rejected};
use crate::metrics::classic;
use crate::wall_clock;
use gossd_core::agent::{MemberView, TunnelSummary, View};
use gossd_core::hostname::TunnelId;
use gossd_core::link::{PeerCard, SUSPECT};
use gossd_core::liveness::Standing;
use gossd_core::locality::MAX_WEIGHT;
use gossd_core::rank::Order;
use gossd_core::record::AgentName;
use gossd_core::slot;

/// Host names of a tunnel in a list of tunnels.
const NAMES: usize = 4;
/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Tunnels in one answer, if the query sets no limit.
pub(crate) const LIMIT: usize = 100;
/// Tunnels in one answer at most.
pub(crate) const MAX_LIMIT: usize = 10_000;

pub(super) async fn status_json(extract::State(ops): Shared) -> Response {
    let cards = ops.cluster.cards().await;
    json(&status(&ops, &cards))
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    search: String,
    limit: Option<usize>,
    agent: Option<String>,
    #[serde(default)]
    hidden: bool,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    sort: Sort,
}

/// Which tunnels come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    /// By their ids.
    #[default]
    Id,
    /// By their first host name; those without one last.
    Host,
    /// Those without a listed record.
    Trouble,
}

pub(super) async fn services_json(extract::State(ops): Shared, Params(wanted): Params<Wanted>) -> Response {
    let Wanted { search, limit, agent, hidden, private, sort } = wanted;
    let limit = limit.unwrap_or(LIMIT).min(MAX_LIMIT);
    let index = ops.names();
    let named = if search.is_empty() { BTreeSet::new() } else { index.tunnels_with(&search.to_lowercase()) };
    let is_private = |name: &str| TunnelId::parse(name).is_some_and(|tunnel| ops.agent.is_private(tunnel));
    let is_id_wanted =
        |id: &str| (id.contains(&search) || named.contains(id)) && (!private || is_private(id));
    let is_wanted = |tunnel: &TunnelSummary| {
        let is_there = |name: &String| tunnel.agents.iter().any(|agent| agent.as_str() == name);
        agent.as_ref().is_none_or(is_there) && (!hidden || tunnel.listed == 0)
    };
    let is_wanted = (agent.is_some() || hidden).then_some(is_wanted);
    let by_host = |id: &str| {
        let host = index.of(id).next().map(|host| host.rule.clone());
        (host.is_none(), host)
    };
    let list = TunnelList {
        is_id_wanted,
        is_wanted,
        key: (sort == Sort::Host).then_some(by_host),
        hidden_first: sort == Sort::Trouble,
        limit,
    };
    let (total, tunnels) = ops.agent.tunnels(list).await;
    let services = tunnels.iter().map(|tunnel| {
        let id = tunnel.name.to_string();
        let hosts: Vec<String> = index.of(&id).map(|host| host.rule.clone()).collect();
        TunnelReport { names: hosts.len(), private: is_private(&id), ..service(tunnel, hosts) }
    });
    json(&TunnelsReport { total, services: services.collect() })
}

/// `OpenMetrics` for those who ask for it, as Prometheus does, and its classic text format for others.
pub(super) async fn metrics(extract::State(ops): Shared, headers: HeaderMap) -> Answered {
    const OPEN: &str = "application/openmetrics-text";
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accepts| accepts.to_str().ok());
    let is_open = accepts.into_iter().any(|accepts| accepts.contains(OPEN));
    let mut text = String::new();
    match encode(&mut text, &ops.outside.metrics) {
        Ok(()) if is_open => {
            let kind = format!("{OPEN}; version=1.0.0; charset=utf-8");
            Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
        }
        Ok(()) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Ok(([(header::CONTENT_TYPE, kind)], classic(&text)).into_response())
        }
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn status(ops: &Ops, cards: &[PeerCard]) -> StatusReport {
    let (view, outside) = (ops.agent.view(), &ops.outside);
    let cards: HashMap<&AgentName, &PeerCard> =
        cards.iter().map(|card| (&card.peer.owner.name, card)).collect();
    let ingress_file = (outside.ingress_file)();
    let unready = ops.readiness.reasons(&view, ops.cluster.peers(), ingress_file.as_ref());
    let ready = unready.is_empty();
    let own = outside.about.host.borrow().clone();
    let problems = problems(ops, unready, &view, &own, ingress_file.as_ref());
    let seals = ops.cluster.sealing();
    let members = view.members.iter().enumerate().map(|(at, member)| match cards.get(&member.name) {
        _ if at == 0 => Member {
            address: Some(own.gossip.to_string()),
            version: Some(VERSION.into()),
            key: seals.map(|key| key.to_string()),
            ..as_member(member, true)
        },
        Some(card) => Member {
            address: Some(card.peer.addr.to_string()),
            version: Some(card.program.to_string()).filter(|version| !version.is_empty()),
            key: card.seals.filter(|_| seals.is_some()).map(|key| key.to_string()),
            ..as_member(member, false)
        },
        None => as_member(member, false),
    });
    // Peers of an earlier start that this one has not heard.
    let met: BTreeSet<&AgentName> = view.members.iter().map(|member| &member.name).collect();
    let missing = ops.cluster.remembered().borrow().clone().into_iter();
    let missing = missing.filter(|(name, _)| !met.contains(name));
    // Whether they are dead is not known before one that lives would have been heard.
    let state = if view.uptime < SUSPECT { MemberState::Starting } else { MemberState::Dead };
    let missing = missing.map(|(name, address)| never_heard(&name, address, state));
    StatusReport {
        version: VERSION.into(),
        at: wall_clock::spell(wall_clock::now()),
        name: ops.agent.owner().name.as_str().into(),
        generation: ops.agent.owner().generation,
        cluster: outside.about.cluster.clone(),
        address: own.gossip.to_string(),
        uptime_seconds: view.uptime.as_secs_f64(),
        ready,
        draining: view.draining,
        problems,
        order: match view.order {
            Order::Random => "random".into(),
            Order::Nearest => "nearest".into(),
        },
        plugins: outside.about.plugins.clone(),
        token: outside.about.token,
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
        members: members.chain(missing).collect(),
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

fn never_heard(name: &AgentName, address: SocketAddr, state: MemberState) -> Member {
    Member {
        name: name.as_str().into(),
        this: false,
        generation: None,
        address: Some(address.to_string()),
        version: None,
        key: None,
        state,
        zone: String::new(),
        weight: MAX_WEIGHT,
        rtt_ms: None,
        silent_seconds: None,
        records: 0,
        refused: None,
    }
}

fn as_member(member: &MemberView, this: bool) -> Member {
    Member {
        name: member.name.as_str().into(),
        this,
        generation: member.generation,
        address: None,
        version: None,
        key: None,
        state: state(member),
        zone: member.locality.zone.as_ref().into(),
        weight: member.locality.weight,
        // What was measured before it fell silent says nothing any more.
        rtt_ms: member.trip.filter(|_| !this && member.standing.is_alive()).map(millis),
        silent_seconds: member.silence.map(|silence| silence.as_secs_f64()),
        records: member.records,
        refused: refused(member),
    }
}

/// What a peer sent that it must not.
pub(super) fn refused(member: &MemberView) -> Option<Refused> {
    let complaint = member.complaint?;
    Some(Refused { count: complaint.recent, last: rejected(complaint.last) })
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
fn service(tunnel: &TunnelSummary, hosts: Vec<String>) -> TunnelReport {
    let agents = tunnel.agents.iter().map(|name| name.as_str().to_owned()).collect();
    let TunnelSummary { name, listed, eligible, hidden, agents: _ } = tunnel;
    TunnelReport {
        name: name.to_string(),
        listed: *listed,
        eligible: *eligible,
        hidden: *hidden,
        agents,
        names: hosts.len(),
        hosts: hosts.into_iter().take(NAMES).collect(),
        private: false,
    }
}

/// Milliseconds, rounded to microseconds.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
