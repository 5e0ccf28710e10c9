//! A small internet: hosts with a gossd and a gost each, tunnel clients, and visitors that count failures. A scenario
//! breaks things through this module, in terms of hosts and tunnels.

mod agent;
mod gost;
mod secrets;
mod visitors;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

pub(crate) use self::secrets::KEYS;
use crate::engine::{Engine, Spec};
use crate::visits::{UnixMillis, Visits};

/// The tunnels of most scenarios.
pub(crate) const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
pub(crate) const OTHER: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
/// The host name that the tunnel's client wants.
pub(crate) const HOST: &str = "shop.example.test";
/// The TTL of a record before its Renew period is known, and while a peer is silent.
pub(crate) const TTL: Duration = Duration::from_secs(6);
/// The Renew period of a tunnel, unless a plan sets another.
const RENEW: Duration = Duration::from_secs(2);
/// A step that takes this long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// The plugin address of the agent beside gost.
const PLUGIN: &str = "127.0.0.1:8000";
/// The same by a name that also has the address of the next host's agent.
const AGENTS: &str = "gossd-plugin:8000";
/// The last byte of the first host's address, and how many hosts stand in for each other.
const FIRST: u8 = 10;
const RING: u8 = 3;
/// The same of the first bystander, above all other hosts'.
const BYSTANDERS: u8 = 200;
/// Networks at a time, by the third byte of their addresses.
const SUBNETS: u32 = 200;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PluginKind {
    /// gost's default.
    #[default]
    Grpc,
    Http,
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        })
    }
}

#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) plugin: PluginKind,
    /// The program of a real gost for hosts and clients; `None` for the simulated one.
    pub(crate) real_gost: Option<PathBuf>,
    /// Another gossd for agents without test switches.
    pub(crate) gossd: Option<PathBuf>,
    /// The Renew period of tunnels.
    pub(crate) ttl: Duration,
    /// Gosts call agents by a name whose second address is another host's agent.
    pub(crate) second_address: bool,
    /// Gosts read host names from the agent's file.
    pub(crate) rule_file: bool,
    /// The container that owns the network keeps the agent's listeners while the agent is replaced.
    pub(crate) held: bool,
    /// Gosts have their entrypoint in the list `entrypoints`, which is never registered.
    pub(crate) unnamed_entrypoint: bool,
    /// Gosts send their Deregisters at SIGTERM.
    pub(crate) goodbye: bool,
    pub(crate) flags: Vec<String>,
    /// More flags of the agents of some hosts.
    pub(crate) flags_of: HashMap<&'static str, &'static str>,
    /// Hosts that advertise the address with this last byte instead of their own.
    pub(crate) advertised: HashMap<&'static str, u8>,
    /// Test switches of every agent, as variables. If there are any, the agents run the lab's program, which has
    /// switches.
    pub(crate) switches: Vec<String>,
    /// Test switches of the first agent of one host.
    pub(crate) switches_of: HashMap<&'static str, &'static str>,
    /// Hosts whose data folder is a file system in memory of this size.
    pub(crate) small_disk: HashMap<&'static str, &'static str>,
    pub(crate) mtu: Option<u32>,
    /// Hosts that have an agent and nothing else.
    pub(crate) bystanders: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            plugin: PluginKind::default(),
            real_gost: None,
            gossd: None,
            ttl: RENEW,
            second_address: false,
            rule_file: false,
            held: false,
            unnamed_entrypoint: false,
            goodbye: false,
            flags: Vec::new(),
            flags_of: HashMap::new(),
            advertised: HashMap::new(),
            switches: Vec::new(),
            switches_of: HashMap::new(),
            small_disk: HashMap::new(),
            mtu: None,
            bystanders: 0,
        }
    }
}

impl Plan {
    /// An agent that other hosts call requires a token.
    fn token(&self) -> Option<&'static str> {
        self.second_address.then_some(secrets::TOKEN)
    }
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
    bound: Arc<Mutex<Vec<(UnixMillis, String)>>>,
    /// How often each host's agent has been taken over.
    taken_over: HashMap<String, u32>,
    helpers: u32,
}

impl World {
    /// An empty network.
    pub(crate) async fn new(
        run: &str,
        number: u32,
        folder: &Path,
        tag: &str,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        let prefix = format!("gossd-{run}-{number}");
        let engine = Engine::connect(&prefix, tag).await?;
        let network = format!("{prefix}-net");
        let subnet = make_network(&engine, &network, number, plan.mtu).await?;
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
            taken_over: HashMap::new(),
            helpers: 0,
        };
        world.write_keys(&[KEYS[0]])?;
        Ok(world)
    }

    /// Adds hosts with an agent and a gost each, and the bystanders, and waits until they know each other.
    pub(crate) async fn with_hosts(&mut self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.add_host(name).await?;
        }
        for number in BYSTANDERS..BYSTANDERS + self.plan.bystanders {
            self.add_bare_host(&format!("bystander-{number}"), number).await?;
        }
        self.all_met(names).await
    }

    /// How many hosts there are that have an agent and nothing else.
    pub(crate) fn bystanders(&self) -> usize {
        self.plan.bystanders.into()
    }

    pub(crate) async fn add_host(&mut self, name: &str) -> anyhow::Result<()> {
        let hosts = self.hosts.values().filter(|number| **number < BYSTANDERS).count();
        let number = u8::try_from(hosts)? + FIRST;
        self.add_host_at(name, number).await
    }

    /// Adds a host at an address, or a lost host at another one.
    pub(crate) async fn add_host_at(&mut self, name: &str, number: u8) -> anyhow::Result<()> {
        self.add_bare_host(name, number).await?;
        self.start_gost(name).await
    }

    /// Adds a host without a gost.
    pub(crate) async fn add_bare_host(&mut self, name: &str, number: u8) -> anyhow::Result<()> {
        self.hosts.insert(name.into(), number);
        let network = Some((self.network.clone(), Some(self.ip(name)), vec![name.into(), "gossd".into()]));
        let hosts = if self.plan.second_address { self.addresses_of_agents(number) } else { Vec::new() };
        let keep = format!("/gossd hold --name {name}");
        let command = words(if self.plan.held { &keep } else { "/fakegost pause" });
        let pause = Spec { image: "gossd-harness", command, network, hosts, ..Spec::default() };
        let container = self.container(name, "pause");
        self.engine.run(&container, &pause).await?;
        if self.plan.held {
            self.until_said(&container, "holding").await?;
        }
        self.start_agent(name).await
    }

    /// Lines of a hosts file: the host's own agent, then the next host's.
    fn addresses_of_agents(&self, number: u8) -> Vec<String> {
        let name = AGENTS.trim_end_matches(":8000");
        vec![format!("{name}:127.0.0.1"), format!("{name}:{}", self.next_ip(number))]
    }

    /// The address of the host whose agent stands in for this one's.
    fn next_ip(&self, number: u8) -> String {
        self.ip_of(FIRST + (number - FIRST + 1) % RING)
    }

    /// Kills everything on a host.
    pub(crate) async fn lose_host(&self, name: &str) -> anyhow::Result<()> {
        for container in [self.container(name, "pause"), self.agent(name), self.container(name, "gost")] {
            self.engine.kill(&container).await?;
        }
        Ok(())
    }

    /// Kills and removes everything on a host.
    pub(crate) async fn clear_host(&mut self, name: &str) -> anyhow::Result<()> {
        for container in [self.container(name, "gost"), self.agent(name), self.container(name, "pause")] {
            self.engine.remove(&container).await?;
        }
        self.hosts.remove(name);
        Ok(())
    }

    /// Deletes a host's data before it comes back.
    pub(crate) fn forget_data(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.folder.join(format!("{name}-data"))).context("its data")
    }

    /// Stops every process of a host, or lets them continue.
    pub(crate) async fn freeze_host(&self, name: &str, frozen: bool) -> anyhow::Result<()> {
        for container in [self.agent(name), self.container(name, "gost")] {
            self.engine.freeze(&container, frozen).await?;
        }
        Ok(())
    }

    /// Disconnects a host from the network, or connects it again.
    pub(crate) async fn unplug(&self, name: &str, unplugged: bool) -> anyhow::Result<()> {
        let pause = self.container(name, "pause");
        if unplugged {
            self.engine.disconnect(&self.network, &pause).await
        } else {
            self.engine.reconnect(&self.network, &pause, &self.ip(name), &[name, "gossd"]).await
        }
    }

    /// Adds an address that takes every packet of these hosts and answers none.
    pub(crate) async fn add_blackhole(&self, number: u8, hosts: &[&str]) -> anyhow::Result<()> {
        let from: Vec<String> = hosts.iter().map(|host| self.ip(host)).collect();
        let spec = Spec {
            image: "gossd-tools",
            command: words(&format!("/fakegost block --from {}", from.join(","))),
            network: Some((self.network.clone(), Some(self.ip_of(number)), Vec::new())),
            capabilities: vec!["NET_ADMIN".into(), "NET_RAW".into()],
            user: Some("0".into()),
            ..Spec::default()
        };
        let container = self.container("blackhole", &number.to_string());
        self.engine.run(&container, &spec).await?;
        self.until_said(&container, "ready").await
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

    /// Starts a disturbance of a host's network. Returns its container once it is in force; stopping the container ends
    /// it.
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

    pub(crate) async fn heal(&self, container: &str) -> anyhow::Result<()> {
        self.engine.signal(container, "SIGTERM").await?;
        self.engine.ended(container).await
    }

    /// Waits until a container has logged a text.
    async fn until_said(&self, container: &str, what: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        while !self.engine.log(container).await?.contains(what) {
            ensure!(start.elapsed() < STUCK, "no {what:?} in {}", self.engine.log(container).await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until a condition holds. Returns how long that took.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while !holds() {
            ensure!(start.elapsed() < STUCK, "not within {STUCK:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(start.elapsed())
    }

    /// The container's name of a part of a host: `pause`, `gost`.
    pub(crate) fn container(&self, name: &str, part: &str) -> String {
        format!("{}-{name}-{part}", self.prefix)
    }

    /// The entrypoint of a host's gost.
    pub(crate) fn entrypoint(&self, name: &str) -> String {
        format!("{}:8420", self.ip(name))
    }

    pub(crate) fn ip(&self, name: &str) -> String {
        self.ip_of(self.hosts.get(name).copied().unwrap_or_default())
    }

    pub(crate) fn ip_of(&self, number: u8) -> String {
        format!("10.213.{}.{number}", self.subnet)
    }
}

/// Makes a network with a subnet that no other run on this engine has. Returns the subnet's number.
async fn make_network(engine: &Engine, name: &str, number: u32, mtu: Option<u32>) -> anyhow::Result<u8> {
    let mut tries = 0;
    loop {
        let subnet = u8::try_from((number + tries) % SUBNETS)?;
        match engine.network(name, &format!("10.213.{subnet}.0/24"), mtu).await {
            Ok(()) => return Ok(subnet),
            Err(error) if tries < SUBNETS && format!("{error:#}").contains("overlap") => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The hash host of a tunnel: the first 16 digits of the MD5 of its id.
pub(crate) fn hash_host(tunnel: &str) -> String {
    use md5::{Digest as _, Md5};
    let start = Md5::digest(tunnel).iter().take(8).fold(0_u64, |start, byte| start << 8 | u64::from(*byte));
    format!("{start:016x}")
}

/// Makes a folder that the containers' user may use.
fn make_open(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o777)).context("a folder for all")
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
