//! What an agent says of itself: the one report that `/status.json`, the page and the command line show, each in
//! its own way. Plain data with names that do not change; nothing of how the agent keeps it inside.

use serde::{Deserialize, Serialize};

/// `/status.json`: the agent and its peers at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// gossd's version.
    pub version: String,
    /// The agent's name.
    pub name: String,
    /// Which of its starts: higher at each.
    pub generation: u64,
    /// The cluster's id.
    pub cluster: String,
    /// Where peers reach its gossip, `ip:port`.
    pub address: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// What is wrong, a sentence each; also what does not keep it from being ready.
    pub problems: Vec<String>,
    /// In which order records of equal standing are listed: `random` or `nearest`.
    pub order: String,
    /// Records and claims.
    pub holds: Holds,
    /// This agent first, then its peers by name.
    pub members: Vec<Member>,
    /// The journal.
    pub journal: Journal,
    /// The file of host names, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_file: Option<IngressFile>,
    /// The number of the newest event of `/events`.
    pub last_event: u64,
}

/// How much an agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holds {
    /// Live records registered here.
    pub own_records: usize,
    /// Records known, of all owners.
    pub records: usize,
    /// Records registered here that lapsed and may be revived.
    pub lapsed_records: usize,
    /// Most records that may be registered here.
    pub max_records: usize,
    /// Tunnels with a record anywhere.
    pub tunnels: usize,
    /// Claims on host names made here.
    pub own_rules: usize,
    /// Claims on host names known, of all owners.
    pub rules: usize,
    /// Tunnels that a rule or a claim, at any agent, closes to the public.
    #[serde(default)]
    pub private_tunnels: usize,
}

/// How an agent is, as seen from the one that reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It is heard, or it is the one that reports: its records are listed first.
    Alive,
    /// Not heard for a while: its records are listed last.
    Suspect,
    /// Not heard for so long that its records are hidden, or never.
    Dead,
    /// It was told to drain: its records are hidden everywhere but there.
    Draining,
    /// It said goodbye.
    Left,
    /// It has not said yet that all its records are told, so none is shown.
    Starting,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is the one that reports.
    pub this: bool,
    /// Which of its starts; none if none is shown yet.
    pub generation: Option<u64>,
    /// Where its gossip is reached, `ip:port`; none if that is not known any more.
    pub address: Option<String>,
    /// How it is.
    pub state: State,
    /// The round-trip time to it in milliseconds, smoothed; none before it was measured.
    pub rtt_ms: Option<f64>,
    /// Seconds since its last sign of life, if it is silent.
    pub silent_seconds: Option<f64>,
    /// Its records that are known here.
    pub records: usize,
    /// What is held against it: words of it that were refused here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// Words of an agent that were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// How many.
    pub count: u64,
    /// What the last ones were.
    pub last: String,
}

/// How the journal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// `kept` on disk, `behind` for the moment, `failing`, or `none`.
    pub state: String,
    /// Why it is failing, or why there is none although one was wanted.
    pub problem: Option<String>,
    /// Changes that are not on disk yet.
    pub pending: usize,
    /// Writes that failed since the start.
    pub errors: u64,
}

/// The host names that are known here, in a file that gost reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IngressFile {
    /// Where it is.
    pub path: String,
    /// Its lines.
    pub lines: usize,
    /// Host names that are known and not in it: there is no room for them, or no line can tell them.
    pub left_out: usize,
    /// Lines of an earlier start, which stay until this one can know better.
    pub former: usize,
    /// How often it was written since the start.
    pub writes: u64,
    /// How often it could not be.
    pub failures: u64,
    /// Why it is not as it should be; none if it is.
    pub problem: Option<String>,
}

/// `/services.json?search=TEXT&limit=N`: tunnels by their ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Services {
    /// How many tunnels match; more than are listed if there is a limit.
    pub total: usize,
    /// The first of them, by id.
    pub services: Vec<Service>,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its id, the name that gost asks for.
    pub name: String,
    /// Its records that Get lists here.
    pub listed: usize,
    /// Its records that are known and hidden.
    pub hidden: usize,
    /// The agents that own its records.
    pub agents: Vec<String>,
}

/// `/explain.json?name=NAME`: where a tunnel, or the tunnel of a host, is attached, and why Get answers as it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    /// What was asked: a tunnel's id or a host name.
    pub asked: String,
    /// How a host name leads to a tunnel; none if the question was a tunnel's id, or leads nowhere.
    pub host: Option<Host>,
    /// The tunnel's id; none if the question leads to none.
    pub name: Option<String>,
    /// Whether the tunnel is private, under all its host names: gost turns visitors away.
    #[serde(default)]
    pub private: bool,
    /// One sentence that sums it up.
    pub verdict: String,
    /// Its records, in the order of an answer, the hidden ones last.
    pub candidates: Vec<Candidate>,
}

/// How a host name leads to a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// The rule that holds: the host itself or a wildcard.
    pub rule: String,
    /// `configured` by the operator, `claimed` by a tunnel, or the `hash` host that every tunnel has.
    pub by: String,
    /// Whether the tunnel is private: visitors do not get it by its id.
    pub private: bool,
}

/// One record, and what becomes of it in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Candidate {
    /// Its place in the answer, from 1; none if it is hidden. Records of equal standing take turns.
    pub rank: Option<usize>,
    /// Why there, or why hidden: a sentence.
    pub why: String,
    /// The connector's id.
    pub id: String,
    /// gost's instance.
    pub node: String,
    /// `tcp` or `udp`.
    pub network: String,
    /// Where gost dials it.
    pub address: String,
    /// The agent that it is registered at.
    pub agent: String,
    /// How that agent is.
    pub state: State,
    /// The round-trip time to that agent in milliseconds; none for the one that reports.
    pub rtt_ms: Option<f64>,
    /// Seconds for which this agent has known the record as it is.
    pub known_seconds: f64,
    /// Its lease, if it is registered here; only its owner knows it.
    pub lease: Option<Lease>,
}

/// How long a record lives without a Renew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Seconds until it lapses.
    pub remaining_seconds: f64,
    /// Seconds between its Renews, once they are known.
    pub period_seconds: Option<f64>,
}

/// What happened, as the data of one of `/events`; its id is the event's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A record is shown from now on.
    RecordUp(Record),
    /// A record is not shown any more.
    RecordDown(Record),
    /// A peer is heard, for the first time or again.
    PeerUp {
        /// Its name.
        agent: String,
    },
    /// A peer is silent; its records come last.
    PeerSuspect {
        /// Its name.
        agent: String,
    },
    /// A peer said goodbye.
    PeerLeft {
        /// Its name.
        agent: String,
    },
    /// A peer has been dead for so long that it is forgotten.
    PeerForgotten {
        /// Its name.
        agent: String,
    },
    /// Events between the last one that the reader had and the next one are gone: read the status again.
    Missed,
}

/// A record, in an [`Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The tunnel's id.
    pub name: String,
    /// The connector's id.
    pub id: String,
    /// Where gost dials it.
    pub address: String,
    /// The agent that it is registered at.
    pub agent: String,
}

impl Event {
    /// The event's name on the wire, as in its data.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Self::RecordUp(_) => "record-up",
            Self::RecordDown(_) => "record-down",
            Self::PeerUp { .. } => "peer-up",
            Self::PeerSuspect { .. } => "peer-suspect",
            Self::PeerLeft { .. } => "peer-left",
            Self::PeerForgotten { .. } => "peer-forgotten",
            Self::Missed => "missed",
        }
    }
}
