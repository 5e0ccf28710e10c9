//! What a gost does for a visitor, or for another gost's visitor: a local connector first, else one lookup, the
//! first entry that is not itself, one dial. No second candidate, no retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gost::{FIRST_LINE, Gost};
use crate::line::{Answer, Ask, read_line};
use crate::tunnel::halves;

/// gost's patience with a dial, and with the answer to what it forwarded.
const PATIENCE: Duration = Duration::from_secs(15);

impl Gost {
    /// One request. Given up when who asked goes away: two gosts whose stale records point at each other would
    /// send it to and fro for ever.
    pub(crate) async fn visit(self: Arc<Self>, stream: TcpStream) {
        let (mut reader, mut writer) = halves(stream);
        let Ok(Ok(Some(line))) = timeout(FIRST_LINE, read_line(&mut reader)).await else { return };
        let Some(ask) = Ask::parse(&line) else { return };
        let answer = tokio::select! {
            answer = timeout(PATIENCE, self.answer(ask)) => answer.unwrap_or(Answer::NotReached),
            _ = reader.read_u8() => return,
        };
        let _ = writer.write_all(answer.line().as_bytes()).await;
        let _ = writer.shutdown().await;
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Get { host } => {
                let endpoint = self.plugin.get_rule(&host).await;
                // A private tunnel is not for visitors.
                if endpoint.is_empty() || endpoint.starts_with('$') {
                    return Answer::NoRule;
                }
                self.reach(&endpoint).await
            }
            Ask::Via { tunnel } => self.reach(&tunnel).await,
        }
    }

    async fn reach(&self, tunnel: &str) -> Answer {
        if let Some(local) = self.tunnels.get(tunnel)
            && let Some(connector) = local.connector().await
        {
            return connector.forward().await.map_or(Answer::NotReached, Answer::Served);
        }
        let records = self.plugin.get(tunnel).await;
        let first = records.iter().find(|record| record.node != self.node && record.network == "tcp");
        match first {
            Some(record) if !record.address.is_empty() => relay(&record.address, tunnel).await,
            _ => Answer::NotReached,
        }
    }
}

/// Asks the gost at an address.
async fn relay(address: &str, tunnel: &str) -> Answer {
    let asked = async {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (mut reader, mut writer) = halves(stream);
        writer.write_all(format!("VIA {tunnel}\n").as_bytes()).await.ok()?;
        Answer::parse(&read_line(&mut reader).await.ok()??)
    };
    asked.await.unwrap_or(Answer::NotReached)
}
