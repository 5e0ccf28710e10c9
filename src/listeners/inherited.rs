//! Sockets that were bound before this process: passed by systemd through the environment, or by a predecessor. Each is
//! checked before use: its kind, its address, and whether it listens.

use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};

use super::Role;
use crate::config::Config;
use crate::unix_socket;

/// In systemd's store, the name of a socket from an agent is this and the role. Sockets of socket units have the role
/// alone as their name.
pub(crate) const KEPT: &str = "kept-";

/// Inherited sockets by their role.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(Role, Socket)>,
    /// Roles whose sockets come from a socket unit: the unit's `ListenStream=` decides about the address, and systemd
    /// keeps these sockets itself.
    activated: Vec<Role>,
}

impl Inherited {
    /// Sockets of an earlier agent.
    pub fn kept(sockets: Vec<(Role, OwnedFd)>) -> Self {
        let sockets = sockets.into_iter().map(|(role, socket)| (role, Socket::from(socket)));
        Self { sockets: sockets.collect(), activated: Vec::new() }
    }

    /// The sockets that systemd passes in `LISTEN_FDS` and `LISTEN_FDNAMES`, if they are meant for this process.
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for (at, name) in names.split(':').enumerate().take(passed.len()) {
            let kept = name.strip_prefix(KEPT);
            let socket = take(&mut passed, at);
            match (Role::named(kept.unwrap_or(name)), socket) {
                (Some(role), Some(socket)) => {
                    if kept.is_none() {
                        inherited.activated.push(role);
                    }
                    inherited.sockets.push((role, socket));
                }
                (role, _) => tracing::warn!(
                    name,
                    known = role.is_some(),
                    "systemd passed an unusable socket: FileDescriptorName= must be one of plugin, plugin-unix, admin, \
                     gossip-udp and gossip-tcp, and the socket must be of that kind"
                ),
            }
        }
        inherited
    }

    /// Adds sockets from another keeper.
    pub fn extend(&mut self, other: Self) {
        self.sockets.extend(other.sockets);
        self.activated.extend(other.activated);
    }

    /// Replaces configured addresses by those of socket units: with a socket unit, the unit decides where the agent
    /// listens.
    pub fn configure(&self, config: &mut Config) {
        let addresses = |role| {
            let of_role = self.sockets.iter().filter(move |(of, _)| *of == role && self.is_activated(role));
            of_role.filter_map(|(_, socket)| socket.local_addr().ok())
        };
        let plugin: Vec<_> = addresses(Role::Plugin).filter_map(|address| address.as_socket()).collect();
        if !plugin.is_empty() {
            config.plugin = plugin;
        }
        if let Some(address) = addresses(Role::Admin).find_map(|address| address.as_socket()) {
            config.admin = Some(address);
        }
        if let Some(address) = addresses(Role::Metrics).find_map(|address| address.as_socket()) {
            config.metrics = Some(address);
        }
        if let Some(address) = addresses(Role::GossipUdp).find_map(|address| address.as_socket()) {
            config.gossip = address;
        }
        if let Some(path) =
            addresses(Role::PluginUnix).find_map(|address| Some(address.as_pathname()?.to_owned()))
        {
            config.plugin_socket = Some(path);
        }
    }

    /// Whether there are no sockets.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Stops listening at addresses that are no longer configured. Their keeper still has them open for a while, and
    /// 127.0.0.1 would conflict with 0.0.0.0 at the same port. Not for the sockets of a running agent, which may have
    /// to continue with them.
    pub fn make_way(&self, config: &Config) {
        let fits = |role: &Role, socket: &Socket| match role {
            Role::Plugin => config.plugin.iter().any(|address| is_at(socket, *address)),
            Role::Admin => config.admin.is_some_and(|address| is_at(socket, address)),
            Role::Metrics => config.metrics.is_some_and(|address| is_at(socket, address)),
            Role::GossipTcp | Role::GossipUdp => is_at(socket, config.gossip),
            // Another path conflicts with nothing.
            Role::PluginUnix => true,
        };
        for (role, socket) in &self.sockets {
            if self.is_activated(*role) || fits(role, socket) {
                continue;
            }
            // A failure here shows when the new address is bound.
            let _ = if is_listener(socket) {
                socket.shutdown(Shutdown::Read)
            } else {
                socket.set_reuse_address(true)
            };
        }
    }

    /// Whether the sockets of a role come from a socket unit.
    pub(super) fn is_activated(&self, role: Role) -> bool {
        self.activated.contains(&role)
    }

    /// A TCP listener at this address; at any port of its IP address, if the port is 0.
    pub(super) fn take_tcp(&mut self, role: Role, address: SocketAddr) -> Option<TcpListener> {
        let socket = self.take(role, |socket| is_listener(socket) && is_at(socket, address))?;
        socket.set_nonblocking(true).ok()?;
        Some(socket.into())
    }

    /// The TCP and the UDP socket of the gossip, at one address.
    pub(super) fn take_gossip(&mut self, address: SocketAddr) -> Option<(TcpListener, UdpSocket)> {
        let tcp = self.take_tcp(Role::GossipTcp, address)?;
        let at = tcp.local_addr().ok()?;
        let is_udp = |socket: &Socket| socket.r#type().is_ok_and(|kind| kind == Type::DGRAM);
        let udp = self.take(Role::GossipUdp, |socket| is_udp(socket) && is_at(socket, at))?;
        udp.set_nonblocking(true).ok()?;
        Some((tcp, udp.into()))
    }

    /// A Unix listener whose file is still at this path.
    pub(super) fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let is_there = |socket: &Socket| {
            let at = socket.local_addr().ok();
            let at = at.as_ref().and_then(|address| address.as_pathname());
            is_listener(socket) && at.is_some_and(|at| unix_socket::is_at(at, path)) && path.exists()
        };
        let socket = self.take(Role::PluginUnix, is_there)?;
        socket.set_nonblocking(true).ok()?;
        Some(socket.into())
    }

    pub(super) fn left(&self) -> Vec<&'static str> {
        let mut left: Vec<_> = self.sockets.iter().map(|(role, _)| role.as_str()).collect();
        left.dedup();
        left
    }

    fn take(&mut self, role: Role, fits: impl Fn(&Socket) -> bool) -> Option<Socket> {
        let at = self.sockets.iter().position(|(of, socket)| *of == role && fits(socket))?;
        Some(self.sockets.swap_remove(at).1)
    }
}

/// The socket at a position of what systemd passed, whatever its kind.
fn take(passed: &mut ListenFd, at: usize) -> Option<Socket> {
    if let Ok(Some(tcp)) = passed.take_tcp_listener(at) {
        return Some(tcp.into());
    }
    if let Ok(Some(udp)) = passed.take_udp_socket(at) {
        return Some(udp.into());
    }
    passed.take_unix_listener(at).ok().flatten().map(Socket::from)
}

fn is_listener(socket: &Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

fn is_at(socket: &Socket, address: SocketAddr) -> bool {
    let Some(at) = socket.local_addr().ok().and_then(|at| at.as_socket()) else { return false };
    let same_family = socket.domain().is_ok_and(|domain| domain == Domain::for_address(address));
    same_family && at.ip() == address.ip() && (address.port() == 0 || at.port() == address.port())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::listeners::Listeners;

    fn listener() -> (TcpListener, SocketAddr) {
        // Its own host: these tests bind UDP to the same port, or bind it again.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let host = [127, 0, 8, NEXT.fetch_add(1, Ordering::Relaxed)];
        let listener = TcpListener::bind((Ipv4Addr::from(host), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_socket_is_taken_once_by_its_role_and_address() {
        let ((first, one), (second, two)) = (listener(), listener());
        let mut inherited =
            Inherited::kept(vec![(Role::Plugin, first.into()), (Role::Plugin, second.into())]);
        assert!(inherited.take_tcp(Role::Admin, one).is_none(), "another role");
        assert_eq!(inherited.take_tcp(Role::Plugin, two).unwrap().local_addr().unwrap(), two);
        assert!(inherited.take_tcp(Role::Plugin, two).is_none(), "once");
        let any = SocketAddr::new(one.ip(), 0);
        assert_eq!(inherited.take_tcp(Role::Plugin, any).unwrap().local_addr().unwrap(), one);
        assert!(inherited.left().is_empty());
    }

    #[test]
    fn a_socket_of_the_wrong_kind_is_not_taken() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let connected = std::net::TcpStream::connect(listener().1);
        let mut inherited = Inherited::kept(vec![(Role::Plugin, udp.into())]);
        assert!(inherited.take_tcp(Role::Plugin, address).is_none());
        drop(connected);
        assert_eq!(inherited.left(), ["plugin"]);
    }

    #[test]
    fn gossip_is_taken_whole_or_not_at_all() {
        let (tcp, address) = listener();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sockets = vec![(Role::GossipTcp, tcp.into()), (Role::GossipUdp, other.into())];
        assert!(Inherited::kept(sockets).take_gossip(address).is_none(), "two ports");
        let (tcp, address) = listener();
        let udp = UdpSocket::bind(address).unwrap();
        let sockets = vec![(Role::GossipTcp, tcp.into()), (Role::GossipUdp, udp.into())];
        let (tcp, udp) = Inherited::kept(sockets).take_gossip(address).unwrap();
        assert_eq!((tcp.local_addr().unwrap(), udp.local_addr().unwrap()), (address, address));
        assert!(tcp.as_fd().try_clone_to_owned().is_ok());
    }

    #[tokio::test]
    async fn the_socket_of_a_file_is_taken_as_long_as_the_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin.sock");
        let (listener, file) = unix_socket::bind(&path, 0o600).unwrap();
        let listener = OwnedFd::from(listener.into_std().unwrap());
        let inherited = || Inherited::kept(vec![(Role::PluginUnix, listener.try_clone().unwrap())]);
        assert!(inherited().take_unix(&path).is_some());
        assert!(inherited().take_unix(&folder.path().join("other.sock")).is_none());
        drop(file);
        assert!(inherited().take_unix(&path).is_none(), "nobody can connect to it any more");
    }

    #[tokio::test]
    async fn a_kept_socket_at_an_old_address_blocks_no_new_one() {
        let ((plugin, at), (tcp, gossip), (admin, admin_at)) = (listener(), listener(), listener());
        let udp = UdpSocket::bind(gossip).unwrap();
        let keeper = [
            (Role::Plugin, OwnedFd::from(plugin)),
            (Role::GossipTcp, tcp.into()),
            (Role::GossipUdp, udp.into()),
            (Role::Admin, admin.into()),
        ];
        let passed = || {
            Inherited::kept(
                keeper.iter().map(|(role, socket)| (*role, socket.try_clone().unwrap())).collect(),
            )
        };
        let everywhere = |at: SocketAddr| SocketAddr::from(([0, 0, 0, 0], at.port()));
        let config = Config {
            plugin: vec![everywhere(at)],
            gossip: everywhere(gossip),
            admin: Some(everywhere(admin_at)),
            ..Config::loopback("a".parse().unwrap())
        };
        assert!(Listeners::open(&config, passed()).is_err(), "they are in the way");
        let inherited = passed();
        inherited.make_way(&config);
        let listeners = Listeners::open(&config, inherited).unwrap();
        assert_eq!(listeners.handles.stale().len(), 4, "the keeper is told of all");

        let back = Config {
            plugin: vec![at],
            gossip,
            admin: Some(admin_at),
            admin_may_give_way: true,
            ..Config::loopback("a".parse().unwrap())
        };
        let keeper = listeners.handles.duplicate().unwrap();
        drop(listeners);
        let inherited = Inherited::kept(
            keeper.iter().map(|(role, socket)| (*role, socket.try_clone().unwrap())).collect(),
        );
        inherited.make_way(&back);
        assert!(Listeners::open(&back, inherited).unwrap().admin.is_some(), "and back");
    }
}
