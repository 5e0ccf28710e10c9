//! What the fuzzers found worth keeping, once more: no input breaks a promise. `scripts/fuzz.sh` finds others.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Runs a target's inputs, which there have to be.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    for path in paths {
        // What is printed stays unseen, but for the input that a panic is about.
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
    }
}

macro_rules! replay {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target), targets::$target::run);
        }
    )*

        /// Every target that is fuzzed is replayed, and every one there is has inputs.
        #[test]
        fn every_target_is_here() {
            let mut here = vec![$(stringify!($target)),*];
            here.sort_unstable();
            for folder in ["fuzz/corpus", "fuzz/fuzz_targets"] {
                let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
                let mut there: Vec<String> = entries
                    .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                    .collect();
                there.sort_unstable();
                assert_eq!(there, here, "{folder}");
            }
        }
    };
}

replay! {
    address_completion
    chitchat_message
    config_file
    frame_payload
    ingress_host
    journal
    plugin_http
    sealed_frame
    slot_value
}
