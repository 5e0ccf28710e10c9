//! What an operator asks after a restart: peers that are gone are not gone from the list, and a record that lapsed before it is
//! explained.

use std::time::Duration;

use serde_json::Value;

use crate::common::eventually;
use crate::common::gost::FakeGost;
use crate::common::process::{Process, gossd};

const SOON: Duration = Duration::from_secs(20);
const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

fn asked(agent: &Process, words: &[&str]) -> String {
    let output =
        gossd().args(words).args(["--admin", &agent.admin.to_string()]).output().expect("gossd runs");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
}

fn members(agent: &Process) -> Vec<(String, String)> {
    let told: Value = serde_json::from_str(&asked(agent, &["members", "--json"])).expect("JSON");
    let members = told["members"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    members.map(|member| (text(&member["name"]), text(&member["state"]))).collect()
}

fn verb(folder: &std::path::Path, name: &str, words: &[&str]) -> String {
    let control = folder.join(format!("{name}.sock"));
    let output = gossd().args(words).arg("--control").arg(control).output().expect("gossd runs");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
}

#[tokio::test]
async fn a_peer_of_an_earlier_start_that_does_not_return_is_listed_named_and_forgotten_on_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut a = Process::keeping("a", folder.path(), &[]);
    let join = a.gossip.to_string();
    let mut b = Process::keeping("b", folder.path(), &["--join", &join]);
    let mut c = Process::keeping("c", folder.path(), &["--join", &join]);
    let peers = folder.path().join("a.peers");
    let kept = || std::fs::read_to_string(&peers).unwrap_or_default();
    eventually(SOON, "a remembers both", || kept().contains("b ") && kept().contains("c ")).await;
    // One says goodbye, the other one does not.
    assert!(verb(folder.path(), "c", &["leave"]).starts_with("left"));
    c.ended(SOON);
    eventually(SOON, "who left is not remembered", || !kept().contains("c ") && kept().contains("b ")).await;
    b.kill();
    a.kill_and_restart();
    // At first, nobody knows.
    eventually(SOON, "b is dead", || members(&a).contains(&("b".into(), "dead".into()))).await;
    let listed = members(&a);
    assert!(listed.iter().all(|(name, _)| name != "c"), "{listed:?}");
    let why = "b at ";
    eventually(SOON, "it is told by its name", || asked(&a, &["status"]).contains(why)).await;
    let status = asked(&a, &["status"]);
    assert!(status.contains("was a peer before this start") && !status.contains("--join"), "{status}");
    assert!(status.contains("gossd forget b"), "{status}");
    let said = verb(folder.path(), "a", &["forget", "b"]);
    assert!(said.starts_with("b is forgotten"), "{said}");
    eventually(SOON, "it is in no list, and no problem", || {
        members(&a).len() == 1 && !asked(&a, &["status"]).contains(why) && !kept().contains("b ")
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_comes_by_itself_is_not_missed_where_it_was_looked_for_in_vain() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut a = Process::keeping("a", folder.path(), &[]);
    let join = a.gossip.to_string();
    let mut b = Process::keeping("b", folder.path(), &["--join", &join]);
    let peers = folder.path().join("a.peers");
    let kept = || std::fs::read_to_string(&peers).unwrap_or_default();
    eventually(SOON, "a remembers b", || kept().contains("b ")).await;
    b.kill();
    a.kill_and_restart();
    eventually(SOON, "a looks for b", || members(&a).iter().any(|(name, _)| name == "b")).await;
    b.kill_and_restart();
    eventually(SOON, "b is there", || members(&a).contains(&("b".into(), "alive".into()))).await;
    // Who does not answer for ten seconds is told of.
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_secs(13) {
        let status = asked(&a, &["status"]);
        assert!(!status.contains("has not answered"), "{status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_peer_that_returns_elsewhere_is_not_missed_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut a = Process::keeping("a", folder.path(), &[]);
    let join = a.gossip.to_string();
    let mut b = Process::keeping("b", folder.path(), &["--join", &join]);
    let kept = || std::fs::read_to_string(folder.path().join("a.peers")).unwrap_or_default();
    eventually(SOON, "a remembers it", || kept().contains("b ")).await;
    b.kill();
    a.kill_and_restart();
    let _b = Process::keeping("b", folder.path(), &["--join", &join]);
    // A place that does not answer is told after ten seconds.
    eventually(SOON, "it would be told", || asked(&a, &["status"]).contains("up 12 s")).await;
    let status = asked(&a, &["status"]);
    assert!(status.contains("1 alive") && !status.contains("has not answered"), "{status}");
}

#[tokio::test]
async fn a_record_that_lapsed_before_a_restart_is_explained_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut a = Process::keeping("a", folder.path(), &["--lease-ttl", "5"]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("c23d4f42-c892-42b3-8b74-88ab6455d33a", TUNNEL).await;
    drop(gost);
    eventually(SOON, "it lapses", || asked(&a, &["status"]).contains("1 more lapsed")).await;
    assert!(
        asked(&a, &["explain", TUNNEL]).contains("does not renew it"),
        "{}",
        asked(&a, &["explain", TUNNEL])
    );
    a.is_kept().await;
    a.kill_and_restart();
    let told = asked(&a, &["explain", TUNNEL]);
    assert!(told.contains("does not renew it") && !told.contains("no tunnel and no host"), "{told}");
}

#[tokio::test]
async fn whoever_watches_a_tunnel_is_told_that_its_agent_is_silent() {
    let a = Process::start("a", &[]);
    let mut b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let mut gost = FakeGost::start("n", b.plugin).await;
    gost.register("c23d4f42-c892-42b3-8b74-88ab6455d33a", TUNNEL).await;
    eventually(SOON, "a knows it", || asked(&a, &["get", TUNNEL]).contains("  b")).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut watch = gossd()
        .args(["watch", TUNNEL, "--admin", &a.admin.to_string()])
        .stdout(file.reopen().expect("the same"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("gossd runs");
    let mut notes = std::io::BufReader::new(watch.stderr.take().expect("piped"));
    let mut note = String::new();
    std::io::BufRead::read_line(&mut notes, &mut note).expect("it says what it watches");
    b.kill();
    let told = || std::fs::read_to_string(file.path()).unwrap_or_default();
    eventually(SOON, "it is told", || told().contains("peer-suspect   b")).await;
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
}

/// The tunnel whose visitors get 503 is found, however many others there are before it.
#[tokio::test]
async fn those_in_trouble_come_first_among_all() {
    let a = Process::start("a", &[]);
    let b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let folder = tempfile::tempdir().expect("a folder");
    let c = Process::keeping("c", folder.path(), &["--join", &a.gossip.to_string()]);
    let mut gosts = [FakeGost::start("n", b.plugin).await, FakeGost::start("m", c.plugin).await];
    for n in 0..150 {
        gosts[0].register(&format!("{n}"), &format!("{n:08x}-b74c-4916-86c1-d9fa36ea677b")).await;
    }
    gosts[1].register("last", "ffffffff-b74c-4916-86c1-d9fa36ea677b").await;
    eventually(SOON, "a knows all", || asked(&a, &["status"]).contains("tunnels  151")).await;
    assert!(verb(folder.path(), "c", &["drain"]).starts_with("draining"));
    let first = || asked(&a, &["services"]).lines().nth(1).unwrap_or_default().to_owned();
    eventually(SOON, "it comes first", || first().starts_with("ffffffff-")).await;
}
