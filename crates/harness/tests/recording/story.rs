//! What happens to two gosts, A and B, and is recorded: clients come and go, visitors ask.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::agent::{Call, Cluster, Kind};
use super::program::{Gost, Program, free_address};
use super::transcript::{Names, normal};

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const OTHER: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
const FORWARDED: &str = "0d9dd0aa-0000-4000-8000-000000000001";
const NOBODY: &str = "0d9dd0aa-0000-4000-8000-000000000002";
const UNNAMED: &str = "0d9dd0aa-0000-4000-8000-000000000003";
/// A step that takes this long is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// The whole story, as text.
pub(crate) async fn play(program: &Program, kind: Kind) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::default();
    let [agent_a, agent_b] = [cluster.serve("A", kind).await, cluster.serve("B", kind).await];
    let [entry_a, entry_b, tunnel_a, tunnel_b] = std::array::from_fn(|_| free_address());
    let start = |name, agent, entrypoint, tunnel| {
        let gost = Gost { kind, agent, query: "", token: true, entrypoint, tunnel };
        program.gost(name, folder.path(), &gost)
    };
    let _a = start("a", agent_a, &entry_a, &tunnel_a);
    let b = start("b", agent_b, &entry_b, &tunnel_b);
    for address in [&entry_a, &entry_b, &tunnel_a, &tunnel_b] {
        listens(address).await;
    }
    let mut peer = Peer::start().await;
    let mut told = Told::new(cluster.clone());
    for (text, name) in [
        (&entry_a, "<entrypoint of A>"),
        (&entry_b, "<entrypoint of B>"),
        (&agent_a.to_string(), "<agent of A>"),
        (&agent_b.to_string(), "<agent of B>"),
        (&peer.address, "<another host>"),
    ] {
        told.names.know(text, name);
    }
    for (id, name) in [
        (TUNNEL, "<tunnel>"),
        (OTHER, "<other tunnel>"),
        (FORWARDED, "<forwarded tunnel>"),
        (NOBODY, "<dead tunnel>"),
        (UNNAMED, "<tunnel without address>"),
    ] {
        told.names.know(id, name);
    }

    cluster.rule("priv.example.test", &format!("${TUNNEL}"));
    let client = program.client(folder.path(), &tunnel_a, TUNNEL, "shop.example.test");
    told.until("a client binds at A and asks for shop.example.test", "Register", 1).await;
    told.until("A renews", "Renew", 1).await;
    told.visit("a visitor at B", &entry_b, "shop.example.test", "").await;
    told.visit("a visitor at A, who says the port", &entry_a, "shop.example.test:8420", "").await;
    told.visit("a visitor at B of a name that nobody has", &entry_b, "nobody.example.test", "").await;
    told.visit("a visitor at A of a private tunnel", &entry_a, "priv.example.test", "").await;
    let node = told.node_of_first();
    let looped = format!("Gost-Forwarded-Node: {node}\r\n");
    told.visit("a visitor at A whom A sent", &entry_a, "shop.example.test", &looped).await;

    let private = program.client(folder.path(), &tunnel_a, TUNNEL, "priv.example.test");
    told.until("a client of the same tunnel asks for the private name", "Register", 2).await;
    let other = program.client(folder.path(), &tunnel_b, OTHER, "shop.example.test");
    told.until("another tunnel's client at B asks for the first one's name", "Register", 3).await;

    cluster.rule("forward.example.test", FORWARDED);
    cluster.record(FORWARDED, "first", "udp", "127.0.0.1:1");
    cluster.record(FORWARDED, "second", "tcp", &peer.address);
    told.visit("a visitor at A who is forwarded", &entry_a, "forward.example.test", "X-Visitor: 1\r\n").await;
    told.say("what the other host got", &peer.heard().await);
    cluster.rule("dead.example.test", NOBODY);
    cluster.record(NOBODY, "first", "tcp", "127.0.0.1:1");
    cluster.record(NOBODY, "second", "tcp", &peer.address);
    told.visit("a visitor at A, where the first entry refuses", &entry_a, "dead.example.test", "").await;
    cluster.rule("unnamed.example.test", UNNAMED);
    cluster.record(UNNAMED, "first", "tcp", "");
    cluster.record(UNNAMED, "second", "tcp", &peer.address);
    told.visit("a visitor at A, where the first entry has no address", &entry_a, "unnamed.example.test", "")
        .await;

    drop(client);
    told.until("the first client at A is killed", "Deregister", 1).await;
    drop(private);
    told.until("the second one, too", "Deregister", 2).await;
    told.visit("a visitor at A", &entry_a, "shop.example.test", "").await;
    b.signal("HUP");
    told.until("B is reloaded", "Deregister", 3).await;
    told.until("its client comes back", "Register", 4).await;
    drop(other);
    told.until("its client is killed", "Deregister", 4).await;
    told.text
}

/// The story of `capture.txt`, the calls of service discovery alone.
pub(crate) async fn play_capture(program: &Program) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::default();
    let [agent_a, agent_b] = [cluster.serve("A", Kind::Http).await, cluster.serve("B", Kind::Http).await];
    let [entry_a, entry_b, tunnel_a, tunnel_b] = std::array::from_fn(|_| free_address());
    let start = |name, agent, query, entrypoint, tunnel| {
        let gost = Gost { kind: Kind::Http, agent, query, token: false, entrypoint, tunnel };
        program.gost(name, folder.path(), &gost)
    };
    let a = start("a", agent_a, "", &entry_a, &tunnel_a);
    let _b = start("b", agent_b, "?zone=b", &entry_b, &tunnel_b);
    for address in [&entry_b, &tunnel_a] {
        listens(address).await;
    }
    let mut told = Told::new(cluster.clone());
    let client = program.client(folder.path(), &tunnel_a, TUNNEL, "shop.example.test");
    told.until("", "Register", 1).await;
    told.until("", "Renew", 1).await;
    told.visit("", &entry_b, "shop.example.test", "").await;
    drop(client);
    told.until("", "Deregister", 1).await;
    let _client = program.client(folder.path(), &tunnel_a, TUNNEL, "shop.example.test");
    told.until("", "Register", 2).await;
    a.signal("TERM");
    // Longer than a Deregister would take that won its race; only the connection closes.
    sleep(Duration::from_millis(500)).await;
    let is_sd = |call: &Call| !["GetRule", "SetRule"].contains(&call.method);
    let calls: Vec<Call> = cluster.calls().into_iter().filter(is_sd).collect();
    let of_a: Vec<_> = calls.iter().filter(|call| call.agent == "A").map(|call| call.peer).collect();
    assert!(of_a.iter().all(|peer| *peer == of_a[0]), "A keeps one connection: {of_a:?}");
    normal(calls.into_iter().map(|call| call.text))
}

/// How many questions one visitor causes in this time, if each of two gosts learns that the tunnel is at the other.
pub(crate) async fn bounces(program: &Program, time: Duration) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::default();
    let [agent_a, agent_b] = [cluster.serve("A", Kind::Http).await, cluster.serve("B", Kind::Http).await];
    let [entry_a, entry_b, tunnel_a, tunnel_b] = std::array::from_fn(|_| free_address());
    cluster.rule("shop.example.test", TUNNEL);
    for (node, address) in [("of b", &entry_b), ("of a", &entry_a)] {
        cluster.record(TUNNEL, node, "tcp", address);
    }
    // Each gost learns only the other's record, because the minimal agent does not know who asks.
    cluster.alternate();
    let start = |name, agent, entrypoint, tunnel| {
        let gost = Gost { kind: Kind::Http, agent, query: "", token: false, entrypoint, tunnel };
        program.gost(name, folder.path(), &gost)
    };
    let _gosts = [start("a", agent_a, &entry_a, &tunnel_a), start("b", agent_b, &entry_b, &tunnel_b)];
    for address in [&entry_a, &entry_b] {
        listens(address).await;
    }
    let visitor = tokio::spawn(async move { ask(&entry_a, "shop.example.test", "").await });
    sleep(time).await;
    visitor.abort();
    cluster.calls().iter().filter(|call| call.method == "GetRule").count()
}

/// When a gost connects to an agent that accepts, sends nothing for `silence`, then closes: seconds since the first
/// connection.
pub(crate) async fn attempts(program: &Program, silence: Duration, count: usize) -> Vec<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let agent = listener.local_addr().expect("an address");
    let [entrypoint, tunnel] = std::array::from_fn(|_| free_address());
    let gost =
        Gost { kind: Kind::Grpc, agent, query: "", token: false, entrypoint: &entrypoint, tunnel: &tunnel };
    let _gost = program.gost("a", folder.path(), &gost);
    listens(&entrypoint).await;
    // A visitor makes gost ask for a rule; only that channel connects.
    let visitor = tokio::spawn(async move { ask(&entrypoint, "shop.example.test", "").await });
    let (mut attempts, mut held) = (Vec::new(), Vec::new());
    while attempts.len() < count {
        let (stream, _) =
            timeout(STUCK, listener.accept()).await.expect("it tries again").expect("a connection");
        attempts.push(Instant::now());
        if !silence.is_zero() {
            held.push(stream);
        }
    }
    let answered = visitor.await.expect("no panic");
    assert!(answered.starts_with("HTTP/1.1 502 "), "{answered}");
    attempts.iter().map(|at| at.duration_since(attempts[0]).as_secs_f64()).collect()
}

/// Waits for a listener. Connecting costs gost one line in its log.
async fn listens(address: &str) {
    let start = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(start.elapsed() < STUCK, "nobody listens at {address}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A visitor's request. Returns the answer unchanged.
async fn ask(entrypoint: &str, host: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(entrypoint).await.expect("an entrypoint");
    let request = format!("GET /path?q=1 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: visitor\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let complete = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).into_owned();
        text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            body.len() >= length.unwrap_or(0)
        })
    };
    let read =
        async { while !complete(&answer) && stream.read_buf(&mut answer).await.expect("an answer") > 0 {} };
    timeout(STUCK, read).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).replace('\r', "")
}

/// Another host's entrypoint, which answers one request with `hello`.
struct Peer {
    address: String,
    heard: tokio::sync::mpsc::Receiver<String>,
}

impl Peer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (tell, heard) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.expect("a request");
            }
            tell.send(String::from_utf8_lossy(&request).replace('\r', "")).await.expect("somebody waits");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.expect("written");
        });
        Self { address, heard }
    }

    /// Its request with the fields sorted by name, because their order on the wire is Go's own.
    async fn heard(&mut self) -> String {
        let request = timeout(STUCK, self.heard.recv()).await.expect("in time").expect("a request");
        let (start, fields) = request.trim_end().split_once('\n').expect("a head");
        let field = |line: &str| match line.split_once(": ") {
            Some(("Gost-Sid", _)) => "Gost-Sid: <session>".to_owned(),
            _ => line.to_owned(),
        };
        let mut fields: Vec<String> = fields.lines().map(field).collect();
        fields.sort();
        format!("{start}\n{}", fields.join("\n"))
    }
}

/// The record of a story.
struct Told {
    cluster: Cluster,
    names: Names,
    /// How many calls are in the text already, or were left out.
    seen: usize,
    /// Whether the text has a Renew: only the first is written, because their times vary.
    renewed: bool,
    text: String,
}

impl Told {
    fn new(cluster: Cluster) -> Self {
        Self { cluster, names: Names::default(), seen: 0, renewed: false, text: String::new() }
    }

    fn say(&mut self, what: &str, text: &str) {
        let text = self.names.apply(text);
        self.text.extend(["## ", what, "\n\n", &text, "\n\n"]);
    }

    /// Waits for this many calls of a kind, and writes all calls since the last step.
    async fn until(&mut self, what: &str, method: &str, count: usize) {
        let start = Instant::now();
        let calls = loop {
            let calls = self.cluster.calls();
            if calls.iter().filter(|call| call.method == method).count() >= count {
                break calls;
            }
            assert!(start.elapsed() < STUCK, "{what}: no {method} number {count} in {calls:#?}");
            sleep(Duration::from_millis(10)).await;
        };
        let text = self.calls(&calls);
        self.say(what, &text);
    }

    async fn visit(&mut self, what: &str, entrypoint: &str, host: &str, more: &str) {
        let answer = ask(entrypoint, host, more).await;
        let calls = self.calls(&self.cluster.calls());
        // The target's own headers do not matter.
        let answer = match answer.split_once("\n\n") {
            Some((head, "hello")) => format!("{}\n…\n\nhello", head.lines().next().unwrap_or_default()),
            _ => answer,
        };
        let calls = if calls.is_empty() { "-- no call\n".into() } else { calls };
        self.say(what, &format!("{calls}\n-- visitor\n{}", answer.trim_end()));
    }

    fn calls(&mut self, calls: &[Call]) -> String {
        let new = calls.get(self.seen..).unwrap_or_default();
        self.seen = calls.len();
        let mut text = String::new();
        for call in new {
            if call.method == "Renew" && std::mem::replace(&mut self.renewed, true) {
                continue;
            }
            text.extend(["-- agent of ", call.agent, "\n", &call.text, "\n"]);
        }
        text.trim_end().to_owned()
    }

    /// The node of the first gost that registered something.
    fn node_of_first(&self) -> String {
        let calls = self.cluster.calls();
        let register = calls.iter().find(|call| call.method == "Register").expect("a Register");
        let (_, after) = register.text.split_once("\"node\":\"").expect("a node");
        after.split('"').next().expect("its end").to_owned()
    }
}
