//! The addresses of a name, in the order in which Go dials. A name in `/etc/hosts` may have several addresses, and both
//! of gost's plugin clients try them in order. Knows nothing of the dials.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use tokio::net::lookup_host;

/// The file into which container engines write names.
const HOSTS: &str = "/etc/hosts";

/// The addresses of `HOST:PORT`, at least one. As in a static Go program, the hosts file comes before name servers.
pub(crate) async fn resolve(name: &str) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = name.rsplit_once(':').context("not HOST:PORT")?;
    let port: u16 = port.parse().context("no port")?;
    let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
    let listed = listed(&hosts, host);
    if !listed.is_empty() {
        return Ok(listed.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found: Vec<_> = lookup_host((host, port)).await.with_context(|| name.to_owned())?.collect();
    ensure!(!found.is_empty(), "{name} has no address");
    Ok(found)
}

/// All addresses of a name in a hosts file in the order of its lines, this host's own first, as Go sorts them.
fn listed(hosts: &str, name: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let (address, names) = line.trim().split_once(char::is_whitespace)?;
        let has = names.split_whitespace().any(|other| other.eq_ignore_ascii_case(name));
        has.then(|| address.parse().ok())?
    };
    let mut found: Vec<IpAddr> = hosts.lines().filter_map(address).collect();
    found.sort_by_key(|ip| !ip.is_loopback());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_all_its_addresses_in_order() {
        let hosts = "127.0.0.1 localhost\n10.0.0.2\tagents other # agents\n# 10.0.0.9 agents\n127.0.0.1 agents\n\
                     10.0.0.1 AGENTS\n";
        let found: Vec<_> = listed(hosts, "agents").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1", "10.0.0.2", "10.0.0.1"]);
        assert!(listed(hosts, "nobody").is_empty());
    }

    #[tokio::test]
    async fn an_address_is_itself() {
        assert_eq!(resolve("10.0.0.1:80").await.unwrap(), ["10.0.0.1:80".parse().unwrap()]);
        assert!(resolve("nobody").await.is_err());
    }
}
