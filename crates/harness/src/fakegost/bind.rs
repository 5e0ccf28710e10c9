//! What gost does when a client binds, in the order of gost's own handler, and when a client visits by gost's relay
//! protocol.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use uuid::Uuid;

use crate::connector::{ClientConnection, halves};
use crate::gost::GostInstance;
use crate::line::{Bind, Hello, RelayRequest, read_line};
use crate::tunnel::GostTunnel;

/// A client that sends nothing for this long is disconnected.
const FIRST_LINE: Duration = Duration::from_secs(15);

impl GostInstance {
    /// A connection at the tunnel's port.
    pub(crate) async fn serve_client(self: Arc<Self>, stream: TcpStream) {
        let (mut reader, writer) = halves(stream);
        let Ok(Ok(Some(line))) = timeout(FIRST_LINE, read_line(&mut reader)).await else { return };
        match Hello::parse(&line) {
            Some(Hello::Bind(bind)) => self.bind(bind, reader, writer).await,
            Some(Hello::Relay(relay)) => self.relay_member(&relay, writer).await,
            None => {}
        }
    }

    /// The whole life of a client's connection. The client learns its name before the agent gets the Register. The end
    /// of the connection is handled on its own, so a Deregister may overtake its Register.
    async fn bind(self: Arc<Self>, bind: Bind, reader: BufReader<OwnedReadHalf>, mut writer: OwnedWriteHalf) {
        let given = self.name_for(&bind.tunnel, &bind.wanted).await;
        let (connector, lines) = ClientConnection::new(Uuid::new_v4().to_string(), bind.network);
        let bound = format!("BOUND {} {given}\n", connector.id);
        if writer.write_all(bound.as_bytes()).await.is_err() {
            return;
        }
        let _goodbye = self.goodbyes.subscribe();
        let tunnel = self.tunnels.add(&bind.tunnel, &connector).await;
        tokio::spawn(self.clone().announce(tunnel.clone(), connector.clone(), bind.tunnel, given));
        connector.serve(reader, writer, lines).await;
        self.plugins.current().deregister(&tunnel.record(&connector, "", "")).await;
    }

    /// The wanted name, unless its rule differs in any way from this tunnel's: then the hash host. A rule that makes
    /// the tunnel private differs.
    async fn name_for(&self, tunnel: &str, wanted: &str) -> String {
        let hash = hash_host(tunnel);
        if wanted.is_empty() || wanted == hash {
            return hash;
        }
        let endpoint = self.plugins.current().get_rule(wanted).await;
        if endpoint.is_none_or(|endpoint| endpoint == tunnel) { wanted.into() } else { hash }
    }

    /// Registers at the agent, once. A failure is not tried again.
    async fn announce(
        self: Arc<Self>,
        tunnel: Arc<GostTunnel>,
        connector: Arc<ClientConnection>,
        name: String,
        given: String,
    ) {
        let (plugin, hash) = (self.plugins.current(), hash_host(&name));
        plugin.set_rule(&hash, &name).await;
        if given != hash {
            plugin.set_rule(&given, &name).await;
        }
        plugin.register(&tunnel.record(&connector, &connector.network, &self.address)).await;
    }

    /// A visiting client names its tunnel, and the rule of the host name has to lead to the same one, private or not.
    async fn relay_member(&self, relay: &RelayRequest, mut writer: OwnedWriteHalf) {
        let rule = self.plugins.current().get_rule(&relay.host).await;
        let leads_there = rule.is_some_and(|rule| rule.trim_start_matches('$') == relay.tunnel);
        let answer = if leads_there { self.relay(relay).await } else { None };
        let line = answer.map_or_else(|| "REFUSED\n".into(), |text| format!("OK {text}\n"));
        let _ = writer.write_all(line.as_bytes()).await;
    }
}

/// The hash host of a tunnel: the first 16 digits of the MD5 of its id.
fn hash_host(tunnel: &str) -> String {
    use md5::{Digest as _, Md5};
    let start = Md5::digest(tunnel).iter().take(8).fold(0_u64, |start, byte| start << 8 | u64::from(*byte));
    format!("{start:016x}")
}
