//! Attackers with the key: a peer that sends what no agent sends. Nothing ends, what it can make others hold is
//! bounded, it writes only its own slots, and it is named. Its valid messages count: a holder of the key is a member.

use std::time::Duration;

use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::Process;
use crate::common::puppet::{Puppet, cell, push, record_cell};
use crate::common::{TestCluster, eventually, ids, record};
use gossd::daemon::Daemon;
use gossd::net::keyfile::generate;
use gossd_core::connection::Caller;
use gossd_core::link::counters::Dropped;
use gossd_core::link::gauges::Gauge;
use gossd_core::link::keyring::{Keyring, MAX_KEYS};
use gossd_core::link::keys::{Filed, KeyringSummary};
use gossd_core::link::wire::{self, Card, Cards, Kind, Push};
use gossd_core::replicas::MAX_AGENTS;
use gossd_core::slot::{Content, Status};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

const SOON: Duration = Duration::from_secs(20);

/// Two agents with a record each, and a puppet that is a peer of the first.
async fn cluster() -> (TestCluster, Puppet) {
    let key = generate().line();
    let keyring = || Keyring::parse(&key).expect("a key");
    let cluster = TestCluster::start(2, |n, config| {
        config.keyring = keyring();
        config.admin = (n == 0).then_some(config.plugin[0]);
    })
    .await;
    for (n, agent) in cluster.agents.iter().enumerate() {
        agent.agent().register(Caller::local(1), record(&n.to_string(), "t")).expect("room");
    }
    let agent = &cluster.agents[0];
    let puppet = Puppet::start(agent.gossip, keyring(), "default", "puppet", 1).await;
    eventually(SOON, "it is admitted", || agent.peers() == 2).await;
    eventually(SOON, "all is known", || ids(agent, "t") == ["0", "1"]).await;
    (cluster, puppet)
}

async fn ask(agent: &Daemon, path: &str) -> String {
    call(agent.admin.expect("it has one"), &request("GET", path, "")).await.body
}

/// The status of a member.
async fn member(agent: &Daemon, name: &str) -> Value {
    let status: Value = serde_json::from_str(&ask(agent, "/status.json").await).expect("JSON");
    let members = status["members"].as_array().expect("a list");
    let mut member = members.iter().find(|member| member["name"] == name).expect("it is known").clone();
    member["problems"] = status["problems"].clone();
    member
}

/// Both agents still receive each other's changes.
async fn goes_on(cluster: &TestCluster, id: &str) {
    cluster.agents[1].agent().register(Caller::local(1), record(id, "goes-on")).expect("room");
    eventually(SOON, "a change arrives", || ids(&cluster.agents[0], "goes-on").contains(&id.to_owned()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_writes_its_senders_slots_and_nobody_elses() {
    let (cluster, puppet) = cluster().await;
    let (agent, other) = (&cluster.agents[0], &cluster.agents[1]);
    puppet.get_ready().await;
    // Claims that the slots of the others' records are empty, with higher versions.
    puppet.push(9, &[1, 2, 1_000_001].map(|slot| (slot, cell(9, Content::Empty)))).await;
    puppet.push(10, &[(3, record_cell(10, ["z", "t", "node-6", "10.6.6.6:666"]))]).await;
    eventually(SOON, "its own record", || agent.agent().resolve("t").len() == 3).await;
    assert_eq!(ids(agent, "t"), ["0", "1", "z"], "its own beside the other's, not in its place");
    // About the receiver itself, to which a peer may send its own former state, and about nobody else.
    for former in [agent.agent().owner().generation, other.agent().owner().generation] {
        let empty = cell(99, Content::Empty);
        let changes = vec![(1, &empty[..])];
        let lie = Push { age_us: 0, id: 7, former: Some(former), since: 0, until: 99, changes };
        puppet.say(Kind::Push, &wire::encode(&lie)).await;
    }
    let answer = wire::Answer {
        name: other.agent().owner().name.as_str(),
        generation: other.agent().owner().generation,
        id: 1,
        after: 0,
        from: 0,
        next: None,
        whole: true,
        until: 99,
        changes: Vec::new(),
    };
    puppet.say(Kind::Answer, &wire::encode(&answer)).await;
    goes_on(&cluster, "x").await;
    assert_eq!(ids(agent, "t"), ["0", "1", "z"], "an answer that nobody asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_peer_sends_nothing_ends_and_the_peer_is_named() {
    let (mut cluster, puppet) = cluster().await;
    let mut rng = StdRng::seed_from_u64(5);
    for n in 0..2_000_usize {
        let kind = Kind::ALL[n % Kind::ALL.len()];
        // A conflict would end a young agent that believes it; it needs that agent's session, which nobody can guess.
        let payload: Vec<u8> = (0..n % 200).map(|_| rng.random()).collect();
        puppet.say(kind, &payload).await;
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let ready = cell(1, Content::Status(Status::Ready));
    let nonsense = [
        (0, b"x".to_vec()),
        (5, record_cell(1, ["i", "t", "n", "h:1"])[..5].to_vec()),
        (2_000_001, cell(1, Content::Empty)),
        (7, ready),
        (8, cell(u64::MAX, Content::Empty)),
    ];
    puppet.push(0, &nonsense).await;
    // With counters at the end of their range.
    for counter in [u64::MAX - 2, u64::MAX - 1] {
        let frame =
            puppet.frame_as(counter, Kind::Push, &push(1, u64::MAX, &[(u32::MAX, cell(1, Content::Empty))]));
        let mut stream = tokio::net::TcpStream::connect(cluster.agents[0].gossip).await.expect("it listens");
        stream.write_u32(u32::try_from(frame.len()).expect("short")).await.expect("sent");
        stream.write_all(&frame).await.expect("sent");
    }
    let agent = &cluster.agents[0];
    eventually(SOON, "both are counted", || {
        agent.counters().dropped(Dropped::Malformed) > 10 && agent.counters().dropped(Dropped::NotASlot) >= 4
    })
    .await;
    goes_on(&cluster, "x").await;
    let said = member(agent, "puppet").await;
    assert!(said["refused"]["count"].as_u64().expect("a number") > 15, "{said:#}");
    assert!(said["problems"].to_string().contains("messages from puppet were rejected"), "{said:#}");
    assert!(member(agent, "agent-1").await["refused"].is_null(), "nothing against the other");
    let metrics = ask(agent, "/metrics").await;
    assert!(metrics.contains(r#"gossd_peer_refused_total{peer="puppet",reason="malformed"}"#), "{metrics}");
    for agent in &mut cluster.agents {
        let fault = tokio::time::timeout(Duration::from_millis(50), agent.fault()).await;
        assert!(fault.is_err(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_knows_ever_later_starts_of_an_agent_ends_it_a_few_times_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = Process::keeping("a", folder.path(), &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t").await;
    for n in 0..6_u64 {
        let puppet = Puppet::start(agent.gossip, Keyring::public(), "default", "puppet", n + 1).await;
        let known = wire::Superseded { generation: (1 << 49) + n * 10_000_000, ran: 0 };
        puppet.say(Kind::Superseded, &wire::encode(&known)).await;
        let starts = usize::try_from(n.min(2) + 1).expect("few");
        eventually(SOON, "it starts anew", || {
            agent.said().matches("Starting anew above it").count() == starts
        })
        .await;
        assert_eq!(agent.get("t").await.len(), 1, "the record is kept");
    }
    eventually(SOON, "it says why not", || agent.said().contains("goes on; that peer takes nothing")).await;
    gost.reconnect_to(agent.plugin);
    gost.register("2", "t").await;
    assert_eq!(agent.get("t").await.len(), 2);
    assert_eq!(agent.said().matches("Starting anew above it").count(), 3);
}

/// A peer heard from this very start that it had run for longer than it has.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_memory_was_put_back_says_so_and_starts_anew_with_its_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = Process::keeping("a", folder.path(), &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t").await;
    let puppet = Puppet::start(agent.gossip, Keyring::public(), "default", "puppet", 1).await;
    let status = call(agent.admin, &request("GET", "/status.json", "")).await.json();
    let generation = status["generation"].as_u64().expect("a number");
    for (ran, is_put_back) in [(0, false), (3_600, true)] {
        puppet.say(Kind::Superseded, &wire::encode(&wire::Superseded { generation, ran })).await;
        puppet.say(Kind::Superseded, &wire::encode(&wire::Superseded { generation: 1, ran: 3_600 })).await;
        if is_put_back {
            eventually(SOON, "it says so", || agent.said().contains("its memory was put back")).await;
        }
    }
    assert_eq!(agent.said().matches("Starting anew above it").count(), 1, "{}", agent.said());
    assert_eq!(agent.get("t").await.len(), 1, "the record is kept");
}

/// Cards of agents that are made up, each as long as may be or longer.
fn made_up(names: &[String], keys: usize) -> Vec<u8> {
    let keyring = Keyring::parse(&generate().line()).expect("a key");
    let mut told = KeyringSummary::of(&keyring, Filed::MemoryOnly);
    told.keys = vec![keyring.sealing(); keys];
    let addr = "10.0.0.1:257".parse().expect("an address");
    let card = |name| Card {
        name,
        generation: 1,
        revision: 1,
        addr,
        left: false,
        buried: false,
        version: 1,
        age_ms: 0,
        program: "a program with such a version",
        keys: Some(told.clone()),
    };
    wire::encode(&Cards { rows: 0, hash: 0, cards: names.iter().map(|name| card(name.as_str())).collect() })
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_agents_fill_the_board_and_end_nobody() {
    let (mut cluster, puppet) = cluster().await;
    let agent = &cluster.agents[0];
    for n in 0..1_000_u32 {
        // More do not fit a datagram.
        let names: Vec<_> = (0..3).map(|m| format!("made-up-{:0>20}", 3 * n + m)).collect();
        puppet.say(Kind::Cards, &made_up(&names, MAX_KEYS)).await;
        puppet.say(Kind::Cards, &made_up(&names[..1], MAX_KEYS + 1)).await;
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let cards = |agent: &Daemon| agent.counters().gauges.get(Gauge::Peers);
    eventually(SOON, "it is full", || cards(agent) == MAX_AGENTS).await;
    assert!(agent.counters().dropped(Dropped::Malformed) > 0, "keyrings that nobody has are refused");
    goes_on(&cluster, "x").await;
    eventually(SOON, "the other one's, too", || cards(&cluster.agents[1]) > MAX_AGENTS * 9 / 10).await;
    goes_on(&cluster, "y").await;
    assert!(cluster.agents.iter().all(|agent| cards(agent) <= MAX_AGENTS));
    for agent in &mut cluster.agents {
        let fault = tokio::time::timeout(Duration::from_millis(50), agent.fault()).await;
        assert!(fault.is_err(), "{fault:?}");
    }
}
