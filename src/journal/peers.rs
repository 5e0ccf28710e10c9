//! The peers that an agent knew before its start, beside its journal. The next start looks for them besides `--join`,
//! and waits for them before it gives an empty answer. A text file: a line `cluster ID`, and a line `NAME ADDRESS` each. It is
//! a hint: what cannot be read is ignored, and a failed write costs the next start half a second.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{beside, private_file};
use gossd_core::record::AgentName;

/// Most peers: as many as a directory distinguishes.
const MAX_PEERS: usize = gossd_core::replicas::MAX_AGENTS;
/// The largest file: [`MAX_PEERS`] with the longest names and addresses.
const MAX_BYTES: u64 = 128 * MAX_PEERS as u64;
/// How long a silent peer is kept: a day, in which a lost host is repaired or given up.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Gossip addresses of peers by name.
pub(crate) type PeerAddresses = BTreeMap<AgentName, SocketAddr>;

/// The path of the peers' file of the agent with this name.
pub(crate) fn path(dir: &Path, name: &AgentName) -> PathBuf {
    dir.join(format!("{name}.peers"))
}

/// The first line: which cluster the peers are of.
fn head(cluster: &str) -> String {
    format!("cluster {cluster}")
}

/// Reads the file; invalid lines are ignored, and so are peers of another cluster.
pub(crate) fn read(path: &Path, cluster: &str) -> PeerAddresses {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return PeerAddresses::new();
    }
    let peer = |line: &str| {
        let (name, address) = line.split_once(' ')?;
        Some((name.parse().ok()?, address.parse().ok()?))
    };
    let mut lines = text.lines();
    if lines.next() != Some(&*head(cluster)) {
        return PeerAddresses::new();
    }
    lines.filter_map(peer).take(MAX_PEERS).collect()
}

/// Replaces the file.
pub(crate) fn write(path: &Path, cluster: &str, peers: &PeerAddresses) -> io::Result<()> {
    let peers = peers.iter().take(MAX_PEERS).map(|(name, address)| format!("{name} {address}\n"));
    let lines: Vec<String> = std::iter::once(head(cluster) + "\n").chain(peers).collect();
    let draft = beside(path, "new");
    io::Write::write_all(&mut private_file(&draft, true)?, lines.concat().as_bytes())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the first version. Never changed.
    const FROZEN: &str = include_str!("../../tests/frozen/0.1/peers");

    #[test]
    fn peers_are_restored_and_invalid_lines_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &"a".parse().unwrap());
        assert!(read(&path, "default").is_empty(), "no file");
        let peers = PeerAddresses::from([
            ("b".parse().unwrap(), "10.0.0.2:8002".parse().unwrap()),
            ("c".parse().unwrap(), "[2001:db8::3]:8002".parse().unwrap()),
        ]);
        write(&path, "default", &peers).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), FROZEN, "{}", crate::journal::tests::WHY);
        assert_eq!(read(&path, "default"), peers);
        assert!(read(&path, "other").is_empty(), "those of another cluster are nobody's peers here");
        let damaged =
            "cluster default\nb 10.0.0.2:8002\nno-address\nc/d 10.0.0.3:1\n\u{1}\nc [2001:db8::3]:8002";
        fs::write(&path, damaged).unwrap();
        assert_eq!(read(&path, "default"), peers);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path, "default").is_empty());
    }
}
