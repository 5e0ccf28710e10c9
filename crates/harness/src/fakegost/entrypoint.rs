//! What a gost does for a visitor, and for another gost's visitor, which to it is the same: it asks which tunnel the
//! host name leads to, takes a connector of its own, else asks once where the tunnel is, and sends the visitor's own
//! request to the first entry that is not itself. That gost asks *its* agent again. No second candidate, no retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::connector::{Connector, halves};
use crate::gost::Gost;
use crate::http_wire::{Head, Message, Unsized, answer};
use crate::line::{Hello, Relay, read_line};

/// gost's patience with a dial.
const DIAL: Duration = Duration::from_secs(15);
/// gost's patience with the head of an answer (`entrypoint.readTimeout`).
const HEAD: Duration = Duration::from_secs(15);
/// How long a tunnel's id is, as it is written.
const ID_LEN: usize = 36;
/// What a connection begins with that speaks the relay protocol, the real one's and ours.
const RELAY: u8 = b'R';
/// The headers that gost adds to a visitor's request.
const SESSION: &str = "Gost-Sid";
const FORWARDED_BY: &str = "Gost-Forwarded-Node";

/// How a tunnel is reached from here.
enum Way {
    Local(Arc<Connector>),
    Remote(TcpStream),
}

/// Why there is none.
enum NoWay {
    /// No rule, or none for visitors.
    Route,
    /// No record, or nobody where it says.
    Service,
}

impl Gost {
    /// A connection at an entrypoint. gost waits for its first byte for ever.
    pub(crate) async fn visit(self: Arc<Self>, stream: TcpStream) {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first == [RELAY] => self.visit_by_relay(stream).await,
            Ok(1) => {
                // What is no request ends the connection without an answer.
                let _ = self.visit_by_http(stream).await;
            }
            _ => {}
        }
    }

    /// Requests, one after the other. What becomes of one that was forwarded does not depend on whether its visitor
    /// still waits: between two gosts that point at each other it is never given up by the one before.
    async fn visit_by_http(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut unread = Vec::new();
        while let Some(request) = Message::read(&mut stream, &mut unread, Unsized::Empty).await? {
            let answered = self.round_trip(request).await;
            stream.write_all(&answered).await?;
        }
        Ok(())
    }

    async fn round_trip(&self, mut request: Message) -> Vec<u8> {
        let head = &mut request.head;
        if head.get(SESSION).is_none() {
            head.set(SESSION, &Uuid::new_v4().simple().to_string());
        }
        // It catches what comes straight back, never what comes back by way of another: that one overwrites it.
        if head.get(FORWARDED_BY).is_some_and(|nodes| nodes.split(',').any(|node| node.trim() == self.node)) {
            return unavailable();
        }
        head.set(FORWARDED_BY, &self.node);
        head.set("Connection", "close");
        match self.way_to(&host_of(head)).await {
            Ok(Way::Local(connector)) => match timeout(HEAD, connector.forward()).await {
                Ok(Some(text)) => answer(200, "OK", &text),
                _ => unavailable(),
            },
            Ok(Way::Remote(stream)) => forward(stream, &request).await.unwrap_or_else(|_| unavailable()),
            Err(NoWay::Route) => answer(502, "Bad Gateway", ""),
            Err(NoWay::Service) => unavailable(),
        }
    }

    /// First the name: this is the question that an agent is asked at both hosts.
    async fn way_to(&self, host: &str) -> Result<Way, NoWay> {
        let endpoint = self.plugins.current().get_rule(host).await.ok_or(NoWay::Route)?;
        // A private tunnel is not for visitors, and what is no id of 8-4-4-4-12 digits is no tunnel.
        let tunnel =
            Uuid::parse_str(&endpoint).ok().filter(|_| endpoint.len() == ID_LEN).ok_or(NoWay::Route)?;
        self.dial(&tunnel.hyphenated().to_string()).await.ok_or(NoWay::Service)
    }

    /// A connector of this gost, else the first entry of the agent's answer that is another node and of this network:
    /// one dial.
    async fn dial(&self, tunnel: &str) -> Option<Way> {
        const WANTED: &str = "tcp";
        if let Some(local) = self.tunnels.get(tunnel)
            && let Some(connector) = local.connector(WANTED).await
        {
            return Some(Way::Local(connector));
        }
        let records = self.plugins.current().get(tunnel).await;
        let first = records.iter().find(|record| record.node != self.node && record.network == WANTED)?;
        if first.address.is_empty() {
            return None;
        }
        let stream = timeout(DIAL, TcpStream::connect(&first.address)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Way::Remote(stream))
    }

    /// Another gost's visitor by the relay protocol. It names the tunnel, so nobody asks for a rule here.
    async fn visit_by_relay(&self, stream: TcpStream) {
        let (mut reader, mut writer) = halves(stream);
        let Ok(Some(line)) = read_line(&mut reader).await else { return };
        let Some(Hello::Relay(relay)) = Hello::parse(&line) else { return };
        let line = match self.relay(&relay).await {
            Some(text) => format!("OK {text}\n"),
            None => "REFUSED\n".into(),
        };
        let _ = writer.write_all(line.as_bytes()).await;
    }

    /// What the tunnel's target answers a visitor who names the tunnel.
    pub(crate) async fn relay(&self, relay: &Relay) -> Option<String> {
        match self.dial(&relay.tunnel).await? {
            Way::Local(connector) => connector.forward().await,
            Way::Remote(stream) => {
                let (mut reader, mut writer) = halves(stream);
                writer.write_all(relay.line().as_bytes()).await.ok()?;
                let line = timeout(HEAD, read_line(&mut reader)).await.ok()?.ok()??;
                line.strip_prefix("OK ").map(str::to_owned)
            }
        }
    }
}

/// Sends a visitor's request on; the answer as it came.
async fn forward(mut stream: TcpStream, request: &Message) -> anyhow::Result<Vec<u8>> {
    stream.write_all(&request.bytes()).await?;
    let answered = timeout(HEAD, Message::read(&mut stream, &mut Vec::new(), Unsized::ToTheEnd)).await??;
    Ok(answered.map_or_else(unavailable, |answered| answered.bytes()))
}

/// The host that a request is for, with its port: HTTP's if it says none.
fn host_of(head: &Head) -> String {
    let host = head.get("Host").unwrap_or_default();
    if host.contains(':') { host.into() } else { format!("{host}:80") }
}

fn unavailable() -> Vec<u8> {
    answer(503, "Service Unavailable", "")
}
