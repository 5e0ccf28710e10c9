//! Agents as processes of their own, this program under another name: started, ended by signals, started again at their
//! former addresses, and observed from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::wire::{self, HttpClient};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As a service manager ends it.
    Told,
    /// By SIGKILL.
    Killed,
}

/// What stays the same at every start.
pub(crate) struct AgentSetup {
    pub(crate) name: String,
    /// An address where nothing else listens, so that its ports stay free.
    pub(crate) ip: Ipv4Addr,
    /// The address that peers and gosts get: a relay's, or its own.
    pub(crate) advertised: Ipv4Addr,
    /// The port of the gossip; 0 for any.
    pub(crate) port: u16,
    pub(crate) join: Option<SocketAddr>,
    /// The folder of its journal and log.
    pub(crate) folder: PathBuf,
    pub(crate) flags: Vec<String>,
    /// Test switches, as variables.
    pub(crate) switches: Vec<(&'static str, String)>,
}

/// An agent's process; killed when dropped.
pub(crate) struct SoakAgent {
    setup: AgentSetup,
    child: Option<Child>,
    pub(crate) plugin: SocketAddr,
    pub(crate) gossip: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) starts: u32,
}

/// What was read of the process and its metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Resident bytes.
    pub(crate) memory: f64,
    pub(crate) files: f64,
    /// By name and labels, as in the agent's output.
    pub(crate) metrics: BTreeMap<String, f64>,
}

impl Drop for SoakAgent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl SoakAgent {
    pub(crate) fn new(setup: AgentSetup) -> anyhow::Result<Self> {
        let at = |port| SocketAddr::from((setup.ip, port));
        let (plugin, gossip, admin) = (at(0), at(setup.port), at(0));
        let mut agent = Self { setup, child: None, plugin, gossip, admin, starts: 0 };
        agent.start()?;
        Ok(agent)
    }

    pub(crate) fn name(&self) -> &str {
        &self.setup.name
    }

    pub(crate) fn advertised(&self) -> IpAddr {
        self.setup.advertised.into()
    }

    /// The address at which peers join it.
    pub(crate) fn meeting_point(&self) -> SocketAddr {
        (self.setup.advertised, self.gossip.port()).into()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let AgentSetup { name, advertised, join, folder, flags, switches, .. } = &self.setup;
        let log = fs::OpenOptions::new().create(true).append(true).open(log_of(folder, name))?;
        let mut command = Command::new(std::env::current_exe()?);
        // As in the systemd unit and the image.
        command.env("MALLOC_ARENA_MAX", "1");
        command.envs(switches.iter().map(|(name, value)| (name, value)));
        command.args(["run", "--name", name, "--log-level", "info", "--data-dir"]).arg(folder);
        command.arg("--control").arg(folder.join(format!("{name}.sock")));
        command.args(["--advertise-host", &advertised.to_string()]).args(flags);
        for (flag, addr) in [("--plugin", self.plugin), ("--gossip", self.gossip), ("--admin", self.admin)] {
            command.args([flag, &addr.to_string()]);
        }
        command.args(join.map(|join| ["--join".into(), join.to_string()]).into_iter().flatten());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        self.child = Some(child);
        let mut told = 0;
        for line in lines {
            let line = line?;
            let Some((what, url)) = line.split_once(' ') else { continue };
            let addr = || url.trim_start_matches("http://").trim_end_matches("/sd").parse();
            match what {
                "plugin" => self.plugin = addr()?,
                "gossip" => self.gossip = addr()?,
                "admin" => self.admin = addr()?,
                _ => continue,
            }
            told += 1;
            if told == 3 {
                break;
            }
        }
        ensure!(told == 3, "{} did not start; its log ends:\n{}", self.name(), self.log(20));
        self.starts += 1;
        Ok(())
    }

    /// Ends the process and waits for its end.
    pub(crate) fn end(&mut self, how: Ending) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let signal = if how == Ending::Told { Signal::TERM } else { Signal::KILL };
        kill_process(Pid::from_child(&child), signal)?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > Duration::from_secs(10) {
                child.kill()?;
                child.wait()?;
                anyhow::bail!("{} did not end within 10 s of {how:?}", self.name());
            }
            pause(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Fails if the process has ended by itself.
    pub(crate) fn is_well(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            anyhow::bail!("{} ended by itself, {status}; its log ends:\n{}", self.name(), self.log(20));
        }
        Ok(())
    }

    pub(crate) fn journal(&self) -> u64 {
        let path = self.setup.folder.join(format!("{}.journal", self.setup.name));
        path.metadata().map_or(0, |found| found.len())
    }

    pub(crate) fn log(&self, lines: usize) -> String {
        let log = fs::read_to_string(log_of(&self.setup.folder, self.name())).unwrap_or_default();
        let skip = log.lines().count().saturating_sub(lines);
        log.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

#[expect(clippy::disallowed_methods, reason = "called from blocking threads")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Reads a process and its metrics. `None` if the agent does not answer.
pub(crate) async fn read(pid: u32, admin: SocketAddr) -> Option<Figures> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let memory: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let text = HttpClient::new(admin).call(&wire::get("/metrics")).await.ok()?.body;
    let metrics = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Some(Figures { memory: memory * 1024.0, files: gossd_lab::float(files), metrics: metrics.collect() })
}

impl Figures {
    /// The value of a metric, summed over its labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of =
            |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.metrics.iter().filter(|(key, _)| of(key)).map(|(_, value)| value).sum()
    }

    /// The value of a metric for one label.
    pub(crate) fn of(&self, name: &str, label: &str) -> f64 {
        let end = format!("=\"{label}\"}}");
        let is = |key: &str| {
            key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.ends_with(&end))
        };
        self.metrics.iter().find(|(key, _)| is(key)).map_or(0.0, |(_, value)| *value)
    }
}
