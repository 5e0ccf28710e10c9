//! A gost with its clients: registers what attaches, renews it, deregisters what detaches; crashes, and comes back on
//! another host. Says each thing once, as gost does; only what no agent knows any more attaches again.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until};

use super::model::{Model, count, uuid};
use super::wire::{self, Client};

/// Where a gost's agent is, and as what it tells it.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    pub(crate) plugin: SocketAddr,
    pub(crate) advertised: Ipv4Addr,
}

/// What becomes of a gost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Some of its clients reconnect.
    Churn(usize),
    /// Some of its clients go, and return after this long.
    Away(usize, Duration),
    /// All of its clients reconnect at once.
    Storm,
    /// It is stopped here in good order, and starts on that host.
    Move(usize),
    /// It ends without a word, and starts on that host after a while.
    Crash(usize, Duration),
}

/// Told when it is done.
pub(crate) type Order = (Fate, oneshot::Sender<()>);

/// See the module.
pub(crate) struct Gost {
    model: Arc<Model>,
    hosts: Arc<Vec<Host>>,
    home: usize,
    node: String,
    /// Of its entrypoint.
    port: u16,
    entrypoint: JoinHandle<()>,
    client: Client,
    connectors: Vec<Connector>,
    renewals: Interval,
    rng: StdRng,
}

#[derive(Clone)]
struct Connector {
    tunnel: usize,
    id: String,
    attached: bool,
}

impl Drop for Gost {
    fn drop(&mut self) {
        self.entrypoint.abort();
    }
}

impl Gost {
    /// A gost at a host; its clients are to attach.
    pub(crate) async fn start(
        model: Arc<Model>,
        hosts: Arc<Vec<Host>>,
        home: usize,
        tunnels: Range<usize>,
        renew: Duration,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (port, entrypoint) = listen().await?;
        let client = Client::new(hosts[home].plugin);
        let connectors = tunnels.map(|tunnel| Connector { tunnel, id: uuid(), attached: false }).collect();
        let mut renewals = interval(renew);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let rng = StdRng::seed_from_u64(seed);
        Ok(Self { model, hosts, home, node: uuid(), port, entrypoint, client, connectors, renewals, rng })
    }

    /// Lives until nobody can tell it anything any more.
    pub(crate) async fn live(mut self, mut orders: mpsc::Receiver<Order>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((fate, done)) = order else { return Ok(()) };
                    self.meet(fate).await?;
                    // Whoever said so may not wait for it.
                    let _ = done.send(());
                }
                _ = self.renewals.tick() => self.renew().await,
            }
        }
    }

    /// Goes on for a while with those that are attached.
    async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                _ = self.renewals.tick() => self.renew().await,
            }
        }
    }

    async fn meet(&mut self, fate: Fate) -> anyhow::Result<()> {
        let tally = &self.model.tally;
        match fate {
            Fate::Churn(some) => {
                for at in self.some(some) {
                    self.reconnect(at).await;
                }
            }
            Fate::Away(some, time) => {
                let away = self.some(some);
                for at in &away {
                    self.detach(*at).await;
                }
                self.wait(time).await;
                for at in away {
                    self.attach(at).await;
                }
            }
            Fate::Storm => {
                count(&tally.storms);
                for at in 0..self.connectors.len() {
                    self.reconnect(at).await;
                }
            }
            Fate::Move(to) => {
                count(&tally.moves);
                for at in 0..self.connectors.len() {
                    self.detach(at).await;
                }
                self.restart(to).await?;
            }
            Fate::Crash(to, pause) => {
                count(&tally.crashes);
                self.entrypoint.abort();
                self.client = Client::new(self.hosts[self.home].plugin);
                for connector in &mut self.connectors {
                    connector.attached = false;
                    self.model.detach(connector.tunnel);
                }
                sleep(pause).await;
                self.restart(to).await?;
            }
        }
        Ok(())
    }

    /// Another instance, with the same clients.
    async fn restart(&mut self, home: usize) -> anyhow::Result<()> {
        self.entrypoint.abort();
        (self.port, self.entrypoint) = listen().await?;
        (self.home, self.node) = (home, uuid());
        self.client = Client::new(self.hosts[home].plugin);
        self.attach_all().await;
        Ok(())
    }

    pub(crate) async fn attach_all(&mut self) {
        for at in 0..self.connectors.len() {
            self.attach(at).await;
        }
    }

    async fn reconnect(&mut self, at: usize) {
        self.detach(at).await;
        self.attach(at).await;
    }

    async fn attach(&mut self, at: usize) {
        let id = uuid();
        let tunnel = self.connectors[at].tunnel;
        self.connectors[at].id.clone_from(&id);
        self.connectors[at].attached = true;
        let address = (self.hosts[self.home].advertised, self.port).into();
        self.model.attach(tunnel, &id, &self.node, self.home, address);
        count(&self.model.tally.registrations);
        let entrypoint = format!(":{}", self.port);
        if self.say("POST", at, "tcp", &entrypoint).await == Some(200) {
            self.model.confirm_attached(tunnel, &id);
        }
    }

    async fn detach(&mut self, at: usize) {
        self.connectors[at].attached = false;
        let Connector { tunnel, id, .. } = self.connectors[at].clone();
        self.model.detach(tunnel);
        count(&self.model.tally.deregistrations);
        if self.say("DELETE", at, "", "").await == Some(200) {
            self.model.confirm_detached(tunnel, &id);
        }
    }

    async fn renew(&mut self) {
        for at in 0..self.connectors.len() {
            if !self.connectors[at].attached {
                continue;
            }
            count(&self.model.tally.renews);
            if self.say("PUT", at, "", "").await == Some(404) {
                // All that the agent knew of this gost is gone, so its clients are not found: they come again.
                count(&self.model.tally.unknown);
                self.reconnect(at).await;
            }
        }
    }

    /// The status of the answer; none without one.
    async fn say(&mut self, method: &str, at: usize, network: &str, address: &str) -> Option<u16> {
        let Connector { tunnel, id, .. } = &self.connectors[at];
        let (name, node) = (self.model.name(*tunnel), &self.node);
        let body = format!(
            r#"{{"id":"{id}","name":"{name}","node":"{node}","network":"{network}","address":"{address}"}}"#
        );
        let Ok(answer) = self.client.call(&wire::write(method, &body)).await else {
            count(&self.model.tally.unheard);
            return None;
        };
        if !(answer.status == 200 || (answer.status == 404 && method == "PUT")) {
            self.model.accuse(format!("{method} is answered {} {}", answer.status, answer.body));
        }
        Some(answer.status)
    }

    fn some(&mut self, count: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.connectors.len()).collect();
        all.sample(&mut self.rng, count).copied().collect()
    }
}

/// An entrypoint that takes connections and closes them.
async fn listen() -> anyhow::Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    };
    Ok((port, tokio::spawn(accept)))
}
