//! The attacks, and the process that makes each.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{clients, member, network};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attack {
    /// No attack, for comparison.
    Nothing,
    Frames,
    Bytes,
    GossipConnections,
    GossipDribble,
    GossipReplay,
    PluginConnections,
    Slowloris,
    HugeHeaders,
    Pipelining,
    HalfClosed,
    RapidReset,
    SettingsFlood,
    NeverReads,
    /// Hellos under a key id that was seen, with a code that does not fit.
    ForgedHellos,
    /// A peer's Hello, from many addresses.
    RecordedHellos,
    /// The same, with the cookies that it is answered with.
    RecordedHellosWithCookies,
    /// Frames that were made for another agent.
    Misdirected,
    /// The agent's own frames.
    Reflected,
    /// By a holder of the key: handshakes under the name of a live agent.
    AnothersName,
    /// Frames of a peer that is dead by now. The last one: such a peer is forgotten after some minutes, and that changes
    /// what the agent knows.
    HeldBack,
}

/// Which attacker makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Nobody,
    Network,
    Member,
    Client,
}

impl Attack {
    pub(crate) const ALL: [Self; 21] = [
        Self::Nothing,
        Self::Frames,
        Self::Bytes,
        Self::GossipConnections,
        Self::GossipDribble,
        Self::GossipReplay,
        Self::PluginConnections,
        Self::Slowloris,
        Self::HugeHeaders,
        Self::Pipelining,
        Self::HalfClosed,
        Self::RapidReset,
        Self::SettingsFlood,
        Self::NeverReads,
        Self::ForgedHellos,
        Self::RecordedHellos,
        Self::RecordedHellosWithCookies,
        Self::Misdirected,
        Self::Reflected,
        Self::AnothersName,
        Self::HeldBack,
    ];

    /// Its name in the table, and what is counted as sent.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Nothing => ("none", ""),
            Self::Frames => ("gossip: forged and replayed frames", "frames"),
            Self::Bytes => ("gossip: random, cut, oversized", "datagrams"),
            Self::GossipConnections => ("gossip: silent connections", "connections"),
            Self::GossipDribble => ("gossip: a byte a second, 4 GB", "connections"),
            Self::GossipReplay => ("gossip: replayed by TCP", "frames"),
            Self::PluginConnections => ("plugin: silent connections", "connections"),
            Self::Slowloris => ("plugin: heads byte by byte", "connections"),
            Self::HugeHeaders => ("plugin: endless heads", "kB"),
            Self::Pipelining => ("plugin: pipelined Gets", "calls"),
            Self::HalfClosed => ("plugin: half-closed", "connections"),
            Self::RapidReset => ("plugin: HTTP/2 rapid reset", "streams"),
            Self::SettingsFlood => ("plugin: HTTP/2 settings, pings", "frames"),
            Self::NeverReads => ("plugin: answers never read", "calls"),
            Self::ForgedHellos => ("gossip: forged Hellos", "frames"),
            Self::RecordedHellos => ("gossip: recorded Hellos", "frames"),
            Self::RecordedHellosWithCookies => ("gossip: recorded, with cookies", "frames"),
            Self::Misdirected => ("gossip: made for another agent", "frames"),
            Self::Reflected => ("gossip: the agent's own, reflected", "frames"),
            Self::AnothersName => ("member: in a live agent's name", "frames"),
            Self::HeldBack => ("gossip: held back, sender is dead", "frames"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.words().0
    }

    /// Whether Hellos are among its frames: the agent may answer valid ones, and some others with the reason why not, which an
    /// operator needs who has the wrong key. No answer is larger than its Hello.
    pub(crate) fn is_answered(self) -> bool {
        matches!(
            self,
            Self::ForgedHellos | Self::RecordedHellos | Self::RecordedHellosWithCookies | Self::AnothersName
        )
    }

    pub(crate) fn unit(self) -> &'static str {
        self.words().1
    }

    pub(crate) fn side(self) -> Side {
        match self.name() {
            name if name.starts_with("gossip") => Side::Network,
            name if name.starts_with("member") => Side::Member,
            name if name.starts_with("plugin") => Side::Client,
            _ => Side::Nobody,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) attack: Attack,
    pub(crate) gossip: SocketAddr,
    pub(crate) plugin: SocketAddr,
    /// The duration.
    pub(crate) millis: u64,
    pub(crate) frames: u64,
    pub(crate) connections: u64,
    /// The frames that it has.
    pub(crate) recorded: Vec<Vec<u8>>,
    /// A member's key.
    pub(crate) key: Option<String>,
}

impl Orders {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// A pace at which `count` things, `of_tick` at a time, take nine tenths of the duration.
    pub(crate) fn pace(&self, count: u64, of_tick: u64) -> Interval {
        let ticks = u32::try_from(count.div_ceil(of_tick).max(1)).unwrap_or(u32::MAX);
        let mut pace = tokio::time::interval((self.time() * 9 / 10 / ticks).max(Duration::from_micros(100)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        pace
    }

    pub(crate) fn end(&self) -> Instant {
        Instant::now() + self.time()
    }
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct AttackReport {
    pub(crate) sent: u64,
    /// Bytes of datagrams that were sent.
    pub(crate) sent_bytes: u64,
    /// Bytes that came back.
    pub(crate) answered: u64,
}

/// Starts an attacker's process.
pub(crate) fn start(orders: &Orders) -> anyhow::Result<Child> {
    let mut child = Command::new("nice")
        .args(["-n", "10"])
        .arg(std::env::current_exe()?)
        .args(["siege", "--role", &serde_json::to_string(orders)?])
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin = None;
    Ok(child)
}

/// Waits for the end of the process.
pub(crate) fn finish(child: Child) -> anyhow::Result<AttackReport> {
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "an attacker failed");
    serde_json::from_slice(&output.stdout).context("a report")
}

pub(crate) fn run(orders: &Orders) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        match orders.attack.side() {
            Side::Nobody => {
                tokio::time::sleep(orders.time()).await;
                Ok(AttackReport::default())
            }
            Side::Network => network::attack(orders).await,
            Side::Member => member::attack(orders).await,
            Side::Client => clients::attack(orders).await,
        }
    })?;
    std::io::stdout().write_all(&serde_json::to_vec(&report)?)?;
    Ok(())
}
