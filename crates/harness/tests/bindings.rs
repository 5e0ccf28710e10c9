//! The bindings in the tree are those of `plugin.proto`, so that building gossd needs no protobuf compiler.
//! `GOSSD_REFRESH=1 cargo test --package gossd-harness --test bindings` writes them anew.

use std::fs;
use std::path::Path;

use prost::Message as _;

/// What the agent has: messages and descriptors.
const AGENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/plugin/grpc");
/// What only tests have: clients and servers.
const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
const HEAD: &str = "//! Written by `GOSSD_REFRESH=1 cargo test --package gossd-harness --test bindings` from plugin.proto; not to be edited.\n\n";

#[test]
fn the_bindings_and_the_descriptors_are_those_of_the_proto() {
    let descriptors = protox::compile(["plugin.proto"], [AGENTS]).expect("plugin.proto compiles");
    let scratch = tempfile::tempdir().expect("a folder");
    let written = |builder: tonic_prost_build::Builder| {
        builder.out_dir(scratch.path()).compile_fds(descriptors.clone()).expect("bindings are written");
        let bindings = fs::read_to_string(scratch.path().join("proto.rs")).expect("named after the package");
        HEAD.to_owned() + &bindings
    };
    let builder = tonic_prost_build::configure;
    let messages = written(builder().build_client(false).build_server(false));
    keep(AGENTS, "generated.rs", messages.as_bytes());
    keep(AGENTS, "plugin.bin", &descriptors.encode_to_vec());
    // `connect` needs a feature of tonic that only tests use.
    let services = builder().build_transport(false).extern_path(".proto", "::gossd::plugin::grpc::generated");
    keep(SERVICES, "services.rs", written(services).as_bytes());
}

/// Compares a file with its expected content, or writes it.
fn keep(folder: &str, name: &str, current: &[u8]) {
    let path = Path::new(folder).join(name);
    if std::env::var_os("GOSSD_REFRESH").is_some() {
        fs::write(&path, current).expect("the tree can be written");
    }
    let kept = fs::read(&path).unwrap_or_default();
    assert!(
        kept == current,
        "{name} is not current: GOSSD_REFRESH=1 cargo test --package gossd-harness --test bindings"
    );
}
