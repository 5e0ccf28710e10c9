//! The peers that an earlier start knew: kept in a file, and waited for before the first reads are answered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::journal::peers::{self, KEPT_FOR, PeerAddresses};
use crate::net::Cluster;
use crate::plugin::CaughtUp;
use crate::plugin::gate::CATCH_UP;

/// At most this often, the peers are written to the file.
const REMEMBER: Duration = Duration::from_secs(1);
/// How often the file is looked for.
const MISSED: Duration = Duration::from_secs(10);
/// How often a starting agent checks whether its peers have sent their records.
const LOOK: Duration = Duration::from_millis(5);

/// Keeps the known peers in a file: those that are alive, and for a while those that were.
pub(super) async fn remember(cluster: Cluster, known: PeerAddresses, path: PathBuf) -> anyhow::Result<()> {
    let mut heard = cluster.watch_peers();
    let mut last = Instant::now();
    let mut seen: BTreeMap<_, _> = known.into_iter().map(|(name, address)| (name, (address, last))).collect();
    loop {
        let now = Instant::now();
        for peer in heard.borrow_and_update().iter() {
            seen.insert(peer.owner.name.clone(), (peer.addr, now));
        }
        seen.retain(|_, (_, at)| now.duration_since(*at) < KEPT_FOR);
        let known: PeerAddresses = seen.iter().map(|(name, (address, _))| (name.clone(), *address)).collect();
        let to = path.clone();
        if let Err(error) = spawn_blocking(move || peers::write(&to, &known)).await? {
            tracing::debug!(%error, "cannot write the file of known peers");
        }
        // While a cluster starts, peers appear one after the other; they share a write.
        tokio::time::sleep_until(last + REMEMBER).await;
        last = Instant::now();
        let is_due = async {
            // The file may be gone, with its folder or alone.
            while spawn_blocking({
                let path = path.clone();
                move || path.exists()
            })
            .await
            .unwrap_or_default()
            {
                tokio::time::sleep(MISSED).await;
            }
        };
        tokio::select! {
            _ = heard.changed() => {}
            () = is_due => {}
            () = tokio::time::sleep(KEPT_FOR) => {}
        }
    }
}

/// Lets reads through when the known peers have sent their records, or after [`CATCH_UP`].
pub(super) async fn catch_up(
    agent: Agent,
    known: PeerAddresses,
    joins: bool,
    caught_up: CaughtUp,
) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(CATCH_UP, async {
        let mut revision = agent.watch();
        while !agent.has_caught_up(known.keys(), joins) {
            // Records change the directory's revision; that a peer is alive does not, hence the timeout.
            let _ = tokio::time::timeout(LOOK, revision.changed()).await;
        }
    });
    if waited.await.is_err() {
        tracing::debug!("answering before every known peer has sent its records");
    }
    caught_up.reached();
    std::future::pending().await
}
