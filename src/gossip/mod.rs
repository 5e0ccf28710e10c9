//! How agents share their slots. [`Cluster::publish`] tells the peers; a [`Hearer`] hears from them.
//!
//! A change goes out as a push, which takes one network delay. How far an owner has come, a [`Version`], goes round by
//! chitchat, whose state is nothing but that: whoever sees that it has missed something asks for it, the owner or
//! anybody else who knows. Both ways meet in the hearer, which must not mind hearing things twice or in another order.
//!
//! ```text
//! publish ─▶ push ─▶ link ─▶ seal ─▶ transport ═▶ peers
//!     └version▶ antientropy (chitchat) ─▶ link ─▶ …
//! transport ─▶ link (open, session, replay window) ─▶ push changes ─▶ hearer
//!                                                  ├▶ antientropy ─▶ versions ─▶ repair: questions, answers ─▶ hearer
//!                                                  └▶ keys ─▶ keyring in force ─▶ seal, key file
//! ```

pub mod antientropy;
pub(crate) mod contest;
pub mod counters;
pub(crate) mod driver;
pub(crate) mod handover;
pub mod incoming;
pub(crate) mod join;
pub(crate) mod keyfile;
pub mod keyring;
pub(crate) mod keys;
pub(crate) mod levels;
pub mod link;
mod metrics;
pub(crate) mod ping;
pub(crate) mod push;
pub(crate) mod ran;
pub(crate) mod recent;
pub(crate) mod repair;
pub(crate) mod roll;
pub mod seal;
pub mod session;
pub mod slots;
pub mod transport;
pub mod wire;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub use self::antientropy::DEAD_GRACE;
pub use self::join::JoinPoint;

use self::antientropy::{AntiEntropy, Channels, Said, Settings};
use self::counters::Counters;
use self::driver::{Driver, KeyInput};
use self::incoming::Inbox;
use self::keyring::Keyring;
use self::keys::{Refused, Report};
use self::link::Link;
use self::seal::Sealer;
use self::transport::{Bound, Faults, Transport};
use gossd_core::agent::News;
use gossd_core::record::Owner;
use gossd_core::replica::Part;
use gossd_core::slot::{Change, Slot, Version};

/// How often agents exchange memberships. What pushes missed is noticed at pings, sooner; a second instead of this would
/// be a fifth more of what idle agents say.
pub const INTERVAL: Duration = Duration::from_millis(1_200);
/// Batches of changes and frames that wait between two tasks.
const QUEUE: usize = 64;

/// How an agent takes part in its cluster.
pub struct Config {
    /// Who we are.
    pub owner: Owner,
    /// Where peers reach us.
    pub advertise: SocketAddr,
    /// Where to find peers; resolved again and again.
    pub join: Vec<JoinPoint>,
    /// Keys. With [`Keyring::public`] only loopback is safe.
    pub keyring: Keyring,
    /// Where they are kept, if they are.
    pub key_file: Option<PathBuf>,
    /// Tells when that is to be read again.
    pub reload: watch::Receiver<()>,
    /// Cluster id: agents of different ids do not understand each other.
    pub cluster: String,
    /// [`INTERVAL`], or shorter in tests.
    pub interval: Duration,
    /// [`DEAD_GRACE`], or shorter in tests.
    pub dead_grace: Duration,
    /// For tests.
    pub faults: Option<Faults>,
}

/// Who hears from the cluster, and remembers what owners said. Called from several tasks; must be quick, and must not
/// panic.
pub trait Hearer: Send + Sync {
    /// Hears what happened.
    fn hear(&self, news: News);

    /// How far an owner's words are known; none if nobody wants to know them.
    fn version(&self, owner: &Owner) -> Option<Version>;

    /// What an owner said after a version, from a slot on; none if that is not known without gaps.
    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part>;
}

/// A peer that is heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Who.
    pub owner: Owner,
    /// Where its gossip is.
    pub addr: SocketAddr,
    /// How late its pushes come, in seconds.
    pub lag: Histogram,
}

/// A running membership.
#[derive(Clone)]
pub struct Cluster {
    pushes: mpsc::Sender<driver::Publication>,
    said: watch::Sender<Said>,
    points: watch::Sender<Vec<JoinPoint>>,
    keys: mpsc::Sender<KeyInput>,
    peers: watch::Receiver<Vec<Heard>>,
    counters: Arc<Counters>,
}

impl Cluster {
    /// Joins the cluster on bound sockets. The tasks in the set run until it is dropped; one that ends
    /// earlier is a fault that must end the process.
    pub async fn start(
        bound: Bound,
        config: Config,
        hearer: Arc<dyn Hearer>,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let sealer = Arc::new(Sealer::new(config.keyring, &config.cluster));
        let (transport, listener) = Transport::new(bound, counters.clone(), config.faults);
        let (outgoing, outgoing_rx) = mpsc::channel(4 * QUEUE);
        let (members, members_rx) = watch::channel(Vec::new());
        let (joins, joins_rx) = watch::channel(std::collections::HashSet::new());
        let settings = Settings {
            owner: config.owner.clone(),
            addr: config.advertise,
            interval: config.interval,
            cluster: config.cluster,
            dead_grace: config.dead_grace,
        };
        let (said, said_rx) = watch::channel(Said::default());
        let channels = Channels { outgoing, members, said: said_rx };
        let anti_entropy = AntiEntropy::start(settings, channels, hearer.clone(), counters.clone()).await?;
        let (pushes, pushes_rx) = mpsc::channel(QUEUE);
        let (frames, frames_rx) = mpsc::channel(QUEUE);
        let (rejected, rejected_rx) = mpsc::channel(QUEUE);
        let (keys, keys_rx) = mpsc::channel(QUEUE);
        let (peers, peers_rx) = watch::channel(Vec::new());
        let (points, points_rx) = watch::channel(config.join);
        let cluster =
            Self { pushes, said, points, keys: keys.clone(), peers: peers_rx, counters: counters.clone() };
        let name = config.owner.name.clone();
        let rng = StdRng::from_rng(&mut rand::rng());
        let link = Link::new(config.owner, config.advertise, sealer.clone(), counters.clone(), rng);
        let driver = Driver {
            link: if config.key_file.is_some() { link } else { link.without_key_file() },
            transport,
            sealer: sealer.clone(),
            hearer,
            counters: counters.clone(),
            incoming: anti_entropy.incoming.clone(),
            handshakes: anti_entropy.handshakes.clone(),
            peers,
            rejections: driver::Rejections::default(),
            unsettled: Vec::new(),
            name,
            started: tokio::time::Instant::now(),
            name_logged: None,
            counted: tokio::time::Instant::now(),
        };
        let inputs = driver::Inputs {
            pushes: pushes_rx,
            outgoing: outgoing_rx,
            frames: frames_rx,
            rejected: rejected_rx,
            members: members_rx,
            joins: joins_rx,
            keys: keys_rx,
        };
        if let Some(path) = config.key_file {
            tasks.spawn(keyfile::keep(path, sealer.watch(), config.reload, keys));
        }
        tasks.spawn(driver.run(inputs));
        tasks.spawn(anti_entropy.run());
        tasks.spawn(join::resolve(points_rx, joins));
        tasks.spawn(async move {
            incoming::accept(listener, Inbox { sealer, frames, rejected, counters }).await;
            Ok(())
        });
        Ok(cluster)
    }

    /// Tells the peers of changes of our own slots, after all that was told before and with nothing left out. Waits
    /// while the task behind is busy; never for a peer.
    pub async fn publish(&self, changes: Vec<Change>) {
        // Marks are looked at when a round begins; only a status is worth waking somebody for.
        self.said.send_if_modified(|said| {
            let before = said.status;
            for change in &changes {
                said.include(change);
            }
            said.status != before
        });
        // The receiver lives as long as the task, whose end ends the process.
        let _ = self.pushes.send(driver::Publication { changes, settled: None }).await;
    }

    /// Waits until what was published is acknowledged by, or given up on, every peer.
    pub async fn settled(&self) {
        let (settled, done) = oneshot::channel();
        let _ = self.pushes.send(driver::Publication { changes: Vec::new(), settled: Some(settled) }).await;
        let _ = done.await;
    }

    /// Looks for peers there from now on. Those that are met stay.
    pub fn join(&self, points: Vec<JoinPoint>) {
        self.points.send_replace(points);
    }

    /// Everybody's keys.
    pub async fn key_report(&self) -> Result<Report, Refused> {
        let (reply, report) = oneshot::channel();
        let _ = self.keys.send(KeyInput::Report(reply)).await;
        report.await.unwrap_or(Err(Refused::Ending))
    }

    /// Changes the keys, here at once and everywhere soon, unless that is unsafe and not forced.
    pub async fn change_keys(&self, change: keyring::Change, force: bool) -> Result<(), Refused> {
        let (done, result) = oneshot::channel();
        let _ = self.keys.send(KeyInput::Change { change, force, done }).await;
        result.await.unwrap_or(Err(Refused::Ending))
    }

    /// How many peers are heard at present.
    pub fn peers(&self) -> usize {
        self.peers.borrow().len()
    }

    /// The peers that are heard at present.
    pub fn peers_now(&self) -> Vec<Heard> {
        self.peers.borrow().clone()
    }

    /// Whether an agent is heard at that address.
    pub fn hears_at(&self, ip: IpAddr) -> bool {
        self.peers.borrow().iter().any(|peer| peer.addr.ip().to_canonical() == ip)
    }

    /// The same, with a notice whenever one comes or goes.
    pub fn watch_peers(&self) -> watch::Receiver<Vec<Heard>> {
        self.peers.clone()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The address of `bound` as peers should know it, given the host part.
pub fn advertised(bound: &Bound, host: IpAddr) -> SocketAddr {
    SocketAddr::new(host, bound.addr.port())
}
