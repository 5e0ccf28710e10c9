//! `gossd services`: the tunnels that an agent knows of.

use std::process::ExitCode;

use clap::Args;

use super::ask::{self, AgentArgs, show};
use super::client;
use super::table::{BAD, DIM, TextTable, USUAL, painted};
use super::{NOTHING_FOUND, complete};
use crate::ops::report::{TunnelReport, TunnelsReport};
use crate::ops::{LIMIT, MAX_LIMIT};
use gossd_core::record::AgentName;

/// Columns that the names of agents may take: with a tunnel's id, a line has a hundred.
const AGENTS: usize = 40;

#[derive(Debug, Args)]
pub(super) struct ServicesArgs {
    /// Only tunnels that have this in their id or a host name
    #[arg(value_name = "TEXT")]
    search: Option<String>,
    /// How many are printed at most, up to 10000
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = parse_limit)]
    limit: usize,
    /// Only tunnels with a record at this agent
    #[arg(long, value_name = "NAME", add = complete::members())]
    agent: Option<AgentName>,
    /// Only tunnels without a listed record: their visitors get 503
    #[arg(long)]
    hidden: bool,
    /// Only private tunnels
    #[arg(long)]
    private: bool,
    #[command(flatten)]
    asked: AgentArgs,
}

pub(super) fn services(args: &ServicesArgs) -> anyhow::Result<ExitCode> {
    let search = args.search.as_deref().unwrap_or_default();
    let limit = args.limit.to_string();
    let mut query = vec![("search", search), ("limit", &*limit)];
    query.extend(args.agent.as_ref().map(|name| ("agent", name.as_str())));
    query.extend(args.hidden.then_some(("hidden", "true")));
    query.extend(args.private.then_some(("private", "true")));
    let is_part = query.len() > 2 || !search.is_empty();
    query.push(("sort", "trouble"));
    let path = client::path("/services.json", &query);
    let reply = ask::get(&args.asked, &path)?;
    show(args.asked.json, &reply, |services| page(services, is_part))?;
    let found = reply.report.total > 0 || !is_part;
    Ok(if found { ExitCode::SUCCESS } else { NOTHING_FOUND.into() })
}

fn page(services: &TunnelsReport, is_part: bool) -> String {
    match (services.total, is_part) {
        (0, false) => return "no tunnel is attached anywhere\n".into(),
        (0, true) => return "no tunnel is like that\n".into(),
        _ => {}
    }
    let mut titles = vec!["TUNNEL", "LISTED", "HIDDEN", "AGENTS"];
    // Only where there is something to be seen.
    let has_hosts = services.services.iter().any(|service| service.names > 0 || service.private);
    titles.extend(has_hosts.then_some("HOSTS"));
    let mut table = TextTable::new(&titles).with_numbers(&[1, 2]);
    for service in &services.services {
        let style = if service.listed == 0 { BAD } else { USUAL };
        let TunnelReport { name, listed, eligible, hidden, agents, hosts, names, private } = service;
        let mut hosts = some(hosts);
        if service.hosts.len() < *names {
            hosts = format!("{hosts} and {} more", names - service.hosts.len());
        }
        if *private {
            hosts += if hosts.is_empty() { "(private)" } else { " (private)" };
        }
        let listed = if listed < eligible { format!("{listed} of {eligible}") } else { listed.to_string() };
        let (hidden, agents) = (hidden.to_string(), some(agents));
        let row = [name, &*listed, &hidden, &agents, &hosts];
        table.row(style, &row[..titles.len()]);
    }
    let mut text = table.text();
    text.push_str(&more(services.services.len(), services.total));
    text
}

/// How many of all are not listed, and what would list them.
pub(super) fn more(listed: usize, total: usize) -> String {
    let way = match total {
        total if total <= listed => return String::new(),
        total if total <= MAX_LIMIT => format!("--limit {total}"),
        _ if listed < MAX_LIMIT => format!("--limit {MAX_LIMIT}, or with a TEXT to search for"),
        _ => "with a TEXT to search for".into(),
    };
    painted(DIM, &format!("{} more: {way}", total - listed)) + "\n"
}

pub(super) fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("it is not a number from 1 to {MAX_LIMIT}"))
}

/// As many names as fit, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        if at > 0 && text.len() + name.len() > AGENTS {
            return format!("{text} and {} more", names.len() - at);
        }
        text.push_str(if at > 0 { ", " } else { "" });
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, listed: usize, hidden: usize, agents: &[&str]) -> TunnelReport {
        TunnelReport {
            name: name.into(),
            listed,
            eligible: listed,
            hidden,
            agents: agents.iter().copied().map(str::to_owned).collect(),
            hosts: Vec::new(),
            names: 0,
            private: false,
        }
    }

    fn bare(services: &TunnelsReport) -> String {
        anstream::adapter::strip_str(&page(services, false)).to_string()
    }

    #[test]
    fn host_names_are_shown_if_any_tunnel_has_one() {
        let hosts = vec!["shop.example.org".to_owned(), "www.example.org".to_owned()];
        let named = TunnelReport { hosts, names: 7, private: true, ..service("t", 1, 0, &["a"]) };
        let services = vec![named, service("u", 1, 0, &["a"])];
        let want = "\
TUNNEL  LISTED  HIDDEN  AGENTS  HOSTS
t            1       0  a       shop.example.org, www.example.org and 5 more (private)
u            1       0  a
";
        assert_eq!(bare(&TunnelsReport { total: 2, services }), want);
    }

    #[test]
    fn tunnels_are_in_the_agents_order_and_the_rest_is_counted() {
        let services = vec![
            service("c9ef8f8c-d687-4dca-be7a-1467b6565404", 0, 1, &["c"]),
            service("4d21094e-b74c-4916-86c1-d9fa36ea677b", 2, 0, &["a", "b"]),
        ];
        let want = "\
TUNNEL                                LISTED  HIDDEN  AGENTS
c9ef8f8c-d687-4dca-be7a-1467b6565404       0       1  c
4d21094e-b74c-4916-86c1-d9fa36ea677b       2       0  a, b
3 more: --limit 5
";
        assert_eq!(bare(&TunnelsReport { total: 5, services }), want);
    }

    #[test]
    fn a_tunnel_with_more_records_than_an_answer_has_says_how_many() {
        let services = vec![TunnelReport { eligible: 900, ..service("t", 64, 3, &["a"]) }];
        let page = bare(&TunnelsReport { total: 1, services });
        assert_eq!(page, "TUNNEL     LISTED  HIDDEN  AGENTS\nt       64 of 900       3  a\n");
    }

    #[test]
    fn what_is_not_listed_is_counted_with_the_way_to_it() {
        for (total, listed, told) in [
            (2, 2, ""),
            (5, 2, "3 more: --limit 5\n"),
            (10_001, 2, "9999 more: --limit 10000, or with a TEXT to search for\n"),
            (10_001, 10_000, "1 more: with a TEXT to search for\n"),
        ] {
            assert_eq!(anstream::adapter::strip_str(&more(listed, total)).to_string(), told);
        }
    }

    #[test]
    fn two_hundred_agents_fit_on_a_line() {
        let names: Vec<String> = (0..200).map(|n| format!("host-{n}.example.org")).collect();
        assert_eq!(some(&names), "host-0.example.org, host-1.example.org and 198 more");
        let long = ["x".repeat(64)];
        assert_eq!(some(&long), long[0]);
        let services = TunnelsReport {
            total: 1,
            services: vec![TunnelReport { agents: names, ..service(&"t".repeat(36), 1, 0, &[]) }],
        };
        let page = bare(&services);
        assert!(page.lines().all(|line| line.len() <= 110), "{page}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        let none = TunnelsReport { total: 0, services: Vec::new() };
        assert_eq!(page(&none, false), "no tunnel is attached anywhere\n");
        assert_eq!(page(&none, true), "no tunnel is like that\n");
    }
}
