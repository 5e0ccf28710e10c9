//! What follows from a frame or from time, for the shell to do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::counters::Dropped;
use super::seal::Sealer;
use super::session::Peer;
use super::wire::Kind;
use crate::record::AgentName;

/// See the module.
#[derive(Debug, Default)]
pub struct LinkEffects {
    /// To be sent, in this order.
    pub frames: Vec<Frame>,
    /// Whether the frame that was taken came from an admitted process, and was new: its sender has the key, and replays
    /// nothing.
    pub is_fresh: bool,
    /// Opens frames from now on; the keyring in it is to be kept.
    pub sealer: Option<Sealer>,
    /// The live peers, if they are others than before.
    pub peers: Option<Vec<Peer>>,
    /// How late a push of this peer came.
    pub lag: Option<(AgentName, Duration)>,
    /// What the operator is told, in this order.
    pub lines: Vec<LinkLine>,
    /// The agent has to end: its name is that of the agent at this address.
    pub name_taken: Option<SocketAddr>,
}

/// A sealed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// To whom.
    pub to: SocketAddr,
    /// What is in it, for counters.
    pub kind: Kind,
    /// What goes over the network.
    pub bytes: Arc<[u8]>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkLine {
    /// A peer's process was admitted.
    Joined {
        /// Which.
        peer: Peer,
    },
    /// A peer's keyring was more than ours: ours has what it had.
    KeysTaken {
        /// Whose.
        agent: AgentName,
    },
    /// An address sends frames that are not understood.
    Rejected {
        /// Which.
        from: IpAddr,
        /// Why.
        why: Dropped,
    },
    /// Another agent has our name.
    TwoOfOneName {
        /// The name.
        name: AgentName,
        /// Where it is.
        other: SocketAddr,
    },
}
