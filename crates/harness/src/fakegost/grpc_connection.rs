//! One HTTP/2 connection as grpc-go uses it. It counts as connected when the server's preface arrives, not when the
//! kernel has accepted it. A call that was not sent when the connection ends may be sent elsewhere. Knows nothing of
//! addresses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, ensure};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};

/// The user agent of a gost with the newest grpc-go.
const USER_AGENT: header::HeaderValue = header::HeaderValue::from_static("grpc-go/1.82.1");
/// The length of a frame's header, and the position of the kind in it. The server's preface is a frame of this kind.
const FRAME_HEADER: usize = 9;
const KIND: usize = 3;
const SETTINGS: u8 = 4;

pub(crate) type GrpcResponse = Response<Incoming>;

/// Why a call has no answer.
pub(crate) enum Unsent {
    /// The connection was ending and did not send it.
    NotTaken(Box<Request<Body>>),
    /// It is unknown whether the server processed it.
    Failed(tonic::Status),
}

/// A connection whose server has sent its preface. Clones share it.
#[derive(Clone)]
pub(crate) struct GrpcConnection {
    requests: SendRequest<Body>,
    ended: watch::Receiver<bool>,
    identity: Arc<()>,
}

impl GrpcConnection {
    /// Connects, and waits for the server's preface.
    pub(crate) async fn dial(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (on_preface, preface) = oneshot::channel();
        let stream = Watched { stream: TokioIo::new(stream), seen: Vec::new(), on_preface: Some(on_preface) };
        let (requests, driver) = handshake(TokioExecutor::new(), stream).await?;
        let (end, ended) = watch::channel(false);
        tokio::spawn(async move {
            // Each call gets the connection's error itself.
            let _ = driver.await;
            end.send_replace(true);
        });
        let kind = preface.await.context("closed before the server's preface")?;
        ensure!(kind == SETTINGS, "the server began with a frame of kind {kind}");
        Ok(Self { requests, ended, identity: Arc::new(()) })
    }

    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<GrpcResponse, Unsent> {
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        self.requests.clone().try_send_request(request).await.map_err(|mut error| {
            match error.take_message() {
                Some(request) => Unsent::NotTaken(Box::new(request)),
                None => Unsent::Failed(tonic::Status::unavailable(error.into_error().to_string())),
            }
        })
    }

    /// Waits until the connection has ended, or is about to end.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // The sender ends with the connection.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }
}

/// A stream that reports the kind of the first frame.
struct Watched {
    stream: TokioIo<TcpStream>,
    /// The first bytes, until there are enough.
    seen: Vec<u8>,
    on_preface: Option<oneshot::Sender<u8>>,
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.on_preface.is_none() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        // Read through a buffer of our own, because the caller's cannot be read back.
        let mut bytes = [0; 1024];
        let room = bytes.len().min(buf.remaining());
        let mut own = hyper::rt::ReadBuf::new(&mut bytes[..room]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, own.unfilled()))?;
        let got = own.filled();
        buf.put_slice(got);
        self.seen.extend_from_slice(got);
        if self.seen.len() >= FRAME_HEADER
            && let Some(tell) = self.on_preface.take()
        {
            // The dialling task may have given up.
            let _ = tell.send(self.seen[KIND]);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
