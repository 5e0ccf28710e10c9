//! Who may claim which host names: a stranger's client does not get a name that is not its own, and its operator is told why.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::gost::{FakeGost, hash_host};
use crate::common::http::{call, request};
use crate::common::process::{Process, gossd};
use crate::common::write_secret;

const SOON: Duration = Duration::from_secs(20);
const ONE: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";
const TWO: &str = "550e8400-e29b-41d4-a716-446655440000";

fn explained(agent: &Process, host: &str) -> String {
    let output =
        gossd().args(["explain", host, "--admin", &agent.admin.to_string()]).output().expect("gossd runs");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn a_client_gets_the_names_that_the_policy_gives_to_its_tunnel_and_the_others_are_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy");
    fs::write(&policy, format!("{ONE} shop.example.org *.one.example.org\n* *.free.example.org\n"))
        .expect("written");
    let flag = ["--claim-policy", policy.to_str().expect("text")];
    let agent = Process::keeping("a", folder.path(), &flag);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    for (host, tunnel, is_given) in [
        ("shop.example.org", TWO, false),
        ("shop.example.org", ONE, true),
        ("a.one.example.org", ONE, true),
        ("a.one.example.org", TWO, false),
        ("x.free.example.org", TWO, true),
        ("other.example.org", ONE, false),
    ] {
        assert_eq!(gost.set_rule(host, tunnel).await, is_given, "{host} for {tunnel}");
    }
    assert!(gost.set_rule(&hash_host(TWO), TWO).await, "a hash host is its tunnel's");
    assert!(!gost.set_rule("*.free.example.org", TWO).await, "it would have what others may claim");
    assert!(gost.set_rule("*.one.example.org", ONE).await);
    assert_eq!(gost.get_rule("b.one.example.org").await, ONE);
    assert_eq!(gost.get_rule("one.example.org").await, "", "that name itself is not its tunnel's");
    let told = explained(&agent, "other.example.org");
    assert!(
        told.contains("REFUSED") && told.contains(ONE) && told.contains("--claim-policy does not let"),
        "{told}"
    );
    let report = call(agent.admin, &request("GET", "/explain.json?name=shop.example.org", "")).await.json();
    assert_eq!(report["refused"][0]["tunnel"], json!(TWO), "{report:#}");
    assert_eq!(report["name"], json!(ONE));
    assert!(
        agent.said().contains("a client does not get the host name that it asks for"),
        "{}",
        agent.said()
    );
}

#[tokio::test]
async fn a_name_that_the_policy_takes_away_leads_nowhere_at_once_and_is_free_for_who_may_have_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy");
    fs::write(&policy, "* *\n").expect("written");
    let flag = ["--claim-policy", policy.to_str().expect("text")];
    let mut agent = Process::keeping("a", folder.path(), &flag);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    assert!(gost.set_rule("shop.example.org", TWO).await, "a stranger came first");
    fs::write(&policy, format!("{ONE} shop.example.org\nnobody x\n")).expect("written");
    agent.signal("-HUP");
    eventually(SOON, "a policy that says nothing sensible is refused", || {
        agent.said().contains("line 2 begins with")
    })
    .await;
    assert_eq!(gost.get_rule("shop.example.org").await, TWO, "and nothing changes");
    fs::write(&policy, format!("{ONE} shop.example.org\n")).expect("written");
    agent.signal("-HUP");
    eventually(SOON, "the claim is taken back", || agent.said().contains("took back host names")).await;
    assert_eq!(gost.get_rule("shop.example.org").await, "");
    assert!(gost.set_rule("shop.example.org", ONE).await);
    // Nor does it come back with the journal.
    agent.is_kept().await;
    agent.kill_and_restart();
    let mut gost = FakeGost::start("n", agent.plugin).await;
    assert_eq!(gost.get_rule("shop.example.org").await, ONE);
}

#[tokio::test]
async fn names_may_be_bound_to_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let (policy, tokens) = (folder.path().join("policy"), folder.path().join("tokens"));
    fs::write(&policy, "token:office *.office.example.org\n").expect("written");
    write_secret(&tokens, "of-the-office label=office\nof-the-others\n");
    let [policy, tokens] = [&policy, &tokens].map(|path| path.to_str().expect("text"));
    let agent = Process::start("a", &["--claim-policy", policy, "--token-file", tokens]);
    let set = async |token: &str, host: &str| -> Value {
        let body = json!({"service": "s", "host": host, "endpoint": ONE}).to_string();
        let request = format!(
            "PUT /ingress HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        call(agent.plugin, &request).await.json()
    };
    assert_eq!(set("of-the-office", "a.office.example.org").await, json!({"ok": true}));
    assert_eq!(set("of-the-others", "b.office.example.org").await, json!({"ok": false}));
    assert_eq!(set("of-the-office", "elsewhere.example.org").await, json!({"ok": false}));
    let refused = |more: &[&str]| {
        let line = [&["run", "--data-dir", "none", "--claim-policy", policy][..], more].concat();
        let wrong = gossd().args(line).output().expect("gossd runs");
        assert_eq!(wrong.status.code(), Some(2));
        String::from_utf8(wrong.stderr).expect("text")
    };
    let said = refused(&[]);
    assert!(said.contains("token:office, but there is no --token-file"), "{said}");
    fs::write(tokens, "of-the-office label=offcie\n").expect("written");
    let said = refused(&["--token-file", tokens]);
    assert!(said.contains("has label=office"), "{said}");
}

#[tokio::test]
async fn a_claim_of_an_agent_without_the_policy_leads_nowhere_and_keeps_nobody_from_a_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy");
    fs::write(&policy, format!("{ONE} shop.example.org\n")).expect("written");
    let flag = ["--claim-policy", policy.to_str().expect("text")];
    let lax = Process::start("lax", &[]);
    let strict = Process::start("strict", &[&flag[..], &["--join", &lax.gossip.to_string()]].concat());
    let (mut there, mut here) =
        (FakeGost::start("n", lax.plugin).await, FakeGost::start("m", strict.plugin).await);
    there.bind("c", TWO, "shop.example.org").await;
    let start = std::time::Instant::now();
    while strict.get(TWO).await.is_empty() {
        assert!(start.elapsed() < SOON, "the record has not come");
    }
    assert_eq!(there.get_rule("shop.example.org").await, TWO);
    assert_eq!(here.get_rule("shop.example.org").await, "");
    assert!(here.set_rule("shop.example.org", ONE).await, "who may have it gets it");
    assert_eq!(here.get_rule("shop.example.org").await, ONE);
}
