//! The agent as the rest of the program uses it: its state behind one lock. The state decides and touches nothing. This
//! module reads the clock once per call, and performs the state's effects after it has released the lock.

mod dials;
mod driver;
pub(crate) mod keeper;
mod log;
mod metrics;
mod views;

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use gossd_core::agent::{Adjusted, BITE, Effects, Heal, News, Offer, Restored, Settings, State};
use gossd_core::connection::{Caller, ConnectionId};
use gossd_core::entrypoints::Place;
use gossd_core::hostname::{Endpoint, TunnelId};
use gossd_core::label::Label;
use gossd_core::lease::{Holding, Imported};
use gossd_core::link::ReplicaStore;
use gossd_core::quota::Full;
use gossd_core::record::{AgentName, Draft, Owner, Record};
use gossd_core::replica::Part;
use gossd_core::slot::{Slot, Status, Version};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::driver::Dialling;
pub(crate) use self::log::{changed, few, frozen, own_unreached, rejected, unreached, what_draining_means};
pub(crate) use self::views::TunnelList;

/// A handle; clones share one state. No method waits for anything but the lock, and the lock is never held across an
/// `.await` or a system call.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Inner>,
}

struct Inner {
    owner: Owner,
    /// A lock that is fair in the end: who does much, a bite at a time, would take another one again and again before a call
    /// that waits.
    state: Mutex<State>,
    /// Changes are to be published, or something is due earlier than the driver knows.
    changed: Notify,
    /// Changes wait for the journal.
    touched: Notify,
    /// Whether the journal has all changes.
    kept: watch::Sender<bool>,
    /// The version of the last status that the gossip has published.
    status_published: watch::Sender<Version>,
    /// Rises with every change of the directory.
    revision: watch::Sender<u64>,
}

impl Agent {
    /// An agent that holds the content of a journal. The gosts of restored records are dialled.
    pub fn new(settings: Settings, restored: Restored) -> Self {
        let mut state = State::new(Instant::now().into_std(), &settings, restored);
        let effects = state.take_effects();
        let shared = Inner {
            owner: settings.owner,
            state: Mutex::new(state),
            changed: Notify::new(),
            touched: Notify::new(),
            kept: watch::Sender::new(true),
            status_published: watch::Sender::new(0),
            revision: watch::Sender::new(0),
        };
        let agent = Self { shared: Arc::new(shared) };
        agent.perform(effects);
        agent
    }

    /// Withholds from peers that this agent is ready, for that long at most: see [`State::withhold_status`].
    pub(crate) fn withhold_status(&self, at_most: Duration, known: Vec<AgentName>) {
        self.with(|state, now| state.withhold_status(now + at_most, known));
    }

    /// This agent's name and generation.
    pub fn owner(&self) -> &Owner {
        &self.shared.owner
    }

    /// Takes a record. It can be read here before this returns; peers get it soon.
    pub fn register(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.with(|state, now| state.register(now, caller, holding))
    }

    /// Takes a record of a gost that said where it is, and remembers that for later calls without an address.
    pub fn register_of_gost(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.with(|state, now| {
            let Holding { record, dial } = &holding;
            let (record, dial) = (record.clone(), dial.clone());
            state.register(now, caller, holding)?;
            state.note_entrypoint(caller, &record, &dial);
            Ok(())
        })
    }

    /// Takes a record whose address comes from another registration. If a gost is connected that registered there, both
    /// use one entrypoint.
    pub fn register_unsaid(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.with(|state, now| state.register_unsaid(now, caller, holding))
    }

    /// Extends the lease of a connector. An unknown connector is restored, if its address is known from anywhere;
    /// otherwise returns false.
    pub fn renew(&self, caller: Caller, draft: Draft<'_>, heal: &Heal<'_>) -> Result<bool, Full> {
        self.with(|state, now| state.renew(now, caller, draft, heal))
    }

    /// Takes a record of a gost of this host that another store kept: see [`State::import`].
    pub(crate) fn import(&self, caller: Caller, holding: Holding) -> Result<Imported, Full> {
        self.with(|state, now| state.import(now, caller, holding))
    }

    /// What an import of an id would find; none if it would be taken.
    pub(crate) fn import_finds(&self, id: &Label) -> Option<Imported> {
        let now = Instant::now().into_std();
        self.lock().import_finds(now, id)
    }

    /// Releases a connector, whether it is known or not.
    pub fn deregister(&self, caller: Caller, draft: Draft<'_>) {
        self.with(|state, now| state.deregister(now, caller, draft));
    }

    /// A plugin connection is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.with(|state, _| state.connection_closed(connection));
    }

    /// A gost of this host called over this connection, without naming its instance.
    pub fn called(&self, connection: ConnectionId, is_visit: bool) {
        self.with(|state, now| state.called(now, connection, is_visit));
    }

    /// Gives own records the places that `moved` finds for theirs, because this host has another address. Between two bites,
    /// calls are answered. How many records moved.
    pub async fn readdress(&self, moved: impl Fn(&Place) -> Option<Place>) -> usize {
        // By the address that they have until now.
        while self.in_turn(State::carry_out) {}
        let ids = self.lock().own_ids();
        // Where gosts registered moves, too, if there is no record.
        let bites = if ids.is_empty() { vec![&ids[..]] } else { ids.chunks(BITE).collect() };
        let mut records = 0;
        for bite in bites {
            records += self.in_turn(|state, now| state.readdress(now, bite, &moved));
            tokio::task::yield_now().await;
        }
        records
    }

    /// Applies new settings: the order of answers, the limits, and the tunnels that are private. What is held already
    /// stays, even above the limits.
    pub fn adjust(&self, adjusted: Adjusted<'_>) {
        self.with(|state, now| state.adjust(now, adjusted));
    }

    /// Keeps no more than so many bytes of other owners: the memory of this process is limited.
    pub fn bound_others(&self, bytes: usize) {
        self.with(|state, _| state.bound_others(bytes));
    }

    /// The entrypoint for a Register without an address: where its instance registered last, or else any gost of the
    /// caller's host.
    pub fn registered_last(&self, caller: Caller, draft: Draft<'_>) -> Option<Place> {
        self.lock().registered_last(caller, draft)
    }

    /// The records of a tunnel name, in the order in which gost should try them.
    pub fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        let turn = rand::random();
        self.with(|state, now| state.resolve(now, name, turn))
    }

    /// The same for a gost of this host. A gost that has the tunnel's connector would not ask. So if it is the only gost
    /// here, its own record of the tunnel is stale, unless it has only just registered it.
    pub fn resolve_for(&self, connection: ConnectionId, name: &str) -> Vec<Arc<Record>> {
        let turn = rand::random();
        self.with(|state, now| {
            state.asked(now, connection, name);
            state.resolve(now, name, turn)
        })
    }

    /// The endpoint of a host name, by its key, as far as tunnels may have it; see [`gossd_core::hostname`].
    pub fn endpoint(&self, host: &str, may_have: impl Fn(TunnelId) -> bool) -> Option<Endpoint> {
        self.lock().endpoint(host, may_have)
    }

    /// Whether a tunnel is private under all its names, by an operator's rule or a client's claim.
    pub fn is_private(&self, tunnel: TunnelId) -> bool {
        self.lock().is_private(tunnel)
    }

    /// Claims a host name for a tunnel. Returns false if the name belongs to another tunnel that may have it; a claim of this tunnel
    /// that had lost is then given up.
    pub fn claim(
        &self,
        host: &str,
        endpoint: Endpoint,
        may_have: impl Fn(TunnelId) -> bool,
    ) -> Result<bool, Full> {
        self.with(|state, now| state.claim(now, host, endpoint, may_have))
    }

    /// Takes back the claims of this agent that an operator's policy does not let stand. How many these were.
    pub(crate) fn withdraw_claims(&self, may_stand: impl Fn(&str, TunnelId) -> bool) -> usize {
        self.with(|state, now| state.withdraw_claims(now, may_stand))
    }

    /// Whether a record of a tunnel is registered here.
    pub(crate) fn has_own(&self, tunnel: &str) -> bool {
        self.lock().has_own(tunnel)
    }

    /// Publishes this agent's status, and tells the journal whether it drains. Returns when both have it, or when the
    /// journal has not written it within a limited time.
    pub async fn say(&self, status: Status) {
        let version = self.with(|state, now| state.say(now, status));
        // This agent holds the sender, so the channel cannot close.
        let mut status = self.shared.status_published.subscribe();
        let published = async { drop(status.wait_for(|published| *published >= version).await) };
        tokio::join!(published, self.flush(keeper::FLUSH_BRIEFLY));
    }

    /// A number that rises with every change of the directory.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// Runs `act` on the state at the current time, and performs the effects.
    fn with<T>(&self, act: impl FnOnce(&mut State, StdInstant) -> T) -> T {
        let mut state = self.lock();
        // In the order in which the state hears of it.
        let answer = act(&mut state, Instant::now().into_std());
        let effects = state.take_effects();
        drop(state);
        self.perform(effects);
        answer
    }

    /// The same for one bite of something large: a call that waits has the lock before the next one.
    fn in_turn<T>(&self, act: impl FnOnce(&mut State, StdInstant) -> T) -> T {
        self.in_turn_at(Instant::now().into_std(), act)
    }

    fn in_turn_at<T>(&self, now: StdInstant, act: impl FnOnce(&mut State, StdInstant) -> T) -> T {
        let mut state = self.lock();
        let answer = act(&mut state, now);
        let effects = state.take_effects();
        MutexGuard::unlock_fair(state);
        self.perform(effects);
        answer
    }

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
        lines.into_iter().for_each(log::log);
    }

    /// A panic under the lock would be a bug. Between any two statements that can fail, the state is consistent, so
    /// continuing is better than failing every later call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

impl ReplicaStore for Agent {
    fn apply(&mut self, now: StdInstant, news: News) {
        self.in_turn_at(now, |state, now| state.handle(now, news));
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        self.lock().version(owner)
    }

    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        self.lock().part(owner, after, from)
    }

    fn offer(&mut self, now: StdInstant, by: &Owner, tunnel: TunnelId) -> Offer {
        self.in_turn_at(now, |state, now| state.offer(now, by, tunnel))
    }
}

#[cfg(test)]
mod tests;
