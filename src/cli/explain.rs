//! `gossd explain` and `gossd get`: where a tunnel is attached, and why a Get answers as it does.

use std::process::ExitCode;

use anstyle::Style;
use clap::Args;

use super::ask::{self, AgentArgs, show};
use super::client::{self, Reply};
use super::table::{BAD, DIM, GOOD, TextTable, painted};
use super::words::{plain, round_trip, time};
use super::{NOTHING_FOUND, complete, status};
use crate::ops::report::{
    AroundReport, CandidateReport, Explanation, HostReport, LeaseReport, PastReport, RefusedClaim,
};

/// Said of a private tunnel.
const PRIVATE: &str = "; private: gost turns visitors away";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A tunnel's id, or a host name
    #[arg(value_name = "NAME|HOST", add = complete::tunnels())]
    what: String,
    #[command(flatten)]
    asked: AgentArgs,
}

pub(super) fn explain(question: &ExplainArgs) -> anyhow::Result<ExitCode> {
    question.answer(explained, false)
}

pub(super) fn get(question: &ExplainArgs) -> anyhow::Result<ExitCode> {
    question.answer(addresses, true)
}

impl ExplainArgs {
    fn answer(&self, page: fn(&Explanation) -> String, is_for_programs: bool) -> anyhow::Result<ExitCode> {
        let path = client::path("/explain.json", &[("name", &self.what)]);
        let reply: Reply<Explanation> = ask::get(&self.asked, &path)?;
        let found = listed(&reply.report).next().is_some();
        // What a program reads is an address, or nothing.
        if found || self.asked.json || !is_for_programs {
            show(self.asked.json, &reply, page)?;
        } else {
            anstream::eprintln!("{}", page(&reply.report).trim_end());
        }
        Ok(if found { ExitCode::SUCCESS } else { NOTHING_FOUND.into() })
    }
}

fn listed(explanation: &Explanation) -> impl Iterator<Item = &CandidateReport> {
    explanation.candidates.iter().filter(|candidate| candidate.rank.is_some())
}

/// What a Get answers; or in a sentence, why nothing.
fn addresses(explanation: &Explanation) -> String {
    if listed(explanation).next().is_none() {
        return verdict(explanation);
    }
    let mut table = TextTable::new(&["ADDRESS", "NETWORK", "AGENT", "CONNECTOR"]);
    if let Some(AroundReport { agent: Some(agent), address: Some(address), .. }) = &explanation.around {
        table.row(GOOD, &[address, "tcp", agent, "-"]);
    }
    for CandidateReport { address, network, agent, state, id, .. } in listed(explanation) {
        table.row(status::style(*state), &[address, network, agent, id]);
    }
    let Explanation { eligible, .. } = explanation;
    let listed = listed(explanation).count();
    let rest = if listed < *eligible {
        format!("{listed} of {eligible}: an answer has no more\n")
    } else {
        String::new()
    };
    table.text() + &painted(DIM, &rest)
}

fn explained(explanation: &Explanation) -> String {
    let Explanation { asked, host, name, hosts, private, around, candidates, past, refused, .. } =
        explanation;
    let way = host.as_ref().map(|host| way(asked, host));
    // The line on the host has it already.
    let private = if *private && host.is_none() { PRIVATE } else { "" };
    let tunnel = name.as_ref().map(|name| format!("tunnel  {}{private}\n", plain(name)));
    // The line on the host has that one already.
    let others = hosts.iter().filter(|other| host.as_ref().is_none_or(|host| host.rule != other.rule));
    let named: Vec<String> = others.map(|host| plain(&host.rule)).collect();
    let hosts = (!named.is_empty()).then(|| format!("hosts   {}\n", named.join(", ")));
    let around = around.as_ref().map(self::around);
    let records = (!candidates.is_empty()).then(|| format!("\n{}", records(candidates)));
    let past = (!past.is_empty()).then(|| format!("\n{}", gone(past)));
    let refused = (!refused.is_empty()).then(|| format!("\n{}", refused_claims(refused)));
    let parts = [Some(verdict(explanation)), way, tunnel, hosts, around, records, past, refused];
    parts.into_iter().flatten().collect()
}

/// Claims on the host name that its client did not get, each on a line, and under it why.
fn refused_claims(refused: &[RefusedClaim]) -> String {
    let lines = refused.iter().map(|RefusedClaim { tunnel, at, why }| {
        let why = painted(DIM, &format!("        {}", plain(why)));
        format!("{}  {}\n{why}\n", plain(at), plain(tunnel))
    });
    ["REFUSED                   TUNNEL\n".to_owned()].into_iter().chain(lines).collect()
}

/// Records that went lately, each on a line, and under it why.
fn gone(past: &[PastReport]) -> String {
    let mut table = TextTable::new(&["GONE", "ADDRESS", "AGENT", "CONNECTOR"]);
    for PastReport { address, agent, id, at, .. } in past {
        table.row(DIM, &[at, address, agent, id]);
    }
    let lines = table.lines();
    let whys = past.iter().map(|past| painted(DIM, &format!("        {}", plain(&past.why))));
    let (titles, rows) = lines.split_first().expect("there are titles");
    let rows = rows.iter().zip(whys).map(|(row, why)| format!("{row}\n{why}\n"));
    [format!("{titles}\n")].into_iter().chain(rows).collect()
}

fn verdict(explanation: &Explanation) -> String {
    let found = listed(explanation).next().is_some();
    painted(if found { GOOD } else { BAD }, &plain(&explanation.verdict)) + "\n"
}

/// How a host leads to a tunnel.
fn way(asked: &str, host: &HostReport) -> String {
    let HostReport { rule, by, private } = host;
    let rule = plain(rule);
    let by = match &**by {
        "configured" => format!("{rule} is configured (--ingress-rule)"),
        "claimed" => format!("the tunnel claimed {rule}"),
        "hash" => format!("{rule} is the tunnel's hash host"),
        other => format!("{rule} ({})", plain(other)),
    };
    let private = if *private { PRIVATE } else { "" };
    format!("host    {}: {by}{private}\n", plain(asked))
}

/// By which host visitors get there, or why not.
fn around(around: &AroundReport) -> String {
    let style = if around.agent.is_some() { GOOD } else { BAD };
    painted(style, &format!("around  {}", plain(&around.why))) + "\n"
}

/// Each on a line, and under it why it is there.
fn records(candidates: &[CandidateReport]) -> String {
    let titles = ["RANK", "ADDRESS", "NETWORK", "AGENT", "STATE", "DIAL", "RTT", "KNOWN", "LEASE"];
    let mut table = TextTable::new(&titles).with_numbers(&[6, 7]);
    for candidate in candidates {
        let CandidateReport { rank, address, network, agent, state, .. } = candidate;
        let place = rank.map_or_else(|| "hidden".into(), |rank| rank.to_string());
        let (rtt, known) = (round_trip(candidate.rtt_ms), time(candidate.known_seconds));
        let lease = candidate.lease.as_ref().map_or_else(|| "-".into(), lease);
        let dial = dial(candidate);
        let row = [&place, address, network, agent, status::state(*state), &dial, &rtt, &known, &lease];
        table.row(style(candidate), &row);
    }
    let lines = table.lines();
    let whys = candidates.iter().map(|candidate| painted(DIM, &format!("        {}", plain(&candidate.why))));
    let (titles, rows) = lines.split_first().expect("there are titles");
    let rows = rows.iter().zip(whys).map(|(row, why)| format!("{row}\n{why}\n"));
    [format!("{titles}\n")].into_iter().chain(rows).collect()
}

fn style(candidate: &CandidateReport) -> Style {
    if candidate.rank.is_none() { BAD } else { status::style(candidate.state) }
}

/// What a dial of the entrypoint showed; nothing of our own, which is not dialled.
fn dial(candidate: &CandidateReport) -> String {
    match candidate.dial_ms {
        _ if candidate.lease.is_some() || candidate.dial.is_empty() => "-".into(),
        Some(ms) => format!("{} {ms:.1} ms", candidate.dial),
        None => candidate.dial.clone(),
    }
}

fn lease(lease: &LeaseReport) -> String {
    let period = lease.period_seconds.map(|period| format!(", renewed every {}", time(period)));
    format!("{} left{}", time(lease.remaining_seconds), period.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::report::MemberState;

    const TUNNEL: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";

    fn candidate(rank: Option<usize>, agent: &str, state: MemberState, why: &str) -> CandidateReport {
        CandidateReport {
            rank,
            why: why.into(),
            id: "c23d4f42-c892-42b3-8b74-88ab6455d33a".into(),
            node: "db670b91-61a5-4f7c-8014-3bbe994446ea".into(),
            network: "tcp".into(),
            address: "10.42.0.100:8420".into(),
            agent: agent.into(),
            state,
            rtt_ms: None,
            dial: "untried".into(),
            dial_ms: None,
            known_seconds: 300.0,
            lease: None,
        }
    }

    fn made_up() -> Explanation {
        let lease = Some(LeaseReport { remaining_seconds: 44.6, period_seconds: Some(15.0) });
        let here = CandidateReport {
            lease,
            dial: "own".into(),
            ..candidate(Some(1), "a", MemberState::Alive, "its agent is alive")
        };
        let there = CandidateReport {
            rtt_ms: Some(0.5),
            dial: "works".into(),
            dial_ms: Some(0.42),
            ..candidate(Some(2), "b", MemberState::Suspect, "b is silent")
        };
        Explanation {
            asked: "www.example.org".into(),
            host: Some(HostReport { rule: ".example.org".into(), by: "claimed".into(), private: false }),
            name: Some(TUNNEL.into()),
            private: false,
            verdict: "2 records are listed, 1 is hidden.".into(),
            known: 3,
            eligible: 2,
            hosts: Vec::new(),
            past: Vec::new(),
            refused: Vec::new(),
            around: None,
            candidates: vec![here, there, candidate(None, "c", MemberState::Dead, "c is dead")],
        }
    }

    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn an_explanation_has_the_verdict_the_way_and_a_reason_for_each_record() {
        let want = "\
2 records are listed, 1 is hidden.
host    www.example.org: the tunnel claimed .example.org
tunnel  c9ef8f8c-d687-4dca-be7a-1467b6565404

RANK    ADDRESS           NETWORK  AGENT  STATE    DIAL              RTT  KNOWN  LEASE
1       10.42.0.100:8420  tcp      a      alive    -                   -  5 min  45 s left, renewed every 15 s
        its agent is alive
2       10.42.0.100:8420  tcp      b      suspect  works 0.4 ms  0.50 ms  5 min  -
        b is silent
hidden  10.42.0.100:8420  tcp      c      dead     untried             -  5 min  -
        c is dead
";
        let text = bare(&explained(&made_up()));
        assert_eq!(text, want);
        assert!(text.lines().all(|line| line.len() <= 110));
    }

    #[test]
    fn every_way_from_a_host_to_a_tunnel_is_told() {
        for (by, private, told) in [
            (
                "configured",
                true,
                "host    x: .x is configured (--ingress-rule); private: gost turns visitors away\n",
            ),
            ("claimed", false, "host    x: the tunnel claimed .x\n"),
            ("hash", false, "host    x: .x is the tunnel's hash host\n"),
            ("magic", false, "host    x: .x (magic)\n"),
        ] {
            assert_eq!(way("x", &HostReport { rule: ".x".into(), by: by.into(), private }), told);
        }
    }

    #[test]
    fn a_private_tunnel_is_told_once() {
        let by_id = Explanation { host: None, private: true, ..made_up() };
        assert!(
            bare(&explained(&by_id))
                .contains(&format!("tunnel  {TUNNEL}; private: gost turns visitors away\n"))
        );
        let host = HostReport { rule: "x".into(), by: "claimed".into(), private: true };
        let by_host = Explanation { host: Some(host), private: true, ..made_up() };
        assert_eq!(bare(&explained(&by_host)).matches("private").count(), 1);
    }

    #[test]
    fn a_way_around_is_told_of_and_is_the_first_of_a_get() {
        let (agent, address) = (Some("d".into()), Some("10.42.0.104:8420".into()));
        let around = AroundReport { agent, address, said_seconds: Some(0.4), why: "by d".into() };
        let by_d = Explanation { around: Some(around.clone()), ..made_up() };
        assert!(bare(&explained(&by_d)).contains("\naround  by d\n"));
        let text = bare(&addresses(&by_d));
        assert_eq!(text.lines().nth(1), Some("10.42.0.104:8420  tcp      d      -"), "{text}");
        let nothing = AroundReport { agent: None, address: None, said_seconds: None, ..around };
        let nothing = Explanation { around: Some(nothing), ..made_up() };
        assert_eq!(bare(&addresses(&nothing)), bare(&addresses(&made_up())));
    }

    #[test]
    fn a_get_is_the_listed_addresses_in_their_order_or_why_there_is_none() {
        let want = "\
ADDRESS           NETWORK  AGENT  CONNECTOR
10.42.0.100:8420  tcp      a      c23d4f42-c892-42b3-8b74-88ab6455d33a
10.42.0.100:8420  tcp      b      c23d4f42-c892-42b3-8b74-88ab6455d33a
";
        assert_eq!(bare(&addresses(&made_up())), want);
        let many = Explanation { eligible: 900, ..made_up() };
        assert_eq!(bare(&addresses(&many)), format!("{want}2 of 900: an answer has no more\n"));
        let nowhere = Explanation { candidates: made_up().candidates.split_off(2), ..made_up() };
        assert_eq!(addresses(&nowhere), painted(BAD, "2 records are listed, 1 is hidden.") + "\n");
        let unknown = Explanation { candidates: Vec::new(), host: None, name: None, ..made_up() };
        assert_eq!(bare(&explained(&unknown)), "2 records are listed, 1 is hidden.\n");
    }
}
