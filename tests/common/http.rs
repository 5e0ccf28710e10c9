//! One HTTP/1.1 connection, byte by byte: exactly what a client sends, and the whole answer unchanged. Knows nothing of
//! service discovery.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Longer than an answer from memory takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kept-alive connection.
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// A request in HTTP/1.1, its body as long as its head says.
pub(crate) fn request(method: &str, target: &str, body: &str) -> String {
    let len = body.len();
    format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: {len}\r\n\r\n{body}")
}

/// A request on a connection of its own.
pub(crate) async fn call(addr: SocketAddr, request: &str) -> Answer {
    Connection::open(addr).await.call(request).await
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the agent listens");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, unread: Vec::new() }
    }
}

impl Connection<UnixStream> {
    pub(crate) async fn open_socket(path: &Path) -> Self {
        let stream = UnixStream::connect(path).await.expect("the agent listens");
        Self { stream, unread: Vec::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends a request and returns its answer, which must be all that arrives.
    pub(crate) async fn call(&mut self, request: &str) -> Answer {
        self.send(request).await;
        let answer =
            if request.starts_with("HEAD ") { self.receive_head().await } else { self.receive().await };
        assert!(self.unread.is_empty(), "bytes beyond the answer: {:?}", lossy(&self.unread));
        answer
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.expect("the agent reads");
    }

    /// The next answer, its body as long as its head says.
    pub(crate) async fn receive(&mut self) -> Answer {
        let mut answer = self.receive_head().await;
        let len = answer.header("content-length").and_then(|len| len.parse().ok());
        answer.body = self.take(len.expect("an answer says how long it is")).await;
        answer
    }

    async fn receive_head(&mut self) -> Answer {
        let end = loop {
            match self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read_more().await,
            }
        };
        let head = self.take(end).await;
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default().into();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.into())).collect();
        Answer { status_line, headers, body: String::new() }
    }

    async fn take(&mut self, len: usize) -> String {
        while self.unread.len() < len {
            self.read_more().await;
        }
        let rest = self.unread.split_off(len);
        let taken = std::mem::replace(&mut self.unread, rest);
        String::from_utf8(taken).expect("answers are UTF-8")
    }

    async fn read_more(&mut self) {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await.expect("an answer");
        let read = read.expect("the agent does not reset connections");
        assert!(read > 0, "closed by the agent after {:?}", lossy(&self.unread));
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        let code = self.status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).expect("an HTTP/1.1 status line")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
