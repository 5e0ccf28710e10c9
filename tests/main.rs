//! The tests of agents as they run: in this process or as programs, through real sockets. One program, because linking takes
//! longer than most of them: `cargo test --locked --features fuzz --test it admin::` runs those of one file.

mod admin;
mod check;
mod cli;
mod cluster;
mod common;
mod compose;
mod corpus;
mod faults;
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
mod own_gost;
mod packaging;
mod page;
mod plugin_auth;
mod plugin_bounds;
mod plugin_grpc;
mod plugin_http;
mod plugin_table;
mod plugin_tls;
mod plugin_wire;
mod program;
mod readme;
mod reload;
mod secrets;
mod supervision;
mod systemd;
mod takeover;
