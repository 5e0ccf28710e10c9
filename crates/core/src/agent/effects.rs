//! What follows from a call, to be done when the lock is free again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::Address;
use crate::complaint::Refusal;
use crate::event::PeerChange;
use crate::label::Label;
use crate::record::{AgentName, Owner};

use super::gosts::Dialled;
use super::reach::Tried;
use super::unreached::OwnUnreached;

/// See the module.
#[derive(Debug, Default)]
pub struct Effects {
    /// The driver has to look.
    pub is_due: bool,
    /// What a Get is answered from changed.
    pub is_revised: bool,
    /// Something waits for the journal.
    pub is_touched: bool,
    /// For the log, in this order.
    pub lines: Vec<Line>,
}

/// A line of the log.
#[derive(Debug)]
pub enum Line {
    /// The journal has that the agent drains.
    StillDraining,
    /// The first call of a gost came in.
    Attached {
        /// Which, if it said so.
        node: Option<Label>,
        /// From which other host.
        remote: Option<IpAddr>,
    },
    /// Not all tunnels could be closed: there are too many claims.
    NotAllPrivate,
    /// A Renew found no record, for the first time.
    NotHealed {
        /// Of the connector.
        id: String,
        /// Its name.
        tunnel: String,
    },
    /// The journal had records that, as peers remember, our former start had no more.
    NotRemembered {
        /// How many.
        records: usize,
    },
    /// Records were not renewed in time.
    Lapsed {
        /// How many.
        records: usize,
    },
    /// A dial ended.
    Dialled {
        /// Which gost.
        node: Label,
        /// Where.
        addresses: BTreeSet<Address>,
        /// How.
        dialled: Dialled,
    },
    /// Records lapsed because a dial was not answered.
    Unanswered {
        /// Whose.
        node: Label,
        /// How many.
        records: usize,
    },
    /// A gost takes connections, and does not answer.
    Frozen {
        /// Which.
        node: Label,
        /// Where it was asked.
        addresses: BTreeSet<Address>,
    },
    /// It answers again, or calls.
    Thawed {
        /// Which.
        node: Label,
    },
    /// A gost without a connection refuses.
    Gone {
        /// Which.
        node: Label,
        /// How many it had.
        records: usize,
    },
    /// A gost asked for what it registered.
    Asked {
        /// Which tunnel.
        tunnel: String,
        /// Which gost.
        node: Label,
        /// Its connector.
        id: Label,
    },
    /// A peer is silent.
    Silent {
        /// Which.
        agent: AgentName,
    },
    /// A silent peer has given no sign of life for so long that its records are hidden.
    Died {
        /// Which.
        agent: AgentName,
        /// How many it has.
        records: usize,
    },
    /// A silent peer is alive again.
    HeardAgain {
        /// Which.
        agent: AgentName,
    },
    /// A peer is not what it was.
    Differs {
        /// Which.
        agent: AgentName,
        /// In what.
        change: PeerChange,
    },
    /// A peer left.
    Left {
        /// Which.
        agent: AgentName,
    },
    /// A peer has been dead for so long that it is forgotten.
    Forgotten {
        /// Which start of which.
        agent: Owner,
    },
    /// A dead peer is forgotten, because an operator said that it will not come back.
    Buried {
        /// Which.
        agent: AgentName,
    },
    /// Changes of a peer were refused.
    Refused {
        /// Which.
        agent: AgentName,
        /// How often in all.
        times: u64,
        /// Why.
        why: Refusal,
    },
    /// The gost of a silent peer answers, for the first time.
    Survives {
        /// The peer.
        agent: AgentName,
        /// Of its gost.
        entrypoint: Address,
    },
    /// The gost of a peer was dialled, with another outcome than before.
    Tried {
        /// The peer.
        agent: AgentName,
        /// Of its gost.
        entrypoint: Address,
        /// How.
        tried: Tried,
    },
    /// The gost of a peer that is heard cannot be dialled from here.
    Unreached {
        /// The peer.
        agent: AgentName,
        /// Of its gost.
        entrypoint: Address,
        /// How.
        tried: Tried,
    },
    /// It can be dialled again.
    Reached {
        /// The peer.
        agent: AgentName,
        /// Of its gost.
        entrypoint: Address,
    },
    /// Peers that are heard do not reach an entrypoint of a gost of this host.
    OwnUnreached(OwnUnreached),
    /// None of them says so any more.
    OwnReached {
        /// Of our gost.
        entrypoint: Address,
    },
    /// This host can dial no record of a tunnel, and its visitors get there by another host's gost.
    Detour {
        /// Which tunnel.
        tunnel: String,
        /// The peer.
        agent: AgentName,
        /// Of its gost.
        entrypoint: Address,
    },
    /// The journal takes what changes again.
    JournalWritten,
    /// The journal takes what changes so slowly that a kill costs more than it should.
    JournalLate {
        /// How long a commit took.
        took: Duration,
    },
    /// The journal does not take what changes.
    JournalNotWritten {
        /// Why.
        error: String,
    },
}
