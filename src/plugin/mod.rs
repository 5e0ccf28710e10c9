//! What gost's calls mean, whatever protocol brought them: [`ServiceDiscovery`] and [`Ingress`]. [`http`]
//! and [`grpc`] translate, [`server`] serves within [`bounds`], [`token`] and [`tls`] keep others out; nothing
//! here waits.

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
use gossd_core::lease::{Holding, Kept};
use gossd_core::quota::Full;
use gossd_core::record::{Draft, FieldError, Record, check_name};

/// Which program calls, as far as its calls tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// gost, which is written in Go: what it asks is evidence.
    Gost,
    /// Another one, or a person: what they ask says nothing.
    Other,
}

impl Program {
    /// By what it says of itself in the `User-Agent` of its protocol, and what gost says there.
    pub fn of(user_agent: Option<&[u8]>, gost: &str) -> Self {
        let is_gost = user_agent.is_some_and(|said| said.starts_with(gost.as_bytes()));
        if is_gost { Self::Gost } else { Self::Other }
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
    Full(#[from] Full),
    /// No token, or a wrong one.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
}

/// All that one agent answers.
#[derive(Clone)]
pub struct Plugin {
    /// Which tunnel is attached where.
    pub sd: ServiceDiscovery,
    /// Which host name is whose.
    pub ingress: Ingress,
    /// Whose calls are taken.
    pub tokens: Tokens,
    /// What reads wait for in an agent's first moments.
    pub caught_up: CaughtUp,
}

impl Plugin {
    /// Whether a call with this token, if any, is taken. An adapter asks before it looks at the call's content.
    pub fn admit(&self, token: Option<&[u8]>) -> Result<(), Refusal> {
        Ok(self.tokens.admit(token)?)
    }

    /// Get, as soon as it can be answered.
    pub async fn lookup(&self, caller: Caller, by: Program, name: &str) -> Result<Vec<Arc<Record>>, Refusal> {
        self.sd.called(caller, by);
        self.caught_up.wait().await;
        self.sd.get(caller, by, name)
    }

    /// `GetRule`: what is known is answered at once, that nothing is known only when it can be.
    pub async fn lookup_rule(&self, caller: Caller, by: Program, host: &str) -> Result<String, Refusal> {
        self.sd.called(caller, by);
        let endpoint = self.ingress.get_rule(host)?;
        if !endpoint.is_empty() {
            return Ok(endpoint);
        }
        self.caught_up.wait().await;
        self.ingress.get_rule(host)
    }
}

/// gost's service discovery, as one agent answers it.
#[derive(Clone)]
pub struct ServiceDiscovery {
    agent: Agent,
    reach: Arc<Reach>,
}

/// How the gosts that call are reached.
#[derive(Debug)]
pub struct Reach {
    /// Completes the addresses of local gosts.
    host: Host,
    /// Where gosts are that were there before this agent.
    fallback: Option<Entrypoint>,
    /// Whether to say, once, that only this host can use a completed address.
    warn: AtomicBool,
}

impl Reach {
    /// By the host that the operator gave, or by the one as which the gossip advertises itself.
    pub fn new(given: Option<Host>, gossip: IpAddr, fallback: Option<Entrypoint>) -> Self {
        let gossip = gossip.to_canonical();
        let warn = AtomicBool::new(given.is_none() && gossip.is_loopback());
        Self { host: given.unwrap_or(Host::Ip(gossip)), fallback, warn }
    }

    /// The host that completes an address of this caller's.
    fn host(&self, caller: Caller) -> Host {
        caller.remote.map_or_else(|| self.host.clone(), Host::Ip)
    }

    /// Makes what was held before this start as it is reached now: the host of its gosts may have moved, and this agent
    /// with it.
    pub fn returned(&self, restored: &mut Restored) {
        let Restored { leases: Kept { held, lapsed, .. }, entrypoints, .. } = restored;
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

    /// Where a gost is reached now that was reached at an address, if that is elsewhere.
    fn moved(&self, address: &Address, dial: &Address) -> Option<Address> {
        let dial = dial.socket()?;
        let now = self.host.at(dial.port());
        // Only a gost beside this agent is dialled there.
        (dial.ip().is_loopback() && *address != now).then_some(now)
    }

    /// Where this agent can dial the gost that calls and listens on `entrypoint`; empty where that cannot be
    /// told. A refusal there means that it is dead, so it must be sure to be the gost's own host.
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

/// Whether an address is one of this host's: then a socket can have it. Sends nothing and waits for nothing.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

impl ServiceDiscovery {
    /// Answers from this agent.
    pub fn new(agent: Agent, reach: Reach) -> Self {
        Self { agent, reach: Arc::new(reach) }
    }

    /// Register: takes the record, its address completed. gost has no address where its configuration has a list of
    /// entrypoints, or none.
    pub fn register(&self, caller: Caller, by: Program, draft: Draft<'_>) -> Result<(), Refusal> {
        if draft.address.is_empty() {
            return self.register_elsewhere(caller, draft);
        }
        let record = draft.register(&self.reach.host(caller))?;
        if caller.remote.is_none() && record.address != *draft.address {
            self.warn_once(&record);
        }
        let (record, dial) = (Arc::new(record), Address::from(self.reach.dial(caller, draft.address)));
        self.agent.register(caller, Holding { record: record.clone(), dial: dial.clone() })?;
        // A person may try the plugin with an address that is no gost's.
        if by == Program::Gost || !dial.is_empty() {
            self.agent.note_entrypoint(caller, &record, &dial);
        }
        Ok(())
    }

    /// At the operator's fallback, or where its gost, or any gost of its host, registered last.
    fn register_elsewhere(&self, caller: Caller, draft: Draft<'_>) -> Result<(), Refusal> {
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
        // Without any, this says so.
        let record = Draft { address: &address, ..draft }.register(&host)?;
        Ok(self.agent.register_unsaid(caller, Holding { record: Arc::new(record), dial })?)
    }

    /// Renew: prolongs the lease.
    pub fn renew(&self, caller: Caller, draft: Draft<'_>) -> Result<(), Refusal> {
        let draft = draft.identify()?;
        let fallback = self.reach.fallback.as_ref();
        let heal = Heal {
            dial: &|address| self.reach.dial(caller, address),
            fallback: fallback.map(|entrypoint| entrypoint.completed(&self.reach.host(caller))),
        };
        if self.agent.renew(caller, draft, &heal)? { Ok(()) } else { Err(Refusal::Unknown) }
    }

    /// Deregister: releases the id.
    pub fn deregister(&self, caller: Caller, draft: Draft<'_>) -> Result<(), Refusal> {
        self.agent.deregister(caller, draft.identify()?);
        Ok(())
    }

    /// Get: the records of a tunnel, the first being the one that gost will dial. That a gost of this host asks tells
    /// something of what it registered here.
    pub fn get(&self, caller: Caller, by: Program, name: &str) -> Result<Vec<Arc<Record>>, Refusal> {
        let name = check_name(name)?;
        // gost's router handler, whose names have an `@`, asks for all its peers.
        if by == Program::Gost && caller.remote.is_none() && !name.contains('@') {
            self.agent.asked(caller.connection, name);
        }
        Ok(self.agent.resolve(name))
    }

    /// A question: if a gost of this host asks, it does not say which one it is.
    fn called(&self, caller: Caller, by: Program) {
        if by == Program::Gost && caller.remote.is_none() {
            self.agent.called(caller.connection);
        }
    }

    /// A connection of gost's is closed: perhaps the gost is dead.
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
    fn gost_is_told_by_what_its_client_says() {
        for (said, gost, is) in [
            (&b"Go-http-client/1.1"[..], "Go-http-client/", true),
            (b"grpc-go/1.67.1", "grpc-go/", true),
            (b"curl/8.14.1", "Go-http-client/", false),
            (b"grpcurl/v1.9.3 grpc-go/1.61.0", "grpc-go/", false),
            (b"", "grpc-go/", false),
        ] {
            assert_eq!(Program::of(Some(said), gost) == Program::Gost, is, "{}", said.escape_ascii());
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
    fn a_record_from_before_a_move_is_completed_anew_and_no_other() {
        let reach =
            Reach::new(Some(Host::advertised("192.0.2.8").unwrap()), Ipv4Addr::LOCALHOST.into(), None);
        let returned = |address: &str, dial: &str| {
            let [id, name, node] = ["1", "t", "n"].map(Into::into);
            let record = Arc::new(Record { id, name, node, network: Network::Tcp, address: address.into() });
            let held = vec![Holding { record, dial: dial.into() }];
            let key = EntrypointKey { node: "n".into(), routers: false };
            let place = Place { address: address.into(), dial: dial.into() };
            let entrypoints = vec![Registered { key, home: None, place, number: 0 }];
            let leases = Kept { held, ..Kept::default() };
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
