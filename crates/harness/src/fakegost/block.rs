//! Drops packets of one kind in one direction until it is stopped: a partition, a one-way partition, or a path that
//! loses long packets. Never on loopback.

use std::net::Ipv4Addr;

use anyhow::ensure;
use clap::Args;

use crate::iptables::{LOST, PacketRule, Rules, mtu, words};
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
    #[arg(long, conflicts_with = "port")]
    udp_only: bool,
    /// Only TCP to this port
    #[arg(long)]
    port: Option<u16>,
}

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
    fn rules(&self) -> Vec<PacketRule> {
        let port = self.port.map(|port| port.to_string());
        let protocol: &[&str] = match &port {
            Some(port) => &["-p", "tcp", "--dport", port],
            None if self.udp_only => &["-p", "udp"],
            None => &[],
        };
        let incoming = |spec: &[&str]| PacketRule {
            table: "filter",
            chain: "INPUT",
            spec: words(&[&["!", "-i", "lo"], protocol, spec, &["-j", "DROP"]].concat()),
        };
        let outgoing = |spec: &[&str]| PacketRule {
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

/// iptables rules see a packet before it is fragmented and after it is reassembled, so a packet counts as fragments if
/// it is longer than the MTU. TCP is never fragmented, but its segments are seen in bundles. Only without connection
/// tracking does `-f` match anything.
fn fragments() -> [PacketRule; 3] {
    let len = longer(mtu());
    let long = ["-p", "udp", "-m", "length", "--length", &len];
    [
        PacketRule { table: "raw", chain: "PREROUTING", spec: words(&["!", "-i", "lo", "-f", "-j", "DROP"]) },
        PacketRule {
            table: "filter",
            chain: "INPUT",
            spec: words(&[&["!", "-i", "lo"], &long[..], &["-j", "DROP"]].concat()),
        },
        PacketRule {
            table: "filter",
            chain: "OUTPUT",
            spec: words(&[&["!", "-o", "lo"], &long[..], &LOST].concat()),
        },
    ]
}

/// Lengths above this one, in the syntax of the `length` match.
fn longer(len: usize) -> String {
    format!("{}:65535", (len + 1).min(65_535))
}
