//! Settings that are wrong: one line that names what is wrong, where it was set and what would do, each thing once; and an exit
//! code that a service manager can tell from a failure.

use std::fs;
use std::process::Output;

use crate::common::process::gossd;

/// No agent could start with these, wherever they are set.
const WRONG: [(&str, &str, &str); 16] = [
    ("lease-ttl", "0", "5 to 3600"),
    ("lease-ttl", "abc", "5 to 3600"),
    ("gossip", "0.0.0.0:8002", "--key-file"),
    ("gossip", ":8002", "127.0.0.1:8000"),
    ("plugin", "foo", "127.0.0.1:8000"),
    ("plugin", "0.0.0.0:8000", "--token-file"),
    ("metrics", "8003", "127.0.0.1:8000"),
    ("join", "10.0.0.1:8002", "no --key-file"),
    ("cluster", "", "empty"),
    ("ingress-domain", "a..b", "a..b"),
    ("ingress-reserved", "a..b", "a..b"),
    ("ingress-min-label", "999", "1 to 63"),
    ("max-connections", "0", "from 1"),
    ("max-records", "x", "1 to"),
    ("order", "fast", "nearest"),
    ("log-level", "gosd=debug", "gossd=info"),
];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// The lines that tell what is wrong. Behind them, clap says where help is.
fn assert_says_it_once(said: &str, want: &str, what: &str) {
    assert!(said.contains(want), "{what}: {said}");
    let parts: Vec<&str> = said.split(": ").collect();
    let twice = parts.windows(2).any(|pair| pair[0].ends_with(pair[1]));
    assert!(!twice, "{what} says it twice: {said}");
}

#[test]
fn on_the_command_line() {
    for (key, value, want) in WRONG {
        let output = gossd()
            .args(["run", "--data-dir", "none", &format!("--{key}={value}")])
            .output()
            .expect("gossd runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "--{key} {value}: {said}");
        assert_says_it_once(&said, want, key);
        assert!(!said.contains("variable") && !said.contains("is set by"), "{key}: {said}");
    }
}

#[test]
fn in_a_variable_which_is_blamed_and_no_flag_that_nobody_typed() {
    for (key, value, want) in WRONG {
        let variable = format!("GOSSD_{}", key.replace('-', "_").to_uppercase());
        let output =
            gossd().args(["run", "--data-dir", "none"]).env(&variable, value).output().expect("gossd runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {said}");
        assert_says_it_once(&said, want, &variable);
        assert!(said.contains(&variable), "{variable}: {said}");
    }
    // A line break, as the end of a file that a variable was filled from, hides no reason.
    let broken = gossd().args(["run", "--data-dir", "none"]).env("GOSSD_NAME", "a\n").output();
    let broken = said(&broken.expect("gossd runs"));
    assert!(broken.contains(r"a\n") && broken.contains("letters, digits"), "{broken}");
    let empty = gossd().args(["run", "--data-dir", "none"]).env("GOSSD_JOIN", "").output();
    let empty = said(&empty.expect("gossd runs"));
    assert!(empty.contains("GOSSD_JOIN") && empty.contains("is empty: leave it out"), "{empty}");
    let nested = gossd().args(["keys", "list"]).env("GOSSD_NAME", "a b").output().expect("gossd runs");
    assert!(said(&nested).contains("the variable GOSSD_NAME"), "{}", said(&nested));
}

#[test]
fn in_the_file_which_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gossd.toml");
    for (key, value, want) in WRONG {
        fs::write(&path, format!("data-dir = \"none\"\n{key} = \"{value}\"\n")).expect("a file");
        let output = gossd().arg("run").arg("--config").arg(&path).output().expect("gossd runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{key} = {value}: {said}");
        assert_says_it_once(&said, want, key);
        assert!(said.contains("gossd.toml"), "{key}: {said}");
    }
    for (text, want) in [("max_records = 5", "did you mean max-records?"), ("max-records = [", "line 1")] {
        fs::write(&path, text).expect("a file");
        let output = gossd().arg("run").arg("--config").arg(&path).output().expect("gossd runs");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_says_it_once(&said(&output).replace('\n', " "), want, text);
    }
    let output = gossd().args(["run", "--config", "/nonexistent"]).output().expect("gossd runs");
    assert_eq!(output.status.code(), Some(2));
    assert_says_it_once(&said(&output), "/nonexistent: No such file", "a file that is not there");
}

/// Files that cannot be read are no wrong settings: the disk may be mounted later.
#[test]
fn a_file_that_cannot_be_read_is_named_once_with_its_cause() {
    for flags in [
        &["run", "--key-file", "/nonexistent"][..],
        &["run", "--token-file", "/nonexistent"],
        &["run", "--admin-token-file", "/nonexistent"],
        &["run", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"],
        &["join", "/nonexistent"],
        &["keys", "add", "/nonexistent", "--control", "/nonexistent.sock"],
        &["status", "--admin", "127.0.0.1:1", "--admin-token-file", "/nonexistent"],
    ] {
        let output = gossd()
            .args(flags)
            .envs([
                ("GOSSD_DATA_DIR", "none"),
                ("GOSSD_PLUGIN", "127.0.0.1:0"),
                ("GOSSD_GOSSIP", "127.0.0.1:0"),
            ])
            .output()
            .expect("gossd runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert_says_it_once(last, "No such file or directory", &format!("{flags:?}"));
        assert_eq!(last.matches("No such file").count(), 1, "{last}");
        assert_eq!(last.matches("/nonexistent:").count(), 1, "{last}");
    }
}

#[test]
fn what_a_program_reads_of_get_is_an_address_or_nothing() {
    let agent = crate::common::process::Process::start("a", &[]);
    let output =
        gossd().args(["get", "nowhere", "--admin", &agent.admin.to_string()]).output().expect("gossd runs");
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b""[..]));
    assert!(said(&output).contains("no tunnel and no host of that name"), "{}", said(&output));
}
