//! The agent's state behind one lock: leases and directory, which plugin calls read and write from memory, what
//! it thinks of its peers, and the outbox that the driver empties towards the cluster. The only reader of time
//! for decisions.

mod drain;
mod driver;
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
use std::time::Duration;

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
    settings: Settings,
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
    started: std::time::Instant,
    /// When the first peer was shown.
    met: Option<std::time::Instant>,
    quota: Quota,
    order: Order,
    leases: LeaseTable,
    entrypoints: Entrypoints,
    claims: ClaimTable,
    /// Until when tunnels stay closed that nobody says are: who said so is not heard yet, or again.
    closing: rules::Closing,
    drain: drain::Drain,
    /// When claims are to be looked at next.
    next_look: Option<Instant>,
    /// When empty slots are to be given back next.
    next_tidying: Instant,
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
        let now = Instant::now().into_std();
        let mut state = State {
            started: now,
            met: None,
            quota: settings.quota,
            order: settings.order,
            leases: LeaseTable::new(now, settings.lease_ttl).keeping(KEEP_LAPSED / settings.hurry.max(1)),
            entrypoints: Entrypoints::default(),
            claims: ClaimTable::default(),
            closing: rules::Closing::default(),
            drain: drain::Drain::of(restored.draining),
            next_look: None,
            next_tidying: Instant::from_std(now),
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
        for change in changes {
            state.tell(&settings.owner, change);
        }
        state.note_closed(now, &settings.owner);
        state.directory.set_share(Share::of(&settings.quota));
        state.former.set_share(Share::of(&settings.quota));
        let nodes: Vec<_> = state.leases.nodes().cloned().collect();
        for node in nodes {
            state.connections.orphan((*node.text()).into());
        }
        // After the records, so that nobody who has heard it misses one.
        let how = state.leases.say(if restored.draining { Status::Draining } else { Status::Ready });
        state.tell(&settings.owner, how);
        if restored.draining {
            tracing::warn!("draining since before this start: {}", DRAINING);
        }
        let shared = Shared {
            settings,
            state: Mutex::new(state),
            changed: Notify::new(),
            touched: Notify::new(),
            kept: watch::Sender::new(true),
            status_told: watch::Sender::new(0),
            revision: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who we are.
    pub fn owner(&self) -> &Owner {
        &self.shared.settings.owner
    }

    /// Takes a record: readable here before this returns, and on its way to the peers.
    pub fn register(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.update(|state, now| {
            state.connections.spoke(caller, &holding.record.node.text());
            state.admit(now, &holding.record)?;
            Ok(state.leases.register(now, holding)?)
        })
    }

    /// The same of a gost that did not say where it is. If that is where another one is that is connected, both are there.
    pub fn register_unsaid(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.update(|state, now| {
            let record = &holding.record;
            state.connections.spoke(caller, &record.node.text());
            state.admit(now, record)?;
            let former = state.leases.replaced_by(record);
            if former.is_some_and(|former| state.connections.has(&former.text())) {
                return Ok(state.leases.register_beside(now, holding)?.into_iter().collect());
            }
            Ok(state.leases.register(now, holding)?)
        })
    }

    /// Prolongs the lease of a connector. One that is not known is healed, if anything tells where it is;
    /// false if nothing does.
    pub fn renew(&self, caller: Caller, draft: Draft<'_>, heal: &Heal<'_>) -> Result<bool, Full> {
        let mut known = true;
        let id = Label::from(draft.id);
        self.update(|state, now| {
            state.connections.spoke(caller, draft.node);
            if state.leases.is_lapsed(&id) {
                state.admit_one()?;
            }
            match state.leases.renew(now, &id) {
                Renewal::Renewed | Renewal::Released => Ok(None),
                Renewal::Revived(change) => {
                    state.counts.revived += 1;
                    Ok(Some(change))
                }
                Renewal::Unknown => {
                    let Some(holding) = state.heal(caller, draft, heal) else {
                        known = false;
                        return Ok(None);
                    };
                    state.admit(now, &holding.record)?;
                    Ok(state.leases.adopt(now, holding)?)
                }
            }
        })?;
        Ok(known)
    }

    /// Releases a connector, known or not.
    pub fn deregister(&self, caller: Caller, draft: Draft<'_>) {
        let id = Label::from(draft.id);
        let released = self.update(|state, now| {
            state.connections.spoke(caller, draft.node);
            Ok(state.leases.release(now, &id))
        });
        debug_assert!(released.is_ok(), "releasing needs no slot");
    }

    /// A plugin connection is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        let mut state = self.lock();
        if state.connections.closed(connection) {
            // A gost that came home, or whose agent was restarted, asks before it renews: it may be any that did not.
            let State { leases, connections, .. } = &mut *state;
            leases.nodes().take(MAX_NAMELESS).for_each(|node| connections.orphan((*node.text()).into()));
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// A gost of this host called over that connection, without saying which instance it is.
    pub fn called(&self, connection: ConnectionId) {
        self.lock().connections.asked(connection);
    }

    /// Lists in this order from now on, holds so much at most, and says that these tunnels are closed to the public.
    /// Nothing that is held goes for it.
    pub fn adjust(&self, order: Order, quota: Quota, private: &BTreeSet<TunnelId>) {
        let adjusted = self.update(|state, _| {
            (state.order, state.quota) = (order, quota);
            state.directory.set_share(Share::of(&quota));
            state.former.set_share(Share::of(&quota));
            Ok(state.claims.close(private))
        });
        debug_assert!(adjusted.is_ok(), "it says what there are slots for");
        if !private.iter().all(|tunnel| self.is_private(*tunnel)) {
            tracing::error!(
                "not all tunnels of --ingress-rule are private: too many claims; restart this agent"
            );
        }
    }

    /// Tells that the directory changed, with a number that rises.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    fn update<C: IntoIterator<Item = Change>>(
        &self,
        act: impl FnOnce(&mut State, std::time::Instant) -> Result<C, Full>,
    ) -> Result<(), Full> {
        let now = Instant::now().into_std();
        let mut state = self.lock();
        let mut changed = false;
        let due = state.leases.next_deadline();
        for change in act(&mut state, now)? {
            state.tell(self.owner(), change);
            changed = true;
        }
        let touched = state.is_touched();
        let sooner = state.leases.next_deadline().is_some_and(|at| due.is_none_or(|due| at < due));
        drop(state);
        if changed || sooner {
            self.shared.changed.notify_one();
        }
        if changed {
            self.revise();
        }
        if touched {
            self.note_touched();
        }
        Ok(())
    }

    fn revise(&self) {
        self.shared.revision.send_modify(|revision| *revision += 1);
    }

    /// A panic under the lock would be a bug; the state is consistent between any two statements that can
    /// fail, so going on beats failing every later call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is room for a record as it is now.
    fn admit(&mut self, now: std::time::Instant, record: &Record) -> Result<(), Full> {
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
    fn note_news(&mut self, now: std::time::Instant) -> Vec<Change> {
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

    fn tell(&mut self, owner: &Owner, change: Change) {
        self.directory.say(Instant::now().into_std(), owner, &change);
        self.note_events();
        self.outbox.insert(change.slot, change.cell);
    }
}

#[cfg(test)]
mod tests;
