//! What follows from a call, to be done when the lock is free again.

use std::collections::BTreeSet;

use gossd_core::address::Address;
use gossd_core::complaint::Refusal;
use gossd_core::label::Label;
use gossd_core::record::{AgentName, Owner};

use super::drain::DRAINING;
use super::gosts::Dialled;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// The driver has to look.
    pub(super) is_due: bool,
    /// What a Get is answered from changed.
    pub(super) is_revised: bool,
    /// Something waits for the journal.
    pub(super) is_touched: bool,
    /// What the operator is told, in this order.
    pub(super) lines: Vec<Line>,
}

/// A line of the log.
#[derive(Debug)]
pub(super) enum Line {
    /// The journal says so.
    StillDraining,
    /// Too many claims.
    NotAllPrivate,
    /// A Renew found no record, for the first time.
    NotHealed {
        /// Of the connector.
        id: String,
        /// Its name.
        tunnel: String,
    },
    /// Nobody renewed them in time.
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
    /// A peer is not heard.
    Silent {
        /// Which.
        agent: AgentName,
    },
    /// It is heard again.
    HeardAgain {
        /// Which.
        agent: AgentName,
    },
    /// It said goodbye.
    Left {
        /// Which.
        agent: AgentName,
    },
    /// It has been dead for long.
    Forgotten {
        /// Which start of which.
        agent: Owner,
    },
    /// What a peer says is not taken.
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
    /// The gost of a silent peer was dialled, with another outcome than before.
    SurvivorDialled {
        /// The peer.
        agent: AgentName,
        /// Of its gost.
        entrypoint: Address,
        /// How.
        dialled: Dialled,
    },
    /// The journal takes what changes again.
    JournalWritten,
    /// It does not.
    JournalNotWritten {
        /// Why.
        error: String,
    },
}

impl Line {
    /// Hands it to the log, which waits for nobody.
    pub(super) fn log(self) {
        match self {
            Self::StillDraining => tracing::warn!("draining since before this start: {DRAINING}"),
            Self::NotAllPrivate => tracing::error!(
                "not all tunnels of --ingress-rule are private: too many claims; restart this agent"
            ),
            Self::NotHealed { id, tunnel } => tracing::warn!(
                id,
                tunnel,
                "gost renews a connector that nobody here knows, and says it only once where it is. Its clients \
                 have to reconnect; or set --fallback-address to gost's entrypoint. Further ones are counted only"
            ),
            Self::Lapsed { records } => {
                tracing::info!(records, "records lapsed: their gost does not renew them any more");
            }
            Self::Dialled { node, addresses, dialled } => {
                tracing::debug!(%node, ?dialled, ?addresses, "dialled a gost");
            }
            Self::Unanswered { node, records } => {
                tracing::info!(%node, records, "records lapsed: their gost does not renew them, and answers no dial");
            }
            Self::Gone { node, records } => tracing::info!(
                %node,
                records,
                "a gost is gone; its records lapsed: it has no plugin connection, and its entrypoint refuses"
            ),
            Self::Asked { tunnel, node, id } => tracing::warn!(
                tunnel, %node, ?id,
                "gost asks where a tunnel is that is registered here for it, so it has no connector of it any more: \
                 a Deregister was lost, and the record lapsed. Further ones are counted only, for a minute"
            ),
            Self::Silent { agent } => tracing::warn!(%agent, "peer is silent; its records come last"),
            Self::HeardAgain { agent } => tracing::info!(%agent, "peer is heard again"),
            Self::Left { agent } => tracing::info!(%agent, "peer left"),
            Self::Forgotten { agent } => {
                tracing::info!(%agent, "forgot an agent that has been dead for long");
            }
            Self::Refused { agent, times, why } => {
                tracing::warn!(%agent, refused = times, "what a peer says is refused: {}", why.text());
            }
            Self::Survives { agent, entrypoint } => tracing::warn!(
                %agent,
                %entrypoint,
                "a peer is silent, but its gost answers: should the peer be dead, its records stay listed, last, for an \
                 hour at most. Start gossd there"
            ),
            Self::SurvivorDialled { agent, entrypoint, dialled } => {
                tracing::debug!(%agent, %entrypoint, ?dialled, "dialled the gost of a silent peer");
            }
            Self::JournalWritten => tracing::info!("the journal is written again"),
            Self::JournalNotWritten { error } => {
                tracing::error!(error, "cannot write the journal; going on in memory, and trying again");
            }
        }
    }
}
