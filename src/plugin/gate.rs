//! Connections are accepted from the first moment of an agent, because a refused connection costs gost more than a
//! second. Calls wait here for some milliseconds, until the agent has read its journal. Reads also wait until the agent
//! has received the records of the peers that it knew, or for [`CATCH_UP`] at most: an empty answer fails a visitor.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::sync::SetOnce;
use tokio::time::timeout;

use super::{Caller, Plugin, ServiceDiscovery, adapter};

/// How long reads wait for the peers of a starting agent. gost gives a visitor's request 15 s.
pub(crate) const CATCH_UP: Duration = Duration::from_millis(500);
/// How long calls wait for the journal of a starting agent. Reading 100,000 records takes a third of a second.
const START: Duration = Duration::from_secs(5);

/// Opens once, when the agent is ready to answer.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<SetOnce<ReadyAgent>>);

/// What answers.
pub(super) struct ReadyAgent {
    /// gost's calls.
    pub(super) plugin: Plugin,
    /// Other calls.
    pub(super) others: TowerToHyperService<Router>,
    has_agent: HasAgent,
}

/// Whether an agent is alive at the host with this address.
pub(crate) type HasAgent = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Gate {
    /// Lets calls through to an agent.
    pub(crate) async fn open(&self, plugin: Plugin, has_agent: HasAgent) {
        let others = TowerToHyperService::new(adapter::others().await);
        // Only the daemon opens it, once.
        let _ = self.0.set(ReadyAgent { plugin, others, has_agent });
    }

    /// Whether a caller is a guest whose own agent is back. The guest's gost dials its own agent first, so it would
    /// reach that one.
    pub(super) fn is_for_home(&self, caller: Caller) -> bool {
        let Some((guest, ready)) = caller.remote.zip(self.0.get()) else { return false };
        (ready.has_agent)(guest)
    }

    /// What answers, as soon as the gate is open; `None` if that takes too long.
    pub(super) async fn ready(&self) -> Option<&ReadyAgent> {
        match self.0.get() {
            Some(ready) => Some(ready),
            None => timeout(START, self.0.wait()).await.ok(),
        }
    }

    /// The agent, once the gate is open. A connection that closes earlier has made no call.
    pub(super) fn sd(&self) -> Option<&ServiceDiscovery> {
        self.0.get().map(|ready| &ready.plugin.sd)
    }
}

/// Whether an agent has caught up with the peers that it knew before its start; clones share it.
#[derive(Clone, Debug, Default)]
pub struct CaughtUp(Arc<SetOnce<()>>);

impl CaughtUp {
    /// Of an agent that has no peers to wait for.
    pub fn already() -> Self {
        let caught_up = Self::default();
        caught_up.reached();
        caught_up
    }

    /// The agent has caught up, or has waited long enough.
    pub fn reached(&self) {
        // A second time changes nothing.
        let _ = self.0.set(());
    }

    /// Waits until the agent has caught up: at most during its first half second.
    pub async fn wait(&self) {
        if !self.0.initialized() {
            self.0.wait().await;
        }
    }
}
