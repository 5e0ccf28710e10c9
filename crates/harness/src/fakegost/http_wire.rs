//! HTTP/1.1 messages as they are on the wire: heads with every field in order, bodies whose length the head gives.
//! Bounded before anything is allocated. Knows nothing of plugins, visitors and gosts.

use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 4 << 20;

/// A start line and its fields, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: String,
    fields: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpMessage {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended with the connection.
    ended: bool,
}

/// What a message without a length means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsized {
    /// In a request: no body.
    Empty,
    /// In an answer: the body lasts until the connection ends.
    ToTheEnd,
}

impl HttpMessage {
    /// The next message; `None` if the connection ends before its first byte. `unread` carries bytes from one message
    /// to the next.
    pub(crate) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        unread: &mut Vec<u8>,
        without_length: Unsized,
    ) -> anyhow::Result<Option<Self>> {
        let head_end = loop {
            if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(unread.len() < MAX_HEAD, "an endless head");
            if stream.read_buf(unread).await.context("reading")? == 0 {
                ensure!(unread.is_empty(), "EOF after {} bytes", unread.len());
                return Ok(None);
            }
        };
        let rest = unread.split_off(head_end);
        let head = Head::parse(&std::mem::replace(unread, rest))?;
        let (body, ended) = read_body(stream, unread, head.length(without_length)?).await?;
        Ok(Some(Self { head, body, ended }))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head.to_string().as_bytes(), &self.body].concat()
    }

    /// Whether the connection cannot be used after this message.
    pub(crate) fn is_last(&self) -> bool {
        self.ended || self.head.get("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads a body of this length, or everything; and whether the connection has ended.
async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    length: Option<usize>,
) -> anyhow::Result<(Vec<u8>, bool)> {
    let wanted = length.unwrap_or(MAX_BODY);
    ensure!(wanted <= MAX_BODY, "a body of {wanted} bytes");
    while unread.len() < wanted {
        if stream.read_buf(unread).await.context("reading the body")? == 0 {
            ensure!(length.is_none(), "EOF inside the body");
            return Ok((std::mem::take(unread), true));
        }
    }
    let rest = unread.split_off(wanted);
    Ok((std::mem::replace(unread, rest), false))
}

impl Head {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(bytes).context("a head that is no text")?;
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        let fields = lines.map(|line| field(line).with_context(|| format!("no field: {line:?}")));
        Ok(Self { start, fields: fields.collect::<Result<_, _>>()? })
    }

    /// The first field with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Replaces all fields with this name.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.fields.push((name.into(), value.into()));
    }

    pub(crate) fn status(&self) -> anyhow::Result<u16> {
        let status = self.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.with_context(|| format!("no status: {:?}", self.start))
    }

    /// The length of the body; `None` if the connection's end is its end.
    fn length(&self, without: Unsized) -> anyhow::Result<Option<usize>> {
        if self.get("Transfer-Encoding").is_some() {
            bail!("a body in chunks");
        }
        match (self.get("Content-Length"), without) {
            (Some(length), _) => length.parse().map(Some).context("a length"),
            (None, Unsized::Empty) => Ok(Some(0)),
            (None, Unsized::ToTheEnd) => Ok(None),
        }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\r\n", self.start)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, "{name}: {value}\r\n"))?;
        f.write_str("\r\n")
    }
}

/// An answer with its length, as gost and web servers write it.
pub(crate) fn answer(status: u16, reason: &str, body: &str) -> Vec<u8> {
    let mut text = String::new();
    write!(text, "HTTP/1.1 {status} {reason}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .expect("a text takes everything");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_read_one_after_the_other() {
        let mut stream: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 503 x\r\n\r\nrest";
        let mut unread = Vec::new();
        let first = HttpMessage::read(&mut stream, &mut unread, Unsized::Empty).await.unwrap().unwrap();
        assert_eq!((first.head.get("host"), &*first.body), (Some("a"), &b""[..]));
        let second = HttpMessage::read(&mut stream, &mut unread, Unsized::ToTheEnd).await.unwrap().unwrap();
        assert_eq!((second.head.status().unwrap(), &*second.body), (200, &b"hi"[..]));
        assert!(!second.is_last());
        let third = HttpMessage::read(&mut stream, &mut unread, Unsized::ToTheEnd).await.unwrap().unwrap();
        assert_eq!((third.head.status().unwrap(), &*third.body), (503, &b"rest"[..]));
        assert!(third.is_last());
        assert!(HttpMessage::read(&mut stream, &mut unread, Unsized::Empty).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_goes_on_as_it_came_but_for_what_was_set() {
        let mut stream: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\nGost-Sid: 1\r\n\r\n";
        let mut message =
            HttpMessage::read(&mut stream, &mut Vec::new(), Unsized::Empty).await.unwrap().unwrap();
        message.head.set("gost-sid", "2");
        assert_eq!(message.bytes(), b"GET /x HTTP/1.1\r\nHost: a\r\ngost-sid: 2\r\n\r\n");
    }

    #[tokio::test]
    async fn what_is_cut_off_endless_or_in_chunks_is_an_error() {
        let endless = vec![b'x'; MAX_HEAD + 4096];
        for bad in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &endless,
        ] {
            let mut stream = bad;
            let read = HttpMessage::read(&mut stream, &mut Vec::new(), Unsized::ToTheEnd).await;
            assert!(read.is_err(), "{read:?}");
        }
    }
}
