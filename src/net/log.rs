//! What the link tells the operator, as lines of the log.

use gossd_core::link::LinkLine;
use gossd_core::link::counters::Dropped;
use gossd_core::link::keyring::Keyring;

pub(super) fn log(line: LinkLine, keyring: &Keyring) {
    match line {
        LinkLine::Joined { peer } => {
            tracing::info!(agent = %peer.owner.name, address = %peer.addr, "peer joined");
        }
        LinkLine::KeysTaken { agent } => {
            tracing::info!(%agent, keys = ?keyring, "took keys from a peer; the first seals");
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
