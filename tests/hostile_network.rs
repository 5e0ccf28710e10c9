//! Attackers who control the network and have no key, against the gossip port of a real agent. Whatever they send, only
//! counters change, nothing is answered, and what they take is bounded.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::puppet::{Puppet, cell, push, record_cell};
use crate::common::{TestCluster, eventually, ids, record};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::net::incoming::MAX_UNPROVEN;
use gossd::net::keyfile::generate;
use gossd_core::agent::{Changes, Counts};
use gossd_core::connection::Caller;
use gossd_core::link::counters::Dropped;
use gossd_core::link::frame::{self, Sealed};
use gossd_core::link::keyring::Keyring;
use gossd_core::link::wire::{self, Kind};
use gossd_core::slot::Content;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// A record of the puppet's, in slot 1, with sequence number 2.
fn a_record() -> (u32, Vec<u8>) {
    (1, record_cell(2, ["p", "t", "node-2", "10.0.0.2:8420"]))
}

fn keyed(lines: &[&str]) -> Keyring {
    Keyring::parse(&lines.join("\n")).expect("keys")
}

/// Two agents with a record each, and a puppet with another that the first one knows.
async fn cluster(key: &str) -> (TestCluster, Puppet) {
    let cluster = TestCluster::start(2, |_, config| config.keyring = keyed(&[key])).await;
    for (n, agent) in cluster.agents.iter().enumerate() {
        agent.agent().register(Caller::local(1), record(&n.to_string(), "t")).expect("room");
    }
    let puppet = join(&cluster.agents[0], key, "puppet", 1).await;
    puppet.get_ready().await;
    puppet.push(2, &[a_record()]).await;
    eventually(SOON, "all is known", || ids(&cluster.agents[0], "t") == ["0", "1", "p"]).await;
    (cluster, puppet)
}

async fn join(agent: &Daemon, key: &str, name: &str, generation: u64) -> Puppet {
    let before = agent.peers();
    let puppet =
        Puppet::start(agent.gossip, keyed(&[key]), gossd::config::DEFAULT_CLUSTER, name, generation).await;
    eventually(SOON, "the puppet is admitted", || agent.peers() > before).await;
    puppet
}

/// Everything that an attacker could want to change.
fn state(agent: &Daemon) -> (Counts, Vec<String>, Vec<String>, u64, String) {
    let view = agent.agent().view();
    let members = view.members.iter();
    let members = members
        .map(|m| format!("{} {:?} {:?} {:?} {}", m.name, m.generation, m.status, m.standing, m.records));
    // The test itself asks for records, so their entrypoints are dialled.
    let changes = Changes { tried: [0; 3], ..view.changes };
    (view.counts, members.collect(), ids(agent, "t"), view.last_event, format!("{changes:?}"))
}

fn dropped(agent: &Daemon) -> u64 {
    Dropped::ALL.iter().map(|(why, _)| agent.counters().dropped(*why)).sum()
}

/// Sends frames from a socket of its own, at a pace that the kernel's buffers can take. Each frame has to be dropped
/// for one of these reasons, and none answered.
async fn attack(agent: &Daemon, what: &str, frames: &[Vec<u8>], reasons: &[Dropped]) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let of = || reasons.iter().map(|why| agent.counters().dropped(*why)).sum::<u64>();
    let (before, all_before, state_before) = (of(), dropped(agent), state(agent));
    for (n, frame) in (1..).zip(frames) {
        socket.send_to(frame, agent.gossip).expect("sent");
        if n % 100 == 0 {
            eventually(SOON, what, || dropped(agent) >= all_before + n).await;
        }
    }
    eventually(SOON, what, || of() >= before + frames.len() as u64).await;
    assert_eq!(state(agent), state_before, "{what}");
    socket.set_nonblocking(true).expect("a socket option");
    let mut buffer = [0; 100];
    while let Ok(len) = socket.recv(&mut buffer) {
        // Whoever begins a handshake in vain is told why, in a few bytes.
        let answer = frame::read(&buffer[..len]);
        assert!(matches!(answer, Ok(Sealed::Refusal { .. })), "{what}: an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cannot_be_decrypted_are_counted_and_change_nothing() {
    let (key, other) = (generate().line(), generate().line());
    let (cluster, puppet) = cluster(&key).await;
    let (agent, mut rng) = (&cluster.agents[0], StdRng::seed_from_u64(1));
    let mut random = |len: usize| {
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes[..]);
        bytes
    };
    let bytes: Vec<_> = (0..500).map(|n| random(n * 3)).collect();
    attack(agent, "random bytes", &bytes, &[Dropped::NotAFrame]).await;
    let real =
        puppet.frame(Kind::Push, &push(1_000, 9, &[(2, record_cell(9, ["x", "t", "n", "10.0.0.3:1"]))]));
    let cut: Vec<_> = (0..real.len()).map(|len| real[..len].to_vec()).collect();
    attack(agent, "cut short", &cut, &[Dropped::NotAFrame, Dropped::BadSeal]).await;
    let bits = (0..real.len() * 8).map(|bit| {
        let mut frame = real.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        frame
    });
    let reasons = [Dropped::NotAFrame, Dropped::Version, Dropped::Stranger, Dropped::BadSeal];
    attack(agent, "a bit changed", &bits.collect::<Vec<_>>(), &reasons).await;
    let long = [1, 100, 9_000, 60_000].map(|more| [&real[..], &random(more)].concat());
    attack(agent, "more than was sealed", &long, &[Dropped::BadSeal]).await;
    let bodies: Vec<_> = (0..500).map(|n| [&real[..16], &random(16 + n)].concat()).collect();
    attack(agent, "a header of ours and a body of theirs", &bodies, &[Dropped::BadSeal]).await;
    for (cluster, key, why) in [("other", &key, Dropped::BadSeal), ("default", &other, Dropped::UnknownKey)] {
        let stranger = Puppet::start(agent.gossip, keyed(&[key]), cluster, "stranger", 9).await;
        let beginnings = stranger.sent();
        assert!(beginnings.len() > 3);
        attack(agent, "of another cluster, or with another key", &beginnings, &[why]).await;
        let frames: Vec<_> = Kind::ALL
            .map(|kind| {
                stranger.frame(
                    kind,
                    &wire::encode(&wire::Ping { nonce: Some(7), told: 0, revision: 0, lost: 0, ran: 0 }),
                )
            })
            .into();
        attack(agent, "of no session", &frames, &[Dropped::Stranger]).await;
        let heard = stranger.heard();
        let is_refusal = |frame: &Vec<u8>| matches!(frame::read(frame), Ok(Sealed::Refusal { .. }));
        assert!(heard.len() <= stranger.sent().len() && heard.iter().all(is_refusal), "nobody talks to it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_frames_change_nothing() {
    let key = generate().line();
    let (cluster, puppet) = cluster(&key).await;
    let agent = &cluster.agents[0];
    let held_back = puppet.frame(Kind::Push, &push(7, 9, &[(1, cell(9, Content::Empty))]));
    for _ in 0..40 {
        puppet.push(2, &[a_record()]).await;
    }
    let last = puppet.frame_as(20_000, Kind::Push, &push(8, 2, &[a_record()]));
    eventually(SOON, "its window moves on", || {
        // Lost frames are sent again: only the first one counts.
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&last, agent.gossip));
        agent.counters().dropped(Dropped::Replayed) > 0
    })
    .await;
    let mut recorded = of_sessions(&puppet.sent());
    attack(agent, "replayed", &recorded, &[Dropped::Replayed]).await;
    recorded.reverse();
    attack(agent, "reordered", &recorded, &[Dropped::Replayed]).await;
    attack(agent, "of the past, and never seen", &[held_back], &[Dropped::Replayed]).await;
    attack(agent, "reflected", &own_frames(&puppet), &[Dropped::Stranger]).await;
    assert_eq!(proofs_of(&puppet.sent()).len(), 1);
    attack(agent, "a proof again", &proofs_of(&puppet.sent()), &[Dropped::Stranger]).await;
}

/// Those frames that belong to a session.
fn of_sessions(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().filter(|frame| matches!(frame::read(frame), Ok(Sealed::Data { .. }))).cloned().collect()
}

/// Those frames that end a handshake.
fn proofs_of(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().filter(|frame| matches!(frame::read(frame), Ok(Sealed::Proof { .. }))).cloned().collect()
}

/// The frames that the agent sent to a puppet.
fn own_frames(puppet: &Puppet) -> Vec<Vec<u8>> {
    let frames = puppet.heard();
    assert!(frames.len() > 3, "it was greeted and thanked");
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_memory_answers_replayed_frames_like_strangers_and_rarely() {
    let key = generate().line();
    let (_cluster, puppet) = cluster(&key).await;
    let recorded = puppet.sent();
    drop(puppet);
    let mut config = Config::loopback("young".parse().expect("a name"));
    config.keyring = keyed(&[&key]);
    let young = Daemon::start(config).await.expect("an agent starts");
    let begun = Instant::now();
    // The first begins a handshake.
    let frames: Vec<_> = recorded.iter().chain(std::iter::repeat_n(&recorded[0], 3_000)).cloned().collect();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    for (n, frame) in (1..).zip(&frames) {
        socket.send_to(frame, young.gossip).expect("sent");
        if n % 100 == 0 {
            let answered = || young.counters().sent_of(Kind::Reply);
            eventually(SOON, "all are seen", || dropped(&young) + answered() >= n).await;
        }
    }
    let replies = young.counters().sent_of(Kind::Reply);
    let most = 32 + 16 * begun.elapsed().as_secs();
    assert!((1..=most).contains(&replies), "{replies} answers, at most {most}");
    socket.set_nonblocking(true).expect("a socket option");
    let mut buffer = [0; 2_000];
    let answers = std::iter::from_fn(|| socket.recv(&mut buffer).ok());
    let answered: usize = answers.sum();
    assert!(answered < frames.iter().map(Vec::len).sum::<usize>(), "{answered} bytes answered");
    assert_eq!((young.peers(), young.counts().agents, young.counts().records), (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_under_a_retired_key_are_rejected() {
    let (old, new) = (generate().line(), generate().line());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, format!("{}\n{}\n", *new, *old)).expect("written");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let mut config = Config::loopback("a".parse().expect("a name"));
    (config.keyring, config.key_file) = (keyed(&[&new, &old]), Some(file.clone()));
    let agent = Daemon::start(config).await.expect("an agent starts");
    let puppet = join(&agent, &old, "puppet", 1).await;
    attack(&agent, "replayed", &of_sessions(&puppet.sent()), &[Dropped::Replayed]).await;
    std::fs::write(&file, format!("{}\n", *new)).expect("written");
    agent.reload();
    eventually(SOON, "the old key is gone", || {
        let _ =
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&puppet.sent()[0], agent.gossip));
        agent.counters().dropped(Dropped::UnknownKey) > 0
    })
    .await;
    let fresh = vec![puppet.frame(Kind::Push, &push(9, 9, &[a_record()]))];
    let reasons = [Dropped::UnknownKey, Dropped::Stranger];
    attack(&agent, "with a retired key", &[puppet.sent(), fresh].concat(), &reasons).await;
}

/// A connection that has sent these bytes.
async fn open(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.expect("the agent listens");
    // The agent may close it before it has received everything.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Waits until the agent closes the connection without an answer.
async fn closed(stream: &mut TcpStream) {
    let read = timeout(SOON, stream.read(&mut [0; 1])).await.expect("closed by the agent");
    assert!(matches!(read, Ok(0) | Err(_)), "an answer");
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).expect("short").to_be_bytes(), frame].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_bring_nothing_new_from_a_peer_are_closed_and_counted() {
    let key = generate().line();
    let (cluster, puppet) = cluster(&key).await;
    let agent = &cluster.agents[0];
    let before = state(agent);
    let count = |why| agent.counters().dropped(why);
    let replayed = of_sessions(&puppet.sent()).remove(0);
    let at_once: [(&str, Vec<u8>); 5] = [
        ("4 GB announced", u32::MAX.to_be_bytes().into()),
        ("one byte too many announced", 70_000_u32.to_be_bytes().into()),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a frame of nobody's", framed(&[7; 100])),
        ("a frame that was there before", framed(&replayed)),
    ];
    let counted =
        || [Dropped::Connection, Dropped::NotAFrame, Dropped::Replayed].into_iter().map(count).sum::<u64>();
    for (what, bytes) in at_once {
        let all = counted();
        closed(&mut open(agent.gossip, &bytes).await).await;
        assert_eq!(counted(), all + 1, "{what}");
    }
    let dropped = count(Dropped::Connection);
    let mut silent = open(agent.gossip, b"").await;
    let mut begun = open(agent.gossip, b"\0").await;
    let mut dripping = open(agent.gossip, &1_000_u32.to_be_bytes()).await;
    let drip = tokio::spawn(async move {
        // A byte a second, until it is closed.
        while dripping.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut proven = open(agent.gossip, &framed(&puppet.frame(Kind::Push, &push(9, 2, &[a_record()])))).await;
    for stream in [&mut silent, &mut begun] {
        closed(stream).await;
    }
    timeout(SOON, drip).await.expect("the dripping one is closed").expect("it only writes");
    assert_eq!(count(Dropped::Connection), dropped + 3, "and not the peer's");
    let taken = agent.counters().received_of(Kind::Push);
    proven
        .write_all(&framed(&puppet.frame(Kind::Push, &push(10, 2, &[a_record()]))))
        .await
        .expect("it is open");
    eventually(SOON, "a peer may pause", || agent.counters().received_of(Kind::Push) > taken).await;
    assert_eq!(state(agent), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_connections_are_held_a_peer_gets_in_and_the_number_is_bounded() {
    let key = generate().line();
    let (cluster, puppet) = cluster(&key).await;
    let agent = &cluster.agents[0];
    let mut held = Vec::new();
    for _ in 0..MAX_UNPROVEN * 4 {
        held.push(open(agent.gossip, b"").await);
    }
    let crowded = || agent.counters().dropped(Dropped::Crowded);
    let most = u64::try_from(MAX_UNPROVEN).expect("few");
    // On a busy machine, some may have been closed for their silence by now.
    let gone = || crowded() + agent.counters().dropped(Dropped::Connection);
    eventually(SOON, "the first ones went", || gone() >= most * 3).await;
    let taken = agent.counters().received_of(Kind::Push);
    let _peer = open(agent.gossip, &framed(&puppet.frame(Kind::Push, &push(11, 2, &[a_record()])))).await;
    eventually(SOON, "the peer is heard", || agent.counters().received_of(Kind::Push) > taken).await;
    for stream in held.iter_mut().take(MAX_UNPROVEN * 3) {
        closed(stream).await;
    }
}
