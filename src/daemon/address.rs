//! The task that follows this host from address to address.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::agent::Agent;
use crate::host::{HostFinder, OwnHost, Resolved};
use crate::net::Cluster;
use crate::plugin::Reach;

/// How often interfaces and routes are looked at: that costs a few system calls.
const LOOK: Duration = Duration::from_secs(1);
/// How often names are resolved.
const RESOLVE: Duration = Duration::from_secs(5);

/// What has to know where this host is.
pub(super) struct Followers {
    pub(super) own: watch::Sender<OwnHost>,
    pub(super) cluster: Cluster,
    pub(super) agent: Agent,
    pub(super) reach: Arc<Reach>,
    /// Where the gossip listens.
    pub(super) bound: SocketAddr,
}

/// What the resolver was asked.
type ResolverQuestion = Pin<Box<dyn Future<Output = Resolved> + Send>>;

/// Looks where this host is, for ever, and tells whenever that is another place. When no peer is heard any more, names are
/// resolved at once: perhaps it is we who moved.
pub(super) async fn follow(mut finder: HostFinder, followers: Followers) -> anyhow::Result<()> {
    let Followers { own, cluster, agent, reach, bound } = followers;
    let mut peers = cluster.watch_peers();
    let (mut asked, mut is_alone, mut warned) = (Instant::now(), true, None);
    let mut question: Option<ResolverQuestion> = None;
    // A call that was completed with the former address may have been under way: a second look takes it along.
    let mut lost_before: Option<BTreeSet<IpAddr>> = None;
    let first = own.borrow().clone();
    cluster.readdress(first.gossip, first.addresses);
    loop {
        let before = own.borrow().clone();
        let problem = before.problem(bound);
        if problem != warned {
            if let Some(problem) = &problem {
                tracing::warn!("{problem}");
            }
            warned = problem;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            Ok(()) = peers.changed() => {}
            resolved = answer(&mut question) => {
                question = None;
                finder.take(resolved);
            }
        }
        finder.meet(peers.borrow_and_update().iter().map(|peer| peer.addr));
        let was_alone = std::mem::replace(&mut is_alone, peers.borrow().is_empty());
        if question.is_none() && (asked.elapsed() >= RESOLVE || is_alone && !was_alone) {
            question = Some(Box::pin(finder.question(&cluster.points())));
            asked = Instant::now();
        }
        let now = finder.look().await;
        let lost: BTreeSet<IpAddr> = before.addresses.difference(&now.addresses).copied().collect();
        let again = lost_before.take();
        if now != before {
            own.send_replace(now.clone());
            cluster.readdress(now.gossip, now.addresses.clone());
        }
        let is_moved = now.reachable != before.reachable || !lost.is_empty();
        if is_moved || again.is_some() {
            let all = again.iter().flatten().chain(&lost).copied();
            let all: BTreeSet<IpAddr> = all.filter(|ip| !now.addresses.contains(ip)).collect();
            let records = agent.readdress(|place| reach.moved(place, &all)).await;
            tracing::debug!(records, "records have another address");
        }
        if is_moved {
            lost_before = Some(lost);
        }
        if now.gossip != before.gossip {
            tracing::info!("our address changed from {} to {}", before.gossip, now.gossip);
        }
    }
}

/// The resolver's answer, if it was asked. Interfaces are looked at meanwhile.
async fn answer(question: &mut Option<ResolverQuestion>) -> Resolved {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}
