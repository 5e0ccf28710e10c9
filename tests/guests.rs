//! A gost whose own agent is away calls a peer's, its second address: it is served like any other, and sent home when its
//! own agent is back.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::eventually;
use crate::common::http::{Connection, request};
use crate::services::sd_client::SdClient;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::net::keyfile;
use gossd::plugin::bounds::Bounds;
use gossd::plugin::grpc::generated::GetServiceRequest;
use gossd_core::link::keyring::Keyring;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

const SOON: Duration = Duration::from_secs(20);
/// How long a guest is served before it is sent home.
const GUEST: Duration = Duration::from_millis(200);

/// An address of this machine that is not loopback. Connecting a UDP socket sends nothing.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// The host that takes guests, and how the guest's own agent is started.
struct Hosts {
    ip: IpAddr,
    key: String,
    peer: Daemon,
}

impl Hosts {
    /// `None` if this machine has only loopback addresses.
    async fn new() -> Option<Self> {
        let ip = own_address()?;
        let key = keyfile::generate().line().to_string();
        let bounds = Bounds { guest: GUEST, ..Bounds::default() };
        let plugin = vec![SocketAddr::new(ip, 0)];
        let config = Config { plugin, insecure_plugin: true, bounds, ..Self::config("b", ip, &key) };
        Some(Self { ip, peer: Daemon::start(config).await.expect("it starts"), key })
    }

    fn config(name: &str, ip: IpAddr, key: &str) -> Config {
        let (gossip, keyring) = (SocketAddr::new(ip, 0), Keyring::parse(key).expect("a key"));
        Config { gossip, keyring, ..Config::loopback(name.parse().expect("a name")) }
    }

    /// The agent of the guest's host is back.
    async fn own_agent(&self) -> Daemon {
        let join = vec![self.peer.gossip.to_string().parse().expect("an address")];
        let config = Config { join, ..Self::config("a", self.ip, &self.key) };
        let agent = Daemon::start(config).await.expect("it starts");
        eventually(SOON, "it is heard", || self.peer.peers() == 1).await;
        agent
    }
}

#[tokio::test]
async fn an_http_guest_is_sent_home_by_its_answer() {
    let Some(hosts) = Hosts::new().await else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let get = request("GET", "/sd?name=t", "");
    let mut guest = Connection::open(hosts.peer.plugin).await;
    tokio::time::sleep(GUEST).await;
    assert_eq!(guest.call(&get).await.header("connection"), None, "its own agent is away");
    let _own = hosts.own_agent().await;
    let answer = guest.call(&get).await;
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    let mut again = Connection::open(hosts.peer.plugin).await;
    let answer = again.call(&get).await;
    assert_eq!((answer.status(), answer.header("connection")), (200, None), "it did not reach its own");
}

/// A channel that counts how often it is dialled.
async fn counted(plugin: SocketAddr, dials: Arc<AtomicUsize>) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        dials.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, std::io::Error>(TokioIo::new(TcpStream::connect(plugin).await?)) }
    });
    Endpoint::from_static("http://agent").connect_with_connector(connector).await.expect("the agent listens")
}

#[tokio::test]
async fn a_grpc_guest_is_sent_home_and_no_call_fails() {
    let Some(hosts) = Hosts::new().await else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let dials = Arc::<AtomicUsize>::default();
    let mut guest = SdClient::new(counted(hosts.peer.plugin, dials.clone()).await);
    let mut get = async || guest.get(GetServiceRequest { name: "t".into() }).await.map(drop);
    tokio::time::sleep(GUEST).await;
    get().await.expect("an answer");
    get().await.expect("an answer");
    assert_eq!(dials.load(Ordering::Relaxed), 1, "its own agent is away");
    let _own = hosts.own_agent().await;
    let start = tokio::time::Instant::now();
    while dials.load(Ordering::Relaxed) == 1 {
        get().await.expect("an answer");
        assert!(start.elapsed() < SOON, "it is never sent home");
    }
}
