//! What a gost does for a visitor. A visitor that another gost forwards is treated the same. gost asks which tunnel the
//! host name leads to. It takes a connector of its own, or else asks once where the tunnel is, and forwards the
//! visitor's request to the first entry that is not itself. The other gost asks its own agent again. There is no second
//! candidate and no retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::connector::{ClientConnection, halves};
use crate::gost::GostInstance;
use crate::http_wire::{Head, HttpMessage, Unsized, answer};
use crate::line::{Hello, RelayRequest, read_line};

/// gost's timeout of a dial.
const DIAL: Duration = Duration::from_secs(15);
/// gost's timeout of the head of an answer (`entrypoint.readTimeout`).
const HEAD: Duration = Duration::from_secs(15);
/// The length of a tunnel id as text.
const ID_LEN: usize = 36;
/// The first byte of the relay protocol, real and simulated.
const RELAY: u8 = b'R';
/// The headers that gost adds to a visitor's request.
const SESSION: &str = "Gost-Sid";
const FORWARDED_BY: &str = "Gost-Forwarded-Node";

/// The way to a tunnel from here.
enum TunnelWay {
    Local(Arc<ClientConnection>),
    Remote(TcpStream),
}

enum NoWay {
    /// There is no rule, or none for visitors.
    Route,
    /// There is no record, or its address does not answer.
    Service,
}

impl GostInstance {
    /// Serves a connection at an entrypoint. Like gost, waits for its first byte for ever.
    pub(crate) async fn visit(self: Arc<Self>, stream: TcpStream) {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first == [RELAY] => self.visit_by_relay(stream).await,
            Ok(1) => {
                // Anything but a request ends the connection without an answer.
                let _ = self.visit_by_http(stream).await;
            }
            _ => {}
        }
    }

    /// Serves requests one after the other. A request that was forwarded continues even if its visitor is gone: between
    /// two gosts that point at each other, no hop gives up for the one before it.
    async fn visit_by_http(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut unread = Vec::new();
        while let Some(request) = HttpMessage::read(&mut stream, &mut unread, Unsized::Empty).await? {
            let answered = self.round_trip(request).await;
            stream.write_all(&answered).await?;
        }
        Ok(())
    }

    async fn round_trip(&self, mut request: HttpMessage) -> Vec<u8> {
        let head = &mut request.head;
        if head.get(SESSION).is_none() {
            head.set(SESSION, &Uuid::new_v4().simple().to_string());
        }
        // Catches a request that comes straight back. A request that comes back through another gost is not caught,
        // because that gost overwrites the header.
        if head.get(FORWARDED_BY).is_some_and(|nodes| nodes.split(',').any(|node| node.trim() == self.node)) {
            return unavailable();
        }
        head.set(FORWARDED_BY, &self.node);
        head.set("Connection", "close");
        match self.way_to(&host_of(head)).await {
            Ok(TunnelWay::Local(connector)) => match timeout(HEAD, connector.forward()).await {
                Ok(Some(text)) => answer(200, "OK", &text),
                _ => unavailable(),
            },
            Ok(TunnelWay::Remote(stream)) => {
                forward(stream, &request).await.unwrap_or_else(|_| unavailable())
            }
            Err(NoWay::Route) => answer(502, "Bad Gateway", ""),
            Err(NoWay::Service) => unavailable(),
        }
    }

    /// First resolves the host name: both hosts' agents get this question.
    async fn way_to(&self, host: &str) -> Result<TunnelWay, NoWay> {
        let endpoint = self.plugins.current().get_rule(host).await.ok_or(NoWay::Route)?;
        // A private tunnel is not for visitors, and anything but an id of 8-4-4-4-12 digits is no tunnel.
        let tunnel =
            Uuid::parse_str(&endpoint).ok().filter(|_| endpoint.len() == ID_LEN).ok_or(NoWay::Route)?;
        self.dial(&tunnel.hyphenated().to_string()).await.ok_or(NoWay::Service)
    }

    /// A connector of this gost; or else the first entry of the agent's answer with another node and this network,
    /// dialled once.
    async fn dial(&self, tunnel: &str) -> Option<TunnelWay> {
        const WANTED: &str = "tcp";
        if let Some(local) = self.tunnels.get(tunnel)
            && let Some(connector) = local.connector(WANTED).await
        {
            return Some(TunnelWay::Local(connector));
        }
        let records = self.plugins.current().get(tunnel).await;
        let first = records.iter().find(|record| record.node != self.node && record.network == WANTED)?;
        if first.address.is_empty() {
            return None;
        }
        let stream = timeout(DIAL, TcpStream::connect(&first.address)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(TunnelWay::Remote(stream))
    }

    /// Another gost's visitor, by the relay protocol. The tunnel is named, so no rule is needed.
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

    /// The answer of the tunnel's target to a visitor who names the tunnel.
    pub(crate) async fn relay(&self, relay: &RelayRequest) -> Option<String> {
        match self.dial(&relay.tunnel).await? {
            TunnelWay::Local(connector) => connector.forward().await,
            TunnelWay::Remote(stream) => {
                let (mut reader, mut writer) = halves(stream);
                writer.write_all(relay.line().as_bytes()).await.ok()?;
                let line = timeout(HEAD, read_line(&mut reader)).await.ok()?.ok()??;
                line.strip_prefix("OK ").map(str::to_owned)
            }
        }
    }
}

/// Forwards a visitor's request. Returns the answer unchanged.
async fn forward(mut stream: TcpStream, request: &HttpMessage) -> anyhow::Result<Vec<u8>> {
    stream.write_all(&request.bytes()).await?;
    let answered =
        timeout(HEAD, HttpMessage::read(&mut stream, &mut Vec::new(), Unsized::ToTheEnd)).await??;
    Ok(answered.map_or_else(unavailable, |answered| answered.bytes()))
}

/// The host that a request is for, with its port; without one, HTTP's default.
fn host_of(head: &Head) -> String {
    let host = head.get("Host").unwrap_or_default();
    if host.contains(':') { host.into() } else { format!("{host}:80") }
}

fn unavailable() -> Vec<u8> {
    answer(503, "Service Unavailable", "")
}
