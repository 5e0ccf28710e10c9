//! What arrives otherwise than by UDP: connections, which bring frames one after the other. Bounded in number, in
//! total and from one network, in a way in which newcomers always get in and the least useful go: whoever has a key
//! speaks at once, and everybody else waits for nothing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use gossd_core::address::canonical;
use gossd_core::link::counters::{Counters, Dropped};
use gossd_core::link::frame::OVERHEAD;
use gossd_core::link::gauges::{Counted, Gauge, MAX_CONNECTIONS_IN};
use gossd_core::link::wire::MAX_PAYLOAD;

/// Of these, from one network, without a proof that a peer speaks. Peers behind one address need a moment each.
pub const MAX_UNPROVEN: usize = 32;
/// By then a connection must have brought something new from a peer: whoever has no key, or only frames that it
/// recorded, cannot stay.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer's connection that brings no whole frame for this long is closed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest frame: the largest payload, and what is around it.
const MAX_FRAME: usize = MAX_PAYLOAD + OVERHEAD;
/// What a peer is told of each of its frames, when it was taken.
pub(super) const TAKEN: u8 = 1;
/// Out of file descriptors, mostly: it passes, but not at once.
const NO_ACCEPT: Duration = Duration::from_millis(50);

/// A frame that came by a connection.
pub struct Arrival {
    /// From where.
    pub from: SocketAddr,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// To be told whether it is a peer's, and new. The connection's next frame waits for that.
    pub is_fresh: oneshot::Sender<bool>,
}

/// Whether a connection has brought something new from a peer.
#[derive(Clone, Debug, Default)]
struct Proof(Arc<AtomicBool>);

impl Proof {
    fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where frames go.
pub struct Inbox {
    /// Takes them; a full one slows the peers down.
    pub frames: mpsc::Sender<Arrival>,
    /// Counts connections dropped.
    pub counters: Arc<Counters>,
}

/// Takes in what arrives by connections, for ever. No error ends it.
pub async fn accept(listener: TcpListener, inbox: Inbox) {
    let inbox = Arc::new(inbox);
    let mut tasks = JoinSet::new();
    let mut guests = Guests::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let from = canonical(from);
                    let proof = Proof::default();
                    let task = tasks.spawn(serve(stream, from, inbox.clone(), proof.clone()));
                    if guests.add(Guest::new(from.ip(), proof, task)) {
                        inbox.counters.count(Dropped::Crowded);
                    }
                }
                Err(_) => tokio::time::sleep(NO_ACCEPT).await,
            },
            Some(ended) = tasks.join_next_with_id() => {
                guests.remove(ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id));
            }
        }
    }
}

/// The connections that are there.
#[derive(Default)]
struct Guests(HashMap<Id, Guest>);

struct Guest {
    network: IpAddr,
    since: Instant,
    proof: Proof,
    task: AbortHandle,
}

impl Guest {
    fn new(ip: IpAddr, proof: Proof, task: AbortHandle) -> Self {
        Self { network: network(ip), since: Instant::now(), proof, task }
    }
}

impl Guests {
    /// Lets one in. Whether another had to go for it.
    fn add(&mut self, guest: Guest) -> bool {
        let network = guest.network;
        self.0.insert(guest.task.id(), guest);
        let surplus = self.surplus(network).map(|guest| guest.task.id());
        if let Some(guest) = surplus.and_then(|id| self.0.remove(&id)) {
            guest.task.abort();
        }
        surplus.is_some()
    }

    fn remove(&mut self, task: Id) {
        self.0.remove(&task);
    }

    /// Who has to go after one came from a network: the oldest that is not proven, first of that network's if it has
    /// too many, then of the network with the most connections; and of proven ones the oldest, which is dialled again
    /// when there is something to bring.
    fn surplus(&self, network: IpAddr) -> Option<&Guest> {
        let unproven = || self.0.values().filter(|guest| guest.network == network && !guest.proof.is_given());
        if unproven().count() > MAX_UNPROVEN {
            return unproven().min_by_key(|guest| guest.since);
        }
        if self.0.len() <= MAX_CONNECTIONS_IN {
            return None;
        }
        let mut of: HashMap<IpAddr, usize> = HashMap::new();
        self.0.values().for_each(|guest| *of.entry(guest.network).or_default() += 1);
        let worth = |guest: &&Guest| (guest.proof.is_given(), Reverse(of.get(&guest.network)), guest.since);
        self.0.values().min_by_key(worth)
    }
}

/// What one host may choose its addresses from: an IPv4 address, or 64 bits of IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// Reads frames until the peer goes, is silent, or sends something that is no frame of ours.
async fn serve(mut stream: TcpStream, from: SocketAddr, inbox: Arc<Inbox>, proof: Proof) {
    let until_proven = Instant::now() + PROOF_TIMEOUT;
    let _ = stream.set_nodelay(true);
    let _counted = Counted::of(&inbox.counters, Gauge::ConnectionsIn);
    loop {
        let frame = match read_in_time(&mut stream, until_proven, &proof).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => return inbox.counters.count(Dropped::Connection),
        };
        if !inbox.take(from, frame).await {
            return;
        }
        proof.give();
        // A peer that does not hear this believes that TCP does not get through, as its own kernel took the frame in any case.
        if !matches!(timeout(READ_TIMEOUT, stream.write_all(&[TAKEN])).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next frame, if it comes in time.
async fn read_in_time(
    stream: &mut TcpStream,
    until_proven: Instant,
    proof: &Proof,
) -> io::Result<Option<Vec<u8>>> {
    let end = if proof.is_given() { Instant::now() + READ_TIMEOUT } else { until_proven };
    timeout_at(end, read_frame(stream)).await?
}

impl Inbox {
    /// Whether a frame is a peer's, and new. Not, too, when nobody takes frames any more.
    async fn take(&self, from: SocketAddr, frame: Vec<u8>) -> bool {
        let (is_fresh, judged) = oneshot::channel();
        self.frames.send(Arrival { from, frame, is_fresh }).await.is_ok() && judged.await.unwrap_or(false)
    }
}

/// A frame, or none at the end of the stream. A length over the bound is an error before it is a buffer, and
/// the buffer grows with what really arrives.
async fn read_frame(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u32().await {
        Ok(len) => len as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if len > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Vec::new();
    let read = stream.take(len as u64).read_to_end(&mut frame).await?;
    if read == len { Ok(Some(frame)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guests that wait for ever.
    #[derive(Default)]
    struct House {
        guests: Guests,
        tasks: JoinSet<()>,
    }

    impl House {
        /// Whether somebody had to go for one from there.
        fn enter(&mut self, from: &str, proven: bool) -> (Id, bool) {
            let proof = Proof::default();
            if proven {
                proof.give();
            }
            let task = self.tasks.spawn(std::future::pending());
            let id = task.id();
            (id, self.guests.add(Guest::new(from.parse().expect("an address"), proof, task)))
        }

        fn has(&self, id: Id) -> bool {
            self.guests.0.contains_key(&id)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_network_the_oldest_that_has_proven_nothing_goes_and_of_others_nobody() {
        let mut house = House::default();
        let (peer, _) = house.enter("2001:db8::1", true);
        let (other, _) = house.enter("10.0.0.2", false);
        let mut first = None;
        for n in 0..MAX_UNPROVEN {
            tokio::time::advance(Duration::from_millis(1)).await;
            let (id, crowded) = house.enter(&format!("2001:db8::{n:x}"), false);
            assert!(!crowded, "{n}");
            first.get_or_insert(id);
        }
        let (late, crowded) = house.enter("2001:db8::ffff", false);
        assert!(crowded && !house.has(first.expect("one came first")), "the oldest of the same 64 bits");
        assert!(house.has(late) && house.has(peer) && house.has(other));
        assert!(house.tasks.join_next().await.is_some_and(|ended| ended.is_err()), "its task was ended");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_is_full_whoever_has_proven_nothing_goes_and_only_then_the_oldest_peer_of_the_largest_network()
     {
        let mut house = House::default();
        let (lonely, _) = house.enter("10.9.9.9", true);
        let mut first = None;
        for n in 0..MAX_CONNECTIONS_IN - 2 {
            tokio::time::advance(Duration::from_millis(1)).await;
            let (id, _) = house.enter(&format!("10.0.0.{}", n % 3), true);
            first.get_or_insert(id);
        }
        let (silent, crowded) = house.enter("10.0.1.1", false);
        assert!(!crowded);
        assert!(house.enter("10.0.1.2", true).1 && !house.has(silent));
        assert!(house.enter("10.0.1.3", true).1);
        assert!(!house.has(first.expect("one came first")) && house.has(lonely));
    }
}
