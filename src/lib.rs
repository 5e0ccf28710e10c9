//! gossd
pub mod agent;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod gossip;
pub mod plugin;
