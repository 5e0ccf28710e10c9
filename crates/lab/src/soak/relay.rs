//! A relay in front of an agent's gossip that can disturb the frames of one peer. With two of them, the link between
//! two agents fails and comes back, and no other link does.
//!
//! The relay knows the sender of a datagram by its source address, and the opener of a connection by its process,
//! because agents do not bind the sockets with which they dial.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The state of the link to the peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LinkState {
    Up,
    /// Loses this share of datagrams; connections still work.
    Lossy(f64),
    Down,
}

pub(crate) struct Relay {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// The peer whose frames are disturbed, and the state of the link.
#[derive(Clone)]
pub(crate) struct LinkedPeer {
    pub(crate) ip: Ipv4Addr,
    /// The peer's process; `None` while it does not run.
    pub(crate) pid: Arc<Mutex<Option<u32>>>,
    pub(crate) link: watch::Receiver<LinkState>,
}

impl Relay {
    /// Binds a port that is free for UDP and TCP.
    pub(crate) async fn bind(ip: Ipv4Addr) -> io::Result<Self> {
        let udp = UdpSocket::bind((ip, 0)).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        Ok(Self { udp, tcp })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.udp.local_addr()?.port())
    }

    /// Forwards what arrives, for ever.
    pub(crate) async fn run(self, to: SocketAddr, peer: LinkedPeer) -> anyhow::Result<()> {
        let Self { udp, tcp } = self;
        tokio::select! {
            end = datagrams(udp, to, peer.clone()) => end,
            end = connections(tcp, to, peer) => end,
        }
    }
}

/// Forwards datagrams, and what the agent sends back to where they came from: to each sender by a socket of its own, as NAT
/// does.
async fn datagrams(udp: UdpSocket, to: SocketAddr, peer: LinkedPeer) -> anyhow::Result<()> {
    let udp = Arc::new(udp);
    let (mut ways, mut back) = (HashMap::<SocketAddr, Arc<UdpSocket>>::new(), JoinSet::new());
    let mut buffer = vec![0; 65_536];
    loop {
        // The kernel reports here that an earlier datagram found no receiver.
        let Ok((len, from)) = udp.recv_from(&mut buffer).await else { continue };
        let way = match ways.entry(from) {
            Entry::Occupied(way) => way.into_mut(),
            Entry::Vacant(new) => {
                let way = Arc::new(UdpSocket::bind((udp.local_addr()?.ip(), 0)).await?);
                way.connect(to).await?;
                back.spawn(return_datagrams(way.clone(), udp.clone(), from, peer.clone()));
                new.insert(way)
            }
        };
        if !peer.loses(from) {
            let _ = way.send(&buffer[..len]).await;
        }
    }
}

async fn return_datagrams(way: Arc<UdpSocket>, udp: Arc<UdpSocket>, sender: SocketAddr, peer: LinkedPeer) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(len) = way.recv(&mut buffer).await else { continue };
        if !peer.loses(sender) {
            let _ = udp.send_to(&buffer[..len], sender).await;
        }
    }
}

impl LinkedPeer {
    /// Whether a datagram from or to that sender is lost.
    fn loses(&self, sender: SocketAddr) -> bool {
        sender.ip() == IpAddr::from(self.ip)
            && match *self.link.borrow() {
                LinkState::Up => false,
                LinkState::Lossy(share) => rand::rng().random_bool(share),
                LinkState::Down => true,
            }
    }
}

async fn connections(tcp: TcpListener, to: SocketAddr, peer: LinkedPeer) -> anyhow::Result<()> {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let (stream, from) = tcp.accept().await?;
        let pid = *peer.pid.lock().unwrap_or_else(PoisonError::into_inner);
        let mut link = peer.link.clone();
        open.spawn(async move {
            let theirs = pid.is_some_and(|pid| owns(pid, from));
            let cut = async move {
                if !theirs {
                    std::future::pending::<()>().await;
                }
                drop(link.wait_for(|link| *link == LinkState::Down).await);
            };
            tokio::select! {
                () = cut => {}
                _ = pass(stream, to) => {}
            }
        });
    }
}

async fn pass(mut from: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut onward = TcpStream::connect(to).await?;
    onward.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut from, &mut onward).await.map(drop)
}

/// Whether a connection from this address belongs to a process.
fn owns(pid: u32, from: SocketAddr) -> bool {
    let Some(inode) = inodes().and_then(|inodes| inodes.get(&from).cloned()) else { return false };
    let socket = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
}

/// The inodes of this host's sockets by their local addresses.
fn inodes() -> Option<HashMap<SocketAddr, String>> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let entries = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let (ip, port) = columns.nth(1)?.split_once(':')?;
        let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.swap_bytes());
        Some(((ip, u16::from_str_radix(port, 16).ok()?).into(), columns.nth(7)?.to_owned()))
    });
    Some(entries.collect())
}
