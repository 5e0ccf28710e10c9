//! The journal's disk as processes meet it: a folder that is taken away, a disk that hangs, a copy that is put back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::Process;

const SOON: Duration = Duration::from_secs(20);

/// An agent whose journal is in a folder of its own, and its control socket is not.
fn keeping(name: &str, folder: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Process {
    let (state, socket) = (folder.join(format!("{name}.state")), folder.join(format!("{name}.sock")));
    let kept = ["--data-dir", state.to_str().expect("text"), "--control", socket.to_str().expect("text")];
    Process::start_in(name, variables, &[&kept[..], flags].concat())
}

async fn ready(agent: &Process) -> String {
    call(agent.admin, &request("GET", "/readyz", "")).await.body
}

/// Waits until `/readyz` says so.
async fn until_ready(agent: &Process, what: &str, wanted: impl Fn(&str) -> bool) {
    let start = Instant::now();
    loop {
        let said = ready(agent).await;
        if wanted(&said) {
            return;
        }
        assert!(start.elapsed() < SOON, "{what}: still {said}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_folder_that_is_taken_away_is_made_again_with_everything_in_it() {
    for moved in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a.state");
        let mut agent = keeping("a", folder.path(), &[], &[]);
        let mut gost = FakeGost::start("n", agent.plugin).await;
        for n in 0..50 {
            gost.register(&n.to_string(), &format!("t{n}")).await;
        }
        agent.is_kept().await;
        if moved {
            fs::rename(&state, folder.path().join("elsewhere")).unwrap();
        } else {
            fs::remove_dir_all(&state).unwrap();
        }
        for n in 50..100 {
            gost.register(&n.to_string(), &format!("t{n}")).await;
        }
        let start = Instant::now();
        while !agent.said().contains("the journal is written again") {
            assert!(start.elapsed() < SOON, "moved: {moved}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(agent.said().contains("the journal is not written"), "it says so");
        agent.is_kept().await;
        agent.kill_and_restart();
        for n in 0..100 {
            assert_eq!(agent.get(&format!("t{n}")).await.len(), 1, "{n}, moved: {moved}");
        }
    }
}

#[tokio::test]
async fn while_the_folder_cannot_be_made_the_agent_is_not_ready_and_goes_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a.state");
    let mut agent = keeping("a", folder.path(), &[], &[]);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t1").await;
    agent.is_kept().await;
    assert_eq!(ready(&agent).await, "ready\n");
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in the way").unwrap();
    until_ready(&agent, "nothing changed, and it is noticed", |said| said.starts_with("the journal: ")).await;
    gost.register("2", "t2").await;
    assert_eq!(agent.get("t2").await.len(), 1, "in memory");
    fs::remove_file(&state).unwrap();
    until_ready(&agent, "it is there again", |said| said == "ready\n").await;
    agent.is_kept().await;
    agent.kill_and_restart();
    for tunnel in ["t1", "t2"] {
        assert_eq!(agent.get(tunnel).await.len(), 1, "{tunnel}");
    }
}

/// A library that makes `fsync` and its like wait as long as a file exists: what a disk does that hangs.
const HANGING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void hang(void) {
    const char *flag = getenv("HANGS");
    while (flag && access(flag, F_OK) == 0) usleep(1000);
}
int fsync(int fd) { hang(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { hang(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"#;

/// That library; none where there is no C compiler.
fn hanging_disk(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("hanging.c"), folder.join("hanging.so"));
    fs::write(&source, HANGING).expect("a file");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    compiler.status().is_ok_and(|status| status.success()).then_some(library)
}

#[tokio::test]
async fn a_disk_that_hangs_is_told_and_ends_no_call_and_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = hanging_disk(folder.path()) else {
        return eprintln!("SKIPPED: a disk that hangs needs a C compiler");
    };
    let hangs = folder.path().join("hangs");
    let variables = [("LD_PRELOAD", library.to_str().unwrap()), ("HANGS", hangs.to_str().unwrap())];
    let mut agent = keeping("a", folder.path(), &[], &variables);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t1").await;
    agent.is_kept().await;
    for returns in [true, false] {
        fs::write(&hangs, "").unwrap();
        gost.register(&format!("2 {returns}"), "t2").await;
        until_ready(&agent, "it hangs", |said| said.starts_with("the journal: ")).await;
        gost.register(&format!("3 {returns}"), "t3").await;
        assert!(!agent.get("t3").await.is_empty(), "in memory");
        if returns {
            fs::remove_file(&hangs).unwrap();
            until_ready(&agent, "the disk returns", |said| said == "ready\n").await;
            assert!(agent.said().contains("the journal is written again"));
            agent.is_kept().await;
        }
    }
    agent.signal("-TERM");
    let (status, said) = agent.ended(SOON);
    assert!(status.success(), "{status}");
    assert!(said.contains("stopped before the journal had taken all changes"), "{said}");
}

#[tokio::test]
async fn an_idle_agent_stops_although_its_disk_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = hanging_disk(folder.path()) else {
        return eprintln!("SKIPPED: a disk that hangs needs a C compiler");
    };
    let hangs = folder.path().join("hangs");
    let variables = [("LD_PRELOAD", library.to_str().unwrap()), ("HANGS", hangs.to_str().unwrap())];
    let mut agent = keeping("a", folder.path(), &[], &variables);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t1").await;
    agent.is_kept().await;
    // Closing the file writes to it.
    fs::write(&hangs, "").unwrap();
    agent.signal("-TERM");
    let (status, said) = agent.ended(SOON);
    assert!(status.success() && !said.contains("stopped before"), "{said}");
}

#[tokio::test]
async fn a_journal_put_back_from_a_copy_lists_nothing_that_was_released_since_here_or_at_peers() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("a.state/a.journal");
    let copy = folder.path().join("copy");
    let b = keeping("b", folder.path(), &[], &[]);
    let mut a = keeping("a", folder.path(), &["--join", &b.gossip.to_string()], &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    for n in ["1", "2"] {
        gost.register(n, &format!("t{n}")).await;
    }
    until(&b, "t2", 1).await;
    a.is_kept().await;
    a.kill();
    fs::copy(&journal, &copy).unwrap();
    a.restart();
    gost.reconnect_to(a.plugin);
    until(&b, "t1", 1).await;
    gost.deregister("2", "t2").await;
    until(&b, "t2", 0).await;
    a.is_kept().await;
    a.kill();
    fs::copy(&copy, &journal).unwrap();
    a.restart();
    // From its first answer on, and for as long as it takes.
    let start = Instant::now();
    while !a.said().contains("older than what peers remember") || start.elapsed() < Duration::from_millis(600)
    {
        assert_eq!((a.get("t2").await, b.get("t2").await), (vec![], vec![]), "it was released");
        assert!(start.elapsed() < SOON, "it says what it found");
    }
    until(&a, "t1", 1).await;
    until(&b, "t1", 1).await;
}

/// Waits until an agent lists so many records of a tunnel.
async fn until(agent: &Process, tunnel: &str, records: usize) {
    let start = Instant::now();
    while agent.get(tunnel).await.len() != records {
        assert!(start.elapsed() < SOON, "{tunnel}: {records}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
