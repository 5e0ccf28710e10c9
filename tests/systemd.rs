//! The unit and the configuration for systemd: valid, and closed to everything that gossd does not need.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::eventually;
use crate::common::http::{call, request};
use crate::common::process::gossd;
use tempfile::TempDir;

const UNIT: &str = include_str!("../examples/systemd/gossd.service");
/// The same for one of several agents of a host.
const TEMPLATE: &str = include_str!("../examples/systemd/gossd@.service");
const SETTINGS: &str = include_str!("../examples/systemd/gossd.toml");
/// The worst rating by systemd, in tenths of ten. Most of it is for the network, which gossd needs, with the list of its addresses.
const EXPOSURE: &str = "13";

/// The values of a key in the unit.
fn set(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The unit with the program of these tests.
fn installed() -> (TempDir, PathBuf) {
    installed_as("gossd.service", UNIT)
}

fn installed_as(name: &str, unit: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let with_program = unit.replace("/usr/bin/gossd", env!("CARGO_BIN_EXE_gossd"));
    assert_ne!(unit, with_program);
    fs::write(&path, with_program).expect("a file");
    (folder, path)
}

/// The output of `systemd-analyze` for the unit, if this machine has it, and whether it succeeded.
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
    for (name, unit) in [("gossd.service", UNIT), ("gossd@b.service", TEMPLATE)] {
        let (_folder, unit) = installed_as(name, unit);
        let verify = ["verify", "--man=no", "--recursive-errors=no"];
        let Some((content, said)) = analyze(&verify, &unit) else { return };
        assert!(content && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn the_unit_for_several_agents_differs_in_their_places_alone() {
    let settings = |unit: &'static str| unit.lines().filter(|line| !line.starts_with('#'));
    let differ = settings(UNIT).zip(settings(TEMPLATE)).filter(|(one, other)| one != other);
    let differ: Vec<&str> = differ.map(|(_, other)| other).collect();
    assert_eq!(settings(UNIT).count(), settings(TEMPLATE).count());
    assert_eq!(
        differ,
        [
            "Description=Service discovery for gost tunnels (%i)",
            "ExecStart=/usr/bin/gossd run --config /etc/gossd/%i.toml",
            // Within the folder of the other unit, which purging the package removes.
            "StateDirectory=gossd/%i",
            // Not within the folder of the other unit, which systemd removes when that one stops.
            "RuntimeDirectory=gossd-%i",
        ]
    );
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
    // The exit code of wrong settings: see tests/wrong_settings.rs.
    assert_eq!(set("RestartPreventExitStatus"), ["2"]);
}

/// Nobody, without capabilities, with one writable folder: what the unit promises, as far as it works without systemd.
/// scripts/deb-test.sh shows the rest.
const CONFINED: &str = "set -e
mount --make-rprivate /
mount -o remount,bind,ro /
mount -t tmpfs -o size=64m,mode=700,uid=65534,gid=65534 state \"$1\"
shift
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all --bounding-set -all --no-new-privs \"$@\"";

/// A process that ends with the test.
struct Confined(Child);

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Confined {
    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.0.id()).into()
    }

    /// A line of the kernel's status of the process.
    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(self.proc("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("a line").split_whitespace().next().expect("a word").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_capabilities_runs_it_where_only_its_folder_can_be_written() {
    let mut tried = Command::new("unshare");
    tried.args(["--mount", "sh", "-c", "mount --make-rprivate / && setpriv --version"]);
    if !tried.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!(
            "SKIPPED: this needs root, unshare and setpriv; nothing has shown that nobody can run gossd"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    let (state, key) = (folder.path().join("state"), folder.path().join("key"));
    fs::create_dir(&state).expect("a folder");
    // As in the package: owned by root, readable by its group.
    crate::common::write_secret(&key, gossd().arg("keygen").output().expect("gossd runs").stdout);
    fs::set_permissions(&key, Permissions::from_mode(0o640)).expect("ours");
    chown(&key, Some(0), Some(65534)).expect("we are root");
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", CONFINED, "sh"])
        .arg(&state)
        .arg(env!("CARGO_BIN_EXE_gossd"))
        .args(["run", "--name", "a", "--plugin", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--admin", "none"])
        .arg("--key-file")
        .arg(&key)
        .arg("--data-dir")
        .arg(&state)
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut agent = Confined(child);
    let mut line = String::new();
    BufReader::new(agent.0.stdout.take().expect("piped")).read_line(&mut line).expect("it starts");
    let plugin = line.trim().strip_prefix("plugin http://").and_then(|line| line.strip_suffix("/sd"));
    let plugin = plugin.unwrap_or_else(|| panic!("no agent: {line}")).parse().expect("an address");
    let body = r#"{"id":"i","name":"t","node":"n","network":"tcp","address":"10.0.0.1:80"}"#;
    assert_eq!(call(plugin, &request("POST", "/sd", body)).await.status(), 200);

    let told = ["Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs"].map(|name| agent.status(name));
    assert_eq!(told, ["65534", "65534", "0000000000000000", "0000000000000000", "1"]);
    // Owned by root: so no process of the same user can read its memory, and no core file is made.
    assert_eq!(fs::metadata(agent.proc("environ")).expect("it runs").uid(), 0);
    let journal = agent.proc("root").join(state.strip_prefix("/").expect("absolute")).join("a.journal");
    eventually(Duration::from_secs(10), "the journal is written", || {
        fs::metadata(&journal).is_ok_and(|file| file.len() > 0 && file.uid() == 65534)
    })
    .await;
    assert_eq!(fs::read_dir(&state).expect("a folder").count(), 0, "the system's own folder is as it was");
    let sent = Command::new("kill").arg(agent.0.id().to_string()).status().expect("kill runs");
    assert!(sent.success() && agent.0.wait().expect("it ends").success());
}

/// The settings of the example, which are commented out.
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
    crate::common::write_secret(&tokens, "0b7c1f0e5d7a4c9f8e21d3a6b5947c10\n");
    let shown = shown().replace("/etc/gossd/tokens", tokens.to_str().expect("text"));
    for settings in [SETTINGS, &shown] {
        let path = folder.path().join("gossd.toml");
        fs::write(&path, settings).expect("a file");
        let output = gossd().args(["gost-config", "--config"]).arg(&path).output().expect("gossd runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let made = SETTINGS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(made.count(), 0, "as it is, the agent has no key and stays on loopback");
}
