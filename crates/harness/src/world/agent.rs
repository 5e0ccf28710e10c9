//! A host's agent: started, ended, replaced, taken over, and asked.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{PLUGIN, STUCK, TTL, World, make_open, words};
use crate::engine::Spec;

/// The control socket, in a folder that the successor's container shares.
const CONTROL: &str = "/control/gossd.sock";
/// The file of host names for gost.
pub(super) const RULE_FILE: &str = "/ingress/hosts";

impl World {
    /// Starts a new agent on a host, with the content of its folder.
    pub(crate) async fn start_agent(&self, name: &str) -> anyhow::Result<()> {
        let own = self.plan.switches_of.get(name).map(ToString::to_string);
        self.run_agent(name, &[], self.plan.switches.iter().cloned().chain(own).collect()).await
    }

    /// Starts a new agent with more flags.
    pub(crate) async fn start_agent_with(&self, name: &str, own: &[&str]) -> anyhow::Result<()> {
        self.run_agent(name, own, self.plan.switches.clone()).await
    }

    async fn run_agent(&self, name: &str, own: &[&str], switches: Vec<String>) -> anyhow::Result<()> {
        let program = if switches.is_empty() { "gossd" } else { "gossd-lab" };
        let small_disk = self.plan.small_disk.get(name);
        // The image's own volume cannot be a file system of limited size.
        let folder = if small_disk.is_some() { "/small" } else { "/data" };
        let advertised =
            self.plan.advertised.get(name).map_or_else(|| self.ip(name), |last| self.ip_of(*last));
        let mut command = words(&format!(
            "/{program} run --name {name} --advertise-host {advertised} --join gossd:8002 --key-file /keys/keys --lease-ttl {} \
             --data-dir {folder} --control {CONTROL} --log-level gossd=debug",
            TTL.as_secs()
        ));
        command.extend(self.plan.flags.iter().cloned());
        command.extend(self.plan.flags_of.get(name).into_iter().flat_map(|flags| words(flags)));
        command.extend(own.iter().map(ToString::to_string));
        if self.plan.second_address {
            command.extend(words(&format!(
                "--plugin {PLUGIN} --plugin {}:8000 --token-file /keys/token",
                self.ip(name)
            )));
        }
        if self.plan.rule_file {
            command.extend(words(&format!("--ingress-file {RULE_FILE}")));
        }
        if self.plan.held {
            command.push("--hold".into());
        }
        let keys = self.keys_of(name);
        let mut folders = vec![format!("{}:/keys", keys.display())];
        for (kind, at) in [("control", "/control"), ("ingress", "/ingress"), ("data", "/data")] {
            let folder = self.folder.join(format!("{name}-{kind}"));
            make_open(&folder)?;
            folders.push(format!("{}:{at}", folder.display()));
        }
        if let Some(gossd) = &self.plan.gossd {
            folders.push(format!("{}:/gossd:ro", gossd.display()));
        }
        let small = small_disk.map(|size| (folder.to_owned(), format!("size={size},mode=1777")));
        let spec = Spec {
            image: "gossd-harness",
            command,
            environment: switches,
            shares: Some(self.container(name, "pause")),
            folders,
            small: HashMap::from_iter(small),
            groups: vec![std::fs::metadata(keys.join("keys"))?.gid().to_string()],
            ..Spec::default()
        };
        self.engine.run(&self.agent(name), &spec).await
    }

    /// The container of a host's agent; each agent that takes over has a new one.
    pub(crate) fn agent(&self, name: &str) -> String {
        match self.taken_over.get(name) {
            None => self.container(name, "gossd"),
            Some(times) => self.container(name, &format!("gossd{times}")),
        }
    }

    /// Ends an agent by a signal, and starts it again with the same container.
    pub(crate) async fn restart_agent(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        let agent = self.agent(name);
        self.engine.signal(&agent, signal).await?;
        self.engine.ended(&agent).await?;
        self.engine.start(&agent).await
    }

    /// Ends an agent and starts it without its data.
    pub(crate) async fn restart_agent_empty(&self, name: &str) -> anyhow::Result<()> {
        let agent = self.agent(name);
        self.engine.kill(&agent).await?;
        self.engine.remove(&agent).await?;
        self.forget_data(name)?;
        self.start_agent(name).await
    }

    /// Replaces an agent by a new container with the same folders, after the old one has ended.
    pub(crate) async fn replace_agent(&self, name: &str) -> anyhow::Result<()> {
        let agent = self.agent(name);
        self.engine.signal(&agent, "SIGTERM").await?;
        self.engine.ended(&agent).await?;
        self.engine.remove(&agent).await?;
        self.start_agent(name).await
    }

    /// Replaces a running agent by a new container that takes its listeners; the old one ends by itself.
    pub(crate) async fn take_over(&mut self, name: &str) -> anyhow::Result<()> {
        let former = self.agent(name);
        *self.taken_over.entry(name.into()).or_default() += 1;
        self.start_agent_with(name, &["--take-over"]).await?;
        self.until_said(&self.agent(name), " ready ").await?;
        self.engine.ended(&former).await.context("it was taken over")
    }

    /// Runs a verb of `gossd` at a host's agent. Returns its exit code and output.
    pub(crate) async fn tell_agent(&self, name: &str, line: &str) -> anyhow::Result<i64> {
        let command = format!("/gossd {line} --control {CONTROL}");
        Ok(self.engine.exit_code(&self.agent(name), &command).await?.0)
    }

    /// The status that a host's agent reports.
    pub(crate) async fn status(&self, name: &str) -> anyhow::Result<serde_json::Value> {
        let command = format!("/gossd status --json --control {CONTROL}");
        let said = self.engine.execute(&self.agent(name), &command).await?;
        serde_json::from_str(&said).with_context(|| said.clone())
    }

    /// The addresses that a host's agent answers to a Get for a tunnel.
    pub(crate) async fn listed(&self, name: &str, tunnel: &str) -> anyhow::Result<Vec<String>> {
        let token = self.plan.token().map(|token| format!("--token {token}")).unwrap_or_default();
        let command = format!("/fakegost lookup --plugin http {token} --tunnel {tunnel}");
        let said = self.engine.execute(&self.agent(name), &command).await?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Adds this many tunnels at a host, which nobody visits.
    pub(crate) async fn crowd(&self, name: &str, count: u16) -> anyhow::Result<()> {
        let container = self.container(name, "crowd");
        let command = words(&format!("/fakegost crowd --plugin http --count {count}"));
        let shares = Some(self.container(name, "pause"));
        let spec = Spec { image: "gossd-harness", command, shares, ..Spec::default() };
        self.engine.run(&container, &spec).await?;
        self.until_said(&container, "ready").await
    }

    /// Waits until the agents of these hosts know the tunnels of a crowd.
    pub(crate) async fn all_know_crowd(&self, names: &[&str], count: u16) -> anyhow::Result<()> {
        let look = format!("/fakegost crowd --plugin http --count {count} --look");
        for name in names {
            let start = Instant::now();
            while let Err(error) = self.engine.execute(&self.agent(name), &look).await {
                ensure!(start.elapsed() < STUCK, "{name} does not know the crowd: {error:#}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    pub(crate) async fn says(&self, name: &str, what: &str) -> anyhow::Result<()> {
        self.until_said(&self.agent(name), what).await
    }

    pub(crate) async fn said(&self, name: &str, what: &str) -> anyhow::Result<usize> {
        Ok(self.engine.log(&self.agent(name)).await?.matches(what).count())
    }

    /// The warnings in an agent's log that contain a text.
    pub(crate) async fn warnings(&self, name: &str, what: &str) -> anyhow::Result<Vec<String>> {
        let log = self.engine.log(&self.agent(name)).await?;
        let warnings = log.lines().filter(|line| line.contains(" WARN ") && line.contains(what));
        Ok(warnings.map(str::to_owned).collect())
    }

    /// Waits until each of these agents sees all others and the bystanders alive.
    pub(crate) async fn all_met(&self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.meets(name, names.len() - 1 + self.bystanders()).await?;
        }
        Ok(())
    }

    /// Waits until an agent sees this many peers alive.
    pub(crate) async fn meets(&self, name: &str, peers: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.said(name, "peer joined").await? < peers {
            ensure!(start.elapsed() < STUCK, "{name} does not meet {peers} peers");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
