//! An agent without the world: what it holds, and what it makes of calls, of peers' changes, and of time. Time comes in as
//! an argument; what is to be done comes out as the answer and as [`Effects`].

mod drain;
mod due;
mod effects;
mod former;
mod frozen;
mod gosts;
mod heal;
mod hear;
mod holes;
mod hostnames;
mod keeping;
mod levels;
mod moved;
mod offers;
mod reach;
mod reconcile;
mod resolve;
mod twins;
mod unreached;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use self::due::Due;
pub use self::effects::{Effects, Line};
pub use self::frozen::NOBODYS;
pub use self::gosts::{Dial, Dialled, MAX_DIALS};
pub use self::heal::{Heal, HealedFrom};
pub use self::hear::News;
pub use self::holes::{Around, NoDetour, Seek};
pub use self::keeping::{Batch, LATE};
pub use self::levels::Level;
pub use self::moved::BITE;
pub use self::offers::{Detour, Offer};
pub use self::reach::{EntrypointView, Tried, Try};
pub use self::reconcile::Unreconciled;
pub use self::resolve::Tally;
pub use self::unreached::{MOST_SHOWN, OwnUnreached, UnreachedView};
pub use self::view::{Candidate, JournalView, MemberView, PastRecord, TunnelSummary, View};

use crate::complaint::Complaints;
use crate::connection::{Caller, ConnectionId, Connections};
use crate::directory::Directory;
use crate::entrypoints::{Entrypoints, Registered};
use crate::event::EventLog;
use crate::hostname::{Claim, TunnelId};
use crate::label::Label;
use crate::lease::{Holding, Imported, KEEP_LAPSED, KeptLeases, LeaseTable, Renewal};
use crate::liveness::Liveness;
use crate::locality::Locality;
use crate::quota::{Full, MAX_TUNNEL_RECORDS, Quota, Share};
use crate::rank::Order;
use crate::record::{AgentName, Draft, Generation, Owner, Record};
use crate::slot::{Cell, Slot, Status, Version, Versions, Write};

/// A record lives this long without a Renew, until its Renew period is known: four of gost's default. Also how
/// long a silent peer's records are listed after its last sign of life.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// Instances that are looked at when an unknown gost goes: more than any host has.
const MAX_NAMELESS: usize = 64;

/// How an agent behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who it is.
    pub owner: Owner,
    /// [`LEASE_TTL`], or the operator's setting.
    pub lease_ttl: Duration,
    /// In which order records are listed.
    pub order: Order,
    /// How much it holds at most.
    pub quota: Quota,
    /// Where it is, and how much it is to be used.
    pub locality: Locality,
    /// Tunnels that the operator's rules close to the public.
    pub private: BTreeSet<TunnelId>,
    /// What a test has broken.
    pub broken: Broken,
    /// How many times as fast as usual it forgets, for tests of what takes minutes and hours: 1.
    pub hurry: u32,
}

impl Settings {
    /// As an operator who sets nothing has them.
    pub fn of(owner: Owner) -> Self {
        Self {
            owner,
            lease_ttl: LEASE_TTL,
            order: Order::Random,
            quota: Quota::default(),
            locality: Locality::default(),
            private: BTreeSet::new(),
            broken: Broken::default(),
            hurry: 1,
        }
    }
}

/// The settings that can change while an agent runs.
#[derive(Clone, Copy, Debug)]
pub struct Adjusted<'a> {
    /// See [`Settings::order`].
    pub order: Order,
    /// See [`Settings::quota`].
    pub quota: Quota,
    /// See [`Settings::locality`].
    pub locality: &'a Locality,
    /// See [`Settings::private`].
    pub private: &'a BTreeSet<TunnelId>,
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
    pub names: bool,
    /// A gost that answers a dial loses its leases sooner than one that was not dialled.
    pub dials: bool,
}

/// What a journal kept.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Records, and what is known of their gosts.
    pub leases: KeptLeases,
    /// Where gosts registered.
    pub entrypoints: Vec<Registered>,
    /// Claims on host names.
    pub claims: Vec<Claim>,
    /// Whether it drained.
    pub draining: bool,
    /// The start that wrote it, and the version of that start's changes to which it has everything. None of what cannot be older
    /// than what peers remember.
    pub told: Option<(Generation, Version)>,
}

impl Restored {
    /// Whether it kept no record and no claim.
    pub fn is_empty(&self) -> bool {
        let Self {
            leases: KeptLeases { held, unconfirmed: _, lapsed, released, periods: _ }, claims, ..
        } = self;
        held.is_empty() && lapsed.is_empty() && released.is_empty() && claims.is_empty()
    }
}

/// What an agent holds and thinks.
#[derive(Debug)]
pub struct State {
    owner: Owner,
    broken: Broken,
    hurry: u32,
    versions: Versions,
    /// What is to be done when the lock is free again.
    effects: Effects,
    /// When the driver looks by itself.
    armed: Option<Instant>,
    /// Whether the keeper knows that something waits for the journal.
    told_touched: bool,
    started: Instant,
    /// When the first peer was shown.
    met: Option<Instant>,
    quota: Quota,
    /// How many bytes of other owners there is memory for.
    others: usize,
    order: Order,
    locality: Locality,
    leases: LeaseTable,
    overdue: due::Overdue,
    entrypoints: Entrypoints,
    drain: drain::Drain,
    /// When claims are to be checked next.
    next_check: Option<Instant>,
    /// When empty slots are to be given back next.
    next_tidying: Instant,
    directory: Directory,
    /// What our former generations stated, as peers remember it.
    former: former::FormerRecords,
    reconciliation: reconcile::Reconciliation,
    liveness: Liveness,
    /// The newest start of each peer that was heard.
    heard: BTreeMap<AgentName, Generation>,
    /// When a peer was heard for the first time, the last time that happened.
    last_met: Option<(Instant, AgentName)>,
    connections: Connections,
    evidence: gosts::Evidence,
    reaches: reach::Reaches,
    silence: frozen::Silence,
    logged: unreached::LoggedFaults,
    holes: holes::Holes,
    offers: offers::Offers,
    /// Changes to be sent to the cluster. A newer change of a slot replaces an older one, so there are never more than
    /// slots.
    outbox: BTreeMap<Slot, Cell>,
    journal: keeping::Health,
    journal_bytes: u64,
    /// Changes on their way to the journal.
    writing: usize,
    /// Whether nothing waited when they were taken.
    took_all: bool,
    /// Whether everything is written anew, because the journal failed.
    rewrites: bool,
    pace: keeping::Pace,
    heals: heal::Heals,
    complaints: Complaints,
    log: EventLog,
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
    /// Commits of the journal that took longer than [`LATE`].
    pub late_commits: u64,
    /// Dials of gosts that answered, refused, took connections without an answer, and did neither.
    pub dialled: [u64; 4],
    /// Dials of entrypoints that visitors here want: those that worked, were refused, and did neither.
    pub tried: [u64; 3],
    /// Answers that began with a detour.
    pub detours: u64,
    /// Offers of peers that nobody had asked for, or not any more.
    pub offers_dropped: u64,
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
    pub own_claims: usize,
    /// Claims on host names known, of all owners.
    pub claims: usize,
    /// Tunnels known to be closed to the public.
    pub private: usize,
}

impl State {
    /// An agent that holds what a journal kept. The gosts of that are dialled.
    pub fn new(now: Instant, settings: &Settings, restored: Restored) -> Self {
        let hurry = settings.hurry.max(1);
        let mut state = Self {
            owner: settings.owner.clone(),
            broken: settings.broken,
            hurry,
            versions: Versions::default(),
            effects: Effects::default(),
            armed: None,
            told_touched: false,
            started: now,
            met: None,
            quota: settings.quota,
            others: usize::MAX,
            order: settings.order,
            locality: settings.locality.clone(),
            leases: LeaseTable::new(now, settings.lease_ttl).keeping(KEEP_LAPSED / hurry),
            overdue: due::Overdue::default(),
            entrypoints: Entrypoints::default(),
            drain: drain::Drain::of(restored.draining),
            next_check: None,
            next_tidying: now + due::TIDYING / hurry,
            directory: Directory::new(&settings.owner),
            former: former::FormerRecords::default(),
            reconciliation: reconcile::Reconciliation::of(restored.told),
            liveness: Liveness::new(settings.lease_ttl),
            heard: BTreeMap::new(),
            last_met: None,
            connections: Connections::default(),
            evidence: gosts::Evidence::default(),
            reaches: reach::Reaches::default(),
            silence: frozen::Silence::default(),
            logged: unreached::LoggedFaults::default(),
            holes: holes::Holes::default(),
            offers: offers::Offers::default(),
            outbox: BTreeMap::new(),
            journal: keeping::Health::Absent(None),
            journal_bytes: 0,
            writing: 0,
            took_all: true,
            rewrites: false,
            pace: keeping::Pace::default(),
            heals: heal::Heals::default(),
            complaints: Complaints::default(),
            log: EventLog::default(),
            counts: Changes::default(),
        };
        // Of a process that handed over, the gosts noticed nothing.
        let is_of_a_journal = restored.told.is_some();
        state.entrypoints.restore(restored.entrypoints);
        let claims = &mut state.directory.claims;
        let mut changes = claims.restore(now, restored.claims);
        changes.extend(claims.close(&settings.private));
        changes.extend(state.leases.restore(now, restored.leases));
        state.tell_all(now, changes);
        state.set_share();
        let nodes: Vec<_> = state.leases.nodes().cloned().collect();
        for node in nodes {
            state.connections.orphan((*node.text()).into());
        }
        if is_of_a_journal {
            state.await_calls(now);
        }
        if state.locality != Locality::default() {
            state.tell(now, Write::locality(state.locality.clone()));
        }
        // After the records, so that whoever has the status has all of them.
        state.tell(now, Write::status(if restored.draining { Status::Draining } else { Status::Ready }));
        // Nobody waits for the lock yet.
        while state.directory.has_work() {
            state.reindex(now);
        }
        if restored.draining {
            state.effects.lines.push(Line::StillDraining);
        }
        state
    }

    /// Takes a record: readable here before this returns, and on its way to the peers.
    pub fn register(&mut self, now: Instant, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.spoke(now, caller, &holding.record.node.text());
        self.admit(now, &holding.record)?;
        let changes = self.leases.register(now, holding)?;
        self.tell_all(now, changes);
        Ok(())
    }

    /// The same for a gost that sent no address. If another, connected gost has the address that was found, both stay.
    pub fn register_unsaid(&mut self, now: Instant, caller: Caller, holding: Holding) -> Result<(), Full> {
        let record = &holding.record;
        self.spoke(now, caller, &record.node.text());
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

    /// Prolongs the lease of a connector. An unknown one is healed, if its address can be found; false if
    /// not.
    pub fn renew(
        &mut self,
        now: Instant,
        caller: Caller,
        draft: Draft<'_>,
        heal: &Heal<'_>,
    ) -> Result<bool, Full> {
        let id = Label::from(draft.id);
        self.spoke(now, caller, draft.node);
        if let Some(name) = self.leases.lapsed_name(&id) {
            self.admit_one(&name)?;
        }
        match self.leases.renew(now, &id) {
            Renewal::Renewed => {
                if caller.remote.is_none() {
                    self.expect_renew(&draft.node.into());
                }
            }
            Renewal::Released => {}
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

    /// Takes a record of a gost of this host that another store kept, and remembers where that gost is. A live record
    /// stays as it is, and so does an id that was released a moment ago.
    pub fn import(&mut self, now: Instant, caller: Caller, holding: Holding) -> Result<Imported, Full> {
        if let Some(found) = self.leases.import_finds(now, &holding.record.id) {
            return Ok(found);
        }
        self.admit(now, &holding.record)?;
        self.note_entrypoint(caller, &holding.record, &holding.dial);
        let imported = self.leases.import(now, holding)?;
        if let Imported::Taken(change) = &imported {
            self.tell(now, change.clone());
        }
        Ok(imported)
    }

    /// What an import of an id would find; none if it would be taken.
    pub fn import_finds(&self, now: Instant, id: &Label) -> Option<Imported> {
        self.leases.import_finds(now, id)
    }

    /// Releases a connector, known or not.
    pub fn deregister(&mut self, now: Instant, caller: Caller, draft: Draft<'_>) {
        self.spoke(now, caller, draft.node);
        let change = self.leases.release(now, &Label::from(draft.id));
        self.tell_all(now, change);
    }

    /// A plugin connection is closed.
    pub fn connection_closed(&mut self, connection: ConnectionId) {
        if self.connections.closed(connection) {
            // A gost that came home, or whose agent was restarted, asks before it renews: it may be any that did not.
            let Self { leases, connections, .. } = self;
            leases.nodes().take(MAX_NAMELESS).for_each(|node| connections.orphan((*node.text()).into()));
        }
        self.effects.is_due = true;
    }

    /// Lists in this order from now on, is there, holds so much at most, and closes these tunnels to the public.
    /// Nothing that is held goes for it.
    pub fn adjust(&mut self, now: Instant, adjusted: Adjusted<'_>) {
        let Adjusted { order, quota, locality, private } = adjusted;
        (self.order, self.quota) = (order, quota);
        self.set_share();
        if *locality != self.locality {
            self.locality = locality.clone();
            self.tell(now, Write::locality(locality.clone()));
        }
        let changes = self.directory.claims.close(private);
        self.tell_all(now, changes);
        if !private.iter().all(|tunnel| self.directory.claims.is_private(*tunnel)) {
            self.effects.lines.push(Line::NotAllPrivate);
        }
    }

    /// Keeps no more than so many bytes of other owners, all together. What is kept already stays.
    pub fn bound_others(&mut self, bytes: usize) {
        self.others = bytes;
        self.set_share();
    }

    fn set_share(&mut self) {
        let share = Share::of(&self.quota).within(self.others);
        self.directory.replicas.set_share(share);
        self.former.replicas.set_share(share);
    }

    /// A gost of this host asked something over that connection, without saying which instance it is: for a visitor, or because it
    /// was asked for [`NOBODYS`].
    pub fn called(&mut self, now: Instant, connection: ConnectionId, is_visit: bool) {
        self.connections.asked(connection);
        self.attach(None, None);
        self.note_question(now, is_visit);
    }

    /// A gost calls. That the two have found each other is what an operator looks for first.
    fn attach(&mut self, node: Option<&str>, remote: Option<IpAddr>) {
        if self.connections.is_first_call() {
            let node = node.filter(|node| !node.is_empty()).map(Label::from);
            self.effects.lines.push(Line::Attached { node, remote });
        }
    }

    /// A caller named its instance.
    fn spoke(&mut self, now: Instant, caller: Caller, node: &str) {
        self.connections.spoke(caller, node);
        self.attach(Some(node), caller.remote);
        if caller.remote.is_none() {
            self.note_life(now, &node.into());
        } else {
            self.note_call(now, &node.into());
        }
    }

    /// Who it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The records registered here.
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// When there is something to do without a call.
    fn next_due(&self) -> Option<Instant> {
        let leases = self.leases.next_deadline().filter(|_| !self.broken.leases);
        let others = [
            self.directory.claims.next_deadline(),
            self.reaches.next_due(),
            self.silence.next_due(),
            self.logged.next_due(),
            self.holes.next_due(),
            self.next_check,
            self.reconciliation.next_due(),
        ];
        others.into_iter().flatten().chain(leases).min()
    }

    /// What is to be done since the last call of this. It has to be called after every other call.
    pub fn take_effects(&mut self) -> Effects {
        let mut effects = std::mem::take(&mut self.effects);
        // The driver sleeps until what was due first when it looked.
        effects.is_due |= self.next_due().is_some_and(|due| self.armed.is_none_or(|armed| due < armed));
        effects.is_touched = self.is_touched() && !std::mem::replace(&mut self.told_touched, true);
        effects
    }

    /// Whether there is room for a record as it is now.
    fn admit(&mut self, now: Instant, record: &Record) -> Result<(), Full> {
        if self.leases.is_overtaken(now, &record.id) {
            return Ok(());
        }
        if !self.leases.is_live(&record.id) && !self.leases.would_replace(record) {
            // What a gost before this one had may be on its way out.
            while self.admit_one(&record.name).is_err() && self.carry_out(now) {}
            self.admit_one(&record.name)?;
        }
        self.make_room(record.size().saturating_sub(self.leases.live_size(&record.id)))
    }

    fn admit_one(&self, name: &Label) -> Result<(), Full> {
        let most = self.quota.records;
        if self.leases.live() >= most {
            return Err(Full::Records(most));
        }
        let listed = self.directory.tunnels.lookup(name);
        // Counted only for a tunnel that may have so many.
        let is_full = listed.len() >= MAX_TUNNEL_RECORDS
            && listed.iter().filter(|entry| *entry.owner == self.owner).count() >= MAX_TUNNEL_RECORDS;
        if is_full { Err(Full::TunnelRecords(MAX_TUNNEL_RECORDS)) } else { Ok(()) }
    }

    /// Refuses without a change, or lets what has lapsed give way to what lives; a bit of it at a time, to keep
    /// the lock short.
    fn make_room(&mut self, bytes: usize) -> Result<(), Full> {
        const MOST: usize = 64;
        let firm = self.leases.bytes() - self.leases.lapsed_bytes() + self.directory.claims.bytes();
        if firm + bytes > self.quota.bytes {
            return Err(Full::Bytes(self.quota.bytes));
        }
        for _ in 0..MOST {
            let held = self.leases.bytes() + self.directory.claims.bytes();
            let over = held + bytes > self.quota.bytes || self.leases.lapsed() > self.quota.records;
            if !over || !self.leases.forget_oldest_lapsed() {
                break;
            }
        }
        Ok(())
    }

    /// How much waits to be written.
    fn touched(&self) -> usize {
        let drain = usize::from(self.drain.is_touched());
        self.leases.touched() + self.entrypoints.touched_len() + self.directory.claims.touched() + drain
    }

    fn is_touched(&self) -> bool {
        let gosts = self.leases.is_touched() || self.entrypoints.touched_len() > 0;
        gosts || self.directory.claims.touched() > 0 || self.drain.is_touched()
    }

    /// Makes a change of our own: for the answers of this agent, and for the cluster.
    fn tell(&mut self, now: Instant, write: Write) -> Version {
        let change = self.versions.change(write);
        let version = change.cell.version;
        let mut events = Vec::new();
        self.directory.say(now, &self.owner, &change, &mut events);
        self.log.extend(now, events);
        self.outbox.insert(change.slot, change.cell);
        (self.effects.is_due, self.effects.is_revised) = (true, true);
        version
    }

    fn tell_all(&mut self, now: Instant, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            self.tell(now, write);
        }
    }
}

#[cfg(test)]
mod tests;
