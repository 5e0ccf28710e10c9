//! This host, as other hosts reach it: what `--advertise-host` says, or else what interfaces and routes say. That changes
//! while an agent runs: a lease ends, an interface comes up late, a name moves. So it is looked at again and again, by the
//! [`HostFinder`]. Knows no agent and no peer.

mod advertise;
mod interfaces;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::future::join_all;
use tokio::net::UdpSocket;

pub use self::advertise::{Advertise, AdvertisedHost};

use crate::net::JoinPoint;
use crate::net::transport::reaches;
use crate::sentence::{Sentence, sentence};
use gossd_core::address::Host;

/// Documentation addresses (RFC 5737, RFC 3849): a route to them is the default route. Nothing is sent to them.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// This host at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnHost {
    /// Where peers reach the gossip.
    pub gossip: SocketAddr,
    /// What completes the entrypoints of gosts here.
    pub reachable: Host,
    /// All addresses of this host, as far as they are known.
    pub addresses: BTreeSet<IpAddr>,
}

impl OwnHost {
    /// With an address that does not change, of which nothing else is known.
    pub fn at(given: Option<Host>, gossip: SocketAddr) -> Self {
        let reachable = given.unwrap_or(Host::Ip(gossip.ip().to_canonical()));
        Self { gossip, reachable, addresses: BTreeSet::new() }
    }

    /// Whether the address that peers are told is, as far as is known, none of this host.
    pub(crate) fn is_elsewhere(&self) -> bool {
        !self.addresses.is_empty() && !self.addresses.contains(&self.gossip.ip().to_canonical())
    }

    /// Why other hosts cannot reach an agent that listens there, and what to do.
    pub(crate) fn problem(&self, bound: SocketAddr) -> Option<Sentence> {
        let listens = bound.ip().to_canonical();
        if listens.is_loopback() {
            return None;
        }
        if self.gossip.ip().is_loopback() {
            return Some(sentence!(
                "peers on other hosts do not admit this agent, because it says that it is reached at {address}, which from any \
                 other host is that host: this host has no other address yet, or --advertise-host is a loopback address. It is \
                 looked for again every second; if there should be one, set --advertise-host",
                address = self.gossip
            ));
        }
        let is_lost =
            !listens.is_unspecified() && !self.addresses.is_empty() && !self.addresses.contains(&listens);
        is_lost.then(|| {
            sentence!(
                "--gossip listens on {bound} only, and this host does not have that address: nobody reaches this agent. Give it \
                 the address, or start it with --gossip [::]:{port}",
                port = bound.port()
            )
        })
    }
}

/// What the resolver answered.
pub(crate) struct Resolved {
    named: Vec<IpAddr>,
    towards: Vec<SocketAddr>,
}

/// Finds out where this host is.
pub(crate) struct HostFinder {
    advertise: Option<Advertise>,
    /// Where the gossip listens.
    bound: SocketAddr,
    /// The addresses of the configured name.
    named: Vec<IpAddr>,
    /// Addresses of peers: the route to them shows the address that they see.
    towards: Vec<SocketAddr>,
    /// Where live peers are.
    peers: Vec<SocketAddr>,
    /// What was found last.
    last: Option<IpAddr>,
}

impl HostFinder {
    pub(crate) fn new(advertise: Option<Advertise>, bound: SocketAddr) -> Self {
        Self { advertise, bound, named: Vec::new(), towards: Vec::new(), peers: Vec::new(), last: None }
    }

    /// Asks the resolver for the configured name, or for the names to join at: whatever the address depends on. The answer may
    /// take seconds, and is for [`Self::take`].
    pub(crate) fn question(&self, join: &[JoinPoint]) -> impl Future<Output = Resolved> + Send + 'static {
        let host = self.advertise.as_ref().map(|advertise| &advertise.host);
        let needs_route =
            self.bound.ip().is_unspecified() && !matches!(host, Some(AdvertisedHost::Host(Host::Ip(_))));
        let points = if needs_route { join.to_vec() } else { Vec::new() };
        let (name, bound) = (self.name().map(str::to_owned), self.bound);
        async move {
            let named = async {
                match &name {
                    Some(name) => resolve(name, bound).await,
                    None => Vec::new(),
                }
            };
            let towards = join_all(points.iter().map(JoinPoint::resolve));
            let (named, towards) = tokio::join!(named, towards);
            Resolved { named, towards: towards.into_iter().flatten().collect() }
        }
    }

    /// Takes what the resolver answered. What it did not know stays as it was.
    pub(crate) fn take(&mut self, Resolved { named, towards }: Resolved) {
        if !named.is_empty() {
            self.named = named;
        }
        // A resolver may give the same addresses in another order each time.
        let is_same = towards.iter().collect::<BTreeSet<_>>() == self.towards.iter().collect();
        if !towards.is_empty() && !is_same {
            self.towards = towards;
        }
    }

    /// Asks the resolver, and waits for it.
    pub(crate) async fn resolve(&mut self, join: &[JoinPoint]) {
        let resolved = self.question(join).await;
        self.take(resolved);
    }

    /// These peers are live.
    pub(crate) fn meet(&mut self, peers: impl Iterator<Item = SocketAddr>) {
        self.peers = peers.collect();
    }

    /// The configured name, if it is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self.advertise.as_ref().map(|advertise| &advertise.host) {
            Some(AdvertisedHost::Host(Host::Name(name))) => Some(name),
            _ => None,
        }
    }

    /// The configured name, if the resolver does not know it.
    pub(crate) fn unresolved(&self) -> Option<&str> {
        self.name().filter(|_| self.named.is_empty())
    }

    /// The configured interface, if it is one.
    fn interface(&self) -> Option<&str> {
        match self.advertise.as_ref().map(|advertise| &advertise.host) {
            Some(AdvertisedHost::Interface(name)) => Some(name),
            _ => None,
        }
    }

    /// The configured interface, if it has no address that can be advertised.
    pub(crate) fn missing_interface(&self) -> Option<&str> {
        let name = self.interface()?;
        let found = interfaces::of_interface(name).unwrap_or_default();
        self.steady(&found).is_none().then_some(name)
    }

    /// This host as it is now. Costs some system calls, and waits for nothing.
    pub(crate) async fn look(&mut self) -> OwnHost {
        let port = self.advertise.as_ref().and_then(|advertise| advertise.port);
        let ip = self.ip().await;
        self.last = Some(ip);
        let reachable = match self.advertise.as_ref().map(|advertise| &advertise.host) {
            Some(AdvertisedHost::Host(host)) => host.clone(),
            Some(AdvertisedHost::Interface(_)) | None => Host::Ip(ip),
        };
        let addresses = match interfaces::addresses() {
            Ok(addresses) => addresses,
            Err(_) => self.sources().await,
        };
        let gossip = SocketAddr::new(ip, port.unwrap_or(self.bound.port()));
        OwnHost { gossip, reachable, addresses }
    }

    /// The advertised host; or the address that the gossip listens on; or that of the interface that reaches a peer; or that
    /// of the default route; or any that this host has. While there is none at all, the former one: a host that changes its address may have none for a
    /// moment, and loopback would be wrong for good.
    async fn ip(&self) -> IpAddr {
        let found = match self.advertise.as_ref().map(|advertise| &advertise.host) {
            Some(AdvertisedHost::Host(Host::Ip(ip))) => return *ip,
            Some(AdvertisedHost::Host(Host::Name(_))) => self.steady(&self.named),
            Some(AdvertisedHost::Interface(name)) => {
                self.steady(&interfaces::of_interface(name).unwrap_or_default())
            }
            Some(AdvertisedHost::Host(Host::Unusable)) | None => None,
        };
        if let Some(ip) = found {
            return ip;
        }
        if !self.bound.ip().is_unspecified() {
            return self.bound.ip().to_canonical();
        }
        let of_interface = self.interface().is_some();
        // While an interface has none for a moment, that of another one would be wrong.
        if let Some(last) = self.last.filter(|last| of_interface && !last.is_loopback()) {
            return last;
        }
        let found = self.route().await;
        found.or(self.last).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// One of these that the gossip's sockets can use: the one that was found before, if it is still among them; one of
    /// loopback only if there is no other.
    fn steady(&self, found: &[IpAddr]) -> Option<IpAddr> {
        let fits = |ip: &&IpAddr| reaches(self.bound, SocketAddr::new(**ip, 1));
        let is_last = |ip: &&IpAddr| self.last == Some(**ip);
        let mut found: Vec<_> = found.iter().filter(fits).collect();
        found.sort_by_key(|ip| (ip.is_loopback(), !is_last(ip)));
        found.first().map(|ip| **ip)
    }

    /// The address from which this host sends to the peers to join at, or to any host, or, where there is no route to any, to
    /// the peers that there are. Before there are any: an address of its interfaces.
    async fn route(&self) -> Option<IpAddr> {
        let elsewhere = ELSEWHERE.iter().filter_map(|addr| addr.parse().ok());
        let mut own = None;
        for target in self.towards.iter().copied().chain(elsewhere) {
            if !reaches(self.bound, target) {
                continue;
            }
            let Some(ip) = interface_towards(target).await.filter(is_dialable) else { continue };
            if ip != target.ip().to_canonical() {
                return Some(ip);
            }
            // A virtual address is this host's for a while only.
            own = own.or(Some(ip));
        }
        // Peers come and go, and some may be of another family: the address that was found before stays while any needs it.
        let mut sources = Vec::new();
        for peer in self.peers.iter().filter(|peer| reaches(self.bound, **peer)) {
            sources.extend(interface_towards(*peer).await.filter(is_dialable));
        }
        if let Some(ip) = self.steady(&sources) {
            return Some(ip);
        }
        let others: Vec<_> = interfaces::dialable().into_iter().filter(|ip| Some(*ip) != own).collect();
        self.steady(&others).or(own)
    }

    /// The addresses that this host sends from, where the kernel does not tell all that it has.
    async fn sources(&self) -> BTreeSet<IpAddr> {
        let mut sources = BTreeSet::from([Ipv4Addr::LOCALHOST.into()]);
        let elsewhere = ELSEWHERE.iter().filter_map(|addr| addr.parse().ok());
        for target in self.towards.iter().copied().chain(elsewhere) {
            sources.extend(interface_towards(target).await);
        }
        sources
    }
}

/// Whether other hosts can dial it: a link's address needs an interface beside it.
fn is_dialable(ip: &IpAddr) -> bool {
    let is_links = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !is_links
}

/// The addresses of a name that the gossip's sockets can use.
pub(crate) async fn resolve(name: &str, bound: SocketAddr) -> Vec<IpAddr> {
    let Ok(point) = format!("{name}:{}", bound.port().max(1)).parse::<JoinPoint>() else { return Vec::new() };
    let addrs = point.resolve().await;
    addrs.into_iter().filter(|addr| reaches(bound, *addr)).map(|addr| addr.ip().to_canonical()).collect()
}

/// The address from which this host would send to `target`. Connecting a UDP socket sends nothing.
pub(crate) async fn interface_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0".parse().ok()? } else { "[::]:0".parse().ok()? };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|addr| addr.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(advertise: &str, bound: &str) -> HostFinder {
        HostFinder::new(Some(advertise.parse().unwrap()), bound.parse().unwrap())
    }

    #[tokio::test]
    async fn the_port_is_for_peers_and_not_for_visitors() {
        for (advertise, gossip, reachable) in [
            ("203.0.113.7:9002", "203.0.113.7:9002", "203.0.113.7"),
            ("203.0.113.7", "203.0.113.7:8002", "203.0.113.7"),
            ("[2001:db8::7]:9002", "[2001:db8::7]:9002", "[2001:db8::7]"),
            ("%lo:9002", "127.0.0.1:9002", "127.0.0.1"),
        ] {
            let own = finder(advertise, "[::]:8002").look().await;
            assert_eq!((own.gossip, own.reachable.to_string()), (gossip.parse().unwrap(), reachable.into()));
        }
    }

    #[tokio::test]
    async fn a_name_keeps_its_address_while_it_has_it_whatever_the_order() {
        let mut finder = finder("a.example", "0.0.0.0:8002");
        let mut at = async |named: &[&str]| {
            finder.named = named.iter().map(|ip| ip.parse().unwrap()).collect();
            finder.look().await.gossip.ip().to_string()
        };
        assert_eq!(at(&["2001:db8::1", "127.0.1.1", "10.0.0.1", "10.0.0.2"]).await, "10.0.0.1");
        assert_eq!(at(&["10.0.0.2", "10.0.0.1"]).await, "10.0.0.1");
        assert_eq!(at(&["10.0.0.3", "10.0.0.2"]).await, "10.0.0.3", "it moved");
    }

    #[tokio::test]
    async fn what_the_resolver_does_not_know_stays_as_it_was() {
        let mut finder = finder("a.example", "0.0.0.0:8002");
        let resolved = |named: &[&str]| Resolved {
            named: named.iter().map(|ip| ip.parse().unwrap()).collect(),
            towards: Vec::new(),
        };
        finder.take(resolved(&["10.0.0.1"]));
        finder.take(resolved(&[]));
        assert_eq!(finder.look().await.gossip.ip().to_string(), "10.0.0.1", "it may be away");
    }

    #[test]
    fn an_address_that_nobody_can_dial_or_that_is_lost_is_a_problem_with_a_remedy() {
        for (bound, gossip, problem) in [
            ("127.0.0.1:8002", "127.0.0.1:8002", None),
            ("[::]:8002", "10.0.0.1:8002", None),
            ("10.0.0.1:8002", "10.0.0.1:8002", None),
            ("[::]:8002", "127.0.0.1:8002", Some("set --advertise-host")),
            ("10.0.0.2:8002", "10.0.0.2:8002", Some("start it with --gossip [::]:8002")),
        ] {
            let addresses = ["127.0.0.1", "10.0.0.1"].iter().map(|ip| ip.parse().unwrap()).collect();
            let own = OwnHost { addresses, ..OwnHost::at(None, gossip.parse().unwrap()) };
            let found = own.problem(bound.parse().unwrap());
            assert_eq!(found.is_some(), problem.is_some(), "{bound}: {found:?}");
            assert!(problem.is_none_or(|remedy| found.unwrap().ends_with(remedy)));
        }
    }

    #[tokio::test]
    async fn loopback_takes_the_place_of_no_address() {
        let mut finder = HostFinder::new(None, "0.0.0.0:8002".parse().unwrap());
        finder.last = Some([10, 9, 9, 9].into());
        assert!(!finder.look().await.gossip.ip().is_loopback());
        let mut finder = HostFinder::new(None, "127.0.0.1:8002".parse().unwrap());
        assert!(finder.look().await.gossip.ip().is_loopback(), "it listens nowhere else");
    }
}
