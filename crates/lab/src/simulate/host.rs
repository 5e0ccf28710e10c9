//! A simulated host: a real agent on the network in memory, with a journal in memory that a crash leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gossd::agent::{Agent, Dialling};
use gossd::gossip::keyring::Keyring;
use gossd::gossip::{Cluster, Config, INTERVAL};
use gossd_core::agent::Batch;
use gossd_core::agent::{Broken, Restored, Settings};
use gossd_core::entrypoints::{EntrypointKey, Registered};
use gossd_core::hostname::{Claim, ClaimKey};
use gossd_core::label::Label;
use gossd_core::lease::{Kept, Word};
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::{Generation, Owner};
use gossd_core::tombstone::Release;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::net::{Network, address};

/// Dead agents are forgotten after this: sooner than by default, so that it happens.
pub(crate) const DEAD_GRACE: Duration = Duration::from_secs(20);
/// When simulations begin, by the wall clock, in milliseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000;

/// What is on a host's disk.
#[derive(Default)]
pub(crate) struct Disk {
    words: BTreeMap<Label, Word>,
    released: Vec<(Label, Release)>,
    periods: BTreeMap<Label, Duration>,
    entrypoints: BTreeMap<EntrypointKey, Registered>,
    draining: bool,
    claims: BTreeMap<ClaimKey, Arc<Claim>>,
    generation: Generation,
}

/// See the module.
pub(crate) struct Host {
    /// Which.
    pub number: usize,
    /// How far its wall clock is ahead, in milliseconds.
    pub clock_ahead: i64,
    /// How long its records live after its last sign of life.
    pub ttl: Duration,
    /// How often it exchanges states; [`INTERVAL`].
    pub interval: Duration,
    /// What of its agent does not work.
    pub(crate) broken: Broken,
    /// When its agent was started last.
    pub started: Option<Instant>,
    disk: Arc<Mutex<Disk>>,
    running: Option<Running>,
}

/// An agent that runs.
pub(crate) struct Running {
    /// It.
    pub agent: Agent,
    /// Its gossip.
    pub cluster: Cluster,
    /// Since when.
    pub since: Instant,
    _tasks: JoinSet<()>,
}

impl Host {
    /// A host without an agent.
    pub(crate) fn new(number: usize, ttl: Duration) -> Self {
        let disk = Arc::default();
        Self {
            number,
            clock_ahead: 0,
            ttl,
            interval: INTERVAL,
            broken: Broken::default(),
            started: None,
            disk,
            running: None,
        }
    }

    /// Its agent, if it runs.
    pub(crate) fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// The agent is gone at once, with all that it would still have said and written.
    pub(crate) fn crash(&mut self, network: &Network) {
        network.unplug(self.number);
        self.running = None;
    }

    /// Nothing is left of what was written.
    pub(crate) fn lose_disk(&mut self) {
        self.disk = Arc::default();
    }

    /// Starts an agent with what the disk has.
    pub(crate) async fn start(
        &mut self,
        network: &Network,
        join: &[usize],
        now: Duration,
    ) -> anyhow::Result<()> {
        let wall = (EPOCH + u64::try_from(now.as_millis())?).saturating_add_signed(self.clock_ahead);
        let (generation, restored) = restore(&self.disk, wall);
        let owner = Owner { name: format!("host-{}", self.number).parse()?, generation };
        let settings = Settings {
            owner: owner.clone(),
            lease_ttl: self.ttl,
            order: Order::Random,
            quota: Quota::default(),
            private: BTreeSet::new(),
            broken: self.broken,
            hurry: 1,
        };
        let agent = Agent::new(settings, restored);
        agent.use_journal();
        let others = join.iter().filter(|host| **host != self.number);
        let config = Config {
            owner,
            advertise: address(self.number),
            join: others.map(|host| address(*host).to_string().parse()).collect::<Result<_, _>>()?,
            keyring: Keyring::public(),
            key_file: None,
            reload: watch::channel(()).1,
            cluster: "simulated".into(),
            interval: self.interval,
            dead_grace: DEAD_GRACE,
            faults: None,
        };
        let hearer = Arc::new(agent.clone());
        let mut gossip = JoinSet::new();
        let cluster = Cluster::start(network.plug(self.number).into(), config, hearer, &mut gossip).await?;
        let mut tasks = JoinSet::new();
        let (driving, keeping, disk) = (agent.clone(), agent.clone(), self.disk.clone());
        let driven = cluster.clone();
        tasks.spawn(async move {
            let ended = driving.drive(driven, Dialling::OwnHost).await;
            broken(&format!("the agent's task ended: {ended:?}"));
        });
        tasks.spawn(async move {
            let ended = gossip.join_next().await;
            broken(&format!("a task of the gossip ended: {ended:?}"));
        });
        tasks.spawn(async move {
            loop {
                write(&disk, keeping.next_batch().await);
                keeping.written();
            }
        });
        self.started = Some(Instant::now());
        self.running = Some(Running { agent, cluster, since: Instant::now(), _tasks: tasks });
        Ok(())
    }
}

/// A process whose task ends, ends; here it is the simulation that does.
fn broken(what: &str) -> ! {
    println!("BROKEN: {what}");
    std::process::exit(1);
}

fn restore(disk: &Mutex<Disk>, wall: u64) -> (Generation, Restored) {
    let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
    disk.generation = wall.max(disk.generation + 1);
    let (mut held, mut lapsed) = (Vec::new(), Vec::new());
    for word in disk.words.values() {
        match word {
            Word::Held(holding) => held.push(holding.clone()),
            Word::Lapsed(holding) => lapsed.push(holding.clone()),
            Word::Released(_) | Word::Forgotten => {}
        }
    }
    let periods = disk.periods.clone().into_iter().collect();
    let leases = Kept { held, lapsed, released: disk.released.clone(), periods };
    let entrypoints = disk.entrypoints.values().cloned().collect();
    let claims = disk.claims.values().map(|claim| (**claim).clone()).collect();
    (disk.generation, Restored { leases, entrypoints, claims, draining: disk.draining })
}

fn write(disk: &Mutex<Disk>, batch: Batch) {
    let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, word) in batch.words {
        disk.released.retain(|(released, _)| *released != id);
        match word {
            Word::Released(release) => {
                disk.words.remove(&id);
                disk.released.push((id, release));
            }
            Word::Forgotten => drop(disk.words.remove(&id)),
            Word::Held(_) | Word::Lapsed(_) => drop(disk.words.insert(id, word)),
        }
    }
    for (node, period) in batch.periods {
        match period {
            Some(period) => drop(disk.periods.insert(node, period)),
            None => drop(disk.periods.remove(&node)),
        }
    }
    for (key, registered) in batch.entrypoints {
        match registered {
            Some(registered) => drop(disk.entrypoints.insert(key, registered)),
            None => drop(disk.entrypoints.remove(&key)),
        }
    }
    disk.draining = batch.draining.unwrap_or(disk.draining);
    for (key, claim) in batch.claims {
        match claim {
            Some(claim) => drop(disk.claims.insert(key, claim)),
            None => drop(disk.claims.remove(&key)),
        }
    }
}
