//! The inputs that the fuzzers kept, once more: none breaks a promise. `scripts/fuzz.sh` finds others.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

#[path = "../fuzz/src/lib.rs"]
mod targets;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// Runs the inputs of a target, one per line in base64. There has to be at least one.
fn replay(target: &str, run: fn(&[u8])) {
    let path = folder("corpus").join(target).with_extension("base64");
    let corpus = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!corpus.is_empty(), "{} is empty", path.display());
    for line in corpus.lines() {
        // Seen where a panic is about it.
        println!("{line}");
        run(&BASE64.decode(line).expect("it is base64"));
    }
}

macro_rules! replay {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target), targets::$target::run);
        }
    )*

        /// Every target that is fuzzed is replayed.
        #[test]
        fn every_target_is_here() {
            let mut here = vec![$(stringify!($target)),*];
            here.sort_unstable();
            for name in ["corpus", "dictionaries", "fuzz_targets"] {
                let entries = fs::read_dir(folder(name)).unwrap();
                let mut there: Vec<String> = entries
                    .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                    .collect();
                there.sort_unstable();
                assert_eq!(there, here, "{name}");
            }
        }
    };
}

replay! {
    address_completion
    board_cards
    config_file
    frame_payload
    ingress_host
    journal
    plugin_http
    handshake
    slot_value
}
