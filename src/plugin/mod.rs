//! What gost's calls mean, whatever protocol brought them. [`http`] translates; nothing here waits.

pub mod http;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::agent::Agent;
use crate::domain::address::Host;
use crate::domain::record::{Draft, FieldError, Record, check_name};
use crate::domain::slot::SlotsFull;

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// From this host.
    Local,
    /// From another host, or another network namespace.
    Remote(IpAddr),
}

impl From<IpAddr> for Caller {
    fn from(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        if ip.is_loopback() { Self::Local } else { Self::Remote(ip) }
    }
}

/// A call that was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is not what it should be.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Renew of an id that this agent does not know.
    #[error("this id is not registered here")]
    Unknown,
    /// No room.
    #[error(transparent)]
    Full(#[from] SlotsFull),
}

/// gost's service discovery, as one agent answers it.
#[derive(Clone)]
pub struct ServiceDiscovery {
    agent: Agent,
    reachable: Arc<Reachable>,
}

/// How other hosts reach this one: the host that completes the addresses of local gosts.
#[derive(Debug)]
pub struct Reachable {
    host: Host,
    /// Whether to say, once, that only this host can use it.
    warn: AtomicBool,
}

impl Reachable {
    /// As the operator said.
    pub fn given(host: Host) -> Self {
        Self { host, warn: AtomicBool::new(false) }
    }

    /// As the gossip advertises itself.
    pub fn assumed(ip: IpAddr) -> Self {
        Self { host: Host::Ip(ip.to_canonical()), warn: AtomicBool::new(ip.to_canonical().is_loopback()) }
    }
}

impl ServiceDiscovery {
    /// Answers from this agent.
    pub fn new(agent: Agent, reachable: Reachable) -> Self {
        Self { agent, reachable: Arc::new(reachable) }
    }

    /// Register: takes the record, its address completed.
    pub fn register(&self, caller: Caller, draft: Draft<'_>) -> Result<(), Refusal> {
        let record = match caller {
            Caller::Local => draft.register(&self.reachable.host)?,
            Caller::Remote(ip) => draft.register(&Host::Ip(ip))?,
        };
        if caller == Caller::Local && completed(&draft, &record) {
            self.warn_once(&record);
        }
        Ok(self.agent.register(record)?)
    }

    /// Renew: prolongs the lease.
    pub fn renew(&self, draft: Draft<'_>) -> Result<(), Refusal> {
        let draft = draft.identify()?;
        if self.agent.renew(draft.id) { Ok(()) } else { Err(Refusal::Unknown) }
    }

    /// Deregister: releases the id for ever.
    pub fn deregister(&self, draft: Draft<'_>) -> Result<(), Refusal> {
        self.agent.deregister(draft.identify()?.id);
        Ok(())
    }

    /// Get: the records of a tunnel, the first being the one that gost will dial.
    pub fn get(&self, name: &str) -> Result<Vec<Arc<Record>>, Refusal> {
        Ok(self.agent.resolve(check_name(name)?))
    }

    fn warn_once(&self, record: &Record) {
        if self.reachable.warn.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                address = %record.address,
                "gost's entrypoint names no host, and this agent knows no address of this host that others can \
                 dial: tunnels attached here work from this host only. Set --advertise-host"
            );
        }
    }
}

fn completed(draft: &Draft<'_>, record: &Record) -> bool {
    draft.address != &*record.address
}
