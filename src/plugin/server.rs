//! Accepts plugin connections by TCP, TLS and Unix socket, and reports each one's end. Calls are answered elsewhere.
//! Knows no protocol but HTTP itself.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Caller;
use super::bounds::Bounds;
use super::calls::{Calls, follow};
use super::connections::ConnectionTable;
use super::gate::Gate;
use super::metrics::Meter;
use super::reload::Latest;
use super::stream::Stream;
use crate::web_page::OwnNames;

/// How long calls in flight may take when the agent stops. All answers come from memory, so a call that is not done by
/// then is waiting for its caller. gost waits one second until the next process answers a new connection.
const DRAIN: Duration = Duration::from_millis(400);
/// After how much silence a client's host is probed, and how long its answer may take. The end of the connection shows
/// that a gost has vanished.
const PROBE: Duration = Duration::from_secs(30);
const PROBE_ANSWER: Duration = Duration::from_secs(20);
/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Socket buffer per direction, which the kernel doubles: more than a whole call. Without a bound, the buffer of a
/// client that does not read grows to some megabytes.
const SOCKET_BUFFER: usize = 64 << 10;

/// The error numbers ENFILE and EMFILE, the same on every Unix.
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

/// The listeners of the plugin.
pub(crate) struct Entrances {
    /// TCP listeners.
    pub tcp: Vec<TcpListener>,
    /// The TLS configuration of the TCP listeners, if any.
    pub tls: Option<Latest<ServerConfig>>,
    /// The Unix socket, for this host only, without TLS.
    pub unix: Option<UnixListener>,
    /// The names of this host, if calls by TCP may name no other.
    pub names: Option<OwnNames>,
}

/// Serves calls once the gate is open, until `stop` resolves; then finishes the calls in flight. No error of a
/// connection ends it.
pub(crate) async fn serve(
    entrances: Entrances,
    gate: Gate,
    bounds: Bounds,
    meter: Meter,
    stop: impl Future<Output = ()>,
) {
    let Entrances { tcp, tls, unix, names } = entrances;
    let mut server = Server::new(gate, bounds, meter);
    server.names = names.map(Arc::new);
    let mut sweep = tokio::time::interval(server.connections.rhythm());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept_tcp(&tcp) => {
                accepted.map(|(stream, from)| server.take_tcp(stream, from.ip(), tls.as_ref()))
            }
            accepted = accept_unix(unix.as_ref()) => {
                accepted.map(|stream| server.take(None, None, std::future::ready(Ok(stream))))
            }
            _ = sweep.tick() => {
                server.connections.sweep();
                continue;
            }
            () = &mut stop => break,
        };
        if let Err(error) = accepted {
            let is_out = error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code));
            // The kernel says so even if nobody waits: whoever came last would go for nobody.
            let is_awaited = is_out && is_awaited(&tcp, unix.as_ref());
            let makes_room = is_awaited && server.connections.evict_unproven();
            if is_awaited && !makes_room {
                server.connections.warn_of_files();
            }
            // Descriptors become free only after a moment: when the evicted connection's task has ended, or another one
            // closes.
            tokio::time::sleep(Duration::from_millis(if makes_room { 1 } else { 50 })).await;
        }
        while server.tasks.try_join_next().is_some() {}
    }
    drop((tcp, unix));
    server.connections.wind_down();
    let all = async { while server.tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, all).await;
}

async fn accept_tcp(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    // Starts at a random listener each time: a flood at one listener must not starve the others.
    let first = rand::random_range(0..listeners.len().max(1));
    poll_fn(|context| {
        let (before, after) = listeners.split_at(first);
        let mut accepted = after.iter().chain(before).map(|listener| listener.poll_accept(context));
        accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Whether a connection is to be accepted now.
fn is_awaited(tcp: &[TcpListener], unix: Option<&UnixListener>) -> bool {
    let tcp = tcp.iter().map(|listener| PollFd::new(listener, PollFlags::IN));
    let unix = unix.map(|listener| PollFd::new(listener, PollFlags::IN));
    let mut all: Vec<PollFd<'_>> = tcp.chain(unix).collect();
    poll(&mut all, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

async fn accept_unix(listener: Option<&UnixListener>) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

struct Server {
    gate: Gate,
    http: auto::Builder<TokioExecutor>,
    connections: Arc<ConnectionTable>,
    meter: Meter,
    bounds: Bounds,
    names: Option<Arc<OwnNames>>,
    tasks: JoinSet<()>,
}

impl Server {
    fn new(gate: Gate, bounds: Bounds, meter: Meter) -> Self {
        Self {
            http: protocol(),
            connections: ConnectionTable::new(bounds, meter.closed.clone(), gate.clone()),
            gate,
            meter,
            bounds,
            names: None,
            tasks: JoinSet::new(),
        }
    }

    fn take_tcp(&mut self, stream: TcpStream, from: IpAddr, tls: Option<&Latest<ServerConfig>>) {
        prepare(&stream);
        let names = self.names.clone();
        match tls {
            Some(tls) => self.take(Some(from), names, TlsAcceptor::from(tls.get()).accept(stream)),
            None => self.take(Some(from), names, std::future::ready(Ok(stream))),
        }
    }

    /// Opens and serves a connection in a task of its own, because a TLS handshake waits for the client.
    fn take<S>(
        &mut self,
        from: Option<IpAddr>,
        names: Option<Arc<OwnNames>>,
        opening: impl Future<Output = io::Result<S>> + Send + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = self.connections.number();
        let caller = from.map_or(Caller { remote: None, connection }, |ip| Caller::at(ip, connection));
        let open = self.connections.open(caller);
        let progress = open.progress.clone();
        let calls = Arc::new(Calls {
            gate: self.gate.clone(),
            caller,
            progress: progress.clone(),
            meter: self.meter.clone(),
            bounds: self.bounds,
            names,
            known: OnceLock::new(),
        });
        let service = service_fn(move |request: Request<Incoming>| {
            // In a box: HTTP/2 moves what serves a call several times before it begins.
            let answered = Box::pin(follow(calls.clone(), request));
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let http = self.http.clone();
        let served = async move {
            let Ok(stream) = opening.await else { return };
            open.progress.opened();
            let io = TokioIo::new(Stream::new(stream, open.progress.clone()));
            let mut connection = pin!(http.serve_connection(io, service).into_owned());
            // Errors here are the client's: a reset, a broken request. hyper has already answered what can be answered.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = open.progress.winding_down() => {}
            }
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        };
        progress.is_served_by(self.tasks.spawn(served));
    }
}

/// HTTP/1 or HTTP/2, by the first bytes. HTTP/1 gets no timer, because hyper would close idle connections with it.
/// HTTP/2 pings close only connections whose other end is gone.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().max_buf_size(64 << 10);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PROBE)
        .keep_alive_timeout(PROBE_ANSWER)
        .max_concurrent_streams(256)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10)
        .max_header_list_size(16 << 10)
        .max_pending_accept_reset_streams(16);
    http
}

/// A connection works without these options too, so failures are ignored.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let keepalive =
        TcpKeepalive::new().with_time(PROBE).with_interval(Duration::from_secs(10)).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernels_buffers_of_a_connection_are_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (_client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        prepare(&stream);
        let socket = SockRef::from(&stream);
        for size in [socket.send_buffer_size(), socket.recv_buffer_size()] {
            assert!(size.unwrap() <= 2 * SOCKET_BUFFER);
        }
    }
}
