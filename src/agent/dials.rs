//! Dials of entrypoints: a TCP connect and, where that is not enough, an HTTP request; or an empty datagram.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gossd_core::address::Address;
use gossd_core::agent::{Dial, Dialled, MAX_DIALS, NOBODYS, Tried, Try};
use gossd_core::label::Label;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// A gost that does not refuse within this time may be alive. A refusal takes a round trip within the host; the rest is
/// for starved hosts.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A host refuses a datagram to one of its own ports at once.
const REFUSAL: Duration = Duration::from_millis(200);
/// A gost that does not answer a request within this time is frozen: a live one takes a millisecond.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one entrypoint's name that are dialled.
const MOST_ADDRESSES: usize = 4;
/// Time between the two refusals that show a dead gost. One refusal alone may come from a gost that is about to listen.
const AGAIN: Duration = Duration::from_millis(20);

/// The running dials. Nothing waits for them.
#[derive(Default)]
pub(super) struct Dials {
    tasks: JoinSet<(Dial, Dialled)>,
    /// By instance. Some of them still wait before they dial again.
    running: HashMap<Label, RunningDial>,
}

struct RunningDial {
    task: AbortHandle,
    waits: bool,
}

impl Dials {
    pub(super) fn room(&self) -> usize {
        MAX_DIALS.saturating_sub(self.tasks.len())
    }

    /// Whether an instance is being dialled now, not only waiting to be dialled again.
    pub(super) fn has(&self, node: &Label) -> bool {
        self.running.get(node).is_some_and(|running| !running.waits)
    }

    /// Dials an instance; a dial that waits for the same instance is replaced.
    pub(super) fn start(&mut self, dial: Dial) {
        let (node, later) = (dial.node.clone(), dial.later);
        let task = self.tasks.spawn(async move {
            if let Some(later) = later {
                sleep(later).await;
            }
            let way = if dial.is_udp { Way::Udp } else { Way::Tcp { asks: dial.asks } };
            let dialled = dial_all(&dial.addresses, way).await;
            (dial, dialled)
        });
        if let Some(before) = self.running.insert(node, RunningDial { task, waits: later.is_some() }) {
            before.task.abort();
        }
    }

    /// The next dial that ended; `None` while none runs.
    pub(super) async fn next(&mut self) -> Option<(Dial, Dialled)> {
        loop {
            // A dial that was replaced.
            let Ok((dial, dialled)) = self.tasks.join_next().await? else { continue };
            // A new dial may have begun in the moment that this one ended.
            if self.running.get(&dial.node).is_some_and(|running| running.task.is_finished()) {
                self.running.remove(&dial.node);
            }
            return Some((dial, dialled));
        }
    }
}

/// The running dials of entrypoints that visitors want: at most one per entrypoint, none longer than four seconds.
#[derive(Default)]
pub(super) struct Tries(JoinSet<(Address, Tried)>);

impl Tries {
    pub(super) fn start(&mut self, Try { address, asks }: Try) {
        self.0.spawn(async move {
            let tried = reach(&address, asks).await;
            (address, tried)
        });
    }

    /// The next dial that ended; `None` while none runs.
    pub(super) async fn next(&mut self) -> Option<(Address, Tried)> {
        Some(self.0.join_next().await?.expect("nobody aborts them, and they do not panic"))
    }
}

/// Dials an entrypoint as a visitor's gost would; a name is resolved here. All its addresses at once: the first that takes the
/// connection counts.
async fn reach(entrypoint: &Address, asks: bool) -> Tried {
    let text = entrypoint.to_string();
    let Ok(Ok(found)) = timeout(DIAL_TIMEOUT, lookup_host(&text)).await else { return Tried::Silent };
    let dial = |address: SocketAddr| async move {
        let started = Instant::now();
        let stream = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await;
        stream.map(|stream| (stream, started.elapsed()))
    };
    let mut dials: FuturesUnordered<_> = found.take(MOST_ADDRESSES).map(dial).collect();
    let mut tried = if dials.is_empty() { Tried::Silent } else { Tried::Refused };
    while let Some(ended) = dials.next().await {
        match ended {
            Ok((Ok(mut stream), trip)) => {
                if !asks || timeout(ANSWER_TIMEOUT, ask(&mut stream)).await.is_ok() {
                    return Tried::Works(trip);
                }
                tried = Tried::Silent;
            }
            Ok((Err(error), _)) if is_refusal(error.kind()) => {}
            Ok((Err(_), _)) | Err(_) => tried = Tried::Silent,
        }
    }
    tried
}

/// How a gost is dialled.
#[derive(Clone, Copy)]
enum Way {
    Tcp {
        /// Whether only an answer counts.
        asks: bool,
    },
    /// A router's: gost says nothing to an empty datagram, and its host refuses one if nobody has the port.
    Udp,
}

async fn dial_all(addresses: &BTreeSet<Address>, way: Way) -> Dialled {
    let first = dial_each(addresses, way).await;
    if first != Dialled::Refused {
        return first;
    }
    sleep(AGAIN).await;
    dial_each(addresses, way).await
}

async fn dial_each(addresses: &BTreeSet<Address>, way: Way) -> Dialled {
    let mut all = if addresses.is_empty() { Dialled::Silent } else { Dialled::Refused };
    for address in addresses {
        let Some(address) = address.socket() else {
            all = Dialled::Silent;
            continue;
        };
        let asks = match way {
            Way::Tcp { asks } => asks,
            Way::Udp => match refuses(address).await {
                Ok(true) => continue,
                Ok(false) => return Dialled::Answered,
                Err(_) => {
                    all = Dialled::Silent;
                    continue;
                }
            },
        };
        match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(mut stream)) => {
                if !asks || timeout(ANSWER_TIMEOUT, ask(&mut stream)).await.is_ok() {
                    return Dialled::Answered;
                }
                all = Dialled::Mute;
            }
            Ok(Err(error)) if is_refusal(error.kind()) => {}
            // The queue of a frozen process is full after some visitors.
            Err(_) if asks => all = Dialled::Mute,
            Ok(Err(_)) | Err(_) => all = Dialled::Silent,
        }
    }
    all
}

/// Whether a host refuses what is sent to a UDP port.
async fn refuses(address: SocketAddr) -> io::Result<bool> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(&[]).await?;
    match timeout(REFUSAL, socket.recv(&mut [0])).await {
        Ok(Err(error)) if is_refusal(error.kind()) => Ok(true),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(false),
    }
}

/// Returns at any reaction to a visitor of a host name that belongs to nobody: gost answers 502 at once, and a frozen
/// gost sends nothing.
async fn ask(stream: &mut TcpStream) {
    let request =
        format!("GET / HTTP/1.1\r\nHost: {NOBODYS}\r\nUser-Agent: gossd\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read(&mut [0]).await;
    }
}

/// A listener that closes between the handshake and our read resets the connection.
fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_dial_is_answered_refused_or_silent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = Address::from(listener.local_addr().unwrap().to_string());
        let closed = std::net::TcpListener::bind("127.0.7.1:0").unwrap();
        let refuses = Address::from(closed.local_addr().unwrap().to_string());
        drop(closed);
        let nowhere = Address::from("gost.example.org:80");
        for (addresses, dialled) in [
            (vec![&answers], Dialled::Answered),
            (vec![&refuses], Dialled::Refused),
            (vec![&nowhere], Dialled::Silent),
            (vec![&refuses, &answers, &nowhere], Dialled::Answered),
            (vec![&refuses, &nowhere], Dialled::Silent),
            (vec![], Dialled::Silent),
        ] {
            let addresses: BTreeSet<_> = addresses.into_iter().cloned().collect();
            assert_eq!(dial_all(&addresses, Way::Tcp { asks: false }).await, dialled, "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn a_router_is_there_as_long_as_its_udp_port_is() {
        for host in ["127.0.7.3:0", "[::1]:0"] {
            // A host may have no IPv6.
            let Ok(router) = std::net::UdpSocket::bind(host) else { continue };
            let addresses = BTreeSet::from([Address::from(router.local_addr().unwrap().to_string())]);
            assert_eq!(dial_all(&addresses, Way::Udp).await, Dialled::Answered, "{host}");
            drop(router);
            assert_eq!(dial_all(&addresses, Way::Udp).await, Dialled::Refused, "{host}");
        }
    }

    #[tokio::test]
    async fn a_gost_that_dies_between_the_handshake_and_our_read_counts_as_refusing() {
        let listener = std::net::TcpListener::bind("127.0.7.2:0").unwrap();
        let addresses = BTreeSet::from([Address::from(listener.local_addr().unwrap().to_string())]);
        let mut dial = std::pin::pin!(dial_all(&addresses, Way::Tcp { asks: false }));
        let first = std::future::poll_fn(|context| Poll::Ready(dial.as_mut().poll(context))).await;
        assert!(first.is_pending(), "the kernel has shaken hands, and nobody has looked");
        drop(listener);
        assert_eq!(dial.await, Dialled::Refused);
    }

    #[tokio::test]
    async fn a_waiting_dial_is_replaced_by_one_that_is_due_at_once() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = BTreeSet::from([Address::from(closed.local_addr().unwrap().to_string())]);
        let mut dials = Dials::default();
        let dial = |later| {
            let mut dial = Dial::of("n".into(), addresses.clone());
            dial.later = later;
            dial
        };
        dials.start(dial(Some(Duration::from_secs(1))));
        assert!(!dials.has(&"n".into()), "nothing has to wait for it");
        dials.start(dial(None));
        assert!(dials.has(&"n".into()));
        let (first, dialled) = dials.next().await.unwrap();
        assert_eq!((first.later, dialled), (None, Dialled::Answered));
        assert!(dials.next().await.is_none() && dials.running.is_empty(), "and not a second time");
    }

    #[tokio::test]
    async fn a_gost_that_is_asked_must_answer_and_not_only_accept() {
        let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lives = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [frozen_at, lives_at] = [&frozen, &lives]
            .map(|listener| BTreeSet::from([Address::from(listener.local_addr().unwrap().to_string())]));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = lives.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
            }
        });
        assert_eq!(dial_all(&frozen_at, Way::Tcp { asks: false }).await, Dialled::Answered);
        assert_eq!(dial_all(&frozen_at, Way::Tcp { asks: true }).await, Dialled::Mute);
        assert_eq!(dial_all(&lives_at, Way::Tcp { asks: true }).await, Dialled::Answered);
        let mut tries = Tries::default();
        for (at, asks, works) in
            [(&frozen_at, true, false), (&frozen_at, false, true), (&lives_at, true, true)]
        {
            let address = at.first().unwrap().clone();
            tries.start(Try { address: address.clone(), asks });
            let (ended, how) = tries.next().await.unwrap();
            assert_eq!((ended, matches!(how, Tried::Works(_))), (address, works), "{asks}: {how:?}");
            assert_ne!(how, Tried::Refused);
        }
    }

    #[tokio::test]
    async fn an_entrypoint_is_reached_by_its_name_as_well() {
        // No port that the system gives: it would be another test's as soon as it is free.
        let port = 20_000 + (std::process::id() % 10_000) as u16;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let at = |host: &str, port: u16| Address::from(format!("{host}:{port}"));
        assert!(matches!(reach(&at("localhost", port), false).await, Tried::Works(_)));
        drop(listener);
        assert_eq!(reach(&at("127.0.0.1", port), false).await, Tried::Refused);
        assert_eq!(reach(&at("localhost", port), false).await, Tried::Refused);
        assert_eq!(reach(&at("no-such-host.invalid", port), false).await, Tried::Silent);
    }
}
