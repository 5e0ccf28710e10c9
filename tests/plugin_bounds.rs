//! What callers can take from the agent and from each other: slow callers, silent ones, too many of them. gost's own
//! connections, which are mostly idle, must not be affected.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::common::http::{Connection, call, request};
use crate::common::{eventually, frames, nobody};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::bounds::{Bounds, Closed};
use gossd_core::rank::BEST;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(300);
/// Long enough for every limit to pass several times.
const LONG: Duration = Duration::from_millis(1_500);
const GET: &str = "/sd?name=t";

fn bounded(max_connections: usize, patience: Duration) -> Config {
    let max_connections = NonZeroUsize::new(max_connections).expect("some");
    let config = Config::loopback("a".parse().expect("a name"));
    Config { bounds: Bounds { max_connections, patience, ..Bounds::default() }, ..config }
}

async fn start(config: Config) -> Daemon {
    Daemon::start(config).await.expect("the agent starts")
}

async fn open(agent: &Daemon) -> TcpStream {
    TcpStream::connect(agent.plugin).await.expect("the agent listens")
}

/// Everything that arrives until the agent closes the connection, in whatever way.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    let _end_or_reset = read.expect("the agent closes it");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn served(connection: &mut Connection) {
    assert_eq!(connection.call(&request("GET", GET, "")).await.status(), 200);
}

async fn eventually_closed(agent: &Daemon, why: Closed, count: u64) {
    let what = format!("{count} closed as {why:?}");
    eventually(SOON, &what, || agent.plugin_closed().closed(why) == count).await;
}

fn assert_closed(agent: &Daemon, want: &[(Closed, u64)]) {
    for (why, word) in Closed::ALL {
        let want = want.iter().find(|(w, _)| *w == why).map_or(0, |(_, count)| *count);
        assert_eq!(agent.plugin_closed().closed(why), want, "{word}");
    }
}

/// Makes the answer for `t` some 70 KB long: more than a window, and as long as an answer gets.
async fn fill(agent: &Daemon) {
    let mut connection = Connection::open(agent.plugin).await;
    for n in 0..BEST {
        let (id, node) = (format!("{n:0>500}"), format!("{n:0>500}"));
        // An address that no host has: a dial of one that this host has would be refused.
        let address = format!("198.51.100.1:{}", n + 1);
        let body = json!({"id": id, "name": "t", "node": node, "network": "tcp", "address": address});
        assert_eq!(connection.call(&request("POST", "/sd", &body.to_string())).await.status(), 200);
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_every_limit() {
    let agent = start(bounded(8, PATIENCE)).await;
    let mut kept = Connection::open(agent.plugin).await;
    let mut unused = Connection::open(agent.plugin).await;
    served(&mut kept).await;
    for _ in 0..2 {
        sleep(LONG).await;
        served(&mut kept).await;
    }
    served(&mut unused).await;
    assert_closed(&agent, &[]);
}

#[tokio::test]
async fn a_head_that_is_not_completed_ends_its_connection() {
    let agent = start(bounded(8, PATIENCE)).await;
    let mut silent = open(&agent).await;
    silent.write_all(b"GET /sd?na").await.expect("it reads");
    assert_eq!(until_closed(&mut silent).await, "");
    eventually_closed(&agent, Closed::SlowHead, 1).await;

    let mut again = Connection::open(agent.plugin).await;
    served(&mut again).await;
    again.send("GET /sd?na").await;
    eventually_closed(&agent, Closed::SlowHead, 2).await;
    assert_closed(&agent, &[(Closed::SlowHead, 2)]);
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_no_more_time_than_another() {
    let agent = start(bounded(8, PATIENCE)).await;
    let mut slow = open(&agent).await;
    let begun = Instant::now();
    while slow.write_all(b"G").await.is_ok() {
        assert!(begun.elapsed() < SOON, "it is never closed");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= PATIENCE);
    assert_closed(&agent, &[(Closed::SlowHead, 1)]);
}

#[tokio::test]
async fn an_incomplete_body_is_refused_and_changes_nothing() {
    let agent = start(bounded(8, PATIENCE)).await;
    let mut slow = open(&agent).await;
    let body = r#"{"id":"i","name":"t","node":"n","network":"tcp","address":"10.0.0.1:80"}"#;
    let post = request("POST", "/sd", body);
    slow.write_all(&post.as_bytes()[..post.len() - 1]).await.expect("it reads");
    let answer = until_closed(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#"{"error":"#), "{answer}");
    assert_closed(&agent, &[(Closed::SlowBody, 1)]);
    assert_eq!(agent.counts().records, 0);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_closed() {
    let agent = start(bounded(8, PATIENCE)).await;
    fill(&agent).await;
    let mut deaf = open(&agent).await;
    let gets = request("GET", GET, "").repeat(400);
    deaf.write_all(gets.as_bytes()).await.expect("it reads");
    eventually_closed(&agent, Closed::Unread, 1).await;
    let answer = call(agent.plugin, &request("GET", GET, "")).await;
    assert!(answer.body.len() > 65_536, "{} bytes", answer.body.len());
    assert_closed(&agent, &[(Closed::Unread, 1)]);
}

#[tokio::test]
async fn an_http_2_client_that_opens_no_window_is_closed() {
    let agent = start(bounded(8, PATIENCE)).await;
    fill(&agent).await;
    let mut deaf = open(&agent).await;
    deaf.write_all(&[frames::hello(), frames::get(1, GET)].concat()).await.expect("it reads");
    let received = until_closed(&mut deaf).await.len();
    assert!((60_000..150_000).contains(&received), "a window's worth, not {received}");
    assert_closed(&agent, &[(Closed::Unread, 1)]);
}

#[tokio::test]
async fn an_http_2_connection_that_only_pings_is_idle() {
    let agent = start(bounded(8, PATIENCE)).await;
    let mut stream = open(&agent).await;
    stream.write_all(&frames::hello()).await.expect("it reads");
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        stream.write_all(&frames::frame(frames::PING, 0, 0, b"12345678")).await.expect("it is open");
        assert_eq!(frames::receive_kind(&mut stream, frames::PING, frames::ACK).await, b"12345678");
        sleep(Duration::from_millis(50)).await;
    }
    stream.write_all(&frames::get(1, GET)).await.expect("it is open");
    assert_eq!(frames::receive_kind(&mut stream, frames::DATA, 0).await, br#"{"services":[]}"#);
    sleep(LONG).await;
    stream.write_all(&frames::get(3, GET)).await.expect("it is open");
    assert_eq!(frames::receive_kind(&mut stream, frames::DATA, 0).await, br#"{"services":[]}"#);
    assert_closed(&agent, &[]);
}

#[tokio::test]
async fn an_http_2_head_that_is_not_completed_ends_its_connection() {
    let agent = start(bounded(8, PATIENCE)).await;
    let get = frames::get(1, GET);
    let mut cut = frames::frame(frames::HEADERS, 0, 1, &get[9..]);
    for begun in [&frames::PREFACE[..10], &[&frames::hello(), &get[..12]].concat(), {
        cut.splice(0..0, frames::hello());
        &cut
    }] {
        let mut stream = open(&agent).await;
        stream.write_all(begun).await.expect("it reads");
        until_closed(&mut stream).await;
    }
    assert_closed(&agent, &[(Closed::SlowHead, 3)]);
}

#[tokio::test]
async fn silent_connections_make_room_and_gosts_does_not() {
    let agent = start(bounded(8, Duration::from_secs(60))).await;
    let mut kept = Connection::open(agent.plugin).await;
    served(&mut kept).await;
    let mut silent = Vec::new();
    for n in 1..=24_u64 {
        silent.push(open(&agent).await);
        eventually_closed(&agent, Closed::Evicted, n.saturating_sub(7)).await;
        served(&mut kept).await;
    }
    for stream in &mut silent[..17] {
        assert_eq!(until_closed(stream).await, "", "the oldest went");
    }
    let mut newest = silent.pop().expect("there are some");
    newest.write_all(request("GET", GET, "").as_bytes()).await.expect("it is open");
    let mut first = [0; 12];
    newest.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200", "the newcomer got in");
    assert_closed(&agent, &[(Closed::Evicted, 17)]);
}

#[tokio::test]
async fn among_used_connections_the_longest_idle_one_goes() {
    let agent = start(bounded(4, Duration::from_secs(60))).await;
    let mut busy = Connection::open(agent.plugin).await;
    let mut others = Vec::new();
    for n in 1..=9_u64 {
        let mut other = Connection::open(agent.plugin).await;
        served(&mut other).await;
        others.push(other);
        eventually_closed(&agent, Closed::Evicted, n.saturating_sub(3)).await;
        served(&mut busy).await;
    }
    for other in &mut others[6..] {
        served(other).await;
    }
    assert_closed(&agent, &[(Closed::Evicted, 6)]);
}

#[tokio::test]
async fn connections_that_were_only_refused_go_before_an_idle_gost() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    crate::common::write_secret(&file, "right\n");
    let agent = start(Config { token_file: Some(file), ..bounded(4, Duration::from_secs(60)) }).await;
    let get = request("GET", GET, "");
    let with_token = get.replacen("\r\n", "\r\nAuthorization: Bearer right\r\n", 1);
    let mut gost = Connection::open(agent.plugin).await;
    assert_eq!(gost.call(&with_token).await.status(), 200);
    let mut strangers = Vec::new();
    for n in 1..=9_u64 {
        let mut stranger = Connection::open(agent.plugin).await;
        assert_eq!(stranger.call(&get).await.status(), 401);
        strangers.push(stranger);
        eventually_closed(&agent, Closed::Evicted, n.saturating_sub(3)).await;
    }
    assert_eq!(gost.call(&with_token).await.status(), 200);
}

#[tokio::test]
async fn a_stalled_connection_goes_before_an_idle_one() {
    let patience = Duration::from_secs(5);
    let agent = start(bounded(3, patience)).await;
    let mut idle = Connection::open(agent.plugin).await;
    served(&mut idle).await;
    let mut stalled = Connection::open(agent.plugin).await;
    served(&mut stalled).await;
    stalled.send("GET /sd?na").await;
    let mut third = Connection::open(agent.plugin).await;
    served(&mut third).await;
    sleep(patience / 5).await;
    let mut newcomer = Connection::open(agent.plugin).await;
    for connection in [&mut newcomer, &mut third, &mut idle] {
        served(connection).await;
    }
    assert_closed(&agent, &[(Closed::Evicted, 1)]);
}

#[tokio::test]
async fn all_listeners_share_the_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gossd.sock");
    let plugin_socket = Some(path.clone());
    let agent = start(Config { plugin_socket, ..bounded(4, Duration::from_secs(60)) }).await;
    let mut kept = Connection::open(agent.plugin).await;
    served(&mut kept).await;
    let mut silent = Vec::new();
    for n in 1..=6_u64 {
        silent.push(UnixStream::connect(&path).await.expect("it listens"));
        eventually_closed(&agent, Closed::Evicted, n.saturating_sub(3)).await;
    }
    served(&mut kept).await;
}

#[tokio::test]
async fn an_evicted_gost_that_is_dead_is_noticed() {
    let agent = start(bounded(2, Duration::from_secs(60))).await;
    let gone = nobody();
    let body = json!({"id": "i", "name": "t", "node": "n", "network": "tcp", "address": gone.to_string()});
    let mut gost = Connection::open(agent.plugin).await;
    assert_eq!(gost.call(&request("POST", "/sd", &body.to_string())).await.status(), 200);
    sleep(LONG).await;
    assert_eq!(agent.counts().own_records, 1, "an open connection speaks for it");
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = Connection::open(agent.plugin).await;
        served(&mut other).await;
        others.push(other);
    }
    eventually(SOON, "its record is gone", || agent.counts().own_records == 0).await;
}

#[tokio::test]
async fn silent_connections_do_not_keep_the_agent_from_stopping() {
    let agent = start(bounded(8, Duration::from_secs(60))).await;
    let _silent = [open(&agent).await, open(&agent).await];
    let begun = Instant::now();
    agent.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}
