//! The truth: which tunnel is attached where, and since when. The answers of agents are checked against it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// When a change is known everywhere at the latest, if an agent answered OK and did not die right after, over flapping
/// links and on starved hosts.
const SURE: Duration = Duration::from_secs(8);
/// When any other change is known everywhere: a lease has to run out after the longest absence of an agent, or a Renew
/// has to arrive.
pub(crate) const UNSURE: Duration = Duration::from_secs(36);
/// An agent that dies within this time of a change may not have sent it to anybody.
const FRESH: Duration = Duration::from_secs(2);

/// A record in the answer to a Get.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct ListedRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) network: String,
    pub(crate) address: String,
}

/// The answer to a Get.
#[derive(Deserialize)]
pub(crate) struct GetAnswer {
    pub(crate) services: Vec<ListedRecord>,
}

#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) agent: usize,
    pub(crate) address: SocketAddr,
    since: Instant,
    sure: bool,
}

#[derive(Debug)]
struct Gone {
    what: Attached,
    at: Instant,
    sure: bool,
}

struct TunnelHistory {
    name: String,
    now: Option<Attached>,
    before: VecDeque<Gone>,
}

/// When an agent last started, and when it last died.
#[derive(Clone)]
struct AgentLife {
    started: Instant,
    /// Whether it is known to run. It may answer a moment earlier.
    runs: bool,
    deaths: Vec<Instant>,
}

struct Truth {
    tunnels: Vec<TunnelHistory>,
    agents: Vec<AgentLife>,
    wrong: Vec<String>,
}

/// The truth; see the module.
pub(crate) struct SoakModel {
    truth: Mutex<Truth>,
    pub(crate) tally: SoakTally,
}

/// Numbers of what happened.
#[derive(Default)]
pub(crate) struct SoakTally {
    pub(crate) registrations: AtomicU64,
    pub(crate) renews: AtomicU64,
    pub(crate) deregistrations: AtomicU64,
    pub(crate) gets: AtomicU64,
    /// Calls that no agent answered.
    pub(crate) unheard: AtomicU64,
    /// Renews that no agent knew.
    pub(crate) unknown: AtomicU64,
    pub(crate) storms: AtomicU64,
    pub(crate) moves: AtomicU64,
    pub(crate) crashes: AtomicU64,
    pub(crate) terms: AtomicU64,
    pub(crate) kills: AtomicU64,
    pub(crate) flaps: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl SoakModel {
    pub(crate) fn new(tunnels: usize, agents: usize) -> Self {
        let now = Instant::now();
        let tunnel = |_| TunnelHistory { name: uuid(), now: None, before: VecDeque::new() };
        let truth = Truth {
            tunnels: (0..tunnels).map(tunnel).collect(),
            agents: vec![AgentLife { started: now, runs: true, deaths: Vec::new() }; agents],
            wrong: Vec::new(),
        };
        Self { truth: Mutex::new(truth), tally: SoakTally::default() }
    }

    pub(crate) fn name(&self, tunnel: usize) -> String {
        self.truth().tunnels[tunnel].name.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.truth().tunnels.len()
    }

    /// A connector is about to be registered.
    pub(crate) fn attach(&self, tunnel: usize, id: &str, node: &str, agent: usize, address: SocketAddr) {
        let attached =
            Attached { id: id.into(), node: node.into(), agent, address, since: Instant::now(), sure: false };
        self.truth().tunnels[tunnel].now = Some(attached);
    }

    /// The agent has answered OK.
    pub(crate) fn confirm_attached(&self, tunnel: usize, id: &str) {
        let mut truth = self.truth();
        if let Some(now) = truth.tunnels[tunnel].now.as_mut().filter(|now| now.id == id) {
            now.sure = true;
        }
    }

    /// A connector is about to go, by a Deregister or with its gost.
    pub(crate) fn detach(&self, tunnel: usize) {
        let mut truth = self.truth();
        let tunnel = &mut truth.tunnels[tunnel];
        tunnel.before.retain(|gone| gone.at.elapsed() < 4 * UNSURE);
        tunnel.before.extend(tunnel.now.take().map(|what| Gone { what, at: Instant::now(), sure: false }));
    }

    /// The agent has answered OK.
    pub(crate) fn confirm_detached(&self, tunnel: usize, id: &str) {
        let mut truth = self.truth();
        if let Some(gone) = truth.tunnels[tunnel].before.iter_mut().find(|gone| gone.what.id == id) {
            gone.sure = true;
        }
    }

    pub(crate) fn died(&self, agent: usize) {
        let mut truth = self.truth();
        let life = &mut truth.agents[agent];
        life.runs = false;
        life.deaths.retain(|at| at.elapsed() < 2 * UNSURE);
        life.deaths.push(Instant::now());
    }

    pub(crate) fn started(&self, agent: usize) {
        let mut truth = self.truth();
        (truth.agents[agent].started, truth.agents[agent].runs) = (Instant::now(), true);
    }

    pub(crate) fn accuse(&self, what: String) {
        eprintln!("WRONG: {what}");
        self.truth().wrong.push(what);
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.truth().wrong.clone()
    }

    /// Checks an agent's answer about a tunnel to a question of that time. Returns what is wrong with it.
    pub(crate) fn judge(
        &self,
        agent: usize,
        tunnel: usize,
        asked: Instant,
        said: &[ListedRecord],
    ) -> Option<String> {
        let truth = self.truth();
        let TunnelHistory { name, now, before } = &truth.tunnels[tunnel];
        let AgentLife { started, runs, .. } = truth.agents[agent];
        // An agent that has just started receives older states from its peers first, and the latest last.
        let up = if runs { started + SURE } else { asked + SURE };
        for service in said {
            let current = now.iter().any(|now| now.is(name, service));
            let recent = before.iter().any(|gone| {
                gone.what.is(name, service) && truth.known(&gone.what, gone.at, gone.sure).max(up) > asked
            });
            if !current && !recent {
                let late = before.iter().find(|gone| gone.what.id == service.id);
                let late = late.map(|gone| {
                    let deaths = &truth.agents[gone.what.agent].deaths;
                    let deaths: Vec<Duration> = deaths.iter().map(Instant::elapsed).collect();
                    (gone.at.elapsed(), gone.sure, gone.what.agent, deaths)
                });
                return Some(format!("agent {agent} lists {service:?}, which is gone: {late:?}"));
            }
        }
        let now = now.as_ref()?;
        let known = truth.known(now, now.since, now.sure);
        if known.max(up) < asked && !said.iter().any(|service| service.id == now.id) {
            let (age, owner) = (now.since.elapsed(), now.agent);
            let died: Vec<Duration> = truth.agents[owner].deaths.iter().map(Instant::elapsed).collect();
            let up = truth.agents[agent].started.elapsed();
            return Some(format!(
                "agent {agent}, up for {up:?}, does not list {now:?} of {name}, attached for {age:?}; agent {owner} died \
                 {died:?} ago"
            ));
        }
        None
    }

    /// Compares an agent's whole directory with the truth. Returns the first differences.
    pub(crate) fn differences(&self, agent: usize, said: &[Vec<ListedRecord>]) -> Vec<String> {
        let truth = self.truth();
        let all = truth.tunnels.iter().zip(said).filter_map(|(tunnel, said)| {
            let same = match (&tunnel.now, said.as_slice()) {
                (Some(now), [service]) => now.is(&tunnel.name, service),
                (None, []) => true,
                _ => false,
            };
            (!same).then(|| format!("agent {agent} says {said:?} where {:?} is true", tunnel.now))
        });
        all.collect()
    }

    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Truth {
    /// When a change is known everywhere at the latest. Records in an agent's journal count as alive for one more
    /// lease.
    fn known(&self, what: &Attached, at: Instant, sure: bool) -> Instant {
        let AgentLife { started, deaths, .. } = &self.agents[what.agent];
        let died = deaths.iter().any(|died| *died + FRESH > at && *died < at + SURE);
        if sure && !died { at + SURE } else { at.max(*started) + UNSURE }
    }
}

impl Attached {
    fn is(&self, name: &str, service: &ListedRecord) -> bool {
        service.id == self.id
            && service.name == *name
            && service.node == self.node
            && service.network == "tcp"
            && service.address == self.address.to_string()
    }
}

/// A new random id, as gost makes them.
pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
