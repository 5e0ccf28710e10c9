//! A simulated host: an agent's state and link, as the daemon has them, and a disk that outlives both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd_core::address::Address;
use gossd_core::agent::{Broken, News, Offer, Settings, State, Tried, Unreconciled};
use gossd_core::hostname::TunnelId;
use gossd_core::label::Label;
use gossd_core::link::counters::Counters;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::{self, INTERVAL, Link, Peer, ReplicaStore};
use gossd_core::record::{AgentName, Generation, Owner};
use gossd_core::replica::Part;
use gossd_core::slot::{Slot, Version};

use super::disk::Disk;
use super::net::address;

/// Dead agents are forgotten after this: sooner than by default, so that it happens.
const DEAD_GRACE: Duration = Duration::from_secs(20);
/// How long a start waits for what peers remember of the former one, as in the daemon.
const WITHHELD: Duration = Duration::from_millis(500);
/// When simulations begin, by the wall clock, in milliseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000;

/// See the module.
pub(super) struct SimHost {
    /// Which.
    pub(super) number: usize,
    /// Above so many agents its own does not watch everybody.
    mesh: usize,
    /// Its agent's name.
    pub(super) name: AgentName,
    /// Whether connections from other hosts to its gost are refused, as of one that is bound to loopback.
    pub(super) refuses: bool,
    /// How often it got another address.
    pub(super) moves: u8,
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
    /// The disk as it was when it was copied.
    pub(super) backup: Option<Disk>,
    /// Whether the agent was started with that copy.
    pub(super) is_restored: bool,
    /// How often the disk was lost, and the identity with it.
    lost_disks: u8,
    /// Whose identity it has: its own, or that of the host that it is a copy of.
    identity_of: usize,
    /// Where it joins.
    pub(super) joins: Vec<usize>,
    pub(super) running: Option<Running>,
    /// What the next start has from the one before, which ended in its favour; without ids if nothing is to be compared any more.
    inherited: Option<Unreconciled>,
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
    pub(super) counters: Arc<Counters>,
    /// The live peers.
    pub(super) peers: Vec<Peer>,
    /// Gosts that are being dialled.
    pub(super) dialled: BTreeSet<Label>,
    /// How the last dials of entrypoints ended that visitors want, and when.
    pub(super) tried: BTreeMap<Address, (Instant, Tried)>,
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

    fn offer(&mut self, now: Instant, by: &Owner, tunnel: TunnelId) -> Offer {
        *self.times += 1;
        self.state.offer(now, by, tunnel)
    }
}

impl SimHost {
    /// A host without an agent.
    pub(super) fn new(number: usize, ttl: Duration, mesh: usize, broken: Broken) -> anyhow::Result<Self> {
        Ok(Self {
            number,
            mesh,
            name: format!("host-{number}").parse()?,
            refuses: false,
            moves: 0,
            clock_ahead: 0,
            ttl,
            broken,
            started: None,
            starts: 0,
            disk: Disk::default(),
            backup: None,
            is_restored: false,
            lost_disks: 0,
            identity_of: number,
            joins: Vec::new(),
            running: None,
            inherited: None,
        })
    }

    /// Starts an agent with what the disk has, so long after the beginning.
    pub(super) fn start(&mut self, now: Instant, since: Duration, seed: [u8; 32]) -> anyhow::Result<()> {
        let wall = (EPOCH + u64::try_from(since.as_millis())?).saturating_add_signed(self.clock_ahead);
        let (generation, mut restored) = self.disk.restore(wall, u16::from_le_bytes([seed[0], seed[1]]));
        if let Some(unreconciled) = self.inherited.take() {
            restored.told = (!unreconciled.ids.is_empty()).then_some(unreconciled.told);
            restored.leases.unconfirmed = Some(unreconciled.ids.into_iter().collect());
        }
        let owner = Owner { name: self.name.clone(), generation };
        let settings = Settings { lease_ttl: self.ttl, broken: self.broken, ..Settings::of(owner.clone()) };
        let mut state = State::new(now, &settings, restored);
        state.use_journal();
        state.withhold_status(now + WITHHELD, Vec::new());
        let counters = Arc::new(Counters::default());
        let settings = link::LinkSettings {
            owner,
            addr: self.address(),
            identity: self.identity()?,
            version: "0.1.0".into(),
            keyring: Keyring::public(),
            key_file: false,
            cluster: "simulated".into(),
            interval: INTERVAL,
            dead_grace: DEAD_GRACE,
            mesh: self.mesh,
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
            link,
            counters,
            peers: Vec::new(),
            dialled: BTreeSet::new(),
            tried: BTreeMap::new(),
            state_due: None,
            link_due: None,
        });
        Ok(())
    }

    /// Whether it is a copy of another host.
    pub(super) fn is_copy(&self) -> bool {
        self.identity_of != self.number
    }

    /// Another machine with a copy of the disk.
    pub(super) fn copy_to(&self, number: usize) -> Self {
        Self {
            number,
            name: self.name.clone(),
            disk: self.disk.clone(),
            backup: None,
            moves: 0,
            started: None,
            running: None,
            inherited: None,
            joins: Vec::new(),
            identity_of: self.identity_of,
            ..*self
        }
    }

    /// The agent ends, and the next one starts above that generation with all that it had.
    pub(super) fn hand_over(&mut self, now: Instant, known: Generation) {
        if let Some(Running { mut state, .. }) = self.running.take() {
            self.disk.write(state.all_kept(now));
            let none = Unreconciled { told: (known, 0), ids: Vec::new() };
            self.inherited = Some(state.unreconciled().unwrap_or(none));
        }
        self.disk.rise_above(known);
    }

    /// The agent is gone at once, with all that it would still have sent and written.
    pub(super) fn crash(&mut self) {
        self.running = None;
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        address(self.number, self.moves)
    }

    /// Nothing is left of what was written.
    pub(super) fn lose_disk(&mut self) {
        self.lose_journal();
        self.lost_disks += 1;
    }

    /// Nothing is left of the journal; the identity is a file of its own.
    pub(super) fn lose_journal(&mut self) {
        self.disk = Disk::default();
        self.is_restored = false;
    }

    /// The journal is put back as it was when it was copied. Nothing if it never was.
    pub(super) fn restore_journal(&mut self) {
        if let Some(backup) = &self.backup {
            self.disk = backup.clone();
            self.is_restored = true;
        }
    }

    fn identity(&self) -> anyhow::Result<[u8; 32]> {
        let mut identity = [self.lost_disks + 1; 32];
        identity[..8].copy_from_slice(&u64::try_from(self.identity_of)?.to_le_bytes());
        Ok(identity)
    }
}
