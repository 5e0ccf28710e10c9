//! A gRPC channel that breaks and comes back as grpc-go's does, which is not as tonic's does: after a failed dial
//! every call fails at once, and a dial in the background follows, each later than the last, up to two minutes.
//! Knows nothing of the calls.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::bail;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{sleep, timeout};
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

/// grpc-go's backoff: a second, then 1.6 times the last, with a fifth of jitter either way.
const FIRST_BACKOFF: f64 = 1.0;
const BACKOFF_FACTOR: f64 = 1.6;
const MAX_BACKOFF: f64 = 120.0;
/// grpc-go's least patience with one dial.
const DIAL: Duration = Duration::from_secs(20);

/// One `grpc.ClientConn`.
#[derive(Clone)]
pub(crate) struct Reconnecting {
    agent: Arc<str>,
    endpoint: Endpoint,
    state: Arc<Mutex<State>>,
}

enum State {
    /// Not connected, and nobody asked: the next call dials.
    Idle,
    Ready(Channel),
    /// The last dial failed: calls fail until one in the background succeeds.
    Failing(String),
}

impl Reconnecting {
    pub(crate) fn new(agent: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{agent}"))?;
        Ok(Self { agent: agent.into(), endpoint, state: Arc::new(Mutex::new(State::Idle)) })
    }

    /// The channel for a call. Calls during the first dial wait for it.
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Ready(channel) => return Ok(channel.clone()),
            State::Failing(why) => bail!("the channel is broken: {why}"),
            State::Idle => {}
        }
        match self.dial().await {
            Ok(channel) => {
                *state = State::Ready(channel.clone());
                Ok(channel)
            }
            Err(error) => {
                *state = State::Failing(format!("{error:#}"));
                tokio::spawn(self.clone().dial_again());
                Err(error)
            }
        }
    }

    async fn dial_again(self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            sleep(Duration::from_secs_f64(backoff * rand::random_range(0.8..1.2))).await;
            backoff = (backoff * BACKOFF_FACTOR).min(MAX_BACKOFF);
            if let Ok(channel) = self.dial().await {
                *self.state.lock().await = State::Ready(channel);
                return;
            }
        }
    }

    async fn dial(&self) -> anyhow::Result<Channel> {
        let stream = timeout(DIAL, TcpStream::connect(&*self.agent)).await??;
        stream.set_nodelay(true)?;
        let (ends_with_it, ended) = oneshot::channel::<()>();
        let stream = Watched { stream, _ends_with_it: ends_with_it };
        let channel = self.endpoint.connect_with_connector(Once(Some(stream))).await?;
        let state = self.state.clone();
        tokio::spawn(async move {
            // Never sent to: it completes when the stream is dropped.
            drop(ended.await);
            *state.lock().await = State::Idle;
        });
        Ok(channel)
    }
}

/// Gives tonic one connection; tonic's own attempts to dial again fail at once.
struct Once(Option<Watched>);

impl Service<Uri> for Once {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// A connection whose end is told by what it holds.
struct Watched {
    stream: TcpStream,
    _ends_with_it: oneshot::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
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
