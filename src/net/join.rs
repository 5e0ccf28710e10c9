//! Where to find peers: addresses and host names, resolved again for ever, because a name's addresses change
//! while agents run.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;

use gossd_core::address::{AddressError, Entrypoint, Host};

/// How often names are resolved: as often as a Kubernetes headless service changes its answer.
const RESOLVE: Duration = Duration::from_secs(5);
/// A resolver that takes longer is tried again in the next round.
const PATIENCE: Duration = Duration::from_secs(4);
/// More addresses under one name than a cluster has agents.
const MAX_ADDRESSES: usize = 256;

/// `host:port` of an agent to join at; the host is an IP address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JoinPoint(String);

/// Why a text is no [`JoinPoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Not `host:port`.
    #[error(transparent)]
    Address(AddressError),
    /// As by a variable that is set to nothing.
    #[error("is empty: leave it out, or name the host:port of an agent")]
    Empty,
    /// `:8002` or `0.0.0.0:8002`: no host to ask.
    #[error("has no host")]
    NoHost,
}

impl FromStr for JoinPoint {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Self, JoinError> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return match (addr.ip().is_unspecified(), addr.port()) {
                (true, _) => Err(JoinError::NoHost),
                (_, 0) => Err(JoinError::Address(AddressError::BadPort)),
                _ => Ok(Self(text.into())),
            };
        }
        let entrypoint = Entrypoint::parse(text).map_err(|why| match why {
            AddressError::Empty => JoinError::Empty,
            AddressError::PortZero => JoinError::Address(AddressError::BadPort),
            why => JoinError::Address(why),
        })?;
        match entrypoint.host() {
            Host::Unusable if text.starts_with(':') => Err(JoinError::NoHost),
            _ => Ok(Self(text.into())),
        }
    }
}

impl JoinPoint {
    /// Whether only this host can be meant.
    pub(crate) fn is_this_host(&self) -> bool {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl From<SocketAddr> for JoinPoint {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for JoinPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JoinPoint {
    /// Asks the resolver, with patience. Empty if it does not know.
    pub async fn resolve(&self) -> Vec<SocketAddr> {
        match timeout(PATIENCE, lookup_host(&self.0)).await {
            Ok(Ok(addrs)) => addrs.take(MAX_ADDRESSES).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

/// What each point resolves to; nothing of one that never did.
pub(super) type JoinsResolved = HashMap<JoinPoint, Vec<SocketAddr>>;

/// Resolves the points for ever, whichever they are at the time. A name that fails keeps the addresses that it had.
pub(super) async fn resolve(
    mut points: watch::Receiver<Vec<JoinPoint>>,
    resolved: watch::Sender<JoinsResolved>,
    joins: watch::Sender<BTreeSet<SocketAddr>>,
) -> anyhow::Result<()> {
    loop {
        let now = points.borrow_and_update().clone();
        resolved.send_modify(|known| known.retain(|point, _| now.contains(point)));
        for point in now {
            let addrs = point.resolve().await;
            if addrs.is_empty() {
                continue;
            }
            // Tell at once: the next name may take its time.
            resolved.send_modify(|known| drop(known.insert(point, addrs)));
            let all: BTreeSet<SocketAddr> = resolved.borrow().values().flatten().copied().collect();
            joins.send_if_modified(|told| std::mem::replace(told, all.clone()) != all);
        }
        tokio::select! {
            () = tokio::time::sleep(RESOLVE) => {}
            Ok(()) = points.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_point_has_a_host_and_a_port() {
        for good in ["10.0.0.1:8002", "127.0.0.1:1", "[::1]:8002", "localhost:8002", "gossd.example.org:8002"]
        {
            assert!(good.parse::<JoinPoint>().is_ok(), "{good}");
        }
        for (bad, why) in [
            (":8002", "has no host"),
            ("0.0.0.0:8002", "has no host"),
            ("10.0.0.1", "is not host:port (an IPv6 host needs brackets)"),
            ("", "is empty: leave it out, or name the host:port of an agent"),
            ("10.0.0.1:0", "has a port that is not a number from 1 to 65535"),
            ("a:0", "has a port that is not a number from 1 to 65535"),
        ] {
            assert_eq!(bad.parse::<JoinPoint>().unwrap_err().to_string(), why);
        }
    }
}
