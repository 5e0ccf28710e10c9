//! Sockets: one port, UDP for frames that fit one packet, pooled TCP connections for larger ones. Sending
//! never waits. Knows frames as bytes only; what comes by TCP is for [`super::incoming`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};

use gossd_core::address::canonical;
use gossd_core::link::Frame;
/// Largest frame that goes by UDP: with IP's header it fits every path's 1,280 bytes, so nothing is cut into
/// fragments.
pub use gossd_core::link::MAX_DATAGRAM;
use gossd_core::link::counters::{Counters, Dropped};
use gossd_core::link::gauges::{Counted, Gauge, MAX_CONNECTIONS_OUT};
use gossd_core::link::wire::Kind;

use super::incoming::TAKEN;

/// Frames that wait for one peer's TCP connection; of more, the oldest are dropped.
const QUEUE: usize = 16;
/// A sending connection without anything to send is closed earlier than its reader would.
const SEND_IDLE: Duration = Duration::from_secs(30);
/// Dialling and writing one frame may take that long, and so may the peer to say that it took one; then the connection is
/// given up, and what is large goes in pieces by UDP.
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
    let mut line: Option<Line> = None;
    let _counted = pool.upgrade().map(|pool| Counted::of(&pool.counters, Gauge::ConnectionsOut));
    loop {
        let (due, room) = line.as_ref().map_or((None, true), |line| (line.due(), line.untold < QUEUE));
        let step = tokio::select! {
            told = told(&mut line), if due.is_some() => Step::Told(told),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Step::Silent,
            frame = timeout(SEND_IDLE, queue.next()), if room => match frame {
                Ok(frame) => Step::Wrote(timeout(SEND_TIMEOUT, write_frame(&mut line, to, &frame)).await),
                Err(_) => Step::Idle,
            },
        };
        let Some(pool) = pool.upgrade() else { return };
        let was_written = matches!(step, Step::Wrote(_));
        let got_through = match step {
            Step::Idle if pool.retire(to) => return,
            Step::Idle | Step::Wrote(Ok(Ok(()))) => continue,
            Step::Told(Ok(())) => Some(true),
            // The other end is gone, with what it had not taken; that says nothing of the way to it.
            Step::Told(Err(_)) => None,
            Step::Silent | Step::Wrote(Err(_) | Ok(Err(_))) => Some(false),
        };
        if got_through != Some(true) {
            let lost = line.take().map_or(0, |line| line.untold) + usize::from(was_written);
            pool.counters.count_all(Dropped::SendFailed, lost as u64);
        }
        if let Some(got_through) = got_through {
            let _ = pool.reached.try_send((to, got_through));
        }
    }
}

/// What happens to a peer's queue.
enum Step {
    /// Nothing, for long.
    Idle,
    /// A frame was given to the kernel, or not, or not in time.
    Wrote(Result<io::Result<()>, Elapsed>),
    /// The peer said that it took some.
    Told(io::Result<()>),
    /// It says nothing of any.
    Silent,
}

/// A connection to a peer.
struct Line {
    stream: TcpStream,
    /// Frames that the kernel has, and of which the peer has not said that it took them: where large packets are lost on the way,
    /// the kernel takes them all the same.
    untold: usize,
    /// Since when it has said nothing.
    since: Instant,
}

impl Line {
    /// When it should have said something at the latest.
    fn due(&self) -> Option<Instant> {
        (self.untold > 0).then(|| self.since + SEND_TIMEOUT)
    }

    /// Whether the other end has closed it, or said something that it was not asked.
    fn is_over(&self) -> bool {
        self.untold == 0
            && !self.stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
        self.stream.write_all(&len.to_be_bytes()).await?;
        self.stream.write_all(frame).await?;
        if self.untold == 0 {
            self.since = Instant::now();
        }
        self.untold += 1;
        Ok(())
    }
}

/// Waits until a peer says that it took frames. Cancel-safe.
async fn told(line: &mut Option<Line>) -> io::Result<()> {
    let Some(line) = line else { return std::future::pending().await };
    let mut words = [0; QUEUE];
    let count = line.stream.read(&mut words).await?;
    if count == 0 || count > line.untold || words[..count].iter().any(|word| *word != TAKEN) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    line.untold -= count;
    line.since = Instant::now();
    Ok(())
}

/// Writes a frame; one that meets a connection which the peer closed meanwhile is tried on a new one.
async fn write_frame(line: &mut Option<Line>, to: SocketAddr, frame: &[u8]) -> io::Result<()> {
    if let Some(open) = line.as_mut().filter(|line| !line.is_over())
        && open.write(frame).await.is_ok()
    {
        return Ok(());
    }
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut fresh = Line { stream, untold: 0, since: Instant::now() };
    fresh.write(frame).await?;
    *line = Some(fresh);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of frames to a listener that does so with its connections.
    async fn reached<F: Future<Output = ()> + Send>(
        frames: usize,
        answer: impl Fn(TcpStream) -> F,
    ) -> (Option<Reached>, u64) {
        reached_until(frames, |_| false, answer).await
    }

    /// The same, or until so many frames are lost.
    async fn reached_until<F: Future<Output = ()> + Send>(
        frames: usize,
        is_enough: impl Fn(u64) -> bool,
        answer: impl Fn(TcpStream) -> F,
    ) -> (Option<Reached>, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("an address");
        let (told, mut reached) = mpsc::channel(QUEUE);
        let pool = Arc::new(Pool { peers: Mutex::default(), counters: Arc::default(), reached: told });
        for _ in 0..frames {
            pool.send(to, vec![7; 2_000].into());
        }
        let serving = async {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                answer(stream).await;
            }
        };
        let first = tokio::select! {
            reached = timeout(4 * SEND_TIMEOUT, reached.recv()) => reached.ok().flatten(),
            () = serving => None,
            () = async {
                while !is_enough(pool.counters.dropped(Dropped::SendFailed)) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } => None,
        };
        (first.filter(|(at, _)| *at == to), pool.counters.dropped(Dropped::SendFailed))
    }

    async fn take(stream: &mut TcpStream, frames: usize) {
        for _ in 0..frames {
            let len = stream.read_u32().await.expect("a length");
            let mut frame = vec![0; len as usize];
            stream.read_exact(&mut frame).await.expect("a frame");
            stream.write_all(&[TAKEN]).await.expect("it is told");
        }
    }

    #[tokio::test]
    async fn tcp_gets_through_when_the_peer_says_so_and_not_when_the_kernel_takes_a_frame() {
        let (took, _) = reached(3, |mut stream| async move {
            take(&mut stream, 3).await;
            std::future::pending::<()>().await;
        })
        .await;
        assert!(matches!(took, Some((_, true))), "{took:?}");
        let (silent, lost) = reached(3, |stream| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        })
        .await;
        assert!(matches!(silent, Some((_, false))), "{silent:?}");
        assert_eq!(lost, 3);
    }

    #[tokio::test]
    async fn a_peer_that_ends_says_nothing_of_the_way_to_it() {
        let frames = |lost: u64| lost >= 3;
        let (said, lost) = reached_until(3, frames, |mut stream| async move {
            stream.read_u32().await.expect("a length");
        })
        .await;
        assert!(said.is_none() && frames(lost), "{said:?} {lost}");
    }

    #[tokio::test]
    async fn a_frame_for_a_connection_that_was_closed_meanwhile_goes_by_another_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("an address");
        let mut line = None;
        for _ in 0..2 {
            let (written, accepted) = tokio::join!(write_frame(&mut line, to, &[7; 10]), listener.accept());
            written.expect("it is written");
            let mut stream = accepted.expect("a connection").0;
            take(&mut stream, 1).await;
            told(&mut line).await.expect("it is told");
            drop(stream);
            line.as_ref().expect("a line").stream.readable().await.expect("its end is seen");
        }
    }
}
