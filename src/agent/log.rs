//! The log lines of the agent's state.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::sentence::{Sentence, sentence};
use gossd_core::address::Address;
use gossd_core::agent::{Line, OwnUnreached, Tried};
use gossd_core::complaint::Refusal;
use gossd_core::event::PeerChange;
use gossd_core::label::Label;
use gossd_core::record::AgentName;

/// Names in one sentence, at most.
const MOST_NAMES: usize = 5;

/// What it means that the entrypoint of a peer that is heard is dialled in vain, and what can be done.
pub(crate) fn unreached(agent: &AgentName, entrypoint: &Address, tried: Tried) -> Sentence {
    let (how, remedy) = match tried {
        Tried::Refused => (
            sentence!("is refused"),
            sentence!(
                "Bind gost's entrypoint there to an address that other hosts reach, not to loopback, and look whether gost listens"
            ),
        ),
        _ => (
            sentence!("is not answered"),
            sentence!("Open its TCP port in the firewalls between the two hosts"),
        ),
    };
    sentence!(
        "a visitor here cannot be sent to {agent}: a dial of its gost's entrypoint {entrypoint} {how}, so its records come behind \
         those that work. {remedy}; or set --advertise-host of {agent} to an address at which this host reaches it"
    )
}

/// What it means that peers which are heard dial an entrypoint of a gost of this host in vain, and what can be done.
pub(crate) fn own_unreached(of: &OwnUnreached) -> Sentence {
    let OwnUnreached { entrypoint, refused, silent } = of;
    let open = sentence!("Open its TCP port in the firewalls of this host and of those on the way");
    let listen = sentence!(
        "Bind gost's entrypoint to an address that other hosts reach, not to loopback, and look whether gost listens"
    );
    let (how, remedy) = match (refused.is_empty(), silent.is_empty()) {
        (true, _) => (sentence!("nothing answers their dials"), open),
        (false, true) => (sentence!("their dials are refused"), listen),
        (false, false) => (
            sentence!(
                "those of {refused} are refused, and nothing answers those of {silent}",
                refused = few_of(refused),
                silent = few_of(silent)
            ),
            sentence!("{listen}. {open}"),
        ),
    };
    let all: BTreeSet<AgentName> = refused.union(silent).cloned().collect();
    sentence!(
        "{who} cannot reach our entrypoint {entrypoint}: {how}, so visitors there are sent to it last, and may wait for 15 s. \
         {remedy}; or set --advertise-host to an address at which these hosts reach this one",
        who = few_of(&all)
    )
}

/// `a, b and c`; of many, some.
pub(crate) fn few(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() && names.len() <= MOST_NAMES => {
            sentence!("{first} and {last}", first = first.join(", ")).to_string()
        }
        _ if names.len() > MOST_NAMES => {
            let (first, more) = (names[..MOST_NAMES].join(", "), names.len() - MOST_NAMES);
            sentence!("{first} and {more} more").to_string()
        }
        _ => names.concat(),
    }
}

fn few_of(names: &BTreeSet<AgentName>) -> String {
    few(&names.iter().map(AgentName::as_str).collect::<Vec<_>>())
}

/// What it means that a gost of this host is frozen, and what can be done.
pub(crate) fn frozen(entrypoint: &impl fmt::Display) -> Sentence {
    sentence!(
        "the gost at {entrypoint} takes connections and does not answer: it is stopped, or has no processor time. Its records \
         come behind all that works, at every host, until it answers or calls. Look at its process"
    )
}

/// What draining means, and what ends it.
pub(crate) fn what_draining_means() -> Sentence {
    sentence!("peers do not list what is registered here, this host uses it; `gossd drain --undo` ends it")
}

/// What a peer sent that was rejected.
pub(crate) fn rejected(why: Refusal) -> Sentence {
    match why {
        Refusal::Malformed => sentence!("frames that make no sense"),
        Refusal::NotASlot => sentence!("slots that cannot be"),
        Refusal::TooMuch => sentence!("more than one agent may make others hold"),
    }
}

/// What of a peer is not as it was.
pub(crate) fn changed(what: &PeerChange) -> Sentence {
    match what {
        PeerChange::Address { from, to } => sentence!("moved from {from} to {to}"),
        PeerChange::Version { from, to } => sentence!("runs gossd {to}, and ran {from} before"),
        PeerChange::Keys => sentence!("has other keys"),
    }
}

fn attached(node: Option<&Label>, remote: Option<IpAddr>) {
    let from = remote.map_or_else(|| "this host".to_owned(), |remote| remote.to_string());
    let node = node.map(ToString::to_string);
    tracing::info!(node, from, "gost is attached: its first call has come in");
}

/// Writes a line to the log, which never blocks.
pub(super) fn log(line: Line) {
    match line {
        Line::StillDraining => tracing::warn!("draining since before this start: {}", what_draining_means()),
        Line::Attached { node, remote } => attached(node.as_ref(), remote),
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
        Line::Frozen { node, addresses } => tracing::warn!(
            %node,
            "{}", frozen(&addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(", "))
        ),
        Line::Thawed { node } => tracing::info!(%node, "a gost that did not answer does again"),
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
        Line::Silent { agent } => tracing::warn!(peer = %agent, "peer is silent; its records come last"),
        Line::Died { agent, records } => tracing::warn!(
            peer = %agent,
            records,
            "peer is dead: it has given no sign of life for the lease TTL, so its records are hidden, except where its gost still \
             answers. If it will not come back: gossd forget {agent}"
        ),
        Line::HeardAgain { agent } => tracing::info!(peer = %agent, "peer is alive again"),
        Line::Differs { agent, change } => tracing::info!(peer = %agent, "peer {}", changed(&change)),
        Line::Left { agent } => tracing::info!(peer = %agent, "peer left"),
        Line::Forgotten { agent } => {
            tracing::info!(peer = %agent, "forgot an agent that was dead for long");
        }
        Line::Buried { agent } => {
            tracing::info!(peer = %agent, "forgot a dead agent: an operator said that it will not come back");
        }
        Line::Refused { agent, times, why } => {
            tracing::warn!(peer = %agent, refused = times, "rejected messages from a peer: {}", rejected(why));
        }
        Line::Survives { agent, entrypoint } => tracing::warn!(
            peer = %agent,
            %entrypoint,
            "a peer is silent, but its gost answers: if the peer is dead, its records stay listed, last, for at most an \
             hour. Start gossd there"
        ),
        Line::Tried { agent, entrypoint, tried } => {
            tracing::debug!(peer = %agent, %entrypoint, ?tried, "dialled the gost of a peer, with another outcome than before");
        }
        Line::Unreached { agent, entrypoint, tried } => {
            tracing::warn!(peer = %agent, %entrypoint, "{}", unreached(&agent, &entrypoint, tried));
        }
        Line::Reached { agent, entrypoint } => {
            tracing::info!(peer = %agent, %entrypoint, "a peer's gost can be dialled from this host again");
        }
        Line::OwnUnreached(of) => {
            tracing::warn!(entrypoint = %of.entrypoint, "{}", own_unreached(&of));
        }
        Line::OwnReached { entrypoint } => {
            tracing::info!(%entrypoint, "no peer says any more that it cannot reach this entrypoint of ours");
        }
        Line::Detour { tunnel, agent, entrypoint } => tracing::warn!(
            tunnel, peer = %agent, %entrypoint,
            "this host can dial no record of a tunnel, but a peer can: visitors get there by the peer's gost. Open the way to \
             the entrypoints of the tunnel, which `gossd explain` names. Further ones are only counted for a minute"
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<AgentName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn an_owner_reads_who_does_not_reach_it_how_and_what_to_do() {
        let of = |refused: &[&str], silent: &[&str]| {
            let entrypoint = "10.0.0.1:8420".into();
            own_unreached(&OwnUnreached { entrypoint, refused: names(refused), silent: names(silent) })
        };
        let silent = of(&[], &["b", "c"]);
        assert!(
            silent.starts_with("b and c cannot reach our entrypoint 10.0.0.1:8420: nothing answers"),
            "{silent}"
        );
        assert!(silent.contains("firewalls") && !silent.contains("loopback"), "{silent}");
        let refused = of(&["b"], &[]);
        assert!(refused.starts_with("b cannot reach our entrypoint 10.0.0.1:8420: their dials are refused"));
        assert!(!refused.contains("firewalls") && refused.contains("not to loopback"), "{refused}");
        let both = of(&["b"], &["c"]);
        assert!(both.contains("those of b are refused, and nothing answers those of c"), "{both}");
        assert!([silent, refused, both].iter().all(|text| text.contains("--advertise-host")));
    }

    #[test]
    fn two_hundred_names_are_five_and_a_number() {
        let many: Vec<String> = (0..200).map(|n| format!("h{n:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(few_of(&names(&many)), "h000, h001, h002, h003, h004 and 195 more");
        assert_eq!(few_of(&names(&["a", "b", "c"])), "a, b and c");
    }
}
