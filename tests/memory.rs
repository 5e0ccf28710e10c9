//! An agent whose memory is limited: it holds less and says so, instead of being killed, started and killed again.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::http::{Connection, call, request};

const SOON: Duration = Duration::from_secs(20);
const FLAGS: [&str; 10] = [
    "--name",
    "a",
    "--plugin",
    "127.0.0.1:0",
    "--gossip",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--data-dir",
    "none",
];

/// `gossd` under a limit of the shell's `ulimit`, in KiB.
fn limited(flag: &str, kib: u64, args: &[&str]) -> Command {
    let line = format!("ulimit -{flag} {kib} && exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("GOSSD_")));
    command.args(["-c", &line, env!("CARGO_BIN_EXE_gossd")]).args(args);
    command
}

#[tokio::test]
async fn an_agent_below_its_max_bytes_holds_less_and_tells_the_remedy() {
    let args = [&["run"][..], &FLAGS].concat();
    let mut child = limited("d", 200 << 10, &args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash runs");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let admin = lines.find_map(|line| line.expect("text").strip_prefix("admin http://").map(str::to_owned));
    let admin = admin.expect("it starts").parse().expect("an address");
    let status = call(admin, &request("GET", "/status.json", "")).await.json();
    let problems = status["problems"].to_string();
    for part in ["200 MiB of memory", "`ulimit -d`", "--max-bytes 268435456", "raise the limit to 1305 MiB"] {
        assert!(problems.contains(part), "{problems}");
    }
    assert_eq!(status["ready"], true);
    let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(stopped.success());
    let said = String::from_utf8(child.wait_with_output().expect("it ends").stderr).expect("text");
    assert_eq!(said.matches("WARN this process may have 200 MiB").count(), 1, "{said}");
}

#[test]
fn check_tells_it_before_and_an_agent_without_any_memory_does_not_start() {
    let check = limited("d", 200 << 10, &[&["check"][..], &FLAGS].concat()).output().expect("bash runs");
    let told = String::from_utf8(check.stdout).expect("text");
    assert!(
        check.status.success() && told.contains("warn  memory         this process may have 200 MiB"),
        "{told}"
    );
    let enough = [&["check", "--max-bytes", "30000000"][..], &FLAGS].concat();
    let check = limited("d", 200 << 10, &enough).output().expect("bash runs");
    assert!(!String::from_utf8(check.stdout).expect("text").contains("memory"));
    let start = std::time::Instant::now();
    let run = limited("d", 26 << 10, &[&["run"][..], &FLAGS].concat()).output().expect("bash runs");
    assert!(!run.status.success() && start.elapsed() < SOON);
    let told = String::from_utf8(run.stderr).expect("text");
    assert!(told.contains("too little for any agent: raise the limit to"), "{told}");
}

/// Tables that double, a journal's file that is written anew, starts: an agent that holds as much as it may lives through all of them.
#[tokio::test]
async fn an_agent_full_to_its_limit_lives_through_churn_and_starts() {
    const RECORDS: usize = 100_000;
    let folder = tempfile::tempdir().expect("a folder");
    let start = || {
        let mut args = [&["run"][..], &FLAGS].concat();
        *args.last_mut().expect("the folder") = folder.path().to_str().expect("text");
        let child = limited("d", 60 << 10, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("bash runs");
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
        let said: Vec<_> = lines.take(3).map_while(Result::ok).collect();
        let addr = |name: &str| {
            let found = said.iter().find_map(|line| line.strip_prefix(name)?.split("://").nth(1));
            found
                .and_then(|addr| addr.split('/').next()?.parse().ok())
                .unwrap_or_else(|| panic!("{name}: {said:?}"))
        };
        (addr("plugin"), addr("admin"), child)
    };
    let (plugin, admin, mut child) = start();
    let refused = said_of_each(plugin, "POST", 0..RECORDS).await;
    assert!(refused > 0, "it is not full");
    said_of_each(plugin, "DELETE", 0..RECORDS / 5).await;
    said_of_each(plugin, "POST", 0..RECORDS).await;
    assert!(child.try_wait().expect("a child").is_none(), "it died");
    let held = call(admin, &request("GET", "/status.json", "")).await.json()["holds"]["own_records"].clone();
    for _ in 0..2 {
        child.kill().expect("a child");
        child.wait().expect("a child");
        let (_, admin, again) = start();
        child = again;
        let status = call(admin, &request("GET", "/status.json", "")).await.json();
        assert_eq!(status["holds"]["own_records"], held, "{status}");
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
}

/// A call about each of these records, until many are refused. Returns how many were.
async fn said_of_each(plugin: std::net::SocketAddr, method: &str, records: std::ops::Range<usize>) -> usize {
    const AT_ONCE: usize = 100;
    let mut gost = Connection::open(plugin).await;
    let mut refused = 0;
    for first in records.clone().step_by(AT_ONCE) {
        let part = first..(first + AT_ONCE).min(records.end);
        let calls: String = part.clone().map(|n| call_about(method, n)).collect();
        gost.send(&calls).await;
        for _ in part {
            refused += usize::from(!gost.receive().await.status_line.contains("200"));
        }
        if refused > AT_ONCE {
            break;
        }
    }
    refused
}

fn call_about(method: &str, n: usize) -> String {
    let id = format!("{n:08x}-7b82-4c5f-8c75-ff18b1f48aad");
    let name = format!("{:08x}-7b82-4c5f-8c75-ff18b1f48aad", n / 8);
    let body =
        format!(r#"{{"id":"{id}","name":"{name}","node":"node","network":"tcp","address":"10.0.0.1:8420"}}"#);
    request(method, "/sd", &body)
}
