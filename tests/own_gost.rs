//! What an agent concludes about the gost beside it: through real sockets and both adapters, with processes that die.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::Process;
use crate::services::sd_client::SdClient;
use gossd::plugin::grpc::generated::{GetServiceRequest, RegisterRequest, RenewRequest, Service};
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

const SOON: Duration = Duration::from_secs(20);

/// gost's gRPC plugin client.
struct GrpcGost {
    node: String,
    sd: SdClient<Channel>,
}

impl GrpcGost {
    async fn start(node: &str, plugin: SocketAddr) -> Self {
        Self::with_agent(node, plugin, "grpc-go/1.67.1").await
    }

    async fn with_agent(node: &str, plugin: SocketAddr, user_agent: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{plugin}")).expect("an address");
        let endpoint = endpoint.user_agent(user_agent.to_owned()).expect("a header");
        let channel = endpoint.connect().await.expect("the agent listens");
        Self { node: node.into(), sd: SdClient::new(channel) }
    }

    fn service(&self, id: &str, name: &str, network: &str, address: &str) -> Service {
        let [id, name, network, address] = [id, name, network, address].map(str::to_owned);
        Service { id, name, node: self.node.clone(), network, address }
    }

    async fn register(&mut self, id: &str, name: &str, address: &str) -> Result<(), tonic::Status> {
        let service = self.service(id, name, "tcp", address);
        self.sd.register(RegisterRequest { service: Some(service) }).await.map(drop)
    }

    async fn renew(&mut self, id: &str, name: &str) -> bool {
        let service = self.service(id, name, "", "");
        self.sd.renew(RenewRequest { service: Some(service) }).await.expect("an answer").into_inner().ok
    }

    async fn get(&mut self, name: &str) -> Vec<String> {
        let reply = self.sd.get(GetServiceRequest { name: name.into() }).await.expect("an answer");
        reply.into_inner().services.into_iter().map(|service| service.address).collect()
    }
}

/// Waits until an agent lists this many records of a tunnel. Returns how long that took.
async fn until(agent: &Process, name: &str, what: &str, listed: usize) -> Duration {
    let start = Instant::now();
    while agent.get(name).await.len() != listed {
        assert!(start.elapsed() < SOON, "{what}: still {:?}", agent.get(name).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

async fn until_said(agent: &Process, what: &str) {
    let said = || agent.said().contains(what);
    crate::common::eventually(SOON, what, said).await;
}

/// Two agents with journals that know each other.
async fn two(folder: &Path) -> [Process; 2] {
    let a = Process::keeping("a", folder, &[]);
    let b = Process::keeping("b", folder, &["--join", &a.gossip.to_string()]);
    let mut probe = FakeGost::start("probe", b.plugin).await;
    probe.register("probe", "probe").await;
    until(&a, "probe", "the agents know each other", 1).await;
    drop(probe);
    until(&a, "probe", "its gost is gone", 0).await;
    [a, b]
}

#[tokio::test]
async fn a_gost_that_answers_has_its_whole_lease_after_a_restart_of_its_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::keeping("a", folder.path(), &["--lease-ttl", "9"]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    let port = gost.entrypoint.port();
    assert_eq!(gost.register_as("1", "t", &format!(":{port}")).await, 200);
    agent.is_kept().await;
    let killed = Instant::now();
    agent.kill_and_restart();
    // Nobody renews it, and its lease is over by then; but its gost may renew seldom, and answers a dial.
    while killed.elapsed() < Duration::from_secs(11) {
        assert_eq!(agent.get("t").await.len(), 1, "after {:?}", killed.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(gost);
    until(&agent, "t", "its gost is gone", 0).await;
    assert!(killed.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn a_gost_that_died_while_its_agent_was_away_is_gone_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, b] = two(folder.path()).await;
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "t").await;
    until(&b, "t", "it is listed", 1).await;
    a.is_kept().await;
    a.kill();
    drop(gost);
    a.restart();
    let took = until(&b, "t", "the new start has dialled it", 0).await;
    println!("PROMISE a gost that died with its agent is gone elsewhere: {took:?}");
    assert!(a.get("t").await.is_empty());
    assert!(a.log().contains("a gost is gone"), "it says why");
}

#[tokio::test]
async fn a_connected_gost_that_renews_seldom_loses_no_connector_while_it_answers() {
    let agent = Process::start("a", &["--lease-ttl", "5"]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t").await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(12) {
        assert_eq!(agent.get("t").await.len(), 1, "after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut gost = gost.stop_listening();
    until(&agent, "t", "it answers no more", 0).await;
    assert_eq!(gost.renew("1", "t").await, 200);
    assert_eq!(agent.get("t").await.len(), 1, "a late Renew revives it");
}

/// Both hosts hold a stale record of a tunnel whose clients are gone, and the gost of each asks.
async fn both_stale(folder: &Path) -> [Process; 2] {
    let mut agents = two(folder).await;
    let mut gosts = Vec::new();
    for (agent, id) in agents.iter().zip(["1", "2"]) {
        let mut gost = FakeGost::start(id, agent.plugin).await;
        gost.register(id, "t").await;
        gosts.push(gost);
    }
    for agent in &agents {
        until(agent, "t", "both are listed", 2).await;
        agent.is_kept().await;
    }
    agents.iter_mut().for_each(Process::kill);
    agents.iter_mut().for_each(Process::restart);
    for agent in &agents {
        until(agent, "t", "both are back", 2).await;
    }
    // The entrypoints continue to listen.
    gosts.into_iter().for_each(std::mem::forget);
    agents
}

#[tokio::test]
async fn a_bounce_between_two_stale_records_ends_within_a_round() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = both_stale(folder.path()).await;
    for user_agent in ["curl/8.14.1", "grpcurl/v1.9.3 grpc-go/1.61.0"] {
        let mut person = GrpcGost::with_agent("p", a.plugin, user_agent).await;
        assert_eq!(person.get("t").await.len(), 2, "a person who asks takes nothing away");
    }
    let mut gost = FakeGost::start("1", a.plugin).await;
    let there = gost.get("t").await;
    assert_eq!(there.len(), 1, "not its own any more: {there:?}");
    let mut other = GrpcGost::start("2", b.plugin).await;
    until(&b, "t", "the first gost's is gone there, too", 1).await;
    assert!(other.get("t").await.is_empty(), "nor the other's");
    until(&a, "t", "everywhere", 0).await;
    for agent in [&a, &b] {
        until_said(agent, "gost asks where a tunnel is").await;
        let metrics = call(agent.admin, &request("GET", "/metrics", "")).await.body;
        assert!(metrics.contains("\ngossd_lapses_by_get_total 1\n"), "{metrics}");
    }
    assert!(other.renew("2", "t").await, "it had its connector after all");
    until(&a, "t", "a late Renew revives it", 1).await;
}

#[tokio::test]
async fn a_get_takes_nothing_away_that_was_registered_a_moment_ago_or_may_be_of_another_network() {
    let agent = Process::start("a", &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t").await;
    assert_eq!(gost.get("t").await.len(), 1, "it may have asked before");
    gost.register("2", "t").await;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(gost.get("t").await.len(), 2, "it may want another network");
    gost.deregister("2", "t").await;
    assert_eq!(gost.get("t").await.len(), 0);
}

#[tokio::test]
async fn a_register_without_an_address_is_served_by_the_fallback_through_both_adapters() {
    let agent = Process::start("a", &["--fallback-address", ":8420", "--advertise-host", "127.0.0.1"]);
    let mut http = FakeGost::start("n1", agent.plugin).await;
    assert_eq!(http.register_as("1", "t", "").await, 200);
    let mut grpc = GrpcGost::start("n2", agent.plugin).await;
    grpc.register("2", "t", "").await.expect("it is taken");
    assert_eq!(agent.get("t").await, ["127.0.0.1:8420", "127.0.0.1:8420"]);
    assert_eq!(http.renew("3", "host@r").await, 200);
    let healed = call(agent.plugin, &request("GET", "/sd?name=host%40r", "")).await.json();
    assert_eq!(healed["services"][0]["network"], "udp", "a router's is a UDP port");
}

#[tokio::test]
async fn without_an_address_and_a_fallback_that_of_the_last_gost_is_used_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::keeping("a", folder.path(), &[]);
    let mut http = FakeGost::start("n1", agent.plugin).await;
    let mut grpc = GrpcGost::start("n2", agent.plugin).await;
    assert_eq!(http.register_as("1", "t", "").await, 400, "nobody has said it");
    let refused = grpc.register("1", "t", "").await.unwrap_err();
    assert!(refused.message().contains("set `entrypoint`"), "{refused}");
    assert!(!grpc.renew("2", "t").await);
    http.register("3", "u").await;
    http.deregister("3", "u").await;
    agent.is_kept().await;
    agent.kill_and_restart();
    http.reconnect_to(agent.plugin);
    let mut grpc = GrpcGost::start("n2", agent.plugin).await;
    assert!(grpc.renew("2", "t").await, "a client that bound while its agent was away");
    grpc.register("4", "t", "").await.expect("it is taken");
    assert_eq!(http.register_as("5", "t", "").await, 200);
    assert_eq!(http.renew("6", "t").await, 200);
    assert_eq!(agent.get("t").await, vec![http.entrypoint.to_string(); 4]);
}

/// The calls of gost's documentation, as they are typed.
#[tokio::test]
async fn the_same_id_can_be_registered_again_after_its_deregister_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::keeping("a", folder.path(), &[]);
    let whole = json!({
        "id": "c23d4f42-c892-42b3-8b74-88ab6455d33a",
        "name": "c9ef8f8c-d687-4dca-be7a-1467b6565404",
        "node": "db670b91-61a5-4f7c-8014-3bbe994446ea",
        "network": "tcp",
        "address": "10.42.0.100:80",
    });
    let (name, mut short) = (whole["name"].as_str().unwrap(), whole.clone());
    for field in ["network", "address"] {
        short.as_object_mut().unwrap().remove(field);
    }
    for restart in [false, false, true, false] {
        let plugin = agent.plugin;
        let curl = async |method, body: &serde_json::Value| {
            assert_eq!(call(plugin, &request(method, "/sd", &body.to_string())).await.status(), 200);
        };
        curl("POST", &whole).await;
        assert_eq!(agent.get(name).await, ["10.42.0.100:80"]);
        curl("PUT", &short).await;
        curl("DELETE", &short).await;
        curl("PUT", &short).await;
        assert!(agent.get(name).await.is_empty(), "a Renew in flight does not bring it back");
        if restart {
            agent.is_kept().await;
            agent.kill_and_restart();
        }
    }
}

#[tokio::test]
async fn a_deregister_that_overtook_its_register_wins_over_a_restart_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::keeping("a", folder.path(), &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.deregister("1", "t").await;
    agent.is_kept().await;
    agent.kill_and_restart();
    gost.reconnect_to(agent.plugin);
    gost.register("1", "t").await;
    assert_eq!(gost.renew("1", "t").await, 200);
    assert!(agent.get("t").await.is_empty());
}
