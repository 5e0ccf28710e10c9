//! chitchat: membership, and how far every owner has come, from which whoever missed a push sees that it did. The only
//! module that names it, so its traps are all met here:
//!
//! - an owner's state is two short values that are overwritten and never deleted, so there are no tombstones to
//!   collect, no resets, no copy of every record, and one message holds it all;
//! - a predicate that is always false keeps it from cloning every state in every round;
//! - what a peer may have written over our own values is put right in the next round;
//! - what would end it is not let through, see [`vet`];
//! - its `recv` never fails, because that would end gossip for good; its end ends the process.

pub mod vet;

use std::collections::HashMap;
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

use self::vet::Vet;
use super::counters::{Counters, Dropped};
use super::session::Peer;
use super::{Hearer, slots};
use gossd_core::agent::News;
use gossd_core::complaint::Refusal;
use gossd_core::record::Owner;
use gossd_core::slot::{Change, Content, Status, Version};

/// The key of what an owner says of itself: the word of a [`Status`].
const STATUS: &str = "status";
/// The key of how far it has come: a [`Version`].
const VERSION: &str = "version";
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
    pub members: watch::Sender<Vec<Member>>,
    /// What we say.
    pub said: watch::Receiver<Said>,
}

/// What everybody is to know of what we have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Of ourselves, last.
    pub status: Option<Status>,
    /// How far we have come.
    pub version: Version,
}

impl Said {
    /// Includes a change.
    pub fn include(&mut self, change: &Change) {
        self.version = self.version.max(change.cell.version);
        if let Content::Status(status) = change.cell.content {
            self.status = Some(status);
        }
    }
}

/// Another agent's start, as chitchat knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose.
    pub owner: Owner,
    /// Where it is, or was.
    pub addr: SocketAddr,
    /// Whether it said goodbye.
    pub left: bool,
    /// How far it has come, as somebody heard.
    pub version: Version,
}

/// A running chitchat.
pub struct AntiEntropy {
    /// Takes messages from peers.
    pub incoming: mpsc::Sender<(Peer, Vec<u8>)>,
    /// Takes peers to exchange states with now.
    pub handshakes: mpsc::Sender<SocketAddr>,
    handle: ChitchatHandle,
    inner: Inner,
}

struct Inner {
    vet: Arc<Vet>,
    handshakes: mpsc::Receiver<SocketAddr>,
    said: watch::Receiver<Said>,
    members: watch::Sender<Vec<Member>>,
    interval: Duration,
    hearer: Arc<dyn Hearer>,
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
        hearer: Arc<dyn Hearer>,
        counters: Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let (incoming, messages) = mpsc::channel(QUEUE);
        let (handshakes, handshakes_rx) = mpsc::channel(QUEUE);
        let vet = Arc::new(Vet::new(id(&settings)));
        let (outgoing, hearer_too) = (channels.outgoing, hearer.clone());
        let socket =
            FrameSocket { incoming: messages, outgoing, counters, vet: vet.clone(), hearer: hearer_too };
        let transport = FrameTransport(Mutex::new(Some(socket)));
        let handle = spawn_chitchat(config(&settings), Vec::new(), &transport).await?;
        let met = Arc::new(Notify::new());
        subscribe(&handle, met.clone()).await;
        let inner = Inner {
            vet,
            handshakes: handshakes_rx,
            said: channels.said,
            members: channels.members,
            interval: settings.interval,
            hearer,
            met,
            known: HashMap::new(),
        };
        Ok(Self { incoming, handshakes, handle, inner })
    }

    /// Runs until chitchat ends, which it does only by a fault.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let ended = self.handle.termination_watcher();
        tokio::pin!(ended);
        let mut rounds = interval(self.inner.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = self.inner.said.clone();
        let mut told = None;
        loop {
            tokio::select! {
                end = &mut ended => return end.and(Err(anyhow::anyhow!("chitchat ended"))).context("chitchat's task ended"),
                _ = rounds.tick() => {
                    self.inner.say(&self.handle).await;
                    self.inner.tell_members(&self.handle).await;
                }
                () = self.inner.met.notified() => self.inner.tell_members(&self.handle).await,
                Some(peer) = self.inner.handshakes.recv() => self.handle.gossip(peer)?,
                Ok(status) = other_status(&mut said, told) => {
                    told = status;
                    self.inner.say(&self.handle).await;
                }
            }
        }
    }
}

/// A round by hand, for fuzzers.
#[cfg(feature = "fuzz")]
impl AntiEntropy {
    /// What [`Self::run`] does in a round: what our own state is then, status and version.
    pub async fn round(&mut self) -> [Option<String>; 2] {
        self.inner.say(&self.handle).await;
        self.inner.tell_members(&self.handle).await;
        let chitchat = self.handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        let own = chitchat.self_node_state();
        [STATUS, VERSION].map(|key| own.get(key).map(str::to_owned))
    }

    /// Ends chitchat.
    pub fn end(self) {
        self.handle.abort();
    }
}

fn id(Settings { owner, addr, .. }: &Settings) -> ChitchatId {
    ChitchatId::new(owner.name.as_str(), owner.generation, *addr)
}

fn config(settings: &Settings) -> ChitchatConfig {
    let Settings { addr, interval, cluster, dead_grace, .. } = settings;
    ChitchatConfig {
        chitchat_id: id(settings),
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

/// Tells when a status is heard, perhaps of somebody new. The callback runs under chitchat's lock, inside its task: it
/// must not panic, nor touch chitchat.
async fn subscribe(handle: &ChitchatHandle, met: Arc<Notify>) {
    let listen = move |chitchat: &mut Chitchat| {
        let met = met.clone();
        chitchat.subscribe_event(STATUS, move |_| met.notify_one())
    };
    handle.with_chitchat(listen).await.forever();
}

/// Waits until we say something else of ourselves; how far we have come can wait for the next round.
async fn other_status(
    said: &mut watch::Receiver<Said>,
    told: Option<Status>,
) -> Result<Option<Status>, watch::error::RecvError> {
    said.wait_for(|said| said.status != told).await.map(|said| said.status)
}

/// 0 for what makes no sense: nobody asks for anything then.
fn parse_version(text: &str) -> Version {
    number(text).unwrap_or_default()
}

fn number(digits: &str) -> Option<Version> {
    digits.parse().ok().filter(|number| *number <= slots::MAX_VERSION)
}

fn member(id: &ChitchatId, state: &NodeState) -> Option<Member> {
    let left = state.get(STATUS) == Some(slots::word(Status::Left));
    let version = state.get(VERSION).map_or(0, parse_version);
    Some(Member { owner: owner(id)?, addr: id.gossip_advertise_addr, left, version })
}

fn owner(id: &ChitchatId) -> Option<Owner> {
    Some(Owner { name: id.node_id.parse().ok()?, generation: id.generation_id })
}

impl Inner {
    /// Puts what we have said into our state, unless it is there.
    async fn say(&self, handle: &ChitchatHandle) {
        let said = *self.said.borrow();
        let Some(status) = said.status else { return };
        let chitchat = handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        let own = chitchat.self_node_state();
        for (key, value) in [(VERSION, said.version.to_string()), (STATUS, slots::word(status).to_owned())] {
            if own.get(key) != Some(&value) {
                own.set(key, value);
            }
        }
    }

    /// Tells who is known, and who was and is not any more.
    async fn tell_members(&mut self, handle: &ChitchatHandle) {
        let chitchat = handle.chitchat();
        let chitchat = chitchat.lock().await;
        let us = chitchat.self_chitchat_id();
        self.vet.set_known(chitchat.node_states().keys());
        let states = chitchat.node_states().iter().filter(|(id, _)| *id != us);
        let now = Instant::now();
        let mut known: HashMap<ChitchatId, Pulse> = HashMap::new();
        for (id, state) in states {
            let (pulse, lives) = Pulse::next(self.known.get(id).copied(), now, state.heartbeat().into());
            known.insert(id.clone(), pulse);
            if let Some(owner) = owner(id).filter(|_| lives) {
                self.hearer.hear(News::Hearsay { owner });
            }
        }
        for id in self.known.keys().filter(|id| !known.contains_key(id)) {
            // Another address under the same name and generation is the same agent.
            if !known.keys().any(|other| owner(other) == owner(id))
                && let Some(owner) = owner(id)
            {
                self.hearer.hear(News::Forgotten { owner });
            }
        }
        let members = chitchat.node_states().iter().filter(|(id, _)| *id != us);
        self.members.send_replace(members.filter_map(|(id, state)| member(id, state)).collect());
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
    incoming: mpsc::Receiver<(Peer, Vec<u8>)>,
    outgoing: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    counters: Arc<Counters>,
    vet: Arc<Vet>,
    hearer: Arc<dyn Hearer>,
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

    /// Cancel-safe: the queue is, and nothing is awaited after it.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.incoming.recv().await else {
                // The gossip has ended, and with it the process; an error would only be logged twice.
                return std::future::pending().await;
            };
            if self.vet.look(&bytes).is_ok()
                && let Ok(message) = ChitchatMessage::deserialize(&mut &bytes[..])
            {
                return Ok((from.addr, message));
            }
            self.counters.count(Dropped::Malformed);
            self.hearer.hear(News::Refused { by: from.owner, why: Refusal::Malformed, times: 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gossd_core::replica::Part;
    use gossd_core::slot::Slot;

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

    #[test]
    fn a_mark_comes_back_and_what_is_none_says_nothing() {
        let version = slots::MAX_VERSION;
        assert_eq!(parse_version(&version.to_string()), version);
        for text in ["", "-1", "x", "1 2", "99999999999999999"] {
            assert_eq!(parse_version(text), 0, "{text}");
        }
    }

    struct Deaf;

    impl Hearer for Deaf {
        fn hear(&self, _: News) {}

        fn version(&self, _: &Owner) -> Option<Version> {
            None
        }

        fn part(&self, _: &Owner, _: Version, _: Slot) -> Option<Part> {
            None
        }
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
        let (members, said) = (watch::channel(Vec::new()).0, watch::channel(Said::default()).1);
        let channels = Channels { outgoing, members, said };
        let started = AntiEntropy::start(settings, channels, Arc::new(Deaf), Arc::default()).await.unwrap();
        started.handle.abort();
        let error = started.run().await.unwrap_err().to_string();
        assert!(error.contains("chitchat"), "{error}");
    }
}
