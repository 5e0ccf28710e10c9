//! Rules in the packet filter of this network namespace, inserted and removed with the `iptables` program. Knows
//! nothing of their purpose.

use std::fs::read_to_string;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A target that loses a packet without a trace: a queue that nobody reads. DROP on the way out would return EPERM to
/// the sender, which no network does.
pub(crate) const LOST: [&str; 4] = ["-j", "NFQUEUE", "--queue-num", "65535"];
/// An Ethernet's MTU, used if no interface has one.
const DEFAULT_MTU: usize = 1_500;

pub(crate) struct PacketRule {
    pub(crate) table: &'static str,
    pub(crate) chain: &'static str,
    /// The match and the target.
    pub(crate) spec: Vec<String>,
}

/// Rules in force, until [`Rules::remove`].
pub(crate) struct Rules(Vec<PacketRule>);

impl Rules {
    /// Inserts all of them, or none. They go to the head of their chain, so that rules that lose packets come before
    /// rules that delay them, whichever was made first.
    pub(crate) fn insert(rules: impl IntoIterator<Item = PacketRule>) -> anyhow::Result<Self> {
        Self::install("-I", rules)
    }

    /// Appends all of them to their chain, or none.
    pub(crate) fn append(rules: impl IntoIterator<Item = PacketRule>) -> anyhow::Result<Self> {
        Self::install("-A", rules)
    }

    fn install(how: &str, rules: impl IntoIterator<Item = PacketRule>) -> anyhow::Result<Self> {
        let mut installed = Self(Vec::new());
        for rule in rules {
            if let Err(error) = iptables(how, &rule) {
                installed.remove();
                return Err(error);
            }
            installed.0.push(rule);
        }
        Ok(installed)
    }

    /// Removes them. If one is already gone, the others are removed all the same.
    pub(crate) fn remove(self) {
        for rule in &self.0 {
            if let Err(error) = iptables("-D", rule) {
                eprintln!("fakegost: {error:#}");
            }
        }
    }
}

fn iptables(how: &str, PacketRule { table, chain, spec }: &PacketRule) -> anyhow::Result<()> {
    let mut command = Command::new("iptables");
    command.args(["-w", "10", "-t", table, how, chain]).args(spec);
    let ran = command.output().context("iptables")?;
    ensure!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The longest packet that leaves this namespace unfragmented on every interface.
pub(crate) fn mtu() -> usize {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let of = |interface: std::fs::DirEntry| {
        let flags = read_to_string(interface.path().join("flags")).ok()?;
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok()?;
        // IFF_UP without IFF_LOOPBACK.
        let goes_out = flags & 0b1001 == 0b0001;
        let mtu = read_to_string(interface.path().join("mtu")).ok()?.trim().parse().ok()?;
        goes_out.then_some(mtu)
    };
    interfaces.filter_map(of).min().unwrap_or(DEFAULT_MTU)
}
