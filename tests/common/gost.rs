//! As much of a gost as the agent sees: an entrypoint that accepts, a kept-alive plugin connection, and an
//! instance id that changes with every start.

use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpListener;

use super::http::{Answer, Connection, request};

/// The host name that every tunnel has: the first 16 digits of the MD5 of its id.
pub fn hash_host(tunnel: &str) -> String {
    use md5::{Digest as _, Md5};
    let start = Md5::digest(tunnel).iter().take(8).fold(0_u64, |start, byte| start << 8 | u64::from(*byte));
    format!("{start:016x}")
}

/// A gost with one tunnel service. Dropping it is its crash: the listener and the connections close at once,
/// and nothing is deregistered.
pub struct FakeGost {
    pub node: String,
    pub entrypoint: SocketAddr,
    plugin: SocketAddr,
    connection: Option<Connection>,
    listener: TcpListener,
}

impl FakeGost {
    /// A gost beside the agent whose plugin is there.
    pub async fn start(node: &str, plugin: SocketAddr) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(node, plugin, any).await
    }

    /// A gost with a given entrypoint.
    pub async fn start_at(node: &str, plugin: SocketAddr, entrypoint: SocketAddr) -> Self {
        let listener = TcpListener::bind(entrypoint).await.expect("the port is free");
        let entrypoint = listener.local_addr().expect("an address");
        Self { node: node.into(), entrypoint, plugin, connection: None, listener }
    }

    /// Binds a client: gost registers it once.
    pub async fn register(&mut self, id: &str, name: &str) {
        let address = self.entrypoint.to_string();
        assert_eq!(self.call("POST", id, name, &address).await, 200);
    }

    /// Renews a connector; the status that the agent answers.
    pub async fn renew(&mut self, id: &str, name: &str) -> u16 {
        self.call("PUT", id, name, "").await
    }

    /// A client is gone.
    pub async fn deregister(&mut self, id: &str, name: &str) {
        assert_eq!(self.call("DELETE", id, name, "").await, 200);
    }

    /// Binds a client that asks for a host name, as gost does: if it is another tunnel's, the client gets its
    /// hash host instead. The name that it was given, and whether the agent agreed.
    pub async fn bind(&mut self, id: &str, tunnel: &str, wanted: &str) -> (String, bool) {
        let hash = hash_host(tunnel);
        let taken = self.get_rule(wanted).await;
        let given = if taken.is_empty() || taken == tunnel { wanted } else { &*hash };
        assert!(self.set_rule(&hash, tunnel).await, "a tunnel has its hash host");
        let agreed = self.set_rule(given, tunnel).await;
        self.register(id, tunnel).await;
        (given.to_owned(), agreed)
    }

    /// The endpoint of a host; empty if it has none.
    pub async fn get_rule(&mut self, host: &str) -> String {
        let target = format!("/ingress?host={host}&service=service-0");
        let answer = self.ask(&request("GET", &target, "")).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()["endpoint"].as_str().expect("never null").to_owned()
    }

    /// Whether the agent lets a tunnel have a host.
    pub async fn set_rule(&mut self, host: &str, endpoint: &str) -> bool {
        let body = json!({"service": "service-0", "host": host, "endpoint": endpoint});
        let answer = self.ask(&request("PUT", "/ingress", &body.to_string())).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()["ok"].as_bool().expect("never null")
    }

    /// Closes its plugin connections and goes on.
    pub fn drop_connections(&mut self) {
        self.connection = None;
    }

    /// Says that its agent is elsewhere now, as after a restart of it on other ports.
    pub fn reconnect_to(&mut self, plugin: SocketAddr) {
        self.plugin = plugin;
        self.connection = None;
    }

    /// Ends as SIGTERM ends it; the entrypoint that it had.
    pub fn stop(self) -> SocketAddr {
        drop(self.listener);
        self.entrypoint
    }

    async fn call(&mut self, method: &str, id: &str, name: &str, address: &str) -> u16 {
        let network = if address.is_empty() { "" } else { "tcp" };
        let node = &self.node;
        let body = json!({"id": id, "name": name, "node": node, "network": network, "address": address});
        self.ask(&request(method, "/sd", &body.to_string())).await.status()
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
