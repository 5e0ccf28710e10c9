//! `/explain.json`: why a Get for a tunnel, or for a host's tunnel, is answered as it is. Each record with its place, or
//! with the reason why it is hidden.

use axum::extract;
use axum::http::StatusCode;
use serde::Deserialize;

use super::Ops;
use super::report::{self, Explanation, LeaseReport, MemberState};
use super::routes::{Answered, Failure, Params, Shared, json};
use super::status::{millis, state};
use gossd_core::agent::{Candidate, Tally};
use gossd_core::hostname::TunnelId;
use gossd_core::rank::{BEST, Order};
use gossd_core::record::Network;

#[derive(Deserialize)]
pub(super) struct ExplainQuery {
    #[serde(default)]
    name: String,
}

pub(super) async fn explain_json(
    extract::State(ops): Shared,
    Params(ExplainQuery { name }): Params<ExplainQuery>,
) -> Answered {
    if name.is_empty() {
        let text = "which one? /explain.json?name=TUNNEL-OR-HOST";
        return Err(Failure(StatusCode::BAD_REQUEST, text.into()));
    }
    Ok(json(&ops.explain(&name)))
}

impl Ops {
    /// Where a tunnel, or the tunnel of a host name, is attached, and why Get answers as it does.
    fn explain(&self, asked: &str) -> Explanation {
        let mut found = self.agent.explain(asked);
        let (mut host, mut name) = (None, (!found.is_empty()).then(|| asked.to_owned()));
        if found.is_empty()
            && let Some((rule, tunnel)) = (self.outside.host)(asked)
        {
            found = self.agent.explain(&tunnel);
            (host, name) = (Some(rule), Some(tunnel));
        }
        let order = self.agent.view().order;
        let listed = found.iter().filter(|candidate| candidate.rank.is_some()).count();
        let Tally { known, mut eligible, .. } =
            name.as_deref().map(|name| self.agent.count_records(name)).unwrap_or_default();
        if known <= BEST {
            // Another record of the same connector is hidden.
            eligible = listed;
        }
        let verdict = verdict(host.is_some(), known, listed, eligible);
        let candidates = found.iter().map(|candidate| self::candidate(candidate, order, listed)).collect();
        let tunnel = name.as_deref().and_then(TunnelId::parse);
        let private = tunnel.is_some_and(|tunnel| self.agent.is_private(tunnel));
        Explanation { asked: asked.into(), host, name, private, verdict, known, eligible, candidates }
    }
}

fn verdict(by_host: bool, known: usize, listed: usize, eligible: usize) -> String {
    let what = if by_host { "the host's tunnel" } else { "the tunnel" };
    match (known, listed) {
        (0, _) if by_host => format!(
            "{what} has no record at any agent that this one knows: its client is not connected, or lately was not"
        ),
        (0, _) => {
            "no tunnel and no host of that name is known here: is its client connected, and to a gost whose \
                   agent is one of `gossd members`?"
                .into()
        }
        (_, 0) => format!("{what} is known, and every record of it is hidden: gost answers 503"),
        (_, 1) => format!("{what} has one record that is listed"),
        (_, _) if listed < eligible => {
            format!(
                "{what} has {eligible} records that may be listed: each answer has {listed} of {eligible}"
            )
        }
        (_, _) => format!("{what} has {listed} records that are listed"),
    }
}

fn candidate(found: &Candidate, order: Order, listed: usize) -> report::CandidateReport {
    let record = &found.record;
    let lease = found.lease.map(|(remaining, period)| LeaseReport {
        remaining_seconds: remaining.as_secs_f64(),
        period_seconds: period.map(|period| period.as_secs_f64()),
    });
    report::CandidateReport {
        rank: found.rank.map(|rank| rank + 1),
        why: why(found, order, listed),
        id: record.id.to_string(),
        node: record.node.to_string(),
        network: match record.network {
            Network::Tcp => "tcp".into(),
            Network::Udp => "udp".into(),
        },
        address: record.address.to_string(),
        agent: found.owner.name.as_str().into(),
        state: state(&found.owner),
        rtt_ms: found.owner.trip.filter(|_| lease.is_none()).map(millis),
        known_seconds: found.known.as_secs_f64(),
        lease,
    }
}

fn why(found: &Candidate, order: Order, listed: usize) -> String {
    let agent = found.owner.name.as_str();
    let silent = found.owner.silence.map(|silence| format!("{:.0} s", silence.as_secs_f64()));
    let silent = silent.unwrap_or_else(|| "a while".into());
    match (found.rank, state(&found.owner)) {
        (None, MemberState::Dead) if found.owner.silence.is_none() => {
            format!("hidden: {agent} was never heard by this agent; can its gossip be reached from here?")
        }
        (None, MemberState::Dead) => format!("hidden: {agent} has given no sign of life for {silent}"),
        (None, MemberState::Draining) => format!("hidden: {agent} is draining"),
        (None, MemberState::Left) => format!("hidden: {agent} has left"),
        (None, MemberState::Starting) => format!("hidden: {agent} has not sent all its records yet"),
        (None, MemberState::Alive | MemberState::Suspect) => {
            "hidden: another record of the same connector is listed".into()
        }
        (Some(_), MemberState::Suspect) => {
            format!("last: {agent} has not been heard for {silent} and may be gone")
        }
        (Some(_), MemberState::Dead) => {
            format!(
                "last: {agent} has given no sign of life for {silent}, but its gost answers dials from here"
            )
        }
        (Some(_), _) if listed == 1 => format!("the only one; {agent} is alive"),
        (Some(_), _) => match order {
            Order::Random => format!("{agent} is alive; records of live agents take turns"),
            Order::Nearest => format!("{agent} is alive; the nearest come first"),
        },
    }
}
