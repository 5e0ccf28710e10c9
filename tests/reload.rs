//! SIGHUP: which settings of a running agent change, and what is logged about the others.

use std::time::{Duration, Instant};

use crate::common::client;
use crate::common::gost::FakeGost;
use crate::common::process::Process;

const SOON: Duration = Duration::from_secs(20);

async fn status(agent: &Process) -> serde_json::Value {
    let client = client().build().expect("a client");
    let answer = client.get(format!("http://{}/status.json", agent.admin)).send().await.expect("an answer");
    answer.json().await.expect("JSON")
}

#[tokio::test]
async fn a_running_agent_takes_what_can_change_and_says_what_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gossd.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("max-records = 1\ncluster = \"blue\"");
    let a = Process::start("a", &["--config", file.to_str().unwrap()]);
    let b = Process::start("b", &["--cluster", "blue"]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "t").await;

    let text = format!("max-records = 3\ncluster = \"red\"\norder = \"nearest\"\njoin = [\"{}\"]", b.gossip);
    write(&text);
    a.signal("-HUP");
    let start = Instant::now();
    loop {
        let status = status(&a).await;
        if status["holds"]["max_records"] == 3 && status["members"].as_array().unwrap().len() == 2 {
            assert_eq!((&status["order"], &status["cluster"]), (&"nearest".into(), &"blue".into()));
            break;
        }
        assert!(start.elapsed() < SOON, "{status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gost.register("2", "t").await;
    assert_eq!(a.get("t").await.len(), 2, "there is room now");
    let log = a.log();
    assert!(log.contains("--cluster") && log.contains("take effect at the next start only"), "{log}");
    assert!(log.contains("--max-records") && log.contains("the configuration is read again"), "{log}");
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gossd.toml");
    std::fs::write(&file, "max-records = 1").unwrap();
    let a = Process::start("a", &["--config", file.to_str().unwrap()]);
    std::fs::write(&file, "max-records = 5\nmax-recodrs = 3").unwrap();
    a.signal("-HUP");
    let start = Instant::now();
    while !a.said().contains("nothing of it changes") {
        assert!(start.elapsed() < SOON, "{}", a.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&a).await["holds"]["max_records"], 1);
    assert!(a.said().contains("line 2: max-recodrs"), "{}", a.said());
}
