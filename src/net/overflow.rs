//! Datagrams of peers that the kernel dropped, because its buffer for them was full: nobody else would ever say so, and to
//! peers it looks as if the network lost them.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::fstat;
use socket2::SockRef;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::transport::{Bound, RECEIVE_BUFFER};
use gossd_core::link::counters::{Counters, Dropped};

/// How often the kernel's count is read.
const PACE: Duration = Duration::from_secs(10);
/// What goes on is logged again after this.
const AGAIN: Duration = Duration::from_secs(3_600);

/// See the module.
pub(super) struct Overflow {
    /// Which of the kernel's sockets it is.
    inode: u64,
    /// What the kernel holds for us, with its own upkeep, in bytes.
    granted: usize,
    counters: Arc<Counters>,
    /// The kernel's count when it was last read: at first, another process may have had the socket.
    seen: Option<u64>,
    told: Option<Instant>,
}

impl Overflow {
    /// Of the socket that peers send to.
    pub(super) fn of(bound: &Bound, counters: Arc<Counters>) -> io::Result<Self> {
        Self::of_socket(bound.sockets().1, counters)
    }

    fn of_socket(socket: impl AsFd, counters: Arc<Counters>) -> io::Result<Self> {
        let granted = SockRef::from(&socket).recv_buffer_size()?;
        Ok(Self { inode: fstat(&socket)?.st_ino, granted, counters, seen: None, told: None })
    }

    /// The kernel's count is this: what the log is told.
    fn note(&mut self, count: u64) -> Option<String> {
        let more = count.saturating_sub(self.seen.replace(count)?);
        self.counters.count_all(Dropped::ReceiveBuffer, more);
        if more == 0 || self.told.is_some_and(|at| at.elapsed() < AGAIN) {
            return None;
        }
        self.told = Some(Instant::now());
        let granted = self.granted;
        // The kernel doubles what is asked for.
        Some(if granted < 2 * RECEIVE_BUFFER {
            format!(
                "the kernel dropped {more} datagrams of peers: they came faster than they were taken, and its buffer of {granted} \
                 bytes was full. They are sent again, later. `sysctl net.core.rmem_max={RECEIVE_BUFFER}` and a restart give it \
                 more room"
            )
        } else {
            format!(
                "the kernel dropped {more} datagrams of peers: they came faster than they were taken, and its buffer of {granted} \
                 bytes was full. They are sent again, later. This host has too little processor time for gossd"
            )
        })
    }
}

/// Counts for ever, and tells the log.
pub(super) async fn watch(overflow: io::Result<Overflow>) -> anyhow::Result<()> {
    // What cannot be counted is no reason to end.
    let Ok(mut overflow) = overflow else { return std::future::pending().await };
    loop {
        let inode = overflow.inode;
        // A file without a disk, but the kernel takes its time over a host with many sockets.
        let count = spawn_blocking(move || dropped(inode)).await?;
        if let Some(line) = count.and_then(|count| overflow.note(count)) {
            tracing::warn!("{line}");
        }
        sleep(PACE).await;
    }
}

/// How many datagrams the kernel dropped at a socket; none where it does not say.
fn dropped(inode: u64) -> Option<u64> {
    ["/proc/self/net/udp", "/proc/self/net/udp6"].into_iter().find_map(|path| dropped_by(path, inode))
}

fn dropped_by(path: impl AsRef<Path>, inode: u64) -> Option<u64> {
    let table = std::fs::read_to_string(path).ok()?;
    let mut sockets = table.lines().skip(1).map(|line| line.split_ascii_whitespace());
    // The tenth word is the inode, the last one the count.
    let ours = |mut words: std::str::SplitAsciiWhitespace<'_>| {
        (words.nth(9)?.parse() == Ok(inode)).then(|| words.last()?.parse().ok()).flatten()
    };
    sockets.find_map(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// A socket with little room.
    fn socket_of(host: &str) -> (UdpSocket, Overflow) {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
        let overflow = Overflow::of_socket(&socket, Arc::default()).unwrap();
        (socket, overflow)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kernel_drops_is_counted_and_told_once_an_hour() {
        for host in ["127.0.0.1", "::1"] {
            if host == "::1" && !super::super::transport::has_ipv6() {
                continue;
            }
            let (socket, mut overflow) = socket_of(host);
            assert!(overflow.note(dropped(overflow.inode).unwrap()).is_none());
            for _ in 0..200 {
                socket.send_to(&[0; 500], socket.local_addr().unwrap()).unwrap();
            }
            let count = dropped(overflow.inode).unwrap();
            assert!((1..=200).contains(&count), "{count}");
            let line = overflow.note(count).unwrap();
            assert!(line.contains(&format!("dropped {count} datagrams")), "{line}");
            assert!(line.contains("rmem_max=4194304"), "{line}");
            assert!(overflow.note(count).is_none(), "no more than before");
            assert!(overflow.note(count + 1).is_none(), "told already");
            assert_eq!(overflow.counters.dropped(Dropped::ReceiveBuffer), count + 1);
            tokio::time::advance(AGAIN).await;
            assert!(overflow.note(count + 2).unwrap().contains("dropped 1 datagrams"));
        }
    }

    #[test]
    fn a_socket_that_the_kernel_does_not_list_has_no_count() {
        assert_eq!(dropped(u64::MAX), None);
        assert_eq!(dropped_by("/proc/self/net/no-such-table", 1), None);
    }
}
