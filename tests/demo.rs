//! `gossd demo`: three agents with tunnels and visitors, to be looked at within seconds; nothing is written, ctrl-c ends it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::eventually;
use crate::common::http::{call, request};
use crate::common::process::gossd;

/// An operator looks for so long.
const AHA: Duration = Duration::from_secs(10);

/// Ended when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn three_agents_with_tunnels_are_there_within_ten_seconds_and_leave_nothing_behind() {
    let begun = Instant::now();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = gossd();
    command.arg("demo").current_dir(&folder).env("HOME", folder.path());
    for variable in ["XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
        command.env_remove(variable);
    }
    let mut demo = Demo(command.stdout(Stdio::piped()).spawn().expect("gossd runs"));
    let mut lines = BufReader::new(demo.0.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    let page = first.rsplit_once("http://").expect("an address").1.trim_end_matches('/');
    let page: SocketAddr = page.parse().expect("an address");
    assert!(call(page, &request("GET", "/", "")).await.body.contains("<title>"), "the page opens");
    let commands: Vec<String> = lines.by_ref().take(2).map(|line| line.expect("text")).collect();
    let ask = commands[1].split("  ").find(|part| part.contains("gossd explain")).expect("a command");
    let words: Vec<&str> = ask.trim().split(' ').skip(1).collect();
    let explained = || {
        let output = gossd().args(&words).output().expect("gossd runs");
        String::from_utf8_lossy(&output.stdout).contains("listed")
    };
    eventually(AHA, "what it says can be typed", explained).await;
    let status = |body: &str| serde_json::from_str::<Value>(body).unwrap_or_default();
    loop {
        let told = status(&call(page, &request("GET", "/status.json", "")).await.body);
        let alive = told["members"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|one| one["state"] == "alive").count());
        if alive == 3 && told["holds"]["tunnels"].as_u64() >= Some(8) {
            break;
        }
        assert!(begun.elapsed() < AHA, "not yet: {told:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = demo.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    let ended = demo.0.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0, "nothing is written");
}
