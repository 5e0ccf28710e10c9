//! Where other hosts, and this agent, reach the gosts that call.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::Caller;
use crate::host::OwnHost;
use gossd_core::address::{Address, Entrypoint, Host};
use gossd_core::agent::Restored;
use gossd_core::entrypoints::Place;
use gossd_core::lease::KeptLeases;
use gossd_core::record::Record;

/// How to reach the gosts that call.
#[derive(Debug)]
pub struct Reach {
    /// Completes the addresses of local gosts. The host may move.
    own: watch::Receiver<OwnHost>,
    /// The entrypoint of gosts that were attached before this agent ran.
    fallback: Option<Entrypoint>,
    /// Whether the operator gave the host.
    is_given: bool,
    /// Whether it was told that a completed address works only on this host.
    warned: AtomicBool,
}

impl Reach {
    /// Uses the host that the operator gave, or else the address that the gossip advertises; neither moves.
    pub fn new(given: Option<Host>, gossip: IpAddr, fallback: Option<Entrypoint>) -> Self {
        let is_given = given.is_some();
        let (_, own) = watch::channel(OwnHost::at(given, SocketAddr::new(gossip, 0)));
        Self::following(own, is_given, fallback)
    }

    /// Uses the host as it is at each call.
    pub(crate) fn following(
        own: watch::Receiver<OwnHost>,
        is_given: bool,
        fallback: Option<Entrypoint>,
    ) -> Self {
        Self { own, fallback, is_given, warned: AtomicBool::new(false) }
    }

    /// The entrypoint of gosts that were attached before this agent ran, if the operator gave it.
    pub(super) fn fallback(&self) -> Option<&Entrypoint> {
        self.fallback.as_ref()
    }

    /// Whether a host is this one, as far as is known.
    pub(crate) fn is_own(&self, host: &Host) -> bool {
        let own = self.own.borrow();
        let is_address = matches!(host, Host::Ip(ip) if own.addresses.contains(ip) || own.gossip.ip() == *ip);
        is_address || *host == own.reachable
    }

    /// The host that completes this caller's addresses.
    pub(crate) fn host(&self, caller: Caller) -> Host {
        caller.remote.map_or_else(|| self.own.borrow().reachable.clone(), Host::Ip)
    }

    /// Completes the addresses of restored records anew: this host may have another address than before the start.
    pub fn returned(&self, restored: &mut Restored) {
        let Restored { leases: KeptLeases { held, lapsed, .. }, entrypoints, .. } = restored;
        let none = BTreeSet::new();
        for holding in held.iter_mut().chain(lapsed) {
            let place = Place { address: holding.record.address.clone(), dial: holding.dial.clone() };
            if let Some(Place { address, .. }) = self.moved(&place, &none) {
                holding.record = Arc::new(Record { address, ..Record::clone(&holding.record) });
            }
        }
        for place in entrypoints.iter_mut().map(|registered| &mut registered.place) {
            if let Some(moved) = self.moved(place, &none) {
                *place = moved;
            }
        }
    }

    /// Where a gost is reached now, if that has changed. This host has lost those addresses: another host may have them, so
    /// they are not dialled any more, because what is found there says nothing of the gosts here.
    pub(crate) fn moved(&self, place: &Place, lost: &BTreeSet<IpAddr>) -> Option<Place> {
        let dial = place.dial.socket()?;
        // Only a gost on this host has a loopback address to dial.
        if dial.ip().is_loopback() {
            let address = self.own.borrow().reachable.at(dial.port());
            return (place.address != address).then(|| Place { address, dial: place.dial.clone() });
        }
        lost.contains(&dial.ip()).then(|| Place { dial: Address::default(), address: place.address.clone() })
    }

    /// The address at which this agent can dial the gost that calls and listens on `entrypoint`; empty if unknown. A
    /// refused dial counts as a dead gost, so the address must certainly be that gost's. Asks nobody: it may be called under
    /// the agent's lock.
    pub(crate) fn dial(&self, caller: Caller, entrypoint: &str) -> String {
        let Ok(entrypoint) = Entrypoint::parse(entrypoint) else { return String::new() };
        let home = caller.remote.unwrap_or(Ipv4Addr::LOCALHOST.into());
        match entrypoint.host() {
            Host::Unusable => match entrypoint.loopback() {
                Some(ip) if caller.remote.is_none() => SocketAddr::new(ip, entrypoint.port()).to_string(),
                _ => SocketAddr::new(home, entrypoint.port()).to_string(),
            },
            Host::Ip(ip) if *ip == home || self.own.borrow().addresses.contains(ip) => {
                SocketAddr::new(*ip, entrypoint.port()).to_string()
            }
            host @ Host::Ip(_) if *host == self.host(caller) => {
                SocketAddr::new(home, entrypoint.port()).to_string()
            }
            // What a name resolves to, gost binds, and nothing else: it may refuse here and live.
            Host::Ip(_) | Host::Name(_) => String::new(),
        }
    }

    /// Warns, once, of an address that was completed with loopback although nobody asked for that.
    pub(super) fn warn_once(&self, record: &Record) {
        let is_alone = !self.is_given && self.own.borrow().gossip.ip().is_loopback();
        if is_alone && !self.warned.swap(true, Ordering::Relaxed) {
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
    use gossd_core::lease::Holding;
    use gossd_core::record::{Draft, Network};

    const LOCAL: Caller = Caller { remote: None, connection: 1 };

    /// On a host that is reached at `host`, and has that address and another one.
    fn reach(host: &str) -> (watch::Sender<OwnHost>, Reach) {
        let reachable = Host::advertised(host).unwrap();
        let addresses = [host, "198.51.100.1"].iter().filter_map(|ip| ip.parse().ok()).collect();
        let gossip = SocketAddr::from(([127, 0, 0, 1], 8002));
        let (sender, own) = watch::channel(OwnHost { gossip, reachable, addresses });
        (sender, Reach::following(own, true, None))
    }

    fn dial(host: &str, caller: Caller, entrypoint: &str) -> String {
        reach(host).1.dial(caller, entrypoint)
    }

    #[test]
    fn a_local_gost_is_dialled_on_this_host_and_nowhere_else() {
        for (entrypoint, want) in [
            (":8420", "127.0.0.1:8420"),
            ("0.0.0.0:8420", "127.0.0.1:8420"),
            ("[::]:8420", "127.0.0.1:8420"),
            ("127.0.0.11:8420", "127.0.0.11:8420"),
            ("[::1]:8420", "[::1]:8420"),
            ("192.0.2.7:8420", "192.0.2.7:8420"),
            ("198.51.100.1:8420", "198.51.100.1:8420"),
            ("198.51.100.9:8420", ""),
            ("gost.example.org:8420", ""),
            ("", ""),
        ] {
            assert_eq!(dial("192.0.2.7", LOCAL, entrypoint), want, "{entrypoint}");
        }
    }

    #[test]
    fn only_records_of_local_gosts_are_completed_anew_after_a_move() {
        let (_sender, reach) = reach("192.0.2.8");
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

    #[test]
    fn a_forwarded_address_is_this_hosts_though_no_interface_has_it() {
        let (sender, reach) = reach("192.0.2.7");
        sender.send_modify(|own| own.addresses.clear());
        assert_eq!(reach.dial(LOCAL, "192.0.2.7:8420"), "127.0.0.1:8420");
        assert_eq!(reach.dial(LOCAL, "198.51.100.1:8420"), "");
    }

    #[test]
    fn a_gost_that_is_bound_by_this_hosts_name_is_not_dialled_as_it_may_be_bound_to_one_address() {
        assert_eq!(dial("gost-a", LOCAL, "gost-a:8420"), "");
        assert_eq!(dial("gost-a", LOCAL, ":8420"), "127.0.0.1:8420");
    }

    #[test]
    fn a_host_that_moves_completes_what_it_completed_before_and_dials_no_address_that_it_lost() {
        let (sender, reach) = reach("192.0.2.7");
        let lost = BTreeSet::from(["198.51.100.1".parse().unwrap()]);
        sender.send_modify(|own| {
            own.reachable = Host::parse("192.0.2.9").unwrap();
            own.addresses = ["192.0.2.9".parse().unwrap()].into();
        });
        let moved = |address: &str, dial: &str| {
            let place = reach.moved(&Place { address: address.into(), dial: dial.into() }, &lost)?;
            Some((place.address.to_string(), place.dial.to_string()))
        };
        let to = |address: &str, dial: &str| Some((address.to_owned(), dial.to_owned()));
        assert_eq!(moved("192.0.2.7:80", "127.0.0.1:80"), to("192.0.2.9:80", "127.0.0.1:80"));
        assert_eq!(moved("192.0.2.9:80", "127.0.0.1:80"), None);
        assert_eq!(moved("198.51.100.1:80", "198.51.100.1:80"), to("198.51.100.1:80", ""));
        assert_eq!(moved("203.0.113.5:80", "203.0.113.5:80"), None, "a guest's");
        assert_eq!(reach.dial(LOCAL, "198.51.100.1:80"), "");
        let record = Draft { id: "1", name: "t", node: "n", network: "", address: ":80" };
        assert_eq!(record.register(&reach.host(LOCAL)).unwrap().address.to_string(), "192.0.2.9:80");
    }
}
