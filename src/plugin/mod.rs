//! The meaning of gost's calls, in whatever protocol they arrive: [`ServiceDiscovery`] and [`Ingress`]. [`http`] and
//! [`grpc`] translate, [`server`] serves within [`bounds`], [`token`] and [`tls`] keep others out; nothing here waits.

mod adapter;
pub mod bounds;
mod call;
mod calls;
mod connections;
mod content;
mod frames;
pub(crate) mod gate;
pub mod grpc;
pub mod http;
pub(crate) mod ingress;
pub(crate) mod metrics;
mod progress;
mod reach;
mod refusals;
pub mod reload;
pub(crate) mod server;
mod stream;
pub mod tls;
pub(crate) mod token;

use std::sync::Arc;

pub use self::gate::CaughtUp;
pub use self::ingress::{By, Found, Ingress, Names};
pub use self::metrics::Meter;
pub use self::reach::Reach;
pub(crate) use self::refusals::ClaimRefused;
pub use self::token::{Tokens, Unauthenticated};
pub use gossd_core::connection::Caller;

use crate::agent::Agent;
use gossd_core::address::Address;
use gossd_core::agent::Heal;
use gossd_core::connection::ConnectionId;
use gossd_core::entrypoints::Place;
use gossd_core::lease::Holding;
use gossd_core::quota::Full;
use gossd_core::record::{Draft, FieldError, Record, check_name};

#[cfg(feature = "fuzz")]
pub use self::calls::answer;

/// The program that calls, by its `User-Agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// gost, which is written in Go: its questions are evidence of what it has lost.
    Gost,
    /// Another program or a person: their questions are no evidence.
    Other,
}

impl Program {
    /// By the beginning of its `User-Agent`; `gost` is how gost's begins in this protocol.
    pub fn of(user_agent: Option<&[u8]>, gost: &str) -> Self {
        let is_gost = user_agent.is_some_and(|agent| agent.starts_with(gost.as_bytes()));
        if is_gost { Self::Gost } else { Self::Other }
    }
}

/// A call that was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// A field is invalid.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Renew of an id that is not registered at this agent.
    #[error("this id is not registered here")]
    Unknown,
    /// No room for more.
    #[error(transparent)]
    Full(#[from] Full),
    /// The token is missing or wrong.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
}

/// Everything that answers gost's calls.
#[derive(Clone)]
pub struct Plugin {
    /// Where a tunnel is attached.
    pub sd: ServiceDiscovery,
    /// Which tunnel a host name belongs to.
    pub ingress: Ingress,
    /// The tokens of which a call needs one.
    pub tokens: Tokens,
    /// Reads of a starting agent wait for this.
    pub caught_up: CaughtUp,
}

/// gost's service discovery, answered by one agent.
#[derive(Clone)]
pub struct ServiceDiscovery {
    agent: Agent,
    reach: Arc<Reach>,
}

impl ServiceDiscovery {
    /// Answers from this agent.
    pub fn new(agent: Agent, reach: impl Into<Arc<Reach>>) -> Self {
        Self { agent, reach: reach.into() }
    }

    /// Register: takes the record and completes its address. gost sends no address if its configuration has a list of
    /// entrypoints, or none.
    pub fn register(&self, caller: Caller, by: Program, draft: Draft<'_>) -> Result<(), CallError> {
        if draft.address.is_empty() {
            return self.register_elsewhere(caller, draft);
        }
        let record = draft.register(&self.reach.host(caller))?;
        if caller.remote.is_none() && record.address != *draft.address {
            self.reach.warn_once(&record);
        }
        let dial = Address::from(self.reach.dial(caller, draft.address));
        // A person may call with an address that is no gost's; such an address is not remembered.
        let is_gost = by == Program::Gost || !dial.is_empty();
        let holding = Holding { record: Arc::new(record), dial };
        let register = if is_gost { Agent::register_of_gost } else { Agent::register };
        Ok(register(&self.agent, caller, holding)?)
    }

    /// Registers a connector without an address: at the operator's fallback, or where its gost, or else any gost of its
    /// host, registered last.
    fn register_elsewhere(&self, caller: Caller, draft: Draft<'_>) -> Result<(), CallError> {
        let host = self.reach.host(caller);
        let place = match self.reach.fallback() {
            Some(fallback) => {
                let address = fallback.completed(&host);
                let dial = self.reach.dial(caller, &address.to_string()).into();
                Some(Place { address, dial })
            }
            None => self.agent.registered_last(caller, draft),
        };
        let (address, dial) =
            place.map_or_else(Default::default, |Place { address, dial }| (address.to_string(), dial));
        // If no address is known, this fails with the reason.
        let record = Draft { address: &address, ..draft }.register(&host)?;
        Ok(self.agent.register_unsaid(caller, Holding { record: Arc::new(record), dial })?)
    }

    /// Renew: extends the lease.
    pub fn renew(&self, caller: Caller, draft: Draft<'_>) -> Result<(), CallError> {
        let draft = draft.identify()?;
        let fallback = self.reach.fallback();
        let heal = Heal {
            dial: &|address| self.reach.dial(caller, address),
            fallback: fallback.map(|entrypoint| entrypoint.completed(&self.reach.host(caller))),
        };
        if self.agent.renew(caller, draft, &heal)? { Ok(()) } else { Err(CallError::Unknown) }
    }

    /// Deregister: releases the id.
    pub fn deregister(&self, caller: Caller, draft: Draft<'_>) -> Result<(), CallError> {
        self.agent.deregister(caller, draft.identify()?);
        Ok(())
    }

    /// Get: the records of a tunnel; gost dials the first one. If a gost of this host asks, the question is evidence
    /// about its own records.
    pub fn get(&self, caller: Caller, by: Program, name: &str) -> Result<Vec<Arc<Record>>, CallError> {
        let name = check_name(name)?;
        // gost's router handler, whose names have an `@`, asks for all its peers: no evidence.
        if by == Program::Gost && caller.remote.is_none() && !name.contains('@') {
            return Ok(self.agent.resolve_for(caller.connection, name));
        }
        Ok(self.agent.resolve(name))
    }

    /// Notes a question from a gost of this host. The question does not name the instance.
    fn called(&self, caller: Caller, by: Program, is_visit: bool) {
        if by == Program::Gost && caller.remote.is_none() {
            self.agent.called(caller.connection, is_visit);
        }
    }

    /// A plugin connection is closed: perhaps its gost is dead.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.agent.connection_closed(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gost_is_recognized_by_its_user_agent() {
        for (user_agent, gost, is) in [
            (&b"Go-http-client/1.1"[..], "Go-http-client/", true),
            (b"grpc-go/1.67.1", "grpc-go/", true),
            (b"curl/8.14.1", "Go-http-client/", false),
            (b"grpcurl/v1.9.3 grpc-go/1.61.0", "grpc-go/", false),
            (b"", "grpc-go/", false),
        ] {
            assert_eq!(
                Program::of(Some(user_agent), gost) == Program::Gost,
                is,
                "{}",
                user_agent.escape_ascii()
            );
        }
        assert_eq!(Program::of(None, "grpc-go/"), Program::Other);
    }
}
