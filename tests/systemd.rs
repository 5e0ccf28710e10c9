//! The unit and the configuration that are shipped for systemd: understood, and closed to what gossd does not need.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::gossd;
use tempfile::TempDir;

const UNIT: &str = include_str!("../examples/systemd/gossd.service");
const SETTINGS: &str = include_str!("../examples/systemd/gossd.toml");
/// Of ten, times ten: what systemd's own judgement may say at most. Most of it is the network, which gossd is for.
const EXPOSURE: &str = "15";

/// What the unit sets a key to.
fn set(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The unit, starting the program of these tests.
fn installed() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gossd.service");
    let unit = UNIT.replace("/usr/bin/gossd", env!("CARGO_BIN_EXE_gossd"));
    assert_ne!(unit, UNIT);
    std::fs::write(&path, unit).expect("a file");
    (folder, path)
}

/// What systemd says of the unit, if this machine has it, and whether it is content.
fn analyze(args: &[&str], unit: &Path) -> Option<(bool, String)> {
    let Ok(output) = Command::new("systemd-analyze").args(args).arg(unit).output() else {
        println!(
            "SKIPPED: systemd-analyze is not installed; nothing has shown what systemd thinks of the unit"
        );
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn systemd_understands_the_unit() {
    let (_folder, unit) = installed();
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let Some((content, said)) = analyze(&verify, &unit) else { return };
    assert!(content && said.is_empty(), "{said}");
}

#[test]
fn the_service_may_do_little_besides_its_work() {
    let (_folder, unit) = installed();
    let threshold = format!("--threshold={EXPOSURE}");
    let Some((content, said)) = analyze(&["security", "--offline=yes", &threshold, "--no-pager"], &unit)
    else {
        return;
    };
    assert!(content, "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_unit_starts_the_program_that_it_ships_settings_for() {
    assert_eq!(set("ExecStart"), ["/usr/bin/gossd run --config /etc/gossd/gossd.toml"]);
    assert_eq!((set("User"), set("Group")), (vec!["gossd"], vec!["gossd"]));
    // `gossd leave` and `gossd healthcheck` look in this folder.
    assert_eq!(set("RuntimeDirectory"), ["gossd"]);
    // "always" would undo `gossd leave`.
    assert_eq!(set("Restart"), ["on-failure"]);
}

/// The settings that are shown but not made.
fn shown() -> String {
    let is_key = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let lines: Vec<_> = SETTINGS.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    lines.join("\n")
}

#[test]
fn the_settings_as_they_are_and_as_they_are_shown_are_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    common::write_secret(&tokens, "0b7c1f0e5d7a4c9f8e21d3a6b5947c10\n");
    let shown = shown().replace("/etc/gossd/tokens", tokens.to_str().expect("text"));
    for settings in [SETTINGS, &shown] {
        let path = folder.path().join("gossd.toml");
        std::fs::write(&path, settings).expect("a file");
        let output = gossd().args(["gost-config", "--config"]).arg(&path).output().expect("gossd runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let made = SETTINGS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(made.count(), 0, "as it is, the agent has no key and stays on loopback");
}
