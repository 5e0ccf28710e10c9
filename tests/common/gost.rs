//! The part of a gost that an agent sees: an entrypoint that answers, a kept-alive plugin connection like that of Go's
//! client, and an instance id that changes with every start.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::http::{Answer, Connection};
use super::nobody;

/// The hash host of a tunnel: the first 16 digits of the MD5 of its id.
pub(crate) fn hash_host(tunnel: &str) -> String {
    use md5::{Digest as _, Md5};
    let start = Md5::digest(tunnel).iter().take(8).fold(0_u64, |start, byte| start << 8 | u64::from(*byte));
    format!("{start:016x}")
}

/// A request as Go's client sends it for gost.
pub(crate) fn of_go(method: &str, target: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len}\r\n\
         Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{body}"
    )
}

fn addresses(answer: &Answer) -> Vec<String> {
    let answer = answer.json();
    let services = answer["services"].as_array().expect("a list").iter();
    services.map(|service| service["address"].as_str().expect("text").to_owned()).collect()
}

/// The port for visitors: it has nobody's tunnel.
struct Entrypoint {
    socket: Arc<TcpListener>,
    answering: JoinHandle<()>,
}

impl Entrypoint {
    async fn listen(at: SocketAddr) -> Self {
        // The port of one that has just ended is free when its task has ended.
        let until = Instant::now() + Duration::from_secs(5);
        let socket = loop {
            match TcpListener::bind(at).await {
                Ok(socket) => break Arc::new(socket),
                Err(error) => assert!(Instant::now() < until, "{at}: {error}"),
            }
            tokio::task::yield_now().await;
        };
        let accepting = socket.clone();
        let answering = tokio::spawn(async move {
            while let Ok((mut stream, _)) = accepting.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        Self { socket, answering }
    }
}

impl Drop for Entrypoint {
    fn drop(&mut self) {
        // At once, and not when the task is dropped.
        let _ = socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Both);
        self.answering.abort();
    }
}

/// A gost with one tunnel service. Dropping it is its crash: the listener and the connections close at once,
/// and nothing is deregistered.
pub(crate) struct FakeGost {
    pub node: String,
    pub entrypoint: SocketAddr,
    plugin: SocketAddr,
    connection: Option<Connection>,
    listener: Option<Entrypoint>,
}

impl FakeGost {
    /// A gost beside the agent with this plugin address.
    pub(crate) async fn start(node: &str, plugin: SocketAddr) -> Self {
        // When it has crashed, nobody else may answer there.
        Self::start_at(node, plugin, nobody()).await
    }

    /// A gost with a given entrypoint.
    pub(crate) async fn start_at(node: &str, plugin: SocketAddr, entrypoint: SocketAddr) -> Self {
        let listener = Entrypoint::listen(entrypoint).await;
        let entrypoint = listener.socket.local_addr().expect("an address");
        Self { node: node.into(), entrypoint, plugin, connection: None, listener: Some(listener) }
    }

    /// Binds a client: gost registers its connector once.
    pub(crate) async fn register(&mut self, id: &str, name: &str) {
        let address = self.entrypoint.to_string();
        assert_eq!(self.call("POST", id, name, &address).await, 200);
    }

    /// Registers with an entrypoint verbatim from gost's configuration, perhaps empty. Returns the agent's status.
    pub(crate) async fn register_as(&mut self, id: &str, name: &str, entrypoint: &str) -> u16 {
        self.call("POST", id, name, entrypoint).await
    }

    /// Asks for a tunnel of which it has no connector. Returns the addresses in order.
    pub(crate) async fn get(&mut self, name: &str) -> Vec<String> {
        addresses(&self.ask(&of_go("GET", &format!("/sd?name={name}"), "")).await)
    }

    /// Closes its listener and continues to call.
    pub(crate) fn stop_listening(mut self) -> Self {
        self.listener = None;
        self
    }

    /// Renews a connector. Returns the agent's status.
    pub(crate) async fn renew(&mut self, id: &str, name: &str) -> u16 {
        self.call("PUT", id, name, "").await
    }

    /// A client is gone.
    pub(crate) async fn deregister(&mut self, id: &str, name: &str) {
        assert_eq!(self.call("DELETE", id, name, "").await, 200);
    }

    /// Binds a client that asks for a host name, as gost does: if the name is another tunnel's, the client gets its
    /// hash host instead. Returns that name, and whether the agent agreed.
    pub(crate) async fn bind(&mut self, id: &str, tunnel: &str, wanted: &str) -> (String, bool) {
        let hash = hash_host(tunnel);
        let taken = self.get_rule(wanted).await;
        let given = if taken.is_empty() || taken == tunnel { wanted } else { &*hash };
        assert!(self.set_rule(&hash, tunnel).await, "a tunnel has its hash host");
        let agreed = self.set_rule(given, tunnel).await;
        self.register(id, tunnel).await;
        (given.to_owned(), agreed)
    }

    /// The endpoint of a host; empty if it has none.
    pub(crate) async fn get_rule(&mut self, host: &str) -> String {
        let target = format!("/ingress?host={host}&service=service-0");
        let answer = self.ask(&of_go("GET", &target, "")).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()["endpoint"].as_str().expect("never null").to_owned()
    }

    /// Sets a rule. Returns whether the agent gives the host name to the tunnel.
    pub(crate) async fn set_rule(&mut self, host: &str, endpoint: &str) -> bool {
        let body = json!({"service": "service-0", "host": host, "endpoint": endpoint});
        let answer = self.ask(&of_go("PUT", "/ingress", &body.to_string())).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()["ok"].as_bool().expect("never null")
    }

    /// Closes its plugin connections and continues.
    pub(crate) fn drop_connections(&mut self) {
        self.connection = None;
    }

    /// Its agent has other ports now, as after a restart.
    pub(crate) fn reconnect_to(&mut self, plugin: SocketAddr) {
        self.plugin = plugin;
        self.connection = None;
    }

    /// Ends it as SIGTERM does. Returns its entrypoint.
    pub(crate) fn stop(self) -> SocketAddr {
        drop(self.listener);
        self.entrypoint
    }

    async fn call(&mut self, method: &str, id: &str, name: &str, address: &str) -> u16 {
        let network = if address.is_empty() {
            ""
        } else if name.contains('@') {
            "udp"
        } else {
            "tcp"
        };
        let node = &self.node;
        let body = json!({"id": id, "name": name, "node": node, "network": network, "address": address});
        self.ask(&of_go(method, "/sd", &body.to_string())).await.status()
    }

    async fn ask(&mut self, request: &str) -> Answer {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.plugin).await,
        };
        let answer = connection.call(request).await;
        self.connection = Some(connection);
        answer
    }
}
