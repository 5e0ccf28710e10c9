//! Host names of tunnels as three gosts and their visitors use them: real agents, real sockets, gost's own order of
//! calls.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::TestCluster;
use crate::common::gost::{FakeGost, hash_host};
use crate::common::http::{Connection, request};
use crate::common::process::Process;
use crate::services::ingress_client::IngressClient;
use gossd::plugin::grpc::generated::GetRuleRequest;
use tonic::transport::Endpoint;

const SOON: Duration = Duration::from_secs(20);
/// Two tunnels; the first would win a tie.
const ONE: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const TWO: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
/// One that is private.
const THREE: &str = "e1342e00-b1d2-4ae1-ba9c-b026c0540cff";

/// Where an agent sends the visitors of a host name.
async fn endpoint(plugin: SocketAddr, host: &str) -> String {
    let mut connection = Connection::open(plugin).await;
    let answer = connection.call(&request("GET", &format!("/ingress?host={host}"), "")).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()["endpoint"].as_str().expect("never null").to_owned()
}

/// Waits until agents send the visitors of a host name to this endpoint. Returns how long that took.
async fn until(plugins: &[SocketAddr], host: &str, wanted: &str) -> Duration {
    let start = Instant::now();
    for plugin in plugins {
        while endpoint(*plugin, host).await != wanted {
            assert!(start.elapsed() < SOON, "{host} is {} at {plugin}", endpoint(*plugin, host).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    start.elapsed()
}

/// Three agents that know each other.
async fn three(folder: &Path) -> [Process; 3] {
    let a = Process::keeping("a", folder, &[]);
    let join = a.gossip.to_string();
    let [b, c] = ["b", "c"].map(|name| Process::keeping(name, folder, &["--join", &join]));
    let agents = [a, b, c];
    for (agent, name) in agents.iter().zip(["met-a", "met-b", "met-c"]) {
        assert!(FakeGost::start("probe", agent.plugin).await.set_rule(name, TWO).await);
        until(&agents.each_ref().map(|agent| agent.plugin), name, TWO).await;
    }
    agents
}

#[tokio::test]
async fn a_name_claimed_at_one_agent_is_known_at_the_others_in_milliseconds() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = three(folder.path()).await;
    let mut gost = FakeGost::start("n", a.plugin).await;
    let mut times = Vec::new();
    for n in 0..50 {
        let host = format!("host-{n}.example.org");
        assert!(gost.set_rule(&host, ONE).await);
        assert_eq!(gost.get_rule(&host).await, ONE, "at once where it was claimed");
        times.push(until(&[b.plugin, c.plugin], &host, ONE).await);
    }
    times.sort_unstable();
    println!("PROMISE a name is known at three agents: p50 {:?}, p98 {:?}", times[25], times[48]);
    assert!(times[25] < Duration::from_millis(250), "by push, not by a round of gossip: {times:?}");
    assert_eq!(gost.bind("1", ONE, "host-7.example.org").await, ("host-7.example.org".into(), true));
    until(&[b.plugin, c.plugin], "Host-7.Example.org:8420", ONE).await;
    until(&[b.plugin, c.plugin], &hash_host(ONE), ONE).await;
}

#[tokio::test]
async fn every_live_tunnel_has_its_hash_host_without_any_rule() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = three(folder.path()).await;
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", ONE).await;
    let everywhere = [a.plugin, b.plugin, c.plugin];
    until(&everywhere, &hash_host(ONE), ONE).await;
    gost.deregister("1", ONE).await;
    until(&everywhere, &hash_host(ONE), "").await;
}

#[tokio::test]
async fn the_second_tunnel_that_asks_for_a_name_gets_its_hash_host() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = three(folder.path()).await;
    let mut first = FakeGost::start("n1", a.plugin).await;
    let mut second = FakeGost::start("n2", b.plugin).await;
    assert_eq!(first.bind("1", ONE, "shop").await, ("shop".into(), true));
    until(&[b.plugin, c.plugin], "shop", ONE).await;
    assert_eq!(second.bind("2", TWO, "shop").await, (hash_host(TWO), true));
    assert!(!second.set_rule("shop", TWO).await, "not even if it insists");
    until(&[a.plugin, c.plugin], &hash_host(TWO), TWO).await;
    assert_eq!(endpoint(b.plugin, "shop").await, ONE);
}

#[tokio::test]
async fn a_name_outlives_its_agent_and_moves_with_its_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, b, c] = three(folder.path()).await;
    let mut gost = FakeGost::start("n1", a.plugin).await;
    assert_eq!(gost.bind("1", ONE, "shop").await, ("shop".into(), true));
    until(&[b.plugin, c.plugin], "shop", ONE).await;
    a.kill();
    drop(gost);

    let mut rival = FakeGost::start("n2", b.plugin).await;
    assert_eq!(rival.bind("2", TWO, "shop").await, (hash_host(TWO), true), "it is kept for its tunnel");
    let mut moved = FakeGost::start("n3", c.plugin).await;
    assert_eq!(moved.bind("3", ONE, "shop").await, ("shop".into(), true), "which has it at once elsewhere");
    assert_eq!(endpoint(b.plugin, "shop").await, ONE);

    a.restart();
    until(&[a.plugin], "shop", ONE).await;
    assert_eq!(endpoint(c.plugin, "shop").await, ONE, "and the first agent's return changes nothing");
}

#[tokio::test]
async fn both_sides_of_a_partition_agree_when_it_is_healed() {
    partition(false).await;
}

#[tokio::test]
async fn both_sides_agree_even_if_one_had_forgotten_the_other() {
    partition(true).await;
}

async fn partition(until_forgotten: bool) {
    let cut = Arc::new(AtomicBool::new(false));
    let lone = Arc::new(std::sync::OnceLock::<SocketAddr>::new());
    let mut cluster = TestCluster::start(3, |n, config| {
        let (cut, lone) = (cut.clone(), lone.clone());
        config.lease_ttl = Duration::from_secs(5);
        config.dead_grace = Duration::from_secs(2);
        // Agent 2 is alone on its side.
        config.faults = Some(Arc::new(move |_, to| {
            cut.load(Ordering::Relaxed) && (n == 2 || lone.get().is_some_and(|lone| *lone == to))
        }));
    })
    .await;
    lone.set(cluster.agents[2].advertised).expect("once");
    let [a, b, c] = [0, 1, 2].map(|n| cluster.agents[n].plugin);
    let mut gosts = [FakeGost::start("n1", a).await, FakeGost::start("n2", c).await];
    // A claim that an agent makes before it can have received its peers' claims counts less.
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    cut.store(true, Ordering::Relaxed);

    // Each claims two names at the same logical time, and a third when its own side has seen more.
    let mut given = Vec::new();
    for (gost, tunnel) in gosts.iter_mut().zip([TWO, ONE]) {
        for host in ["tie", "shop"] {
            given.push(gost.bind(&format!("{tunnel}-{host}"), tunnel, host).await);
        }
    }
    assert!(given.iter().all(|(_, agreed)| *agreed), "both sides go on");
    assert!(gosts[1].set_rule("one-more", ONE).await && gosts[1].set_rule("later", ONE).await);
    assert!(gosts[0].set_rule("later", TWO).await);
    until(&[b], "later", TWO).await;
    assert_eq!(endpoint(c, "later").await, ONE);

    if until_forgotten {
        let forgotten = || cluster.agents[..2].iter().all(|agent| agent.counts().agents == 2);
        crate::common::eventually(Duration::from_secs(60), "the lone agent is forgotten", forgotten).await;
    }
    cut.store(false, Ordering::Relaxed);
    let healed = Instant::now();
    until(&[a, b, c], "tie", ONE).await;
    until(&[a, b, c], "shop", ONE).await;
    until(&[a, b, c], "later", TWO).await;
    println!("PROMISE a partition is healed, names: {:?}", healed.elapsed());
    assert!(!gosts[0].set_rule("tie", TWO).await, "the loser is told");
    assert!(!gosts[1].set_rule("later", ONE).await);
    assert!(gosts[1].set_rule("tie", ONE).await, "and the winner has it");
    until(&[a, b, c], &hash_host(TWO), TWO).await;
    for agent in cluster.agents.drain(..) {
        agent.stop().await;
    }
}

#[tokio::test]
async fn names_survive_a_restart_of_all_agents() {
    let folder = tempfile::tempdir().unwrap();
    let mut agents = three(folder.path()).await;
    let mut gosts = Vec::new();
    for (n, agent) in agents.iter().enumerate() {
        let mut gost = FakeGost::start(&format!("n{n}"), agent.plugin).await;
        assert!(gost.set_rule(&format!("host-{n}"), ONE).await);
        gosts.push(gost);
    }
    assert!(gosts[0].set_rule("private", &format!("${TWO}")).await);
    for agent in &agents {
        agent.is_kept().await;
    }
    for agent in &mut agents {
        agent.kill();
    }
    for agent in &mut agents {
        agent.restart();
    }
    let plugins = agents.each_ref().map(|agent| agent.plugin);
    let start = Instant::now();
    for n in 0..3 {
        until(&plugins, &format!("host-{n}"), ONE).await;
    }
    until(&plugins, "private", &format!("${TWO}")).await;
    println!("PROMISE every agent restarts at once, names: {:?}", start.elapsed());
    let mut rival = FakeGost::start("n", agents[2].plugin).await;
    assert!(!rival.set_rule("host-0", TWO).await);
}

#[tokio::test]
async fn the_operators_rules_come_before_the_claims_of_tunnels() {
    let rule =
        format!("www.example.com={ONE},*.example.com={ONE},*.example.org=${THREE},www.example.org={THREE}");
    let flags = [
        "--ingress-domain",
        "example.com,tunnels.example.net",
        "--ingress-rule",
        &rule,
        "--ingress-reserved",
        "admin",
        "--ingress-min-label",
        "4",
    ];
    let agent = Process::start("a", &flags);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    for (host, tunnel, agreed) in [
        ("shop", TWO, true),
        ("shop.example.com", TWO, true),
        ("shop.example.org", TWO, true),
        ("*.a.example.org", TWO, true),
        ("www.example.com", TWO, false),
        ("www", ONE, true),
        ("admin", TWO, false),
        ("abc", TWO, false),
        ("example.com", TWO, false),
        ("*.net", TWO, false),
        (&hash_host(ONE), TWO, false),
    ] {
        assert_eq!(gost.set_rule(host, tunnel).await, agreed, "{host}");
    }
    let private = format!("${THREE}");
    for (host, want) in [
        ("www.example.org", &*private),
        ("shop", TWO),
        ("shop.tunnels.example.net:443", TWO),
        ("SHOP.example.com.", TWO),
        ("www", ONE),
        ("other.example.com", ONE),
        ("shop.example.org", TWO),
        ("b.a.example.org", TWO),
        ("a.example.org", TWO),
        ("example.org", &private),
        ("b.example.org:80", &private),
        ("other", ""),
        ("example.net", ""),
        ("a..b", ""),
    ] {
        assert_eq!(gost.get_rule(host).await, want, "{host}");
    }
}

/// Where an agent sends the visitors of a host name, over gRPC.
async fn endpoint_by_grpc(plugin: SocketAddr, host: &str) -> String {
    let channel = Endpoint::from_shared(format!("http://{plugin}")).expect("an address");
    let channel = channel.connect().await.expect("the agent listens");
    let request = GetRuleRequest { host: host.into(), service: "service-0".into() };
    let answer = IngressClient::new(channel).get_rule(request).await.expect("an answer");
    answer.into_inner().endpoint
}

#[tokio::test]
async fn a_tunnel_that_a_rule_of_any_agent_makes_private_is_private_under_every_name_at_every_agent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gossd.toml");
    let rule = |rule: &str| std::fs::write(&file, format!("ingress-rule = [{rule}]")).unwrap();
    rule(&format!("\"priv.example.test=${ONE}\""));
    // The flags of the other agents have no such rule.
    let mut a = Process::keeping("a", folder.path(), &["--config", file.to_str().unwrap()]);
    let join = a.gossip.to_string();
    let [b, mut c] = ["b", "c"].map(|name| Process::keeping(name, folder.path(), &["--join", &join]));
    let all = [a.plugin, b.plugin, c.plugin];
    let mut gost = FakeGost::start("n", b.plugin).await;
    let mut other = FakeGost::start("m", b.plugin).await;
    assert!(gost.set_rule("*.wild.example.test", ONE).await);
    assert_eq!(gost.bind("1", ONE, "shop.example.test").await, ("shop.example.test".into(), true));
    assert_eq!(other.bind("2", TWO, "open.example.test").await, ("open.example.test".into(), true));
    let names = ["shop.example.test", "x.wild.example.test:8420", &hash_host(ONE)];
    let private = format!("${ONE}");
    for name in names {
        until(&all, name, &private).await;
    }
    for plugin in all {
        for name in names {
            assert_eq!(endpoint_by_grpc(plugin, name).await, private, "{name}");
        }
        until(&[plugin], "open.example.test", TWO).await;
    }
    until(&[a.plugin], "priv.example.test", &private).await;
    let told = |agent: &Process, verb: &[&str]| {
        let admin = agent.admin.to_string();
        let output = crate::common::process::gossd()
            .args(verb)
            .args(["--admin", &admin])
            .output()
            .expect("gossd runs");
        String::from_utf8(output.stdout).expect("text")
    };
    for agent in [&a, &b, &c] {
        assert!(told(agent, &["explain", &hash_host(ONE)]).contains("private: gost turns visitors away"));
        assert!(told(agent, &["explain", ONE]).contains("private: gost turns visitors away"));
        assert!(!told(agent, &["explain", TWO]).contains("private"));
        assert!(told(agent, &["status"]).contains("; 1 private tunnel\n"), "{}", told(agent, &["status"]));
    }

    // Neither a restart of the agent with the rule, nor one of an agent that knows it from a peer, makes the tunnel
    // public for a moment.
    a.kill_and_restart();
    for _ in 0..100 {
        assert_eq!(endpoint(c.plugin, names[2]).await, private);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    c.is_kept().await;
    a.kill();
    c.kill_and_restart();
    until(&[c.plugin], names[0], &private).await;

    a.restart();
    for name in names {
        until(&[a.plugin], name, &private).await;
    }
    // While the agent with the rule is away, an agent that has restarted keeps the tunnel private for a time, whatever
    // its own rules are.
    assert!(FakeGost::start("probe", a.plugin).await.set_rule("back", TWO).await);
    until(&all, "back", TWO).await;
    rule("");
    a.signal("-HUP");
    for name in names {
        until(&all, name, ONE).await;
    }
    assert!(!told(&b, &["status"]).contains("private"));
}

#[tokio::test]
async fn a_full_agent_refuses_and_keeps_what_it_has() {
    let flags = ["--max-records", "2", "--max-rules", "2"];
    let agent = Process::start("a", &flags);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    for host in ["one", "two"] {
        assert!(gost.set_rule(host, ONE).await);
    }
    let body = format!(r#"{{"host":"three","endpoint":"{ONE}"}}"#);
    let answer = crate::common::http::call(agent.plugin, &request("PUT", "/ingress", &body)).await;
    assert_eq!(answer.status(), 429, "{answer:?}");
    assert_eq!(answer.json()["error"], "this agent already holds 2 ingress rules (--max-rules)");
    assert!(gost.set_rule("one", ONE).await, "what is there may be said again");
    assert_eq!(gost.get_rule("two").await, ONE);

    gost.register("1", ONE).await;
    gost.register("2", ONE).await;
    let body = format!(r#"{{"id":"3","name":"{ONE}","node":"n","network":"tcp","address":"10.0.0.1:80"}}"#);
    let answer = crate::common::http::call(agent.plugin, &request("POST", "/sd", &body)).await;
    assert_eq!(answer.status(), 429, "{answer:?}");
    assert_eq!(answer.json()["error"], "this agent already holds 2 records (--max-records)");
    assert_eq!(gost.renew("1", ONE).await, 200);
    assert_eq!(agent.get(ONE).await.len(), 2);
}

#[tokio::test]
async fn an_agent_that_starts_takes_no_name_from_a_living_tunnel() {
    let a = Process::start("a", &[]);
    let c = Process::start("c", &["--join", &a.gossip.to_string()]);
    let mut early = FakeGost::start("n0", c.plugin).await;
    early.bind("0", TWO, "early").await;
    until(&[a.plugin], "early", TWO).await;
    // Three seconds after an agent knows a peer, its claims no longer count as those of a new agent.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let mut gost = FakeGost::start("n1", a.plugin).await;
    for n in 0..5 {
        assert!(gost.set_rule(&format!("other-{n}"), ONE).await);
    }
    assert_eq!(gost.bind("1", ONE, "shop").await, ("shop".into(), true));
    // A host boots: gossd and gost start, and a waiting client binds before either knows of a.
    let b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let mut other = FakeGost::start("n2", b.plugin).await;
    other.bind("2", TWO, "shop").await;
    until(&[b.plugin], "other-0", ONE).await;
    until(&[a.plugin], &hash_host(TWO), TWO).await;
    until(&[a.plugin, b.plugin], "shop", ONE).await;
    assert!(!other.set_rule("shop", TWO).await);
}
