//! gossd runs beside every gost tunnel server, answers gost's service discovery calls from memory, and gossips
//! the records to its peers, so that a visitor who arrives at any host reaches a tunnel attached to any other.
//! There is no central store.
//!
//! ```text
//! gost ──POST──▶ plugin ──▶ agent ──▶ lease table (owner's truth)
//!                             ├──▶ directory           (readable before the reply is sent)
//!                             ├──▶ push ───────────────▶ peers' directories      ~ one network delay
//!                             ├──▶ version ─▶ peers ask for what they miss          repair, newcomers
//!                             └──▶ journal             (after the reply; batched)
//! gost ──GET──▶ plugin ──▶ directory ──▶ rank ──▶ JSON or protobuf
//! gost ──PUT──▶ plugin ──▶ agent ──▶ lease deadline moves; nothing leaves the host
//! ```
//!
//! # The map
//!
//! The rules are a crate of their own, [`gossd_core`]: records, leases, claims, slots, the directory, liveness, ranking,
//! the protocol between agents, and the agent's decisions about calls, peers and time. It has no clock, socket, file or
//! random source; its dependencies and its lints keep it so. Around it, each module may use those to its right, never those
//! to its left:
//!
//! `main → cli → daemon → {ingress_file → plugin, ops → listeners} → {agent, host} → {net, journal} → gossd_core`
//!
//! | module | what it is | what it must not know |
//! |---|---|---|
//! | [`net`] | the sockets of `gossd_core::link`, its task, names to join at, the key file | the content of frames |
//! | [`journal`] | own leases, gosts' periods and entrypoints, claims, draining and generation on disk | what a lease is, what time it is |
//! | [`agent`] | the lock, the clock, the loop and the dials around `gossd_core::agent` | who calls it, and how |
//! | [`host`] | this host's own addresses: by setting, by name, by interface and route | agents, gosts |
//! | [`plugin`] | gost's calls: one meaning, an adapter per protocol | the network |
//! | [`ingress_file`] | host names in a file that gost itself reads | protocols |
//! | [`ops`] | the operators' door, by TCP and a Unix socket: status, page, probes; by the socket leave, drain, keys, taking over | the plugin |
//! | [`listeners`] | the sockets, which outlive the process: inherited, kept, passed on | protocols |
//! | [`secret_file`] | files of keys and tokens, closed to other users | what they are for |
//! | [`invite`] | what another host needs to join, as one line | who asks for it |
//! | [`web_page`] | which requests a browser made for a page of somebody else | paths and answers |
//! | [`rejected`] | requests that were turned away: counted, logged at a bounded pace | protocols |
//! | [`unix_socket`] | socket files: bound, replaced, removed | protocols |
//! | [`own_log`] | the newest lines of the log, and how many were dropped | what a line means |
//! | [`sentence`] | the sentences for operators, marked for the page's translation | any language |
//! | [`wall_clock`] | the time of day, for reports and logs | everything else |
//! | [`memory`] | the memory limits of this process, and what fits below them | what is held |
//! | [`metrics`] | metrics in the format that Prometheus reads | their meaning |
//! | [`config`] | the operator's settings, checked | flags, variables and files |
//! | [`daemon`] | validate, bind, spawn, wait, stop | protocols |
//! | [`cli`] | flags, verbs, everything printed | the inside of an agent |
//!
//! Read [`gossd_core`] first, then [`agent`], [`plugin`] and [`net`].
//!
//! # Terms
//!
//! An *agent* is one running gossd; every start of it has a higher *generation*. An *instance* is one gost
//! handler instance. A *record* is what gost registered; the agent that it was registered at is its *owner*,
//! the only one that ever writes it. A *lease* is the owner's clockwork for a record: renewed, lapsed,
//! released. The *directory* is what a Get is answered from. A *slot* is an owner's n-th cell, the unit of
//! replication, and its *version* the owner's running number of changes. A *push* is a frame of fresh changes. An agent
//! that has less of an owner than the owner's version asks for the rest: *repair*. Versions are sent in pings, and above 96
//! agents compared as hashes beside the board. The *board*
//! has a card of every agent, also of the silent ones; agents compare a hash of it, and exchange cards if it differs. An
//! *identity* is the key pair of an agent, kept beside its journal, and a *session* an encrypted channel between two agents'
//! starts; a *handshake* makes it. A
//! *claim* is a tunnel's right to a *host name*; the agent that gets it by `SetRule` states it, in a slot like a record's. A
//! tunnel that any claim makes *private* is so under all its names. A *keyring* is the keys of an agent: handshakes
//! begin with the first one, its sealing key, and are answered with any of them. A peer is *doubted* after 1.2 s of silence,
//! *suspect* after 2.6 s. Up to 96 agents are a *mesh*, in which everybody pings everybody; above, each has eight *watchers*, and
//! the word of three, an *alert* each, is that silence. An entrypoint that visitors want is *dialled* from here; a *hole* is a tunnel of which this host can
//! dial no record, and a *detour* the gost of a peer that can.
//!
//! # Invariants
//!
//! Besides the tests named here, `gossd-lab simulate` checks 2 to 6 and 11 in a thousand stories of clusters in
//! virtual time, with loss, partitions, crashes and restarts.
//!
//! 1. A plugin call waits for nothing but memory: no disk, network, DNS or other agent. The calls of
//!    [`plugin::ServiceDiscovery`] and [`agent::Agent`] are not `async`, so they cannot. Only in an agent's first half
//!    second, a question waits for records of the peers: [`plugin::gate`].
//! 2. Renewals never leave the host: `gossd_core::agent::tests::renewals_leave_nothing_to_tell`.
//! 3. Only the owner writes a record; everything else is a cache of it, ordered by the owner's own
//!    version: `gossd_core::agent::tests::nobody_else_can_write_our_records`, `gossd_core::convergence` for any order, and for copies
//!    of copies `gossd_core::replica`. A push
//!    names no owner: it is the session's agent, so nobody can push another's slots. Others are asked for them only
//!    while the owner is not heard, `gossd_core::link::tests`.
//! 4. The first Deregister of an id wins over every call that was in flight beside it; an id that is registered again
//!    later is a new record: `gossd_core::convergence::the_first_deregister_wins_over_all_that_is_in_flight_beside_it`,
//!    and over restarts `gossd_core::agent::tests::what_the_journal_kept_is_answered_from_the_first_moment` and `tests/own_gost.rs`.
//! 5. No record outlives its owner's last sign of life by more than its TTL:
//!    `gossd_core::agent::tests::a_record_that_nobody_renews_lapses`, `gossd_core::lease::model`, and for a lost host
//!    `tests/faults.rs`. The exceptions are self-preservation, `gossd_core::liveness`; a gost that outlives its agent,
//!    listed last, `gossd_core::agent::reach`; and a gost that answers dials while its Renew period is not known yet,
//!    `gossd_core::lease::doubt`. A gost that is dead, or asks for what it registered, keeps none: `gossd_core::agent::gosts::tests`.
//! 6. A Get lists no record of a superseded or dead instance or generation:
//!    `gossd_core::lease::tests::an_instance_that_registers_at_anothers_entrypoint_replaces_it_at_once`
//!    (of one with more than a hundred records, a bite after the other: `gossd_core::lease::verdict`),
//!    `gossd_core::convergence::the_newest_ready_generation_is_shown_whatever_arrives_when`; no address without a
//!    usable port or host: the tables in `gossd_core::address` and `gossd_core::link::slots`; and what surely works
//!    from here before what may: `gossd_core::rank`, and `gossd_core::agent::reach::tests` for what a dial showed. An answer may begin with
//!    the way around a hole, one step and never for a private tunnel: `gossd_core::agent::holes`.
//! 7. A frame counts only for the agent that it was made for, from the agent of its session, once, and only in a session
//!    whose handshake was made since it was last silent; bytes that are not authentic reach no parser but the head's, and
//!    nothing that a peer or client sends can end a loop or an agent: `gossd_core::link::tests`, `tests/hostile_*.rs`, and
//!    what the fuzzers kept, `tests/corpus.rs`.
//! 8. [`gossd_core`] reads no clock, socket, file or random source: its Cargo.toml and its clippy.toml.
//! 9. One lock over the state, in [`agent`], never held across an `.await`: clippy's `await_holding_lock`.
//! 10. Every task is owned by the [`daemon`]; one that ends early ends the process:
//!     `daemon::tests::a_task_that_ends_fails_or_panics_is_a_fault`.
//! 11. A host name leads to one tunnel, the same at every agent that has heard the same, in whatever order:
//!     `gossd_core::agent::hostnames::agreement::whatever_was_claimed_where_and_heard_when_all_come_to_one_answer`; and it stays that
//!     tunnel's while any agent has a record of it: `tests/ingress.rs`.
//! 12. However keys are changed, and wherever, agents that were not forced apart have a key in common, and come to the
//!     same keys: `gossd_core::link::keyring::tests`, the property there, and `gossd_core::link::tests::rotation`.
//!
//! # Deliberately absent
//!
//! No proxying, no configuration store, no consensus: an OK to Register means "held here and on its way". No
//! wall clock is compared across hosts, nor across two starts of one: `gossd_core::link::peers`. Up to about 200 agents and 100,000 records in one cluster.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "this is for those who work on it: --document-private-items"
)]

pub mod agent;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod host;
pub(crate) mod ingress_file;
pub(crate) mod invite;
pub mod journal;
pub(crate) mod listeners;
pub(crate) mod memory;
pub(crate) mod metrics;
pub mod net;
pub(crate) mod ops;
pub mod own_log;
pub mod plugin;
pub(crate) mod rejected;
pub(crate) mod secret_file;
pub mod sentence;
pub(crate) mod unix_socket;
pub(crate) mod wall_clock;
pub(crate) mod web_page;

#[cfg(feature = "schema")]
pub use ops::openapi::openapi;
