//! Rules in this network namespace's packet filter, put there with the `iptables` program and taken away again.
//! Knows nothing of what they are for.

use std::fs::read_to_string;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// How a packet is lost without a trace: in a queue that nobody reads. DROP on the way out would tell the sender
/// with an EPERM, as no network does.
pub(crate) const LOST: [&str; 4] = ["-j", "NFQUEUE", "--queue-num", "65535"];
/// An Ethernet's, where no interface tells its own.
const DEFAULT_MTU: usize = 1_500;

/// One rule.
pub(crate) struct Rule {
    pub(crate) table: &'static str,
    pub(crate) chain: &'static str,
    /// What it matches, and what it does.
    pub(crate) spec: Vec<String>,
}

/// Rules in force; [`Rules::remove`] ends that.
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Puts all of them in force, or none. The first of a chain are asked first: what loses packets goes before
    /// what delays them, whoever came first.
    pub(crate) fn insert(rules: impl IntoIterator<Item = Rule>) -> anyhow::Result<Self> {
        Self::install("-I", rules)
    }

    /// The same, asked last.
    pub(crate) fn append(rules: impl IntoIterator<Item = Rule>) -> anyhow::Result<Self> {
        Self::install("-A", rules)
    }

    fn install(how: &str, rules: impl IntoIterator<Item = Rule>) -> anyhow::Result<Self> {
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

    /// Takes them away. One that is not there any more is no reason to leave the others.
    pub(crate) fn remove(self) {
        for rule in &self.0 {
            if let Err(error) = iptables("-D", rule) {
                eprintln!("fakegost: {error:#}");
            }
        }
    }
}

fn iptables(how: &str, Rule { table, chain, spec }: &Rule) -> anyhow::Result<()> {
    let mut command = Command::new("iptables");
    command.args(["-w", "10", "-t", table, how, chain]).args(spec);
    let ran = command.output().context("iptables")?;
    ensure!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}

/// Words of a rule.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The longest packet that leaves this namespace whole, whatever way it goes.
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
