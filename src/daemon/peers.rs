//! The peers that were known before a start: kept in a file, and caught up with before reads are answered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::gossip::Cluster;
use crate::journal::peers::{self, KEPT_FOR, Peers};
use crate::plugin::CaughtUp;
use crate::plugin::gate::CATCH_UP;

/// How often it is written down at most who the peers are.
const REMEMBER: Duration = Duration::from_secs(1);
/// How often a starting agent looks whether it has heard its peers.
const LOOK: Duration = Duration::from_millis(5);

/// Keeps in a file which peers are known: those that are heard, and for a while those that were.
pub(super) async fn remember(cluster: Cluster, known: Peers, path: PathBuf) -> anyhow::Result<()> {
    let mut heard = cluster.watch_peers();
    let mut last = Instant::now();
    let mut seen: BTreeMap<_, _> = known.into_iter().map(|(name, address)| (name, (address, last))).collect();
    loop {
        let now = Instant::now();
        for peer in heard.borrow_and_update().iter() {
            seen.insert(peer.owner.name.clone(), (peer.addr, now));
        }
        seen.retain(|_, (_, at)| now.duration_since(*at) < KEPT_FOR);
        let known: Peers = seen.iter().map(|(name, (address, _))| (name.clone(), *address)).collect();
        let to = path.clone();
        if let Err(error) = spawn_blocking(move || peers::write(&to, &known)).await? {
            tracing::debug!(%error, "cannot keep who the peers are");
        }
        // In a cluster that starts, peers come one after the other.
        tokio::time::sleep_until(last + REMEMBER).await;
        last = Instant::now();
        let _ = tokio::time::timeout(KEPT_FOR, heard.changed()).await;
    }
}

/// Lets reads through when the agent has heard the peers that it looks for, or after [`CATCH_UP`].
pub(super) async fn catch_up(
    agent: Agent,
    known: Peers,
    joins: bool,
    caught_up: CaughtUp,
) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(CATCH_UP, async {
        let mut revision = agent.watch();
        while !agent.has_caught_up(known.keys(), joins) {
            // Most of what matters changes the directory; that a peer is heard does not.
            let _ = tokio::time::timeout(LOOK, revision.changed()).await;
        }
    });
    if waited.await.is_err() {
        tracing::debug!("answering although not every known peer has told its records");
    }
    caught_up.reached();
    std::future::pending().await
}
