//! Messages of chitchat on their way from a frame to chitchat. Whatever they contain, chitchat continues, answers the
//! right peers, knows agents only, and keeps our own state unchanged.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chitchat::{ChitchatId, ChitchatMessage, Deserializable as _, Serializable as _};
use gossd::gossip::Hearer;
use gossd::gossip::antientropy::{AntiEntropy, Channels, DEAD_GRACE, Member, Said, Settings};
use gossd::gossip::counters::{Counters, Dropped};
use gossd::gossip::session::Peer;
use gossd::gossip::wire::MAX_PAYLOAD;
use gossd_core::agent::News;
use gossd_core::record::Owner;
use gossd_core::replica::Part;
use gossd_core::slot::{Slot, Status, Version};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use super::input::Input;

/// Most messages of one input.
const MESSAGES: usize = 4;
const CLUSTER: &str = "c";

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// Messages, each after a byte that selects how to make it.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut messages = Vec::new();
    while !input.is_empty() && messages.len() < MESSAGES {
        messages.push(message(&mut input));
    }
    let runtime = || Builder::new_current_thread().enable_time().build().expect("a runtime");
    RUNTIME.with(|cell| cell.get_or_init(runtime).block_on(heard(messages)));
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8002))
}

fn peer(n: u8) -> Peer {
    Peer { owner: Owner { name: format!("peer-{n}").parse().expect("a name"), generation: 5 }, addr: addr(n) }
}

async fn heard(messages: Vec<Vec<u8>>) {
    let settings = Settings {
        owner: Owner { name: "a".parse().expect("a name"), generation: 5 },
        addr: addr(1),
        interval: Duration::from_secs(3_600),
        cluster: CLUSTER.into(),
        dead_grace: DEAD_GRACE,
    };
    let (outgoing, mut sent) = mpsc::channel(2 * MESSAGES);
    let (members, known) = watch::channel(Vec::new());
    let version = 9;
    let (_saying, said) = watch::channel(Said { status: Some(Status::Ready), version });
    let channels = Channels { outgoing, members, said };
    let (hearer, counters) = (Arc::new(Recorder::default()), Arc::new(Counters::default()));
    let started = AntiEntropy::start(settings, channels, hearer.clone(), counters.clone()).await;
    let mut running = started.expect("it starts");
    says(&mut running).await;
    let count = messages.len() as u64;
    for (n, message) in (2..).zip(messages) {
        assert!(message.len() <= MAX_PAYLOAD);
        running.incoming.try_send((peer(n), message)).expect("the queue is long enough");
    }
    let asker = addr(200);
    running.incoming.try_send((peer(200), misled())).expect("the queue is long enough");
    let mut answers = 0;
    loop {
        let (to, answer) = sent.recv().await.expect("chitchat goes on");
        assert!(answer.len() <= MAX_PAYLOAD, "{} bytes", answer.len());
        if to == asker {
            break;
        }
        // Not every time, because decompressing takes long.
        if answer.len() % 8 == 0 {
            ChitchatMessage::deserialize(&mut &answer[..]).expect("what it says can be understood");
        }
        answers += 1;
    }
    let dropped = counters.dropped(Dropped::Malformed);
    assert!(answers + dropped <= count, "{answers} answers, {dropped} dropped, of {count}");
    says(&mut running).await;
    all_are_agents(&known.borrow());
    hearer.check();
    running.end();
}

/// A peer may have overwritten our own key.
async fn says(running: &mut AntiEntropy) {
    let [status, version] = running.round().await;
    assert_eq!((status.as_deref(), version.as_deref()), (Some("ready"), Some("9")));
}

fn all_are_agents(members: &[Member]) {
    for Member { owner, .. } in members {
        assert!(!owner.name.as_str().is_empty());
    }
    let mut seen: Vec<_> = members.iter().map(|member| (&member.owner, member.addr)).collect();
    seen.sort_unstable();
    let before = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), before, "nobody is there twice");
    assert!(
        !seen.contains(&(&Owner { name: "a".parse().expect("a name"), generation: 5 }, addr(1))),
        "we are no peer"
    );
}

/// Records the news. Only signs of life and death, and refused messages, may come.
#[derive(Default)]
struct Recorder(Mutex<Vec<News>>);

impl Hearer for Recorder {
    fn hear(&self, event: News) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn version(&self, _: &Owner) -> Option<Version> {
        None
    }

    fn part(&self, _: &Owner, _: Version, _: Slot) -> Option<Part> {
        None
    }
}

impl Recorder {
    fn check(&self) {
        for event in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let expected =
                matches!(event, News::Hearsay { .. } | News::Forgotten { .. } | News::Refused { .. });
            assert!(expected, "{event:?}");
        }
    }
}

fn message(input: &mut Input<'_>) -> Vec<u8> {
    let how = input.byte();
    match how % 4 {
        0 => input.counted().to_vec(),
        kind => {
            let mut message = head(kind - 1);
            if kind < 3 {
                digest(input, &mut message);
            }
            if kind == 1 {
                let cluster = if how < 240 { CLUSTER } else { "other" };
                cluster.serialize(&mut message);
            } else {
                delta(input, how, &mut message);
            }
            message
        }
    }
}

/// The magic number, the version and the kind.
fn head(kind: u8) -> Vec<u8> {
    let mut message = 45_139_u16.to_le_bytes().to_vec();
    message.extend([0, kind]);
    message
}

/// A message that is answered with a refusal, because it claims that everything older was received: cheaper than an
/// exchange.
fn misled() -> Vec<u8> {
    let mut message = head(0);
    0_u16.serialize(&mut message);
    "another cluster".serialize(&mut message);
    message
}

fn member(input: &mut Input<'_>, to: &mut Vec<u8>) {
    let n = input.byte();
    let name = match n % 8 {
        0 => "a",
        1..5 => ["b", "c", "d", "e-1.example.org"][usize::from(n % 4)],
        5 | 6 => str::from_utf8(input.counted()).unwrap_or("ü"),
        _ => "",
    };
    ChitchatId::new(name, 5 + u64::from(n / 64), addr(1 + n % 8)).serialize(to);
}

/// Mostly small, or near the maximum.
fn number(input: &mut Input<'_>) -> u64 {
    let byte = input.byte();
    match byte {
        0..192 => u64::from(byte),
        192..224 => 1 << (byte - 160),
        _ => u64::MAX - u64::from(255 - byte),
    }
}

fn digest(input: &mut Input<'_>, to: &mut Vec<u8>) {
    let count = u16::from(input.byte() % 8);
    count.serialize(to);
    for _ in 0..count {
        member(input, to);
        number(input).serialize(to);
        (number(input) % 97 / 96).serialize(to);
        number(input).serialize(to);
    }
}

fn delta(input: &mut Input<'_>, how: u8, to: &mut Vec<u8>) {
    if how >= 240 {
        to.extend(input.counted());
        return;
    }
    let mut told = Vec::new();
    for _ in 0..input.byte() % 12 {
        word(input, &mut told);
    }
    let len = u16::try_from(told.len()).unwrap_or(u16::MAX);
    to.push(2);
    len.serialize(to);
    to.extend(&told[..usize::from(len)]);
    to.push(0);
}

fn word(input: &mut Input<'_>, told: &mut Vec<u8>) {
    let what = input.byte();
    let kind = [0, 1, 1, 2][usize::from(what % 4)];
    told.push(kind);
    match kind {
        0 => {
            member(input, told);
            u64::from(what > 250).serialize(told);
            number(input).serialize(told);
        }
        1 => {
            let text = |input: &mut Input<'_>| str::from_utf8(input.counted()).unwrap_or("é").to_owned();
            let key = if what < 224 {
                ["status", "version"][usize::from(what / 8 % 2)].to_owned()
            } else {
                text(input)
            };
            let value = match what / 16 % 4 {
                0 => "ready".to_owned(),
                1 => "left".to_owned(),
                2 => format!("{} {}", number(input), number(input)),
                _ => text(input),
            };
            key.serialize(told);
            value.serialize(told);
            number(input).serialize(told);
            told.push(u8::from(what == 223));
        }
        _ => number(input).serialize(told),
    }
}
