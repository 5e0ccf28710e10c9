//! What an agent makes in the file system is its own user's, whatever the shell leaves open; and what is no secret file, or
//! no secret, is refused at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::process::{Process, gossd};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const SOON: Duration = Duration::from_secs(10);
const PORTS: [&str; 8] =
    ["--plugin", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--admin", "none", "--data-dir", "none"];

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Everything below a folder, with its permissions.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("a file");
        let name = entry.file_name().into_string().expect("text");
        let about = entry.metadata().expect("it is there");
        if about.is_dir() {
            found.extend(
                modes(&entry.path()).into_iter().map(|(below, mode)| (format!("{name}/{below}"), mode)),
            );
        }
        found.push((name, about.permissions().mode() & 0o777));
    }
    found.sort();
    found
}

#[test]
fn files_folders_and_sockets_are_private_under_any_umask() {
    for umask in ["000", "022", "077"] {
        let root = tempfile::tempdir().expect("a folder");
        let place = |name: &str| root.path().join(name).to_str().expect("text").to_owned();
        let (data, control, socket) =
            (place("state/data"), place("run/own/a.sock"), place("shared/gost/plugin.sock"));
        let line = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_gossd"), "run", "--name", "a"])
            .args(&PORTS[..6])
            .args(["--data-dir", &data, "--control", &control, "--plugin-socket", &socket])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("text").starts_with("plugin unix://")), "it starts");
        let found = modes(root.path());
        child.kill().and_then(|()| child.wait().map(drop)).expect("it runs");
        let mode = |name: &str| found.iter().find(|(found, _)| found == name).map(|(_, mode)| *mode);
        for (name, wanted) in [
            ("state", 0o700),
            ("state/data", 0o700),
            ("state/data/a.journal", 0o600),
            ("run", 0o700),
            ("run/own", 0o700),
            ("run/own/a.sock", 0o600),
            ("shared", 0o750),
            ("shared/gost", 0o750),
            ("shared/gost/plugin.sock", 0o660),
        ] {
            assert_eq!(mode(name), Some(wanted), "{name} under umask {umask}: {found:?}");
        }
        assert!(found.iter().all(|(_, mode)| mode.trailing_zeros() >= 3), "under umask {umask}: {found:?}");
    }
}

/// How a verb ends with these flags; it must not wait for anything.
fn ended(args: &[&str]) -> String {
    let start = Instant::now();
    let mut child = gossd()
        .args(args)
        .args(["--name", "a"])
        .args(PORTS)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gossd runs");
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > SOON {
            child.kill().expect("it runs");
            panic!("{args:?} did not end");
        }
        std::thread::yield_now();
    }
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
}

#[test]
fn a_pipe_a_device_or_a_folder_is_no_secret_file_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().expect("mkfifo runs").success());
    let cert = folder.path().join("cert.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(&cert, made.cert.pem()).expect("a file");
    for (path, what) in [
        (text(&pipe), "a pipe"),
        ("/dev/zero", "a pipe, socket or device"),
        (text(folder.path()), "a folder"),
    ] {
        for flags in [
            &["--key-file", path][..],
            &["--token-file", path],
            &["--admin-token-file", path],
            &["--tls-cert", text(&cert), "--tls-key", path],
            &["--tls-cert", path, "--tls-key", path],
        ] {
            for verb in ["run", "check"] {
                let told = ended(&[&[verb], flags].concat());
                assert!(told.contains(what) && told.contains("a file of its own"), "{flags:?}: {told}");
            }
        }
    }
}

#[test]
fn a_secret_of_another_user_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    crate::common::write_secret(&key, gossd().arg("keygen").output().expect("gossd runs").stdout);
    if chown(&key, Some(65_531), None).is_err() {
        println!("SKIPPED: only root can give a file away");
        return;
    }
    let told = ended(&["run", "--key-file", text(&key)]);
    assert!(told.contains("belongs to another user (uid 65531)") && told.contains("chown"), "{told}");
}

#[tokio::test]
async fn a_key_that_everybody_can_guess_is_refused_wherever_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    for byte in [0, 1, 0x6b, 0xff] {
        crate::common::write_secret(&key, STANDARD.encode([byte; 32]));
        let told = ended(&["run", "--key-file", text(&key)]);
        assert!(told.contains("everybody can guess") && told.contains("gossd keygen"), "{told}");
    }
    crate::common::write_secret(&key, gossd().arg("keygen").output().expect("gossd runs").stdout);
    let agent = Process::keeping("a", folder.path(), &["--key-file", text(&key)]);
    let socket = folder.path().join("a.sock");
    let weak = folder.path().join("weak");
    crate::common::write_secret(&weak, STANDARD.encode([0; 32]));
    let add =
        gossd().args(["keys", "add", text(&weak), "--control", text(&socket)]).output().expect("gossd runs");
    let told = String::from_utf8(add.stderr).expect("text");
    assert!(!add.status.success() && told.contains("everybody can guess"), "{told}");
    // Also if another program asks at the control socket.
    let mut control = crate::common::http::Connection::open_socket(&socket).await;
    let post = crate::common::http::request("POST", "/keys/add", &STANDARD.encode([0; 32]));
    let answer = control.call(&post).await;
    assert_eq!((answer.status(), answer.body.contains("everybody can guess")), (409, true), "{answer:?}");
    drop(agent);
}
