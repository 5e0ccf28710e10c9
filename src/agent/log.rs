//! The log lines of the agent's state.

use gossd_core::agent::{DRAINING, Line};

/// Writes a line to the log, which never blocks.
pub(super) fn log(line: Line) {
    match line {
        Line::StillDraining => tracing::warn!("draining since before this start: {DRAINING}"),
        Line::NotAllPrivate => tracing::error!(
            "not all tunnels of --ingress-rule are private: too many claims; restart this agent"
        ),
        Line::NotHealed { id, tunnel } => tracing::warn!(
            id,
            tunnel,
            "gost renews a connector that no agent knows, and sends its address only when it registers: let its clients \
             reconnect, or set --fallback-address to gost's entrypoint. Further ones are only counted"
        ),
        Line::Lapsed { records } => {
            tracing::info!(records, "records lapsed: their gost no longer renews them");
        }
        Line::Dialled { node, addresses, dialled } => {
            tracing::debug!(%node, ?dialled, ?addresses, "dialled a gost");
        }
        Line::Unanswered { node, records } => {
            tracing::info!(%node, records, "records lapsed: their gost neither renews them nor answers a dial");
        }
        Line::Gone { node, records } => tracing::info!(
            %node,
            records,
            "a gost is gone; its records lapsed: it has no plugin connection, and its entrypoint refuses"
        ),
        Line::Asked { tunnel, node, id } => tracing::warn!(
            tunnel, %node, ?id,
            "gost asks where a tunnel is that it registered here itself, so it has lost the connector: a Deregister \
             was lost. The record lapsed. Further ones are only counted for a minute"
        ),
        Line::Silent { agent } => tracing::warn!(%agent, "peer is silent; its records come last"),
        Line::HeardAgain { agent } => tracing::info!(%agent, "peer is alive again"),
        Line::Left { agent } => tracing::info!(%agent, "peer left"),
        Line::Forgotten { agent } => {
            tracing::info!(%agent, "forgot an agent that was dead for long");
        }
        Line::Refused { agent, times, why } => {
            tracing::warn!(%agent, refused = times, "rejected messages from a peer: {}", why.text());
        }
        Line::Survives { agent, entrypoint } => tracing::warn!(
            %agent,
            %entrypoint,
            "a peer is silent, but its gost answers: if the peer is dead, its records stay listed, last, for at most an \
             hour. Start gossd there"
        ),
        Line::SurvivorDialled { agent, entrypoint, dialled } => {
            tracing::debug!(%agent, %entrypoint, ?dialled, "dialled the gost of a silent peer");
        }
        Line::JournalWritten => tracing::info!("the journal is written again"),
        Line::JournalNotWritten { error } => {
            tracing::error!(error, "cannot write the journal; continuing in memory, and trying again");
        }
    }
}
