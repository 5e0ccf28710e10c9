//! One GET, for health checks of containers that have no shell.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http_wire::{HttpMessage, Unsized};
use crate::stdout::say;

/// A health endpoint answers from memory, so longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the body. Any status but 200 is an error.
pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    timeout(PATIENCE, get(url)).await.context("no answer in 5 s")?
}

async fn get(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("http://").context("not an http:// URL")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if authority.contains(':') { authority.into() } else { format!("{authority}:80") };
    let mut stream = TcpStream::connect(&address).await.context(address)?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("writing")?;
    let answer = HttpMessage::read(&mut stream, &mut Vec::new(), Unsized::ToTheEnd).await?;
    let answer = answer.context("EOF instead of an answer")?;
    say(String::from_utf8_lossy(&answer.body).trim_end());
    let status = answer.head.status()?;
    ensure!(status == 200, "{status}");
    Ok(())
}
