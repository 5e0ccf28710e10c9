//! What a service manager gets from a real agent: the test plays the manager, with a socket of its own.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::process::{Process, gossd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
/// The watchdog's time.
const PATIENCE: Duration = Duration::from_secs(1);
const SERVING_NOTHING: &str = "STATUS=serving 0 records, 0 of them registered here";

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Manager {
    fn listening() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        Self { socket, path, _folder: folder }
    }

    /// Starts an agent with more variables than the manager's socket.
    fn starts(&self, more: &[(&str, &str)]) -> Process {
        let socket = self.path.to_str().expect("text");
        Process::start_in("a", &[&[("NOTIFY_SOCKET", socket)], more].concat(), &[])
    }

    /// The lines of the next message, except those about sockets to be kept.
    fn hears(&self) -> Vec<String> {
        loop {
            let (lines, _) = self.receives();
            if !lines[0].starts_with("FDSTORE") {
                return lines;
            }
        }
    }

    /// The lines of the next message, and the sockets that came with it.
    fn receives(&self) -> (Vec<String>, Vec<OwnedFd>) {
        let mut message = [0; 4_096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [IoSliceMut::new(&mut message)];
        let len = recvmsg(&self.socket, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .expect("a message")
            .bytes;
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let sockets = rights.flatten().collect();
        let text = String::from_utf8(message[..len].to_vec()).expect("text");
        (text.lines().map(str::to_owned).collect(), sockets)
    }

    /// The lines of a waiting message.
    fn next_if_any(&self) -> Option<Vec<String>> {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut message = [0; 4_096];
        let len = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..len]).lines().map(str::to_owned).collect())
    }

    /// Whether a message waits.
    fn has_heard(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let heard = self.socket.recv(&mut [0; 4_096]);
        self.socket.set_nonblocking(false).expect("a socket");
        heard.map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock)).is_ok()
    }
}

#[test]
fn only_the_journal_gets_priorities_and_no_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |told: &dyn Fn(&File) -> String| {
        let path = folder.path().join("stderr");
        let file = File::create(&path).expect("a file");
        let mut command = gossd();
        // It ends at once after a warning, because it may not listen at its address.
        command.args([
            "run",
            "--name",
            "a",
            "--data-dir",
            "none",
            "--admin",
            "none",
            "--plugin",
            "192.0.2.1:1",
        ]);
        command.args(["--insecure-plugin", "--log-level", "debug"]).env("JOURNAL_STREAM", told(&file));
        let status = command.stderr(file).stdout(Stdio::null()).status().expect("gossd runs");
        assert_eq!(status.code(), Some(1));
        std::fs::read_to_string(path).expect("text")
    };
    let stream = |file: &File| {
        let file = file.metadata().expect("a file");
        format!("{}:{}", file.dev(), file.ino())
    };
    let journal = said(&stream);
    assert!(journal.starts_with("<7>open files"), "{journal}");
    let elsewhere = said(&|_| "1:1".into());
    assert!(elsewhere.starts_with("20") && elsewhere.contains("DEBUG open files"), "{elsewhere}");
}

/// Makes the agent reload. Returns the microsecond at which, by its message, it began.
fn reload(agent: &Process, manager: &Manager) -> u128 {
    agent.signal("-HUP");
    let reloading = manager.hears();
    assert_eq!((reloading.len(), &*reloading[0]), (2, "RELOADING=1"));
    assert_eq!(manager.hears(), ["READY=1", SERVING_NOTHING]);
    let at = reloading[1].strip_prefix("MONOTONIC_USEC=").and_then(|at| at.parse().ok());
    at.unwrap_or_else(|| panic!("no time: {reloading:?}"))
}

#[tokio::test]
async fn a_service_manager_is_notified_of_readiness_reloads_and_stops() {
    let manager = Manager::listening();
    let mut agent = manager.starts(&[]);
    assert_eq!(manager.hears(), ["READY=1", SERVING_NOTHING]);
    assert!(agent.get("t").await.is_empty(), "it serves");

    let start = Instant::now();
    let first = reload(&agent, &manager);
    let between = reload(&agent, &manager) - first;
    assert!((1..=start.elapsed().as_micros()).contains(&between), "{between} us of the monotonic clock");

    agent.signal("-TERM");
    assert_eq!(manager.hears(), ["STOPPING=1", "STATUS=stopping"]);
    assert_eq!(agent.ended(SOON).0.code(), Some(0));
    assert!(!manager.has_heard(), "nothing more without a watchdog");
}

#[test]
fn its_sockets_are_kept_by_name_before_it_is_ready() {
    let manager = Manager::listening();
    let agent = manager.starts(&[]);
    let mut kept = Vec::new();
    loop {
        let (lines, sockets) = manager.receives();
        if lines[0] == "READY=1" {
            break;
        }
        let [first, name, poll] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&**first, &**poll, sockets.len()), ("FDSTORE=1", "FDPOLL=0", 1));
        let address = socket2::SockRef::from(&sockets[0]).local_addr().expect("an address");
        kept.push((name.clone(), address.as_socket().expect("of the internet")));
    }
    let name = |role| format!("FDNAME=kept-{role}");
    let want = [
        (name("plugin"), agent.plugin),
        (name("gossip-tcp"), agent.gossip),
        (name("gossip-udp"), agent.gossip),
        (name("admin"), agent.admin),
    ];
    assert_eq!(kept, want);
}

#[test]
fn an_agent_that_cannot_start_leaves_no_port_at_which_gost_would_wait() {
    let (manager, folder) = (Manager::listening(), tempfile::tempdir().expect("a folder"));
    let (socket, missing) = (manager.path.to_str().expect("text"), folder.path().join("no-tokens"));
    let mut command = gossd();
    command.args([
        "run",
        "--name",
        "a",
        "--data-dir",
        "none",
        "--plugin",
        "127.0.0.1:0",
        "--gossip",
        "127.0.0.1:0",
    ]);
    command.args(["--admin", "none", "--token-file"]).arg(missing).env("NOTIFY_SOCKET", socket);
    assert_eq!(
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").code(),
        Some(1)
    );
    let mut let_go = Vec::new();
    while let Some(lines) = manager.next_if_any() {
        let_go.extend(lines.iter().any(|line| line == "FDSTOREREMOVE=1").then(|| lines[1].clone()));
    }
    for role in ["plugin", "plugin-unix", "admin", "gossip-udp", "gossip-tcp"] {
        assert!(let_go.contains(&format!("FDNAME=kept-{role}")), "{role}: {let_go:?}");
    }
}

#[test]
fn a_watchdog_gets_two_beats_per_period() {
    let manager = Manager::listening();
    let patience = PATIENCE.as_micros().to_string();
    let _agent = manager.starts(&[("WATCHDOG_USEC", &patience)]);
    assert_eq!(manager.hears()[0], "READY=1");
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.hears(), ["WATCHDOG=1", SERVING_NOTHING]);
    }
    // The first comes at once, each other at least half of the time after the one before.
    let least = PATIENCE / 2 * 3;
    println!("four beats in {:?}, {least:?} at least", start.elapsed());
    assert!(start.elapsed() + PATIENCE / 10 >= least);
}

#[tokio::test]
async fn the_status_shows_what_the_agent_holds() {
    let manager = Manager::listening();
    let agent = manager.starts(&[("WATCHDOG_USEC", "100000")]);
    let record = r#"{"id":"1","name":"t","node":"n","network":"tcp","address":"gost.example.org:8420"}"#;
    let url = format!("http://{}/sd", agent.plugin);
    let client = crate::common::client().build().expect("a client");
    assert_eq!(client.post(url).body(record).send().await.expect("an answer").status(), 200);
    let start = Instant::now();
    while manager.hears() != ["WATCHDOG=1", "STATUS=serving 1 records, 1 of them registered here"] {
        assert!(start.elapsed() < SOON, "the status never tells");
    }
}

#[test]
fn without_a_service_manager_nothing_is_missed() {
    let mut agent = Process::start_in("a", &[("WATCHDOG_USEC", "10000")], &[]);
    agent.signal("-HUP");
    agent.signal("-TERM");
    let (status, log) = agent.ended(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains("service manager"), "{log}");
}

#[tokio::test]
async fn an_agent_serves_although_its_service_manager_is_gone() {
    let gone = [("NOTIFY_SOCKET", "/nonexistent/notify")];
    let agent = Process::start_in("a", &gone, &[]);
    assert!(agent.get("t").await.is_empty(), "it serves");
    eventually(SOON, "it says so", || agent.said().contains("the service manager hears nothing")).await;
}
