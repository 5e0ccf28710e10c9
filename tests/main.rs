//! The tests of agents as they run: in this process or as programs, through real sockets. One program, because linking takes
//! longer than most of them: `cargo test --locked --features fuzz --test it admin::` runs those of one file.

mod addresses;
mod admin;
mod admin_access;
mod around;
mod chart;
mod check;
mod claim_bounds;
mod claim_policy;
mod cli;
mod cluster;
mod common;
mod compose;
mod corpus;
mod debug;
mod deceptive_names;
mod demo;
mod disk;
mod faults;
mod forgotten;
mod gost_yaml;
mod guests;
mod hostile_clients;
mod hostile_network;
mod hostile_peers;
mod ingress;
mod ingress_file;
mod keys;
mod kubernetes;
mod log;
mod memory;
mod migrate;
mod monitoring;
mod openapi;
mod own_gost;
mod packaging;
mod page;
mod page_chinese;
mod page_looks;
mod plugin_auth;
mod plugin_bounds;
mod plugin_grpc;
mod plugin_http;
mod plugin_table;
mod plugin_tls;
mod plugin_wire;
mod private_files;
mod program;
mod promises;
mod reach;
mod readme;
mod reload;
mod secrets;
#[path = "../crates/harness/src/services.rs"]
#[rustfmt::skip]
#[allow(clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications, reason = "as a program wrote it")]
mod services;
mod supervision;
mod systemd;
mod takeover;
mod versions;
mod web_pages;
mod wrong_settings;
