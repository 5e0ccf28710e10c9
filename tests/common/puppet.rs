//! A peer without an agent: it has a key, and sends whatever a test wants. Its valid frames are recorded, for attackers
//! without a key that replay them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gossd_core::codec::encode_cell;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::seal::Sealer;
use gossd_core::link::wire::{self, Header, Kind, Push, Session};
use gossd_core::record::{Network, Record};
use gossd_core::slot::{Cell, Content, Slot, Status};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// One process of a peer. At its end it becomes silent.
pub(crate) struct Puppet {
    said: Arc<Said>,
    answering: JoinHandle<()>,
}

struct Said {
    socket: UdpSocket,
    agent: SocketAddr,
    sealer: Sealer,
    session: Session,
    counter: AtomicU64,
    name: String,
    generation: u64,
    /// The encrypted frames that it sent.
    sent: Mutex<Vec<Vec<u8>>>,
    /// The encrypted frames that the agent sent to it.
    heard: Mutex<Vec<Vec<u8>>>,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Puppet {
    /// Introduces itself to an agent, and answers its challenges from now on.
    pub(crate) async fn start(
        agent: SocketAddr,
        keyring: Keyring,
        cluster: &str,
        name: &str,
        generation: u64,
    ) -> Self {
        let said = Arc::new(Said {
            socket: UdpSocket::bind("127.0.0.1:0").await.expect("a port is free"),
            agent,
            sealer: Sealer::new(keyring, cluster),
            session: rand::random(),
            counter: AtomicU64::new(0),
            name: name.into(),
            generation,
            sent: Mutex::default(),
            heard: Mutex::default(),
        });
        said.say(Kind::Ping, &wire::encode(&wire::Ping { nonce: Some(1), told: 0 })).await;
        let answering = tokio::spawn(said.clone().answer());
        Self { said, answering }
    }

    /// Sends a payload, which must be small enough for a datagram.
    pub(crate) async fn say(&self, kind: Kind, payload: &[u8]) {
        self.said.say(kind, payload).await;
    }

    /// Pushes changes of its slots.
    pub(crate) async fn push(&self, until: u64, changes: &[(Slot, Vec<u8>)]) {
        self.say(Kind::Push, &push(self.said.counter.load(Ordering::Relaxed), until, changes)).await;
    }

    /// Pushes that it is ready, so that its records are listed.
    pub(crate) async fn get_ready(&self) {
        self.push(1, &[(0, cell(1, Content::Status(Status::Ready)))]).await;
    }

    /// A frame of it that is not sent.
    pub(crate) fn frame(&self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let counter = self.said.counter.fetch_add(1, Ordering::Relaxed);
        self.frame_as(counter, kind, payload)
    }

    /// A frame with a chosen counter.
    pub(crate) fn frame_as(&self, counter: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
        self.said.frame_as(counter, kind, payload)
    }

    /// All frames that it sent.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.said.sent.lock().expect("no panic holds it").clone()
    }

    /// All frames that it received.
    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        self.said.heard.lock().expect("no panic holds it").clone()
    }
}

/// The bytes of a cell.
pub(crate) fn cell(version: u64, content: Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_cell(&Cell { version, content }, &mut bytes);
    bytes
}

/// The bytes of a cell with a record, by its id, tunnel, instance and address.
pub(crate) fn record_cell(version: u64, [id, name, node, address]: [&str; 4]) -> Vec<u8> {
    let [id, name, node] = [id, name, node].map(Into::into);
    let record = Record { id, name, node, network: Network::Tcp, address: address.into() };
    cell(version, Content::Record(Arc::new(record)))
}

/// A [`Push`] that is complete with these records.
pub(crate) fn push(id: u64, until: u64, changes: &[(Slot, Vec<u8>)]) -> Vec<u8> {
    let changes = changes.iter().map(|(slot, cell)| (*slot, cell.as_slice())).collect();
    wire::encode(&Push { age_us: 0, id, former: None, since: 0, until, changes })
}

impl Said {
    async fn say(&self, kind: Kind, payload: &[u8]) {
        let frame = self.frame_as(self.counter.fetch_add(1, Ordering::Relaxed), kind, payload);
        // A send that fails is a datagram that is lost.
        let _ = self.socket.send_to(&frame, self.agent).await;
        self.sent.lock().expect("no panic holds it").push(frame);
    }

    fn frame_as(&self, counter: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let from = self.socket.local_addr().expect("bound");
        let header = Header { session: self.session, counter, from, kind: kind.number() };
        let with = self.sealer.keyring.sealing();
        self.sealer.seal(with, rand::random(), &wire::pack(header, payload))
    }

    /// Answers challenges for ever.
    async fn answer(self: Arc<Self>) {
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok((len, _)) = self.socket.recv_from(&mut buffer).await else { continue };
            self.heard.lock().expect("no panic holds it").push(buffer[..len].to_vec());
            let Ok(opened) = self.sealer.open(&buffer[..len]) else { continue };
            let Ok((header, payload)) = wire::split(&opened.plain) else { continue };
            if Kind::from_number(header.kind) != Some(Kind::Ping) {
                continue;
            }
            if let Ok(wire::Ping { nonce: Some(nonce), .. }) = wire::decode(payload) {
                let pong = wire::Pong { nonce, name: &self.name, generation: self.generation };
                self.say(Kind::Pong, &wire::encode(&pong)).await;
            }
        }
    }
}
