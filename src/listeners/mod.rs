//! The sockets that an agent listens on. They outlive the process: a gost whose dial is refused backs off for more than
//! a second, while a gost that waits in the backlog is answered a moment later. So a start first takes the sockets that
//! a predecessor left, and binds only the rest.
//!
//! | who keeps the sockets meanwhile | where |
//! |---|---|
//! | systemd's file descriptor store, or its socket units | [`inherited`], `cli::supervisor` |
//! | the running agent, until it hands them over | `ops::takeover` |
//! | `gossd hold`, for containers that share a network | [`hold`] |
//!
//! Knows addresses and file descriptors, but no protocol.

pub(crate) mod hold;
pub(crate) mod inherited;
pub(crate) mod pass;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};

pub(crate) use self::inherited::Inherited;

use crate::config::Config;
use crate::net::transport::{self, Bound};
use crate::unix_socket::{self, SocketFile};

/// Writable by the group, because gost may run as another user of a common group.
const PLUGIN_SOCKET_MODE: u32 = 0o660;

/// The purpose of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// gost's calls, by TCP. There may be several.
    Plugin,
    /// gost's calls, by a Unix socket.
    PluginUnix,
    /// Operators, probes and metrics.
    Admin,
    /// Probes and metrics alone.
    Metrics,
    /// Gossip's datagrams.
    GossipUdp,
    /// Gossip's connections.
    GossipTcp,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Plugin, Self::PluginUnix, Self::Admin, Self::Metrics, Self::GossipUdp, Self::GossipTcp];

    /// The role's name wherever sockets are passed on, for example in systemd's `FileDescriptorName=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::PluginUnix => "plugin-unix",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::GossipUdp => "gossip-udp",
            Self::GossipTcp => "gossip-tcp",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// All sockets of one agent, bound and listening.
pub struct Listeners {
    /// gost's calls, at least one listener.
    pub plugin: Vec<TcpListener>,
    /// gost's calls from this host only.
    pub plugin_unix: Option<UnixListener>,
    /// Operators, probes and metrics; `None` if not configured, or if only the default address was tried and is taken.
    pub admin: Option<TcpListener>,
    /// Probes and metrics alone.
    pub metrics: Option<TcpListener>,
    /// Peers.
    pub gossip: Bound,
    /// Duplicates of the same sockets, for a keeper or a successor.
    pub handles: Handles,
    /// The file of the plugin's Unix socket, removed by the last process that listens there.
    pub plugin_file: Option<SocketFile>,
}

impl Listeners {
    /// Takes the inherited sockets that fit the configuration, and binds the rest. Inherited sockets that fit nothing
    /// are closed. The caller has validated the configuration.
    pub fn open(config: &Config, mut inherited: Inherited) -> anyhow::Result<Self> {
        let mut handles = Handles::default();
        let mut plugin = Vec::new();
        for address in &config.plugin {
            let listener = tcp(&mut inherited, Role::Plugin, *address)
                .map_err(taken)
                .with_context(|| format!("cannot serve the plugin on {address}"))?;
            handles.add(&inherited, Role::Plugin, listener.as_fd())?;
            plugin.push(listener);
        }
        let gossip = gossip(&mut inherited, config.gossip)
            .map_err(taken)
            .with_context(|| format!("cannot gossip on {}", config.gossip))?;
        let (streams, datagrams) = gossip.sockets();
        handles.add(&inherited, Role::GossipTcp, streams)?;
        handles.add(&inherited, Role::GossipUdp, datagrams)?;
        let admin = admin(config, &mut inherited)?;
        if let Some(listener) = &admin {
            handles.add(&inherited, Role::Admin, listener.as_fd())?;
        }
        let mut metrics = None;
        if let Some(address) = config.metrics {
            let listener = tcp(&mut inherited, Role::Metrics, address)
                .with_context(|| format!("cannot serve --metrics on {address}"))?;
            handles.add(&inherited, Role::Metrics, listener.as_fd())?;
            metrics = Some(listener);
        }
        let (mut plugin_unix, mut plugin_file) = (None, None);
        if let Some(path) = &config.plugin_socket {
            let (listener, file) = unix(&mut inherited, path)
                .with_context(|| format!("cannot serve the plugin on {}", path.display()))?;
            handles.add(&inherited, Role::PluginUnix, listener.as_fd())?;
            (plugin_unix, plugin_file) = (Some(listener), file);
        }
        let stale = inherited.left();
        if !stale.is_empty() {
            tracing::info!(
                sockets = stale.join(" "),
                "inherited sockets that fit no setting of this start are closed"
            );
        }
        handles.stale = stale;
        Ok(Self { plugin, plugin_unix, admin, metrics, gossip, handles, plugin_file })
    }
}

/// Duplicates of an agent's sockets. While any of them is open in any process, the address refuses no connection.
#[derive(Debug, Default)]
pub struct Handles {
    sockets: Vec<(Role, OwnedFd)>,
    /// Roles of kept sockets that this start no longer uses.
    stale: Vec<&'static str>,
}

impl Handles {
    /// The sockets that a keeper has to hold. Those of systemd's socket units are not among them.
    pub fn sockets(&self) -> impl Iterator<Item = (Role, BorrowedFd<'_>)> {
        self.sockets.iter().map(|(role, socket)| (*role, socket.as_fd()))
    }

    /// Roles of which a keeper may have sockets that are no longer used.
    pub fn stale(&self) -> &[&'static str] {
        &self.stale
    }

    /// Duplicates for a keeper, or for a successor in this process.
    pub fn duplicate(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        self.sockets.iter().map(|(role, socket)| Ok((*role, socket.try_clone()?))).collect()
    }

    fn add(&mut self, from: &Inherited, role: Role, socket: BorrowedFd<'_>) -> io::Result<()> {
        if !from.is_activated(role) {
            self.sockets.push((role, socket.try_clone_to_owned()?));
        }
        Ok(())
    }
}

/// Who has a port that is taken is mostly an agent that runs already, perhaps the system's service.
fn taken(error: io::Error) -> anyhow::Error {
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let error = anyhow::Error::from(error);
    if is_taken {
        error.context("somebody listens there, perhaps an agent that runs already: gossd check with the same flags tells")
    } else {
        error
    }
}

fn tcp(inherited: &mut Inherited, role: Role, address: SocketAddr) -> io::Result<TcpListener> {
    if let Some(listener) = inherited.take_tcp(role, address) {
        return TcpListener::from_std(listener);
    }
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn gossip(inherited: &mut Inherited, address: SocketAddr) -> io::Result<Bound> {
    match inherited.take_gossip(address) {
        Some((tcp, udp)) => Bound::of(tcp, udp),
        None => transport::bind(address),
    }
}

/// The default address may be taken, mostly by another agent on this host: then there is no admin listener.
fn admin(config: &Config, inherited: &mut Inherited) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.admin else { return Ok(None) };
    match tcp(inherited, Role::Admin, address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.admin_may_give_way => {
            tracing::warn!(%address, %error, "no admin listener: `gossd status` and the like cannot reach this agent; set --admin");
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot serve --admin on {address}")),
    }
}

fn unix(inherited: &mut Inherited, path: &Path) -> io::Result<(UnixListener, Option<SocketFile>)> {
    if let Some(listener) = inherited.take_unix(path) {
        // The file of a socket unit belongs to the unit.
        let file = (!inherited.is_activated(Role::PluginUnix)).then(|| SocketFile::at(path));
        return Ok((UnixListener::from_std(listener)?, file));
    }
    let (listener, file) = unix_socket::bind(path, PLUGIN_SOCKET_MODE)?;
    Ok((listener, Some(file)))
}
