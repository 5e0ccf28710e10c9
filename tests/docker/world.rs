//! A small internet: hosts with a gossd and a gost each, tunnel clients, and visitors who count what fails. What a
//! scenario breaks, it breaks here, in words of hosts and tunnels.

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::engine::{Engine, Spec};
use crate::visits::{Moment, Visits, now};

/// The tunnel that most scenarios are about, and one more.
pub(crate) const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
pub(crate) const OTHER: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
/// The host name that its client asks for.
pub(crate) const HOST: &str = "shop.example.test";
/// Seconds that a record lives without a Renew, before its period is known and as long as a peer is silent.
pub(crate) const TTL: Duration = Duration::from_secs(6);
/// A step of a scenario that takes this long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// How the hosts of a world are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// More flags of every agent.
    pub(crate) flags: Vec<String>,
    /// More flags of one host's agent.
    pub(crate) flags_of: HashMap<&'static str, Vec<String>>,
    /// Hosts whose data folder is in memory and this small.
    pub(crate) small_disk: HashMap<&'static str, &'static str>,
    pub(crate) mtu: Option<u32>,
    /// Whether gost speaks gRPC; HTTP otherwise. Hosts take turns if none says.
    pub(crate) grpc: Option<bool>,
    /// What of every agent is broken on purpose, for the scenario to notice.
    pub(crate) broken: Option<String>,
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) visits: Visits,
    plan: Plan,
    prefix: String,
    network: String,
    subnet: u8,
    folder: PathBuf,
    hosts: BTreeMap<String, u8>,
    bound: Arc<Mutex<Vec<(Moment, String)>>>,
    helpers: u32,
}

impl World {
    /// A network without a host.
    pub(crate) async fn new(run: &str, number: u32, folder: &Path, plan: Plan) -> anyhow::Result<Self> {
        let prefix = format!("gossd-{run}-{number}");
        let engine = Engine::connect(&prefix).await?;
        let subnet = u8::try_from(number % 200)?;
        let network = format!("{prefix}-net");
        engine.network(&network, &format!("10.213.{subnet}.0/24"), plan.mtu).await?;
        let folder = folder.join(&prefix);
        std::fs::create_dir_all(&folder)?;
        let world = Self {
            engine,
            visits: Visits::default(),
            plan,
            prefix,
            network,
            subnet,
            folder,
            hosts: BTreeMap::new(),
            bound: Arc::default(),
            helpers: 0,
        };
        world.write_keys(&[KEYS[0]])?;
        Ok(world)
    }

    /// Hosts with an agent and a gost each, that know each other.
    pub(crate) async fn with_hosts(&mut self, names: &[&'static str]) -> anyhow::Result<()> {
        for name in names {
            self.add_host(name).await?;
        }
        self.all_met(names).await
    }

    /// One more host.
    pub(crate) async fn add_host(&mut self, name: &'static str) -> anyhow::Result<()> {
        let number = u8::try_from(self.hosts.len() + 10)?;
        self.add_host_at(name, number).await
    }

    /// One more host, at an address; or one that was lost, at another.
    pub(crate) async fn add_host_at(&mut self, name: &'static str, number: u8) -> anyhow::Result<()> {
        self.add_bare_host(name, number).await?;
        self.start_gost(name).await
    }

    /// A host with an agent only.
    pub(crate) async fn add_bare_host(&mut self, name: &'static str, number: u8) -> anyhow::Result<()> {
        self.hosts.insert(name.into(), number);
        let network = Some((self.network.clone(), Some(self.ip(name)), vec![name.into(), "gossd".into()]));
        let pause =
            Spec { image: "gossd-harness", command: words("/fakegost pause"), network, ..Spec::default() };
        self.engine.run(&self.container(name, "pause"), &pause).await?;
        self.start_agent(name).await
    }

    /// A fresh agent on a host, with what its folder has, and the flags that the plan has for it.
    pub(crate) async fn start_agent(&self, name: &'static str) -> anyhow::Result<()> {
        let own: Vec<&str> = self.plan.flags_of.get(name).into_iter().flatten().map(String::as_str).collect();
        self.start_agent_with(name, &own).await
    }

    /// The same, with other flags than the plan has for it.
    pub(crate) async fn start_agent_with(&self, name: &str, own: &[&str]) -> anyhow::Result<()> {
        let data = self.folder.join(format!("{name}-data"));
        make_open(&data)?;
        let ip = self.ip(name);
        let small_disk = self.plan.small_disk.get(name);
        // Not the image's own volume, over which no file system of a size can be put.
        let folder = if small_disk.is_some() { "/small" } else { "/data" };
        let mut command = words(&format!(
            "/gossd run --name {name} --advertise-host {ip} --join gossd:8002 --key-file /keys/keys --lease-ttl {} \
             --data-dir {folder} --control /tmp/control.sock --log-level gossd=debug",
            TTL.as_secs()
        ));
        command.extend(self.plan.flags.iter().cloned());
        command.extend(own.iter().map(ToString::to_string));
        if let Some(broken) = &self.plan.broken {
            command.extend(["--test-broken".into(), broken.clone()]);
        }
        let keys = self.keys_of(name);
        let mut folders = vec![format!("{}:/keys", keys.display())];
        let mut small = HashMap::new();
        match small_disk {
            Some(size) => drop(small.insert(folder.to_owned(), format!("size={size},mode=1777"))),
            None => folders.push(format!("{}:/data", data.display())),
        }
        let shares = Some(self.container(name, "pause"));
        let groups = vec![std::fs::metadata(keys.join("keys"))?.gid().to_string()];
        let spec =
            Spec { image: "gossd-harness", command, shares, folders, small, groups, ..Spec::default() };
        self.engine.run(&self.container(name, "gossd"), &spec).await
    }

    /// A fresh gost on a host.
    pub(crate) async fn start_gost(&self, name: &str) -> anyhow::Result<()> {
        let grpc = self.plan.grpc.unwrap_or(self.hosts.get(name).is_some_and(|number| number % 2 == 0));
        let plugin = if grpc { "grpc" } else { "http" };
        let command = words(&format!(
            "/fakegost gost --plugin {plugin} --agent 127.0.0.1:8000 --entrypoint :8420 --tunnel 0.0.0.0:8421 --ttl 2"
        ));
        let shares = Some(self.container(name, "pause"));
        let spec = Spec { image: "gossd-harness", command, shares, ..Spec::default() };
        self.engine.run(&self.container(name, "gost"), &spec).await
    }

    /// Takes a container away for good.
    pub(crate) async fn remove(&self, name: &str, part: &str) -> anyhow::Result<()> {
        self.engine.remove(&self.container(name, part)).await
    }

    /// A host is gone, with all that runs on it.
    pub(crate) async fn lose_host(&self, name: &str) -> anyhow::Result<()> {
        for part in ["pause", "gossd", "gost"] {
            self.engine.kill(&self.container(name, part)).await?;
        }
        Ok(())
    }

    /// The same, with nothing left of it.
    pub(crate) async fn clear_host(&mut self, name: &str) -> anyhow::Result<()> {
        for part in ["gost", "gossd", "pause"] {
            self.remove(name, part).await?;
        }
        self.hosts.remove(name);
        Ok(())
    }

    /// A host that comes back has nothing of what it was.
    pub(crate) fn forget_data(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.folder.join(format!("{name}-data"))).context("its data")
    }

    /// Every process of a host is stopped for a while, or goes on.
    pub(crate) async fn freeze_host(&self, name: &str, frozen: bool) -> anyhow::Result<()> {
        for part in ["gossd", "gost"] {
            self.engine.freeze(&self.container(name, part), frozen).await?;
        }
        Ok(())
    }

    /// Takes a host off the network, or puts it back.
    pub(crate) async fn unplug(&self, name: &str, unplugged: bool) -> anyhow::Result<()> {
        let pause = self.container(name, "pause");
        if unplugged {
            self.engine.disconnect(&self.network, &pause).await
        } else {
            self.engine.reconnect(&self.network, &pause, &self.ip(name), &[name, "gossd"]).await
        }
    }

    /// A client of a tunnel, which binds at the first of these hosts that takes it.
    pub(crate) async fn client(
        &mut self,
        name: &str,
        hosts: &[&str],
        tunnel: &str,
        host: &str,
    ) -> anyhow::Result<()> {
        let servers: Vec<String> = hosts.iter().map(|host| format!("{host}:8421")).collect();
        let servers = servers.join(",");
        let command = words(&format!(
            "/fakegost client --servers {servers} --tunnel {tunnel} --host {host} --say {name}"
        ));
        let container = self.container(name, "client");
        let before = self.bound().len();
        self.run_helper(&container, "gossd-harness", command).await?;
        let bound = self.bound.clone();
        let name = name.to_owned();
        self.engine.follow(&container, move |line| {
            if line.contains("bound") {
                bound.lock().unwrap_or_else(PoisonError::into_inner).push((now(), name.clone()));
            }
        });
        self.until("the client is bound", || self.bound().len() > before).await.map(drop)
    }

    /// When which client was bound.
    pub(crate) fn bound(&self) -> Vec<(Moment, String)> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Visitors at these hosts' entrypoints, all served from the start.
    pub(crate) async fn visitors(&mut self, hosts: &[&str], host: &str) -> anyhow::Result<()> {
        self.start_visitors(hosts, host).await?;
        self.all_served(hosts).await.map(drop)
    }

    /// Visitors at these hosts' entrypoints, every 20 ms at each.
    pub(crate) async fn start_visitors(&mut self, hosts: &[&str], host: &str) -> anyhow::Result<()> {
        let entrypoints: Vec<String> = hosts.iter().map(|host| format!("{host}:8420")).collect();
        let entrypoints = entrypoints.join(",");
        let command =
            words(&format!("/fakegost visitor --entrypoints {entrypoints} --host {host} --every-ms 20"));
        self.helpers += 1;
        let container = self.container(&format!("v{}", self.helpers), "visitor");
        self.run_helper(&container, "gossd-harness", command).await?;
        let visits = self.visits.clone();
        self.engine.follow(&container, move |line| visits.add(line));
        Ok(())
    }

    /// Ends an agent by a signal, and starts it again as it was.
    pub(crate) async fn restart_agent(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        let agent = self.container(name, "gossd");
        self.engine.signal(&agent, signal).await?;
        self.engine.ended(&agent).await?;
        self.engine.start(&agent).await
    }

    /// The same, with nothing of what it knew.
    pub(crate) async fn restart_agent_empty(&self, name: &'static str) -> anyhow::Result<()> {
        let agent = self.container(name, "gossd");
        self.engine.kill(&agent).await?;
        self.engine.remove(&agent).await?;
        self.forget_data(name)?;
        self.start_agent(name).await
    }

    /// So many tunnels more at a host, that nobody visits.
    pub(crate) async fn crowd(&self, name: &str, count: u16) -> anyhow::Result<()> {
        let container = self.container(name, "crowd");
        let command = words(&format!("/fakegost crowd --agent 127.0.0.1:8000 --count {count}"));
        let shares = Some(self.container(name, "pause"));
        let spec = Spec { image: "gossd-harness", command, shares, ..Spec::default() };
        self.engine.run(&container, &spec).await?;
        self.until_said(&container, "ready").await
    }

    /// Waits until the agents of these hosts know the tunnels of a crowd.
    pub(crate) async fn all_know_crowd(&self, names: &[&str], count: u16) -> anyhow::Result<()> {
        let look = format!("/fakegost crowd --agent 127.0.0.1:8000 --count {count} --look");
        for name in names {
            let start = Instant::now();
            while let Err(error) = self.engine.execute(&self.container(name, "gossd"), &look).await {
                ensure!(start.elapsed() < STUCK, "{name} does not know the crowd: {error:#}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Replaces an agent's program, as an upgrade does: another container, the same folder.
    pub(crate) async fn replace_agent(&self, name: &'static str) -> anyhow::Result<()> {
        let agent = self.container(name, "gossd");
        self.engine.signal(&agent, "SIGTERM").await?;
        self.engine.ended(&agent).await?;
        self.engine.remove(&agent).await?;
        self.start_agent(name).await
    }

    async fn run_helper(
        &self,
        container: &str,
        image: &'static str,
        command: Vec<String>,
    ) -> anyhow::Result<()> {
        let network = Some((self.network.clone(), None, Vec::new()));
        self.engine.run(container, &Spec { image, command, network, ..Spec::default() }).await
    }

    /// Something in a host's network that is in force when this returns; its container is to be stopped to end it.
    pub(crate) async fn harm(&mut self, name: &str, verb: &str) -> anyhow::Result<String> {
        self.helpers += 1;
        let container = self.container(name, &format!("harm{}", self.helpers));
        let spec = Spec {
            image: "gossd-tools",
            command: words(&format!("/fakegost {verb}")),
            shares: Some(self.container(name, "pause")),
            capabilities: vec!["NET_ADMIN".into(), "NET_RAW".into()],
            user: Some("0".into()),
            ..Spec::default()
        };
        self.engine.run(&container, &spec).await?;
        self.until_said(&container, "ready").await.with_context(|| verb.to_owned())?;
        Ok(container)
    }

    /// Waits until a container has said something.
    async fn until_said(&self, container: &str, what: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        while !self.engine.log(container).await?.contains(what) {
            ensure!(start.elapsed() < STUCK, "no {what:?} in {}", self.engine.log(container).await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until an agent has said something.
    pub(crate) async fn says(&self, name: &str, what: &str) -> anyhow::Result<()> {
        self.until_said(&self.container(name, "gossd"), what).await
    }

    /// Ends a harm.
    pub(crate) async fn heal(&self, container: &str) -> anyhow::Result<()> {
        self.engine.signal(container, "SIGTERM").await?;
        self.engine.ended(container).await
    }

    /// Waits until every visitor at these hosts is served, which one second without failure or delay shows; since
    /// when.
    pub(crate) async fn all_served(&self, hosts: &[&str]) -> anyhow::Result<Moment> {
        let start = Instant::now();
        loop {
            // What hangs has not told its end yet, so it is missed rather than seen.
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

    /// Waits until the agents of all these hosts hear all others.
    pub(crate) async fn all_met(&self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.meets(name, names.len() - 1).await?;
        }
        Ok(())
    }

    /// Waits until an agent hears so many peers.
    pub(crate) async fn meets(&self, name: &str, peers: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.said(name, "peer joined").await? < peers {
            ensure!(start.elapsed() < STUCK, "{name} does not meet {peers} peers");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until something holds; how long that took.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while !holds() {
            ensure!(start.elapsed() < STUCK, "not within {STUCK:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(start.elapsed())
    }

    /// How often an agent has said something.
    pub(crate) async fn said(&self, name: &str, what: &str) -> anyhow::Result<usize> {
        Ok(self.engine.log(&self.container(name, "gossd")).await?.matches(what).count())
    }

    /// Gives hosts that start from now on these keys, the first of which seals.
    pub(crate) fn write_keys(&self, keys: &[&str]) -> anyhow::Result<()> {
        write_keys(&self.folder.join("keys"), keys)
    }

    /// Gives one host its own keys.
    pub(crate) fn write_keys_of(&self, name: &str, keys: &[&str]) -> anyhow::Result<()> {
        write_keys(&self.folder.join(format!("{name}-keys")), keys)
    }

    /// Puts a key beside a host's own keys.
    pub(crate) fn write_new_key(&self, name: &str, key: &str) -> anyhow::Result<()> {
        write_secret(&self.keys_of(name).join("new"), key)
    }

    /// What the key file of a host with its own keys has now, without comments.
    pub(crate) fn read_keys_of(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.keys_of(name).join("keys"))?;
        Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
    }

    /// `gossd keys` at a host's agent: how it ends.
    pub(crate) async fn keys(&self, name: &str, line: &str) -> anyhow::Result<i64> {
        let command = format!("/gossd keys {line} --control /tmp/control.sock");
        self.engine.exit_code(&self.container(name, "gossd"), &command).await
    }

    fn keys_of(&self, name: &str) -> PathBuf {
        let own = self.folder.join(format!("{name}-keys"));
        if own.exists() { own } else { self.folder.join("keys") }
    }

    /// The name of a part of a host: `pause`, `gossd`, `gost`.
    pub(crate) fn container(&self, name: &str, part: &str) -> String {
        format!("{}-{name}-{part}", self.prefix)
    }

    /// A host's address.
    pub(crate) fn ip(&self, name: &str) -> String {
        let number = self.hosts.get(name).copied().unwrap_or_default();
        format!("10.213.{}.{number}", self.subnet)
    }
}

/// Keys for all.
pub(crate) const KEYS: [&str; 2] =
    ["b25seS1mb3ItdGVzdHMtb2YtZ29zc2Qta2V5LTAwMDE=", "b25seS1mb3ItdGVzdHMtb2YtZ29zc2Qta2V5LTAwMDI="];

fn write_keys(folder: &Path, keys: &[&str]) -> anyhow::Result<()> {
    make_open(folder)?;
    let file = folder.join("keys");
    write_secret(&file, &(keys.join("\n") + "\n"))
}

/// A file that our group alone may use, which the agents are in.
fn write_secret(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, "").and_then(|()| std::fs::set_permissions(file, Permissions::from_mode(0o660)))?;
    std::fs::write(file, text).context("a secret")
}

/// A folder that the containers' user may use.
fn make_open(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o777)).context("a folder for all")
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
