//! What can happen to hosts and to the network between them, and the promise for visitors of every host whose gost
//! lives. Each scenario runs with both plugin types.

mod agent;
mod away;
mod gost;
mod host;
mod keys;
mod names;
mod network;
mod order;
mod reach;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::measured::{ALLOWANCE, Measured, Promise};
use crate::visits::UnixMillis;
use crate::world::{HOST, Plan, PluginKind, TUNNEL, World};

type Run = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = anyhow::Result<Measured>> + 'a>>;

/// One fault, and its promise.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What is broken.
    pub(crate) fault: &'static str,
    /// What visitors can still expect.
    pub(crate) promise: &'static str,
    /// The plugin types that run for every change.
    short: &'static [PluginKind],
    /// Why a real gost cannot do this.
    pub(crate) simulated_only: Option<&'static str>,
    plan: fn() -> Plan,
    pub(crate) run: Run,
}

const BOTH: &[PluginKind] = &[PluginKind::Grpc, PluginKind::Http];
const GRPC: &[PluginKind] = &[PluginKind::Grpc];
const HTTP: &[PluginKind] = &[PluginKind::Http];

impl Scenario {
    const fn new(name: &'static str, fault: &'static str, promise: &'static str, run: Run) -> Self {
        Self { name, fault, promise, short: &[], simulated_only: None, plan: Plan::default, run }
    }

    const fn short(self, short: &'static [PluginKind]) -> Self {
        Self { short, ..self }
    }

    const fn simulated_only(self, why: &'static str) -> Self {
        Self { simulated_only: Some(why), ..self }
    }

    const fn with(self, plan: fn() -> Plan) -> Self {
        Self { plan, ..self }
    }

    /// The plan of the scenario's world.
    pub(crate) fn plan(&self, plugin: PluginKind) -> Plan {
        Plan { plugin, ..(self.plan)() }
    }

    /// Whether a set includes it: `short`, `long`, or names separated by commas, each with `/grpc` or `/http` for that
    /// plugin type alone.
    pub(crate) fn is_in(&self, set: &str, plugin: PluginKind) -> bool {
        match set {
            "long" => true,
            "short" => self.short.contains(&plugin),
            names => names.split(',').any(|name| match name.split_once('/') {
                Some((name, kind)) => name == self.name && kind == plugin.to_string(),
                None => name == self.name,
            }),
        }
    }
}

pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    let files = [
        gost::SCENARIOS,
        agent::SCENARIOS,
        away::SCENARIOS,
        names::SCENARIOS,
        host::SCENARIOS,
        network::SCENARIOS,
        reach::SCENARIOS,
        order::SCENARIOS,
        keys::SCENARIOS,
    ];
    files.into_iter().flatten()
}

pub(crate) fn named(name: &str) -> &'static Scenario {
    all().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// A sabotage, and the scenario whose visitors have to notice it.
pub(crate) struct Noticed {
    pub(crate) broken: Sabotage,
    pub(crate) scenario: &'static str,
    pub(crate) plugin: PluginKind,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sabotage {
    /// These parts of every agent.
    Agents(&'static str),
    /// The keeping of listeners.
    Listeners,
}

impl Sabotage {
    /// The plan of a world in which it is broken.
    pub(crate) fn apply(self, plan: Plan) -> Plan {
        match self {
            Self::Agents(parts) => {
                let broken = std::iter::once(format!("GOSSD_TEST_BROKEN={parts}"));
                Plan { switches: plan.switches.into_iter().chain(broken).collect(), ..plan }
            }
            Self::Listeners => Plan { held: false, ..plan },
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agents(parts) => parts,
            Self::Listeners => "listeners",
        })
    }
}

pub(crate) const NOTICED: [Noticed; 6] = [
    noticed(Sabotage::Agents("push,repair"), "registered-everywhere", PluginKind::Http),
    noticed(Sabotage::Agents("leases"), "gost-killed", PluginKind::Grpc),
    noticed(Sabotage::Agents("suspicion"), "host-lost", PluginKind::Http),
    noticed(Sabotage::Listeners, "agent-killed-held", PluginKind::Grpc),
    noticed(Sabotage::Agents("rules"), "registered-everywhere", PluginKind::Grpc),
    noticed(Sabotage::Agents("dials"), "agent-restarted-renewed-seldom", PluginKind::Http),
];

const fn noticed(broken: Sabotage, scenario: &'static str, plugin: PluginKind) -> Noticed {
    Noticed { broken, scenario, plugin }
}

/// What visitors at these hosts noticed since a moment.
fn felt(world: &World, since: UnixMillis, hosts: &[&str], promised: Promise) -> Measured {
    Measured::of(&world.visits, since, hosts, promised)
}

/// A tunnel attached at a and at b, and visitors at b and c.
async fn attached_twice(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    world.visitors(&["b", "c"], HOST).await
}

/// A tunnel attached at a only, and visitors at all hosts.
async fn attached_once(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await
}

/// The hosts of most worlds.
const ALL: [&str; 3] = ["a", "b", "c"];

/// Waits while a fault lasts or takes effect.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Waits until every request that could break a promise has ended: gost and visitors give up after 15 s.
async fn hung_ones_end(promised: Duration) {
    tokio::time::sleep(promised * ALLOWANCE + Duration::from_secs(16)).await;
}
