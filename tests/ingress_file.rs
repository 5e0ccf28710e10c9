//! `--ingress-file` as a gost that reads it sees it: real agents, killed and restarted, and a reader that reads all the
//! time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::gost::{FakeGost, hash_host};
use crate::common::http::{call, request};
use crate::common::process::Process;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const ONE: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const TWO: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
/// The tunnel whose client asks for no name.
const BARE: &str = "9a5b2c1e-3f60-4c55-8a3e-0d1c7e0f4b21";

/// An agent that keeps a file, and a journal if it has a folder for one.
fn start(name: &str, file: &Path, journal: Option<&Path>, flags: &[&str]) -> Process {
    let flags = [&["--ingress-file", file.to_str().expect("text")], flags].concat();
    match journal {
        Some(folder) => Process::keeping(name, folder, &flags),
        None => Process::start(name, &flags),
    }
}

/// The line of a host name, split like gost's loader does.
fn says(file: &Path, host: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(host)?.strip_prefix(' ').map(str::to_owned))
}

async fn until(file: &Path, host: &str, endpoint: Option<&str>) -> Duration {
    let what = format!("{host} is {endpoint:?} in {}", file.display());
    eventually(SOON, &what, || says(file, host).as_deref() == endpoint).await
}

async fn status(agent: &Process) -> Value {
    call(agent.admin, &request("GET", "/status.json", "")).await.json()
}

async fn metric(agent: &Process, name: &str) -> String {
    let text = call(agent.admin, &request("GET", "/metrics", "")).await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// Reads a file as often as it can; gost does so once a second. Each time, the file is complete and has a host name.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Reader {
    fn of(file: PathBuf, host: String) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let read = move || {
            let mut reads = 0;
            while !stopped.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&file).expect("it is there all the while");
                assert!(text.ends_with('\n'), "a line is not whole: {text:?}");
                let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
                // gost would end at a line of another form.
                assert!(lines.iter().all(|words| words.len() == 2 && !words[0].is_empty()), "{text:?}");
                assert!(lines.is_sorted(), "{text}");
                assert!(lines.iter().any(|words| words[0] == host), "{host} is gone: {text}");
                reads += 1;
            }
            reads
        };
        Self { stop, thread: Some(std::thread::spawn(read)) }
    }

    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("once").join().expect("every read was good")
    }
}

#[tokio::test]
async fn a_name_is_in_the_file_of_every_agent_soon_after_its_tunnel_binds() {
    let folder = tempfile::tempdir().unwrap();
    let [at_a, at_b] = ["a", "b"].map(|name| folder.path().join(name));
    let a = start("a", &at_a, None, &["--lease-ttl", "5"]);
    let _b = start("b", &at_b, None, &["--lease-ttl", "5", "--join", &a.gossip.to_string()]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    let mut times = Vec::new();
    for n in 0..4 {
        let host = format!("host-{n}.example.org");
        let tunnel = if n % 2 == 0 { ONE } else { TWO };
        assert_eq!(gost.bind(&n.to_string(), tunnel, &host).await, (host.clone(), true));
        let start = Instant::now();
        for file in [&at_a, &at_b] {
            until(file, &host, Some(tunnel)).await;
            until(file, &hash_host(tunnel), Some(tunnel)).await;
        }
        times.push(start.elapsed());
    }
    println!("a name is in two files after {times:?}");
    assert!(gost.set_rule("host-0.example.org", &format!("${ONE}")).await);
    until(&at_b, "host-0.example.org", Some(&format!("${ONE}"))).await;
    gost.register("bare", BARE).await;
    for there in [Some(BARE), None] {
        for file in [&at_a, &at_b] {
            until(file, &hash_host(BARE), there).await;
        }
        gost.deregister("bare", BARE).await;
    }
    let screen =
        crate::common::process::gossd().args(["status", "--admin", &a.admin.to_string()]).output().unwrap();
    let screen = String::from_utf8(screen.stdout).unwrap();
    let row = format!("file     {}, 6 lines\n", at_a.display());
    assert!(screen.contains(&row), "{screen}");
    assert_eq!(metric(&a, "gossd_ingress_file_lines").await, "6.0");
    assert_eq!(metric(&a, "gossd_ingress_file_failures_total").await, "0");
    assert!(
        drop_and_read(a, &at_a).contains("host-0.example.org"),
        "the file stays when the agent is killed"
    );
}

fn drop_and_read(agent: Process, file: &Path) -> String {
    drop(agent);
    fs::read_to_string(file).expect("it is there")
}

#[tokio::test]
async fn no_name_is_ever_missing_while_an_agent_without_a_journal_is_killed_stopped_and_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    let mut peer = Process::start("peer", &[]);
    let join = peer.gossip.to_string();
    let mut agent = start("a", &file, None, &["--join", &join]);
    let mut remote = FakeGost::start("n1", peer.plugin).await;
    assert_eq!(remote.bind("1", ONE, "remote").await, ("remote".into(), true));
    let mut local = FakeGost::start("n2", agent.plugin).await;
    assert_eq!(local.bind("2", TWO, "local").await, ("local".into(), true));
    until(&file, "remote", Some(ONE)).await;
    until(&file, &hash_host(TWO), Some(TWO)).await;
    let readers = ["remote".to_owned(), hash_host(ONE), "local".to_owned(), hash_host(TWO)];
    let readers = readers.map(|host| Reader::of(file.clone(), host));
    let seen = |process: &Process| process.said().matches("ready").count();
    for _ in 0..2 {
        agent.kill_and_restart();
        eventually(SOON, "it is ready", || seen(&agent) > 0).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        agent.signal("-TERM");
        assert!(agent.ended(SOON).0.success());
        agent.restart();
    }
    // Not even when no agent is running.
    peer.kill();
    agent.kill_and_restart();
    let mut gost = FakeGost::start("n3", agent.plugin).await;
    assert!(gost.set_rule("new", TWO).await);
    until(&file, "new", Some(TWO)).await;
    for reader in readers {
        assert!(reader.stop() > 10);
    }
    let report = status(&agent).await["ingress_file"].clone();
    assert_eq!(report["lines"], 5, "{report}");
    assert!(report["former"].as_u64().is_some_and(|former| former >= 3), "{report}");
}

#[tokio::test]
async fn names_of_an_earlier_start_go_when_the_agent_knows_better() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    fs::write(&file, format!("former {ONE}\n")).unwrap();
    let peer = Process::start("peer", &[]);
    let flags = ["--join", &peer.gossip.to_string(), "--lease-ttl", "5"];
    let agent = start("a", &file, None, &flags);
    until(&file, "former", None).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "", "nothing is known, and a gost can read that");
    // The status changes once the file is written.
    let start = Instant::now();
    while status(&agent).await["ingress_file"]["former"] != 0 {
        assert!(start.elapsed() < SOON, "{:#}", status(&agent).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_names_that_change_all_the_while_are_always_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    let agent = start("a", &file, Some(folder.path()), &["--ingress-rule", &format!("www=${ONE}")]);
    until(&file, "www", Some(&format!("${ONE}"))).await;
    let reader = Reader::of(file.clone(), "www".into());
    let mut gost = FakeGost::start("n", agent.plugin).await;
    let start = Instant::now();
    let mut n = 0;
    // One tunnel has no right to so many.
    let tunnel = |n: u32| format!("{n:08x}-b74c-4916-86c1-d9fa36ea677b");
    while start.elapsed() < PACES {
        assert!(gost.set_rule(&format!("host-{n}.example.org"), &tunnel(n)).await);
        n += 1;
    }
    until(&file, &format!("host-{}.example.org", n - 1), Some(&tunnel(n - 1))).await;
    let took = start.elapsed().as_secs();
    let writes: u64 = metric(&agent, "gossd_ingress_file_writes_total").await.parse().unwrap();
    println!("{n} names in {writes} writes; read {} times", reader.stop());
    assert!(writes <= took + 2, "{writes} writes in {took} s");
    let calls = call(agent.plugin, &request("GET", "/ingress?host=host-0.example.org", "")).await;
    assert_eq!(calls.json()["endpoint"], tunnel(0));
}

/// As long as a few writes take.
const PACES: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_failed_write_is_reported_once_everywhere_and_so_is_its_repair() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("not-yet");
    let file = place.join("hosts");
    let agent = start("a", &file, None, &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    assert!(gost.set_rule("shop", ONE).await, "calls are answered all the same");
    let start = Instant::now();
    while metric(&agent, "gossd_ingress_file_failures_total").await.parse::<u64>().unwrap() < 3 {
        assert!(start.elapsed() < SOON, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(metric(&agent, "gossd_ingress_file_failing").await, "1.0");
    let ready = call(agent.admin, &request("GET", "/readyz", "")).await;
    let why = format!("the ingress file: cannot write {}: No such file or directory", file.display());
    assert_eq!((ready.status(), ready.body.starts_with(&why)), (503, true), "{}", ready.body);
    let report = status(&agent).await;
    assert!(report["problems"][0]["text"].as_str().is_some_and(|text| text.starts_with(&why)), "{report:#}");

    fs::create_dir(&place).unwrap();
    until(&file, "shop", Some(ONE)).await;
    let start = Instant::now();
    while call(agent.admin, &request("GET", "/readyz", "")).await.status() != 200 {
        assert!(start.elapsed() < SOON, "it stays unready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(metric(&agent, "gossd_ingress_file_failing").await, "0.0");
    // The log has a thread of its own.
    let start = Instant::now();
    while !agent.said().contains("the ingress file is written again") {
        assert!(start.elapsed() < SOON, "it does not say so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let log = agent.log();
    let told = |text: &str| log.matches(text).count();
    assert_eq!(
        told("WARN cannot write the ingress file, gost continues with the old one: No such file"),
        1,
        "{log}"
    );
    assert_eq!(told("this user must be able to create files in that folder"), 1, "{log}");
    assert_eq!(told("INFO the ingress file is written again"), 1, "{log}");
}

#[tokio::test]
async fn rules_that_are_configured_anew_are_in_the_file_and_another_file_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (file, settings) = (folder.path().join("hosts"), folder.path().join("gossd.toml"));
    let write = |path: &Path, rules: &str| {
        let text = format!("ingress-file = \"{}\"\n[ingress-rule]\n{rules}", path.display());
        fs::write(&settings, text).unwrap();
    };
    write(&file, &format!("\"*.shop.example.org\" = \"{ONE}\"\n"));
    let agent = Process::start("a", &["--config", settings.to_str().unwrap()]);
    until(&file, "*.shop.example.org", Some(ONE)).await;
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", TWO).await;
    until(&file, &hash_host(TWO), Some(TWO)).await;
    write(&file, &format!("\"www.example.org\" = \"${TWO}\"\n"));
    agent.signal("-HUP");
    until(&file, "www.example.org", Some(&format!("${TWO}"))).await;
    assert_eq!(says(&file, "*.shop.example.org"), None);
    until(&file, &hash_host(TWO), Some(&format!("${TWO}"))).await;
    write(&folder.path().join("elsewhere"), "");
    agent.signal("-HUP");
    eventually(SOON, "it says so", || agent.said().contains("take effect at the next start only")).await;
    assert!(agent.said().contains("--ingress-file"), "{}", agent.said());
}

#[tokio::test]
async fn the_file_stays_as_it_was_when_the_agent_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    let mut agent = start("a", &file, Some(folder.path()), &["--leave-on-stop"]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    assert_eq!(gost.bind("1", ONE, "shop").await, ("shop".into(), true));
    until(&file, "shop", Some(ONE)).await;
    until(&file, &hash_host(ONE), Some(ONE)).await;
    let before = fs::read_to_string(&file).unwrap();
    agent.signal("-TERM");
    assert!(agent.ended(SOON).0.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "hosts.new"), "{names:?}");
}
