//! Hosts whose addresses change, come late, are of IPv6 only, or are somebody else's: network namespaces with real agents.

use std::time::Duration;

use crate::common::eventually;
use crate::common::netns::Network;

/// Where something listens, so that its gost counts as alive: each agent's admin listener.
const ENTRYPOINT: &str = ":8001";
const SOON: Duration = Duration::from_secs(6);
/// For agents to find each other: other tests take the cores.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_host_that_gets_another_address_is_served_again_within_six_seconds() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    let (agent_a, agent_b) = (a.agent(&[]), b.agent(&["--join", "10.77.0.1:8002"]));
    eventually(LONG, "they meet", || a.place_of("b").is_some() && b.place_of("a").is_some()).await;
    a.register("1", "t", ENTRYPOINT);
    eventually(LONG, "b has the record", || b.get("t") == ["10.77.0.1:8001"]).await;
    // An address that an operator gave stays what it is.
    a.register("2", "fixed", "203.0.113.9:8420");
    a.remove("10.77.0.1/24");
    a.add("10.77.0.11/24");
    eventually(SOON, "b has the new address", || b.get("t") == ["10.77.0.11:8001"]).await;
    eventually(SOON, "the peer is where it is", || b.place_of("a").as_deref() == Some("10.77.0.11:8002"))
        .await;
    assert_eq!(a.get("t"), ["10.77.0.11:8001"]);
    assert_eq!(b.get("fixed"), ["203.0.113.9:8420"]);
    assert_eq!(a.status()["address"], "10.77.0.11:8002");
    assert_eq!(agent_a.times("our address changed from 10.77.0.1:8002 to 10.77.0.11:8002"), 1);
    assert_eq!(agent_b.times("peer moved from 10.77.0.1:8002 to 10.77.0.11:8002"), 1);
    a.register("3", "new", ENTRYPOINT);
    eventually(SOON, "changes still come", || b.get("new") == ["10.77.0.11:8001"]).await;
    b.register("4", "back", ENTRYPOINT);
    eventually(SOON, "and go", || a.get("back") == ["10.77.0.2:8001"]).await;
    assert_eq!(agent_b.times("forgot"), 0, "it kept what it had");
}

#[tokio::test]
async fn a_named_interface_is_followed_and_a_second_address_changes_nothing() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    let _agents = (a.agent(&["--advertise-host", "%eth0"]), b.agent(&["--join", "10.77.0.1:8002"]));
    a.register("1", "t", ENTRYPOINT);
    eventually(LONG, "b has the record", || b.get("t") == ["10.77.0.1:8001"]).await;
    // Of another network, so that it does not go with the first one.
    a.add("10.77.0.11/25");
    b.add("10.77.0.12/24");
    a.remove("10.77.0.1/24");
    eventually(SOON, "b has the new address", || b.get("t") == ["10.77.0.11:8001"]).await;
    assert_eq!(a.place_of("b").as_deref(), Some("10.77.0.2:8002"));
}

#[tokio::test]
async fn a_name_that_gets_another_address_is_followed_and_records_keep_the_name() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) =
        (network.host("a", &["10.77.0.1/24", "10.77.0.11/24"]), network.host("b", &["10.77.0.2/24"]));
    a.names("127.0.0.1 localhost\n10.77.0.1 tunnels.test\n");
    let agent_a = a.agent(&["--advertise-host", "tunnels.test"]);
    let _b = b.agent(&["--join", "10.77.0.1:8002"]);
    a.register("1", "t", ENTRYPOINT);
    eventually(LONG, "b has the record", || b.get("t") == ["tunnels.test:8001"]).await;
    assert_eq!(b.place_of("a").as_deref(), Some("10.77.0.1:8002"));
    a.names("127.0.0.1 localhost\n10.77.0.11 tunnels.test\n");
    eventually(LONG, "b follows", || b.place_of("a").as_deref() == Some("10.77.0.11:8002")).await;
    assert_eq!(b.get("t"), ["tunnels.test:8001"]);
    assert_eq!(agent_a.times("our address changed from 10.77.0.1:8002 to 10.77.0.11:8002"), 1);
}

#[tokio::test]
async fn an_agent_that_starts_before_its_network_is_no_loopback_to_others() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &[]), network.host("b", &["10.77.0.2/24"]));
    let agent_a = a.agent(&["--join", "10.77.0.2:8002"]);
    let agent_b = b.agent(&[]);
    eventually(LONG, "it says so", || agent_a.times("peers on other hosts do not admit this agent") == 1)
        .await;
    let problems = a.status()["problems"].to_string();
    assert!(problems.contains("reached at 127.0.0.1:8002"), "{problems}");
    a.register("1", "t", ENTRYPOINT);
    a.add("10.77.0.1/24");
    eventually(SOON, "b has the record", || b.get("t") == ["10.77.0.1:8001"]).await;
    eventually(SOON, "they meet", || b.place_of("a").as_deref() == Some("10.77.0.1:8002")).await;
    assert_eq!(agent_a.times("our address changed from 127.0.0.1:8002 to 10.77.0.1:8002"), 1);
    assert!(!a.status()["problems"].to_string().contains("127.0.0.1"), "it is mended");
    assert!(!b.get("t").iter().any(|address| address.starts_with("127.")), "{}", agent_b.said());
}

#[tokio::test]
async fn a_loopback_address_of_another_host_is_refused_and_named_at_both() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    let agent_b = b.agent(&[]);
    let agent_a = a.agent(&["--advertise-host", "127.0.0.1", "--join", "10.77.0.2:8002"]);
    eventually(LONG, "b says so", || agent_b.times("not admitted") == 1).await;
    eventually(LONG, "a says so", || agent_a.times("--advertise-host is a loopback address") == 1).await;
    assert_eq!((a.place_of("b"), b.place_of("a")), (None, None));
    assert_eq!((agent_a.times("peer joined"), agent_b.times("peer joined")), (0, 0));
}

#[tokio::test]
async fn hosts_without_ipv4_meet_and_a_gossip_without_ipv6_is_told() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["fd99::1/64"]), network.host("b", &["fd99::2/64"]));
    // It has both.
    let c = network.host("c", &["10.77.0.3/24", "fd99::3/64"]);
    let d = network.host("d", &["10.77.0.4/24"]);
    let agent_b = b.agent(&[]);
    let _agents = (a.agent(&["--join", "[fd99::2]:8002"]), c.agent(&["--join", "[fd99::2]:8002"]));
    a.register("1", "t", ENTRYPOINT);
    eventually(LONG, "b has the record", || b.get("t") == ["[fd99::1]:8001"]).await;
    eventually(LONG, "c too", || c.get("t") == ["[fd99::1]:8001"]).await;
    assert_eq!(b.place_of("a").as_deref(), Some("[fd99::1]:8002"), "{}", agent_b.said());
    let bad = ["--gossip", "0.0.0.0:8002", "--join", "[fd99::2]:8002"];
    let check = d.check(&bad);
    assert!(
        check.lines().any(|line| line.starts_with("FAIL  join") && line.contains("[::]:8002")),
        "{check}"
    );
    let agent_d = d.agent(&bad);
    eventually(LONG, "it says so", || agent_d.times("cannot join there") == 1).await;
}

#[tokio::test]
async fn agents_of_ipv4_meet_on_sockets_of_ipv6() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    let _a = a.agent(&["--gossip", "[::]:8002"]);
    for n in 0..40 {
        a.register(&n.to_string(), "t", ENTRYPOINT);
    }
    // So many at once come by a connection.
    let _b = b.agent(&["--gossip", "0.0.0.0:8002", "--join", "10.77.0.1:8002"]);
    eventually(LONG, "they meet", || a.place_of("b").is_some() && b.place_of("a").is_some()).await;
    assert_eq!(
        (a.place_of("b").as_deref(), b.place_of("a").as_deref()),
        (Some("10.77.0.2:8002"), Some("10.77.0.1:8002"))
    );
    for n in 0..200 {
        a.register(&format!("{n}"), "t", ENTRYPOINT);
    }
    eventually(LONG, "records, by connections too", || b.get("t").len() == 64).await;
}

#[tokio::test]
async fn a_port_that_is_forwarded_is_advertised_and_no_entrypoint_gets_it() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    let rules = "add table ip n; add chain ip n pre { type nat hook prerouting priority -100; }; \
                 add rule ip n pre udp dport 9002 redirect to :8002; add rule ip n pre tcp dport 9002 redirect to :8002; \
                 add chain ip n in { type filter hook input priority 0; }; \
                 add rule ip n in udp dport 8002 ct original proto-dst 8002 ct direction original ct state new drop";
    a.output("nft", &[rules]);
    if !a.output("nft", &["list", "ruleset"]).contains("redirect to :8002") {
        return println!("SKIPPED: nft does not translate here; nothing has shown a forwarded port");
    }
    let _agents = (a.agent(&["--advertise-host", "10.77.0.1:9002"]), b.agent(&["--join", "10.77.0.1:9002"]));
    eventually(LONG, "they meet", || b.place_of("a").as_deref() == Some("10.77.0.1:9002")).await;
    a.register("1", "t", ENTRYPOINT);
    eventually(LONG, "b has the record", || b.get("t") == ["10.77.0.1:8001"]).await;
    b.register("2", "u", ENTRYPOINT);
    eventually(LONG, "a has the record", || a.get("u") == ["10.77.0.2:8001"]).await;
}

#[tokio::test]
async fn an_agent_behind_a_one_way_nat_is_reached_where_its_frames_come_from() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    // What it advertises is an address that b has no route to.
    let rules = "add table ip n; add chain ip n post { type nat hook postrouting priority 100; }; \
                 add rule ip n post udp sport 8002 oifname eth0 snat to 10.77.0.1:30000-30001";
    a.output("nft", &[rules]);
    if !a.output("nft", &["list", "ruleset"]).contains("snat to") {
        return println!("SKIPPED: nft does not translate here; nothing has shown an agent behind NAT");
    }
    let _b = b.agent(&[]);
    let _a = a.agent(&["--advertise-host", "192.168.9.1", "--join", "10.77.0.2:8002"]);
    eventually(LONG, "they meet", || a.place_of("b").is_some() && b.place_of("a").is_some()).await;
    b.register("1", "t", ENTRYPOINT);
    eventually(LONG, "a has the record", || a.get("t") == ["10.77.0.2:8001"]).await;
}

#[tokio::test]
async fn an_address_that_can_be_bound_is_not_therefore_ours() {
    let Some(mut network) = Network::new() else { return };
    let a = network.host("a", &["10.77.0.1/24"]);
    let _other = network.host("b", &["10.77.0.2/24"]);
    a.output("sysctl", &["-w", "net.ipv4.ip_nonlocal_bind=1"]);
    let agent = a.agent(&[]);
    // Nothing listens at either; each call's connection closes at once, and then the gost is dialled.
    a.register("foreign", "foreign", "10.77.0.2:8420");
    a.register("own", "own", "10.77.0.1:8420");
    eventually(LONG, "our own dead gost's record lapses", || a.get("own").is_empty()).await;
    assert_eq!(
        a.get("foreign"),
        ["10.77.0.2:8420"],
        "another host's gost says nothing of ours: {}",
        agent.said()
    );
}

#[tokio::test]
async fn a_virtual_address_to_join_at_that_moves_to_another_host_is_asked_again() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.host("a", &["10.77.0.1/24"]), network.host("b", &["10.77.0.2/24"]));
    a.add("10.77.0.100/32");
    let agent_a = a.agent(&["--join", "10.77.0.100:8002"]);
    let _b = b.agent(&[]);
    eventually(LONG, "it is up", || a.status()["address"] == "10.77.0.1:8002").await;
    a.remove("10.77.0.100/32");
    b.add("10.77.0.100/32");
    eventually(LONG, "they meet", || a.place_of("b").as_deref() == Some("10.77.0.2:8002")).await;
    assert_eq!(agent_a.times("our address changed"), 0, "a virtual address is no address of ours");
}
