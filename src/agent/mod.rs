//! The agent as the rest of the program has it: its state behind one lock, which decides and touches nothing. This reads
//! the clock, once for each call, and does what is to be done when the lock is free again.

mod dials;
mod driver;
mod keeper;
mod log;
mod metrics;
mod views;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant as StdInstant;

use gossd_core::address::Address;
use gossd_core::agent::{Effects, Heal, News, Restored, Settings, State};
use gossd_core::connection::{Caller, ConnectionId};
use gossd_core::entrypoints::Place;
use gossd_core::hostname::{Endpoint, TunnelId};
use gossd_core::lease::Holding;
use gossd_core::quota::{Full, Quota};
use gossd_core::rank::Order;
use gossd_core::record::{Draft, Owner, Record};
use gossd_core::replica::Part;
use gossd_core::slot::{Slot, Status, Version};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::driver::Dialling;

use crate::gossip::Hearer;

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
    /// The version of the last status that the gossip was told.
    status_told: watch::Sender<Version>,
    /// Rises with every change of the directory.
    revision: watch::Sender<u64>,
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
        effects.lines.into_iter().for_each(log::log);
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
        self.with(|state, _| state.called(connection));
    }

    /// Lists in this order from now on, holds so much at most, and says that these tunnels are closed to the public.
    /// Nothing that is held goes for it.
    pub fn adjust(&self, order: Order, quota: Quota, private: &BTreeSet<TunnelId>) {
        self.with(|state, now| state.adjust(now, order, quota, private));
    }

    /// A gost of this host asks where a tunnel is: one that had its connector would not ask. So if it is the only gost here,
    /// its own record of the tunnel is stale; one that it has just registered aside.
    pub fn asked(&self, connection: ConnectionId, name: &str) {
        self.with(|state, now| state.asked(now, connection, name));
    }

    /// A gost registered, and said where it is: for calls that do not.
    pub fn note_entrypoint(&self, caller: Caller, record: &Record, dial: &Address) {
        self.with(|state, _| state.note_entrypoint(caller, record, dial));
    }

    /// Where an entrypoint is that a Register does not name: where its instance registered last, or else any gost of the
    /// caller's host.
    pub fn registered_last(&self, caller: Caller, draft: Draft<'_>) -> Option<Place> {
        self.lock().registered_last(caller, draft)
    }

    /// The records of a tunnel name, in the order in which gost should try them.
    pub fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        let turn = rand::random();
        self.with(|state, now| state.resolve(now, name, turn))
    }

    /// Where a host leads, by its key; see [`gossd_core::hostname`].
    pub fn endpoint(&self, host: &str) -> Option<Endpoint> {
        self.lock().endpoint(host)
    }

    /// Whether a tunnel is closed to the public under all its names: its operator's rule or its client's claim says so.
    pub fn is_private(&self, tunnel: TunnelId) -> bool {
        self.lock().is_private(tunnel)
    }

    /// Claims a host for a tunnel. False if it is another tunnel's; a claim that this one had lost is given up.
    pub fn claim(&self, host: &str, endpoint: Endpoint) -> Result<bool, Full> {
        self.with(|state, now| state.claim(now, host, endpoint))
    }

    /// Hears from the cluster. Quick, and does not panic.
    pub fn handle(&self, news: News) {
        self.with(|state, now| state.handle(now, news));
    }

    /// Tells the cluster how we are, and the journal whether we drain; resolves when both have it, or the journal could not
    /// take it for a moment.
    pub async fn say(&self, status: Status) {
        let said = self.with(|state, now| state.say(now, status));
        // The sender is ours.
        let told = async { drop(self.shared.status_told.subscribe().wait_for(|told| *told >= said).await) };
        tokio::join!(told, self.flush());
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
        lines.into_iter().for_each(log::log);
    }

    /// A panic under the lock would be a bug; the state is consistent between any two statements that can
    /// fail, so going on beats failing every later call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hearer for Agent {
    fn hear(&self, news: News) {
        self.handle(news);
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        self.lock().version(owner)
    }

    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        self.lock().part(owner, after, from)
    }
}

#[cfg(test)]
mod tests;
