//! The second address: whether gost would find its own agent first and a peer's second under the name that `gossd
//! gost-config --second` prints, and whether the peer's plugin takes gost's calls.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::Finding;
use crate::cli::second::{NAME, lines};
use crate::config::Config;
use crate::plugin::{http, token};

const CHECK: &str = "second address";
/// How long the resolver, and the peer, may take each.
const PATIENCE: Duration = Duration::from_secs(2);
/// The part of an answer that shows whether the call was accepted.
const HEAD: u64 = 512;

pub(super) async fn examine(config: &Config, second: IpAddr) -> Vec<Finding> {
    let Some(own) = crate::cli::second::own(&config.plugin) else {
        return vec![Finding::fail(CHECK, "--plugin has port 0: gost has to know the real one")];
    };
    let peer = SocketAddr::new(second, own.port());
    vec![name(own, peer).await, taken(config, peer).await]
}

/// Whether the name leads to both, in that order.
async fn name(own: SocketAddr, peer: SocketAddr) -> Finding {
    let found = timeout(PATIENCE, lookup_host((NAME, own.port()))).await;
    let found: Vec<SocketAddr> = found.ok().and_then(Result::ok).into_iter().flatten().collect();
    let mut seen = Vec::new();
    for address in found {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    if seen == [own, peer] {
        return Finding::ok(CHECK, format!("{NAME} is {}, then {}", own.ip(), peer.ip()));
    }
    let found = match &seen[..] {
        [] => "nothing".into(),
        seen => seen.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", then "),
    };
    let lines = lines(own.ip(), peer.ip()).join(" and ");
    Finding::fail(CHECK, format!("{NAME} is {found}: /etc/hosts has to have, in this order, {lines}"))
}

/// Whether the peer's agent answers a call like gost's.
async fn taken(config: &Config, peer: SocketAddr) -> Finding {
    let remedy = format!("its agent needs --plugin {peer} besides its own, and the same --token-file");
    let stream = match timeout(PATIENCE, TcpStream::connect(peer)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Finding::fail(CHECK, format!("{peer} cannot be dialled ({error}): {remedy}"));
        }
        Err(_) => {
            let text = format!("{peer} does not answer: a firewall, or no host; {remedy}");
            return Finding::fail(CHECK, text);
        }
    };
    if config.tls.is_some() {
        return Finding::ok(CHECK, format!("{peer} takes connections; whether its TLS fits, gost will tell"));
    }
    let token = match config.token_file.as_deref().map(token::first).transpose() {
        Ok(token) => token,
        Err(error) => return Finding::fail(CHECK, error),
    };
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", *token)).unwrap_or_default();
    let path = http::PATH;
    let ask =
        format!("GET {path}?name=gossd-check HTTP/1.1\r\nHost: {peer}\r\n{token}Connection: close\r\n\r\n");
    match timeout(PATIENCE, exchange(stream, &ask)).await {
        Ok(Ok(head)) if head.starts_with("HTTP/1.1 200 ") => {
            Finding::ok(CHECK, format!("the agent at {peer} takes gost's calls"))
        }
        Ok(Ok(head)) if head.starts_with("HTTP/1.1 401 ") => {
            Finding::fail(CHECK, format!("the agent at {peer} wants another token: {remedy}"))
        }
        Ok(Ok(head)) => {
            let line = head.lines().next().unwrap_or("nothing").to_owned();
            Finding::fail(
                CHECK,
                format!("what listens at {peer} is no gossd's plugin, or speaks TLS ({line})"),
            )
        }
        Ok(Err(error)) => Finding::fail(CHECK, format!("{peer} does not answer ({error}): {remedy}")),
        Err(_) => Finding::fail(CHECK, format!("{peer} takes connections and does not answer")),
    }
}

async fn exchange(mut stream: TcpStream, ask: &str) -> std::io::Result<String> {
    stream.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    stream.take(HEAD).read_to_end(&mut head).await?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}
