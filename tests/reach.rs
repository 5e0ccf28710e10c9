//! An entrypoint that other hosts do not reach, with real agents and dials: what their operators read at both ends, until it is
//! over.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::{Process, gossd};
use crate::common::{eventually, nobody};

const TUNNEL: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";
/// Dials in vain follow one another after 1, 2, 4 and 8 s.
const SOON: Duration = Duration::from_secs(30);

/// What a verb prints of an agent.
fn told(agent: &Process, verb: &[&str]) -> String {
    let output = gossd().args(verb).args(["--admin", &agent.admin.to_string()]).output().expect("gossd runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Visitors ask b and c, until the agent tells that, or does not any more.
async fn until(agents: &[Process; 3], at: usize, verb: &[&str], text: &str, is_told: bool) -> String {
    let start = Instant::now();
    loop {
        for agent in &agents[1..] {
            agent.get(TUNNEL).await;
        }
        let all = told(&agents[at], verb);
        if all.contains(text) == is_told {
            return all;
        }
        assert!(start.elapsed() < SOON, "{verb:?}: {text:?} is told: {}: {all}", !is_told);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn page(agent: &Process, path: &str) -> String {
    let answer = call(agent.admin, &request("GET", path, "")).await;
    assert_eq!(answer.status(), 200, "{path}: {}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entrypoint_that_two_hosts_do_not_reach_is_told_at_both_ends_until_it_is_reached() {
    let a = Process::start("a", &[]);
    let join = a.gossip.to_string();
    let agents = [a, Process::start("b", &["--join", &join]), Process::start("c", &["--join", &join])];
    let entrypoint = nobody();
    let mut gost = FakeGost::start("n", agents[0].plugin).await;
    assert_eq!(gost.register_as("1", TUNNEL, &entrypoint.to_string()).await, 200);

    let calm = "nobody reports an entrypoint that it cannot reach";
    assert_eq!(told(&agents[0], &["matrix"]), format!("{calm}\n"));
    let ours = format!("b and c cannot reach our entrypoint {entrypoint}: their dials are refused");
    until(&agents, 0, &["status"], &ours, true).await;
    let there = format!(
        "a visitor here cannot be sent to a: a dial of its gost's entrypoint {entrypoint} is refused"
    );
    for at in [1, 2] {
        until(&agents, at, &["status"], &there, true).await;
        assert!(page(&agents[at], "/metrics").await.contains("\ngossd_entrypoints_unreached 1.0\n"));
        assert!(page(&agents[at], "/readyz").await.contains(&there), "and it is ready");
        let why = "a is alive, but its entrypoint refuses connections from here";
        let explained = told(&agents[at], &["explain", TUNNEL]);
        assert!(explained.contains(why) && explained.contains("  refused  "), "{explained}");
    }
    assert!(page(&agents[0], "/metrics").await.contains("\ngossd_own_entrypoints_unreached 1.0\n"));
    assert!(page(&agents[0], "/readyz").await.contains(&ours));
    let matrix = until(&agents, 2, &["matrix"], "2 times, a host reports", true).await;
    let rows: Vec<Vec<&str>> = matrix.lines().skip(3).map(|row| row.split_whitespace().collect()).collect();
    for (row, host) in rows.iter().zip(["b", "c"]) {
        assert_eq!(row[..4], [host, &entrypoint.to_string(), "a", "refused"], "{matrix}");
    }
    assert_eq!(rows.len(), 2, "{matrix}");

    // Two seconds after the first of them, so that one line has both.
    let start = Instant::now();
    while !agents[0].said().contains(&ours) {
        until(&agents, 0, &["status"], &ours, true).await;
        assert!(start.elapsed() < SOON, "{}", agents[0].said());
    }
    let _listening = TcpListener::bind(entrypoint).unwrap();
    for at in [0, 1, 2] {
        until(&agents, at, &["matrix"], calm, true).await;
        until(&agents, at, &["status"], "cannot", false).await;
    }
    until(&agents, 1, &["explain", TUNNEL], "takes connections from here", true).await;
    let over = "no peer says any more that it cannot reach this entrypoint of ours";
    let again = "a peer's gost can be dialled from this host again";
    eventually(SOON, "the owner is told", || agents[0].said().contains(over)).await;
    let [a, b, _] = agents;
    let (a, b) = (a.log(), b.log());
    assert_eq!((a.matches(&ours).count(), a.matches(over).count()), (1, 1), "{a}");
    assert_eq!((b.matches(&there).count(), b.matches(again).count()), (1, 1), "{b}");
}
