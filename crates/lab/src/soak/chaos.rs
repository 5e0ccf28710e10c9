//! What happens in a week, drawn from a seed: clients come and go, in storms too; gosts move, crash and return; agents are
//! ended and started again; a link fails and comes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::agent::{Agent, End};
use super::gost::{Fate, Order};
use super::model::{Model, count};
use super::relay::Link;

/// How long a gost takes at most to do what it is told; several agents may be away meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent, and its process's number for the relays.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) agent: Arc<Mutex<Agent>>,
    pub(crate) pid: Arc<Mutex<Option<u32>>>,
}

/// What chaos is made with.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) model: Arc<Model>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) gosts: Vec<mpsc::Sender<Order>>,
    pub(crate) link: watch::Sender<Link>,
}

/// How often things happen.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// The mean time between two of a kind, of what happens to clients and gosts.
    pub(crate) churn: Duration,
    pub(crate) fates: Duration,
    pub(crate) storms: Duration,
    /// Of the restarts of one agent.
    pub(crate) restarts: Duration,
    pub(crate) flaps: Duration,
}

impl Seat {
    pub(crate) fn new(agent: Agent) -> Self {
        let pid = Arc::new(Mutex::new(agent.pid()));
        Self { agent: Arc::new(Mutex::new(agent)), pid }
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Agent) -> T) -> T {
        act(&mut self.agent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act(
        &self,
        act: impl FnOnce(&mut Agent) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let seat = self.clone();
        spawn_blocking(move || {
            let (done, pid) = seat.with(|agent| (act(agent), agent.pid()));
            *seat.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
            done
        })
        .await?
    }

    pub(crate) async fn end(&self, how: End) -> anyhow::Result<()> {
        self.act(move |agent| agent.end(how)).await
    }

    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        self.act(Agent::start).await
    }
}

impl Stage {
    /// Goes on for that long; then all agents run, and the link is up. The first agent is never ended: what it leaks, it
    /// keeps.
    pub(crate) async fn chaos(&self, time: Duration, pace: Pace, seed: u64) -> anyhow::Result<()> {
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

    /// Gosts do as they are told, all at the same time; returns when they have.
    pub(crate) async fn tell(&self, fates: impl IntoIterator<Item = (usize, Fate)>) -> anyhow::Result<()> {
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

    async fn clients(self, end: Instant, pace: Pace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.churn, &mut rng).await {
            let fate = if rng.random_bool(0.9) {
                Fate::Churn(rng.random_range(1..4))
            } else {
                Fate::Away(rng.random_range(1..10), Duration::from_millis(rng.random_range(100..2_000)))
            };
            self.hint(fate, &mut rng);
        }
        Ok(())
    }

    async fn fates(self, end: Instant, pace: Pace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.fates, &mut rng).await {
            let to = rng.random_range(0..self.seats.len());
            let fate = if rng.random_bool(0.5) {
                Fate::Move(to)
            } else {
                Fate::Crash(to, Duration::from_millis(rng.random_range(0..4_000)))
            };
            self.hint(fate, &mut rng);
        }
        Ok(())
    }

    /// To any gost, unless that one is busy.
    fn hint(&self, fate: Fate, rng: &mut StdRng) {
        let gost = rng.random_range(0..self.gosts.len());
        let _ = self.gosts[gost].try_send((fate, oneshot::channel().0));
    }

    /// Of a quarter of all gosts, or of all.
    async fn storms(self, end: Instant, pace: Pace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.storms, &mut rng).await {
            let parts = if rng.random_bool(0.25) { 1 } else { 4 };
            let first = rng.random_range(0..parts);
            self.tell((first..self.gosts.len()).step_by(parts).map(|gost| (gost, Fate::Storm))).await?;
        }
        Ok(())
    }

    async fn flaps(self, end: Instant, pace: Pace, mut rng: StdRng) -> anyhow::Result<()> {
        while pause(end, pace.flaps, &mut rng).await {
            count(&self.model.tally.flaps);
            let link =
                if rng.random_bool(0.7) { Link::Down } else { Link::Lossy(rng.random_range(0.1..0.6)) };
            self.link.send_replace(link);
            sleep(Duration::from_millis(rng.random_range(200..8_000))).await;
            self.link.send_replace(Link::Up);
        }
        Ok(())
    }

    async fn restarts(
        self,
        end: Instant,
        pace: Pace,
        n: usize,
        seat: Seat,
        mut rng: StdRng,
    ) -> anyhow::Result<()> {
        while pause(end, pace.restarts, &mut rng).await {
            let how = if rng.random_bool(0.5) { End::Told } else { End::Killed };
            count(if how == End::Told { &self.model.tally.terms } else { &self.model.tally.kills });
            self.model.died(n);
            seat.end(how).await?;
            sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
            seat.start().await?;
            self.model.started(n);
        }
        Ok(())
    }
}

/// Waits for the next one; false if there is none before the end.
async fn pause(end: Instant, mean: Duration, rng: &mut StdRng) -> bool {
    let next = Instant::now() + mean.mul_f64(rng.random_range(0.2..1.8));
    if next >= end {
        return false;
    }
    tokio::time::sleep_until(next).await;
    true
}
