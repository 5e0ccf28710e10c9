//! Many malicious clients of the plugin's port, while a gost renews on a kept-alive connection: each of its calls is
//! answered, and what the others take is bounded. Single slow clients are in `plugin_bounds`.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::common::frames::{self, HEADERS, PING, RST_STREAM, SETTINGS};
use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::Process;
use crate::common::{eventually, ids};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::bounds::{Bounds, Closed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
const GET: &str = "GET /sd?name=t HTTP/1.1\r\nHost: a\r\n\r\n";

async fn agent(max_connections: usize, patience: Duration) -> Daemon {
    let mut config = Config::loopback("a".parse().expect("a name"));
    config.bounds = Bounds {
        max_connections: NonZeroUsize::new(max_connections).expect("some"),
        patience,
        ..Bounds::default()
    };
    Daemon::start(config).await.expect("the agent starts")
}

async fn open(agent: &Daemon, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(agent.plugin).await.expect("the agent listens");
    // The agent may close it before it has received everything.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Everything that arrives until the agent closes the connection, in whatever way.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _end_or_reset = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the agent closes it");
    bytes
}

/// Renews during the attack, and once after it, always on one connection. Returns the result of the attack.
async fn besieged<T>(agent: &Daemon, attack: impl Future<Output = T>) -> T {
    let mut gost = FakeGost::start("node-1", agent.plugin).await;
    gost.register("1", "t").await;
    tokio::pin!(attack);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut attack => break result,
            () = tokio::time::sleep(Duration::from_millis(2)) => assert_eq!(gost.renew("1", "t").await, 200),
        }
    };
    assert_eq!(gost.renew("1", "t").await, 200);
    assert_eq!(ids(agent, "t"), ["1"]);
    result
}

/// The kinds of HTTP/2 frames among bytes, in their order.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = bytes {
        kinds.push(*kind);
        bytes = bytes.get(9 + u32::from_be_bytes([0, *a, *b, *c]) as usize..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_soon_as_they_are_opened_end_their_connection() {
    let agent = agent(64, Duration::from_secs(10)).await;
    let attack = async {
        let mut all = JoinSet::new();
        for _ in 0..8 {
            let stream = open(&agent, &frames::hello()).await;
            all.spawn(async move {
                let (mut read, mut write) = stream.into_split();
                let write = async move {
                    for stream in (1..200_001).step_by(2) {
                        let reset = frames::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                        let both = [frames::get(stream, "/sd?name=t"), reset].concat();
                        if write.write_all(&both).await.is_err() {
                            return true;
                        }
                    }
                    false
                };
                let mut bytes = Vec::new();
                let (refused, _) = tokio::join!(write, read.read_to_end(&mut bytes));
                (refused, bytes)
            });
        }
        all.join_all().await
    };
    for (refused, bytes) in timeout(SOON, besieged(&agent, attack)).await.expect("all end") {
        assert!(refused, "100,000 streams were taken");
        let answers = kinds(&bytes).into_iter().filter(|kind| *kind == HEADERS).count();
        assert!(answers < 2_000, "{answers} answers to nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_pings_whose_answers_nobody_reads_end_their_connection() {
    let agent = agent(64, Duration::from_millis(500)).await;
    let attack = async {
        let mut all = JoinSet::new();
        for kind in [SETTINGS, PING] {
            let mut stream = open(&agent, &frames::hello()).await;
            all.spawn(async move {
                let payload: &[u8] = if kind == PING { b"12345678" } else { b"" };
                let flood = frames::frame(kind, 0, 0, payload).repeat(1_000);
                while stream.write_all(&flood).await.is_ok() {}
            });
        }
        all.join_all().await
    };
    timeout(SOON, besieged(&agent, attack)).await.expect("both are closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_end_are_refused_in_both_protocols() {
    let agent = agent(64, Duration::from_secs(10)).await;
    let attack = async {
        let mut long = open(&agent, b"GET /sd?name=t HTTP/1.1\r\nHost: a\r\n").await;
        let line = format!("X: {}\r\n", "x".repeat(1_000));
        let mut sent = 0;
        while sent < 10_000 && long.write_all(line.as_bytes()).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 10_000, "10 MB of a head were taken");
        let mut many = open(&agent, b"GET /sd?name=t HTTP/1.1\r\nHost: a\r\n").await;
        let _ = many.write_all(("A: b\r\n".repeat(500) + "\r\n").as_bytes()).await;
        let answer = rest(&mut many).await;
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
        let mut endless = open(&agent, &frames::hello()).await;
        let head = frames::get(1, "/sd?name=t");
        let _ = endless.write_all(&frames::frame(HEADERS, 0, 1, &head[9..])).await;
        // A literal field without indexing: "a: xxx…".
        let field = [&[0, 1, b'a', 0x7f, 0x81, 0x06][..], &[b'x'; 896]].concat();
        let more = frames::frame(9, 0, 1, &field.repeat(10));
        let mut sent = 0;
        while sent < 10_000 && endless.write_all(&more).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 10_000, "90 MB of a head were taken");
    };
    timeout(SOON, besieged(&agent, attack)).await.expect("all are closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_thousand_connections_those_that_do_nothing_useful_go() {
    let agent = agent(64, Duration::from_secs(10)).await;
    let openings: [&[u8]; 5] =
        [b"", b"PUT /sd HT", b"GET / HTTP/1.1\r\n\r\n", frames::PREFACE, b"\x16\x03\x01"];
    let attack = async {
        let mut held = Vec::new();
        for n in 0..2_000 {
            held.push(open(&agent, openings[n % openings.len()]).await);
        }
        let evicted = || agent.plugin_closed().closed(Closed::Evicted);
        // Connections that are not HTTP close by themselves; gost's own is never evicted.
        eventually(SOON, "most made room", || evicted() > 1_000).await;
        held
    };
    besieged(&agent, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_no_more_takes_no_room() {
    let agent = agent(32, Duration::from_secs(10)).await;
    let attack = async {
        for n in 0..500 {
            let asked = if n % 2 == 0 { GET } else { &GET[..20] };
            let mut stream = open(&agent, asked.as_bytes()).await;
            stream.shutdown().await.expect("half of it");
            // With half a call or a whole one: the connection may be closed before the answer.
            let answer = rest(&mut stream).await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 200 "), "{n}");
        }
    };
    besieged(&agent, attack).await;
    assert_eq!(agent.plugin_closed().closed(Closed::Evicted), 0, "they were gone at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_pipeline_and_never_read_are_closed_and_hold_up_nobody() {
    let agent = agent(64, Duration::from_millis(500)).await;
    let attack = async {
        let mut all = JoinSet::new();
        for _ in 0..8 {
            let mut stream = open(&agent, b"").await;
            all.spawn(async move {
                let calls = GET.repeat(100);
                while stream.write_all(calls.as_bytes()).await.is_ok() {}
            });
        }
        all.join_all().await
    };
    let ended = timeout(SOON, besieged(&agent, attack)).await;
    assert!(ended.is_ok(), "all are closed: {:?}", agent.plugin_closed());
    let closed = |why| agent.plugin_closed().closed(why);
    assert!(closed(Closed::Unread) >= 1, "for what they do not read");
    assert_eq!(closed(Closed::Unread) + closed(Closed::SlowHead) + closed(Closed::Evicted), 8);
}

/// The kernel says that there are none left also when nobody waits to be accepted.
#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_callers_take_the_place_of_whoever_never_called() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let agent = Process::start("a", &[]);
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("it runs").count();
    let few = Some(u64::try_from(open + 8).expect("few"));
    let process = Pid::from_raw(agent.pid().cast_signed());
    prlimit(process, Resource::Nofile, Rlimit { current: few, maximum: few }).expect("it is ours");
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(agent.plugin).await.expect("the agent listens"));
    }
    for _ in 0..5 {
        let ask = request("GET", "/sd?name=t", "");
        let answer = timeout(SOON, call(agent.plugin, &ask)).await.expect("in time");
        assert_eq!(answer.status(), 200);
    }
}
