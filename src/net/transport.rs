//! Sockets: one port, UDP for frames that fit one packet, pooled TCP connections for larger ones. Sending
//! never waits. Knows frames as bytes only; what comes by TCP is for [`super::incoming`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use gossd_core::address::canonical;
use gossd_core::link::Frame;
/// Largest frame that goes by UDP: with IP's header it fits every path's 1,280 bytes, so nothing is cut into
/// fragments.
pub use gossd_core::link::MAX_DATAGRAM;
use gossd_core::link::counters::{Counters, Dropped};
use gossd_core::link::gauges::{Counted, Gauge, MAX_CONNECTIONS_OUT};
use gossd_core::link::wire::Kind;

/// Frames that wait for one peer's TCP connection; of more, the oldest are dropped.
const QUEUE: usize = 16;
/// A sending connection without anything to send is closed earlier than its reader would.
const SEND_IDLE: Duration = Duration::from_secs(30);
/// Dialling and writing one frame may take that long, then the connection is given up, and what is large goes in pieces by
/// UDP.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// What the kernel may hold for us while another task has the core: some hundred pushes and acks.
pub(super) const RECEIVE_BUFFER: usize = 4 << 20;

/// Decides for tests whether a frame to an address is lost on the way.
pub type Faults = Arc<dyn Fn(Kind, SocketAddr) -> bool + Send + Sync>;

/// The bound sockets.
#[derive(Debug)]
pub struct Bound {
    /// The common address.
    pub addr: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Bound {
    /// Sockets that are bound already, both to one address, and do not block.
    pub fn of(tcp: std::net::TcpListener, udp: std::net::UdpSocket) -> io::Result<Self> {
        let addr = tcp.local_addr()?;
        Ok(Self { addr, udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)? })
    }

    /// Its sockets, that of connections first.
    pub fn sockets(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.tcp.as_fd(), self.udp.as_fd())
    }
}

/// Whether sockets that are bound there can send to an address at all: an IPv4 socket cannot to IPv6, nor the other way
/// round, unless it is bound to all of `[::]`.
pub fn reaches(bound: SocketAddr, to: SocketAddr) -> bool {
    let (bound, to) = (canonical(bound), canonical(to));
    bound.is_ipv4() == to.is_ipv4() || bound.is_ipv6() && bound.ip().is_unspecified()
}

/// Whether this host has IPv6 at all: a kernel may have none.
pub(crate) fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok()
}

/// Binds UDP and TCP to one port; with port 0, to any port that is free for both.
pub fn bind(addr: SocketAddr) -> io::Result<Bound> {
    let mut tries = if addr.port() == 0 { 20 } else { 1 };
    loop {
        tries -= 1;
        match bind_both(addr) {
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
}

fn bind_both(addr: SocketAddr) -> io::Result<Bound> {
    let tcp = socket(addr, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&addr.into())?;
    tcp.listen(1_024)?;
    let tcp = std::net::TcpListener::from(tcp);
    let addr = tcp.local_addr()?;
    let udp = socket(addr, Type::DGRAM, Protocol::UDP)?;
    // The kernel may grant less; that is its right.
    let _ = udp.set_recv_buffer_size(RECEIVE_BUFFER);
    // Beside what a keeper has yet of a former address, see `Inherited::make_way`; with nobody afterwards.
    udp.set_reuse_address(true)?;
    udp.bind(&addr.into())?;
    udp.set_reuse_address(false)?;
    Bound::of(tcp, udp.into())
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What came of sending a large frame to an address: whether TCP got through.
pub type Reached = (SocketAddr, bool);

/// The sending side and the UDP socket.
pub struct Transport {
    udp: UdpSocket,
    is_ipv6: bool,
    pool: Arc<Pool>,
    counters: Arc<Counters>,
    faults: Option<Faults>,
}

impl Transport {
    /// Takes over the sockets; the one of connections is for [`super::incoming::accept`].
    pub fn new(
        bound: Bound,
        counters: Arc<Counters>,
        faults: Option<Faults>,
        reached: mpsc::Sender<Reached>,
    ) -> (Self, TcpListener) {
        let pool = Arc::new(Pool { peers: Mutex::default(), counters: counters.clone(), reached });
        (Self { is_ipv6: bound.addr.is_ipv6(), udp: bound.udp, pool, counters, faults }, bound.tcp)
    }

    /// Sends a frame, or counts that it could not. Never waits.
    pub fn send(&self, Frame { to, kind, bytes }: Frame) {
        self.counters.send(kind, bytes.len());
        if self.faults.as_ref().is_some_and(|lost| lost(kind, to)) {
            return;
        }
        if bytes.len() > MAX_DATAGRAM {
            self.pool.send(to, bytes);
        } else if self.udp.try_send_to(&bytes, self.as_sent(to)).is_err() {
            self.counters.count(Dropped::SendFailed);
        }
    }

    /// A socket of IPv6 sends to IPv4 only where that is written as IPv6.
    fn as_sent(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.is_ipv6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            to => to,
        }
    }

    /// Waits until a datagram may be there. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.udp.readable().await
    }

    /// Takes a datagram that is there; none if there is none.
    pub fn try_receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            match self.udp.try_recv_from(buffer) {
                Ok((len, from)) => return Some((len, canonical(from))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // A peer's port that refused an earlier datagram is reported here. It is not ours to mind.
                Err(_) => {}
            }
        }
    }
}

/// One queue and one connection per peer that needs TCP.
struct Pool {
    peers: Mutex<PeerQueues>,
    counters: Arc<Counters>,
    /// Told what came of sending; where nobody takes it, the next frame tells.
    reached: mpsc::Sender<Reached>,
}

#[derive(Default)]
struct PeerQueues {
    queues: HashMap<SocketAddr, Arc<FrameQueue>>,
    /// Ends the deliveries with the pool.
    deliveries: JoinSet<()>,
}

#[derive(Default)]
struct FrameQueue {
    frames: Mutex<VecDeque<Arc<[u8]>>>,
    filled: Notify,
}

impl Pool {
    fn send(self: &Arc<Self>, to: SocketAddr, frame: Arc<[u8]>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let PeerQueues { queues, deliveries } = &mut *peers;
        while deliveries.try_join_next().is_some() {}
        if queues.len() >= MAX_CONNECTIONS_OUT && !queues.contains_key(&to) {
            return self.counters.count(Dropped::QueueFull);
        }
        let queue = queues.entry(to).or_insert_with(|| {
            let queue = Arc::new(FrameQueue::default());
            deliveries.spawn(deliver(Arc::downgrade(self), to, queue.clone()));
            queue
        });
        if queue.push(frame) {
            self.counters.count(Dropped::QueueFull);
        }
    }

    /// Takes the queue out, unless something was put in meanwhile.
    fn retire(&self, to: SocketAddr) -> bool {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = peers.queues.get(&to).is_none_or(|queue| queue.is_empty());
        if empty {
            peers.queues.remove(&to);
        }
        empty
    }
}

impl FrameQueue {
    /// True if the oldest frame had to go for it.
    fn push(&self, frame: Arc<[u8]>) -> bool {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let full = frames.len() >= QUEUE;
        if full {
            frames.pop_front();
        }
        frames.push_back(frame);
        self.filled.notify_one();
        full
    }

    fn pop(&self) -> Option<Arc<[u8]>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    async fn next(&self) -> Arc<[u8]> {
        loop {
            match self.pop() {
                Some(frame) => return frame,
                None => self.filled.notified().await,
            }
        }
    }
}

/// Brings the frames of one queue to their peer, dialling when there is something to bring.
async fn deliver(pool: Weak<Pool>, to: SocketAddr, queue: Arc<FrameQueue>) {
    let mut stream: Option<TcpStream> = None;
    let _counted = pool.upgrade().map(|pool| Counted::of(&pool.counters, Gauge::ConnectionsOut));
    loop {
        let Ok(frame) = timeout(SEND_IDLE, queue.next()).await else {
            match pool.upgrade() {
                Some(pool) if !pool.retire(to) => continue,
                _ => return,
            }
        };
        let sent = timeout(SEND_TIMEOUT, write_frame(&mut stream, to, &frame)).await;
        let got_through = matches!(sent, Ok(Ok(())));
        let Some(pool) = pool.upgrade() else { return };
        let _ = pool.reached.try_send((to, got_through));
        if !got_through {
            stream = None;
            pool.counters.count(Dropped::SendFailed);
        }
    }
}

/// Writes a frame; one that meets a connection which the peer closed meanwhile is tried on a new one.
async fn write_frame(stream: &mut Option<TcpStream>, to: SocketAddr, frame: &[u8]) -> io::Result<()> {
    if let Some(open) = stream
        && write_to(open, frame).await.is_ok()
    {
        return Ok(());
    }
    let mut fresh = TcpStream::connect(to).await?;
    fresh.set_nodelay(true)?;
    write_to(&mut fresh, frame).await?;
    *stream = Some(fresh);
    Ok(())
}

async fn write_to(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(frame).await
}
