//! The events of a week, drawn from a seed: clients come and go, also in storms; gosts move, crash and return; agents
//! are ended and started again; a link fails and comes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::agent::{Ending, SoakAgent};
use super::gost::{GostAction, GostOrder};
use super::model::{SoakModel, count};
use super::relay::LinkState;

/// The longest that a gost may take for an action; several agents may be away meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent, and its process id for the relays.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) agent: Arc<Mutex<SoakAgent>>,
    pub(crate) pid: Arc<Mutex<Option<u32>>>,
}

/// What the chaos acts on.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) model: Arc<SoakModel>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) gosts: Vec<mpsc::Sender<GostOrder>>,
    pub(crate) link: watch::Sender<LinkState>,
}

/// How often events happen.
#[derive(Clone, Copy)]
pub(crate) struct ChaosPace {
    /// The mean time between two events of a kind, at clients and gosts.
    pub(crate) churn: Duration,
    pub(crate) fates: Duration,
    pub(crate) storms: Duration,
    /// The mean time between two restarts of one agent.
    pub(crate) restarts: Duration,
    pub(crate) flaps: Duration,
}

impl Seat {
    pub(crate) fn new(agent: SoakAgent) -> Self {
        let pid = Arc::new(Mutex::new(agent.pid()));
        Self { agent: Arc::new(Mutex::new(agent)), pid }
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut SoakAgent) -> T) -> T {
        act(&mut self.agent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act(
        &self,
        act: impl FnOnce(&mut SoakAgent) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let seat = self.clone();
        spawn_blocking(move || {
            let (done, pid) = seat.with(|agent| (act(agent), agent.pid()));
            *seat.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
            done
        })
        .await?
    }

    pub(crate) async fn end(&self, how: Ending) -> anyhow::Result<()> {
        self.act(move |agent| agent.end(how)).await
    }

    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        self.act(SoakAgent::start).await
    }
}

impl Stage {
    /// Runs for this long. At the end, all agents run and the link is up. The first agent is never ended, so that a
    /// leak in it adds up.
    pub(crate) async fn chaos(&self, time: Duration, pace: ChaosPace, seed: u64) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        let mut tasks = JoinSet::new();
        let rng = |n: u64| StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(n));
        tasks.spawn(self.clone().clients(end, pace, rng(0)));
        tasks.spawn(self.clone().fates(end, pace, rng(1)));
        tasks.spawn(self.clone().storms(end, pace, rng(2)));
        tasks.spawn(self.clone().flaps(end, pace, rng(3)));
        for (n, seat) in self.seats.iter().enumerate().skip(1) {
            tasks.spawn(self.clone().restarts(end, pace, n, seat.clone(), rng(3 + n as u64)));
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Gives gosts their actions, all at the same time, and waits for their completion.
    pub(crate) async fn tell(
        &self,
        fates: impl IntoIterator<Item = (usize, GostAction)>,
    ) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        for (gost, fate) in fates {
            let (done, told) = oneshot::channel();
            self.gosts[gost].send((fate, done)).await?;
            waiting.push(told);
        }
        for told in waiting {
            timeout(PATIENCE, told).await??;
        }
        Ok(())
    }

    async fn clients(self, end: Instant, pace: ChaosPace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.churn, &mut rng).await {
            let fate = if rng.random_bool(0.9) {
                GostAction::Churn(rng.random_range(1..4))
            } else {
                GostAction::Away(rng.random_range(1..10), Duration::from_millis(rng.random_range(100..2_000)))
            };
            self.hint(fate, &mut rng);
        }
        Ok(())
    }

    async fn fates(self, end: Instant, pace: ChaosPace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.fates, &mut rng).await {
            let to = rng.random_range(0..self.seats.len());
            let fate = if rng.random_bool(0.5) {
                GostAction::Move(to)
            } else {
                GostAction::Crash(to, Duration::from_millis(rng.random_range(0..4_000)))
            };
            self.hint(fate, &mut rng);
        }
        Ok(())
    }

    /// Gives an action to any gost, unless that gost is busy.
    fn hint(&self, fate: GostAction, rng: &mut StdRng) {
        let gost = rng.random_range(0..self.gosts.len());
        let _ = self.gosts[gost].try_send((fate, oneshot::channel().0));
    }

    /// Reconnects all clients of a quarter of the gosts, or of all gosts.
    async fn storms(self, end: Instant, pace: ChaosPace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.storms, &mut rng).await {
            let parts = if rng.random_bool(0.25) { 1 } else { 4 };
            let first = rng.random_range(0..parts);
            self.tell((first..self.gosts.len()).step_by(parts).map(|gost| (gost, GostAction::Storm))).await?;
        }
        Ok(())
    }

    async fn flaps(self, end: Instant, pace: ChaosPace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.flaps, &mut rng).await {
            count(&self.model.tally.flaps);
            let link = if rng.random_bool(0.7) {
                LinkState::Down
            } else {
                LinkState::Lossy(rng.random_range(0.1..0.6))
            };
            self.link.send_replace(link);
            sleep(Duration::from_millis(rng.random_range(200..8_000))).await;
            self.link.send_replace(LinkState::Up);
        }
        Ok(())
    }

    async fn restarts(
        self,
        end: Instant,
        pace: ChaosPace,
        n: usize,
        seat: Seat,
        mut rng: StdRng,
    ) -> anyhow::Result<()> {
        while pause(end, pace.restarts, &mut rng).await {
            let how = if rng.random_bool(0.5) { Ending::Told } else { Ending::Killed };
            count(if how == Ending::Told { &self.model.tally.terms } else { &self.model.tally.kills });
            self.model.died(n);
            seat.end(how).await?;
            sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
            seat.start().await?;
            self.model.started(n);
        }
        Ok(())
    }
}

/// Waits for the next event; false if there is none before the end.
async fn pause(end: Instant, mean: Duration, rng: &mut StdRng) -> bool {
    let next = Instant::now() + mean.mul_f64(rng.random_range(0.2..1.8));
    if next >= end {
        return false;
    }
    tokio::time::sleep_until(next).await;
    true
}
