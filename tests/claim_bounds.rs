//! What one tunnel can take from the others: neither the host names of an agent nor its records, and no name that is
//! everybody's.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::gost::FakeGost;
use crate::common::http::{Answer, Connection, request};
use crate::common::process::{Process, gossd};
use crate::common::{eventually, record};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::connection::Caller;

const SOON: Duration = Duration::from_secs(20);
const ONE: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const TWO: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

async fn claim(connection: &mut Connection, host: &str, tunnel: &str) -> Answer {
    let body = format!(r#"{{"service":"s","host":"{host}","endpoint":"{tunnel}"}}"#);
    connection.call(&request("PUT", "/ingress", &body)).await
}

async fn endpoint(plugin: SocketAddr, host: &str) -> String {
    let mut connection = Connection::open(plugin).await;
    let answer = connection.call(&request("GET", &format!("/ingress?host={host}"), "")).await;
    answer.json()["endpoint"].as_str().expect("never null").to_owned()
}

/// How many names a tunnel gets that claims them in a loop, and the refusal of the next.
async fn claimed_in_a_loop(connection: &mut Connection, tunnel: &str) -> (usize, Answer) {
    for n in 0.. {
        let answer = claim(connection, &format!("{n}.{}.example.org", &tunnel[..8]), tunnel).await;
        if answer.status() != 200 {
            return (n, answer);
        }
    }
    unreachable!("numbers have no end")
}

#[tokio::test]
async fn one_tunnel_gets_its_share_of_names_and_others_theirs() {
    let agent = Process::start("a", &[]);
    let mut connection = Connection::open(agent.plugin).await;
    let (names, refusal) = claimed_in_a_loop(&mut connection, ONE).await;
    assert_eq!((names, refusal.status()), (64, 429), "a tunnel without a client");
    assert!(refusal.json()["error"].as_str().unwrap().contains("one tunnel"), "{refusal:?}");
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", ONE).await;
    let (more, refusal) = claimed_in_a_loop(&mut connection, ONE).await;
    assert_eq!((more, refusal.status()), (1_024, 429), "a tunnel with a client");
    assert_eq!(claim(&mut connection, "shop.example.org", TWO).await.json()["ok"], true);
    assert_eq!(endpoint(agent.plugin, "shop.example.org").await, TWO);
    // What a tunnel has already is no new name.
    let again = claim(&mut connection, &format!("0.{}.example.org", &ONE[..8]), ONE).await;
    assert_eq!((again.status(), again.json()["ok"].as_bool()), (200, Some(true)));
}

#[tokio::test]
async fn names_of_tunnels_that_nobody_serves_give_way_when_there_is_no_room() {
    let agent = Process::start("a", &["--max-rules", "20"]);
    let mut connection = Connection::open(agent.plugin).await;
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", ONE).await;
    assert_eq!(claim(&mut connection, "served.example.org", ONE).await.status(), 200);
    for n in 0..100 {
        let made_up = format!("{n:08x}-b74c-4916-86c1-d9fa36ea677b");
        let answer = claim(&mut connection, &format!("{n}.example.net"), &made_up).await;
        assert_eq!((answer.status(), answer.json()["ok"].as_bool()), (200, Some(true)), "{n}");
    }
    assert_eq!(
        endpoint(agent.plugin, "served.example.org").await,
        ONE,
        "a tunnel that is served keeps its name"
    );
    for n in 0..19 {
        assert_eq!(claim(&mut connection, &format!("{n}.example.org"), ONE).await.status(), 200, "{n}");
    }
    let full = claim(&mut connection, "one-more.example.org", TWO).await;
    assert_eq!(full.status(), 429, "all are served");
    assert!(full.json()["error"].as_str().unwrap().contains("--max-rules"), "{full:?}");
}

#[tokio::test]
async fn one_tunnel_cannot_take_the_records_of_all() {
    let agent = Daemon::start(Config::loopback("a".parse().unwrap())).await.unwrap();
    for n in 0..8_192 {
        agent.agent().register(Caller::local(1), record(&format!("c{n}"), ONE)).unwrap();
    }
    let mut gost = FakeGost::start("n", agent.plugin).await;
    let address = gost.entrypoint.to_string();
    assert_eq!(gost.register_as("one-more", ONE, &address).await, 429);
    assert_eq!(gost.register_as("c7", ONE, &address).await, 200, "one that it has already");
    gost.register("other", TWO).await;
    assert_eq!(gost.get(TWO).await, [&*address]);
}

#[tokio::test]
async fn no_tunnel_gets_a_public_suffix_an_address_or_localhost() {
    let agent = Process::start("a", &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", ONE).await;
    for host in [
        "co.uk",
        "CO.UK:8420",
        "co.uk.",
        "*.co.uk",
        ".co.uk",
        "*.com",
        "github.io",
        "*.github.io",
        "*.kawasaki.jp",
        "127.0.0.1",
        "10.0.0.1:80",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "localhost",
        "LocalHost:8420",
        "app.localhost",
        "*.localhost",
        "localhost.localdomain",
    ] {
        assert!(!gost.set_rule(host, ONE).await, "{host}");
        assert_eq!(gost.get_rule(host.trim_start_matches("*.")).await, "", "{host}");
    }
    for host in [
        "www.example.co.uk",
        "*.example.co.uk",
        "foo.github.io",
        "*.foo.github.io",
        "app.internal",
        "x.test",
        "intranet",
        "shop",
    ] {
        assert!(gost.set_rule(host, ONE).await, "{host}");
    }
    assert_eq!(gost.get_rule("a.example.co.uk").await, ONE);
    assert_eq!(gost.get_rule("intranet").await, ONE);
}

#[tokio::test]
async fn the_operators_own_rules_may_be_for_anything_and_are_warned_of() {
    let flags = [
        "--ingress-rule".to_owned(),
        format!("10.0.0.1={ONE}"),
        "--ingress-rule".to_owned(),
        format!("*.co.uk={ONE}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let agent = Process::start("a", &flags);
    for host in ["10.0.0.1", "any.co.uk"] {
        assert_eq!(endpoint(agent.plugin, host).await, ONE, "{host}");
    }
    eventually(SOON, "it warns", || {
        let said = agent.said();
        said.contains("an IP address; it is in force") && said.contains("a public suffix")
    })
    .await;
    let ports =
        ["--plugin", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--admin", "none", "--data-dir", "none"];
    let output = gossd().args(["check", "--name", "a"]).args(ports).args(&flags).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("warn  host names     10.0.0.1 is an IP address"), "{told}");
    assert!(told.contains(".co.uk is a public suffix"), "{told}");
}
