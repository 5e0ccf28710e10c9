//! Agents for tests: real daemons on loopback in this process, and waiting with a deadline.

pub(crate) mod browser;
pub(crate) mod frames;
pub(crate) mod gost;
pub(crate) mod http;
pub(crate) mod manifest;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod puppet;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::lease::Holding;
use gossd_core::record::{Draft, Network, Record};
use tokio_rustls::rustls::crypto::ring;

/// Waits until a condition holds, looking every few milliseconds; panics with `what` after the deadline.
/// Returns how long it took.
pub(crate) async fn eventually(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

/// An address of this host where nobody listens, and nobody else will: a port that the system gave and took back can be
/// another test's by now. The system gives none of these, and no connection starts from them.
pub(crate) fn nobody() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other processes begin elsewhere.
    let first = std::process::id().wrapping_mul(97) % 12_000;
    loop {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + (first + next) % 12_000).expect("below 32,000");
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(at).is_ok() {
            return at;
        }
    }
}

/// An HTTP client that keeps connections alive like gost's. reqwest requires a TLS provider, even without TLS.
pub(crate) fn client() -> reqwest::ClientBuilder {
    let _already_told = ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// Agents in one cluster, each with its own sockets.
pub(crate) struct TestCluster {
    pub agents: Vec<Daemon>,
}

impl TestCluster {
    /// Starts `count` agents that join at the first one, and waits until each knows all.
    pub(crate) async fn start(count: usize, adjust: impl Fn(usize, &mut Config)) -> Self {
        let mut cluster = Self { agents: Vec::new() };
        for n in 0..count {
            cluster.add(n, &adjust).await;
        }
        cluster.all_met().await;
        cluster
    }

    /// Starts one more agent that joins at the first one.
    pub(crate) async fn add(&mut self, n: usize, adjust: impl Fn(usize, &mut Config)) {
        let mut config = Config::loopback(format!("agent-{n}").parse().expect("a name"));
        if let Some(first) = self.agents.first() {
            config.join = vec![first.gossip.to_string().parse().expect("an address")];
        }
        adjust(n, &mut config);
        self.agents.push(Daemon::start(config).await.expect("an agent starts"));
    }

    pub(crate) async fn all_met(&self) {
        let count = self.agents.len();
        // All share this process, which makes a session for each pair of them, not optimized, beside another test.
        let deadline = Duration::from_secs(20) + Duration::from_secs(1) * u32::try_from(count).expect("few");
        eventually(deadline, "every agent knows every other", || {
            self.agents.iter().all(|agent| agent.counts().agents == count && agent.peers() == count - 1)
        })
        .await;
    }

    /// Waits until every agent's directory holds just these records.
    pub(crate) async fn all_hold(&self, deadline: Duration, what: &str, expected: usize) -> Duration {
        eventually(deadline, what, || self.agents.iter().all(|agent| agent.counts().records == expected))
            .await
    }
}

/// Writes a file that only its owner can read, as gossd wants secrets.
pub(crate) fn write_secret(path: &Path, text: impl AsRef<[u8]>) {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).expect("a file");
    file.write_all(text.as_ref()).expect("it can be written");
}

/// A record with this id and tunnel name, at an instance that nobody can dial.
pub(crate) fn record(id: &str, name: &str) -> Holding {
    let [id, name, node] = [id, name, "node-1"].map(Into::into);
    let record = Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:8420".into() };
    Holding { record: Arc::new(record), dial: "".into() }
}

/// The fields of a Deregister of this id.
pub(crate) fn named(id: &str) -> Draft<'_> {
    Draft { id, name: "t", node: "node-1", network: "", address: "" }
}

/// The ids that an agent answers for a tunnel name.
pub(crate) fn ids(agent: &Daemon, name: &str) -> Vec<String> {
    let mut ids: Vec<_> = agent.agent().resolve(name).iter().map(|r| r.id.to_string()).collect();
    ids.sort();
    ids
}
