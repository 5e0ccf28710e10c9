//! A gost instance's tunnels: the live connectors of each, and the ticker that renews them *while it holds the
//! lock that a visitor's request needs*, as gost's does. Knows neither listeners nor lookups.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, interval_at, timeout};

use crate::gost::MAX_CONNECTIONS;
use crate::line::{parse_response, read_line};
use crate::plugin::{Plugin, Service};

/// Requests that a client may be asked at once; more are answered as if it were not there. As many as there may be
/// visitors: those of a frozen client hang, as gost's do.
const MAX_PENDING: usize = MAX_CONNECTIONS;
/// gost's own keepalive: how often a client is asked for a sign of life, and how long it may give none.
const PING_PERIOD: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);

/// One client's connection.
pub(crate) struct Connector {
    pub(crate) id: String,
    /// Lines to the client. Closed when the connection is.
    to_client: mpsc::Sender<String>,
    pending: StdMutex<HashMap<u64, oneshot::Sender<String>>>,
    asked: AtomicU64,
}

impl Connector {
    /// A connector, and the lines that [`Connector::serve`] has to send.
    pub(crate) fn new(id: String) -> (Arc<Self>, mpsc::Receiver<String>) {
        let (to_client, lines) = mpsc::channel(MAX_PENDING);
        let (pending, asked) = (StdMutex::default(), AtomicU64::default());
        (Arc::new(Self { id, to_client, pending, asked }), lines)
    }

    fn is_live(&self) -> bool {
        !self.to_client.is_closed()
    }

    /// The client's answer to one request; `None` if its connection ends before.
    pub(crate) async fn forward(&self) -> Option<String> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = self.pending.lock().expect("no panic holds it");
            pending.retain(|_, asker| !asker.is_closed());
            if pending.len() >= MAX_PENDING {
                return None;
            }
            pending.insert(number, answer);
        }
        self.to_client.try_send(format!("REQ {number}\n")).ok()?;
        answered.await.ok()
    }

    /// Carries lines until the connection ends, or the client says nothing for too long.
    pub(crate) async fn serve(
        &self,
        reader: BufReader<OwnedReadHalf>,
        writer: OwnedWriteHalf,
        mut lines: mpsc::Receiver<String>,
    ) {
        tokio::select! {
            () = self.hear(reader) => {}
            () = tell(writer, &mut lines) => {}
        }
        lines.close();
        self.pending.lock().expect("no panic holds it").clear();
    }

    async fn hear(&self, mut reader: BufReader<OwnedReadHalf>) {
        while let Ok(Ok(Some(line))) = timeout(SILENCE, read_line(&mut reader)).await {
            if let Some((number, text)) = parse_response(&line) {
                let asker = self.pending.lock().expect("no panic holds it").remove(&number);
                // A visitor who has gone away meanwhile is no error.
                let _ = asker.map(|asker| asker.send(text.to_owned()));
            }
        }
    }
}

async fn tell(mut writer: OwnedWriteHalf, lines: &mut mpsc::Receiver<String>) {
    let mut pings = interval_at(tokio::time::Instant::now() + PING_PERIOD, PING_PERIOD);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = pings.tick() => Some("PING\n".into()),
        };
        let Some(line) = line else { return };
        if writer.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One tunnel of one instance.
pub(crate) struct Tunnel {
    name: String,
    node: String,
    plugin: Arc<Plugin>,
    connectors: Mutex<Connectors>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Connectors {
    list: Vec<Arc<Connector>>,
    /// A tick found nobody: the tunnel is no more, a newcomer needs another.
    closed: bool,
}

impl Tunnel {
    /// A live connector, each in its turn. Waits while a renewal runs.
    pub(crate) async fn connector(&self) -> Option<Arc<Connector>> {
        let connectors = self.connectors.lock().await;
        let live: Vec<_> = connectors.list.iter().filter(|connector| connector.is_live()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        live.get(turn.checked_rem(live.len())?).map(|connector| Arc::clone(connector))
    }

    async fn add(&self, connector: &Arc<Connector>) -> bool {
        let mut connectors = self.connectors.lock().await;
        if !connectors.closed {
            connectors.list.push(connector.clone());
        }
        !connectors.closed
    }

    async fn renew_for_ever(&self, ttl: Duration) {
        let mut ticks = interval(ttl);
        // A Go ticker drops what its reader is too slow for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let mut connectors = self.connectors.lock().await;
            connectors.list.retain(|connector| connector.is_live());
            if connectors.list.is_empty() {
                connectors.closed = true;
                return;
            }
            for connector in &connectors.list {
                self.plugin.renew(&self.record(connector, "", "")).await;
            }
        }
    }

    /// A connector as a call tells it; only Register has a network and an address.
    pub(crate) fn record(&self, connector: &Connector, network: &str, address: &str) -> Service {
        let [id, name, node] = [&connector.id, &self.name, &self.node].map(Clone::clone);
        Service { id, name, node, network: network.into(), address: address.into() }
    }
}

/// The tunnels of one instance.
pub(crate) struct Tunnels {
    node: String,
    ttl: Duration,
    plugin: Arc<Plugin>,
    by_name: StdMutex<HashMap<String, Arc<Tunnel>>>,
}

impl Tunnels {
    pub(crate) fn new(node: String, ttl: Duration, plugin: Arc<Plugin>) -> Arc<Self> {
        Arc::new(Self { node, ttl, plugin, by_name: StdMutex::default() })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Tunnel>> {
        self.by_name.lock().expect("no panic holds it").get(name).cloned()
    }

    /// Puts a connector where visitors find it.
    pub(crate) async fn add(self: &Arc<Self>, name: &str, connector: &Arc<Connector>) -> Arc<Tunnel> {
        loop {
            let tunnel = self.get_or_open(name);
            if tunnel.add(connector).await {
                return tunnel;
            }
            self.forget(&tunnel);
        }
    }

    fn get_or_open(self: &Arc<Self>, name: &str) -> Arc<Tunnel> {
        let mut by_name = self.by_name.lock().expect("no panic holds it");
        let open = || {
            let tunnel = Arc::new(Tunnel {
                name: name.into(),
                node: self.node.clone(),
                plugin: self.plugin.clone(),
                connectors: Mutex::default(),
                turn: AtomicUsize::default(),
            });
            let (renewed, tunnels) = (tunnel.clone(), self.clone());
            tokio::spawn(async move {
                renewed.renew_for_ever(tunnels.ttl).await;
                tunnels.forget(&renewed);
            });
            tunnel
        };
        by_name.entry(name.into()).or_insert_with(open).clone()
    }

    fn forget(&self, tunnel: &Arc<Tunnel>) {
        let mut by_name = self.by_name.lock().expect("no panic holds it");
        if by_name.get(&tunnel.name).is_some_and(|known| Arc::ptr_eq(known, tunnel)) {
            by_name.remove(&tunnel.name);
        }
    }
}

/// A connection's halves, its lines unread.
pub(crate) fn halves(stream: TcpStream) -> (BufReader<OwnedReadHalf>, OwnedWriteHalf) {
    let (reader, writer) = stream.into_split();
    (BufReader::new(reader), writer)
}
