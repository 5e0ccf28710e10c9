//! chitchat: membership, and the repair of whatever a push missed. The only file that names it, so its traps
//! are all met here:
//!
//! - its state is slots that are overwritten and never deleted, so there are no tombstones to collect and no
//!   resets that a large newcomer could not finish;
//! - a predicate that is always false keeps it from cloning every state in every round;
//! - a large answer is followed by a question at once, one at a time, so that newcomers do not wait a round
//!   for each 64 KB;
//! - its `recv` never fails, because that would end gossip for good; its end ends the process.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable as _,
    FailureDetectorConfig, NodeState, Serializable as _, spawn_chitchat,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::counters::{Counters, Dropped};
use super::{Event, Sink, slots};
use crate::domain::record::Owner;
use crate::domain::slot::{Change, Content, STATUS_SLOT, Status};

/// An answer of this many bytes was cut at 64 kB: there is more to ask for. Cutting leaves up to one block of
/// 16 kB free, and a digest takes its part.
const LARGE: usize = 32 << 10;
/// A question that was not answered for this long does not keep another from being asked.
const ANSWER: Duration = Duration::from_secs(1);
/// Messages that wait for chitchat; more are dropped, and asked for again in a later round.
const QUEUE: usize = 256;
/// Failure detector settings that measured well: at 1 s rounds a death is noticed after 6 to 7 s, and no live
/// agent is condemned.
const PHI: f64 = 8.0;
const SAMPLES: usize = 5;
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// Dead agents leave the digest after this long; minutes, so that an agent that crashes again and again
/// cannot fill it.
pub const DEAD_GRACE: Duration = Duration::from_secs(300);

/// What anti-entropy needs to know.
pub struct Settings {
    /// Who we are.
    pub owner: Owner,
    /// Where peers reach us.
    pub addr: SocketAddr,
    /// How often to exchange states with some peers.
    pub interval: Duration,
    /// The cluster's id.
    pub cluster: String,
    /// When dead agents leave the digest.
    pub dead_grace: Duration,
}

/// What flows between chitchat and the rest of the gossip.
pub struct Channels {
    /// Messages that chitchat wants sent.
    pub outgoing: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    /// The members chitchat knows, after every round.
    pub members: watch::Sender<HashSet<Member>>,
}

/// Another agent's start, as chitchat knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Whose.
    pub owner: Owner,
    /// Where it is, or was.
    pub addr: SocketAddr,
    /// Whether it said goodbye.
    pub left: bool,
}

/// A running chitchat.
pub struct AntiEntropy {
    /// Takes messages from peers.
    pub incoming: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    /// Takes peers to exchange states with now.
    pub handshakes: mpsc::Sender<SocketAddr>,
    /// Takes changes of our own slots.
    pub writes: mpsc::Sender<Vec<Change>>,
    handle: ChitchatHandle,
    inner: Inner,
}

struct Inner {
    handshakes: mpsc::Receiver<SocketAddr>,
    writes: mpsc::Receiver<Vec<Change>>,
    members: watch::Sender<HashSet<Member>>,
    interval: Duration,
    sink: Sink,
    /// A member's status arrived: it may be one that we do not know.
    met: Arc<Notify>,
    /// Who was known in the last round.
    known: HashMap<ChitchatId, Pulse>,
}

/// Another agent's sign of life, as it is passed on: when a partition heals, it may be old news.
#[derive(Clone, Copy)]
struct Pulse {
    heartbeat: u64,
    /// When it rose last; none if it has not since the agent is known.
    risen: Option<Instant>,
}

impl Pulse {
    /// How long it may be between two rises that are one sign of life together.
    const GOES_ON: Duration = Duration::from_secs(5);

    /// The pulse at the next look, and whether it shows life: it has risen twice within moments. One rise may be what
    /// somebody remembered of the dead; a second one has been made since.
    fn next(before: Option<Self>, now: Instant, heartbeat: u64) -> (Self, bool) {
        match before {
            Some(before) if before.heartbeat < heartbeat => {
                let goes_on = before.risen.is_some_and(|risen| now - risen < Self::GOES_ON);
                (Self { heartbeat, risen: Some(now) }, goes_on)
            }
            Some(before) => (before, false),
            None => (Self { heartbeat, risen: None }, false),
        }
    }
}

impl AntiEntropy {
    /// Starts chitchat.
    pub async fn start(
        settings: Settings,
        channels: Channels,
        sink: Sink,
        counters: Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let (incoming, messages) = mpsc::channel(QUEUE);
        let (handshakes, handshakes_rx) = mpsc::channel(QUEUE);
        let (writes, writes_rx) = mpsc::channel(QUEUE);
        let socket = FrameSocket {
            incoming: messages,
            outgoing: channels.outgoing,
            handshakes: handshakes.clone(),
            asked: None,
            ask_next: None,
            counters: counters.clone(),
        };
        let transport = FrameTransport(Mutex::new(Some(socket)));
        let handle = spawn_chitchat(config(&settings), Vec::new(), &transport).await?;
        let met = Arc::new(Notify::new());
        subscribe(&handle, sink.clone(), met.clone(), counters).await;
        let inner = Inner {
            handshakes: handshakes_rx,
            writes: writes_rx,
            members: channels.members,
            interval: settings.interval,
            sink,
            met,
            known: HashMap::new(),
        };
        Ok(Self { incoming, handshakes, writes, handle, inner })
    }

    /// Runs until chitchat ends, which it does only by a fault.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let ended = self.handle.termination_watcher();
        tokio::pin!(ended);
        let mut rounds = interval(self.inner.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                end = &mut ended => return end.and(Err(anyhow::anyhow!("chitchat ended"))).context("chitchat's task ended"),
                _ = rounds.tick() => self.inner.tell_members(&self.handle).await,
                () = self.inner.met.notified() => self.inner.tell_members(&self.handle).await,
                Some(peer) = self.inner.handshakes.recv() => self.handle.gossip(peer)?,
                Some(changes) = self.inner.writes.recv() => write(&self.handle, &changes).await,
            }
        }
    }
}

fn config(settings: &Settings) -> ChitchatConfig {
    let Settings { owner, addr, interval, cluster, dead_grace } = settings;
    ChitchatConfig {
        chitchat_id: ChitchatId::new(owner.name.as_str(), owner.generation, *addr),
        cluster_id: cluster.clone(),
        gossip_interval: *interval,
        listen_addr: *addr,
        // Joining is done by pings, which follow DNS and need no restart.
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI,
            sampling_window_size: SAMPLES,
            max_interval: MAX_INTERVAL,
            initial_interval: *interval,
            dead_node_grace_period: *dead_grace,
        },
        marked_for_deletion_grace_period: *dead_grace,
        catchup_callback: None,
        extra_liveness_predicate: Some(Box::new(|_| false)),
    }
}

/// Passes every slot that chitchat learns to the sink. The callback runs under chitchat's lock, inside its
/// task: it must not panic, nor touch chitchat.
async fn subscribe(handle: &ChitchatHandle, sink: Sink, met: Arc<Notify>, counters: Arc<Counters>) {
    let listen = move |chitchat: &mut Chitchat| {
        let (sink, met, counters) = (sink.clone(), met.clone(), counters.clone());
        chitchat.subscribe_event("", move |event| {
            let (Some(owner), Ok(change)) = (owner(event.node), slots::parse(event.key, event.value)) else {
                return counters.count(Dropped::NotASlot);
            };
            if change.slot == STATUS_SLOT {
                met.notify_one();
            }
            sink(Event::Changed { owner, changes: vec![change] });
        })
    };
    handle.with_chitchat(listen).await.forever();
}

async fn write(handle: &ChitchatHandle, changes: &[Change]) {
    let chitchat = handle.chitchat();
    let mut chitchat = chitchat.lock().await;
    let own = chitchat.self_node_state();
    for Change { slot, cell } in changes {
        own.set(slots::key(*slot), slots::value(cell));
    }
}

fn member(id: &ChitchatId, state: &NodeState) -> Option<Member> {
    let key = slots::key(STATUS_SLOT);
    let status = state.get(&key).and_then(|value| slots::parse(&key, value).ok());
    let left = status.is_some_and(|status| status.cell.content == Content::Status(Status::Left));
    Some(Member { owner: owner(id)?, addr: id.gossip_advertise_addr, left })
}

fn owner(id: &ChitchatId) -> Option<Owner> {
    Some(Owner { name: id.node_id.parse().ok()?, generation: id.generation_id })
}

impl Inner {
    /// Tells who is known, and who was and is not any more. The sink is called under chitchat's lock, as the
    /// callback of [`subscribe`] is, so that what an agent says on its return cannot be overtaken by its end.
    async fn tell_members(&mut self, handle: &ChitchatHandle) {
        let chitchat = handle.chitchat();
        let chitchat = chitchat.lock().await;
        let us = chitchat.self_chitchat_id();
        let states = chitchat.node_states().iter().filter(|(id, _)| *id != us);
        let now = Instant::now();
        let mut known: HashMap<ChitchatId, Pulse> = HashMap::new();
        for (id, state) in states {
            let (pulse, lives) = Pulse::next(self.known.get(id).copied(), now, state.heartbeat().into());
            known.insert(id.clone(), pulse);
            if let Some(owner) = owner(id).filter(|_| lives) {
                (self.sink)(Event::Hearsay { owner });
            }
        }
        for id in self.known.keys().filter(|id| !known.contains_key(id)) {
            // Another address under the same name and generation is the same agent.
            if !known.keys().any(|other| owner(other) == owner(id))
                && let Some(owner) = owner(id)
            {
                (self.sink)(Event::Forgotten { owner });
            }
        }
        let members = chitchat.node_states().iter().filter(|(id, _)| *id != us);
        let members: HashSet<Member> = members.filter_map(|(id, state)| member(id, state)).collect();
        self.members.send_if_modified(|told| {
            let changed = *told != members;
            *told = members;
            changed
        });
        self.known = known;
    }
}

/// Hands the one socket out.
struct FrameTransport(Mutex<Option<FrameSocket>>);

#[async_trait]
impl Transport for FrameTransport {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(socket.ok_or_else(|| anyhow::anyhow!("opened twice"))?))
    }
}

/// chitchat's view of the sealed transport: two queues.
struct FrameSocket {
    incoming: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    outgoing: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    handshakes: mpsc::Sender<SocketAddr>,
    /// Whom we asked for more and when, until the answer.
    asked: Option<(SocketAddr, Instant)>,
    /// Whom to ask for more once chitchat has taken the message in hand.
    ask_next: Option<SocketAddr>,
    counters: Arc<Counters>,
}

#[async_trait]
impl Socket for FrameSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = message.serialize_to_vec();
        if matches!(message, ChitchatMessage::Syn { .. }) {
            self.counters.set_digest(bytes.len());
        }
        if self.outgoing.try_send((to, bytes)).is_err() {
            self.counters.count(Dropped::QueueFull);
        }
        Ok(())
    }

    /// Cancel-safe: the queue is, and nothing is awaited after it. That it is called again means that the
    /// message before has been taken in.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        if let Some(peer) = self.ask_next.take() {
            let _ = self.handshakes.try_send(peer);
        }
        loop {
            let Some((from, bytes)) = self.incoming.recv().await else {
                // The gossip has ended, and with it the process; an error would only be logged twice.
                return std::future::pending().await;
            };
            match ChitchatMessage::deserialize(&mut &bytes[..]) {
                Ok(message) => {
                    self.note_answer(from, &message, bytes.len());
                    return Ok((from, message));
                }
                Err(_) => self.counters.count(Dropped::Malformed),
            }
        }
    }
}

impl FrameSocket {
    fn note_answer(&mut self, from: SocketAddr, message: &ChitchatMessage, bytes: usize) {
        let answer = matches!(message, ChitchatMessage::SynAck { .. });
        if answer && self.asked.is_some_and(|(peer, _)| peer == from) {
            self.asked = None;
        }
        let waiting = self.asked.is_some_and(|(_, at)| at.elapsed() < ANSWER);
        if bytes >= LARGE && !waiting && (answer || matches!(message, ChitchatMessage::Ack { .. })) {
            self.asked = Some((from, Instant::now()));
            self.ask_next = Some(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_others_remember_of_the_dead_is_no_sign_of_life() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut pulse = None;
        let mut lives = |at: u64, heartbeat: u64| {
            let (next, lives) = Pulse::next(pulse, start + seconds(at), heartbeat);
            pulse = Some(next);
            lives
        };
        assert!(!lives(0, 7), "met");
        assert!(!lives(1, 8), "somebody knew more");
        assert!(lives(2, 9) && !lives(3, 9) && lives(4, 10));
        assert!(!lives(60, 40), "after a partition: old news, or not");
        assert!(lives(61, 41), "not");
    }

    #[tokio::test]
    async fn the_end_of_chitchat_is_an_error() {
        let settings = Settings {
            owner: Owner { name: "a".parse().unwrap(), generation: 1 },
            addr: "127.0.0.1:1".parse().unwrap(),
            interval: Duration::from_millis(10),
            cluster: "c".into(),
            dead_grace: DEAD_GRACE,
        };
        let (outgoing, _messages) = mpsc::channel(1);
        let channels = Channels { outgoing, members: watch::channel(HashSet::new()).0 };
        let started = AntiEntropy::start(settings, channels, Arc::new(|_| {}), Arc::default()).await.unwrap();
        started.handle.abort();
        let error = started.run().await.unwrap_err().to_string();
        assert!(error.contains("chitchat"), "{error}");
    }
}
