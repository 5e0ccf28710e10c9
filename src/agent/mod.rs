//! The agent's state behind one lock: leases and directory, which plugin calls read and write from memory, what
//! it thinks of its peers, and the outbox that the driver empties towards the cluster.
//!
//! [`State`] decides, and touches nothing: time comes in, and what is to be done comes out as its answer and as
//! [`Effects`]. [`Agent`] is what the rest of the program has of it: it reads the clock, once for each call, and does what
//! is to be done when the lock is free again.

mod drain;
mod driver;
mod effects;
mod gosts;
mod heal;
mod hear;
mod keeper;
mod metrics;
mod names;
mod resolve;
mod rules;
mod survivors;
mod tables;
mod twins;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::drain::DRAINING;
pub use self::driver::Dialling;
pub use self::heal::{Heal, HealedFrom};
pub use self::tables::Table;
pub use self::view::{Candidate, JournalView, MemberView, Tunnel, View};

use gossd_core::claim::ClaimTable;
use gossd_core::complaint::Complaints;
use gossd_core::connection::{Caller, ConnectionId, Connections};
use gossd_core::directory::Directory;
use gossd_core::entrypoints::{Entrypoints, Registered};
use gossd_core::event::Log;
use gossd_core::label::Label;
use gossd_core::lease::{Holding, KEEP_LAPSED, Kept, LeaseTable, Renewal};
use gossd_core::liveness::Liveness;
use gossd_core::quota::{Full, Quota, Share};
use gossd_core::rank::Order;
use gossd_core::record::{Draft, Owner, Record};
use gossd_core::rule::{Rule, TunnelId};
use gossd_core::slot::{Cell, Change, Seq, Slot, Status};

use self::effects::{Effects, Line};

/// A record lives this long without a Renew, until its Renew period is known: four of gost's default. Also how
/// long a silent peer's records are listed after its last sign of life.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// Instances that are looked at when a gost goes and nobody knows which: more than any host has.
const MAX_NAMELESS: usize = 64;

/// How an agent behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who it is.
    pub owner: Owner,
    /// [`LEASE_TTL`], or as the operator says.
    pub lease_ttl: Duration,
    /// In which order records are listed.
    pub order: Order,
    /// How much it holds at most.
    pub quota: Quota,
    /// Tunnels that the operator's rules close to the public.
    pub private: BTreeSet<TunnelId>,
    /// What a test has broken.
    pub broken: Broken,
    /// How many times as fast as usual it forgets, for tests of what takes minutes and hours: 1.
    pub hurry: u32,
}

/// What of an agent does not work, for tests that have to notice.
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// No record lapses, whatever becomes of its gost.
    pub leases: bool,
    /// Peers are alive for ever.
    pub suspicion: bool,
    /// The host name of a tunnel that is attached here has no rule here: the second question is not answered.
    pub rules: bool,
    /// A gost that answers a dial loses its leases sooner than one that was not dialled.
    pub dials: bool,
}

/// What a journal kept.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Records, and what is known of their gosts.
    pub leases: Kept,
    /// Where gosts registered.
    pub entrypoints: Vec<Registered>,
    /// Claims on host names.
    pub rules: Vec<Rule>,
    /// Whether it drained.
    pub draining: bool,
}

impl Restored {
    /// Whether it kept no record and no claim.
    pub fn is_empty(&self) -> bool {
        let Self { leases: Kept { held, lapsed, released, periods: _ }, rules, .. } = self;
        held.is_empty() && lapsed.is_empty() && released.is_empty() && rules.is_empty()
    }
}

/// A handle; clones share one state. No method waits for anything but the lock, which is never held across
/// an `.await` nor a system call.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    owner: Owner,
    state: Mutex<State>,
    /// Something is in the outbox, or due earlier than the driver knows.
    changed: Notify,
    /// Something waits for the journal.
    touched: Notify,
    /// Whether the journal has it all.
    kept: watch::Sender<bool>,
    /// The number of the last status that the gossip was told.
    status_told: watch::Sender<Seq>,
    /// Rises with every change of the directory.
    revision: watch::Sender<u64>,
}

struct State {
    owner: Owner,
    broken: Broken,
    hurry: u32,
    /// What is to be done when the lock is free again.
    effects: Effects,
    /// When the driver looks by itself.
    armed: Option<StdInstant>,
    /// Whether the keeper was told that something waits for the journal.
    told_touched: bool,
    started: StdInstant,
    /// When the first peer was shown.
    met: Option<StdInstant>,
    quota: Quota,
    order: Order,
    leases: LeaseTable,
    entrypoints: Entrypoints,
    claims: ClaimTable,
    /// Until when tunnels stay closed that nobody says are: who said so is not heard yet, or again.
    closing: rules::Closing,
    drain: drain::Drain,
    /// When claims are to be looked at next.
    next_look: Option<StdInstant>,
    /// When empty slots are to be given back next.
    next_tidying: StdInstant,
    directory: Directory,
    /// What our former generations said, as peers remember it.
    former: Directory,
    liveness: Liveness,
    connections: Connections,
    evidence: gosts::Evidence,
    survivors: survivors::Survivors,
    /// Dead agents that chitchat forgot and we do not yet, because it was probably us that vanished.
    postponed: HashSet<Owner>,
    /// What the cluster has to hear; a newer change of a slot replaces an older, so it never outgrows the
    /// slots.
    outbox: BTreeMap<Slot, Cell>,
    journal: keeper::Health,
    journal_bytes: u64,
    /// Changes on their way to the journal.
    writing: usize,
    heals: heal::Heals,
    complaints: Complaints,
    log: Log,
    counts: Changes,
}

/// How often something happened to the records registered here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Records that lapsed.
    pub lapsed: u64,
    /// Of them, those that the gost which registered them asked for.
    pub asked: u64,
    /// Records that lapsed and were revived by a late Renew.
    pub revived: u64,
    /// Batches that the journal did not take.
    pub journal_errors: u64,
    /// Dials of gosts that answered, refused, and did neither.
    pub dialled: [u64; 3],
}

/// What the agent holds, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Live records registered here.
    pub own_records: usize,
    /// Records known, of all owners.
    pub records: usize,
    /// Agents whose records are known, this one included.
    pub agents: usize,
    /// Claims on host names made here.
    pub own_rules: usize,
    /// Claims on host names known, of all owners.
    pub rules: usize,
    /// Tunnels known to be closed to the public.
    pub private: usize,
}

impl Agent {
    /// An agent that holds what a journal kept. The gosts of that are dialled.
    pub fn new(settings: Settings, restored: Restored) -> Self {
        let mut state = State::new(Instant::now().into_std(), &settings, restored);
        let effects = state.take_effects();
        let shared = Shared {
            owner: settings.owner,
            state: Mutex::new(state),
            changed: Notify::new(),
            touched: Notify::new(),
            kept: watch::Sender::new(true),
            status_told: watch::Sender::new(0),
            revision: watch::Sender::new(0),
        };
        let agent = Self { shared: Arc::new(shared) };
        effects.lines.into_iter().for_each(Line::log);
        agent
    }

    /// Who we are.
    pub fn owner(&self) -> &Owner {
        &self.shared.owner
    }

    /// Takes a record: readable here before this returns, and on its way to the peers.
    pub fn register(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.with(|state, now| state.register(now, caller, holding))
    }

    /// The same of a gost that did not say where it is. If that is where another one is that is connected, both are there.
    pub fn register_unsaid(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.with(|state, now| state.register_unsaid(now, caller, holding))
    }

    /// Prolongs the lease of a connector. One that is not known is healed, if anything tells where it is;
    /// false if nothing does.
    pub fn renew(&self, caller: Caller, draft: Draft<'_>, heal: &Heal<'_>) -> Result<bool, Full> {
        self.with(|state, now| state.renew(now, caller, draft, heal))
    }

    /// Releases a connector, known or not.
    pub fn deregister(&self, caller: Caller, draft: Draft<'_>) {
        self.with(|state, now| state.deregister(now, caller, draft));
    }

    /// A plugin connection is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.with(|state, _| state.connection_closed(connection));
    }

    /// A gost of this host called over that connection, without saying which instance it is.
    pub fn called(&self, connection: ConnectionId) {
        self.with(|state, _| state.connections.asked(connection));
    }

    /// Lists in this order from now on, holds so much at most, and says that these tunnels are closed to the public.
    /// Nothing that is held goes for it.
    pub fn adjust(&self, order: Order, quota: Quota, private: &BTreeSet<TunnelId>) {
        self.with(|state, now| state.adjust(now, order, quota, private));
    }

    /// Tells that the directory changed, with a number that rises.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// What the state answers at this moment; and whatever follows from it is done.
    fn with<T>(&self, act: impl FnOnce(&mut State, StdInstant) -> T) -> T {
        let now = Instant::now().into_std();
        let mut state = self.lock();
        let answer = act(&mut state, now);
        let effects = state.take_effects();
        drop(state);
        self.perform(effects);
        answer
    }

    /// Nothing here waits.
    fn perform(&self, Effects { is_due, is_revised, is_touched, lines }: Effects) {
        if is_due {
            self.shared.changed.notify_one();
        }
        if is_revised {
            self.shared.revision.send_modify(|revision| *revision += 1);
        }
        if is_touched {
            self.shared.kept.send_if_modified(|kept| std::mem::replace(kept, false));
            self.shared.touched.notify_one();
        }
        lines.into_iter().for_each(Line::log);
    }

    /// A panic under the lock would be a bug; the state is consistent between any two statements that can
    /// fail, so going on beats failing every later call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now: StdInstant, settings: &Settings, restored: Restored) -> Self {
        let hurry = settings.hurry.max(1);
        let mut state = Self {
            owner: settings.owner.clone(),
            broken: settings.broken,
            hurry,
            effects: Effects::default(),
            armed: None,
            told_touched: false,
            started: now,
            met: None,
            quota: settings.quota,
            order: settings.order,
            leases: LeaseTable::new(now, settings.lease_ttl).keeping(KEEP_LAPSED / hurry),
            entrypoints: Entrypoints::default(),
            claims: ClaimTable::default(),
            closing: rules::Closing::default(),
            drain: drain::Drain::of(restored.draining),
            next_look: None,
            next_tidying: now,
            directory: Directory::default(),
            former: Directory::default(),
            liveness: Liveness::new(settings.lease_ttl),
            connections: Connections::default(),
            evidence: gosts::Evidence::default(),
            survivors: survivors::Survivors::default(),
            postponed: HashSet::new(),
            outbox: BTreeMap::new(),
            journal: keeper::Health::Absent(None),
            journal_bytes: 0,
            writing: 0,
            heals: heal::Heals::default(),
            complaints: Complaints::default(),
            log: Log::default(),
            counts: Changes::default(),
        };
        state.entrypoints.restore(restored.entrypoints);
        for rule in restored.rules.iter().filter(|rule| rule.is_closing()) {
            state.close_for_now(now, &Arc::new(rule.clone()));
        }
        let mut changes = state.claims.close(&settings.private);
        changes.extend(state.claims.restore(restored.rules));
        changes.extend(state.leases.restore(now, restored.leases));
        state.tell_all(now, changes);
        state.note_closed(now);
        state.directory.set_share(Share::of(&settings.quota));
        state.former.set_share(Share::of(&settings.quota));
        let nodes: Vec<_> = state.leases.nodes().cloned().collect();
        for node in nodes {
            state.connections.orphan((*node.text()).into());
        }
        // After the records, so that nobody who has heard it misses one.
        let how = state.leases.say(if restored.draining { Status::Draining } else { Status::Ready });
        state.tell(now, how);
        if restored.draining {
            state.effects.lines.push(Line::StillDraining);
        }
        state
    }

    fn register(&mut self, now: StdInstant, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.connections.spoke(caller, &holding.record.node.text());
        self.admit(now, &holding.record)?;
        let changes = self.leases.register(now, holding)?;
        self.tell_all(now, changes);
        Ok(())
    }

    fn register_unsaid(&mut self, now: StdInstant, caller: Caller, holding: Holding) -> Result<(), Full> {
        let record = &holding.record;
        self.connections.spoke(caller, &record.node.text());
        self.admit(now, record)?;
        let former = self.leases.replaced_by(record);
        if former.is_some_and(|former| self.connections.has(&former.text())) {
            let change = self.leases.register_beside(now, holding)?;
            self.tell_all(now, change);
        } else {
            let changes = self.leases.register(now, holding)?;
            self.tell_all(now, changes);
        }
        Ok(())
    }

    fn renew(
        &mut self,
        now: StdInstant,
        caller: Caller,
        draft: Draft<'_>,
        heal: &Heal<'_>,
    ) -> Result<bool, Full> {
        let id = Label::from(draft.id);
        self.connections.spoke(caller, draft.node);
        if self.leases.is_lapsed(&id) {
            self.admit_one()?;
        }
        match self.leases.renew(now, &id) {
            Renewal::Renewed | Renewal::Released => {}
            Renewal::Revived(change) => {
                self.counts.revived += 1;
                self.tell(now, change);
            }
            Renewal::Unknown => {
                let Some(holding) = self.heal(caller, draft, heal) else { return Ok(false) };
                self.admit(now, &holding.record)?;
                let change = self.leases.adopt(now, holding)?;
                self.tell_all(now, change);
            }
        }
        Ok(true)
    }

    fn deregister(&mut self, now: StdInstant, caller: Caller, draft: Draft<'_>) {
        self.connections.spoke(caller, draft.node);
        let change = self.leases.release(now, &Label::from(draft.id));
        self.tell_all(now, change);
    }

    fn connection_closed(&mut self, connection: ConnectionId) {
        if self.connections.closed(connection) {
            // A gost that came home, or whose agent was restarted, asks before it renews: it may be any that did not.
            let Self { leases, connections, .. } = self;
            leases.nodes().take(MAX_NAMELESS).for_each(|node| connections.orphan((*node.text()).into()));
        }
        self.effects.is_due = true;
    }

    fn adjust(&mut self, now: StdInstant, order: Order, quota: Quota, private: &BTreeSet<TunnelId>) {
        (self.order, self.quota) = (order, quota);
        self.directory.set_share(Share::of(&quota));
        self.former.set_share(Share::of(&quota));
        let changes = self.claims.close(private);
        self.tell_all(now, changes);
        if !private.iter().all(|tunnel| self.directory.hosts().is_private(*tunnel)) {
            self.effects.lines.push(Line::NotAllPrivate);
        }
    }

    /// When there is something to do although nobody calls.
    fn next_due(&self) -> Option<StdInstant> {
        let leases = self.leases.next_deadline().filter(|_| !self.broken.leases);
        let others = [self.closing.next_deadline(), self.survivors.next_due(), self.next_look];
        others.into_iter().flatten().chain(leases).min()
    }

    fn take_effects(&mut self) -> Effects {
        let mut effects = std::mem::take(&mut self.effects);
        // The driver sleeps until what was due first when it looked.
        effects.is_due |= self.next_due().is_some_and(|due| self.armed.is_none_or(|armed| due < armed));
        effects.is_touched = self.is_touched() && !std::mem::replace(&mut self.told_touched, true);
        effects
    }

    /// Whether there is room for a record as it is now.
    fn admit(&mut self, now: StdInstant, record: &Record) -> Result<(), Full> {
        if self.leases.is_overtaken(now, &record.id) {
            return Ok(());
        }
        if !self.leases.is_live(&record.id) && !self.leases.would_replace(record) {
            self.admit_one()?;
        }
        self.make_room(record.size().saturating_sub(self.leases.live_size(&record.id)))
    }

    fn admit_one(&self) -> Result<(), Full> {
        let most = self.quota.records;
        if self.leases.live() >= most { Err(Full::Records(most)) } else { Ok(()) }
    }

    /// Refuses without a change, or lets what has lapsed give way to what lives; a bit of it at a time, to keep
    /// the lock short.
    fn make_room(&mut self, bytes: usize) -> Result<(), Full> {
        const MOST: usize = 64;
        let firm = self.leases.bytes() - self.leases.lapsed_bytes() + self.claims.bytes();
        if firm + bytes > self.quota.bytes {
            return Err(Full::Bytes(self.quota.bytes));
        }
        for _ in 0..MOST {
            let held = self.leases.bytes() + self.claims.bytes();
            let over = held + bytes > self.quota.bytes || self.leases.lapsed() > self.quota.records;
            if !over || !self.leases.forget_oldest_lapsed() {
                break;
            }
        }
        Ok(())
    }

    /// Keeps what the directory showed and hid, for those who watch.
    fn note_events(&mut self) {
        let events = self.directory.take_events();
        self.log.extend(events);
    }

    /// The same of a peer's news, which may decide about a connector that is held here as well.
    fn note_news(&mut self, now: StdInstant) -> Vec<Change> {
        let events = self.directory.take_events();
        let changes = self.compare_with(now, &events);
        self.log.extend(events);
        changes
    }

    /// How much waits to be written.
    fn touched(&self) -> usize {
        let drain = usize::from(self.drain.is_touched());
        self.leases.touched() + self.entrypoints.touched_len() + self.claims.touched() + drain
    }

    fn is_touched(&self) -> bool {
        let gosts = self.leases.is_touched() || self.entrypoints.touched_len() > 0;
        gosts || self.claims.is_touched() || self.drain.is_touched()
    }

    /// Our own change: for those who ask here, and for the cluster.
    fn tell(&mut self, now: StdInstant, change: Change) {
        self.directory.say(now, &self.owner, &change);
        self.note_events();
        self.outbox.insert(change.slot, change.cell);
        (self.effects.is_due, self.effects.is_revised) = (true, true);
    }

    fn tell_all(&mut self, now: StdInstant, changes: impl IntoIterator<Item = Change>) {
        changes.into_iter().for_each(|change| self.tell(now, change));
    }
}

#[cfg(test)]
mod tests;
