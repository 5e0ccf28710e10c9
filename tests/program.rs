//! The program itself: three processes on ports that the system chooses, called over HTTP, stopped by a signal.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::process::{Process, gossd};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

fn client() -> reqwest::Client {
    crate::common::client().build().expect("a client")
}

async fn call(method: reqwest::Method, process: &Process, id: &str) {
    let body =
        json!({ "id": id, "name": "t", "node": "n", "network": "tcp", "address": "gost.example.org:8420" });
    let url = format!("http://{}/sd", process.plugin);
    let answer = client().request(method, url).json(&body).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

async fn get(process: &Process) -> Vec<String> {
    let url = format!("http://{}/sd?name=t", process.plugin);
    let answer: Value = client().get(url).send().await.expect("an answer").json().await.expect("JSON");
    let services = answer["services"].as_array().expect("a list").clone();
    let mut ids: Vec<_> = services.iter().map(|s| s["id"].as_str().expect("text").to_owned()).collect();
    ids.sort();
    ids
}

async fn eventually_get(process: &Process, expected: &[&str]) {
    let start = Instant::now();
    while get(process).await != expected {
        assert!(start.elapsed() < SOON, "{expected:?} at {}, not {:?}", process.plugin, get(process).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_record_at_any_of_three_agents_is_resolved_by_all() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let generated = gossd().arg("keygen").output().unwrap();
    crate::common::write_secret(&key, generated.stdout);
    let key = key.to_str().unwrap();

    let a = Process::start("a", &["--key-file", key]);
    let b = Process::start("b", &["--key-file", key, "--join", &a.gossip.to_string()]);
    let c = Process::start("c", &["--key-file", key, "--join", &b.gossip.to_string()]);
    let agents = [&a, &b, &c];
    for (n, agent) in agents.into_iter().enumerate() {
        call(reqwest::Method::POST, agent, &n.to_string()).await;
    }
    for agent in agents {
        eventually_get(agent, &["0", "1", "2"]).await;
    }
    call(reqwest::Method::PUT, &b, "1").await;
    call(reqwest::Method::DELETE, &b, "1").await;
    for agent in agents {
        eventually_get(agent, &["0", "2"]).await;
    }
}

#[tokio::test]
async fn a_signal_ends_the_program_with_zero_within_two_seconds() {
    for name in ["-TERM", "-INT"] {
        let mut process = Process::start("a", &[]);
        // A connection that stays open, like gost's, must not delay the end.
        let kept = client();
        kept.get(format!("http://{}/sd?name=t", process.plugin)).send().await.unwrap();
        process.signal(name);
        let start = Instant::now();
        let (status, _) = process.ended(Duration::from_secs(4));
        println!("{name}: {:?}", start.elapsed());
        assert_eq!(status.code(), Some(0));
    }
}

fn refused(flags: &[&str]) -> String {
    let output = gossd().arg("run").args(flags).output().expect("gossd runs");
    assert!(!output.status.success(), "{flags:?} must be refused");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn settings_that_cannot_work_are_refused_with_a_remedy() {
    let keyless = refused(&["--gossip", "0.0.0.0:0"]);
    assert!(keyless.contains("gossd keygen") && keyless.contains("--key-file"), "{keyless}");
    let missing = refused(&["--key-file", "/nonexistent"]);
    assert!(missing.contains("--key-file /nonexistent: cannot be read"), "{missing}");
    assert!(refused(&["--join", ":8002"]).contains("has no host"));
    assert!(refused(&["--name", "a b"]).contains("letters, digits"));
    assert!(refused(&["--advertise-host", "0.0.0.0"]).contains("--advertise-host"));
    assert!(refused(&["--cluster", "", "--data-dir", "none"]).contains("--cluster"));
    assert!(refused(&["--lease-ttl", "1", "--data-dir", "none"]).contains("--lease-ttl"));
    assert!(refused(&["--fallback-address", ":0"]).contains("port 0"));
    let taken = Process::start("a", &[]);
    let address = taken.plugin.to_string();
    let twice = refused(&["--plugin", &address, "--gossip", "127.0.0.1:0"]);
    assert!(twice.contains(&format!("cannot serve the plugin on {address}")), "{twice}");
}

#[test]
fn every_flag_is_an_environment_variable_too() {
    let output = gossd().arg("run").env("GOSSD_GOSSIP", "0.0.0.0:0").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--gossip 0.0.0.0:0 needs a key"));
}

#[tokio::test]
async fn an_address_that_only_this_host_can_use_is_warned_of_once_and_logs_can_be_json() {
    let agent = Process::start("a", &["--log-format", "json"]);
    for id in ["1", "2"] {
        let body = json!({ "id": id, "name": "t", "node": "n", "network": "tcp", "address": ":8420" });
        let url = format!("http://{}/sd", agent.plugin);
        assert_eq!(client().post(url).json(&body).send().await.unwrap().status(), 200);
    }
    assert_eq!(agent.get("t").await, ["127.0.0.1:8420", "127.0.0.1:8420"]);
    let log = agent.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let warned =
        lines.iter().filter(|line| line["level"] == "WARN" && line.to_string().contains("--advertise-host"));
    assert_eq!(warned.count(), 1, "{log}");
}

#[test]
fn the_agent_takes_the_open_files_that_it_may_have() {
    let limited = "ulimit -Sn 64 && exec \"$0\" run --name a --plugin 127.0.0.1:0 --gossip 127.0.0.1:0 --data-dir none \
                   --log-level debug";
    let mut child = Command::new("bash")
        .args(["-c", limited, env!("CARGO_BIN_EXE_gossd")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it starts");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("it runs");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let words: Vec<_> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "all that the system allows: {files}");
}
