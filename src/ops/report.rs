//! The reports of an agent, as JSON: the one form that every path, the page and the command line share. Plain data, whose
//! names and units do not change; nothing of how the agent keeps its state.

use serde::{Deserialize, Serialize};

use crate::config::FlagValue;
use crate::sentence::Sentence;
use gossd_core::link::keys::{KeyReport, Lack};
use gossd_core::locality::MAX_WEIGHT;

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ErrorReport {
    /// Why, for people.
    pub error: String,
}

/// `/leave`, `/drain`, `/undrain`: what was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct DoneReport {
    /// Always true; what was not done is an [`ErrorReport`].
    pub done: bool,
    /// What was done, in a sentence.
    pub text: String,
}

/// `/config.json`: how the agent is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ConfigReport {
    /// The flags that are in force.
    pub flags: Vec<FlagValue>,
}

/// `/invite`: how another host joins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct InviteReport {
    /// The line for `gossd join`. It is a secret.
    pub invite: String,
    /// Whether the agent's address in it is one of this host only.
    pub is_local: bool,
}

/// `/keys/add`, `/keys/use`, `/keys/remove`: who has which keys after the change. `/keys.json` is the [`KeyReport`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct KeyChange {
    /// What was done, in a sentence.
    pub text: String,
    /// The keys of every agent.
    #[serde(flatten)]
    pub report: KeyReport,
    /// The agents that do not have the change yet.
    pub lacking: Vec<Lack>,
}

/// `/status.json`: the agent and its peers at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct StatusReport {
    /// gossd's version.
    pub version: String,
    /// The time of this report, as the agent's clock has it: [`spell`](crate::wall_clock::spell).
    #[serde(default)]
    pub at: String,
    /// The agent's name.
    pub name: String,
    /// The agent's generation: higher at each start.
    pub generation: u64,
    /// The cluster's id.
    pub cluster: String,
    /// Where peers reach its gossip, `ip:port`.
    pub address: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Whether it drains: peers hide its records.
    #[serde(default)]
    pub draining: bool,
    /// What is wrong; also what does not keep it from being ready.
    pub problems: Vec<Problem>,
    /// In which order records of equal standing are listed: `random` or `nearest`.
    pub order: String,
    /// Where gost's calls come in, as URLs.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Whether they need a token.
    #[serde(default)]
    pub token: bool,
    /// Records and claims.
    pub holds: Holds,
    /// This agent first, then its peers by name.
    pub members: Vec<Member>,
    /// The journal.
    pub journal: JournalReport,
    /// The file of host names, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_file: Option<IngressFileReport>,
    /// The number of the newest event of `/events`.
    pub last_event: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Problem {
    /// What it is about, in a word.
    pub kind: ProblemKind,
    /// How bad it is.
    pub severity: Severity,
    /// What is so, for whom, and what to do about it.
    pub text: Sentence,
}

/// What a [`Problem`] is about: words for programs, which stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProblemKind {
    /// The journal cannot be written.
    Journal,
    /// The journal's disk is slow.
    JournalSlow,
    /// The ingress file cannot be written.
    IngressFile,
    /// Host names have no room in the ingress file.
    IngressFileFull,
    /// No peer was reached since the start.
    NoPeer,
    /// A peer's records are not all here yet.
    CatchingUp,
    /// An address of `--join` has not answered.
    Join,
    /// The memory limit is lower than what the agent may need.
    Memory,
    /// The admin listener tells everybody everything.
    OpenAdmin,
    /// Peers cannot reach the address that this agent tells them.
    Address,
    /// The agent drains.
    Draining,
    /// Most peers vanished at once.
    Isolated,
    /// A gost takes connections and does not answer.
    GostFrozen,
    /// A gost has not called since the agent started.
    GostUncalled,
    /// Calls of a gost are refused.
    CallsRefused,
    /// An entrypoint cannot be reached from here.
    Unreached,
    /// This host's entrypoint cannot be reached from elsewhere.
    OwnUnreached,
    /// A peer sends what it must not.
    Rejected,
    /// Peers are dead.
    PeersDead,
    /// Peers are silent.
    PeersSilent,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Visitors are turned away, or the agent does not do its job.
    Bad,
    /// It may become so.
    Warn,
}

/// What `gossd members` prints of a [`StatusReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct MembersReport {
    /// The agent that was asked first, then its peers by name.
    pub members: Vec<Member>,
}

/// How much an agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// The state of an agent, as seen from the reporting one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum MemberState {
    /// It is heard, or it is the reporting agent itself. Its records are listed first.
    Alive,
    /// It has been silent for a moment. Its records are listed behind those of the others.
    Doubted,
    /// It has been silent for a while. Its records are listed last.
    Suspect,
    /// It has been silent for so long that its records are hidden, or was never heard.
    Dead,
    /// It drains: its records are hidden everywhere but at itself.
    Draining,
    /// It left.
    Left,
    /// It has not sent all its records yet, so none of them is listed.
    Starting,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is the reporting agent itself.
    pub this: bool,
    /// Its generation; none if none is listed yet.
    pub generation: Option<u64>,
    /// Where its gossip is reached, or was last, `ip:port`; none if that is not known.
    pub address: Option<String>,
    /// The version of its gossd; none if that is not known.
    #[serde(default)]
    pub version: Option<String>,
    /// The id of the key that it seals with; none if that is not known, or the cluster has no key.
    #[serde(default)]
    pub key: Option<String>,
    /// Its state.
    pub state: MemberState,
    /// Its zone; empty if it has none.
    #[serde(default)]
    pub zone: String,
    /// How often it comes first among its equals, beside others: 0 to 100; 0 if it is a backup.
    #[serde(default = "full_weight")]
    pub weight: u8,
    /// The smoothed round-trip time to it in milliseconds; none before the first measurement, and while it is silent.
    pub rtt_ms: Option<f64>,
    /// Seconds since its last sign of life; none if it is not silent.
    pub silent_seconds: Option<f64>,
    /// Its records that are known here.
    pub records: usize,
    /// Its messages that were rejected here, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

fn full_weight() -> u8 {
    MAX_WEIGHT
}

/// Messages of an agent that were rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Refused {
    /// How many.
    pub count: u64,
    /// What the last of them were.
    pub last: Sentence,
}

/// The state of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct JournalReport {
    /// `kept`: all changes are on disk; `behind` for the moment; `failing`; or `none`.
    pub state: String,
    /// Why it is failing, or why there is none although one is configured.
    pub problem: Option<String>,
    /// Changes that are not on disk yet.
    pub pending: usize,
    /// Writes that failed since the start.
    pub errors: u64,
}

/// The host names that are known here, in a file that gost reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct IngressFileReport {
    /// Where it is.
    pub path: String,
    /// Its lines.
    pub lines: usize,
    /// Known host names that are not in it: there is no room for them, or no line can express them.
    pub left_out: usize,
    /// Lines of an earlier start, which stay until this start has caught up.
    pub former: usize,
    /// Writes since the start.
    pub writes: u64,
    /// Writes that failed since the start.
    pub failures: u64,
    /// Why its content is not what it should be; none if it is.
    pub problem: Option<String>,
}

/// `/services.json?search=TEXT&limit=N&agent=NAME&hidden=true&private=true`: tunnels by their ids; those that have a text in
/// their id or a host name, a record at that agent, no listed record, or are private.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct TunnelsReport {
    /// How many tunnels match, those beyond the limit included.
    pub total: usize,
    /// The first of them, by id.
    pub services: Vec<TunnelReport>,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct TunnelReport {
    /// Its id, the name that gost asks for.
    pub name: String,
    /// Its records that Get lists here.
    pub listed: usize,
    /// Its records that Get may list: if they are more than 64, each answer has 64 of them.
    #[serde(default)]
    pub eligible: usize,
    /// Its records that are known and hidden.
    pub hidden: usize,
    /// The agents that own its records.
    pub agents: Vec<String>,
    /// Its host names, but for its hash host: the first 4 by name.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// How many it has.
    #[serde(default)]
    pub names: usize,
    /// Whether it is private.
    #[serde(default)]
    pub private: bool,
}

/// `/explain.json?name=NAME`: where a tunnel, or the tunnel of a host, is attached, and why Get answers as it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Explanation {
    /// The tunnel's id or host name in the request.
    pub asked: String,
    /// The rule by which the host name leads to a tunnel; none if `asked` is a tunnel's id or leads nowhere.
    pub host: Option<HostReport>,
    /// The tunnel's id; none if `asked` leads to no tunnel.
    pub name: Option<String>,
    /// The host names of the tunnel, but for its hash host: at most 64.
    #[serde(default)]
    pub hosts: Vec<HostReport>,
    /// Whether the tunnel is private, under all its host names: gost turns visitors away.
    #[serde(default)]
    pub private: bool,
    /// The result in one sentence.
    pub verdict: Sentence,
    /// Its records that are known.
    #[serde(default)]
    pub known: usize,
    /// Its records that Get may list: if they are more than 64, each answer has 64 of them.
    #[serde(default)]
    pub eligible: usize,
    /// How visitors get there although no record can be dialled from the reporting agent's host; none if one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<AroundReport>,
    /// Its records, in the order of an answer, the hidden ones last: at most 64 of each.
    pub candidates: Vec<CandidateReport>,
    /// Its records that went within the last hour, as far as the events tell that are kept: the last one first, at most 16.
    #[serde(default)]
    pub past: Vec<PastReport>,
    /// Claims on the host name that were refused here since the start: the last one first, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedClaim>,
}

/// A client's claim on a host name that its tunnel did not get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RefusedClaim {
    /// The tunnel's id.
    pub tunnel: String,
    /// The time, as the agent's clock has it.
    pub at: String,
    /// Why.
    pub why: String,
}

/// The body of a POST to `/import`: what another store kept of this host's gosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ImportOrder {
    /// Whether to tell only what would be taken.
    #[serde(default)]
    pub dry_run: bool,
    /// An address of a gost of this host, though it does not look so.
    #[serde(default)]
    pub address: Option<String>,
    /// The records.
    #[serde(default)]
    pub records: Vec<ImportRecord>,
    /// The host names.
    #[serde(default)]
    pub hosts: Vec<ImportHost>,
    /// Tunnels that other parts of the import attach here.
    #[serde(default)]
    pub attached: std::collections::BTreeSet<String>,
}

/// A record, as gost registered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ImportRecord {
    /// The connector's id.
    pub id: String,
    /// The tunnel's.
    pub name: String,
    /// That of gost's handler.
    pub node: String,
    /// `tcp` or `udp`.
    pub network: String,
    /// gost's entrypoint, `host:port`.
    pub address: String,
}

/// A host name and the tunnel to which it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ImportHost {
    /// The name, or `*.NAME`.
    pub host: String,
    /// `[$]UUID`.
    pub endpoint: String,
}

/// The answer to `/import`: what became of each, in the order of the question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ImportReport {
    /// The records.
    pub records: Vec<ImportedOne>,
    /// The host names.
    pub hosts: Vec<ImportedOne>,
}

/// What became of one record or host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ImportedOne {
    /// The connector's id, or the host name.
    pub what: String,
    /// The tunnel's id.
    pub tunnel: String,
    /// The record's address in the other store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What became of it.
    pub state: ImportState,
    /// Why it is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of something to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImportState {
    /// It was not known, and is now; of a dry run: it would be.
    Taken,
    /// It is known; gost has not called for it yet.
    Held,
    /// It is known, and gost has called for it.
    Renewed,
    /// It belongs to another host.
    Elsewhere,
    /// It cannot be taken.
    Refused,
}

/// A record that is not known any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct PastReport {
    /// The connector's id.
    pub id: String,
    /// Where gost dialled it.
    pub address: String,
    /// The agent that it was registered at.
    pub agent: String,
    /// When it went, as the reporting agent's clock has it: [`spell`](crate::wall_clock::spell).
    pub at: String,
    /// How many seconds ago that was.
    pub gone_seconds: f64,
    /// Why, as far as the reporting agent can tell: a sentence.
    pub why: Sentence,
}

/// `/history.json`: the last ten minutes, the oldest sample first. Each list has as many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct HistoryReport {
    /// Seconds between two samples.
    pub step_seconds: f64,
    /// gost's calls a second.
    pub calls_per_second: Vec<f64>,
    /// The time that 99 of 100 calls took at most, in milliseconds, as exactly as the buckets of the metrics; none without calls.
    pub p99_ms: Vec<Option<f64>>,
    /// Records and peers that came, went or changed, a second.
    pub changes_per_second: Vec<f64>,
    /// The median of the round-trip times to the peers that are heard, in milliseconds; none without peers.
    pub rtt_ms: Vec<Option<f64>>,
}

/// `/hosts.json?search=TEXT&limit=N`: host names that lead to tunnels, but for hash hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct HostsReport {
    /// How many match, those beyond the limit included.
    pub total: usize,
    /// The first of them, by name.
    pub hosts: Vec<HostNameReport>,
}

/// A host name, or a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct HostNameReport {
    /// The name.
    pub host: String,
    /// `configured` by the operator, or `claimed` by the tunnel.
    pub by: String,
    /// Whether the tunnel is private.
    pub private: bool,
    /// The tunnel's id.
    pub tunnel: String,
    /// Its records that Get lists here: where there is none, visitors get 503.
    pub listed: usize,
    /// The agents that own its records.
    pub agents: Vec<String>,
}

/// The other host by whose gost visitors get to a tunnel, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct AroundReport {
    /// The agent of that host; none if there is no way around.
    pub agent: Option<String>,
    /// The entrypoint of its gost, with which an answer begins.
    pub address: Option<String>,
    /// How many seconds ago it was asked for what it said.
    pub said_seconds: Option<f64>,
    /// The same, or the reason, in a sentence.
    pub why: Sentence,
}

/// The rule by which a host name leads to a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct HostReport {
    /// The rule: the host itself or a wildcard.
    pub rule: String,
    /// `configured` by the operator, `claimed` by a tunnel, or the `hash` host that every tunnel has.
    pub by: String,
    /// Whether the tunnel is private: visitors do not get it by its id.
    pub private: bool,
}

/// One record, and its place in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct CandidateReport {
    /// Its place in the answer, from 1; none if it is hidden. Records of equal standing take turns.
    pub rank: Option<usize>,
    /// Why the record has this place, or why it is hidden: a sentence.
    pub why: Sentence,
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
    /// The state of that agent.
    pub state: MemberState,
    /// The round-trip time to that agent in milliseconds; none for the reporting agent.
    pub rtt_ms: Option<f64>,
    /// What a dial of the address from the reporting agent's host showed: `works`, `untried`, `refused` or `silent`; `own`
    /// if it is registered at the reporting agent, which is not dialled.
    #[serde(default)]
    pub dial: String,
    /// How long the dial took in milliseconds, if it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_ms: Option<f64>,
    /// Seconds since the record last changed, as far as the reporting agent knows.
    pub known_seconds: f64,
    /// Its lease, if it is registered here; only its owner knows it.
    pub lease: Option<LeaseReport>,
}

/// How long a record lives without a Renew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct LeaseReport {
    /// Seconds until it lapses.
    pub remaining_seconds: f64,
    /// Seconds between its Renews, once they are known.
    pub period_seconds: Option<f64>,
}

/// `/matrix.json`: which host cannot reach whose entrypoint, as the agents that are heard say of their own hosts. Hosts dial
/// what their visitors want, so a pair that is not here was reached, or not needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct MatrixReport {
    /// The result in one sentence.
    pub verdict: Sentence,
    /// How many pairs of a host and an entrypoint there are, those beyond the first 1,000 included.
    pub total: usize,
    /// The first of them, by host and entrypoint.
    pub unreached: Vec<UnreachedReport>,
}

/// A host that cannot reach an entrypoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct UnreachedReport {
    /// The agent of the host that cannot reach it. If it is the owner, its gost takes connections and does not answer.
    pub agent: String,
    /// The agent whose gost has the entrypoint; none if no record that is known has it.
    pub owner: Option<String>,
    /// The entrypoint, `host:port`.
    pub address: String,
    /// What dials showed: `refused` or `silent`; `frozen` if the owner says of its own gost that it does not answer,
    /// `uncalled` if it says that this has not called since the agent started.
    pub dial: String,
    /// Seconds since the reporting agent has known that.
    pub seconds: f64,
}

/// The data of one event of `/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct TimedEvent {
    /// When it happened, as the reporting agent's clock has it: [`spell`](crate::wall_clock::spell).
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub what: EventReport,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum EventReport {
    /// A record is listed from now on.
    RecordUp(RecordReport),
    /// A record is not listed any more.
    RecordDown(RecordReport),
    /// A peer is heard, for the first time or again.
    PeerUp(PeerReport),
    /// A peer is silent; its records come last.
    PeerSuspect(PeerReport),
    /// A peer has been silent for so long that its records are hidden.
    PeerDead(PeerReport),
    /// A peer has another address, version or other keys than before.
    PeerChanged(PeerChangeReport),
    /// A peer left.
    PeerLeft(PeerReport),
    /// A peer has been dead for so long that it is forgotten.
    PeerForgotten(PeerReport),
    /// An entrypoint of an agent's gosts is not reached from this host, or from others if it is this agent's.
    Unreached(ReachReport),
    /// It is reached again, or nobody needs it any more.
    Reached(ReachReport),
    /// Events that the reader does not have are gone: it has to read the status again.
    Missed,
}

/// A peer, in an [`EventReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct PeerReport {
    /// Its name.
    pub agent: String,
}

/// A peer that is not what it was, in an [`EventReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct PeerChangeReport {
    /// Its name.
    pub agent: String,
    /// What it does, or has, now: a phrase.
    pub what: Sentence,
}

/// An entrypoint that hosts reach or do not, in an [`EventReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ReachReport {
    /// The agent whose gost has it.
    pub agent: String,
    /// The entrypoint, `host:port`.
    pub address: String,
    /// The agents of the hosts that do not reach it, at most 16; none if it is reached.
    pub by: Vec<String>,
}

/// A record, in an [`EventReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RecordReport {
    /// The tunnel's id.
    pub name: String,
    /// The connector's id.
    pub id: String,
    /// Where gost dials it.
    pub address: String,
    /// The agent that it is registered at.
    pub agent: String,
}

impl EventReport {
    /// The event's name in the stream, the same as `event` in the data.
    pub(crate) fn tag(&self) -> String {
        let data = serde_json::to_value(self).unwrap_or_default();
        data["event"].as_str().unwrap_or_default().to_owned()
    }
}
