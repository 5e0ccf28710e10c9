//! `gossd debug`: one archive with all that is needed to find a fault, and no secret.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::common::gost::FakeGost;
use crate::common::process::{Process, gossd, new_key};

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const CONNECTOR: &str = "c23d4f42-c892-42b3-8b74-88ab6455d33a";
/// The tunnel's hash host, as gost computes it.
const HASH: &str = "a6265c6d9847a4be";

/// What an archive has, without its one folder.
fn unpacked(path: &Path) -> (String, BTreeMap<String, String>) {
    let mut archive =
        tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(path).expect("it is there")));
    let mut folder = String::new();
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").display().to_string();
        let (at, file) = name.split_once('/').expect("in a folder");
        at.clone_into(&mut folder);
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        files.insert(file.to_owned(), text);
    }
    (folder, files)
}

fn debug(args: &[&str], folder: &Path) -> (String, Option<i32>) {
    let output = gossd().arg("debug").args(args).current_dir(folder).output().expect("gossd runs");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (said, output.status.code())
}

#[tokio::test]
async fn an_archive_has_what_the_agent_tells_and_no_id_of_a_tunnel() {
    let folder = tempfile::tempdir().expect("a folder");
    let rule = format!("shop.example.org={TUNNEL}");
    let key = new_key(folder.path());
    let flags = ["--ingress-rule", &*rule, "--log-format", "json", "--key-file", &key];
    let agent = Process::keeping("a", folder.path(), &flags);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register(CONNECTOR, TUNNEL).await;
    let control = folder.path().join("a.sock");
    let asked = ["shop.example.org", "--control", control.to_str().expect("text")];
    let (said, code) = debug(&asked, folder.path());
    assert_eq!(code, Some(0), "{said}");
    let path = said.strip_prefix("wrote ").and_then(|said| said.split(": ").next()).expect("where it is");
    let path = folder.path().join(path);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let (inner, files) = unpacked(&path);
    assert!(inner.starts_with("gossd-debug-a-20") && path.ends_with(format!("{inner}.tar.gz")), "{inner}");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let want = [
        "about.txt",
        "check.json",
        "config.json",
        "events.jsonl",
        "explain.json",
        "history.json",
        "keys.json",
        "log.jsonl",
        "matrix.json",
        "metrics-1.txt",
        "metrics-2.txt",
        "services.json",
        "status.json",
    ];
    assert_eq!(names, want);
    for (name, text) in &files {
        assert!(!text.contains(TUNNEL) && !text.contains(CONNECTOR), "{name} has an id: {text}");
        let lines = text.lines().take(if name.contains(".jsonl") { usize::MAX } else { 1 });
        if name.contains(".json") {
            lines.for_each(|line| drop(serde_json::from_str::<Value>(line).expect("JSON")));
        }
    }
    for name in ["services.json", "explain.json", "events.jsonl", "config.json"] {
        assert!(files[name].contains(HASH), "{name} has the tunnel's hash host: {}", files[name]);
    }
    assert!(
        files["log.jsonl"].contains("gost is attached")
            && files["log.jsonl"].contains("\"message\":\"ready\"")
    );
    assert!(
        files["config.json"].contains("\"flag\":\"--data-dir\"")
            && files["metrics-2.txt"].contains("gossd_records")
    );
    let check: Value = serde_json::from_str(&files["check.json"]).expect("JSON");
    assert_eq!(check["ok"], true, "an agent that runs is no fault: {check:#}");

    // What is there is not overwritten.
    let taken = path.to_str().expect("text");
    let (said, code) = debug(&[&asked[1..], &["--output", taken]].concat(), folder.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot write") && said.contains("exists"), "{said}");
}

#[test]
fn what_cannot_be_had_is_named_and_nobody_to_ask_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = Process::start("a", &["--control", "none"]);
    let (admin, file) = (agent.admin.to_string(), folder.path().join("x.tar.gz"));
    let (said, code) = debug(&["--admin", &admin, "--output", "x.tar.gz", "--json"], folder.path());
    assert_eq!(code, Some(0), "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert!(said["text"].as_str().is_some_and(|text| text.contains("lacking.txt names 4 that")), "{said}");
    let (_, files) = unpacked(&file);
    for (file, why) in
        [("keys.json", "control socket"), ("config.json", "control socket"), ("log.jsonl", "control socket")]
    {
        let lacking = files["lacking.txt"].lines().find(|line| line.starts_with(file));
        assert!(lacking.is_some_and(|line| line.contains(why)), "{file}: {}", files["lacking.txt"]);
        assert!(!files.contains_key(file));
    }
    drop(agent);
    let (said, code) = debug(&["--admin", &admin, "--output", "y.tar.gz"], folder.path());
    assert!(code == Some(1) && said.contains("no agent answers"), "{said}");
    assert!(!folder.path().join("y.tar.gz").exists());
}
