//! The rules, without the world: no clock, socket, file or random source. Time and randomness come in as
//! arguments, changes come out as values.
//!
//! Reading order: [`record`], [`label`] and [`address`] (what gost says), [`slot`] (what an owner tells the cluster),
//! [`lease`] (the owner's truth), [`instance`] and [`entrypoints`] (what it knows of its gosts), [`replica`] (a copy of an owner's [`cells`]), [`directory`] (everybody's read index, of
//! replicas and [`tunnels`]), [`rank`] (the order of an answer). Which tunnel has which host name: [`hostname`]. What makes
//! one agent of all that: [`agent`].

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test's time begins somewhere"))]

pub mod address;
pub mod agent;
pub mod capacity;
pub mod cells;
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
pub mod liveness;
pub mod moment;
mod period;
pub mod quota;
pub mod rank;
pub mod record;
pub mod replica;
pub mod replicas;
pub mod slot;
pub mod tombstone;
pub mod tunnels;
