//! The composition root: validate, bind everything, spawn everything, wait, stop in order.

mod address;
mod file;
mod importer;
mod kept;
mod outside;
mod peers;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;

use self::address::Followers;
use self::importer::Importer;
use self::kept::StartState;
use self::outside::outside;
use crate::agent::keeper::{FLUSH, FLUSH_BRIEFLY};
use crate::agent::{Agent, Dialling};
use crate::config::{Adjustable, Config, is_loopback, what_an_open_admin_means};
use crate::host::{AdvertisedHost, HostFinder};
use crate::journal::thread::{JournalClosed, JournalThread};
use crate::journal::{self, Journal};
use crate::listeners::{Handles, Inherited, Listeners, hold};
use crate::metrics::Runtimes;
use crate::net::{self, Cluster};
use crate::ops::access::Access;
use crate::ops::report::{Problem, ProblemKind};
use crate::ops::takeover::predecessor::Predecessor;
use crate::ops::{self, About, Ops};
use crate::plugin::bounds;
use crate::plugin::gate::{CATCH_UP, Gate};
use crate::plugin::reload::{Files, Latest};
use crate::plugin::server::{self, Entrances};
use crate::plugin::tls::TlsFiles;
use crate::plugin::token::TokenHashes;
use crate::plugin::{CaughtUp, Ingress, Meter, Names, Plugin, Reach, ServiceDiscovery, Tokens};
use crate::unix_socket::{self, SocketFile};
use crate::web_page::OwnNames;
use gossd_core::address::Host;
use gossd_core::agent::{Adjusted, Counts, Settings};
use gossd_core::label::Label;
use gossd_core::link::counters::Counters;
use gossd_core::record::{Generation, Owner};

/// How long the plugin may take to finish its calls: its own limit, and some time for the runtime. Saying goodbye to
/// the peers may take longer.
const STOP: Duration = Duration::from_millis(500);
const GOODBYE: Duration = Duration::from_millis(1_600);

/// How long the end waits for the journal to be closed, and then for the files of sockets to be removed: a disk may hang.
const CLOSE: Duration = Duration::from_millis(500);

/// While gost's first calls wait for a start, the resolver gets this long. What it says later is taken then.
const RESOLVED_BY: Duration = Duration::from_millis(500);

/// What came before a start.
pub enum Former<'a> {
    /// Nothing, or an agent that has ended. Its records are in the journal.
    Ended,
    /// An agent that has ended in this process, and its snapshot.
    Left(Vec<u8>),
    /// A running agent, which stops when asked to.
    Runs(&'a mut Predecessor),
}

impl Former<'_> {
    /// Its snapshot; `None` if only the journal has its records.
    async fn snapshot(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Ended => Ok(None),
            Self::Left(snapshot) => Ok(Some(std::mem::take(snapshot))),
            Self::Runs(predecessor) => {
                Ok(Some(predecessor.stop().await.context("the agent that runs does not hand over")?))
            }
        }
    }
}

/// What an agent hands to a successor in this process.
pub struct Remains {
    /// Its sockets.
    pub inherited: Inherited,
    /// Its records, claims and the like.
    pub snapshot: Vec<u8>,
}

/// A running agent. Dropping it aborts its tasks.
pub struct Daemon {
    /// The first address of the plugin.
    pub plugin: SocketAddr,
    /// All addresses of the plugin.
    pub plugins: Vec<SocketAddr>,
    /// The address of the admin listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// The address of the listener for metrics alone, if there is one.
    pub metrics: Option<SocketAddr>,
    /// The address of the gossip, by UDP and TCP.
    pub gossip: SocketAddr,
    /// The address of the gossip that peers got at the start.
    pub advertised: SocketAddr,
    agent: Agent,
    cluster: Cluster,
    ops: Arc<Ops>,
    leave_on_stop: bool,
    tasks: JoinSet<anyhow::Result<()>>,
    /// One task, in a set so that dropping it aborts it.
    plugin_task: JoinSet<()>,
    stop_plugin: oneshot::Sender<()>,
    meter: Meter,
    reload: watch::Sender<()>,
    names: watch::Sender<Arc<Names>>,
    handles: Arc<Handles>,
    caught_up: CaughtUp,
    ingress_file: Option<AbortHandle>,
    socket_files: [Option<SocketFile>; 2],
    /// Whether another process is to have the plugin's sockets when this one ends.
    is_held: bool,
    /// Tells when the journal is closed.
    journal_closed: Option<JournalClosed>,
}

impl Daemon {
    /// Starts an agent on sockets of its own. When this returns, everything serves, and the content of the journal is
    /// loaded.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        config.validate()?;
        let listeners = Listeners::open(&config, Inherited::default())?;
        Self::start_on(listeners, config, Former::Ended).await
    }

    /// Starts an agent on bound sockets. Connections are accepted from the first moment; calls wait until they can be
    /// answered. The caller has validated the configuration.
    #[expect(clippy::too_many_lines, reason = "the composition root has a few lines for every part")]
    pub async fn start_on(
        listeners: Listeners,
        config: Config,
        mut former: Former<'_>,
    ) -> anyhow::Result<Self> {
        let secrets = Secrets::open(&config)?;
        let Listeners {
            plugin: tcp,
            plugin_unix: unix,
            admin: admin_listener,
            metrics: metrics_listener,
            gossip: bound,
            handles,
            plugin_file,
        } = listeners;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let plugin = tcp.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let handles = Arc::new(handles);
        let (reload, reloads) = watch::channel(());
        let mut tasks = JoinSet::new();
        let (tokens, tls, admin_tokens) = secrets.follow(config.reload_interval, &reloads, &mut tasks);
        let replaces = matches!(former, Former::Runs(_));
        let other = match &former {
            Former::Runs(predecessor) => StartState::open_other(&config, predecessor.journal).await?,
            Former::Ended | Former::Left(_) => None,
        };
        let gossip = bound.addr;
        // Resolving a name may take long: it is done before a predecessor stops, or while gost's first connections are
        // accepted.
        let mut finder = HostFinder::new(config.advertise.clone(), gossip);
        if replaces {
            finder.resolve(&config.join).await;
        }
        let (gate, meter, caught_up) = (Gate::default(), Meter::default(), CaughtUp::default());
        let (stop_plugin, stop) = oneshot::channel();
        let stop = async { drop(stop.await) };
        let calls = config.calls.clone().unwrap_or_else(Handle::current);
        let (tcp, unix) = listening_on(&calls, tcp, unix)?;
        let entrances = Entrances { tcp, tls, unix, names: own_names(&config) };
        let serving = server::serve(entrances, gate.clone(), config.bounds, meter.clone(), stop);
        let mut plugin_task = JoinSet::new();
        plugin_task.spawn_on(serving, &calls);
        if !replaces {
            // What comes later is taken then: gost's calls do not wait for a resolver that hangs.
            let _ = timeout(RESOLVED_BY, finder.resolve(&config.join)).await;
        }
        let found = finder.look().await;
        if let Some(name) = finder.unresolved() {
            // A host may boot before its resolver. Records need only the text of the name.
            tracing::warn!(
                "cannot resolve --advertise-host {name}; until then, gossip gets this host's own address"
            );
        }
        let advertised = found.gossip;
        if config.advertise.is_some() && found.is_elsewhere() {
            tracing::info!(
                "--advertise-host {} is no address of this host: right if something forwards TCP and UDP to it; otherwise peers \
                 will say that they cannot reach it",
                advertised.ip()
            );
        }
        let (own, own_host) = watch::channel(found);
        let kept = StartState::open(&config, former.snapshot().await?, other).await?;

        let owner = Owner { name: config.name.clone(), generation: kept.generation };
        let settings = Settings {
            owner: owner.clone(),
            lease_ttl: config.lease_ttl,
            order: config.order,
            locality: config.locality.clone(),
            quota: config.quota,
            private: config.names.private(),
            broken: config.broken,
            hurry: config.hurry,
        };
        let is_given = config.advertise.is_some();
        let reach = Arc::new(Reach::following(own_host.clone(), is_given, config.fallback));
        let mut restored = kept.restored;
        reach.returned(&mut restored);
        // Without a journal, this agent learns its tunnels again only when their gosts renew them.
        let hold = if restored.is_empty() { config.lease_ttl } else { Duration::ZERO };
        let agent = Agent::new(settings, restored);
        if let Some(bytes) = config.others {
            agent.bound_others(bytes);
        }
        unusual_names(&config.names);
        withdraw_claims(&agent, &config.names);
        let joins = !config.join.is_empty();
        let known = kept.peers;
        if joins || !known.is_empty() {
            agent.withhold_status(CATCH_UP, known.keys().cloned().collect());
        }
        let about = About {
            cluster: config.cluster.clone(),
            host: own_host,
            gossip,
            plugins: plugin.iter().map(|address| format!("{scheme}://{address}")).collect(),
            token: config.token_file.is_some(),
            joins,
            handles: handles.clone(),
            journal: config.data_dir.as_ref().and_then(|folder| Journal::id(folder, &config.name)),
        };
        let gossip_config = net::NetConfig {
            owner,
            advertise: advertised,
            identity: *kept.identity,
            join: config.join,
            remembered: known.clone(),
            keyring: config.keyring,
            key_file: config.key_file,
            reload: reloads,
            cluster: config.cluster.clone(),
            interval: config.gossip_interval,
            dead_grace: config.dead_grace,
            mesh: config.mesh,
            faults: config.faults,
        };
        let cluster = Cluster::start(bound, gossip_config, Box::new(agent.clone()), &mut tasks);
        let journal_closed = keep_journal(&agent, kept.journal, kept.differs, &mut tasks)?;
        tasks.spawn(agent.clone().drive(cluster.clone(), Dialling::All));
        if let Some(folder) = &config.data_dir {
            let path = journal::peers::path(folder, &config.name);
            tasks.spawn(peers::remember(cluster.clone(), agent.clone(), known.clone(), path, config.cluster));
        }
        tasks.spawn(peers::catch_up(agent.clone(), known, joins, caught_up.clone()));
        if config.hold {
            tasks.spawn(hold::keep(config.name, handles.duplicate()?));
        }
        let followers = Followers {
            own,
            cluster: cluster.clone(),
            agent: agent.clone(),
            reach: reach.clone(),
            bound: gossip,
        };
        tasks.spawn(address::follow(finder, followers));
        let sd = ServiceDiscovery::new(agent.clone(), reach.clone());
        let (names, newest_names) = Latest::of(config.names);
        let ingress = Ingress::new(agent.clone(), newest_names);
        let importer = Importer::new(ingress.clone(), reach);
        let (ingress_file, file_health) = file::keep(config.ingress_file, &ingress, hold, &mut tasks);
        let access =
            admin_listener.as_ref().map(|listener| admin_access(listener, admin_tokens)).transpose()?;
        let is_open = matches!(access, Some(Access::Open));
        let open_admin = is_open.then(|| Problem::warn(ProblemKind::OpenAdmin, what_an_open_admin_means()));
        let memory = config.memory_problem.map(|text| Problem::warn(ProblemKind::Memory, text));
        let standing: Vec<Problem> = memory.into_iter().chain(open_admin).collect();
        for problem in &standing {
            tracing::warn!("{}", problem.text);
        }
        let mut outside = outside(&cluster, &meter, file_health, config.log, importer, standing, about);
        outside.metrics.register_collector(Box::new(Runtimes::current_and(config.calls)));
        let ops = Ops::new(agent.clone(), cluster.clone(), outside);
        ops.set_flags(config.flags);
        tasks.spawn(ops::history::record(ops.clone()));
        let control_file = config.control.and_then(|path| serve_control(&path, replaces, &ops, &mut tasks));
        let peers = cluster.clone();
        let has_agent = Box::new(move |ip| peers.hears_at(ip));
        gate.open(Plugin { sd, ingress: ingress.clone(), tokens, caught_up: caught_up.clone() }, has_agent)
            .await;
        let metrics_listener = metrics_listener.map(|listener| (listener, Access::Metrics));
        let [admin, metrics] = [admin_listener.zip(access), metrics_listener].map(|opened| {
            opened.map(|(listener, access)| {
                let address = listener.local_addr();
                tasks.spawn(ops::serve(ops.clone(), listener, access));
                address
            })
        });
        let (admin, metrics) = (admin.transpose()?, metrics.transpose()?);
        Ok(Self {
            plugin: plugin[0],
            plugins: plugin,
            admin,
            metrics,
            gossip,
            advertised,
            agent,
            cluster,
            ops,
            leave_on_stop: config.leave_on_stop,
            tasks,
            plugin_task,
            stop_plugin,
            meter,
            reload,
            names,
            handles,
            caught_up,
            ingress_file,
            socket_files: [control_file, plugin_file],
            is_held: config.hold,
            journal_closed,
        })
    }

    /// Waits for a task that ended without being stopped. That is always a fault, and the other tasks would continue
    /// with frozen state, so the caller has to end the process.
    pub async fn fault(&mut self) -> anyhow::Error {
        tokio::select! {
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Ok(())) => anyhow::anyhow!("a task ended"),
                Ok(Err(error)) => error,
                Err(panic) => anyhow::Error::new(panic).context("a task ended"),
            },
            Some(ended) = self.plugin_task.join_next() => match ended {
                Ok(()) => anyhow::anyhow!("the plugin's listener ended"),
                Err(panic) => anyhow::Error::new(panic).context("the plugin's listener ended"),
            },
        }
    }

    /// Applies the settings that can change while the agent runs.
    pub fn adjust(&self, adjusted: Adjustable) {
        let Adjustable { order, locality, quota, names, join, flags } = adjusted;
        self.ops.set_flags(flags);
        let private = names.private();
        self.agent.adjust(Adjusted { order, quota, locality: &locality, private: &private });
        let names = Arc::new(names);
        self.names.send_replace(names.clone());
        // What comes from now on is judged by the new policy.
        withdraw_claims(&self.agent, &names);
        self.cluster.join(join);
    }

    /// Reads the files of keys, tokens and certificate again, even if they look unchanged.
    pub fn reload(&self) {
        self.reload.send_replace(());
    }

    /// How many plugin connections were closed through their callers' fault, by reason.
    pub fn plugin_closed(&self) -> &bounds::ClosedCounts {
        &self.meter.closed
    }

    /// What an operator makes the agent do: it ends the process when the agent has left, or is succeeded.
    pub fn ops(&self) -> &Arc<Ops> {
        &self.ops
    }

    /// The sockets that a keeper has to hold for the next process.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Stops: takes no new plugin calls, finishes those in flight, lets the journal write everything, then ends the
    /// gossip. Peers keep our records for a while, so that a restart is not noticed; unless we leave.
    pub async fn stop(mut self) {
        let unwritten = self.end(FLUSH).await;
        if unwritten > 0 {
            tracing::warn!(
                changes = unwritten,
                "stopped before the journal had taken all changes: the next start does not know these records, releases and host \
                 names, unless peers remember them. Look at the disk of --data-dir"
            );
        }
    }

    /// Stops like [`Self::stop`] without a goodbye to the peers, for a successor that takes over at once.
    pub async fn hand_over(mut self) -> anyhow::Result<Remains> {
        self.leave_on_stop = false;
        self.is_held = true;
        let inherited = Inherited::kept(self.handles.duplicate()?);
        self.end(FLUSH_BRIEFLY).await;
        Ok(Remains { inherited, snapshot: self.agent.snapshot() })
    }

    /// Ends, and starts anew in this process on the same sockets, with all that it had, above a generation that peers know.
    pub async fn start_above(self, known: Generation, config: Config) -> anyhow::Result<Self> {
        let Remains { inherited, snapshot } = self.hand_over().await?;
        Self::start_again(inherited, snapshot, Config { generation: known + 1, ..config }).await
    }

    /// Starts in the place of an agent that has just ended in this process.
    pub async fn start_again(
        inherited: Inherited,
        snapshot: Vec<u8>,
        config: Config,
    ) -> anyhow::Result<Self> {
        let listeners = Listeners::open(&config, inherited)?;
        Self::start_on(listeners, config, Former::Left(snapshot)).await
    }

    /// Returns how many changes are not on disk.
    async fn end(&mut self, flush: Duration) -> usize {
        // The file stays as it is: gost still needs the host names that this agent forgets now.
        if let Some(file) = &self.ingress_file {
            file.abort();
        }
        let (stop, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.stop_plugin, stop).send(());
        let goodbye = async {
            if self.leave_on_stop {
                self.ops.say_goodbye().await;
            }
        };
        // Reads that still wait for peers are answered now.
        self.caught_up.reached();
        let agent = self.agent.clone();
        let plugin_task = &mut self.plugin_task;
        // The journal takes what the last calls changed, while the peers acknowledge the goodbye.
        let calls_then_journal = async {
            let _ = timeout(STOP, plugin_task.join_next()).await;
            agent.flush(flush).await
        };
        let (unwritten, _) = tokio::join!(calls_then_journal, timeout(GOODBYE, goodbye));
        self.tasks.shutdown().await;
        if let Some(mut closed) = self.journal_closed.take() {
            // The thread's end of the channel is dropped.
            let _ = timeout(CLOSE, async { while closed.changed().await.is_ok() {} }).await;
        }
        let [control, plugin] = std::mem::take(&mut self.socket_files);
        // Whoever has the plugin's Unix socket next needs its name, too, and has a control socket of its own.
        let is_held = self.is_held;
        let removed = spawn_blocking(move || {
            drop(control);
            if let Some(file) = plugin
                && is_held
            {
                file.leave();
            }
        });
        let _ = timeout(CLOSE, removed).await;
        unwritten
    }

    /// Waits until peers know a later start of this agent: the clock went back, and no journal remembered. The agent has to
    /// start anew, above that generation.
    pub fn superseded(&self) -> impl Future<Output = Generation> + use<> {
        let cluster = self.cluster.clone();
        async move { cluster.superseded().await }
    }

    /// Numbers of what the agent holds.
    pub fn counts(&self) -> Counts {
        self.agent.counts()
    }

    /// How many peers are alive.
    pub fn peers(&self) -> usize {
        self.cluster.peers()
    }

    /// The gossip's counters.
    pub fn counters(&self) -> &Counters {
        self.cluster.counters()
    }

    /// The agent itself, for measurements without HTTP in between.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }
}

/// The same listeners, woken by the threads of a runtime.
fn listening_on(
    runtime: &Handle,
    tcp: Vec<TcpListener>,
    unix: Option<UnixListener>,
) -> io::Result<(Vec<TcpListener>, Option<UnixListener>)> {
    let _entered = runtime.enter();
    let tcp = tcp
        .into_iter()
        .map(|listener| TcpListener::from_std(listener.into_std()?))
        .collect::<Result<_, _>>()?;
    let unix = unix.map(|listener| UnixListener::from_std(listener.into_std()?)).transpose()?;
    Ok((tcp, unix))
}

/// Says once which of the operator's names no tunnel could claim: an error in a name leads visitors of others to a tunnel.
fn unusual_names(names: &Names) {
    for (name, why) in names.unusual() {
        tracing::warn!(name, "an ingress rule or domain is for {why}; it is in force, if it is meant so");
    }
}

/// Takes back what tunnels claimed here and may not, as the operator's policy is now.
fn withdraw_claims(agent: &Agent, names: &Names) {
    let Some(policy) = &names.policy else { return };
    let withdrawn = agent.withdraw_claims(|key, tunnel| policy.may_stand(key, tunnel));
    if withdrawn > 0 {
        tracing::warn!(
            withdrawn,
            "took back host names that the --claim-policy does not give to their tunnels"
        );
    }
}

/// How requests come to the admin listener.
fn admin_access(listener: &TcpListener, tokens: Option<Tokens>) -> anyhow::Result<Access> {
    if let Some(tokens) = tokens {
        return Ok(Access::Tokens(Arc::new(move |token: &[u8]| tokens.admit(Some(token)).is_ok())));
    }
    Ok(if is_loopback(listener.local_addr()?.ip()) { Access::Local } else { Access::Open })
}

/// The names under which gosts may call the plugin. None if a web page cannot call it under any name: it knows no token,
/// and its browser does not accept our certificate for its name.
fn own_names(config: &Config) -> Option<OwnNames> {
    if config.token_file.is_some() || config.tls.is_some() {
        return None;
    }
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let advertised = match config.advertise.as_ref().map(|advertise| &advertise.host) {
        Some(AdvertisedHost::Host(Host::Name(name))) => Some(name.to_string()),
        _ => None,
    };
    let names = [Some(host), Some(config.name.as_str().to_owned()), advertised];
    let names = names.into_iter().flatten().chain(config.plugin_hosts.iter().cloned());
    Some(OwnNames::new(names.collect::<Vec<_>>().iter().map(String::as_str)))
}

/// Writes changes to the journal; first everything, if the journal differs.
fn keep_journal(
    agent: &Agent,
    journal: Result<Option<Journal>, String>,
    differs: Option<Vec<Label>>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Option<JournalClosed>> {
    match journal {
        Ok(Some(journal)) => {
            let (thread, closed) = JournalThread::start(journal).context("no thread for the journal")?;
            agent.use_journal();
            if let Some(others) = differs {
                agent.rewrite_journal(others);
            }
            tasks.spawn(agent.clone().keep(thread));
            return Ok(Some(closed));
        }
        Ok(None) => {}
        Err(why) => agent.miss_journal(why),
    }
    Ok(None)
}

/// The content of the plugin's secret files.
struct Secrets {
    tokens: Option<(Tokens, Files<TokenHashes>)>,
    admin_tokens: Option<(Tokens, Files<TokenHashes>)>,
    tls: Option<(Files<ServerConfig>, Latest<ServerConfig>)>,
}

impl Secrets {
    /// An unusable file ends the start: no call may be served more openly than the operator configured.
    fn open(config: &Config) -> anyhow::Result<Self> {
        let tokens = config.token_file.as_deref().map(Tokens::open).transpose().context("--token-file")?;
        let admin_tokens = config.admin_token_file.as_deref().map(Tokens::open).transpose();
        let admin_tokens = admin_tokens.context("--admin-token-file")?;
        let tls = config.tls.clone().map(TlsFiles::open).transpose().context("--tls-cert and --tls-key")?;
        Ok(Self { tokens, admin_tokens, tls })
    }

    /// Reads the files again when they change and at each notice in `reloads`. Returns handles to the newest content.
    fn follow(
        self,
        every: Duration,
        reloads: &watch::Receiver<()>,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> (Tokens, Option<Latest<ServerConfig>>, Option<Tokens>) {
        let [tokens, admin_tokens] = [self.tokens, self.admin_tokens].map(|opened| {
            opened.map(|(tokens, files)| {
                tasks.spawn(files.follow(every, reloads.clone()));
                tokens
            })
        });
        let tls = self.tls.map(|(files, latest)| {
            tasks.spawn(files.follow(every, reloads.clone()));
            latest
        });
        (tokens.unwrap_or_default(), tls, admin_tokens)
    }
}

/// Replaces the control socket of a predecessor, which is about to end.
fn serve_control(
    path: &Path,
    replaces: bool,
    ops: &Arc<Ops>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> Option<SocketFile> {
    let bind = if replaces { unix_socket::replace } else { unix_socket::bind };
    match bind(path, ops::SOCKET_MODE) {
        Ok((listener, file)) => {
            tasks.spawn(ops::serve(ops.clone(), listener, Access::Control));
            Some(file)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `gossd leave`, `gossd drain` and `gossd keys` cannot reach this agent");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time passes only while the runtime has nothing to do, so a wait for a fixed time shows.
    #[tokio::test(start_paused = true)]
    async fn an_agent_without_a_journal_stops_without_waiting_for_anything() {
        let daemon = Daemon::start(Config::loopback("a".parse().unwrap())).await.unwrap();
        let begun = tokio::time::Instant::now();
        daemon.stop().await;
        assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    }

    /// This runtime has one thread, which does nothing but wait for the caller's.
    #[tokio::test]
    async fn a_call_waits_for_nothing_else_that_an_agent_does() {
        use std::io::{Read as _, Write as _};
        let calls =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = Config::loopback("a".parse().unwrap());
        let daemon = Daemon::start(Config { calls: Some(calls.handle().clone()), ..config }).await.unwrap();
        // Only from then on may it be asked.
        daemon.caught_up.wait().await;
        let address = daemon.plugin;
        let caller = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"GET /sd?name=t HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        let answer = caller.join().unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        daemon.stop().await;
        calls.shutdown_background();
    }

    async fn fault_of(task: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> String {
        let mut daemon = Daemon::start(Config::loopback("a".parse().unwrap())).await.unwrap();
        daemon.tasks.spawn(task);
        format!("{:#}", daemon.fault().await)
    }

    #[tokio::test]
    async fn a_task_that_ends_fails_or_panics_is_a_fault() {
        assert_eq!(fault_of(async { Ok(()) }).await, "a task ended");
        assert_eq!(fault_of(async { anyhow::bail!("no more") }).await, "no more");
        let panicked = fault_of(async { panic!("nonsense") }).await;
        assert!(panicked.starts_with("a task ended: task") && panicked.contains("panic"), "{panicked}");
    }
}
