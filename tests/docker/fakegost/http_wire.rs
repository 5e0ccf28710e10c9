//! One HTTP/1.1 exchange as Go's client does it: a request written in one piece, an answer whose length its head
//! says. Knows nothing of plugins.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest head, and longest body: an answer is bounded before it is held.
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 4 << 20;

/// An answer, and whether Go would use the connection again.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) closing: bool,
}

/// A call on a connection; the answer's body included. What is written is lost if the connection breaks.
pub(crate) async fn call(stream: &mut TcpStream, request: &str) -> anyhow::Result<Answer> {
    stream.write_all(request.as_bytes()).await.context("writing")?;
    let mut unread = Vec::new();
    let head_end = loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(unread.len() < MAX_HEAD, "an endless head");
        if stream.read_buf(&mut unread).await.context("reading")? == 0 {
            bail!("EOF after {} bytes", unread.len());
        }
    };
    let mut body = unread.split_off(head_end);
    let head = Head::parse(&unread)?;
    read_body(stream, &head, &mut body).await?;
    Ok(Answer { status: head.status, body, closing: head.closing })
}

async fn read_body(stream: &mut TcpStream, head: &Head, body: &mut Vec<u8>) -> anyhow::Result<()> {
    let len = head.len.unwrap_or(MAX_BODY);
    ensure!(len <= MAX_BODY, "a body of {len} bytes");
    while body.len() < len {
        if stream.read_buf(body).await.context("reading the body")? == 0 {
            ensure!(head.len.is_none(), "EOF inside the body");
            return Ok(());
        }
    }
    ensure!(body.len() == len, "bytes beyond the answer");
    Ok(())
}

struct Head {
    status: u16,
    /// Without it the body ends where the connection ends.
    len: Option<usize>,
    closing: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(bytes).context("a head that is no text")?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status: {status_line:?}"))?;
        let (mut len, mut close) = (None, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match &*name.to_ascii_lowercase() {
                "content-length" => len = Some(value.trim().parse().context("a length")?),
                "connection" => close |= value.trim().eq_ignore_ascii_case("close"),
                "transfer-encoding" => bail!("an answer in chunks"),
                _ => {}
            }
        }
        Ok(Self { status, len, closing: close || len.is_none() })
    }
}
