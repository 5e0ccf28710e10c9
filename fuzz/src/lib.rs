//! What the fuzzers do with an input: one module per target, each with a `run` that panics where the code breaks a
//! promise. `fuzz_targets` feeds them from libFuzzer; `tests/corpus.rs` of gossd, from the inputs that were kept.

#![allow(unreachable_pub, reason = "a test has these modules as its own, too")]

pub mod address_completion;
pub mod board_cards;
pub mod config_file;
pub mod frame_payload;
pub mod handshake;
pub mod ingress_host;
mod input;
pub mod journal;
mod peer;
pub mod plugin_http;
pub mod slot_value;
