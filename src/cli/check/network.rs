//! The way to other hosts: names that resolve, and an address at which other hosts reach this one.

use std::net::SocketAddr;

use futures_util::future::join_all;

use super::Finding;
use crate::config::Config;
use crate::host::{AdvertisedHost, HostFinder, interface_towards};
use crate::net::transport::reaches;
use gossd_core::address::Host;

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let points = config.join.iter().map(async |point| (point.to_string(), point.resolve().await));
    let mut found = joins(config.gossip, &join_all(points).await);
    found.push(advertised(config).await);
    found
}

/// A single name may resolve later; if no name resolves, the agent stays alone.
fn joins(gossip: SocketAddr, points: &[(String, Vec<SocketAddr>)]) -> Vec<Finding> {
    let lost = points.iter().all(|(_, addresses)| addresses.is_empty());
    let is_cut_off = |addresses: &[SocketAddr]| {
        !addresses.is_empty() && !addresses.iter().any(|address| reaches(gossip, *address))
    };
    let each = points.iter().map(|(point, addresses)| {
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let text = match &listed[..] {
            [] => format!("{point} does not resolve: is it spelled so? The agent would try again every 5 s"),
            [same] if same == point => point.clone(),
            _ => format!("{point} is {}", listed.join(", ")),
        };
        if is_cut_off(addresses) {
            let (ours, theirs) = if gossip.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let text = format!(
                "{text}, of {theirs}, and --gossip {gossip} is of {ours}: neither can send to the other; set --gossip to \
                 [::]:{}, which is both",
                gossip.port()
            );
            return Finding::fail("join", text);
        }
        match (addresses.is_empty(), lost) {
            (false, _) => Finding::ok("join", text),
            (true, false) => Finding::warn("join", text),
            (true, true) => Finding::fail("join", text),
        }
    });
    each.collect()
}

async fn advertised(config: &Config) -> Finding {
    const CHECK: &str = "advertise host";
    let mut finder = HostFinder::new(config.advertise.clone(), config.gossip);
    finder.resolve(&config.join).await;
    if let Some(name) = finder.unresolved() {
        let text = format!(
            "{name} does not resolve here to what --gossip can send to: other hosts could hardly dial it; set --advertise-host"
        );
        return Finding::fail(CHECK, text);
    }
    if let Some(interface) = finder.missing_interface() {
        let text = format!("%{interface} has no address that other hosts can dial: `ip address` lists them");
        return Finding::fail(CHECK, text);
    }
    let own = finder.look().await.gossip;
    let target = SocketAddr::new(own.ip(), own.port().max(1));
    let is_own = interface_towards(target).await == Some(own.ip());
    judge(config, own, is_own)
}

fn judge(config: &Config, own: SocketAddr, is_own: bool) -> Finding {
    const CHECK: &str = "advertise host";
    let (ip, port) = (own.ip(), own.port());
    let listens = config.gossip.port();
    let name = match config.advertise.as_ref().map(|advertise| &advertise.host) {
        Some(host) if *host != AdvertisedHost::Host(Host::Ip(ip)) => format!("{host} ({ip})"),
        _ => ip.to_string(),
    };
    match config.advertise.as_ref().map(|advertise| advertise.port) {
        Some(_) if !is_own => Finding::warn(
            CHECK,
            format!(
                "{name} is no address of this host. That is right if something forwards TCP and UDP {port}, and gost's \
                 entrypoint, to it: with the agent running, try `nc -vz {ip} {port}` on another host"
            ),
        ),
        _ if ip.is_loopback() && !config.keyring.is_public() => {
            let text =
                format!("{name} is for this host alone: set --advertise-host to what other hosts can dial");
            Finding::warn(CHECK, text)
        }
        Some(Some(port)) if port != listens => Finding::warn(
            CHECK,
            format!(
                "{name} is an address of this host, and the gossip listens on port {listens} of it: port {port} is right only \
                 if something forwards it there, by TCP and UDP"
            ),
        ),
        Some(_) => Finding::ok(CHECK, format!("{name} is an address of this host")),
        None => Finding::ok(CHECK, format!("{name} by itself: no --advertise-host is set")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use std::net::IpAddr;

    use super::*;
    use crate::net::keyfile;
    use gossd_core::link::keyring::Keyring;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 8002);

    #[test]
    fn a_join_of_the_other_family_is_bad_unless_gossip_has_both() {
        for (gossip, join, verdict) in [
            ("0.0.0.0:8002", "[fd99::2]:8002", Severity::Fail),
            ("10.0.0.1:8002", "[fd99::2]:8002", Severity::Fail),
            ("[fd99::1]:8002", "10.0.0.2:8002", Severity::Fail),
            ("[::]:8002", "10.0.0.2:8002", Severity::Ok),
            ("[::]:8002", "[fd99::2]:8002", Severity::Ok),
            ("[fd99::1]:8002", "[fd99::2]:8002", Severity::Ok),
            ("0.0.0.0:8002", "[::ffff:10.0.0.2]:8002", Severity::Ok),
        ] {
            let found = joins(gossip.parse().unwrap(), &[(join.into(), vec![join.parse().unwrap()])]);
            assert_eq!(found[0].verdict, verdict, "{found:?}");
            assert_eq!(found[0].text.contains("set --gossip to [::]:8002"), verdict == Severity::Fail);
        }
        let both = ("b:8002".into(), ["10.0.0.2:8002", "[fd99::2]:8002"].map(|a| a.parse().unwrap()).into());
        assert_eq!(joins("0.0.0.0:8002".parse().unwrap(), &[both])[0].verdict, Severity::Ok);
    }

    #[test]
    fn a_join_that_does_not_resolve_is_bad_if_it_is_the_only_one() {
        let point = |name: &str, addresses: &[&str]| {
            (name.to_owned(), addresses.iter().map(|address| address.parse().unwrap()).collect())
        };
        let told = |points: &[_]| -> Vec<_> {
            joins(ANY, points).into_iter().map(|found| (found.verdict, found.text)).collect()
        };
        assert!(told(&[]).is_empty());
        let good = point("b:8002", &["10.0.0.2:8002", "10.0.0.3:8002"]);
        let plain = point("10.0.0.2:8002", &["10.0.0.2:8002"]);
        let some = told(&[point("x:8002", &[]), good, plain]);
        assert_eq!(some[0].0, Severity::Warn);
        assert_eq!(some[1], (Severity::Ok, "b:8002 is 10.0.0.2:8002, 10.0.0.3:8002".into()));
        assert_eq!(some[2], (Severity::Ok, "10.0.0.2:8002".into()));
        let none = told(&[point("x:8002", &[]), point("y:8002", &[])]);
        assert!(
            none.iter()
                .all(|(verdict, text)| *verdict == Severity::Fail && text.contains("does not resolve"))
        );
    }

    fn config(advertise: Option<&str>) -> Config {
        let keyring = Keyring::parse(&keyfile::generate().line()).unwrap();
        let advertise = advertise.map(|host| host.parse().unwrap());
        let gossip = "0.0.0.0:8002".parse().unwrap();
        Config { gossip, advertise, keyring, ..Config::loopback("a".parse().unwrap()) }
    }

    #[test]
    fn an_address_behind_nat_comes_with_what_to_try() {
        for (advertise, ip, is_own, verdict, text) in [
            (
                Some("203.0.113.7"),
                "203.0.113.7",
                false,
                Severity::Warn,
                "203.0.113.7 is no address of this host.",
            ),
            (Some("a.test"), "203.0.113.7", false, Severity::Warn, "a.test (203.0.113.7) is no address of"),
            (Some("10.0.0.1"), "10.0.0.1", true, Severity::Ok, "10.0.0.1 is an address of this host"),
            (Some("127.0.0.1"), "127.0.0.1", true, Severity::Warn, "127.0.0.1 is for this host alone"),
            (None, "10.0.0.1", true, Severity::Ok, "10.0.0.1 by itself: no --advertise-host is set"),
            (None, "127.0.0.1", true, Severity::Warn, "127.0.0.1 is for this host alone"),
        ] {
            let found = judge(&config(advertise), SocketAddr::new(ip.parse().unwrap(), 8002), is_own);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.text.starts_with(text), "{found:?}");
            assert_eq!(found.text.contains("`nc -vz 203.0.113.7 8002`"), !is_own, "{found:?}");
        }
        let alone = Config { keyring: Keyring::public(), ..config(None) };
        assert_eq!(
            judge(&alone, "127.0.0.1:8002".parse().unwrap(), true).verdict,
            Severity::Ok,
            "it wants no others"
        );
    }

    #[tokio::test]
    async fn this_hosts_own_addresses_are_told_from_others() {
        let local = advertised(&Config { keyring: Keyring::public(), ..config(Some("127.0.0.1")) }).await;
        assert_eq!(local.verdict, Severity::Ok, "{local:?}");
        let other = advertised(&config(Some("192.0.2.1"))).await;
        assert_eq!(other.verdict, Severity::Warn, "{other:?}");
        let unknown = advertised(&config(Some("no-such-host.invalid"))).await;
        assert_eq!(unknown.verdict, Severity::Fail, "{unknown:?}");
    }
}
