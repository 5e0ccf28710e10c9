//! The network around [`gossd_core::link`]: sockets, the task that owns the link, names to join at, and the key file.
//!
//! ```text
//! agent ─publish─▶ driver (owns the link) ─frames─▶ transport ═▶ peers
//! transport, incoming ═▶ driver ─▶ link ─▶ what changed ─▶ agent
//! ```

mod driver;
pub mod incoming;
pub(crate) mod join;
pub mod keyfile;
mod log;
mod metrics;
mod overflow;
pub(crate) mod probe;
mod remembered;
pub mod transport;
mod unanswered;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::join::JoinPoint;

use self::driver::{Command, Driver, Inputs, Outputs, Publication};
use self::incoming::Inbox;
use self::overflow::Overflow;
use self::remembered::Places;
pub use self::remembered::Remembered;
use self::transport::{Bound, Faults, Transport};
use self::unanswered::Minder;
use crate::metrics::LAG_BUCKETS;
use crate::sentence::Sentence;
use gossd_core::agent::Seek;
use gossd_core::link::counters::{Counters, Dropped};
use gossd_core::link::joins::Joins;
use gossd_core::link::keyring::{self, KeyId, Keyring};
use gossd_core::link::keys::{KeyReport, KeysRefused};
use gossd_core::link::{Link, LinkSettings, NotBuried, Peer, PeerCard, ReplicaStore};
use gossd_core::record::{AgentName, Generation, Owner};
use gossd_core::slot::Change;

/// Batches of changes and frames that wait between two tasks.
const QUEUE: usize = 64;

/// How an agent takes part in its cluster.
pub struct NetConfig {
    /// Who we are.
    pub owner: Owner,
    /// Where peers reach us.
    pub advertise: SocketAddr,
    /// The private key of our identity.
    pub identity: [u8; 32],
    /// Where to find peers; resolved again and again.
    pub join: Vec<JoinPoint>,
    /// Peers of an earlier start, who are looked for as well.
    pub remembered: Remembered,
    /// Keys. With [`Keyring::public`] only loopback is safe.
    pub keyring: Keyring,
    /// Where they are kept, if they are.
    pub key_file: Option<PathBuf>,
    /// Tells when that is to be read again.
    pub reload: watch::Receiver<()>,
    /// Cluster id: agents of different ids do not understand each other.
    pub cluster: String,
    /// [`gossd_core::link::INTERVAL`], or shorter in tests.
    pub interval: Duration,
    /// [`gossd_core::link::DEAD_GRACE`], or shorter in tests.
    pub dead_grace: Duration,
    /// [`gossd_core::link::MESH`], or less in tests.
    pub mesh: usize,
    /// For tests.
    pub faults: Option<Faults>,
}

/// A running membership.
#[derive(Clone)]
pub struct Cluster {
    pushes: mpsc::Sender<Publication>,
    seeks: mpsc::Sender<Vec<Seek>>,
    places: Places,
    commands: mpsc::Sender<Command>,
    host: watch::Sender<(SocketAddr, BTreeSet<IpAddr>)>,
    peers: watch::Receiver<Vec<Peer>>,
    keyring: watch::Receiver<Arc<Keyring>>,
    superseded: watch::Receiver<Option<Generation>>,
    unanswered: watch::Receiver<Vec<Sentence>>,
    counters: Arc<Counters>,
    lags: Histogram,
}

impl Cluster {
    /// Joins the cluster on bound sockets. The tasks in the set run until it is dropped; one that ends earlier is a fault
    /// that must end the process.
    pub fn start(
        bound: Bound,
        config: NetConfig,
        replicas: Box<dyn ReplicaStore + Send>,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let NetConfig {
            owner,
            advertise,
            identity,
            join,
            remembered,
            keyring,
            key_file,
            reload,
            cluster,
            interval,
            dead_grace,
            mesh,
            faults,
        } = config;
        let settings = LinkSettings {
            owner,
            addr: advertise,
            identity,
            version: env!("CARGO_PKG_VERSION").into(),
            keyring,
            key_file: key_file.is_some(),
            cluster,
            interval,
            dead_grace,
            mesh,
            seed: rand::random(),
        };
        let link = Link::new(Instant::now().into_std(), settings, counters.clone());
        let at = bound.addr;
        tasks.spawn(overflow::watch(Overflow::of(&bound, counters.clone())));
        let (reached, reached_rx) = mpsc::channel(QUEUE);
        let (transport, listener) = Transport::new(bound, counters.clone(), faults, reached);
        let (pushes, pushes_rx) = mpsc::channel(QUEUE);
        let (seeks, seeks_rx) = mpsc::channel(QUEUE);
        let (frames, frames_rx) = mpsc::channel(QUEUE);
        let (commands, commands_rx) = mpsc::channel(QUEUE);
        let (joins, joins_rx) = watch::channel(BTreeSet::new());
        let (peers, peers_rx) = watch::channel(Vec::new());
        let places = Places::new(join, remembered);
        let in_force = watch::Sender::new(link.keyring().clone());
        let keyring = in_force.subscribe();
        let inbox = Inbox { frames, counters: counters.clone() };
        if let Some(path) = key_file {
            tasks.spawn(keyfile::keep(path, in_force.subscribe(), reload, commands.clone()));
        }
        let (superseded, superseded_rx) = watch::channel(None);
        let (host, host_rx) = watch::channel((advertise, BTreeSet::new()));
        let (states, states_rx) = watch::channel(Joins::new());
        let lags = Histogram::new(LAG_BUCKETS);
        let outputs = Outputs {
            transport,
            bound: at,
            peers,
            lags: lags.clone(),
            keyring: in_force,
            replicas,
            joins: states,
            superseded,
        };
        let inputs = Inputs {
            pushes: pushes_rx,
            seeks: seeks_rx,
            frames: frames_rx,
            reached: reached_rx,
            joins: joins_rx,
            commands: commands_rx,
            host: host_rx,
        };
        tasks.spawn(Driver::new(link, outputs).run(inputs));
        let (unanswered, unanswered_rx) = watch::channel(Vec::new());
        let (resolved, resolved_rx) = watch::channel(HashMap::new());
        let minder = Minder {
            places: places.clone(),
            resolved: resolved_rx,
            states: states_rx,
            peers: peers_rx.clone(),
            ours: at,
        };
        tasks.spawn(minder.run(unanswered));
        tasks.spawn(join::resolve(places.points(), resolved, joins));
        tasks.spawn(async move {
            incoming::accept(listener, inbox).await;
            Ok(())
        });
        Self {
            pushes,
            seeks,
            places,
            commands,
            host,
            peers: peers_rx,
            keyring,
            superseded: superseded_rx,
            unanswered: unanswered_rx,
            counters,
            lags,
        }
    }

    /// Pushes changes of our own slots to the peers, after all that was published before and with nothing left out. Waits
    /// while the task behind is busy; never for a peer.
    pub async fn publish(&self, changes: Vec<Change>) {
        // The receiver lives as long as the task, whose end ends the process.
        let _ = self.pushes.send(Publication { changes, settled: None }).await;
    }

    /// Asks peers for detours. If the task behind is busy, they are asked the next time.
    pub fn seek(&self, seeks: Vec<Seek>) {
        if self.seeks.try_send(seeks).is_err() {
            self.counters.count(Dropped::QueueFull);
        }
    }

    /// Waits until what was published is acknowledged by, or given up on, every peer.
    pub async fn settled(&self) {
        let (settled, done) = oneshot::channel();
        let _ = self.pushes.send(Publication { changes: Vec::new(), settled: Some(settled) }).await;
        let _ = done.await;
    }

    /// Looks for peers there from now on. Those that are met stay.
    pub fn join(&self, points: Vec<JoinPoint>) {
        self.places.configure(points);
    }

    /// The peers of an earlier start, but for those that left or were forgotten since.
    pub(crate) fn remembered(&self) -> watch::Receiver<Remembered> {
        self.places.remembered()
    }

    /// Does not look any more for a peer of an earlier start. Whether it was one.
    pub(crate) fn forget_remembered(&self, name: &AgentName) -> bool {
        self.places.forget(name)
    }

    /// Where peers are looked for.
    pub(crate) fn points(&self) -> Vec<JoinPoint> {
        self.places.points().borrow().clone()
    }

    /// Peers reach this host there from now on; `addresses` are all that it has.
    pub(crate) fn readdress(&self, addr: SocketAddr, addresses: BTreeSet<IpAddr>) {
        self.host.send_replace((addr, addresses));
    }

    /// The keys in force.
    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        self.keyring.borrow().clone()
    }

    /// The key that seals; none without keys.
    pub fn sealing(&self) -> Option<KeyId> {
        let keyring = self.keyring.borrow();
        (!keyring.is_public()).then(|| keyring.sealing())
    }

    /// What is known of every peer, whether it is heard or not, by name.
    pub async fn cards(&self) -> Vec<PeerCard> {
        let (reply, cards) = oneshot::channel();
        let _ = self.commands.send(Command::Cards(reply)).await;
        // None if the task behind has ended, which ends the process.
        cards.await.unwrap_or_default()
    }

    /// Forgets a silent agent here, and at every peer as soon as it is dead from there.
    pub async fn bury(&self, name: AgentName) -> Result<(), NotBuried> {
        let (done, result) = oneshot::channel();
        let _ = self.commands.send(Command::Bury(name, done)).await;
        result.await.unwrap_or(Err(NotBuried::Unknown))
    }

    /// Everybody's keys.
    pub async fn key_report(&self) -> Result<KeyReport, KeysRefused> {
        let (reply, report) = oneshot::channel();
        let _ = self.commands.send(Command::Report(reply)).await;
        report.await.unwrap_or(Err(KeysRefused::Ending))
    }

    /// Changes the keys, here at once and everywhere soon, unless that is unsafe and not forced.
    pub async fn change_keys(&self, change: keyring::KeyringChange, force: bool) -> Result<(), KeysRefused> {
        let (done, result) = oneshot::channel();
        let _ = self.commands.send(Command::Change { change, force, done }).await;
        result.await.unwrap_or(Err(KeysRefused::Ending))
    }

    /// Waits until peers know a later start of this agent, so that nothing of this one counts with them: which.
    pub async fn superseded(&self) -> Generation {
        let mut superseded = self.superseded.clone();
        let found = superseded.wait_for(Option::is_some).await.ok().and_then(|later| *later);
        match found {
            Some(generation) => generation,
            // The task behind has ended, which ends the process.
            None => std::future::pending().await,
        }
    }

    /// The places to join at that have not answered for a while, and why as far as can be told: a sentence each.
    pub fn unanswered(&self) -> Vec<Sentence> {
        self.unanswered.borrow().clone()
    }

    /// How many peers are live at present.
    pub fn peers(&self) -> usize {
        self.peers.borrow().len()
    }

    /// The peers that are live at present.
    pub fn peers_now(&self) -> Vec<Peer> {
        self.peers.borrow().clone()
    }

    /// Whether a live agent is at that address.
    pub fn hears_at(&self, ip: IpAddr) -> bool {
        self.peers.borrow().iter().any(|peer| peer.addr.ip().to_canonical() == ip)
    }

    /// The live peers, with a notice whenever one comes or goes.
    pub fn watch_peers(&self) -> watch::Receiver<Vec<Peer>> {
        self.peers.clone()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
