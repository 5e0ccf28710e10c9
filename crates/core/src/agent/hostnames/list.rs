//! The list of all host names: copied in bites, so that no plugin call waits for a list.

use std::sync::Arc;

use crate::agent::State;

/// Names that are copied at once: half a millisecond, most of it for memory that is in no cache.
const BITE: usize = 8_192;

impl State {
    /// Rises with every change of what host names lead to, by claims and by tunnels that come and go.
    pub fn hosts_revision(&self) -> u64 {
        self.directory.hosts_revision()
    }

    /// In how many bites the claimed hosts are to be copied.
    pub fn claimed_bites(&self) -> usize {
        self.directory.claims.hosts().count().div_ceil(BITE).max(1)
    }

    /// The keys of the claims in one of so many bites, in no particular order. A host that is claimed all the while is in
    /// one.
    pub fn claimed_hosts(&self, bite: usize, bites: usize) -> Vec<Arc<str>> {
        let claimed = self.directory.claims.hosts();
        claimed.filter(|host| bite_of(host, bites) == bite).cloned().collect()
    }
}

/// In which of some bites a host is. It goes by the place of its text in memory, which is the same for as long as the
/// host is claimed, and is known without reading the text.
fn bite_of(host: &Arc<str>, bites: usize) -> usize {
    /// Spreads numbers that differ in few bits: 2^32 by the golden ratio.
    const SPREAD: usize = 0x9e37_79b9;
    (host.as_ptr().addr().wrapping_mul(SPREAD) >> 16) % bites
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::agent::Restored;
    use crate::agent::tests::{Agent, HERE, with_quota};
    use crate::hostname::{Endpoint, TunnelId};
    use crate::lease::Holding;
    use crate::quota::Quota;
    use crate::record::{Network, Record};

    fn agent() -> Agent {
        with_quota(Quota::default(), Restored::default())
    }

    fn endpoint(n: u128) -> Endpoint {
        Endpoint { tunnel: TunnelId::from_bytes(n.to_be_bytes()), private: false }
    }

    #[test]
    fn every_claimed_host_is_listed_once_however_many_bites_it_takes() {
        let agent = agent();
        let all: BTreeSet<String> = (0..3 * BITE).map(|n| format!("host-{n}")).collect();
        for (n, host) in all.iter().enumerate() {
            assert_eq!(agent.claim(host, endpoint(n as u128)), Ok(true));
        }
        let listed = {
            let state = agent.lock();
            let bites = state.claimed_bites();
            (0..bites).flat_map(|bite| state.claimed_hosts(bite, bites)).collect::<Vec<_>>()
        };
        assert_eq!(listed.len(), all.len());
        assert_eq!(listed.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), all);
        let bites = 3;
        let sizes = (0..bites).map(|bite| listed.iter().filter(|host| bite_of(host, bites) == bite).count());
        assert!(sizes.clone().all(|size| size < BITE * 3 / 2), "{:?}", sizes.collect::<Vec<_>>());
    }

    #[test]
    fn the_revision_rises_with_what_hosts_lead_to_and_with_nothing_else() {
        let agent = agent();
        let mut last = agent.lock().hosts_revision();
        let mut rises = |agent: &Agent| {
            let now = agent.lock().hosts_revision();
            std::mem::replace(&mut last, now) < now
        };
        assert!(!rises(&agent));
        let record = |id: &str| {
            let name = endpoint(7).tunnel.to_string().into();
            let [id, node] = [id, "n"].map(Into::into);
            let record = Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() };
            Holding { record: Arc::new(record), dial: "".into() }
        };
        agent.register(HERE, record("1")).unwrap();
        assert!(rises(&agent), "a tunnel has its hash host");
        agent.register(HERE, record("2")).unwrap();
        assert!(!rises(&agent), "it has it already");
        agent.claim("x", endpoint(7)).unwrap();
        assert!(rises(&agent));
        agent.claim("x", endpoint(7)).unwrap();
        assert!(!rises(&agent));
        agent.claim("x", Endpoint { private: true, ..endpoint(7) }).unwrap();
        assert!(rises(&agent), "a name became private");
    }
}
