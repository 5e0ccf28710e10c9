//! The attacked agent: a process of its own, observed through its metrics and the kernel.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::link::keyring::Keyring;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;

/// The variable with the child's key.
const KEY: &str = "SIEGE_KEY";
const PATIENCE: Duration = Duration::from_secs(10);

/// Raises the limit of open files like `gossd run`.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The child: an agent that runs until its standard input ends.
pub(crate) fn run() -> anyhow::Result<()> {
    // As `gossd run` has them.
    let runtime = |workers| Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let (calls, rest) = (runtime(2)?, runtime(1)?);
    rest.block_on(async {
        let mut config = Config::loopback("agent".parse()?);
        config.keyring = Keyring::parse(&std::env::var(KEY)?).map_err(|error| anyhow::anyhow!("{error}"))?;
        config.admin = Some(config.plugin[0]);
        config.calls = Some(calls.handle().clone());
        let daemon = Daemon::start(config).await?;
        println!("{} {} {}", daemon.plugin, daemon.gossip, daemon.admin.context("an admin listener")?);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        daemon.stop().await;
        Ok(())
    })
}

/// A running agent; ended when dropped.
pub(crate) struct BesiegedAgent {
    child: Child,
    pub(crate) plugin: SocketAddr,
    pub(crate) gossip: SocketAddr,
    admin: SocketAddr,
}

impl Drop for BesiegedAgent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What was read of the agent at one moment.
pub(crate) struct AgentReading {
    /// Resident memory.
    pub(crate) rss_mb: f64,
    /// Processor time used so far.
    pub(crate) cpu: Duration,
    /// New frames that were accepted as a peer's.
    pub(crate) taken: u64,
    /// The numbers of known records, agents and claims.
    pub(crate) state: Vec<(String, u64)>,
    counts: BTreeMap<String, u64>,
}

impl AgentReading {
    /// What was dropped and closed since another reading.
    pub(crate) fn moved_since(&self, before: &Self) -> Vec<String> {
        let moved = self.counts.iter().filter_map(|(name, count)| {
            let more = count - before.counts.get(name).copied().unwrap_or_default();
            (more > 0).then(|| format!("{name} {more}"))
        });
        moved.collect()
    }
}

impl BesiegedAgent {
    pub(crate) fn start(key: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["siege", "--role", "agent"])
            .env(KEY, key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let addresses: Vec<SocketAddr> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [plugin, gossip, admin] = addresses[..] else { anyhow::bail!("the agent said {line:?}") };
        Ok(Self { child, plugin, gossip, admin })
    }

    #[expect(clippy::disallowed_methods, reason = "nothing else goes on yet")]
    pub(crate) fn wait_for(&self, metric: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        let holds =
            |line: &str| line.rsplit_once(' ').is_some_and(|(name, value)| name == metric && value != "0");
        while !self.get("/metrics")?.lines().any(holds) {
            ensure!(begun.elapsed() < PATIENCE, "no {metric:?} in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn seen(&self) -> anyhow::Result<AgentReading> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let rss_mb = rss.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1e3;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The fields after the name in brackets: user and system time, in ticks of 10 ms.
        let stat: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        let ticks = stat[11].parse::<u64>()? + stat[12].parse::<u64>()?;
        let metrics = self.get("/metrics")?;
        let values: Vec<(&str, u64)> = metrics
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let taken = values.iter().filter(|(name, _)| name.starts_with("gossd_frames_received_total"));
        let reason =
            |name: &str| name.split_once("reason=\"")?.1.split_once('"').map(|(word, _)| word.to_owned());
        let dropped = |name: &str| {
            name.starts_with("gossd_dropped") || name.starts_with("gossd_plugin_connections_closed")
        };
        let counts = values.iter().filter(|(name, _)| dropped(name));
        let report: serde_json::Value = serde_json::from_str(&self.get("/status.json")?)?;
        let members = report["members"].as_array().map_or(0, Vec::len);
        let number = |name: &str| (name.to_owned(), report["holds"][name].as_u64().unwrap_or_default());
        let mut state = vec![number("records"), number("rules"), ("members".into(), u64::try_from(members)?)];
        state.push(("last_event".into(), report["last_event"].as_u64().unwrap_or_default()));
        Ok(AgentReading {
            rss_mb,
            cpu: Duration::from_millis(ticks * 10),
            taken: taken.map(|(_, value)| value).sum(),
            state,
            counts: counts.filter_map(|(name, value)| Some((reason(name)?, *value))).collect(),
        })
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).context("an answer")
    }
}
