//! Which calls the plugin takes: tokens, their replacement while the agent runs, the flags for them, and the Unix
//! socket.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::http::{Answer, Connection, call, request};
use crate::common::process::{Process, gossd};
use crate::common::{eventually, nobody};
use gossd::config::Config;
use gossd::daemon::Daemon;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const SOON: Duration = Duration::from_secs(5);
const RECORD: &str = r#"{"id":"i","name":"t","node":"n","network":"tcp","address":"10.0.0.1:80"}"#;
const NEVER: Duration = Duration::from_secs(3_600);

/// An agent with a token file, and the file's folder.
struct Guarded {
    agent: Daemon,
    folder: tempfile::TempDir,
}

impl Guarded {
    async fn start(tokens: &str, reload_interval: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens");
        crate::common::write_secret(&file, tokens);
        let config = Config { token_file: Some(file), reload_interval, ..loopback() };
        Self { agent: Daemon::start(config).await.expect("it starts"), folder }
    }

    fn write(&self, tokens: &str) {
        crate::common::write_secret(&self.folder.path().join("tokens"), tokens);
    }

    async fn status(&self, token: &str) -> u16 {
        call(self.agent.plugin, &with_token(&request("GET", "/sd?name=t", ""), token)).await.status()
    }

    async fn eventually_answers(&self, token: &str, status: u16) {
        let start = Instant::now();
        while self.status(token).await != status {
            assert!(start.elapsed() < SOON, "{token} is never answered {status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn loopback() -> Config {
    Config::loopback("a".parse().expect("a name"))
}

/// As gost sends it.
fn with_token(request: &str, token: &str) -> String {
    with_authorization(request, &format!("Bearer {token}"))
}

fn with_authorization(request: &str, value: &str) -> String {
    request.replacen("\r\nContent-Length", &format!("\r\nAuthorization: {value}\r\nContent-Length"), 1)
}

fn assert_unauthenticated(answer: &Answer, text: &str) {
    assert_eq!(answer.status(), 401, "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = answer.json()["error"].as_str().expect("text").to_owned();
    assert!(error.contains(text), "{text:?} is not in {error:?}");
}

async fn refusal_to_start(config: Config) -> String {
    let Err(error) = Daemon::start(config).await else { panic!("it started") };
    format!("{error:#}")
}

#[tokio::test]
async fn any_token_of_the_file_is_taken_whatever_the_schemes_case() {
    let guarded = Guarded::start("# two\nold\n\nnew\n", NEVER).await;
    let plugin = guarded.agent.plugin;
    let post = request("POST", "/sd", RECORD);
    for value in ["Bearer old", "Bearer new", "bearer new", "BEARER  old "] {
        assert_eq!(call(plugin, &with_authorization(&post, value)).await.status(), 200, "{value}");
    }
    assert_eq!(guarded.agent.counts().own_records, 1);
}

#[tokio::test]
async fn a_call_without_a_token_in_force_changes_nothing_and_keeps_its_connection() {
    let guarded = Guarded::start("right\n", NEVER).await;
    let mut connection = Connection::open(guarded.agent.plugin).await;
    let wrong = "is not in the agent's --token-file";
    let missing = "set `token` in gost's plugin section";
    for body in [RECORD, "no json"] {
        for method in ["POST", "PUT", "DELETE", "GET", "PATCH"] {
            let plain = request(method, "/sd?name=t", body);
            assert_unauthenticated(&connection.call(&plain).await, missing);
            for (value, text) in [
                ("Bearer wrong", wrong),
                ("Bearer righ", wrong),
                ("Bearer rightt", wrong),
                ("Bearer Right", wrong),
                ("Bearer ", missing),
                ("Bearer", missing),
                ("Basic cmlnaHQ=", missing),
                ("right", missing),
            ] {
                let answer = connection.call(&with_authorization(&plain, value)).await;
                assert_unauthenticated(&answer, text);
            }
        }
    }
    assert_eq!(guarded.agent.counts().records, 0);
    let long = "x".repeat(4_000);
    assert_unauthenticated(
        &connection.call(&with_token(&request("POST", "/sd", RECORD), &long)).await,
        wrong,
    );
    let right = with_token(&request("POST", "/sd", RECORD), "right");
    assert_eq!(connection.call(&right).await.status(), 200, "the same connection");
    assert_eq!(guarded.agent.counts().own_records, 1);
}

#[tokio::test]
async fn a_refused_body_that_comes_late_does_not_cost_the_connection() {
    let guarded = Guarded::start("right\n", NEVER).await;
    let mut connection = Connection::open(guarded.agent.plugin).await;
    let post = request("POST", "/sd", RECORD);
    let (head, body) = post.split_at(post.len() - RECORD.len());
    connection.send(head).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    connection.send(body).await;
    assert_unauthenticated(&connection.receive().await, "token");
    assert_eq!(connection.call(&with_token(&post, "right")).await.status(), 200);
}

#[tokio::test]
async fn tokens_are_replaced_by_writing_the_file() {
    let guarded = Guarded::start("old\n", Duration::from_millis(20)).await;
    let mut kept = Connection::open(guarded.agent.plugin).await;
    let get = request("GET", "/sd?name=t", "");
    assert_eq!(kept.call(&with_token(&get, "old")).await.status(), 200);
    guarded.write("old\nnew\n");
    guarded.eventually_answers("new", 200).await;
    assert_eq!(guarded.status("old").await, 200, "both, while the gosts are told");
    guarded.write("new\n");
    guarded.eventually_answers("old", 401).await;
    assert_eq!(kept.call(&with_token(&get, "old")).await.status(), 401, "open connections as well");
    assert_eq!(kept.call(&with_token(&get, "new")).await.status(), 200);
}

#[tokio::test]
async fn tokens_are_read_again_when_told() {
    let guarded = Guarded::start("old\n", NEVER).await;
    guarded.write("new\n");
    assert_eq!(guarded.status("new").await, 401);
    guarded.agent.reload();
    guarded.eventually_answers("new", 200).await;
    assert_eq!(guarded.status("old").await, 401);
}

#[tokio::test]
async fn an_unusable_token_file_leaves_the_old_tokens_in_force() {
    let guarded = Guarded::start("old\n", Duration::from_millis(20)).await;
    for broken in ["", "two words\n"] {
        guarded.write(broken);
        // Long enough for several checks; the next usable content shows that they took place.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(guarded.status("old").await, 200, "{broken:?}");
        assert_eq!(guarded.status("two").await, 401, "{broken:?}");
    }
    fs::remove_file(guarded.folder.path().join("tokens")).expect("it is there");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(guarded.status("old").await, 200, "without a file");
    guarded.write("new\n");
    guarded.eventually_answers("new", 200).await;
    assert_eq!(guarded.status("old").await, 401);
}

#[tokio::test]
async fn an_unusable_token_file_ends_the_start_without_being_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    let start = || refusal_to_start(Config { token_file: Some(file.clone()), ..loopback() });
    assert!(start().await.contains("cannot be read"));
    for (text, why) in [("\n# none\n", "no token"), ("top secret\n", "line 1"), ("töp-secret\n", "line 1")] {
        crate::common::write_secret(&file, text);
        let error = start().await;
        assert!(error.contains(why) && error.contains("--token-file"), "{error}");
        assert!(error.contains(&*file.to_string_lossy()) && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_plugin_that_other_hosts_reach_needs_tokens_or_a_flag() {
    let plugin: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let error = refusal_to_start(Config { plugin: vec![plugin], ..loopback() }).await;
    assert!(error.contains("--token-file") && error.contains("--insecure-plugin"), "{error}");
    let told = Config { plugin: vec![plugin], insecure_plugin: true, ..loopback() };
    assert!(Daemon::start(told).await.is_ok());
}

/// A call on a Unix socket: everything that arrives until the agent has answered and closed.
async fn ask(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.expect("the agent listens");
    let request = request.replacen("\r\nHost", "\r\nConnection: close\r\nHost", 1);
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

async fn with_socket(folder: &Path) -> (Daemon, PathBuf) {
    let path = folder.join("run/gossd.sock");
    let plugin_socket = Some(path.clone());
    let token_file = Some(folder.join("tokens"));
    crate::common::write_secret(&folder.join("tokens"), "right\n");
    let agent = Daemon::start(Config { plugin_socket, token_file, ..loopback() }).await.expect("it starts");
    (agent, path)
}

#[tokio::test]
async fn the_unix_socket_answers_as_the_port_does_and_its_callers_are_local() {
    let folder = tempfile::tempdir().expect("a folder");
    let (agent, path) = with_socket(folder.path()).await;
    let post = request("POST", "/sd", &RECORD.replace("10.0.0.1", ""));
    assert!(ask(&path, &post).await.starts_with("HTTP/1.1 401 "));
    assert!(ask(&path, &with_token(&post, "right")).await.starts_with("HTTP/1.1 200 "));
    let get = with_token(&request("GET", "/sd?name=t", ""), "right");
    let by_port = call(agent.plugin, &get).await.body;
    assert!(by_port.contains(r#""address":"127.0.0.1:80""#), "the gossip's host completes it: {by_port}");
    // Registered anew: a gost that asks for its own tunnel some time after it registered that has lost it.
    assert!(ask(&path, &with_token(&post, "right")).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(&path, &get).await.ends_with(&by_port));
}

#[tokio::test]
async fn connections_of_both_listeners_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (agent, path) = with_socket(folder.path()).await;
    let get = with_token(&request("GET", "/sd?name=t", ""), "right");
    let mut kept = Connection::open(agent.plugin).await;
    assert_eq!(kept.call(&get).await.status(), 200);
    for _ in 0..3 {
        assert!(ask(&path, &get).await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(kept.call(&get).await.status(), 200);
}

#[tokio::test]
async fn a_live_socket_is_not_taken_over_and_a_stopped_agents_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (agent, path) = with_socket(folder.path()).await;
    let second = Config { plugin_socket: Some(path.clone()), ..loopback() };
    let error = refusal_to_start(second).await;
    assert!(error.contains(&*path.to_string_lossy()) && error.contains("another process"), "{error}");
    assert!(ask(&path, &request("GET", "/sd?name=t", "")).await.starts_with("HTTP/1.1 401 "), "unharmed");
    agent.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn the_program_takes_the_flags_and_reads_its_files_again_on_sighup() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    let socket = folder.path().join("gossd.sock");
    crate::common::write_secret(&tokens, "old\n");
    let flags = ["--token-file", &tokens.to_string_lossy(), "--plugin-socket", &socket.to_string_lossy()]
        .map(String::from);
    let process = Process::start("a", &flags.each_ref().map(String::as_str));
    let get = request("GET", "/sd?name=t", "");
    assert_eq!(call(process.plugin, &with_token(&get, "old")).await.status(), 200);
    assert!(ask(&socket, &get).await.starts_with("HTTP/1.1 401 "));
    crate::common::write_secret(&tokens, "new\n");
    process.signal("-HUP");
    let start = Instant::now();
    while call(process.plugin, &with_token(&get, "new")).await.status() != 200 {
        assert!(start.elapsed() < SOON, "never read again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The log is written by another thread.
    eventually(SOON, "it says so", || process.said().contains("read again")).await;
    let log = process.log();
    assert!(!log.contains("new\n"), "{log}");
}

#[test]
fn half_a_certificate_is_a_mistake_on_the_command_line() {
    for (given, missing) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
        let output = gossd().args(["run", given, "file"]).output().expect("gossd runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(missing), "{text}");
    }
}

#[tokio::test]
async fn the_end_of_a_unix_connection_is_noticed_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let (agent, path) = with_socket(folder.path()).await;
    // gost's entrypoint is a port where nothing listens: once its connection is closed, its record is removed.
    let gone = nobody();
    let record = RECORD.replace("10.0.0.1:80", &gone.to_string());
    let post = with_token(&request("POST", "/sd", &record), "right");
    assert!(ask(&path, &post).await.starts_with("HTTP/1.1 200 "));
    eventually(SOON, "the dead gost's record is gone", || agent.counts().own_records == 0).await;
}
