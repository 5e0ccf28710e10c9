//! The agent's state behind one lock: leases and directory, which plugin calls read and write from memory, what
//! it thinks of its peers, and the outbox that the driver empties towards the cluster. The only reader of time
//! for decisions.

mod driver;
mod heal;
mod keeper;
mod rules;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::heal::{Heal, HealedFrom};

use crate::domain::claim::ClaimTable;
use crate::domain::connection::{ConnectionId, Connections};
use crate::domain::directory::{Applied, Directory};
use crate::domain::lease::{Holding, LeaseTable, Renewal};
use crate::domain::liveness::{Liveness, Standing};
use crate::domain::quota::{Full, Quota};
use crate::domain::rank::{Judged, Order, rank};
use crate::domain::record::{Draft, Owner, Record};
use crate::domain::rule::Rule;
use crate::domain::slot::{Cell, Change, Content, FIRST_RULE, STATUS_SLOT, Slot, Status};
use crate::gossip::Event;

/// A record lives this long without a Renew, until its Renew period is known: four of gost's default. Also how
/// long a silent peer's records are listed after its last sign of life.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

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
    /// What a test has broken.
    pub broken: Broken,
}

/// What of an agent does not work, for tests that have to notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// No record lapses, whatever becomes of its gost.
    pub leases: bool,
    /// Peers are alive for ever.
    pub suspicion: bool,
}

/// What a journal kept.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Records, to be held with a fresh lease each.
    pub held: Vec<Holding>,
    /// Ids released for ever, oldest first.
    pub released: Vec<Arc<str>>,
    /// Claims on host names.
    pub rules: Vec<Rule>,
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
    /// Rises with every change of the directory.
    revision: watch::Sender<u64>,
}

struct State {
    started: std::time::Instant,
    /// When the first peer was shown.
    met: Option<std::time::Instant>,
    quota: Quota,
    leases: LeaseTable,
    claims: ClaimTable,
    /// When claims are to be looked at next.
    next_look: Option<Instant>,
    directory: Directory,
    /// What our former generations said, as peers remember it.
    former: Directory,
    liveness: Liveness,
    connections: Connections,
    /// Dead agents that chitchat forgot and we do not yet, because it was probably us that vanished.
    postponed: HashSet<Owner>,
    /// What the cluster has to hear; a newer change of a slot replaces an older, so it never outgrows the
    /// slots.
    outbox: BTreeMap<Slot, Cell>,
    journal: keeper::Health,
    heals: heal::Heals,
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
}

impl Agent {
    /// An agent that holds what a journal kept. Instances among it that do not speak soon are looked at.
    pub fn new(settings: Settings, restored: Restored) -> Self {
        let now = Instant::now().into_std();
        let mut state = State {
            started: now,
            met: None,
            quota: settings.quota,
            leases: LeaseTable::new(settings.lease_ttl),
            claims: ClaimTable::default(),
            next_look: None,
            directory: Directory::default(),
            former: Directory::default(),
            liveness: Liveness::new(settings.lease_ttl),
            connections: Connections::default(),
            postponed: HashSet::new(),
            outbox: BTreeMap::new(),
            journal: keeper::Health::Absent(None),
            heals: heal::Heals::default(),
        };
        for change in state.leases.restore(now, restored.held, &restored.released) {
            state.tell(&settings.owner, change);
        }
        for change in state.claims.restore(restored.rules) {
            state.tell(&settings.owner, change);
        }
        let nodes: Vec<_> = state.leases.nodes().cloned().collect();
        for node in nodes {
            state.connections.orphan(now, node);
        }
        // The driver tells it after the records, so that no peer shows this generation before it is complete.
        let ready = state.leases.say(Status::Ready);
        state.directory.apply(&settings.owner, &ready);
        let shared = Shared {
            settings,
            state: Mutex::new(state),
            changed: Notify::new(),
            touched: Notify::new(),
            kept: watch::Sender::new(true),
            revision: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who we are.
    pub fn owner(&self) -> &Owner {
        &self.shared.settings.owner
    }

    /// Takes a record: readable here before this returns, and on its way to the peers.
    pub fn register(&self, connection: ConnectionId, holding: Holding) -> Result<(), Full> {
        self.update(|state, now| {
            state.connections.spoke(connection, &holding.record.node);
            state.admit(&holding.record)?;
            Ok(state.leases.register(now, holding)?)
        })
    }

    /// Prolongs the lease of a connector. One that is not known is healed, if anything tells where it is;
    /// false if nothing does.
    pub fn renew(&self, connection: ConnectionId, draft: Draft<'_>, heal: &Heal<'_>) -> Result<bool, Full> {
        let mut known = true;
        self.update(|state, now| {
            state.connections.spoke(connection, draft.node);
            if state.leases.is_lapsed(draft.id) {
                state.admit_one()?;
            }
            match state.leases.renew(now, draft.id) {
                Renewal::Renewed | Renewal::Released => Ok(None),
                Renewal::Revived(change) => Ok(Some(change)),
                Renewal::Unknown => {
                    let Some(holding) = state.heal(draft, heal) else {
                        known = false;
                        return Ok(None);
                    };
                    state.admit(&holding.record)?;
                    Ok(state.leases.adopt(now, holding)?)
                }
            }
        })?;
        Ok(known)
    }

    /// Releases a connector for ever, known or not.
    pub fn deregister(&self, connection: ConnectionId, draft: Draft<'_>) {
        let released = self.update(|state, _| {
            state.connections.spoke(connection, draft.node);
            Ok(state.leases.release(draft.id))
        });
        debug_assert!(released.is_ok(), "releasing needs no slot");
    }

    /// A plugin connection is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.lock().connections.closed(Instant::now().into_std(), connection);
        self.shared.changed.notify_one();
    }

    /// The records of a tunnel name, in the order in which gost should try them.
    pub fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        let now = Instant::now().into_std();
        let state = self.lock();
        let judge = |owner: &Owner| self.judge(&state, now, owner);
        rank(state.directory.lookup(name), self.shared.settings.order, rand::random(), judge)
    }

    /// Tells the cluster how we are: the change to publish.
    pub fn say(&self, status: Status) -> Change {
        let mut state = self.lock();
        let change = state.leases.say(status);
        state.directory.apply(self.owner(), &change);
        // The driver must not say an older word after this one.
        state.outbox.remove(&STATUS_SLOT);
        change
    }

    /// Tells that the directory changed, with a number that rises.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// What the agent holds.
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            own_records: state.leases.live(),
            records: state.directory.len(),
            agents: state.directory.owners().count(),
            own_rules: state.claims.said(),
            rules: state.directory.hosts().len(),
        }
    }

    /// How often Renews of unknown ids were healed from each source; the last is how often not.
    pub fn heals(&self) -> Vec<(HealedFrom, u64)> {
        self.lock().heals.counts()
    }

    /// Whether so many peers vanished together that it was probably us: an alarm.
    pub fn doubts_itself(&self) -> bool {
        self.lock().liveness.doubts_itself()
    }

    /// What is wrong with the journal, if anything is.
    pub fn journal_problem(&self) -> Option<String> {
        self.lock().journal.problem()
    }

    /// Hears from the cluster. Quick, and does not panic.
    pub fn handle(&self, event: Event) {
        let now = Instant::now().into_std();
        let name = &self.owner().name;
        match event {
            Event::Changed { owner, changes } if owner == *self.owner() => self.correct(&changes),
            Event::Changed { owner, changes } if owner.name == *name => {
                let mut state = self.lock();
                for change in &changes {
                    state.hear_former_self(&owner, change);
                }
            }
            Event::Changed { owner, changes } => {
                let mut state = self.lock();
                for change in &changes {
                    let news = state.directory.apply(&owner, change) == Applied::New;
                    if news && change.cell.content == Content::Status(Status::Left) {
                        state.liveness.forget(&owner.name);
                        tracing::info!(agent = %owner.name, "peer left");
                    }
                    if let Content::Rule(rule) = &change.cell.content
                        && news
                        && let Some(change) = state.yield_to(rule)
                    {
                        state.tell(self.owner(), change);
                        self.shared.changed.notify_one();
                    }
                }
                state.remember_orphans();
                if state.met.is_none() && state.directory.generation(&owner.name).is_some() {
                    state.met = Some(now);
                }
                drop(state);
                self.revise();
            }
            Event::Heard { owner, trip } => self.handle_heard(now, &owner, trip),
            Event::Silent { .. } if self.shared.settings.broken.suspicion => {}
            Event::Silent { owner, silence } => {
                self.lock().liveness.silent(now, &owner.name, silence);
                self.revise();
                tracing::warn!(agent = %owner.name, "peer is silent; its records come last");
            }
            Event::Hearsay { owner } => self.lock().hear(now, &owner, Liveness::hearsay),
            Event::Forgotten { owner } => self.handle_forgotten(now, owner),
        }
    }

    fn handle_heard(&self, now: std::time::Instant, owner: &Owner, trip: Option<Duration>) {
        let mut state = self.lock();
        let before = state.liveness.standing(now, &owner.name);
        state.hear(now, owner, |liveness, now, name| liveness.heard(now, name, trip));
        state.postponed.remove(owner);
        let back = before == Standing::Suspect && state.liveness.standing(now, &owner.name) == Standing::Live;
        drop(state);
        self.revise();
        if back {
            tracing::info!(agent = %owner.name, "peer is heard again");
        }
    }

    fn handle_forgotten(&self, now: std::time::Instant, owner: Owner) {
        let mut state = self.lock();
        if owner.name == self.owner().name {
            state.former.forget(&owner);
            state.former.take_orphans();
        } else if state.liveness.standing(now, &owner.name) == Standing::Hidden
            || state.directory.generation(&owner.name) != Some(owner.generation)
        {
            state.forget(&owner);
            drop(state);
            self.revise();
            tracing::info!(agent = %owner, "forgot an agent that has been dead for long");
        } else {
            state.postponed.insert(owner);
            drop(state);
            // The driver looks at it again, but has to know that there is something to look at.
            self.shared.changed.notify_one();
        }
    }

    fn judge(&self, state: &State, now: std::time::Instant, owner: &Owner) -> Judged {
        if owner == self.owner() {
            return Judged { standing: Standing::Live, trip: Some(Duration::ZERO) };
        }
        let standing = match state.directory.status(&owner.name) {
            Some(Status::Ready) => state.liveness.standing(now, &owner.name),
            Some(Status::Draining | Status::Left) | None => Standing::Hidden,
        };
        Judged { standing, trip: state.liveness.trip(&owner.name) }
    }

    /// Somebody else wrote our slots: say again what is true.
    fn correct(&self, changes: &[Change]) {
        let mut state = self.lock();
        for told in changes {
            let corrected = match told.slot {
                ..FIRST_RULE => state.leases.correct(told.slot, &told.cell),
                FIRST_RULE.. => state.claims.correct(told.slot, &told.cell),
            };
            if let Some(change) = corrected {
                tracing::warn!(
                    slot = told.slot,
                    "a peer told us something else of what is ours; said it again"
                );
                state.tell(self.owner(), change);
                self.shared.changed.notify_one();
            }
        }
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
    fn admit(&mut self, record: &Record) -> Result<(), Full> {
        if self.leases.is_released(&record.id) {
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

    fn is_touched(&self) -> bool {
        self.leases.is_touched() || self.claims.is_touched()
    }

    fn tell(&mut self, owner: &Owner, change: Change) {
        self.directory.apply(owner, &change);
        self.outbox.insert(change.slot, change.cell);
    }

    /// Notes a sign of life, unless it is of one who said goodbye: its last frames are still under way.
    fn hear(
        &mut self,
        now: std::time::Instant,
        owner: &Owner,
        note: impl FnOnce(&mut Liveness, std::time::Instant, &crate::domain::record::AgentName),
    ) {
        let shown = self.directory.generation(&owner.name) == Some(owner.generation);
        if !(shown && self.directory.status(&owner.name) == Some(Status::Left)) {
            note(&mut self.liveness, now, &owner.name);
        }
    }

    fn forget(&mut self, owner: &Owner) {
        self.directory.forget(owner);
        self.remember_orphans();
        if self.directory.generation(&owner.name).is_none() {
            self.liveness.forget(&owner.name);
        }
    }
}

#[cfg(test)]
mod tests;
