//! Connections are taken from an agent's first moment, because one that is refused costs gost a second and more; its
//! calls wait here, for milliseconds, until the agent has what its journal kept. Reads also wait until it has heard the
//! peers that it knew, or for [`CATCH_UP`] at most: an empty answer is a failed visitor.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::SetOnce;
use tokio::time::timeout;

use super::{Caller, Plugin, ServiceDiscovery};

/// How long reads of a starting agent wait for its peers. gost gives a visitor's request 15 s.
pub(crate) const CATCH_UP: Duration = Duration::from_millis(500);
/// How long calls of a starting agent wait for its journal, which takes a third of a second with 100,000 records.
const START: Duration = Duration::from_secs(5);

/// Opens once.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<SetOnce<Open>>);

struct Open {
    app: Router,
    sd: ServiceDiscovery,
    has_agent: HasAgent,
}

/// Whether an agent is heard at the host with this address.
pub(crate) type HasAgent = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Gate {
    /// Lets calls through to an agent.
    pub(crate) async fn open(&self, plugin: &Plugin, has_agent: HasAgent) {
        let app = super::server::routes(plugin).await;
        // Only the daemon opens it, once.
        let _ = self.0.set(Open { app, sd: plugin.sd.clone(), has_agent });
    }

    /// Whether a caller is a guest that has an agent of its own again: its gost has that one's address before ours, and
    /// would go there if it dialled.
    pub(super) fn is_for_home(&self, caller: Caller) -> bool {
        let Some((guest, open)) = caller.remote.zip(self.0.get()) else { return false };
        (open.has_agent)(guest)
    }

    /// What answers calls, as soon as something does; none if that takes too long.
    pub(super) async fn app(&self) -> Option<Router> {
        timeout(START, self.0.wait()).await.ok().map(|open| open.app.clone())
    }

    /// The agent, if calls are let through. Who closes a connection before has said nothing.
    pub(super) fn sd(&self) -> Option<&ServiceDiscovery> {
        self.0.get().map(|open| &open.sd)
    }
}

/// Whether an agent has caught up with the peers that it knew before its start; clones share it.
#[derive(Clone, Debug, Default)]
pub struct CaughtUp(Arc<SetOnce<()>>);

impl CaughtUp {
    /// Of an agent that has nothing to catch up with.
    pub fn already() -> Self {
        let caught_up = Self::default();
        caught_up.reached();
        caught_up
    }

    /// It has, or has waited for long enough.
    pub fn reached(&self) {
        // Said twice is as good as once.
        let _ = self.0.set(());
    }

    /// Resolves when it has: at once but in the first half second.
    pub async fn wait(&self) {
        if !self.0.initialized() {
            self.0.wait().await;
        }
    }
}
