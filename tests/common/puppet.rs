//! A peer without an agent: it has a key and an identity, and sends whatever a test wants. Its frames are recorded, for
//! attackers without a key that replay them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gossd_core::codec::encode_cell;
use gossd_core::link::frame::{self, Index, Sealed};
use gossd_core::link::keyring::{KeyId, Keyring};
use gossd_core::link::noise::{Channel, ClusterKey, Handshake, Identity};
use gossd_core::link::wire::{self, Introduction, Kind, Push};
use gossd_core::record::{Network, Record};
use gossd_core::slot::{Cell, Content, Slot, Status};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// How long it waits for the answer to the beginning of a handshake before it begins another one.
const PATIENCE: Duration = Duration::from_millis(100);

/// An agent that doubts that a peer lives pings it all the time; so long without a ping, it does not doubt any more.
const STALE: Duration = Duration::from_secs(1);

/// One process of a peer. At its end it becomes silent.
pub(crate) struct Puppet {
    said: Arc<Said>,
    answering: JoinHandle<()>,
}

struct Said {
    socket: UdpSocket,
    agent: SocketAddr,
    key: (KeyId, ClusterKey),
    identity: Identity,
    name: String,
    generation: u64,
    session: Mutex<Option<Session>>,
    /// The frames that it sent.
    sent: Mutex<Vec<Vec<u8>>>,
    /// The frames that the agent sent to it.
    heard: Mutex<Vec<Vec<u8>>>,
}

struct Session {
    theirs: Index,
    channel: Channel,
    pushes: u64,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Puppet {
    /// Makes a handshake with an agent, if that is possible, and answers its pings from now on.
    pub(crate) async fn start(
        agent: SocketAddr,
        keyring: Keyring,
        cluster: &str,
        name: &str,
        generation: u64,
    ) -> Self {
        let sealing = keyring.sealing();
        let key = keyring.for_cluster(cluster).remove(&sealing).expect("a keyring has it");
        let said = Arc::new(Said {
            socket: UdpSocket::bind("127.0.0.1:0").await.expect("a port is free"),
            agent,
            key: (sealing, key),
            identity: Identity::new(&rand::random()),
            name: name.into(),
            generation,
            session: Mutex::default(),
            sent: Mutex::default(),
            heard: Mutex::default(),
        });
        for _ in 0..20 {
            if said.meet().await {
                break;
            }
        }
        let answering = tokio::spawn(said.clone().answer());
        Self { said, answering }
    }

    /// Sends a payload, which must be small enough for a datagram.
    pub(crate) async fn say(&self, kind: Kind, payload: &[u8]) {
        self.said.say(kind, payload).await;
    }

    /// Pushes changes of its slots.
    pub(crate) async fn push(&self, until: u64, changes: &[(Slot, Vec<u8>)]) {
        let id = self.said.session().as_mut().map_or(0, |session| {
            session.pushes += 1;
            session.pushes
        });
        self.say(Kind::Push, &push(id, until, changes)).await;
    }

    /// Pushes that it is ready, so that its records are listed.
    pub(crate) async fn get_ready(&self) {
        self.push(1, &[(0, cell(1, Content::Status(Status::Ready)))]).await;
    }

    /// A frame of it that is not sent.
    pub(crate) fn frame(&self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        self.said.frame(None, kind, payload)
    }

    /// A frame with a chosen counter.
    pub(crate) fn frame_as(&self, counter: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
        self.said.frame(Some(counter), kind, payload)
    }

    /// All frames that it sent.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.said.sent.lock().expect("no panic holds it").clone()
    }

    /// What the agent said to it in its session: kinds and payloads.
    pub(crate) fn told(&self) -> Vec<(Kind, Vec<u8>)> {
        let session = self.said.session();
        let channel = session.as_ref().map(|session| &session.channel);
        let told = |frame: Vec<u8>| {
            let Ok(Sealed::Data { counter, encrypted, .. }) = frame::read(&frame) else { return None };
            let plain = channel?.decrypt(counter, encrypted).ok()?;
            let (kind, payload) = wire::split(&plain).ok()?;
            Some((Kind::from_number(kind)?, payload.to_vec()))
        };
        self.heard().into_iter().filter_map(told).collect()
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
    fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().expect("no panic holds it")
    }

    /// Begins a handshake. Whether it was finished.
    async fn meet(&self) -> bool {
        let (id, key) = &self.key;
        let (begun, first) = Handshake::begin(key, &self.identity, rand::random());
        // On a busy machine, the answer to the one before may still come.
        let ours = rand::random();
        self.transmit(frame::hello((*id, key), ours, &first, None)).await;
        let answered = tokio::time::timeout(PATIENCE, async {
            loop {
                let received = self.receive().await;
                match frame::read(&received) {
                    Ok(Sealed::Reply { index, to, second, .. }) if to == ours => {
                        return (index, second.to_vec());
                    }
                    _ => {}
                }
            }
        });
        let Ok((theirs, second)) = answered.await else { return false };
        let addr = self.socket.local_addr().expect("bound");
        let (name, generation) = (&*self.name, self.generation);
        let introduction = Introduction { name, generation, addr, uptime_ms: 1, version: "0.1.0" };
        let Ok((channel, third, _)) = begun.prove(&second, &wire::encode(&introduction)) else {
            return false;
        };
        *self.session() = Some(Session { theirs, channel, pushes: 0 });
        self.transmit(frame::proof(key, theirs, &third)).await;
        true
    }

    async fn say(&self, kind: Kind, payload: &[u8]) {
        self.transmit(self.frame(None, kind, payload)).await;
    }

    async fn transmit(&self, frame: Vec<u8>) {
        // A send that fails is a datagram that is lost.
        let _ = self.socket.send_to(&frame, self.agent).await;
        self.sent.lock().expect("no panic holds it").push(frame);
    }

    /// A frame of the session; without one, a frame that no session knows.
    fn frame(&self, counter: Option<u64>, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let plain = wire::pack(kind, payload);
        let mut session = self.session();
        let Some(Session { theirs, channel, .. }) = session.as_mut() else {
            return frame::data(1, 0, &plain);
        };
        let (counter, encrypted) = match counter {
            Some(counter) => (counter, channel.encrypt_as(counter, &plain)),
            None => channel.encrypt(&plain),
        };
        frame::data(*theirs, counter, &encrypted)
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok((len, _)) = self.socket.recv_from(&mut buffer).await else { continue };
            let frame = buffer[..len].to_vec();
            self.heard.lock().expect("no panic holds it").push(frame.clone());
            return frame;
        }
    }

    /// The number that a ping wants back.
    fn asked(&self, received: &[u8]) -> Option<u64> {
        let Ok(Sealed::Data { counter, encrypted, .. }) = frame::read(received) else { return None };
        let plain = self.session().as_ref()?.channel.decrypt(counter, encrypted).ok()?;
        let (kind, payload) = wire::split(&plain).ok()?;
        (kind == Kind::Ping.number()).then(|| wire::decode::<wire::Ping>(payload).ok()?.nonce)?
    }

    /// Answers pings for ever. When the agent begins a handshake and pings no more, the session is stale: the agent did
    /// not receive anything for too long.
    async fn answer(self: Arc<Self>) {
        let mut pinged = Instant::now();
        loop {
            let received = self.receive().await;
            let read = frame::read(&received);
            if matches!(read, Ok(Sealed::Data { .. })) {
                pinged = Instant::now();
            }
            if matches!(read, Ok(Sealed::Hello { .. })) && pinged.elapsed() > STALE {
                self.meet().await;
                pinged = Instant::now();
            } else if let Some(nonce) = self.asked(&received) {
                self.say(Kind::Pong, &wire::encode(&wire::Pong { nonce })).await;
            }
        }
    }
}
