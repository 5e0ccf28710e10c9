//! The operator's door to a running agent: one table of paths, which the admin listener and the control socket share.
//!
//! ```text
//! --admin, TCP ──────▶┐          ┌─▶ read: status, services, hosts, explain, matrix, events, page, probes, metrics
//!                     ├─ routes ─┤
//! --control, Unix ───▶┘          └─▶ change, by the socket only: leave, drain, forget, keys, invite, take-over, configuration, log
//! ```
//!
//! An answer is a [`report`] as JSON (the probes, the metrics and the page aside), an error [`report::ErrorReport`]. No
//! plugin call waits for anything here. Knows nothing of the plugin: what it reports of the plugin is given to it as
//! [`Outside`].

pub(crate) mod access;
mod config;
mod connections;
mod events;
mod explain;
pub(crate) mod history;
mod hosts;
mod import;
mod invite;
mod keys;
mod leave;
mod matrix;
#[cfg(feature = "schema")]
pub(crate) mod openapi;
mod page;
mod problems;
mod ready;
pub(crate) mod report;
mod routes;
mod server;
mod status;
pub(crate) mod takeover;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, Notify, mpsc, watch};

use self::ready::Readiness;
use self::report::HostReport;
use self::takeover::successor::Successor;
use crate::agent::Agent;
use crate::config::FlagValue;
use crate::host::OwnHost;
use crate::listeners::Handles;
use crate::net::Cluster;
use crate::own_log::RecentLines;
use crate::rejected::RejectedCounts;

pub(crate) use self::server::serve;
pub(crate) use self::status::{LIMIT, MAX_LIMIT};

/// Permissions of the control socket: only the agent's own user may open it.
pub(crate) const SOCKET_MODE: u32 = 0o600;

/// A rule for a host name, and the id of the tunnel that it leads to.
pub(crate) type Named = (HostReport, String);

/// Finds the rule that decides about a host name.
pub(crate) type Lookup = dyn Fn(&str) -> Option<Named> + Send + Sync;

/// Finds claims on a host name that were refused.
pub(crate) type RefusedClaims = dyn Fn(&str) -> Vec<report::RefusedClaim> + Send + Sync;

/// The tunnels of host names.
pub(crate) struct HostNames {
    /// Finds the tunnel of a host name, and the rule that leads to it.
    pub find: Box<Lookup>,
    /// All rules with their tunnels, but for hash hosts, in no particular order.
    pub all: Box<dyn Fn() -> Vec<Named> + Send + Sync>,
    /// Claims on a host name that were refused: the last one first.
    pub refused: Box<RefusedClaims>,
    /// Another number whenever a name leads elsewhere.
    pub revision: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What the composition root knows of the agent.
pub(crate) struct About {
    /// The cluster's id.
    pub cluster: String,
    /// Where peers reach the agent's gossip.
    pub host: watch::Receiver<OwnHost>,
    /// Where the gossip listens.
    pub gossip: SocketAddr,
    /// Where gost's calls come in, as URLs.
    pub plugins: Vec<String>,
    /// Whether they need a token.
    pub token: bool,
    /// Whether there are peers to join.
    pub joins: bool,
    /// The sockets, for a successor.
    pub handles: Arc<Handles>,
    /// The [`Journal::id`](crate::journal::Journal::id) of the journal.
    pub journal: Option<(u64, u64)>,
}

/// What an operator may ask of an agent and no other module here knows.
pub(crate) struct Outside {
    /// What the composition root knows of the agent.
    pub about: About,
    /// The tunnels of host names.
    pub hosts: HostNames,
    /// Takes what another store kept.
    pub import: Box<dyn Fn(&report::ImportOrder) -> report::ImportReport + Send + Sync>,
    /// The file of host names, if there is one.
    pub ingress_file: Box<dyn Fn() -> Option<report::IngressFileReport> + Send + Sync>,
    /// The plugin calls so far, by how long they took.
    pub calls: Box<dyn Fn() -> history::CallCounts + Send + Sync>,
    /// The metrics of every module.
    pub metrics: Registry,
    /// What has been wrong since the start and stays so.
    pub standing: Vec<report::Problem>,
    /// The newest lines of the log.
    pub log: RecentLines,
    /// Requests to the admin listener and the control socket that were turned away.
    pub rejected: Arc<RejectedCounts>,
    /// Plugin calls that were.
    pub calls_rejected: Arc<RejectedCounts>,
}

/// One agent, as operators see it.
pub struct Ops {
    agent: Agent,
    cluster: Cluster,
    outside: Outside,
    readiness: Readiness,
    name_cache: hosts::NameCache,
    history: history::History,
    flags: StdMutex<Vec<FlagValue>>,
    left: Notify,
    successors: (mpsc::Sender<Successor>, Mutex<mpsc::Receiver<Successor>>),
}

impl Ops {
    /// Reports on this agent, and changes it.
    pub(crate) fn new(agent: Agent, cluster: Cluster, outside: Outside) -> Arc<Self> {
        let readiness = Readiness::new(outside.about.joins);
        let (found, next) = mpsc::channel(1);
        let successors = (found, Mutex::new(next));
        let (name_cache, history) = (hosts::NameCache::default(), history::History::default());
        let (flags, left) = (StdMutex::default(), Notify::new());
        Arc::new(Self { agent, cluster, outside, readiness, name_cache, history, flags, left, successors })
    }

    /// These flags are in force from now on.
    pub(crate) fn set_flags(&self, flags: Vec<FlagValue>) {
        *self.flags.lock().unwrap_or_else(PoisonError::into_inner) = flags;
    }

    fn rejected(&self) -> &RejectedCounts {
        &self.outside.rejected
    }
}
