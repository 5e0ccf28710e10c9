//! What can happen to hosts and the network between them, and what is promised then.

mod agent;
mod gost;
mod host;
mod keys;
mod network;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::visits::{Moment, Visits};
use crate::world::{HOST, Plan, TUNNEL, World};

/// How much longer than promised a shared machine may take.
const ALLOWANCE: u32 = 2;
/// Promises that no request fails at all. One that takes long does not count then: the machine may be busy.
const NOTHING: Duration = Duration::ZERO;

/// What a scenario does to its world.
type Run = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = anyhow::Result<Measured>> + 'a>>;

/// One fault, and its promise.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What is broken.
    pub(crate) fault: &'static str,
    /// What visitors get all the same.
    pub(crate) promise: &'static str,
    /// Whether it is short enough to be run with every change.
    pub(crate) short: bool,
    pub(crate) plan: fn() -> Plan,
    pub(crate) run: Run,
}

/// All of them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "joined-by-name",
        fault: "every host in turn comes back at another address under one DNS name",
        promise: "a tunnel bound then is served at all three in 1 s",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(host::joined_by_name(world)),
    },
    Scenario {
        name: "registered-everywhere",
        fault: "none: tunnels attach at three hosts",
        promise: "known at all three in 0.1 s",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(gost::everywhere(world)),
    },
    Scenario {
        name: "client-moves",
        fault: "a client attaches at another host, then leaves the first",
        promise: "not felt for longer than 0.1 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(gost::client_moves(world)),
    },
    Scenario {
        name: "gost-killed",
        fault: "kill -9",
        promise: "its records are gone everywhere in 1.5 s",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(gost::killed(world)),
    },
    Scenario {
        name: "gost-terminated",
        fault: "SIGTERM, without a goodbye",
        promise: "its records are gone everywhere in 1.5 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(gost::terminated(world)),
    },
    Scenario {
        name: "gost-frozen",
        fault: "no instruction runs, connections stay open",
        promise: "its records are gone elsewhere at the TTL, 6 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(gost::frozen(world)),
    },
    Scenario {
        name: "gost-restarted",
        fault: "kill -9 and started, a new instance",
        promise: "its records are gone everywhere in 1.5 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(gost::restarted(world)),
    },
    Scenario {
        name: "agent-killed",
        fault: "kill -9, back after 4 s",
        promise: "no request fails at other hosts",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(agent::killed(world)),
    },
    Scenario {
        name: "agent-restarted",
        fault: "SIGTERM and started",
        promise: "no request fails at other hosts",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(agent::restarted(world)),
    },
    Scenario {
        name: "agents-upgraded",
        fault: "one after the other, other containers on the same folders",
        promise: "no request fails at other hosts",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(agent::upgraded(world)),
    },
    Scenario {
        name: "all-agents-restarted",
        fault: "kill -9 of all three at once, 1,000 records more",
        promise: "all is served again in 2 s",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(agent::all_restarted(world)),
    },
    Scenario {
        name: "disk-full",
        fault: "one agent's disk is full while 1,000 tunnels attach, then has room",
        promise: "no request fails; it says so, and when it is over",
        short: false,
        plan: small_disk,
        run: |world| Box::pin(agent::disk_full(world)),
    },
    Scenario {
        name: "clock-ahead",
        fault: "one host is an hour ahead, then put right",
        promise: "no request fails at other hosts",
        short: false,
        plan: an_hour_ahead,
        run: |world| Box::pin(agent::clock_ahead(world)),
    },
    Scenario {
        name: "host-lost",
        fault: "all of its containers are killed",
        promise: "not first elsewhere after 3 s",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(host::lost(world)),
    },
    Scenario {
        name: "host-paused",
        fault: "no instruction runs for 10 s",
        promise: "not first elsewhere after 3 s; back for good in 2 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(host::paused(world)),
    },
    Scenario {
        name: "host-at-a-new-address",
        fault: "the same name, nothing of what it was",
        promise: "served again within the TTL, 6 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(host::new_address(world)),
    },
    Scenario {
        name: "host-moves-with-its-data",
        fault: "the same name and journal at another address",
        promise: "served again within the TTL, 6 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(host::moves(world)),
    },
    Scenario {
        name: "ten-agents-join",
        fault: "ten start at once beside one",
        promise: "all hear all in 5 s, no request fails",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(host::ten_join(world)),
    },
    Scenario {
        name: "one-cut-off",
        fault: "off the network for 4 s, less than the TTL",
        promise: "healed in 2 s; no request fails elsewhere",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(network::one_cut_off(world)),
    },
    Scenario {
        name: "one-cut-off-for-long",
        fault: "off the network for 30 s, until it is forgotten",
        promise: "healed in 2 s; no request fails elsewhere",
        short: false,
        plan: soon_forgotten,
        run: |world| Box::pin(network::one_cut_off_for_long(world)),
    },
    Scenario {
        name: "half-cut-off",
        fault: "two and two for 4 s, less than the TTL",
        promise: "the other half is not first after 3 s; healed in 2 s",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(network::half_cut_off(world)),
    },
    Scenario {
        name: "half-cut-off-for-long",
        fault: "two and two for 28 s, until both halves are forgotten",
        promise: "the other half is not first after 3 s; healed in 2 s",
        short: false,
        plan: soon_forgotten,
        run: |world| Box::pin(network::half_cut_off_for_long(world)),
    },
    Scenario {
        name: "one-way",
        fault: "one host hears nothing of another",
        promise: "not first there after 3 s; no request fails elsewhere",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(network::one_way(world)),
    },
    Scenario {
        name: "lossy",
        fault: "gossip by UDP and TCP: 20 % lost each way, 50 ± 20 ms, overtaken, doubled",
        promise: "nobody is suspected, no request fails; 1,000 records reach an agent that restarts empty",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(network::lossy(world)),
    },
    Scenario {
        name: "small-packets",
        fault: "MTU 1,280, fragments lost; an agent restarts empty beside 1,000 records",
        promise: "no request fails at other hosts; all records arrive",
        short: false,
        plan: small_packets,
        run: |world| Box::pin(network::small_packets(world)),
    },
    Scenario {
        name: "keys-rotated",
        fault: "three keyrings in turn, agent by agent, while a fourth is down",
        promise: "no request fails at other hosts",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(keys::rotated(world)),
    },
    Scenario {
        name: "keys-changed",
        fault: "`gossd keys` adds, uses and removes, while a fourth agent is down and comes back with its old file",
        promise: "no request fails; a step that is not safe yet is refused",
        short: false,
        plan: Plan::default,
        run: |world| Box::pin(keys::changed(world)),
    },
    Scenario {
        name: "wrong-key",
        fault: "an agent with another key",
        promise: "nothing changes, and it is said",
        short: true,
        plan: Plan::default,
        run: |world| Box::pin(keys::wrong(world)),
    },
];

/// What has to fail when an agent is broken on purpose, because visitors feel it.
pub(crate) const NOTICED: [(&str, &str); 3] =
    [("push,anti-entropy", "registered-everywhere"), ("leases", "gost-killed"), ("suspicion", "host-lost")];

/// Dead agents are forgotten sooner than in minutes.
fn soon_forgotten() -> Plan {
    let flags = ["--test-dead-grace", "8"].map(str::to_owned);
    Plan { flags: flags.into(), ..Plan::default() }
}

fn an_hour_ahead() -> Plan {
    let flags = ["--test-clock-ahead", "3600"].map(str::to_owned);
    Plan { flags_of: HashMap::from([("a", flags.into())]), ..Plan::default() }
}

fn small_disk() -> Plan {
    Plan { small_disk: HashMap::from([("a", "2m")]), ..Plan::default() }
}

fn small_packets() -> Plan {
    Plan { mtu: Some(1_280), ..Plan::default() }
}

impl Scenario {
    pub(crate) fn is_in(&self, set: &str) -> bool {
        match set {
            "long" => true,
            "short" => self.short,
            names => names.split(',').any(|name| name == self.name),
        }
    }
}

/// What was promised, and what came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The last time that a visitor felt the fault, after it began.
    pub(crate) felt: Duration,
    pub(crate) promised: Duration,
    /// Requests that failed.
    pub(crate) failed: usize,
    pub(crate) of: usize,
}

impl Measured {
    /// The measurement, if it keeps the promise.
    pub(crate) fn check(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.felt <= self.promised * ALLOWANCE, "{self}, promised {:?}", self.promised);
        Ok(self)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { felt, failed, of, .. } = self;
        write!(f, "{:.2} s, {failed} of {of} requests failed", felt.as_secs_f64())
    }
}

/// How visitors at these hosts felt what began at a moment.
pub(crate) fn felt(world: &World, since: u64, hosts: &[&str], promised: Duration) -> Measured {
    let until = Moment::MAX;
    let last = if promised == NOTHING { Visits::last_failed } else { Visits::last_bad };
    Measured {
        felt: last(&world.visits, since, hosts).unwrap_or_default(),
        promised,
        failed: world.visits.failed(since, until, hosts),
        of: world.visits.between(since, until, hosts).len(),
    }
}

/// A tunnel attached at a and at b, and visitors at b and c.
async fn attached_twice(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    world.client("two", &["b"], TUNNEL, HOST).await?;
    world.visitors(&["b", "c"], HOST).await
}

/// The time that a fault lasts, or needs to be felt.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Long enough for every request that could break a promise to have ended: gost and visitors give up after 15 s.
async fn hung_ones_end(promised: Duration) {
    tokio::time::sleep(promised * ALLOWANCE + Duration::from_secs(16)).await;
}

/// What the other hosts' visitors felt of what happens to one host's agent, until that host serves again.
async fn steadily(
    world: &World,
    since: Moment,
    name: &str,
    hosts: &[&'static str],
) -> anyhow::Result<Measured> {
    pass(1).await;
    world.all_served(hosts).await?;
    let others: Vec<&str> = hosts.iter().copied().filter(|host| *host != name).collect();
    Ok(felt(world, since, &others, NOTHING))
}

/// Several steps as one: the worst of what was felt, and all that failed.
fn sum(steps: Vec<Measured>) -> Measured {
    let none = Measured { felt: Duration::ZERO, promised: NOTHING, failed: 0, of: 0 };
    steps.into_iter().fold(none, |all, step| Measured {
        felt: all.felt.max(step.felt),
        failed: all.failed + step.failed,
        of: all.of + step.of,
        ..all
    })
}
