//! What several measurements need: agents in this process that know each other, and connectors to register, each of a
//! tunnel of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use gossd::agent::Agent;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::connection::Caller;
use gossd_core::lease::Holding;
use gossd_core::record::{Draft, Network, Record};
use tokio::time::{Instant, sleep};

/// The gost instance of all connectors.
pub(crate) const NODE: &str = "e1342e00-b1d2-4ae1-ba9c-b026c0540cff";
/// How long agents may take to find each other.
const MEETING: Duration = Duration::from_secs(60);
/// By then, round trips are measured, and the exchanges of the start are over.
const SETTLED: Duration = Duration::from_secs(5);

/// Starts agents with their own sockets on loopback, and waits until each knows all others.
pub(crate) async fn start(count: usize, adjust: impl Fn(&mut Config)) -> anyhow::Result<Vec<Daemon>> {
    let mut agents: Vec<Daemon> = Vec::new();
    for n in 0..count {
        let mut config = Config::loopback(format!("agent-{n}").parse()?);
        adjust(&mut config);
        if let Some(first) = agents.first() {
            config.join = vec![first.gossip.to_string().parse()?];
        }
        agents.push(Daemon::start(config).await?);
        // The rounds of real hosts are not in step; those of agents started in one moment would be, on two cores.
        sleep(Duration::from_secs(1) / u32::try_from(count)?).await;
    }
    meet(&agents).await?;
    Ok(agents)
}

/// Waits until each knows all others.
pub(crate) async fn meet(agents: &[Daemon]) -> anyhow::Result<()> {
    let (begun, count) = (Instant::now(), agents.len());
    while !agents.iter().all(|agent| agent.peers() == count - 1 && agent.counts().agents == count) {
        ensure!(begun.elapsed() < MEETING, "the agents did not all meet in {MEETING:?}");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(SETTLED).await;
    Ok(())
}

pub(crate) fn id(n: usize) -> String {
    format!("c23d4f42-c892-42b3-8b74-{n:012x}")
}

pub(crate) fn tunnel(n: usize) -> String {
    format!("4d21094e-b74c-4916-86c1-{n:012x}")
}

pub(crate) fn holding(n: usize) -> Holding {
    of_id(&id(n), n)
}

/// The n-th connector with a new id each time, as gost makes ids.
pub(crate) fn holding_anew(n: usize) -> Holding {
    of_id(&uuid::Uuid::new_v4().to_string(), n)
}

pub(crate) fn come_and_go(agent: &Agent, n: usize) -> anyhow::Result<()> {
    agent.register(Caller::local(2), holding(n))?;
    let (id, name) = (id(n), tunnel(n));
    agent.deregister(Caller::local(2), Draft { id: &id, name: &name, node: NODE, network: "", address: "" });
    Ok(())
}

fn of_id(id: &str, n: usize) -> Holding {
    let (id, name, address) = (id.into(), tunnel(n).into(), "10.0.0.1:8420".into());
    let record = Record { id, name, node: NODE.into(), network: Network::Tcp, address };
    Holding { record: Arc::new(record), dial: "".into() }
}
