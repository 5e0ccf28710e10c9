//! From the agent's view to its report: the words and units that stay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Outside;
use super::report::{Holds, IngressFile, Journal, Member, Refused, Service, State, Status};
use gossd_core::agent::{DRAINING, MemberView, Tunnel, View};
use gossd_core::liveness::Standing;
use gossd_core::rank::Order;
use gossd_core::record::{AgentName, Owner};
use gossd_core::slot;

/// The report of a view.
pub(super) fn status(
    owner: &Owner,
    view: &View,
    outside: &Outside,
    addresses: &HashMap<AgentName, SocketAddr>,
    ingress_file: Option<IngressFile>,
    unready: Vec<String>,
) -> Status {
    let ready = unready.is_empty();
    let mut problems = unready;
    if view.draining {
        problems.push(format!("draining: {DRAINING}"));
    }
    if view.doubts_itself {
        let text = "more than half of the peers vanished together: it was probably this host or its network, so \
                    their records stay, last, for an hour";
        problems.push(text.into());
    }
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
            "{count} words of {name} were refused, the last ones {last}: it is broken, or somebody else has its key"
        ))
    }));
    let members = view.members.iter().enumerate().map(|(at, member)| {
        let address = if at == 0 { Some(outside.address) } else { addresses.get(&member.name).copied() };
        as_member(member, at == 0, address)
    });
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        name: owner.name.as_str().into(),
        generation: owner.generation,
        cluster: outside.cluster.clone(),
        address: outside.address.to_string(),
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
        journal: journal(view),
        ingress_file,
        last_event: view.last_event,
    }
}

fn journal(view: &View) -> Journal {
    let state = match &view.journal {
        journal if journal.problem.is_some() => "failing",
        journal if !journal.present => "none",
        journal if journal.pending > 0 => "behind",
        _ => "kept",
    };
    let (problem, pending) = (view.journal.problem.clone(), view.journal.pending);
    Journal { state: state.into(), problem, pending, errors: view.changes.journal_errors }
}

fn as_member(member: &MemberView, this: bool, address: Option<SocketAddr>) -> Member {
    Member {
        name: member.name.as_str().into(),
        this,
        generation: member.generation,
        address: address.map(|address| address.to_string()),
        state: state(member),
        rtt_ms: member.trip.filter(|_| !this).map(millis),
        silent_seconds: member.silence.map(|silence| silence.as_secs_f64()),
        records: member.records,
        refused: refused(member),
    }
}

fn refused(member: &MemberView) -> Option<Refused> {
    let complaint = member.complaint?;
    Some(Refused { count: complaint.total(), last: complaint.last.text().into() })
}

/// How an agent is, in one word.
pub(super) fn state(member: &MemberView) -> State {
    match (member.status, member.standing) {
        (Some(slot::Status::Left), _) => State::Left,
        (_, Standing::Hidden) => State::Dead,
        (Some(slot::Status::Draining), _) => State::Draining,
        (_, Standing::Suspect) => State::Suspect,
        (None, Standing::Live) => State::Starting,
        (Some(slot::Status::Ready), Standing::Live) => State::Alive,
    }
}

/// A tunnel's line.
pub(super) fn service(tunnel: &Tunnel) -> Service {
    let agents = tunnel.agents.iter().map(|name| name.as_str().to_owned()).collect();
    Service { name: tunnel.name.to_string(), listed: tunnel.listed, hidden: tunnel.hidden, agents }
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
