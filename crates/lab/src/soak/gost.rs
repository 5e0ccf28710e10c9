//! A gost with its clients. It registers clients that attach, renews them, and deregisters those that detach; it
//! crashes and comes back on another host. Like gost, it makes each call once; only a client whose connector no agent
//! knows attaches again.

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

use super::model::{SoakModel, count, uuid};
use super::wire::{self, HttpClient};

/// The address of a gost's agent, and the host in the gost's own entrypoint.
#[derive(Clone, Copy)]
pub(crate) struct GostHost {
    pub(crate) plugin: SocketAddr,
    pub(crate) advertised: Ipv4Addr,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum GostAction {
    Churn(usize),
    /// Some of its clients go, and return after this long.
    Away(usize, Duration),
    Storm,
    /// It stops in good order, and starts on that host.
    Move(usize),
    /// It crashes, and starts on that host after a while.
    Crash(usize, Duration),
}

/// An action, and the channel for its completion.
pub(crate) type GostOrder = (GostAction, oneshot::Sender<()>);

/// A gost; see the module.
pub(crate) struct SoakGost {
    model: Arc<SoakModel>,
    hosts: Arc<Vec<GostHost>>,
    home: usize,
    node: String,
    /// The port of its entrypoint.
    port: u16,
    entrypoint: JoinHandle<()>,
    client: HttpClient,
    connectors: Vec<TunnelClient>,
    renewals: Interval,
    rng: StdRng,
}

#[derive(Clone)]
struct TunnelClient {
    tunnel: usize,
    id: String,
    attached: bool,
}

impl Drop for SoakGost {
    fn drop(&mut self) {
        self.entrypoint.abort();
    }
}

impl SoakGost {
    /// A gost at a host; its clients are not attached yet.
    pub(crate) async fn start(
        model: Arc<SoakModel>,
        hosts: Arc<Vec<GostHost>>,
        home: usize,
        tunnels: Range<usize>,
        renew: Duration,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (port, entrypoint) = listen().await?;
        let client = HttpClient::new(hosts[home].plugin);
        let connectors = tunnels.map(|tunnel| TunnelClient { tunnel, id: uuid(), attached: false }).collect();
        let mut renewals = interval(renew);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let rng = StdRng::seed_from_u64(seed);
        Ok(Self { model, hosts, home, node: uuid(), port, entrypoint, client, connectors, renewals, rng })
    }

    /// Runs until the sender of orders is gone.
    pub(crate) async fn live(mut self, mut orders: mpsc::Receiver<GostOrder>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((fate, done)) = order else { return Ok(()) };
                    self.meet(fate).await?;
                    // The other side may not be waiting.
                    let _ = done.send(());
                }
                _ = self.renewals.tick() => self.renew().await,
            }
        }
    }

    /// Renews the attached clients for a while.
    async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                _ = self.renewals.tick() => self.renew().await,
            }
        }
    }

    async fn meet(&mut self, fate: GostAction) -> anyhow::Result<()> {
        let tally = &self.model.tally;
        match fate {
            GostAction::Churn(some) => {
                for at in self.some(some) {
                    self.reconnect(at).await;
                }
            }
            GostAction::Away(some, time) => {
                let away = self.some(some);
                for at in &away {
                    self.detach(*at).await;
                }
                self.wait(time).await;
                for at in away {
                    self.attach(at).await;
                }
            }
            GostAction::Storm => {
                count(&tally.storms);
                for at in 0..self.connectors.len() {
                    self.reconnect(at).await;
                }
            }
            GostAction::Move(to) => {
                count(&tally.moves);
                for at in 0..self.connectors.len() {
                    self.detach(at).await;
                }
                self.restart(to).await?;
            }
            GostAction::Crash(to, pause) => {
                count(&tally.crashes);
                self.entrypoint.abort();
                self.client = HttpClient::new(self.hosts[self.home].plugin);
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

    /// Starts another instance with the same clients.
    async fn restart(&mut self, home: usize) -> anyhow::Result<()> {
        self.entrypoint.abort();
        (self.port, self.entrypoint) = listen().await?;
        (self.home, self.node) = (home, uuid());
        self.client = HttpClient::new(self.hosts[home].plugin);
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
        let TunnelClient { tunnel, id, .. } = self.connectors[at].clone();
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
                // The agent has lost everything of this gost, so its clients attach again.
                count(&self.model.tally.unknown);
                self.reconnect(at).await;
            }
        }
    }

    /// The status of the answer; `None` without an answer.
    async fn say(&mut self, method: &str, at: usize, network: &str, address: &str) -> Option<u16> {
        let TunnelClient { tunnel, id, .. } = &self.connectors[at];
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

/// An entrypoint that accepts connections and closes them.
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
