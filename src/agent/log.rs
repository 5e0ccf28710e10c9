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
        Line::NotRemembered { records } => tracing::warn!(
            records,
            "the journal is older than what peers remember of this agent: records that it had released since are not listed again. \
             Was the journal put back from a copy?"
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
        Line::Differs { agent, change } => tracing::info!(%agent, "peer {change}"),
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
        Line::JournalWritten => tracing::info!("the journal is written again, and has everything"),
        Line::JournalLate { took } => tracing::warn!(
            seconds = took.as_secs_f64(),
            "a commit of the journal took long. A kill loses the changes of the last 35 ms and of two commits: move \
             --data-dir to a faster disk, or take load off this one. Further ones are only counted"
        ),
        Line::JournalNotWritten { error } => tracing::warn!(
            error,
            "the journal is not written: this agent continues in memory, tries again every second, and writes everything anew \
             when it can. A kill until then loses what changes. Look at the disk and the folder of --data-dir"
        ),
    }
}
