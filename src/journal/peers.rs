//! The peers that an agent knew before its start, beside its journal: whom to look for besides `--join`, and with whom to
//! catch up before an empty answer means that there is nothing. A text file, a line `NAME ADDRESS` each. It is a hint:
//! what cannot be read is nothing, and what cannot be written costs half a second at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{beside, private_file};
use gossd_core::record::AgentName;

/// Peers that are kept: as many as a directory keeps apart.
const MAX_PEERS: usize = gossd_core::replicas::MAX_AGENTS;
/// Bytes that such a file may have: [`MAX_PEERS`] of the longest names and addresses.
const MAX_BYTES: u64 = 128 * MAX_PEERS as u64;
/// How long a peer is kept that is not heard: a day, in which a lost host is repaired or given up.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Peers by their names, and where their gossip is.
pub(crate) type Peers = BTreeMap<AgentName, SocketAddr>;

/// Where the peers of the agent of this name are kept.
pub(crate) fn path(dir: &Path, name: &AgentName) -> PathBuf {
    dir.join(format!("{name}.peers"))
}

/// What was kept; nothing of what makes no sense.
pub(crate) fn read(path: &Path) -> Peers {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return Peers::new();
    }
    let peer = |line: &str| {
        let (name, address) = line.split_once(' ')?;
        Some((name.parse().ok()?, address.parse().ok()?))
    };
    text.lines().filter_map(peer).take(MAX_PEERS).collect()
}

/// Keeps these in the place of what was kept before.
pub(crate) fn write(path: &Path, peers: &Peers) -> io::Result<()> {
    let lines: Vec<String> =
        peers.iter().take(MAX_PEERS).map(|(name, address)| format!("{name} {address}\n")).collect();
    let draft = beside(path, "new");
    io::Write::write_all(&mut private_file(&draft, true)?, lines.concat().as_bytes())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_again_and_nonsense_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &"a".parse().unwrap());
        assert!(read(&path).is_empty(), "no file");
        let peers = Peers::from([
            ("b".parse().unwrap(), "10.0.0.2:8002".parse().unwrap()),
            ("c".parse().unwrap(), "[2001:db8::3]:8002".parse().unwrap()),
        ]);
        write(&path, &peers).unwrap();
        assert_eq!(read(&path), peers);
        fs::write(&path, "b 10.0.0.2:8002\nno-address\nc/d 10.0.0.3:1\n\u{1}\nc [2001:db8::3]:8002").unwrap();
        assert_eq!(read(&path), peers);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path).is_empty());
    }
}
