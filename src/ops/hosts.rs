//! `/hosts.json`: the host names that lead to tunnels here, the operator's and the claimed ones. And which names a tunnel has,
//! for other reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract;
use axum::response::Response;
use serde::Deserialize;

use super::report::{HostNameReport, HostReport, HostsReport};
use super::routes::{Params, Shared, json};
use super::status::{LIMIT, MAX_LIMIT};
use super::{HostNames, Named, Ops};
use gossd_core::hostname::TunnelId;

/// While names change all the time, a list is used for so many times as long as it took to make.
const SHARE: u32 = 20;

/// All rules for host names, by name, but for hash hosts, which every tunnel has.
pub(super) struct NameIndex {
    /// With the ids of their tunnels.
    rules: Vec<Named>,
    of: BTreeMap<String, Vec<usize>>,
}

/// The last index, and until when it may be used although names have changed.
#[derive(Default)]
pub(super) struct NameCache(Mutex<Option<(u64, Instant, Arc<NameIndex>)>>);

#[derive(Deserialize)]
pub(super) struct HostSearch {
    #[serde(default)]
    search: String,
    limit: Option<usize>,
}

/// What of host names contains `search`: the name, or the tunnel's id.
pub(super) async fn hosts_json(
    extract::State(ops): Shared,
    Params(HostSearch { search, limit }): Params<HostSearch>,
) -> Response {
    let index = ops.names();
    let search = search.to_lowercase();
    let found =
        index.rules.iter().filter(|(host, tunnel)| host.rule.contains(&search) || tunnel.contains(&search));
    let found: Vec<_> = found.collect();
    let first = found.iter().take(limit.unwrap_or(LIMIT).min(MAX_LIMIT));
    let hosts = first.map(|(host, tunnel)| {
        let attached = ops.agent.tunnel(tunnel);
        HostNameReport {
            host: host.rule.clone(),
            by: host.by.clone(),
            private: TunnelId::parse(tunnel).is_some_and(|tunnel| ops.agent.is_private(tunnel)),
            tunnel: tunnel.clone(),
            listed: attached.listed,
            agents: attached.agents.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    });
    json(&HostsReport { hosts: hosts.collect(), total: found.len() })
}

impl Ops {
    /// All rules, as they are now or were a moment ago.
    pub(super) fn names(&self) -> Arc<NameIndex> {
        let HostNames { revision, all, .. } = &self.outside.hosts;
        let revision = revision();
        let mut cached = self.name_cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((of, until, index)) = &*cached
            && (*of == revision || now < *until)
        {
            return index.clone();
        }
        let index = Arc::new(NameIndex::new(all()));
        let took: Duration = now.elapsed();
        *cached = Some((revision, now + took * SHARE, index.clone()));
        index
    }
}

impl NameIndex {
    fn new(mut rules: Vec<Named>) -> Self {
        rules.sort_unstable_by(|(one, _), (other, _)| one.rule.cmp(&other.rule));
        let mut of = BTreeMap::<String, Vec<usize>>::new();
        for (at, (_, tunnel)) in rules.iter().enumerate() {
            of.entry(tunnel.clone()).or_default().push(at);
        }
        Self { rules, of }
    }

    /// The rules that lead to a tunnel, by name.
    pub(super) fn of(&self, tunnel: &str) -> impl Iterator<Item = &HostReport> {
        let found = self.of.get(tunnel).map(Vec::as_slice).unwrap_or_default();
        found.iter().filter_map(|at| self.rules.get(*at)).map(|(host, _)| host)
    }

    /// The tunnels with a name that contains a text.
    pub(super) fn tunnels_with(&self, text: &str) -> BTreeSet<&str> {
        let found = self.rules.iter().filter(|(host, _)| host.rule.contains(text));
        found.map(|(_, tunnel)| &**tunnel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_tunnel_and_tunnels_by_a_part_of_a_name() {
        let rule = |rule: &str, tunnel: &str| {
            let host = HostReport { rule: rule.into(), by: "claimed".into(), private: false };
            (host, tunnel.to_owned())
        };
        let index = NameIndex::new(vec![
            rule("shop.example.org", "t1"),
            rule("blog.example.org", "t2"),
            rule("a", "t1"),
        ]);
        let of: Vec<&str> = index.of("t1").map(|host| &*host.rule).collect();
        assert_eq!(of, ["a", "shop.example.org"]);
        assert_eq!(index.tunnels_with("example"), ["t1", "t2"].into());
        assert_eq!(index.of("t3").count(), 0);
    }
}
