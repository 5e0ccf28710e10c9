//! A simulated host: an agent's state and link, as the daemon has them, and a disk that outlives both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd_core::agent::{Broken, News, Settings, State};
use gossd_core::label::Label;
use gossd_core::link::counters::Counters;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::seal::Sealer;
use gossd_core::link::{self, INTERVAL, Link, Peer, ReplicaStore};
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::{AgentName, Owner};
use gossd_core::replica::Part;
use gossd_core::slot::{Slot, Version};

use super::disk::Disk;
use super::net::address;

/// Dead agents are forgotten after this: sooner than by default, so that it happens.
const DEAD_GRACE: Duration = Duration::from_secs(20);
/// When simulations begin, by the wall clock, in milliseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000;

/// See the module.
pub(super) struct SimHost {
    /// Which.
    pub(super) number: usize,
    /// Its agent's name.
    pub(super) name: AgentName,
    /// How far its wall clock is ahead, in milliseconds.
    pub(super) clock_ahead: i64,
    /// How long its records live after its last sign of life.
    ttl: Duration,
    /// What of its agent does not work.
    broken: Broken,
    /// When its agent was started last.
    pub(super) started: Option<Instant>,
    starts: u64,
    pub(super) disk: Disk,
    pub(super) running: Option<Running>,
}

/// An agent that runs.
pub(super) struct Running {
    /// Which start of its host's agent this is: what is due for an earlier one never happens.
    pub(super) start: u64,
    /// Since when.
    pub(super) since: Instant,
    pub(super) state: State,
    /// How often something was done to the state: as long as this is the same, so is the state.
    pub(super) touched: u64,
    pub(super) link: Link,
    /// Opens frames.
    pub(super) sealer: Sealer,
    pub(super) counters: Arc<Counters>,
    /// The live peers.
    pub(super) peers: Vec<Peer>,
    /// Gosts that are being dialled.
    pub(super) dialled: BTreeSet<Label>,
    /// When the state and the link are woken next.
    pub(super) state_due: Option<Instant>,
    pub(super) link_due: Option<Instant>,
}

/// What the link may do to the state, and that it did.
pub(super) struct Touched<'a> {
    pub(super) state: &'a mut State,
    pub(super) times: &'a mut u64,
}

impl ReplicaStore for Touched<'_> {
    fn apply(&mut self, now: Instant, news: News) {
        *self.times += 1;
        self.state.apply(now, news);
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        self.state.version(owner)
    }

    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        self.state.part(owner, after, from)
    }
}

impl SimHost {
    /// A host without an agent.
    pub(super) fn new(number: usize, ttl: Duration, broken: Broken) -> anyhow::Result<Self> {
        Ok(Self {
            number,
            name: format!("host-{number}").parse()?,
            clock_ahead: 0,
            ttl,
            broken,
            started: None,
            starts: 0,
            disk: Disk::default(),
            running: None,
        })
    }

    /// Starts an agent with what the disk has, so long after the beginning.
    pub(super) fn start(&mut self, now: Instant, since: Duration, seed: [u8; 32]) -> anyhow::Result<()> {
        let wall = (EPOCH + u64::try_from(since.as_millis())?).saturating_add_signed(self.clock_ahead);
        let (generation, restored) = self.disk.restore(wall);
        let owner = Owner { name: self.name.clone(), generation };
        let settings = Settings {
            owner: owner.clone(),
            lease_ttl: self.ttl,
            order: Order::Random,
            quota: Quota::default(),
            private: BTreeSet::new(),
            broken: self.broken,
            hurry: 1,
        };
        let mut state = State::new(now, &settings, restored);
        state.use_journal();
        let counters = Arc::new(Counters::default());
        let settings = link::LinkSettings {
            owner,
            addr: address(self.number),
            keyring: Keyring::public(),
            key_file: false,
            cluster: "simulated".into(),
            interval: INTERVAL,
            dead_grace: DEAD_GRACE,
            seed,
        };
        let link = Link::new(now, settings, counters.clone());
        self.starts += 1;
        self.started = Some(now);
        self.running = Some(Running {
            start: self.starts,
            since: now,
            state,
            touched: 0,
            sealer: link.sealer(),
            link,
            counters,
            peers: Vec::new(),
            dialled: BTreeSet::new(),
            state_due: None,
            link_due: None,
        });
        Ok(())
    }

    /// The agent is gone at once, with all that it would still have sent and written.
    pub(super) fn crash(&mut self) {
        self.running = None;
    }

    /// Nothing is left of what was written.
    pub(super) fn lose_disk(&mut self) {
        self.disk = Disk::default();
    }
}
