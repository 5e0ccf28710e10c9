//! `gossd keys` at real processes: a rotation step by step, with one agent away, with a file that is not writable, by
//! hand, and everything that is refused.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::gost::FakeGost;
use crate::common::http::Connection;
use crate::common::process::{Process, get, gossd};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const DONE: Option<i32> = Some(0);
const REFUSED: Option<i32> = Some(1);
const NOT_EVERYWHERE: Option<i32> = Some(3);

/// An agent with a key file and a control socket of its own.
struct Agent {
    process: Process,
    name: &'static str,
    folder: PathBuf,
}

impl Agent {
    fn start(folder: &Path, name: &'static str, key: &str, flags: &[&str]) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("a new folder");
        let file = folder.join("key");
        crate::common::write_secret(&file, key);
        let flags = [&["--key-file", file.to_str().expect("text")], flags].concat();
        Self { process: Process::keeping(name, &folder, &flags), name, folder }
    }

    fn key_file(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// The keys in its file, without comments.
    fn filed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.key_file()).expect("a file");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// Runs `gossd keys` at it. Returns the exit code and all output.
    fn keys(&self, line: &str) -> (Option<i32>, String) {
        keys(&self.folder.join(format!("{}.sock", self.name)), line, "")
    }

    fn report(&self) -> Value {
        let (code, text) = self.keys("list --json");
        assert_eq!(code, DONE, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The ids of its keys, the encrypting one first.
    fn ids(&self) -> Vec<String> {
        let report = self.report();
        report["keys"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|id| id.as_str().expect("text").into())
            .collect()
    }
}

fn keys(socket: &Path, line: &str, input: &str) -> (Option<i32>, String) {
    let mut child = gossd()
        .arg("keys")
        .args(line.split(' '))
        .args(["--control", socket.to_str().expect("text")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gossd runs");
    let sent = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    drop(sent);
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

fn new_key() -> String {
    let output = gossd().args(["keys", "generate"]).output().expect("gossd runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Three agents of one key that know each other; the others join at the first.
fn three(folder: &Path, key: &str) -> [Agent; 3] {
    let a = Agent::start(folder, "a", key, &[]);
    let join = a.process.gossip.to_string();
    let [b, c] = ["b", "c"].map(|name| Agent::start(folder, name, key, &["--join", &join]));
    let agents = [a, b, c];
    all_know(&agents.each_ref(), 3);
    agents
}

fn all_know(agents: &[&Agent], count: usize) {
    let start = Instant::now();
    let knows = |agent: &&Agent| {
        let report = agent.report();
        let others = report["agents"].as_array().expect("a list");
        others.len() == count && others.iter().all(|other| !other["keys"].is_null())
    };
    while !agents.iter().all(knows) {
        assert!(start.elapsed() < SOON, "all know all: {}", agents[0].report());
        std::thread::yield_now();
    }
}

fn all_have(agents: &[Agent], ids: &[&str]) -> bool {
    agents.iter().all(|agent| agent.ids() == ids)
}

/// Asks agents for a tunnel all the time. Counts the questions, and how often the tunnel was missing.
fn watch(agents: &[Agent], tunnel: &'static str) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(u32, u32)>) {
    let plugins: Vec<_> = agents.iter().map(|agent| agent.process.plugin).collect();
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let watching = tokio::spawn(async move {
        let mut connections = Vec::new();
        for plugin in plugins {
            connections.push(Connection::open(plugin).await);
        }
        let (mut asked, mut missed) = (0, 0);
        while !told.load(Ordering::Relaxed) {
            for connection in &mut connections {
                asked += 1;
                missed += u32::from(get(connection, tunnel).await.is_empty());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (asked, missed)
    });
    (ended, watching)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_at_any_agents_while_tunnels_stay_listed() {
    let folder = tempfile::tempdir().unwrap();
    let agents = three(folder.path(), &new_key());
    let [a, b, c] = &agents;
    let old = a.ids().remove(0);
    let mut gost = FakeGost::start("n", a.process.plugin).await;
    gost.register("1", "t").await;
    for agent in &agents {
        let start = Instant::now();
        while agent.process.get("t").await.is_empty() {
            assert!(start.elapsed() < SOON, "{} lists it", agent.name);
        }
    }
    let (ended, watching) = watch(&agents, "t");

    let (code, said) = a.keys("add --generate");
    assert_eq!(code, DONE, "{said}");
    assert!(said.ends_with("in force and saved at all 3 known agents: a, b, c\n"), "{said}");
    let new = a.ids().remove(1);
    assert!(all_have(&agents, &[&old, &new]), "{said}");

    for (line, why) in [(format!("remove {old}"), "seals"), ("remove 01234567".into(), "no key 01234567")] {
        let (code, said) = b.keys(&line);
        assert!(code == REFUSED && said.contains(why), "{line}: {said}");
    }
    let (code, said) = b.keys(&format!("use {new}"));
    assert_eq!(
        (code, &*said),
        (DONE, &*format!("the key {new} seals\nin force and saved at all 3 known agents: a, b, c\n"))
    );
    assert!(all_have(&agents, &[&new, &old]), "the new one seals");

    let (code, said) = c.keys(&format!("remove {old}"));
    assert_eq!(
        (code, &*said),
        (DONE, &*format!("the key {old} is removed\nin force and saved at all 3 known agents: a, b, c\n"))
    );
    assert!(all_have(&agents, &[&new]));
    assert!(agents.iter().all(|agent| agent.filed() == a.filed() && a.filed().len() == 1));
    let mode = fs::metadata(a.key_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else can read it");

    ended.store(true, Ordering::Relaxed);
    let (asked, missed) = watching.await.unwrap();
    assert!(asked > 50, "{asked}");
    assert_eq!(missed, 0, "of {asked}");
    for agent in agents {
        let log = agent.process.log();
        assert!(!log.contains("peer is silent") && !log.contains("its key is not in our"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_down_meanwhile_comes_back_with_its_old_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut agents = three(folder.path(), &new_key());
    let old = agents[0].ids().remove(0);
    agents[2].process.kill();
    let silent = || agents[0].report()["agents"][2]["silent_seconds"].is_u64();
    eventually(SOON, "it is missed", silent).await;

    let (code, said) = agents[0].keys("add --generate");
    assert_eq!(code, NOT_EVERYWHERE, "{said}");
    assert!(
        said.contains("in force and saved at 2 of 3 known agents: a, b\nnot at c: silent for "),
        "{said}"
    );
    let new = agents[1].ids().remove(1);
    let (code, said) = agents[0].keys(&format!("use {new}"));
    assert_eq!(code, REFUSED);
    assert!(said.contains(&format!("does not have the key {new}\n")) && said.contains("--force"), "{said}");
    assert_eq!(agents[0].keys(&format!("use --force {new}")).0, NOT_EVERYWHERE);
    let (code, said) = agents[1].keys(&format!("remove {old}"));
    assert!(code == REFUSED && said.contains("  c: silent for "), "{said}");
    let (_, table) = agents[1].keys("list");
    assert!(table.contains("2 of 3; not c") && table.contains("behind"), "{table}");

    agents[2].process.restart();
    eventually(SOON, "it is given the keys", || agents[2].filed() == agents[0].filed()).await;
    all_know(&agents.each_ref(), 3);
    let (code, said) = agents[1].keys(&format!("remove {old}"));
    assert_eq!(code, DONE, "{said}");
    assert!(all_have(&agents, &[&new]));
    assert_eq!(agents[2].filed(), agents[0].filed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_that_others_join_at_comes_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut agents = three(folder.path(), &new_key());
    agents[0].process.kill();
    assert_eq!(agents[1].keys("add --generate").0, NOT_EVERYWHERE);
    let new = agents[1].ids().remove(1);
    assert_eq!(agents[1].keys(&format!("use {new} --force")).0, NOT_EVERYWHERE);
    agents[0].process.restart();
    eventually(SOON, "it is given the keys", || agents[0].ids()[0] == new).await;
    eventually(SOON, "and knows all", || agents[0].report()["agents"].as_array().unwrap().len() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_not_writable_keeps_the_old_key_and_stops_the_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let agents = three(folder.path(), &new_key());
    let [a, b, _] = &agents;
    let before = b.filed();
    fs::set_permissions(b.key_file(), Permissions::from_mode(0o400)).unwrap();
    let (code, said) = a.keys("add --generate");
    assert_eq!(code, NOT_EVERYWHERE);
    assert!(
        said.contains("in force and saved at 2 of 3 known agents: a, c\nnot at b: in memory only: key file not writable\n"),
        "{said}"
    );
    let new = b.ids().remove(1);
    assert_eq!(b.filed(), before);
    for agent in [a, b] {
        let (code, said) = agent.keys(&format!("use {new}"));
        assert!(code == REFUSED && said.contains("  b: in memory only: "), "{said}");
    }
    assert!(b.keys("list").1.contains("in memory only: cannot write "), "it says why");

    // The file becomes writable, and the agent gets SIGHUP.
    fs::set_permissions(b.key_file(), Permissions::from_mode(0o600)).unwrap();
    b.process.signal("-HUP");
    eventually(SOON, "it is written", || b.filed() == a.filed()).await;
    eventually(SOON, "and all know that", || a.keys(&format!("use {new}")).0 == DONE).await;
    assert_eq!(b.filed(), a.filed());
    let [_, b, _] = agents;
    assert!(b.process.log().contains("keys are in memory only, and a restart loses them"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_changed_by_hand_are_read_again_on_sighup_and_an_unusable_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (new_key(), new_key());
    let agents = three(folder.path(), &old);
    let first = agents[0].ids();
    for (text, count) in [([&*old, &*new].concat(), 2), ([&*new, &*old].concat(), 2), (new.clone(), 1)] {
        for agent in &agents {
            fs::write(agent.key_file(), &text).unwrap();
            agent.process.signal("-HUP");
            eventually(SOON, "it is read", || {
                agent.ids().len() == count && agent.filed()[0] == text.lines().next().unwrap()
            })
            .await;
        }
        let agree = || agents.iter().all(|agent| agent.ids() == agents[0].ids());
        eventually(SOON, "all have the same", agree).await;
    }
    assert_ne!(agents[0].ids(), first);
    let kept = agents[0].ids();
    fs::write(agents[0].key_file(), "no key\n").unwrap();
    agents[0].process.signal("-HUP");
    eventually(SOON, "it says why", || agents[0].process.said().contains("stay in force")).await;
    assert_eq!(agents[0].ids(), kept);
    let [a, ..] = agents;
    let log = a.process.log();
    assert!(log.contains("line 1 is not a base64 key") && log.contains("stay in force"), "{log}");
    assert!(!log.contains("no key\n"), "a file is never quoted");
}

#[test]
fn a_key_is_added_from_a_file_or_standard_input_once() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), "a", &new_key(), &[]);
    let socket = agent.folder.join("a.sock");
    let (key, other) = (new_key(), new_key());
    let (code, said) = keys(&socket, "add -", &key);
    assert!(code == DONE && said.contains("opens\nin force and saved at all 1 known agents: a\n"), "{said}");
    let path = folder.path().join("new");
    crate::common::write_secret(&path, format!("# again\n{key}"));
    assert_eq!(agent.keys(&format!("add {}", path.display())).0, DONE);
    assert_eq!(agent.ids().len(), 2);
    for (text, why) in
        [(format!("{key}{other}"), "several keys"), (String::new(), "has no key"), ("x".into(), "line 1")]
    {
        let (code, said) = keys(&socket, "add -", &text);
        assert!(code == REFUSED && said.contains(why) && !said.contains(key.trim()), "{said}");
    }
    let added = agent.ids().remove(1);
    assert_eq!(agent.keys(&format!("remove {added}")).0, DONE);
    let (code, said) = keys(&socket, "add -", &key);
    assert!(code == REFUSED && said.contains("was removed"), "{said}");
    assert_eq!(agent.keys("use x").0, Some(2), "the command line is wrong");
    drop(agent);
    assert!(keys(&socket, "list", "").1.contains("no agent answers"));
}

#[test]
fn an_agent_without_a_key_file_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let _agent = Process::keeping("a", folder.path(), &[]);
    for line in ["list", "add --generate", "use 01234567", "remove 01234567 --force"] {
        let (code, said) = keys(&folder.path().join("a.sock"), line, "");
        assert!(code == REFUSED && said.contains("gossd keys generate > key"), "{line}: {said}");
    }
}

#[test]
fn every_change_of_keys_can_be_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), "a", &new_key(), &[]);
    let old = agent.ids().remove(0);
    let seals = |line: &str| {
        let (code, text) = agent.keys(line);
        assert_eq!(code, DONE, "{text}");
        let report: Value = serde_json::from_str(&text).expect("JSON alone");
        let keys = report["keys"].as_array().expect("keys").len();
        (keys, report["seals"].as_str().expect("a key").to_owned())
    };
    assert_eq!(seals("add --generate --json"), (2, old.clone()));
    let new = agent.ids().remove(1);
    assert_eq!(seals(&format!("use {new} --json")), (2, new.clone()));
    assert_eq!(seals(&format!("remove {old} --json")), (1, new));
}
