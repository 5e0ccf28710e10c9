//! A relay in front of an agent's gossip, which can be told what to do with one peer's frames: with two of them, the link
//! between two agents goes away and comes back, and nobody else's does.
//!
//! Who sent a datagram is told by its source address, and who opened a connection by its process, because agents do not
//! bind what they dial with.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How the link to the one peer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Link {
    Up,
    /// Loses this share of datagrams; connections go on.
    Lossy(f64),
    Down,
}

/// The sockets of a relay.
pub(crate) struct Relay {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Whose frames a link's are, and how it is.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) ip: Ipv4Addr,
    /// Its process; none while it does not run.
    pub(crate) pid: Arc<Mutex<Option<u32>>>,
    pub(crate) link: watch::Receiver<Link>,
}

impl Relay {
    /// On a port that is free for both.
    pub(crate) async fn bind(ip: Ipv4Addr) -> io::Result<Self> {
        let udp = UdpSocket::bind((ip, 0)).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        Ok(Self { udp, tcp })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.udp.local_addr()?.port())
    }

    /// Passes on what arrives, for ever.
    pub(crate) async fn run(self, to: SocketAddr, peer: Peer) -> anyhow::Result<()> {
        let Self { udp, tcp } = self;
        tokio::select! {
            end = datagrams(udp, to, peer.clone()) => end,
            end = connections(tcp, to, peer) => end,
        }
    }
}

/// The agent answers whom a frame says that it is from, so nothing comes back this way.
async fn datagrams(udp: UdpSocket, to: SocketAddr, peer: Peer) -> anyhow::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        // An earlier datagram that nobody took is reported here.
        let Ok((len, from)) = udp.recv_from(&mut buffer).await else { continue };
        let lost = from.ip() == IpAddr::from(peer.ip)
            && match *peer.link.borrow() {
                Link::Up => false,
                Link::Lossy(share) => rand::rng().random_bool(share),
                Link::Down => true,
            };
        if !lost {
            let _ = udp.send_to(&buffer[..len], to).await;
        }
    }
}

async fn connections(tcp: TcpListener, to: SocketAddr, peer: Peer) -> anyhow::Result<()> {
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
                drop(link.wait_for(|link| *link == Link::Down).await);
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

/// Whether a connection from that address is a process's.
fn owns(pid: u32, from: SocketAddr) -> bool {
    let Some(inode) = inodes().and_then(|inodes| inodes.get(&from).cloned()) else { return false };
    let socket = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
}

/// The sockets of this host by their own addresses.
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
