//! One client's connection to a gost: requests are sent to the client, its answers are received, and silence ends the
//! connection. Knows nothing of tunnels.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, interval_at};

use crate::gost::MAX_CONNECTIONS;
use crate::line::{parse_response, read_line};

/// Most requests that wait for one client; more are answered as if the client were missing. The limit equals that of
/// visitors, because requests to a frozen client hang, as with gost.
const MAX_PENDING: usize = MAX_CONNECTIONS;
/// gost's own keepalive: how often it pings a client and checks whether anything came. So a frozen client is noticed
/// after 30 to 60 s.
const PING_PERIOD: Duration = Duration::from_secs(10);
const LOOK_PERIOD: Duration = Duration::from_secs(30);

pub(crate) struct ClientConnection {
    pub(crate) id: String,
    /// `tcp` or `udp`.
    pub(crate) network: String,
    /// Lines to the client. Closed together with the connection.
    to_client: mpsc::Sender<String>,
    pending: Mutex<HashMap<u64, oneshot::Sender<String>>>,
    asked: AtomicU64,
    closing: Notify,
    /// Whether anything came since the last check.
    heard: AtomicBool,
}

impl ClientConnection {
    /// A connector, and the receiver of the lines that [`ClientConnection::serve`] has to send.
    pub(crate) fn new(id: String, network: String) -> (Arc<Self>, mpsc::Receiver<String>) {
        let (to_client, lines) = mpsc::channel(MAX_PENDING);
        let connector = Self {
            id,
            network,
            to_client,
            pending: Mutex::default(),
            asked: AtomicU64::default(),
            closing: Notify::new(),
            heard: AtomicBool::default(),
        };
        (Arc::new(connector), lines)
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.to_client.is_closed()
    }

    pub(crate) fn close(&self) {
        self.closing.notify_one();
    }

    /// The target's answer to one request; `None` if there is none, or if the connection ends first.
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

    /// Sends and receives lines until the connection ends, or nothing came between two checks.
    pub(crate) async fn serve(
        &self,
        reader: BufReader<OwnedReadHalf>,
        writer: OwnedWriteHalf,
        mut lines: mpsc::Receiver<String>,
    ) {
        tokio::select! {
            () = self.hear(reader) => {}
            () = tell(writer, &mut lines) => {}
            () = self.silent() => {}
            () = self.closing.notified() => {}
        }
        lines.close();
        self.pending.lock().expect("no panic holds it").clear();
    }

    async fn hear(&self, mut reader: BufReader<OwnedReadHalf>) {
        while let Ok(Some(line)) = read_line(&mut reader).await {
            self.heard.store(true, Ordering::Relaxed);
            if let Some((number, text)) = parse_response(&line) {
                let asker = self.pending.lock().expect("no panic holds it").remove(&number);
                // The visitor may have gone meanwhile: no error.
                let _ = asker.zip(text).map(|(asker, text)| asker.send(text.to_owned()));
            }
        }
    }

    async fn silent(&self) {
        let mut looks = interval_at(Instant::now() + LOOK_PERIOD, LOOK_PERIOD);
        loop {
            looks.tick().await;
            if !self.heard.swap(false, Ordering::Relaxed) {
                return;
            }
        }
    }
}

async fn tell(mut writer: OwnedWriteHalf, lines: &mut mpsc::Receiver<String>) {
    let mut pings = interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
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

/// The two halves of a connection, the reading one buffered.
pub(crate) fn halves(stream: TcpStream) -> (BufReader<OwnedReadHalf>, OwnedWriteHalf) {
    let (reader, writer) = stream.into_split();
    (BufReader::new(reader), writer)
}
