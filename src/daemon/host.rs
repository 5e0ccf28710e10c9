//! The address of this host, as other hosts reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

use crate::config::Config;
use crate::net::JoinPoint;
use gossd_core::address::Host;

/// Documentation addresses (RFC 5737, RFC 3849): a route to them is the default route. Nothing is sent to them.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// The IP address that peers get: the advertised host; or the address that the gossip listens on; or the address of the
/// interface that reaches the first join point; or that of the default route.
pub(crate) async fn gossip_host(config: &Config, bound: SocketAddr) -> IpAddr {
    match &config.advertise {
        Some(Host::Ip(ip)) => return *ip,
        Some(Host::Name(name)) => {
            if let Some(ip) = resolve(name, bound).await {
                return ip;
            }
            // A host may boot before its resolver. Records need only the text of the name.
            tracing::warn!("cannot resolve --advertise-host {name}; gossip gets this host's own address");
        }
        Some(Host::Unusable) | None => {}
    }
    if !bound.ip().is_unspecified() {
        return bound.ip();
    }
    let mut targets = match config.join.first() {
        Some(point) => point.resolve().await,
        None => Vec::new(),
    };
    targets.extend(ELSEWHERE.iter().filter_map(|addr| addr.parse::<SocketAddr>().ok()));
    for target in targets {
        if let Some(ip) = interface_towards(target).await {
            return ip;
        }
    }
    Ipv4Addr::LOCALHOST.into()
}

/// The first address of a name that the gossip's sockets can use.
pub(crate) async fn resolve(name: &str, bound: SocketAddr) -> Option<IpAddr> {
    let point: JoinPoint = format!("{name}:{}", bound.port()).parse().ok()?;
    let addrs = point.resolve().await;
    let fits = |addr: &&SocketAddr| bound.is_ipv6() || addr.is_ipv4();
    addrs.iter().find(fits).map(SocketAddr::ip)
}

/// The address from which this host would send to `target`. Connecting a UDP socket sends nothing.
pub(crate) async fn interface_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0".parse().ok()? } else { "[::]:0".parse().ok()? };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}
