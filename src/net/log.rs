//! What the link tells the operator, as lines of the log.

use gossd_core::link::LinkLine;
use gossd_core::link::counters::Dropped;
use gossd_core::link::keyring::Keyring;

pub(super) fn log(line: LinkLine, keyring: &Keyring) {
    match line {
        LinkLine::Joined { peer } => {
            tracing::info!(peer = %peer.owner.name, address = %peer.addr, "peer joined");
        }
        LinkLine::Blocked { peer, is_blocked: true } => {
            tracing::warn!(
                peer = %peer.owner.name, address = %peer.addr,
                "TCP does not get through to this peer, so what is large goes to it in pieces by UDP, slowly: open TCP port \
                 {} on the way to it, and let ICMP through: without it, large packets get lost where the way is narrower",
                peer.addr.port()
            );
        }
        LinkLine::Blocked { peer, is_blocked: false } => {
            tracing::info!(peer = %peer.owner.name, address = %peer.addr, "TCP gets through to this peer again");
        }
        LinkLine::LoopbackRefused { peer, from } => tracing::warn!(
            peer = %peer.owner.name,
            address = %from,
            "not admitted: a peer on another host says that it is reached at {}, which from here is this host. It has found no \
             address of its host yet, or its --advertise-host is a loopback address: set --advertise-host there",
            peer.addr
        ),
        LinkLine::KeysTaken { agent } => {
            tracing::info!(peer = %agent, keys = ?keyring, "took keys from a peer; the first seals");
        }
        LinkLine::Rejected { from, why } => {
            let hint = match why {
                Dropped::UnknownKey => "its key is not in our --key-file",
                Dropped::BadSeal => "forged, damaged, or its --cluster is not ours",
                Dropped::Version => "another version of gossd",
                _ => "not a gossd frame",
            };
            tracing::warn!(address = %from, "dropped a gossip frame: {hint}");
        }
        LinkLine::TwoOfOneName { name, other } => {
            tracing::error!(%name, %other, "two agents have this name; peers listen to one of them only");
        }
    }
}
