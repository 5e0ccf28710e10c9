//! The peers that an earlier start knew: kept in a file, and waited for before the first reads are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::journal::peers::{self, KEPT_FOR, PeerAddresses};
use crate::net::Cluster;
use crate::plugin::CaughtUp;
use crate::plugin::gate::CATCH_UP;
use gossd_core::slot::Status;

/// At most this often, the peers are written to the file.
const REMEMBER: Duration = Duration::from_secs(1);
/// How often the file is looked for.
const MISSED: Duration = Duration::from_secs(10);
/// How often a starting agent checks whether its peers have sent their records.
const LOOK: Duration = Duration::from_millis(5);

/// Keeps the known peers of a cluster in a file: those that are alive, and for a while those that were; none that left or was forgotten.
pub(super) async fn remember(
    cluster: Cluster,
    agent: Agent,
    known: PeerAddresses,
    path: PathBuf,
    of: String,
) -> anyhow::Result<()> {
    let (mut heard, mut changed, mut remembered) =
        (cluster.watch_peers(), agent.watch(), cluster.remembered());
    let (mut met, mut written) = (BTreeSet::new(), None);
    let mut last = Instant::now();
    let mut seen: BTreeMap<_, _> = known.into_iter().map(|(name, address)| (name, (address, last))).collect();
    loop {
        let now = Instant::now();
        for peer in heard.borrow_and_update().iter() {
            seen.insert(peer.owner.name.clone(), (peer.addr, now));
            // It is there: whether it answers where it was, or came by itself, it is not looked for any more.
            if remembered.borrow().contains_key(&peer.owner.name) {
                cluster.forget_remembered(&peer.owner.name);
            }
        }
        changed.mark_unchanged();
        let earlier = remembered.borrow_and_update().clone();
        let members = agent.view().members.into_iter().map(|member| (member.name, member.status));
        let members: BTreeMap<_, _> = members.collect();
        let was_there = met.clone();
        met = members.keys().cloned().collect();
        seen.retain(|name, (_, at)| {
            let left = members.get(name) == Some(&Some(Status::Left));
            let is_forgotten = was_there.contains(name) && !met.contains(name);
            if left || is_forgotten {
                cluster.forget_remembered(name);
            }
            // An operator may have said that one will not come back that this start never heard.
            let is_looked_for = *at == now || met.contains(name) || earlier.contains_key(name);
            is_looked_for && !left && now.duration_since(*at) < KEPT_FOR
        });
        let known: PeerAddresses = seen.iter().map(|(name, (address, _))| (name.clone(), *address)).collect();
        if written.as_ref() != Some(&known) {
            let (to, of, content) = (path.clone(), of.clone(), known.clone());
            match spawn_blocking(move || peers::write(&to, &of, &content)).await? {
                Ok(()) => written = Some(known),
                Err(error) => tracing::debug!(%error, "cannot write the file of known peers"),
            }
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
            _ = changed.changed() => {}
            _ = remembered.changed() => {}
            () = is_due => written = None,
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
