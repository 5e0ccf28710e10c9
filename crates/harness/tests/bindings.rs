//! The bindings in the tree are those of `plugin.proto`, so that building gossd needs no protobuf compiler.
//! `GOSSD_REFRESH=1 cargo test --package gossd-harness --test bindings` writes them anew.

use std::fs;
use std::path::Path;

use prost::Message as _;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/plugin/grpc");
const HEAD: &str = "//! Written by `GOSSD_REFRESH=1 cargo test --package gossd-harness --test bindings` from plugin.proto; not to be edited.\n\n";

#[test]
fn the_bindings_and_the_descriptors_are_those_of_the_proto() {
    let descriptors = protox::compile(["plugin.proto"], [FOLDER]).expect("plugin.proto compiles");
    let scratch = tempfile::tempdir().expect("a folder");
    tonic_prost_build::configure()
        .out_dir(scratch.path())
        // `connect` needs a feature of tonic that only tests use.
        .build_transport(false)
        .compile_fds(descriptors.clone())
        .expect("bindings are written");
    let bindings = fs::read_to_string(scratch.path().join("proto.rs")).expect("named after the package");
    keep("generated.rs", (HEAD.to_owned() + &bindings).as_bytes());
    keep("plugin.bin", &descriptors.encode_to_vec());
}

/// Compares a file with its expected content, or writes it.
fn keep(name: &str, current: &[u8]) {
    let path = Path::new(FOLDER).join(name);
    if std::env::var_os("GOSSD_REFRESH").is_some() {
        fs::write(&path, current).expect("the tree can be written");
    }
    let kept = fs::read(&path).unwrap_or_default();
    assert!(
        kept == current,
        "{name} is not current: GOSSD_REFRESH=1 cargo test --package gossd-harness --test bindings"
    );
}
