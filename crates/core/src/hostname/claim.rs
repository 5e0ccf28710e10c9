//! What gost's ingress keeps: which tunnel a host name belongs to. A rule that an agent was told is its *claim*;
//! of several claims on one host the earliest wins, by a logical clock that every claim carries. A tunnel that any rule
//! closes to the public is private under all its names: what an operator's rules close, agents tell each other by a
//! [`Claim::closing`] it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Endpoint, HashHost, TunnelId};
use crate::record::check_field;

/// Ticks of the claims' logical clock: a claim has one more than any claim that its maker knew of.
pub type Clock = u64;
/// Higher ones are hostile: a cluster that makes a million claims a second needs 285 years to get there.
pub const MAX_CLOCK: Clock = 1 << 53;

/// A claim on a host name. Its fields are encoded in this order, so that they are never changed; how one is added,
/// [`crate::codec`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The name, as [`super::Naming`] writes it.
    pub host: Arc<str>,
    /// Where it leads.
    pub endpoint: Endpoint,
    /// When the tunnel first claimed it.
    pub clock: Clock,
}

impl Claim {
    /// Says that a tunnel is private, and claims no host name: its host is none that anybody could ask for. It holds for as
    /// long as an agent says it.
    pub fn closing(tunnel: TunnelId) -> Self {
        let endpoint = Endpoint { tunnel, private: true };
        Self { host: endpoint.to_string().into(), endpoint, clock: 0 }
    }

    /// Whether it is one of these.
    pub fn is_closing(&self) -> bool {
        self.host.starts_with('$') && *self == Self::closing(self.endpoint.tunnel)
    }

    /// What tells claims apart: a tunnel has one claim on a host, whoever holds it.
    pub fn key(&self) -> ClaimKey {
        ClaimKey { host: self.host.clone(), tunnel: self.endpoint.tunnel }
    }

    /// Whether an agent can have claimed it: its clock was reached, and a hash host is its own tunnel's. Of its host, only
    /// what every field keeps to is checked: one that is spelled otherwise is never asked for.
    pub fn is_plausible(&self) -> bool {
        let own = |hash| hash == HashHost::of(self.endpoint.tunnel);
        let given = !self.host.is_empty() && check_field("", &self.host).is_ok();
        given && self.clock <= MAX_CLOCK && HashHost::parse(&self.host).is_none_or(own)
    }

    /// The order in which claims on one host win.
    pub fn rank(&self) -> (Clock, TunnelId) {
        (self.clock, self.endpoint.tunnel)
    }

    /// What it counts against a quota, in bytes.
    pub fn size(&self) -> usize {
        self.host.len() + size_of::<Self>()
    }
}

/// See [`Claim::key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey {
    /// The name.
    pub host: Arc<str>,
    /// The tunnel.
    pub tunnel: TunnelId,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn tunnel(number: u128) -> TunnelId {
        TunnelId::from_bytes(number.to_be_bytes())
    }

    pub(crate) fn claim(host: &str, number: u128, clock: Clock) -> Arc<Claim> {
        let endpoint = Endpoint { tunnel: tunnel(number), private: false };
        Arc::new(Claim { host: host.into(), endpoint, clock })
    }

    #[test]
    fn a_rule_that_closes_a_tunnel_is_told_from_a_claim_and_names_no_host() {
        let closing = Claim::closing(tunnel(7));
        assert!(closing.is_closing() && closing.is_plausible());
        assert!(!claim("x", 7, 0).is_closing());
        let private = Endpoint { private: true, ..closing.endpoint };
        for host in ["x", "$", "$x", &tunnel(7).to_string(), &format!("${}", tunnel(8))] {
            assert!(!Claim { host: (*host).into(), endpoint: private, clock: 0 }.is_closing(), "{host}");
        }
        let naming = super::super::Naming::default();
        assert!(naming.key(&closing.host).is_err() && naming.candidates(&closing.host).count() == 0);
    }
}
