//! What follows from a frame or from time, for the shell to do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::counters::Dropped;
use super::joins::Joins;
use super::keyring::Keyring;
use super::session::Peer;
use super::wire::Kind;
use crate::record::{AgentName, Generation};

/// See the module.
#[derive(Debug, Default)]
pub struct LinkEffects {
    /// To be sent, in this order.
    pub frames: Vec<Frame>,
    /// Whether the frame that was taken came from an admitted process, and was new: its sender has the key, and replays
    /// nothing.
    pub is_fresh: bool,
    /// In force from now on, and to be kept.
    pub keyring: Option<Arc<Keyring>>,
    /// The live peers, if they are others than before.
    pub peers: Option<Vec<Peer>>,
    /// How late a push came.
    pub lag: Option<Duration>,
    /// What the operator is told, in this order.
    pub lines: Vec<LinkLine>,
    /// The agent has to end: its name is that of the agent at this address.
    pub name_taken: Option<SocketAddr>,
    /// How it goes with the addresses to join at, if that changed.
    pub joins: Option<Joins>,
    /// Peers know this later start of the agent, or more of this one than it does: it has to start anew, above that.
    pub superseded: Option<Generation>,
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
    /// TCP does not get through to a peer, or does so again.
    Blocked {
        /// Which.
        peer: Peer,
        /// Whether it does not.
        is_blocked: bool,
    },
    /// A peer's process was admitted.
    Joined {
        /// Which.
        peer: Peer,
    },
    /// An agent of another host says that it is reached at a loopback address: it is not admitted.
    LoopbackRefused {
        /// Which.
        peer: Peer,
        /// Where it is.
        from: IpAddr,
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
