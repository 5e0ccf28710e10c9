//! The meaning of gost's calls, in whatever protocol they arrive: [`ServiceDiscovery`] and [`Ingress`]. [`http`] and
//! [`grpc`] translate, [`server`] serves within [`bounds`], [`token`] and [`tls`] keep others out; nothing here waits.

mod adapter;
pub mod bounds;
mod calls;
mod connections;
mod frames;
pub(crate) mod gate;
pub mod grpc;
pub mod http;
pub(crate) mod ingress;
pub(crate) mod metrics;
mod progress;
pub mod reload;
pub(crate) mod server;
mod stream;
pub mod tls;
pub(crate) mod token;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::gate::CaughtUp;
pub use self::ingress::{By, Found, Ingress, Names};
pub use self::metrics::Meter;
pub use self::token::{Tokens, Unauthenticated};
pub use gossd_core::connection::Caller;

use crate::agent::Agent;
use gossd_core::address::{Address, Entrypoint, Host};
use gossd_core::agent::{Heal, Restored};
use gossd_core::connection::ConnectionId;
use gossd_core::entrypoints::Place;
use gossd_core::lease::{Holding, KeptLeases};
use gossd_core::quota::Full;
use gossd_core::record::{Draft, FieldError, Record, check_name};

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

impl Plugin {
    /// Whether a call with this token, or without one, may be served. An adapter asks before it reads the call's
    /// content.
    pub fn admit(&self, token: Option<&[u8]>) -> Result<(), CallError> {
        Ok(self.tokens.admit(token)?)
    }

    /// Get, once the agent has caught up.
    pub async fn lookup(
        &self,
        caller: Caller,
        by: Program,
        name: &str,
    ) -> Result<Vec<Arc<Record>>, CallError> {
        self.sd.called(caller, by);
        self.caught_up.wait().await;
        self.sd.get(caller, by, name)
    }

    /// `GetRule`. A known rule is the answer at once; that there is none is the answer only once the agent has caught
    /// up.
    pub async fn lookup_rule(&self, caller: Caller, by: Program, host: &str) -> Result<String, CallError> {
        self.sd.called(caller, by);
        let endpoint = self.ingress.get_rule(host)?;
        if !endpoint.is_empty() {
            return Ok(endpoint);
        }
        self.caught_up.wait().await;
        self.ingress.get_rule(host)
    }
}

/// gost's service discovery, answered by one agent.
#[derive(Clone)]
pub struct ServiceDiscovery {
    agent: Agent,
    reach: Arc<Reach>,
}

/// How to reach the gosts that call.
#[derive(Debug)]
pub struct Reach {
    /// Completes the addresses of local gosts.
    host: Host,
    /// The entrypoint of gosts that were attached before this agent ran.
    fallback: Option<Entrypoint>,
    /// Whether to warn, once, that a completed address works only on this host.
    warn: AtomicBool,
}

impl Reach {
    /// Uses the host that the operator gave, or else the address that the gossip advertises.
    pub fn new(given: Option<Host>, gossip: IpAddr, fallback: Option<Entrypoint>) -> Self {
        let gossip = gossip.to_canonical();
        let warn = AtomicBool::new(given.is_none() && gossip.is_loopback());
        Self { host: given.unwrap_or(Host::Ip(gossip)), fallback, warn }
    }

    /// The host that completes this caller's addresses.
    fn host(&self, caller: Caller) -> Host {
        caller.remote.map_or_else(|| self.host.clone(), Host::Ip)
    }

    /// Completes the addresses of restored records anew: this host may have another address than before the start.
    pub fn returned(&self, restored: &mut Restored) {
        let Restored { leases: KeptLeases { held, lapsed, .. }, entrypoints, .. } = restored;
        for holding in held.iter_mut().chain(lapsed) {
            if let Some(address) = self.moved(&holding.record.address, &holding.dial) {
                holding.record = Arc::new(Record { address, ..Record::clone(&holding.record) });
            }
        }
        for Place { address, dial } in entrypoints.iter_mut().map(|registered| &mut registered.place) {
            if let Some(moved) = self.moved(address, dial) {
                *address = moved;
            }
        }
    }

    /// The address of a gost as it is reached now, if it has changed.
    fn moved(&self, address: &Address, dial: &Address) -> Option<Address> {
        let dial = dial.socket()?;
        let now = self.host.at(dial.port());
        // Only a gost on this host has a loopback address to dial.
        (dial.ip().is_loopback() && *address != now).then_some(now)
    }

    /// The address at which this agent can dial the gost that calls and listens on `entrypoint`; empty if unknown. A
    /// refused dial counts as a dead gost, so the address must certainly be that gost's.
    fn dial(&self, caller: Caller, entrypoint: &str) -> String {
        let Ok(entrypoint) = Entrypoint::parse(entrypoint) else { return String::new() };
        let home = caller.remote.unwrap_or(Ipv4Addr::LOCALHOST.into());
        match entrypoint.host() {
            Host::Unusable => match entrypoint.loopback() {
                Some(ip) if caller.remote.is_none() => SocketAddr::new(ip, entrypoint.port()).to_string(),
                _ => SocketAddr::new(home, entrypoint.port()).to_string(),
            },
            Host::Ip(ip) if *ip == home || is_ours(*ip) => {
                SocketAddr::new(*ip, entrypoint.port()).to_string()
            }
            host if *host == self.host(caller) => SocketAddr::new(home, entrypoint.port()).to_string(),
            Host::Ip(_) | Host::Name(_) => String::new(),
        }
    }
}

/// Whether an address belongs to this host: only then can a socket bind it. Sends nothing and does not wait.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

impl ServiceDiscovery {
    /// Answers from this agent.
    pub fn new(agent: Agent, reach: Reach) -> Self {
        Self { agent, reach: Arc::new(reach) }
    }

    /// Register: takes the record and completes its address. gost sends no address if its configuration has a list of
    /// entrypoints, or none.
    pub fn register(&self, caller: Caller, by: Program, draft: Draft<'_>) -> Result<(), CallError> {
        if draft.address.is_empty() {
            return self.register_elsewhere(caller, draft);
        }
        let record = draft.register(&self.reach.host(caller))?;
        if caller.remote.is_none() && record.address != *draft.address {
            self.warn_once(&record);
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
        let place = match &self.reach.fallback {
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
        let fallback = self.reach.fallback.as_ref();
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
    fn called(&self, caller: Caller, by: Program) {
        if by == Program::Gost && caller.remote.is_none() {
            self.agent.called(caller.connection);
        }
    }

    /// A plugin connection is closed: perhaps its gost is dead.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.agent.connection_closed(connection);
    }

    fn warn_once(&self, record: &Record) {
        if self.reach.warn.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                address = %record.address,
                "gost's entrypoint names no host, and this agent knows no address of this host that others can \
                 dial: tunnels attached here work from this host only. Set --advertise-host"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gossd_core::entrypoints::{EntrypointKey, Registered};
    use gossd_core::record::Network;

    const LOCAL: Caller = Caller { remote: None, connection: 1 };

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

    fn dial(host: &str, caller: Caller, entrypoint: &str) -> String {
        let reach = Reach::new(Some(Host::advertised(host).unwrap()), Ipv4Addr::LOCALHOST.into(), None);
        reach.dial(caller, entrypoint)
    }

    #[test]
    fn a_local_gost_is_dialled_on_this_host_and_nowhere_else() {
        for (entrypoint, want) in [
            (":8420", "127.0.0.1:8420"),
            ("0.0.0.0:8420", "127.0.0.1:8420"),
            ("[::]:8420", "127.0.0.1:8420"),
            ("127.0.0.11:8420", "127.0.0.11:8420"),
            ("[::1]:8420", "[::1]:8420"),
            ("192.0.2.7:8420", "127.0.0.1:8420"),
            ("198.51.100.9:8420", ""),
            ("gost.example.org:8420", ""),
            ("", ""),
        ] {
            assert_eq!(dial("192.0.2.7", LOCAL, entrypoint), want, "{entrypoint}");
        }
    }

    #[test]
    fn only_records_of_local_gosts_are_completed_anew_after_a_move() {
        let reach =
            Reach::new(Some(Host::advertised("192.0.2.8").unwrap()), Ipv4Addr::LOCALHOST.into(), None);
        let returned = |address: &str, dial: &str| {
            let [id, name, node] = ["1", "t", "n"].map(Into::into);
            let record = Arc::new(Record { id, name, node, network: Network::Tcp, address: address.into() });
            let held = vec![Holding { record, dial: dial.into() }];
            let key = EntrypointKey { node: "n".into(), routers: false };
            let place = Place { address: address.into(), dial: dial.into() };
            let entrypoints = vec![Registered { key, home: None, place, number: 0 }];
            let leases = KeptLeases { held, ..KeptLeases::default() };
            let mut restored = Restored { leases, entrypoints, ..Restored::default() };
            reach.returned(&mut restored);
            let moved = restored.leases.held[0].record.address.clone();
            assert_eq!(restored.entrypoints[0].place.address, moved);
            moved.to_string()
        };
        assert_eq!(returned("192.0.2.7:8420", "127.0.0.1:8420"), "192.0.2.8:8420");
        assert_eq!(returned("[2001:db8::7]:8420", "[::1]:8420"), "192.0.2.8:8420");
        for elsewhere in ["198.51.100.9:8420", ""] {
            assert_eq!(returned("198.51.100.9:8420", elsewhere), "198.51.100.9:8420");
        }
    }

    #[test]
    fn a_remote_gost_is_dialled_where_it_calls_from() {
        let caller = Caller::at("198.51.100.9".parse().unwrap(), 1);
        for (entrypoint, want) in [
            (":8420", "198.51.100.9:8420"),
            ("127.0.0.1:8420", "198.51.100.9:8420"),
            ("198.51.100.9:8420", "198.51.100.9:8420"),
            ("203.0.113.5:8420", ""),
        ] {
            assert_eq!(dial("192.0.2.7", caller, entrypoint), want, "{entrypoint}");
        }
    }
}
