//! The rules, without the world: no clock, socket, file or random source. Time and randomness come in as
//! arguments, changes come out as values.
//!
//! Reading order: [`record`], [`label`] and [`address`] (what gost registers), [`slot`] (what an owner publishes) and [`codec`] (the same as bytes), [`lease`]
//! (the owner's records), [`instance`] and [`entrypoints`] (what it knows of its gosts), [`cells`] and [`replica`] (a copy of
//! what one generation of an owner published), [`replicas`] (of all, and which of them are shown), [`tunnels`] (the index of
//! what is shown, by tunnel), [`reindex`] (keeps it so, a bite at a time), [`hostname`] (who has which host name), [`directory`] (these three in step), [`rank`] (the order
//! of an answer). What makes one agent of all that: [`agent`]. How agents talk to each other: [`link`].

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "this is for those who work on it: --document-private-items"
)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test's time begins somewhere"))]

pub mod address;
pub mod agent;
pub mod capacity;
pub mod cells;
pub mod codec;
pub mod complaint;
pub mod connection;
#[cfg(test)]
mod convergence;
pub mod directory;
pub mod entrypoints;
pub mod event;
pub mod hostname;
pub mod instance;
pub mod label;
pub mod lease;
pub mod link;
pub mod liveness;
pub mod locality;
pub mod moment;
mod parts;
mod period;
pub mod quota;
pub mod rank;
pub mod record;
pub mod reindex;
pub mod replica;
pub mod replicas;
pub mod slot;
pub mod tombstone;
pub mod tunnels;
