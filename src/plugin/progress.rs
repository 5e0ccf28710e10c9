//! The state of one plugin connection: idle, which is allowed for ever, or waiting for its client in the middle of
//! something. [`super::connections`] decides what follows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use super::bounds::Closed;
use super::frames::Arriving;

/// How long a connection that is to end waits for its first call, counted from its accept. A client's first bytes
/// follow its dial within a millisecond, on a starved host later. A stopping agent waits no longer than this for other
/// calls either.
const NEWCOMER: Duration = Duration::from_millis(400);

/// One connection, by its bytes and its calls.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<ProgressState>,
    /// Whether `stuck` is set: what a write asks, without the lock. Only the connection's own task writes.
    is_stuck: AtomicBool,
    /// Serves the connection.
    task: OnceLock<AbortHandle>,
    winding_down: Notify,
    called: Notify,
}

#[derive(Debug)]
struct ProgressState {
    since: Instant,
    handshaking: bool,
    /// Whether any call was answered with more than a refusal.
    served: bool,
    arriving: Arriving,
    /// Since when the socket accepts no more bytes.
    stuck: Option<Instant>,
    /// Mostly one; HTTP/2 may have as many as its streams.
    calls: Vec<(u64, CallStep)>,
    last_call: u64,
    idle: Instant,
}

/// The step that a call is in, and since when.
#[derive(Clone, Copy, Debug)]
enum CallStep {
    /// The request's body is arriving.
    Arriving(Instant),
    /// A piece of the answer waits for the client to read it.
    Offered(Instant),
    /// The answer is a stream without news.
    Quiet,
}

/// What would be lost with a connection, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// No call was served on it; since its accept.
    Unproven(Instant),
    /// Its client stopped in the middle of something; since then.
    Stalled(Instant),
    /// It has no call; since the last one.
    Idle(Instant),
    /// It is serving a call.
    Busy,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = ProgressState {
            since: now,
            handshaking: true,
            served: false,
            arriving: Arriving::new(),
            stuck: None,
            calls: Vec::new(),
            last_call: 0,
            idle: now,
        };
        Self {
            state: Mutex::new(state),
            is_stuck: AtomicBool::new(false),
            task: OnceLock::new(),
            winding_down: Notify::new(),
            called: Notify::new(),
        }
    }

    /// The handshake is complete, or there is none.
    pub(super) fn opened(&self) {
        self.state().handshaking = false;
    }

    /// Bytes arrived.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut state = self.state();
        let in_call = !state.calls.is_empty();
        state.arriving.read(Instant::now(), bytes, in_call);
    }

    /// The socket accepted bytes, or is stuck.
    pub(super) fn wrote(&self, is_stuck: bool) {
        if self.is_stuck.load(Ordering::Relaxed) != is_stuck {
            self.is_stuck.store(is_stuck, Ordering::Relaxed);
            self.state().stuck = is_stuck.then(Instant::now);
        }
    }

    /// A request's head is complete.
    pub(super) fn call(self: &Arc<Self>, now: Instant) -> CallInFlight {
        let mut state = self.state();
        state.arriving.called();
        state.last_call += 1;
        let number = state.last_call;
        state.calls.push((number, CallStep::Arriving(now)));
        if number == 1 {
            self.called.notify_one();
        }
        CallInFlight { progress: self.clone(), number, is_offered: false }
    }

    /// The task that serves the connection.
    pub(super) fn is_served_by(&self, task: AbortHandle) {
        // Once, by who made the task.
        let _ = self.task.set(task);
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.task.get().into_iter().for_each(AbortHandle::abort);
    }

    /// Asks the connection to end after the calls that it has begun.
    pub(super) fn wind_down(&self) {
        self.winding_down.notify_one();
    }

    /// Waits until the connection is to wind down. A new connection gets time for its first call: its client has
    /// dialled to send one, and would take an earlier end for a failure.
    pub(super) async fn winding_down(&self) {
        self.winding_down.notified().await;
        let (since, calls) = {
            let state = self.state();
            (state.since, state.last_call)
        };
        if calls == 0 {
            let _ = timeout_at((since + NEWCOMER).into(), self.called.notified()).await;
        }
    }

    /// Why to close the connection, if its client has taken longer than `patience`.
    pub(super) fn overdue(&self, now: Instant, patience: Duration) -> Option<Closed> {
        let state = self.state();
        let late = |since: Instant| now.duration_since(since) >= patience;
        if state.handshaking {
            return late(state.since).then_some(Closed::SlowHandshake);
        }
        if state.arriving.unfinished().is_some_and(late) {
            return Some(Closed::SlowHead);
        }
        let offered = state.calls.iter().filter_map(|(_, step)| match step {
            CallStep::Offered(since) => Some(*since),
            CallStep::Arriving(_) | CallStep::Quiet => None,
        });
        state.stuck.into_iter().chain(offered).any(late).then_some(Closed::Unread)
    }

    /// What would be lost with the connection. A call that lasts longer than `hitch` counts as stalled.
    pub(super) fn worth(&self, now: Instant, hitch: Duration) -> Worth {
        let state = self.state();
        if !state.served {
            return Worth::Unproven(state.since);
        }
        match state.waiting_since() {
            Some(since) if now.duration_since(since) >= hitch => Worth::Stalled(since),
            Some(_) => Worth::Busy,
            None => Worth::Idle(state.idle),
        }
    }

    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressState {
    fn place(&self, call: u64) -> Option<usize> {
        self.calls.iter().position(|(number, _)| *number == call)
    }

    fn step(&mut self, call: u64, step: CallStep) {
        if let Some(at) = self.place(call) {
            self.calls[at].1 = step;
        }
    }

    /// Since when the connection waits for its client.
    fn waiting_since(&self) -> Option<Instant> {
        let calls = self.calls.iter().filter_map(|(_, step)| match step {
            CallStep::Arriving(since) | CallStep::Offered(since) => Some(*since),
            CallStep::Quiet => None,
        });
        self.arriving.unfinished().into_iter().chain(self.stuck).chain(calls).min()
    }
}

/// A call in progress. Dropping it ends the call.
#[derive(Debug)]
pub(super) struct CallInFlight {
    progress: Arc<Progress>,
    number: u64,
    /// Whether the first piece of the answer, which is ready with its head, was not taken yet.
    is_offered: bool,
}

impl CallInFlight {
    /// The call is answered, with more than a refusal if it is served. How long its connection has been open.
    pub(super) fn answered(&mut self, now: Instant, is_served: bool) -> Duration {
        self.is_offered = true;
        let mut state = self.progress.state();
        state.served |= is_served;
        state.step(self.number, CallStep::Offered(now));
        now.saturating_duration_since(state.since)
    }

    /// A piece of the answer is ready for the client.
    pub(super) fn offer(&mut self) {
        if !std::mem::take(&mut self.is_offered) {
            self.step(CallStep::Offered(Instant::now()));
        }
    }

    /// The answer has no piece at the moment.
    pub(super) fn pause(&mut self) {
        self.is_offered = false;
        self.step(CallStep::Quiet);
    }

    fn step(&self, step: CallStep) {
        self.progress.state().step(self.number, step);
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        let mut state = self.progress.state();
        if let Some(at) = state.place(self.number) {
            state.calls.swap_remove(at);
        }
        state.idle = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HITCH: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn opened() -> (Arc<Progress>, Instant) {
        let progress = Arc::new(Progress::new());
        progress.opened();
        (progress, Instant::now())
    }

    #[test]
    fn idleness_is_never_overdue() {
        let (progress, now) = opened();
        let forever = now + Duration::from_secs(1_000_000);
        assert_eq!(progress.overdue(forever, PATIENCE), None, "before the first request");
        progress.read(b"GET /");
        let mut call = progress.call(now);
        call.answered(now, true);
        call.offer();
        drop(call);
        assert_eq!(progress.overdue(forever, PATIENCE), None, "between requests");
        assert!(matches!(progress.worth(forever, HITCH), Worth::Idle(_)));
    }

    #[test]
    fn every_step_that_the_client_owes_is_overdue_in_the_end() {
        let late = |progress: &Progress| progress.overdue(Instant::now() + PATIENCE, PATIENCE);
        assert_eq!(late(&Progress::new()), Some(Closed::SlowHandshake));
        let (progress, _) = opened();
        progress.read(b"G");
        assert_eq!(late(&progress), Some(Closed::SlowHead));
        let mut call = progress.call(Instant::now());
        assert_eq!(late(&progress), None, "the call itself has its own timeout");
        call.answered(Instant::now(), true);
        assert_eq!(late(&progress), Some(Closed::Unread));
        call.pause();
        assert_eq!(late(&progress), None);
        call.offer();
        assert_eq!(late(&progress), Some(Closed::Unread));
        call.pause();
        assert_eq!(late(&progress), None, "a stream without news");
        progress.wrote(true);
        assert_eq!(late(&progress), Some(Closed::Unread));
        progress.wrote(false);
        assert_eq!(late(&progress), None);
    }

    #[test]
    fn unused_connections_are_worth_least_and_busy_ones_most() {
        let now = Instant::now();
        let later = now + HITCH;
        let mut worths = [
            Worth::Busy,
            Worth::Idle(later),
            Worth::Idle(now),
            Worth::Stalled(now),
            Worth::Unproven(later),
            Worth::Unproven(now),
        ];
        let want = worths.into_iter().rev().collect::<Vec<_>>();
        worths.sort();
        assert_eq!(worths.to_vec(), want);

        let (progress, _) = opened();
        let mut call = progress.call(now);
        let soon = Instant::now();
        assert!(matches!(progress.worth(soon, HITCH), Worth::Unproven(_)), "it may be refused yet");
        call.answered(soon, true);
        assert_eq!(progress.worth(soon, HITCH), Worth::Busy);
        assert!(matches!(progress.worth(soon + HITCH, HITCH), Worth::Stalled(_)));
    }
}
