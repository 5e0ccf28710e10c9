//! Drops packets of one kind, one way, until it is told to end: a partition, a one-way partition, a path that
//! swallows what is long. Never on loopback.

use std::net::Ipv4Addr;

use anyhow::ensure;
use clap::Args;

use crate::iptables::{LOST, Rule, Rules, mtu, words};
use crate::stdout::say;

#[derive(Debug, Args)]
pub(crate) struct BlockArgs {
    /// What comes from these addresses
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    from: Vec<Ipv4Addr>,
    /// What goes to these addresses
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    to: Vec<Ipv4Addr>,
    /// What goes out and is longer, IP header included
    #[arg(long, value_name = "BYTES")]
    longer_than: Option<u16>,
    /// What goes out or comes in in fragments
    #[arg(long)]
    fragments: bool,
    /// Only UDP
    #[arg(long)]
    udp_only: bool,
}

/// Blocks until `ended`.
pub(crate) async fn run(args: &BlockArgs, ended: impl Future<Output = ()>) -> anyhow::Result<()> {
    let rules = args.rules();
    ensure!(!rules.is_empty(), "nothing to block: --from, --to, --longer-than or --fragments");
    let rules = Rules::insert(rules)?;
    say("ready");
    ended.await;
    rules.remove();
    Ok(())
}

impl BlockArgs {
    fn rules(&self) -> Vec<Rule> {
        let protocol: &[&str] = if self.udp_only { &["-p", "udp"] } else { &[] };
        let incoming = |spec: &[&str]| Rule {
            table: "filter",
            chain: "INPUT",
            spec: words(&[&["!", "-i", "lo"], protocol, spec, &["-j", "DROP"]].concat()),
        };
        let outgoing = |spec: &[&str]| Rule {
            table: "filter",
            chain: "OUTPUT",
            spec: words(&[&["!", "-o", "lo"], protocol, spec, &LOST].concat()),
        };
        let mut rules: Vec<_> = self.from.iter().map(|ip| incoming(&["-s", &ip.to_string()])).collect();
        rules.extend(self.to.iter().map(|ip| outgoing(&["-d", &ip.to_string()])));
        rules
            .extend(self.longer_than.map(|len| outgoing(&["-m", "length", "--length", &longer(len.into())])));
        if self.fragments {
            rules.extend(fragments());
        }
        rules
    }
}

/// Rules see a packet before it is cut and after it is put together: it is fragments if it is longer than the
/// way. TCP never is, but its segments are seen in bundles. Only without connection tracking `-f` sees any.
fn fragments() -> [Rule; 3] {
    let len = longer(mtu());
    let long = ["-p", "udp", "-m", "length", "--length", &len];
    [
        Rule { table: "raw", chain: "PREROUTING", spec: words(&["!", "-i", "lo", "-f", "-j", "DROP"]) },
        Rule {
            table: "filter",
            chain: "INPUT",
            spec: words(&[&["!", "-i", "lo"], &long[..], &["-j", "DROP"]].concat()),
        },
        Rule {
            table: "filter",
            chain: "OUTPUT",
            spec: words(&[&["!", "-o", "lo"], &long[..], &LOST].concat()),
        },
    ]
}

/// The lengths above one, as the `length` match says them.
fn longer(len: usize) -> String {
    format!("{}:65535", (len + 1).min(65_535))
}
