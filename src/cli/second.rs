//! A second address for gost: a name that is its own agent first and a peer's second. gost's clients try the addresses of
//! a name in order at every dial, so that a gost whose agent is dead is served by its neighbour's.

use std::net::{IpAddr, SocketAddr};

use super::client;

/// The name: of no domain, so that nothing but /etc/hosts answers for it.
pub(super) const NAME: &str = "gossd-plugin";

/// Where a gost on this host reaches its own agent: on this host only, if the agent listens there. None if its port is
/// chosen by the system.
pub(super) fn own(plugin: &[SocketAddr]) -> Option<SocketAddr> {
    let loopback = plugin.iter().find(|address| address.ip().is_loopback());
    loopback.or(plugin.first()).filter(|address| address.port() != 0).map(|address| client::beside(*address))
}

/// The lines for /etc/hosts, in their order.
pub(super) fn lines(own: IpAddr, second: IpAddr) -> [String; 2] {
    [own, second].map(|address| format!("{address} {NAME}"))
}
