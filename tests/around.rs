//! Around a hole: three hosts as network namespaces with real agents, and a firewall between two of them.

use std::time::Duration;

use serde_json::Value;

use crate::common::eventually;
use crate::common::netns::Network;

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const OTHER: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677c";
/// Where something takes connections of other hosts, in place of gost: each agent's gossip.
const ENTRYPOINT: &str = ":8002";
/// For agents to find each other: other tests take the cores.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn visitors_go_around_a_closed_firewall_by_the_gost_of_a_third_host_until_it_is_open() {
    let Some(mut network) = Network::new() else { return };
    let (a, b, c) = (
        network.host("a", &["10.77.0.1/24"]),
        network.host("b", &["10.77.0.2/24"]),
        network.host("c", &["10.77.0.3/24"]),
    );
    let join = ["--join", "10.77.0.1:8002"];
    let (agent_a, _b, _c) = (a.agent(&[]), b.agent(&join), c.agent(&join));
    let wall = "add table inet wall; add chain inet wall out { type filter hook output priority 0; }; \
                add rule inet wall out ip daddr 10.77.0.2 tcp dport 8002 drop";
    a.output("nft", &[wall]);
    eventually(LONG, "they meet", || ["b", "c"].iter().all(|peer| a.place_of(peer).is_some())).await;
    b.register("1", TUNNEL, ENTRYPOINT);
    c.register("2", OTHER, ENTRYPOINT);

    let around = ["10.77.0.3:8002", "10.77.0.2:8002"];
    eventually(LONG, "an answer begins with c", || a.get(TUNNEL) == around).await;
    assert_eq!(c.get(TUNNEL), ["10.77.0.2:8002"], "and from there straight on");
    assert_eq!(agent_a.times("this host can dial no record of a tunnel, but a peer can"), 1);
    let url = format!("http://127.0.0.1:8001/explain.json?name={TUNNEL}");
    let explained: Value = serde_json::from_str(&a.output("curl", &["-s", &url])).expect("it is JSON");
    assert_eq!(
        (&explained["around"]["agent"], &explained["around"]["address"]),
        (&"c".into(), &around[0].into())
    );

    a.output("nft", &["delete table inet wall"]);
    eventually(LONG, "the way is open", || a.get(TUNNEL) == ["10.77.0.2:8002"]).await;
}
