//! Nobody reads the output of a real agent: it serves and ends all the same, and later reports what was lost.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::http::{Answer, Connection, call, request};
use crate::common::process::gossd;
use crate::services::sd_client::SdClient;
use gossd::plugin::grpc::generated::{GetServiceRequest, RenewRequest, Service};
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// For what takes milliseconds, and would take for ever if it waited for a reader.
const SOON: Duration = Duration::from_secs(20);
/// The end of an agent, with everything that it waits for at its longest: design.
const END: Duration = Duration::from_secs(5);
const RENEW: &str = r#"{"id":"nobody","name":"t","node":"n","network":"","address":""}"#;

/// A pipe that is full, and the end that nobody reads yet.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("a pipe");
    fcntl_setfl(&writer, OFlags::NONBLOCK).expect("a flag");
    for size in [4_096, 1] {
        while writer
            .write(&vec![b'\n'; size])
            .map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock))
            .is_ok()
        {}
    }
    fcntl_setfl(&writer, OFlags::empty()).expect("a flag");
    (reader, writer)
}

/// An agent whose output goes where a test says; killed when dropped.
struct Agent {
    child: Child,
    plugin: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// Its addresses are fixed, because its output cannot be read.
    async fn start(output: impl FnOnce(&mut Command), flags: &[&str]) -> Self {
        let [plugin, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [plugin, admin] = [plugin, admin].map(|listener| listener.local_addr().expect("an address"));
        let mut command = gossd();
        command.args(["run", "--name", "a", "--data-dir", "none", "--gossip", "127.0.0.1:0"]);
        command.args(["--plugin", &plugin.to_string(), "--admin", &admin.to_string()]).args(flags);
        output(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        let agent = Self { child: command.spawn().expect("gossd starts"), plugin, admin };
        let start = Instant::now();
        // One is bound after the other.
        while TcpStream::connect(plugin).await.is_err() || TcpStream::connect(admin).await.is_err() {
            assert!(start.elapsed() < SOON, "it does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        agent
    }

    async fn ask(&self, path: &str) -> Answer {
        soon("an answer of the admin listener", call(self.admin, &request("GET", path, ""))).await
    }

    /// How many dropped log lines it reports.
    async fn dropped(&self) -> u64 {
        let metrics = self.ask("/metrics").await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("gossd_log_lines_dropped_total "));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count: {metrics}"))
    }

    async fn grpc(&self) -> SdClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.plugin)).expect("an address");
        SdClient::new(endpoint.connect().await.expect("it listens"))
    }

    fn terminate(&mut self) -> (ExitStatus, Duration) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
        let start = Instant::now();
        (ended(&mut self.child), start.elapsed())
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

fn ended(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(start.elapsed() < SOON, "it does not end");
        std::thread::yield_now();
    }
}

/// Calls of both kinds, each of which is logged, until log lines are dropped.
async fn flood(agent: &Agent, http: &mut Connection, grpc: &mut SdClient<Channel>) {
    let (start, before) = (Instant::now(), agent.dropped().await);
    while agent.dropped().await == before {
        for _ in 0..100 {
            let answer = soon("an answer over HTTP", http.call(&request("PUT", "/sd", RENEW))).await;
            assert_eq!(answer.status(), 404, "it is nobody's id");
            let service =
                Service { id: "nobody".into(), name: "t".into(), node: "n".into(), ..Service::default() };
            let renewed = grpc.renew(RenewRequest { service: Some(service) });
            let renewed = soon("an answer over gRPC", renewed).await.expect("an answer").into_inner();
            assert!(!renewed.ok, "it is nobody's id");
        }
        assert!(start.elapsed() < SOON * 3, "nothing is dropped");
    }
    println!("lines are dropped after {:?}", start.elapsed());
}

#[tokio::test]
async fn an_agent_whose_log_nobody_reads_serves_ends_and_later_reports_what_was_lost() {
    let (mut reader, writer) = full_pipe();
    let log = |command: &mut Command| {
        command.stderr(writer);
    };
    let mut agent = Agent::start(log, &["--log-level", "trace"]).await;
    let mut http = Connection::open(agent.plugin).await;
    let mut grpc = soon("a gRPC connection", agent.grpc()).await;
    flood(&agent, &mut http, &mut grpc).await;
    assert_eq!(agent.ask("/livez").await.status(), 200);
    let answer = soon("a Get over HTTP", http.call(&request("GET", "/sd?name=t", ""))).await;
    assert_eq!(answer.json()["services"].as_array().map(Vec::len), Some(0));
    let got = soon("a Get over gRPC", grpc.get(GetServiceRequest { name: "t".into() })).await;
    assert!(got.expect("an answer").into_inner().services.is_empty());

    let mut child = File::from(std::os::fd::OwnedFd::from(reader.try_clone().expect("a descriptor")));
    let read = tokio::task::spawn_blocking(move || {
        let (mut text, mut piece) = (Vec::new(), [0; 4_096]);
        let note = b" log lines were dropped: standard error did not take them\n";
        let mut searched = 0;
        // Only what is new: searching all of the text for each piece would take longer than writing it.
        while !text[searched..].windows(note.len()).any(|found| found == note) {
            searched = text.len().saturating_sub(note.len());
            let read = child.read(&mut piece).expect("a pipe");
            assert_ne!(read, 0, "it ends before it reports");
            text.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(text).expect("text")
    });
    let text = soon("the note", read).await.expect("it only reads");
    let note = text.lines().find(|line| line.contains("log lines were dropped")).expect("it is there");
    assert!(note.contains("WARN "), "{note}");

    // Again, for the end: the rest of the queue is waited for, but not long.
    flood(&agent, &mut http, &mut grpc).await;
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < END, "{took:?}");
    drop(agent);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("text");
    assert!(!rest.is_empty());
}

#[tokio::test]
async fn an_agent_whose_addresses_nobody_reads_serves_and_ends() {
    let (_reader, writer) = full_pipe();
    let print = |command: &mut Command| {
        command.stdout(writer);
    };
    let mut agent = Agent::start(print, &[]).await;
    assert_eq!(agent.ask("/livez").await.status(), 200);
    let answer = soon("an answer", call(agent.plugin, &request("GET", "/sd?name=t", ""))).await;
    assert_eq!(answer.status(), 200);
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < END, "{took:?}");
}

#[tokio::test]
async fn an_agent_whose_service_manager_reads_nothing_serves_and_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&path).expect("a socket");
    let full = |path: &std::path::Path| {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.set_nonblocking(true).expect("a flag");
        socket.send_to(b"?", path).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let manage = |command: &mut Command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "10000");
    };
    let mut agent = Agent::start(manage, &[]).await;
    eventually(SOON, "its queue is full", || full(&path)).await;
    let answer = soon("an answer", call(agent.plugin, &request("GET", "/sd?name=t", ""))).await;
    assert_eq!(answer.status(), 200);
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < END, "{took:?}");
}

#[test]
fn a_failed_start_ends_whether_or_not_its_error_is_read() {
    let elsewhere =
        ["run", "--name", "a", "--data-dir", "none", "--plugin", "192.0.2.1:1", "--insecure-plugin"];
    let (_reader, writer) = full_pipe();
    let mut unread = gossd();
    let mut unread =
        unread.args(elsewhere).stdout(Stdio::null()).stderr(writer).spawn().expect("gossd starts");
    assert_eq!(ended(&mut unread).code(), Some(1));
    for more in [&["--log-level", "off"][..], &["--log-format", "json", "--log-level", "off"]] {
        let output = gossd().args(elsewhere).args(more).output().expect("gossd runs");
        let said = String::from_utf8(output.stderr).expect("text");
        let is_json = more.contains(&"json");
        let text = if is_json {
            serde_json::from_str::<Value>(&said).unwrap()["message"].to_string()
        } else {
            said.clone()
        };
        assert!(
            text.trim_matches('"').starts_with("gossd: cannot serve the plugin on 192.0.2.1:1: "),
            "{said}"
        );
        assert_eq!((said.lines().count(), output.status.code()), (1, Some(1)), "{said}");
    }
}

#[test]
fn a_log_level_that_would_silence_everything_is_refused_wherever_it_is_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gossd.toml");
    std::fs::write(&file, "log-level = \"warning\"\n").expect("a file");
    let file = file.to_str().expect("text");
    for (verb, flags, variable) in [
        ("run", &["--log-level", "warning"][..], None),
        ("run", &[], Some("warning")),
        ("run", &[], Some("")),
        ("run", &["--config", file], None),
        ("check", &["--config", file], None),
    ] {
        let mut command = gossd();
        command.arg(verb).args(flags);
        if let Some(level) = variable {
            command.env("GOSSD_LOG_LEVEL", level);
        }
        let output = command.output().expect("gossd runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(
            ["--log-level", "the variable GOSSD_LOG_LEVEL", "log-level"]
                .iter()
                .any(|what| said.contains(what))
                && said.contains("error, warn, info, debug, trace or off"),
            "{said}"
        );
    }
}
