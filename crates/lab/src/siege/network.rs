//! Attackers who control the network and have no key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gossd_core::link::frame::{self, Sealed};
use gossd_core::link::noise;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::attacks::{Attack, AttackReport, Orders};

/// Magic, version, type, and a Hello's key id or another frame's index.
const HEAD: usize = 8;
/// A length that is common in the frames of real peers.
const BODY: usize = 200;
/// Datagrams sent in one burst.
const BURST: u64 = 50;
/// Addresses of an attacker that uses several.
const ADDRESSES: u64 = 10;
/// Addresses that recorded Hellos come from: more than are answered in a second.
const HELLO_ADDRESSES: u16 = 600;
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

pub(crate) async fn attack(orders: &Orders) -> anyhow::Result<AttackReport> {
    match orders.attack {
        Attack::Frames => datagrams(orders, orders.frames, forged_or_replayed).await,
        Attack::ForgedHellos => datagrams(orders, orders.frames, forged_hello).await,
        Attack::Misdirected | Attack::Reflected | Attack::HeldBack => {
            datagrams(orders, orders.frames, as_recorded).await
        }
        Attack::RecordedHellos => hellos(orders, false).await,
        Attack::RecordedHellosWithCookies => hellos(orders, true).await,
        Attack::Bytes => datagrams(orders, orders.frames / 10, mangled).await,
        Attack::GossipReplay => replay(orders).await,
        Attack::GossipDribble => {
            let opening =
                |n: u64| if n.is_multiple_of(2) { vec![0, 0, 4, 0] } else { u32::MAX.to_be_bytes().to_vec() };
            hold(orders, orders.gossip, orders.connections / 10, opening, Some(b"x")).await
        }
        _ => hold(orders, orders.gossip, orders.connections, |_| Vec::new(), None).await,
    }
}

fn forged_or_replayed(orders: &Orders, n: u64, rng: &mut StdRng) -> Vec<u8> {
    let at = usize::try_from(n).unwrap_or_default() / 2 % orders.recorded.len();
    let mut frame = orders.recorded[at].clone();
    if n.is_multiple_of(2) {
        frame.truncate(HEAD);
        frame.resize(HEAD + BODY, 0);
        rng.fill(&mut frame[HEAD..]);
    }
    frame
}

fn as_recorded(orders: &Orders, n: u64, _: &mut StdRng) -> Vec<u8> {
    orders.recorded[usize::try_from(n).unwrap_or_default() % orders.recorded.len()].clone()
}

/// Its head, with the key id, is a peer's; the rest is not.
fn forged_hello(orders: &Orders, _: u64, rng: &mut StdRng) -> Vec<u8> {
    let mut hello = orders.recorded[0].clone();
    rng.fill(&mut hello[HEAD..]);
    hello
}

/// Recorded Hellos from many addresses, each of which reads the answers. With cookies, an address that is asked for a cookie
/// shows it from then on: that takes no key.
async fn hellos(orders: &Orders, shows_cookies: bool) -> anyhow::Result<AttackReport> {
    let mut addresses = Vec::new();
    for n in 0..HELLO_ADDRESSES {
        let [.., high, low] = n.to_be_bytes();
        addresses.push((UdpSocket::bind(SocketAddr::from(([127, 2, high, low], 0))).await?, None));
    }
    let (mut pace, mut report) = (orders.pace(orders.frames, BURST), AttackReport::default());
    let mut buffer = [0; 2_048];
    while report.sent < orders.frames {
        pace.tick().await;
        for _ in 0..BURST.min(orders.frames - report.sent) {
            let n = usize::try_from(report.sent)?;
            let at = n % addresses.len();
            let (socket, cookie) = &mut addresses[at];
            while let Ok((len, _)) = socket.try_recv_from(&mut buffer) {
                report.answered += len as u64;
                if let Ok(Sealed::Cookie { cookie: given, .. }) = frame::read(&buffer[..len]) {
                    *cookie = Some(given);
                }
            }
            let mut hello = orders.recorded[n % orders.recorded.len()].clone();
            if let Some(cookie) = cookie.filter(|_| shows_cookies) {
                let coded = hello.len() - cookie.len();
                let shown = noise::code(&cookie, &hello[..coded]);
                hello[coded..].copy_from_slice(&shown);
            }
            socket.send_to(&hello, orders.gossip).await?;
            report.sent += 1;
            report.sent_bytes += hello.len() as u64;
        }
    }
    tokio::time::sleep(LAST_ANSWERS).await;
    for (socket, _) in &addresses {
        while let Ok((len, _)) = socket.try_recv_from(&mut buffer) {
            report.answered += len as u64;
        }
    }
    Ok(report)
}

fn mangled(orders: &Orders, n: u64, rng: &mut StdRng) -> Vec<u8> {
    let at = usize::try_from(n).unwrap_or_default() / 3 % orders.recorded.len();
    let mut frame = orders.recorded[at].clone();
    match n % 3 {
        0 => rng.fill(&mut frame[..]),
        1 => frame.truncate(rng.random_range(0..frame.len())),
        _ => frame.resize(rng.random_range(1_201..9_000), 0),
    }
    frame
}

async fn datagrams(
    orders: &Orders,
    count: u64,
    make: fn(&Orders, u64, &mut StdRng) -> Vec<u8>,
) -> anyhow::Result<AttackReport> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let (mut pace, mut rng, mut report) =
        (orders.pace(count, BURST), StdRng::seed_from_u64(1), AttackReport::default());
    let mut buffer = [0; 2_048];
    while report.sent < count {
        pace.tick().await;
        for _ in 0..BURST.min(count - report.sent) {
            let bytes = make(orders, report.sent, &mut rng);
            socket.send_to(&bytes, orders.gossip).await?;
            report.sent += 1;
            report.sent_bytes += bytes.len() as u64;
        }
        while let Ok((len, _)) = socket.try_recv_from(&mut buffer) {
            report.answered += len as u64;
        }
    }
    let end = tokio::time::Instant::now() + LAST_ANSWERS;
    while let Ok(Ok((len, _))) = timeout_at(end, socket.recv_from(&mut buffer)).await {
        report.answered += len as u64;
    }
    Ok(report)
}

/// One connection after the other, each with some recorded frames.
async fn replay(orders: &Orders) -> anyhow::Result<AttackReport> {
    let (mut pace, mut report, end) =
        (orders.pace(orders.frames / 100, 10), AttackReport::default(), orders.end());
    let bytes: Vec<u8> = orders.recorded.iter().take(10).flat_map(|frame| framed(frame)).collect();
    let mut streams = Vec::new();
    while tokio::time::Instant::now() < end && report.sent < orders.frames / 100 {
        pace.tick().await;
        let mut stream = from(report.sent, orders.gossip).await?;
        if stream.write_all(&bytes).await.is_ok() {
            report.sent += orders.recorded.len().min(10) as u64;
        }
        streams.push(stream);
    }
    sleep_until(end).await;
    for stream in streams {
        report.answered += waiting(&stream);
    }
    Ok(report)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap_or_default().to_be_bytes(), frame].concat()
}

fn waiting(stream: &TcpStream) -> u64 {
    stream.try_read(&mut vec![0; 65_536]).unwrap_or_default() as u64
}

/// A connection from one of several addresses.
pub(crate) async fn from(n: u64, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(n % ADDRESSES).unwrap_or_default() + 1;
    socket.bind(SocketAddr::from(([127, 0, 1, last], 0)))?;
    socket.connect(to).await
}

/// Opens connections over the whole time, sends something on each, and holds them until its end; with `drip`, sends
/// that once a second.
pub(crate) async fn hold(
    orders: &Orders,
    to: SocketAddr,
    count: u64,
    opening: impl Fn(u64) -> Vec<u8>,
    drip: Option<&'static [u8]>,
) -> anyhow::Result<AttackReport> {
    let (mut pace, mut report, end) = (orders.pace(count, 10), AttackReport::default(), orders.end());
    let answered = Arc::new(AtomicU64::new(0));
    let mut held = JoinSet::new();
    while report.sent < count && tokio::time::Instant::now() < end {
        pace.tick().await;
        for _ in 0..10.min(count - report.sent) {
            let Ok(stream) = from(report.sent, to).await else { continue };
            held.spawn(sit(stream, opening(report.sent), drip, end, answered.clone()));
            report.sent += 1;
        }
    }
    while held.join_next().await.is_some() {}
    report.answered = answered.load(Ordering::Relaxed);
    Ok(report)
}

async fn sit(
    mut stream: TcpStream,
    opening: Vec<u8>,
    drip: Option<&'static [u8]>,
    end: tokio::time::Instant,
    answered: Arc<AtomicU64>,
) {
    let _ = stream.write_all(&opening).await;
    let mut buffer = [0; 512];
    loop {
        let next = drip.map_or(end, |_| end.min(tokio::time::Instant::now() + Duration::from_secs(1)));
        match timeout_at(next, stream.read(&mut buffer)).await {
            Ok(Ok(len @ 1..)) => drop(answered.fetch_add(len as u64, Ordering::Relaxed)),
            Ok(_) => return,
            Err(_) if next >= end => return,
            Err(_) => drop(stream.write_all(drip.unwrap_or_default()).await),
        }
    }
}
