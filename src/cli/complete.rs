//! Completions that ask: the names of the agents that run on this host, and what these know of tunnels, host names, peers and
//! keys. Whoever presses a key waits for it, so it is short, and nothing that goes wrong is said.

use std::future::Future;
use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use gossd_core::link::keys::KeyReport;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{self, Client};
use super::paths;
use crate::config::DEFAULT_ADMIN;
use crate::ops::report::{HostsReport, MemberState, StatusReport, TunnelsReport};

/// How long all agents together may take.
const PATIENCE: Duration = Duration::from_millis(800);

/// The agents that run here.
pub(super) fn agents() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        paths::sockets().into_iter().map(|(name, _)| CompletionCandidate::new(name.as_str())).collect()
    })
}

/// The agents of the cluster.
pub(super) fn members() -> ArgValueCandidates {
    ArgValueCandidates::new(|| wait(async { names(&ask("/status.json").await, |_| true) }))
}

/// Those that are dead.
pub(super) fn dead() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        wait(async { names(&ask("/status.json").await, |state| state == MemberState::Dead) })
    })
}

/// Host names and tunnels.
pub(super) fn tunnels() -> ArgValueCandidates {
    ArgValueCandidates::new(|| wait(tunnels_now()))
}

/// The same, and agents.
pub(super) fn watched() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        wait(async {
            let agents = names(&ask("/status.json").await, |_| true);
            tunnels_now().await.into_iter().chain(agents).collect()
        })
    })
}

/// Keys.
pub(super) fn keys() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        wait(async {
            let reports: Vec<KeyReport> = ask("/keys.json").await;
            let keys = reports.iter().flat_map(|report| &report.keys);
            keys.map(|key| CompletionCandidate::new(key.to_string())).collect()
        })
    })
}

async fn tunnels_now() -> Vec<CompletionCandidate> {
    let (hosts, services) = tokio::join!(
        ask::<HostsReport>("/hosts.json?limit=10000"),
        ask::<TunnelsReport>("/services.json?limit=10000")
    );
    let hosts = hosts.into_iter().flat_map(|report| report.hosts).map(|host| host.host);
    let tunnels = services.into_iter().flat_map(|report| report.services).map(|service| service.name);
    hosts.chain(tunnels).map(CompletionCandidate::new).collect()
}

fn names(reports: &[StatusReport], is_wanted: impl Fn(MemberState) -> bool) -> Vec<CompletionCandidate> {
    let members = reports.iter().flat_map(|report| &report.members);
    let wanted = members.filter(|member| is_wanted(member.state));
    wanted.map(|member| CompletionCandidate::new(&member.name).id(Some(member.name.clone()))).collect()
}

/// What all agents of this host answer.
async fn ask<T: DeserializeOwned + Send + 'static>(path: &'static str) -> Vec<T> {
    let mut clients: Vec<Client> =
        paths::sockets().into_iter().map(|(_, path)| Client::Control(path)).collect();
    if clients.is_empty() {
        clients.push(Client::Admin(DEFAULT_ADMIN.into(), None));
    }
    let mut asked = JoinSet::new();
    for client in clients {
        asked.spawn(async move { client.get(path).await });
    }
    asked.join_all().await.into_iter().filter_map(|reply| Some(reply.ok()?.report)).collect()
}

fn wait(asked: impl Future<Output = Vec<CompletionCandidate>>) -> Vec<CompletionCandidate> {
    let Ok(runtime) = client::runtime() else { return Vec::new() };
    let found = runtime.block_on(async { timeout(PATIENCE, asked).await });
    runtime.shutdown_background();
    let mut found = found.unwrap_or_default();
    found.sort();
    found.dedup();
    found
}
