//! Messages to the service manager, by systemd's protocol: the agent serves, with a line on its state; it reads its files
//! again; it stops; these sockets are to be kept for the next start; and, as often as the watchdog expects it, the agent
//! is not stuck. Without a service manager, nothing is sent.

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::UnixDatagram;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::listeners::inherited::KEPT;
use crate::listeners::{Handles, Role};

/// How long a message waits for a service manager that does not read: nobody has to wait for it longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The agent serves, or serves on.
pub(super) async fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]).await;
}

/// Keeps the sockets at the service manager while the agent is restarted, whatever ends it. Sockets that the agent does not
/// use any more are dropped there. Whether a manager was told to.
pub(super) async fn keep(handles: &Handles) -> bool {
    for role in handles.stale() {
        let_go(role).await;
    }
    let kept = async {
        let sockets = handles.duplicate()?;
        // Off this thread: a service manager that does not read would hold it up.
        spawn_blocking(move || sockets.iter().try_for_each(|(role, socket)| store(*role, socket.as_fd())))
            .await?
    };
    if let Err(error) = timeout(PATIENCE, kept).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    {
        tracing::warn!(%error, "the service manager does not keep our sockets: a restart will refuse gost's calls");
        return false;
    }
    env::var_os("NOTIFY_SOCKET").is_some()
}

fn store(role: Role, socket: BorrowedFd<'_>) -> io::Result<()> {
    let name = format!("{KEPT}{}", role.as_str());
    // Without FDPOLL=0, a socket with a pending error would be dropped.
    let told = [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&told, &[socket])
}

/// No socket is to be kept: an agent that cannot start must not make gost wait at a port that nobody serves.
pub(super) async fn give_up() {
    for role in Role::ALL {
        let_go(role.as_str()).await;
    }
}

async fn let_go(role: &str) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(&format!("{KEPT}{role}"))]).await;
}

/// The agent reads its files again; `ready` has to follow.
pub(super) async fn reloading() {
    // Told without the time, newer systemds would end the service.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]).await;
    }
}

/// The agent stops.
pub(super) async fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]).await;
}

/// Beats for the watchdog, if there is one, twice in its time, each with a new status.
pub(super) async fn beats<S>(status: S) -> Infallible
where
    S: Fn() -> String + Clone + Send + 'static,
{
    match sd_notify::watchdog_enabled().map(|patience| patience / 2).filter(|period| !period.is_zero()) {
        Some(period) => {
            let say = async |status: String| {
                tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]).await;
            };
            beat(period, status, say).await
        }
        None => std::future::pending().await,
    }
}

/// Says the status in every period, but only when it could be found out. Silence is what a watchdog waits for: it
/// comes from a state that does not answer, and from a runtime whose workers all hang, because then no period ends.
async fn beat<S>(period: Duration, status: S, say: impl AsyncFn(String)) -> Infallible
where
    S: Fn() -> String + Clone + Send + 'static,
{
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Where waiting holds up nobody else, and never more than once at a time.
        if let Ok(status) = spawn_blocking(status.clone()).await {
            say(status).await;
        }
    }
}

/// gost is served all the same if nobody listens.
async fn tell(states: &[NotifyState<'_>]) {
    let told = timeout(PATIENCE, send(states)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager hears nothing");
    }
}

/// What `sd_notify::notify` does, which would hold up its thread until the service manager reads.
async fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let message: Vec<String> = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.send(message.concat().as_bytes()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Instant;

    use tokio::time::sleep;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(5);
    const SOON: Duration = Duration::from_secs(10);

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                sleep(PERIOD).await;
            }
        };
        timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn a_stuck_agent_is_silent_until_it_answers() {
        let (stuck, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let said = Arc::<AtomicUsize>::default();
        let status = {
            let (stuck, asked) = (stuck.clone(), asked.clone());
            move || {
                // Not for ever: a failed test has to end.
                let start = Instant::now();
                while stuck.load(Ordering::SeqCst) && start.elapsed() < SOON {
                    asked.store(true, Ordering::SeqCst);
                    std::thread::park_timeout(PERIOD);
                }
                String::new()
            }
        };
        let heard = said.clone();
        let say = async move |_| {
            heard.fetch_add(1, Ordering::SeqCst);
        };
        let said = || said.load(Ordering::SeqCst);
        let beating = tokio::spawn(beat(PERIOD, status, say));

        eventually("the first beats", || said() >= 2).await;
        stuck.store(true, Ordering::SeqCst);
        eventually("it is asked and does not answer", || asked.load(Ordering::SeqCst)).await;
        let before = said();
        sleep(PERIOD * 20).await;
        assert_eq!(said(), before, "it beats although it is stuck");
        stuck.store(false, Ordering::SeqCst);
        eventually("it beats again", || said() >= before + 2).await;
        beating.abort();
    }
}
