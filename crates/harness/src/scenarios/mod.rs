//! What can happen to hosts and the network between them, and what is promised then to visitors of every host whose
//! gost lives. Each scenario runs with both plugin types.

mod agent;
mod away;
mod gost;
mod host;
mod keys;
mod names;
mod network;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::measured::{ALLOWANCE, Measured, Promise};
use crate::visits::Moment;
use crate::world::{HOST, Plan, PluginType, TUNNEL, World};

/// What a scenario does to its world.
type Run = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = anyhow::Result<Measured>> + 'a>>;

/// One fault, and its promise.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What is broken.
    pub(crate) fault: &'static str,
    /// What visitors get all the same.
    pub(crate) promise: &'static str,
    /// The plugin types with which it is run with every change.
    short: &'static [PluginType],
    /// Why a real gost cannot be told to do this.
    pub(crate) simulated_only: Option<&'static str>,
    plan: fn() -> Plan,
    pub(crate) run: Run,
}

/// Both, for [`Scenario::short`], and each alone.
const BOTH: &[PluginType] = &[PluginType::Grpc, PluginType::Http];
const GRPC: &[PluginType] = &[PluginType::Grpc];
const HTTP: &[PluginType] = &[PluginType::Http];

impl Scenario {
    const fn new(name: &'static str, fault: &'static str, promise: &'static str, run: Run) -> Self {
        Self { name, fault, promise, short: &[], simulated_only: None, plan: Plan::default, run }
    }

    const fn short(self, short: &'static [PluginType]) -> Self {
        Self { short, ..self }
    }

    const fn simulated_only(self, why: &'static str) -> Self {
        Self { simulated_only: Some(why), ..self }
    }

    const fn with(self, plan: fn() -> Plan) -> Self {
        Self { plan, ..self }
    }

    /// Its world.
    pub(crate) fn plan(&self, plugin: PluginType) -> Plan {
        Plan { plugin, ..(self.plan)() }
    }

    /// Whether a set has it: `short`, `long`, or names with commas between, each with `/grpc` or `/http` if only that
    /// type is meant.
    pub(crate) fn is_in(&self, set: &str, plugin: PluginType) -> bool {
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

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    let files = [
        gost::SCENARIOS,
        agent::SCENARIOS,
        away::SCENARIOS,
        names::SCENARIOS,
        host::SCENARIOS,
        network::SCENARIOS,
        keys::SCENARIOS,
    ];
    files.into_iter().flatten()
}

/// The one of that name.
pub(crate) fn named(name: &str) -> &'static Scenario {
    all().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// Something that does not work, and a scenario whose visitors have to feel that.
pub(crate) struct Noticed {
    pub(crate) broken: Broken,
    pub(crate) scenario: &'static str,
    pub(crate) plugin: PluginType,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Broken {
    /// Parts of every agent.
    Agents(&'static str),
    /// Nobody keeps listeners.
    Listeners,
}

impl Broken {
    /// A world where it is.
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

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agents(parts) => parts,
            Self::Listeners => "listeners",
        })
    }
}

/// All of them.
pub(crate) const NOTICED: [Noticed; 6] = [
    noticed(Broken::Agents("push,anti-entropy"), "registered-everywhere", PluginType::Http),
    noticed(Broken::Agents("leases"), "gost-killed", PluginType::Grpc),
    noticed(Broken::Agents("suspicion"), "host-lost", PluginType::Http),
    noticed(Broken::Listeners, "agent-killed-held", PluginType::Grpc),
    noticed(Broken::Agents("rules"), "registered-everywhere", PluginType::Grpc),
    noticed(Broken::Agents("dials"), "agent-restarted-renewed-seldom", PluginType::Http),
];

const fn noticed(broken: Broken, scenario: &'static str, plugin: PluginType) -> Noticed {
    Noticed { broken, scenario, plugin }
}

/// How visitors at these hosts felt what began at a moment.
fn felt(world: &World, since: Moment, hosts: &[&str], promised: Promise) -> Measured {
    Measured::of(&world.visits, since, hosts, promised)
}

/// A tunnel attached at a and at b, and visitors at b and c.
async fn attached_twice(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    world.visitors(&["b", "c"], HOST).await
}

/// A tunnel attached at a only, and visitors at all.
async fn attached_once(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await
}

/// The hosts of most worlds.
const ALL: [&str; 3] = ["a", "b", "c"];

/// The time that a fault lasts, or needs to be felt.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Long enough for every request that could break a promise to have ended: gost and visitors give up after 15 s.
async fn hung_ones_end(promised: Duration) {
    tokio::time::sleep(promised * ALLOWANCE + Duration::from_secs(16)).await;
}
