//! The plugin's port does not refuse. An agent is replaced by a process that takes over, under systemd's file
//! descriptor store, and beside `gossd hold`, while calls continue.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::eventually;
use crate::common::http::{Connection, call, request};
use crate::common::process::{Process, gossd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn register(id: usize, entrypoint: SocketAddr) -> String {
    let body =
        format!(r#"{{"id":"{id}","name":"t{id}","node":"n","network":"tcp","address":"{entrypoint}"}}"#);
    request("POST", "/sd", &body)
}

/// Calls without end, each on a connection of its own, like those of visitors after an agent's end.
struct Callers {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Callers {
    /// Registers tunnel after tunnel, and asks for each at once. Errors are reported at the end.
    fn start(plugin: SocketAddr, entrypoint: SocketAddr) -> Self {
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count) = (stop.clone(), made.clone());
        let task = tokio::spawn(async move {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let id = count.fetch_add(1, Ordering::Relaxed);
                let written = call_or(plugin, &register(id, entrypoint)).await;
                let ask = request("GET", &format!("/sd?name=t{id}"), "");
                let listed = call_or(plugin, &ask).await;
                let held = listed.as_ref().is_ok_and(|body| body.contains(&entrypoint.to_string()));
                if written.is_err() || !held {
                    wrong.push(format!("{id}: {written:?} {listed:?}"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            wrong
        });
        Self { stop, made, task }
    }

    async fn made(&self, more: usize) {
        let enough = self.made.load(Ordering::Relaxed) + more;
        eventually(SOON, "calls are made", || self.made.load(Ordering::Relaxed) >= enough).await;
    }

    /// How many calls were made; none may have failed.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.task.await.expect("the caller ends");
        assert!(wrong.is_empty(), "{} failed: {:?}", wrong.len(), wrong.first());
        self.made.load(Ordering::Relaxed)
    }
}

/// The body of an answer with 200.
async fn call_or(plugin: SocketAddr, ask: &str) -> Result<String, String> {
    let answered = async {
        let mut stream = TcpStream::connect(plugin).await?;
        stream.write_all(ask.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(SOON, answered).await.map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.into()) } else { Err(format!("{answer:?}")) }
}

async fn all_are_listed(plugin: SocketAddr, tunnels: usize) {
    let mut connection = Connection::open(plugin).await;
    for id in 0..tunnels {
        let listed = connection.call(&request("GET", &format!("/sd?name=t{id}"), "")).await.body;
        assert!(listed.contains(&format!("\"t{id}\"")), "{id} is lost: {listed}");
    }
}

/// A gost's entrypoint: a restarted agent dials it to see whether gost is alive.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn taken_over(data: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (_gost, entrypoint) = listen();
    let socket = folder.path().join("a.sock");
    let kept = if data == "none" { data.into() } else { folder.path().to_string_lossy().into_owned() };
    let plugin = folder.path().join("plugin.sock");
    let [control, unix] = [&socket, &plugin].map(|path| path.to_str().expect("text"));
    let flags = ["--data-dir", &kept, "--control", control, "--plugin-socket", unix];
    let mut first = Process::start("a", &flags);
    let callers = Callers::start(first.plugin, entrypoint);
    callers.made(50).await;
    let second = first.successor(&[]);
    let (status, log) = first.ended(SOON);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("another process has taken over"), "{log}");
    callers.made(50).await;
    let tunnels = callers.end().await;
    assert_eq!((second.plugin, second.gossip, second.admin), (first.plugin, first.gossip, first.admin));
    all_are_listed(second.plugin, tunnels).await;
    assert!(second.said().contains("took over"), "{}", second.said());
    let mut stream = UnixStream::connect(&plugin).expect("the plugin's socket is the successor's");
    let ask = request("GET", "/sd?name=t0", "").replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(ask.as_bytes()).expect("it is taken");
    let mut listed = String::new();
    stream.read_to_string(&mut listed).expect("an answer");
    assert!(listed.contains("\"t0\""), "{listed}");
    let health =
        gossd().args(["healthcheck", "--name", "a", "--control"]).arg(&socket).output().expect("it runs");
    assert!(health.status.success(), "the control socket is the successor's: {health:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_takes_over_with_a_journal_and_no_call_fails() {
    taken_over("a folder").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_takes_over_without_a_journal_and_no_call_fails() {
    taken_over("none").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_agent_there_is_nothing_to_take_over_and_it_starts_as_usual() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = Process::keeping("a", folder.path(), &["--take-over"]);
    assert!(agent.get("t").await.is_empty(), "it serves");
    assert!(agent.said().contains("no agent runs here to take over from"), "{}", agent.said());
}

/// The running agent continues after each of these, and both say why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_cannot_start_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_gost, entrypoint) = listen();
    let agent = Process::keeping("a", folder.path(), &[]);
    let callers = Callers::start(agent.plugin, entrypoint);
    callers.made(20).await;
    let nowhere = folder.path().join("nowhere");
    let nowhere = nowhere.to_str().expect("text");

    let (code, said) = agent.failing_successor(&[("--token-file", nowhere)]);
    assert!(code == Some(1) && said.contains("--token-file") && said.contains(nowhere), "{said}");
    callers.made(20).await;

    let (code, said) = agent.failing_successor(&[("--name", "b")]);
    assert!(code == Some(1) && said.contains("its name is a, not b"), "{said}");
    callers.made(20).await;

    let locked = tempfile::tempdir().expect("a folder");
    let _other = Process::keeping("a", locked.path(), &[]);
    let (code, said) = agent.failing_successor(&[("--data-dir", locked.path().to_str().expect("text"))]);
    assert!(code == Some(1) && said.contains("is in use"), "{said}");
    eventually(SOON, "it says why", || {
        agent.said().contains("so this agent goes on") && agent.said().contains("is in use")
    })
    .await;
    callers.made(20).await;

    let tunnels = callers.end().await;
    all_are_listed(agent.plugin, tunnels).await;
}

/// A process that makes the agent stop, takes what it held, and ends without starting.
fn vanishing_successor(socket: &Path) {
    let mut stream = UnixStream::connect(socket).expect("an agent");
    let ask = "POST /take-over?name=a&version=0 HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n\
               Upgrade: gossd-take-over\r\n\r\n";
    stream.write_all(ask.as_bytes()).expect("it reads");
    let read_to = |stream: &mut UnixStream, end: &str| {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            text.extend(byte);
        }
        String::from_utf8(text).expect("text")
    };
    assert!(read_to(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 101 "));
    stream.write_all(b"\n").expect("it reads");
    // The sockets that come with the line are closed, because nobody takes them.
    assert!(read_to(&mut stream, "\n").starts_with("sockets "));
    stream.write_all(b"go\n").expect("it reads");
    let mut len = [0; 8];
    stream.read_exact(&mut len).expect("a length");
    let len = usize::try_from(u64::from_be_bytes(len)).expect("a length");
    stream.read_exact(&mut vec![0; len]).expect("what it held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_successor_vanishes_goes_on_and_can_be_taken_over_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_gost, entrypoint) = listen();
    let mut agent = Process::keeping("a", folder.path(), &[]);
    let callers = Callers::start(agent.plugin, entrypoint);
    callers.made(20).await;
    let socket = folder.path().join("a.sock");
    vanishing_successor(&socket);
    eventually(SOON, "it goes on", || agent.said().contains("did not, so this agent goes on")).await;
    callers.made(20).await;
    eventually(SOON, "it is asked again", || UnixStream::connect(&socket).is_ok()).await;
    let second = agent.successor(&[]);
    assert_eq!(agent.ended(SOON).0.code(), Some(0));
    callers.made(20).await;
    all_are_listed(second.plugin, callers.end().await).await;
}

/// Starts a program with a listener as its descriptor 3, like systemd does; the shell sets it up and then becomes the
/// program.
fn activated(name: &str, listener: &TcpListener, program: &mut Command) -> Child {
    let listener: OwnedFd = listener.try_clone().expect("a duplicate").into();
    let mut shell = Command::new("sh");
    shell.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 </dev/null"]).arg(program.get_program());
    shell
        .args(program.get_args())
        .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", name)])
        .stdin(File::from(listener));
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell")
}

fn run(plugin: &str, folder: &Path) -> Command {
    let mut command = gossd();
    command.args(["run", "--name", "a", "--plugin", plugin, "--gossip", "127.0.0.1:0", "--admin", "none"]);
    command.arg("--data-dir").arg(folder);
    command
}

/// systemd holds the socket, and starts one agent after the other; no call is refused, whatever ended the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_systemd_keeps_serves_from_one_start_to_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let ((listener, plugin), (_gost, entrypoint)) = (listen(), listen());
    let start = |name| activated(name, &listener, &mut run(&plugin.to_string(), folder.path()));
    let mut agent = start("kept-plugin");
    let callers = Callers::start(plugin, entrypoint);
    for name in ["kept-plugin", "plugin"] {
        callers.made(20).await;
        // A kill may lose registrations of the last 50 ms, which is not tested here.
        let term = Command::new("kill").arg(agent.id().to_string()).status().expect("kill runs");
        assert!(term.success() && agent.wait().expect("it ends").success());
        tokio::time::sleep(Duration::from_millis(100)).await;
        agent = start(name);
    }
    callers.made(20).await;
    all_are_listed(plugin, callers.end().await).await;
    agent.kill().expect("it runs");
    agent.wait().expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_unit_decides_where_the_agent_listens_and_one_that_does_not_fit_is_logged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listener, plugin) = listen();
    let mut agent = activated("plugin", &listener, &mut run("127.0.0.1:1", folder.path()));
    let answer = call(plugin, &request("GET", "/sd?name=t", "")).await;
    assert_eq!(answer.body, r#"{"services":[]}"#);
    agent.kill().expect("it runs");
    agent.wait().expect("it ends");

    let mut agent = activated("web", &listener, &mut run("127.0.0.1:0", folder.path()));
    let mut stderr = agent.stderr.take().expect("piped");
    agent.stdout.take().expect("piped").read_exact(&mut [0; 10]).expect("it serves");
    agent.kill().expect("it runs");
    agent.wait().expect("it ends");
    let mut said = String::new();
    stderr.read_to_string(&mut said).expect("text");
    assert!(said.contains("FileDescriptorName=") && said.contains("web"), "{said}");
}

/// Ends the holder with the test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_holder_an_agent_is_killed_and_started_and_nobody_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_gost, entrypoint) = listen();
    let name = format!("held-{}", std::process::id());
    let holder = gossd().args(["hold", "--name", &name]).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut holder = Holder(holder);
    // The reader of its log may go away.
    drop(holder.0.stderr.take());
    let unix = folder.path().join("plugin.sock");
    let flags = ["--hold", "--plugin-socket", unix.to_str().expect("text")];
    let mut agent = Process::keeping(&name, folder.path(), &flags);
    let plugin = agent.plugin;
    let callers = Callers::start(plugin, entrypoint);
    callers.made(20).await;
    // It would take half of the first one's connections, if it could.
    let second = ["run", "--name", &name, "--hold", "--data-dir", "none", "--plugin", &plugin.to_string()]
        .map(String::from);
    let second = gossd().args(second).output().expect("gossd starts");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && said.contains("runs here already"), "{said}");
    for _ in 0..3 {
        callers.made(20).await;
        agent.signal("-TERM");
        assert_eq!(agent.ended(SOON).0.code(), Some(0));
        UnixStream::connect(&unix).expect("the holder has it");
        agent.restart();
        assert!(!agent.said().contains("fit no setting"), "{}", agent.said());
    }
    callers.made(20).await;
    all_are_listed(plugin, callers.end().await).await;
    agent.kill_and_restart();
    assert!(!agent.said().contains("fit no setting"), "{}", agent.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_needs_a_holder_logs_that_there_is_none() {
    let agent = Process::start(&format!("alone-{}", std::process::id()), &["--hold"]);
    eventually(SOON, "it says so", || agent.said().contains("no `gossd hold` of this name")).await;
    assert!(agent.get("t").await.is_empty(), "and serves");
}
