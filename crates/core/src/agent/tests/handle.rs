//! An agent as the program has it, but in a time that tests make pass.

use crate::link::ReplicaStore as _;
use std::cell::{self, RefCell, RefMut};

use super::*;

thread_local! {
    /// Each test is a thread.
    static NOW: cell::Cell<Instant> = cell::Cell::new(Instant::now());
}

/// What time it is.
pub(in crate::agent) fn now() -> Instant {
    NOW.get()
}

/// Time passes.
pub(in crate::agent) fn advance(by: Duration) {
    NOW.set(now() + by);
}

/// An agent that is called at the time that it is, as the program calls it.
pub(in crate::agent) struct Agent {
    owner: Owner,
    state: RefCell<State>,
}

impl Agent {
    pub(in crate::agent) fn new(settings: &Settings, restored: Restored) -> Self {
        let state = RefCell::new(State::new(now(), settings, restored));
        Self { owner: settings.owner.clone(), state }
    }

    pub(in crate::agent) fn lock(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(in crate::agent) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(in crate::agent) fn register(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.lock().register(now(), caller, holding)
    }

    pub(in crate::agent) fn register_unsaid(&self, caller: Caller, holding: Holding) -> Result<(), Full> {
        self.lock().register_unsaid(now(), caller, holding)
    }

    pub(in crate::agent) fn renew(
        &self,
        caller: Caller,
        draft: Draft<'_>,
        heal: &Heal<'_>,
    ) -> Result<bool, Full> {
        self.lock().renew(now(), caller, draft, heal)
    }

    pub(in crate::agent) fn deregister(&self, caller: Caller, draft: Draft<'_>) {
        self.lock().deregister(now(), caller, draft);
    }

    pub(in crate::agent) fn connection_closed(&self, connection: ConnectionId) {
        self.lock().connection_closed(connection);
    }

    pub(in crate::agent) fn called(&self, connection: ConnectionId) {
        self.lock().called(now(), connection, true);
    }

    pub(in crate::agent) fn asked(&self, connection: ConnectionId, name: &str) {
        self.lock().asked(now(), connection, name);
    }

    pub(in crate::agent) fn adjust(&self, adjusted: Adjusted<'_>) {
        self.lock().adjust(now(), adjusted);
    }

    pub(in crate::agent) fn note_entrypoint(&self, caller: Caller, record: &Record, dial: &Address) {
        self.lock().note_entrypoint(caller, record, dial);
    }

    /// Equals take turns.
    pub(in crate::agent) fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        thread_local! {
            static TURN: cell::Cell<u64> = const { cell::Cell::new(0) };
        }
        TURN.set(TURN.get() + 1);
        self.lock().resolve(now(), name, TURN.get())
    }

    pub(in crate::agent) fn handle(&self, news: News) {
        self.lock().handle(now(), news);
    }

    pub(in crate::agent) fn version(&self, owner: &Owner) -> Option<Version> {
        self.lock().version(owner)
    }

    pub(in crate::agent) fn say(&self, status: Status) {
        self.lock().say(now(), status);
    }

    pub(in crate::agent) fn dialled(&self, dial: Dial, dialled: Dialled) -> Option<Dial> {
        self.lock().dialled(now(), dial, dialled)
    }

    pub(in crate::agent) fn tried(&self, address: &Address, tried: Tried) {
        self.lock().tried(now(), address, tried);
    }

    pub(in crate::agent) fn endpoint(&self, host: &str) -> Option<Endpoint> {
        self.lock().endpoint(host, |_| true)
    }

    pub(in crate::agent) fn is_private(&self, tunnel: TunnelId) -> bool {
        self.lock().is_private(tunnel)
    }

    pub(in crate::agent) fn claim(&self, host: &str, endpoint: Endpoint) -> Result<bool, Full> {
        self.lock().claim(now(), host, endpoint, |_| true)
    }

    pub(in crate::agent) fn use_journal(&self) {
        self.lock().use_journal();
    }

    pub(in crate::agent) fn take_batch(&self) -> Batch {
        self.lock().take_batch()
    }

    pub(in crate::agent) fn written(&self) -> bool {
        self.lock().written()
    }

    pub(in crate::agent) fn not_written(&self, batch: Batch, lost: bool) {
        self.lock().not_written(batch, "the disk is full".into(), lost);
    }

    pub(in crate::agent) fn heals(&self) -> Vec<(HealedFrom, u64)> {
        self.lock().heals()
    }

    pub(in crate::agent) fn counts(&self) -> Counts {
        self.lock().counts()
    }

    pub(in crate::agent) fn view(&self) -> View {
        self.lock().view(now())
    }

    pub(in crate::agent) fn explain(&self, name: &str) -> Vec<Candidate> {
        self.lock().explain(now(), name)
    }

    pub(in crate::agent) fn effects(&self) -> Effects {
        self.lock().take_effects()
    }

    pub(in crate::agent) fn collected(&self) -> Vec<Change> {
        self.lock().due(now(), MAX_DIALS, |_| false).changes.into_changes()
    }

    pub(in crate::agent) fn collect_changes(&self) -> usize {
        self.collected().len()
    }
}
