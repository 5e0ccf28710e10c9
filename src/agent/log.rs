//! What the operator is told of what an agent does.

use gossd_core::agent::{DRAINING, Line};

/// Hands a line to the log, which waits for nobody.
pub(super) fn log(line: Line) {
    match line {
        Line::StillDraining => tracing::warn!("draining since before this start: {DRAINING}"),
        Line::NotAllPrivate => tracing::error!(
            "not all tunnels of --ingress-rule are private: too many claims; restart this agent"
        ),
        Line::NotHealed { id, tunnel } => tracing::warn!(
            id,
            tunnel,
            "gost renews a connector that nobody here knows, and says it only once where it is. Its clients \
                 have to reconnect; or set --fallback-address to gost's entrypoint. Further ones are counted only"
        ),
        Line::Lapsed { records } => {
            tracing::info!(records, "records lapsed: their gost does not renew them any more");
        }
        Line::Dialled { node, addresses, dialled } => {
            tracing::debug!(%node, ?dialled, ?addresses, "dialled a gost");
        }
        Line::Unanswered { node, records } => {
            tracing::info!(%node, records, "records lapsed: their gost does not renew them, and answers no dial");
        }
        Line::Gone { node, records } => tracing::info!(
            %node,
            records,
            "a gost is gone; its records lapsed: it has no plugin connection, and its entrypoint refuses"
        ),
        Line::Asked { tunnel, node, id } => tracing::warn!(
            tunnel, %node, ?id,
            "gost asks where a tunnel is that is registered here for it, so it has no connector of it any more: \
             a Deregister was lost, and the record lapsed. Further ones are counted only, for a minute"
        ),
        Line::Silent { agent } => tracing::warn!(%agent, "peer is silent; its records come last"),
        Line::HeardAgain { agent } => tracing::info!(%agent, "peer is heard again"),
        Line::Left { agent } => tracing::info!(%agent, "peer left"),
        Line::Forgotten { agent } => {
            tracing::info!(%agent, "forgot an agent that has been dead for long");
        }
        Line::Refused { agent, times, why } => {
            tracing::warn!(%agent, refused = times, "what a peer says is refused: {}", why.text());
        }
        Line::Survives { agent, entrypoint } => tracing::warn!(
            %agent,
            %entrypoint,
            "a peer is silent, but its gost answers: should the peer be dead, its records stay listed, last, for an \
             hour at most. Start gossd there"
        ),
        Line::SurvivorDialled { agent, entrypoint, dialled } => {
            tracing::debug!(%agent, %entrypoint, ?dialled, "dialled the gost of a silent peer");
        }
        Line::JournalWritten => tracing::info!("the journal is written again"),
        Line::JournalNotWritten { error } => {
            tracing::error!(error, "cannot write the journal; going on in memory, and trying again");
        }
    }
}
