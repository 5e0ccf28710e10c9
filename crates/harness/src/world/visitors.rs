//! Visitors at hosts' entrypoints, and whether they are served.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::{STUCK, World, words};
use crate::visits::{UnixMillis, now};

/// Time between two requests at one entrypoint.
const EVERY: Duration = Duration::from_millis(20);

impl World {
    /// Starts visitors at these hosts' entrypoints, and waits until all are served.
    pub(crate) async fn visitors(&mut self, hosts: &[&str], host: &str) -> anyhow::Result<()> {
        self.start_visitors(hosts, host).await?;
        self.all_served(hosts).await.map(drop)
    }

    /// Visitors at these hosts' entrypoints, every 20 ms at each.
    pub(crate) async fn start_visitors(&mut self, hosts: &[&str], host: &str) -> anyhow::Result<()> {
        self.start_visitors_every(hosts, host, EVERY).await
    }

    /// Starts visitors that send requests at another pace.
    pub(crate) async fn start_visitors_every(
        &mut self,
        hosts: &[&str],
        host: &str,
        every: Duration,
    ) -> anyhow::Result<()> {
        let entrypoints: Vec<String> = hosts.iter().map(|host| format!("{host}:8420")).collect();
        self.visit(&entrypoints, &format!("--host {host} --every-ms {}", every.as_millis())).await
    }

    pub(super) async fn visit(&mut self, entrypoints: &[String], how: &str) -> anyhow::Result<()> {
        let command = words(&format!("/fakegost visitor --entrypoints {} {how}", entrypoints.join(",")));
        self.helpers += 1;
        let container = self.container(&format!("v{}", self.helpers), "visitor");
        self.run_helper(&container, "gossd-harness", command).await?;
        let visits = self.visits.clone();
        self.engine.follow(&container, move |line| visits.add(line));
        Ok(())
    }

    /// Waits until every visitor at these hosts has been served for one second without failure or delay. Returns the
    /// beginning of that second.
    pub(crate) async fn all_served(&self, hosts: &[&str]) -> anyhow::Result<UnixMillis> {
        let start = Instant::now();
        loop {
            // A request that hangs is not reported yet, so it is missing from the list.
            let since = now() - 1_500;
            let visits = self.visits.between(since, since + 1_000, hosts);
            let served = |host: &&str| {
                let mut of_host = visits.iter().filter(|visit| visit.to.starts_with(&format!("{host}:")));
                of_host.clone().count() >= 40 && of_host.all(|visit| visit.ok)
            };
            if hosts.iter().all(served) {
                return Ok(since);
            }
            if start.elapsed() > STUCK {
                let bad = visits.iter().rev().find(|visit| !visit.ok);
                bail!(
                    "visitors are not served at {hosts:?}: {} requests in the last second, last failure {bad:?}",
                    visits.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
