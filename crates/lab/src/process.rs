//! Agents that are processes of their own, and a handler that takes the same calls and does nothing.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{NODE, id, tunnel};

/// Takes HTTP calls on as many threads as an agent, and does nothing.
pub(crate) fn serve_nothing() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let app = axum::Router::new().route("/sd", axum::routing::any(|_: axum::body::Bytes| async {}));
        Ok(axum::serve(listener, app).await?)
    })
}

/// An address of this host where nobody listens, and nobody else will: a port that the system gave and took back can be another
/// program's by now. The system gives none of these.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let at = SocketAddr::from(([127, 0, 0, 1], NEXT.fetch_add(1, Ordering::Relaxed)));
        if TcpListener::bind(at).is_ok() {
            return at;
        }
    }
}

/// A child process; killed when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))?)
    }

    /// Seconds of processor time that its present threads used so far, to the nanosecond: those of `stat` are counted in ticks, of
    /// which an idle agent takes one in several seconds.
    pub(crate) fn processor(&self) -> anyhow::Result<f64> {
        let mut nanoseconds = 0.0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanoseconds += stat.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
        }
        Ok(nanoseconds / 1e9)
    }

    /// Starts the process that takes the same calls and does nothing. Returns its address too.
    pub(crate) fn nothing() -> anyhow::Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["footprint", "--nothing"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("its output")?;
        let process = Self(child);
        let address = BufReader::new(stdout).lines().next().context("its address")??;
        Ok((process, format!("http://{address}/sd")))
    }
}

/// The program that people run, if it was built beside this one; or else this one, which is larger.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let gossd = own.with_file_name("gossd");
    Ok(if gossd.exists() { gossd } else { own })
}

pub(crate) struct MeasuredAgent {
    pub(crate) process: Process,
    pub(crate) plugin: String,
    pub(crate) gossip: String,
    admin: String,
    /// From exec to the first answered Get.
    pub(crate) started: Duration,
}

impl MeasuredAgent {
    pub(crate) fn start(name: &str, data: impl AsRef<OsStr>, join: Option<&str>) -> anyhow::Result<Self> {
        let more = join.map_or(Vec::new(), |join| vec!["--join", join]);
        Self::start_with(name, data, "127.0.0.1:0", &more)
    }

    pub(crate) fn start_with(
        name: &str,
        data: impl AsRef<OsStr>,
        plugin: &str,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(program()?);
        command.args(["run", "--name", name, "--lease-ttl", "3600", "--data-dir"]).arg(data);
        command.args(["--log-level", "error", "--max-records", "1000000"]);
        // As in the systemd unit and the image.
        command.env("MALLOC_ARENA_MAX", "1");
        command.args(["--plugin", plugin, "--gossip", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(more);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut agent = Self {
            process: Process(child),
            plugin: String::new(),
            gossip: String::new(),
            admin: String::new(),
            started: Duration::ZERO,
        };
        for line in lines {
            let line = line?;
            match line.split_once(' ') {
                Some(("plugin", url)) => agent.plugin = url.into(),
                Some(("gossip", address)) => agent.gossip = address.into(),
                Some(("admin", url)) => agent.admin = url.into(),
                _ => {}
            }
            if ![&agent.plugin, &agent.gossip, &agent.admin].iter().any(|told| told.is_empty()) {
                agent.started = begun.elapsed();
                return Ok(agent);
            }
        }
        bail!("{name} did not start")
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let status = self.process.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0)
    }

    pub(crate) async fn records(&self) -> anyhow::Result<usize> {
        let status: serde_json::Value =
            reqwest::get(format!("{}/status.json", self.admin)).await?.json().await?;
        let records = status["holds"]["records"].as_u64().context("records")?;
        Ok(usize::try_from(records)?)
    }

    pub(crate) async fn suspicions(&self) -> anyhow::Result<u64> {
        let metrics = reqwest::get(format!("{}/metrics", self.admin)).await?.text().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("gossd_suspicions_total "));
        Ok(line.context("the metric")?.parse()?)
    }

    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-s", signal, &self.process.0.id().to_string()]).status()?;
        ensure!(sent.success(), "{signal} is not sent");
        Ok(())
    }

    pub(crate) async fn knows(&self, records: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.records().await? < records {
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "{} of {records} records",
                self.records().await?
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A gost of this host: its instance, and the port of its entrypoint.
#[derive(Clone, Copy)]
pub(crate) struct Gost {
    pub(crate) node: &'static str,
    pub(crate) port: u16,
}

impl Gost {
    /// The usual instance, with its entrypoint at a port.
    pub(crate) fn at(port: u16) -> Self {
        Self { node: NODE, port }
    }

    /// What it says of a connector.
    pub(crate) fn body(self, n: usize) -> String {
        let (Self { node, port }, id, name) = (self, id(n), tunnel(n));
        format!(r#"{{"id":"{id}","name":"{name}","node":"{node}","network":"tcp","address":":{port}"}}"#)
    }
}

/// Registers records of a gost on kept connections. They have to stay open, because their end would count as the gost's.
pub(crate) async fn register(
    agent: &MeasuredAgent,
    client: &reqwest::Client,
    numbers: std::ops::Range<usize>,
    gost: Gost,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let at_a_time = 8;
    for first in 0..at_a_time {
        let (client, url, numbers) = (client.clone(), agent.plugin.clone(), numbers.clone());
        tasks.spawn(async move {
            for n in numbers.skip(first).step_by(at_a_time) {
                client.post(&url).body(gost.body(n)).send().await?.error_for_status()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Fifty registrations and fifty deregistrations a second.
pub(crate) async fn change(
    url: String,
    client: reqwest::Client,
    first: usize,
    gost: Gost,
) -> anyhow::Result<()> {
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in first.. {
        pace.tick().await;
        client.post(&url).body(gost.body(n)).send().await?.error_for_status()?;
        client.delete(&url).body(gost.body(n)).send().await?.error_for_status()?;
    }
    Ok(())
}
