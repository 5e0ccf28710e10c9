//! `gossd hosts`: the host names that lead to tunnels.

use std::process::ExitCode;

use clap::Args;

use super::NOTHING_FOUND;
use super::ask::{self, AgentArgs, show};
use super::client;
use super::services::{more, parse_limit, some};
use super::table::{BAD, TextTable, USUAL};
use crate::ops::LIMIT;
use crate::ops::report::{HostNameReport, HostsReport};

#[derive(Debug, Args)]
pub(super) struct HostsArgs {
    /// Only names that have this in them, or whose tunnel's id has
    #[arg(value_name = "TEXT")]
    search: Option<String>,
    /// How many are printed at most, up to 10000
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = parse_limit)]
    limit: usize,
    #[command(flatten)]
    asked: AgentArgs,
}

pub(super) fn hosts(args: &HostsArgs) -> anyhow::Result<ExitCode> {
    let search = args.search.as_deref().unwrap_or_default();
    let path = client::path("/hosts.json", &[("search", search), ("limit", &args.limit.to_string())]);
    let reply = ask::get(&args.asked, &path)?;
    show(args.asked.json, &reply, |hosts| page(hosts, search))?;
    let found = reply.report.total > 0 || search.is_empty();
    Ok(if found { ExitCode::SUCCESS } else { NOTHING_FOUND.into() })
}

fn page(HostsReport { total, hosts }: &HostsReport, search: &str) -> String {
    match (*total, search) {
        (0, "") => return "no host name leads to a tunnel here, but for each tunnel's hash host\n".into(),
        (0, _) => return format!("no host name has {search:?} in it or in its tunnel's id\n"),
        _ => {}
    }
    let mut table = TextTable::new(&["HOST", "TUNNEL", "BY", "LISTED", "AGENTS"]).with_numbers(&[3]);
    for HostNameReport { host, by, private, tunnel, listed, agents } in hosts {
        let by = if *private { format!("{by}, private") } else { by.clone() };
        let style = if *listed == 0 { BAD } else { USUAL };
        let agents = if agents.is_empty() { "-".into() } else { some(agents) };
        table.row(style, &[host, tunnel, &by, &listed.to_string(), &agents]);
    }
    table.text() + &more(hosts.len(), *total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_tunnel_and_where_that_is_attached() {
        let name = |host: &str, private, agents: &[&str]| HostNameReport {
            host: host.into(),
            by: "claimed".into(),
            private,
            tunnel: "t".into(),
            listed: agents.len(),
            agents: agents.iter().copied().map(str::to_owned).collect(),
        };
        let hosts = vec![name("blog.example.org", false, &["a", "b"]), name("shop.example.org", true, &[])];
        let text = anstream::adapter::strip_str(&page(&HostsReport { total: 3, hosts }, "")).to_string();
        let want = "\
HOST              TUNNEL  BY                LISTED  AGENTS
blog.example.org  t       claimed                2  a, b
shop.example.org  t       claimed, private       0  -
1 more: --limit 3
";
        assert_eq!(text, want);
        let none = HostsReport { total: 0, hosts: Vec::new() };
        assert!(page(&none, "x").contains("no host name has \"x\""));
    }
}
