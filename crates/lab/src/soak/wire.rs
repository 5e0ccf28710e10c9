//! gost's calls on the wire: HTTP/1.1 on one kept connection, dialled when it is needed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer that takes longer counts as missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most requests without an answer at a time.
const AT_A_TIME: usize = 32;

/// A client of one listener.
pub(crate) struct HttpClient {
    addr: SocketAddr,
    open: Option<HttpConnection>,
}

struct HttpConnection {
    stream: TcpStream,
    unread: Vec<u8>,
}

pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl HttpClient {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, open: None }
    }

    /// Sends one request. After an error the connection is gone.
    pub(crate) async fn call(&mut self, request: &str) -> io::Result<HttpAnswer> {
        let mut answers = self.some(std::slice::from_ref(&request)).await?;
        answers.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Sends many requests. Returns the answers in order.
    pub(crate) async fn calls(&mut self, requests: &[String]) -> io::Result<Vec<HttpAnswer>> {
        let mut answers = Vec::with_capacity(requests.len());
        for requests in requests.chunks(AT_A_TIME) {
            answers.extend(self.some(requests).await?);
        }
        Ok(answers)
    }

    async fn some<T: AsRef<str>>(&mut self, requests: &[T]) -> io::Result<Vec<HttpAnswer>> {
        let talk = async {
            let mut connection = match self.open.take() {
                Some(connection) => connection,
                None => HttpConnection::dial(self.addr).await?,
            };
            let all: String = requests.iter().map(AsRef::as_ref).collect();
            connection.stream.write_all(all.as_bytes()).await?;
            let mut answers = Vec::with_capacity(requests.len());
            for _ in requests {
                answers.push(connection.answer().await?);
            }
            self.open = Some(connection);
            Ok(answers)
        };
        timeout(PATIENCE, talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl HttpConnection {
    async fn dial(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    async fn answer(&mut self) -> io::Result<HttpAnswer> {
        let end = loop {
            match self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await?,
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let len =
            head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let (Some(status), Some(len)) = (status, len) else { return Err(io::ErrorKind::InvalidData.into()) };
        while self.unread.len() < end + len {
            self.more().await?;
        }
        let body = String::from_utf8_lossy(&self.unread[end..end + len]).into_owned();
        self.unread.drain(..end + len);
        Ok(HttpAnswer { status, body })
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

/// A write on the service discovery plugin.
pub(crate) fn write(method: &str, body: &str) -> String {
    format!("{method} /sd HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
