//! The cost of a call and of a frame without sockets: looking up one tunnel among many, ranking, applying a change,
//! encrypting and decrypting, and the codec of a push.
//!
//! `cargo bench --bench core`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gossd_core::address::Host;
use gossd_core::agent::{News, Restored, Settings, State};
use gossd_core::codec::{decode_cell, encode_cell};
use gossd_core::directory::Directory;
use gossd_core::link::noise::{ClusterKey, Handshake, Identity};
use gossd_core::link::wire::{self, Kind};
use gossd_core::liveness::Standing;
use gossd_core::rank::{Judged, Order, rank};
use gossd_core::record::{Draft, Owner, Record};
use gossd_core::replica::Extent;
use gossd_core::slot::{Cell, Change, SlotTable, Status, Versions, Write};
use gossd_core::tunnels::OwnedRecord;

/// Records of a large cluster.
const RECORDS: usize = 100_000;

fn tunnel(n: usize) -> String {
    format!("4d21094e-b74c-4916-86c1-{n:012x}")
}

fn record(n: usize, tunnel: &str) -> Arc<Record> {
    let id = format!("c23d4f42-c892-42b3-8b74-{n:012x}");
    let node = "e1342e00-b1d2-4ae1-ba9c-b026c0540cff";
    let draft = Draft { id: &id, name: tunnel, node, network: "tcp", address: "10.0.0.1:8420" };
    Arc::new(draft.register(&Host::Unusable).expect("a record"))
}

fn owner(n: usize) -> Owner {
    Owner { name: format!("agent-{n}").parse().expect("a name"), generation: 1 }
}

/// The changes of an owner of these records.
fn said(records: impl Iterator<Item = Arc<Record>>) -> Vec<Change> {
    let (mut slots, mut versions) = (SlotTable::default(), Versions::default());
    let records: Vec<Write> = records.map(|record| slots.put(record).expect("room")).collect();
    records.into_iter().chain([Write::status(Status::Ready)]).map(|write| versions.change(write)).collect()
}

/// The directory of an agent that holds nothing itself.
fn empty() -> Directory {
    Directory::new(&owner(RECORDS))
}

fn directory(owner: &Owner, changes: &[Change]) -> Directory {
    let mut directory = empty();
    for change in changes {
        directory.say(Instant::now(), owner, change, &mut Vec::new());
    }
    directory
}

fn lookup(c: &mut Criterion) {
    let directory = directory(&owner(0), &said((0..RECORDS).map(|n| record(n, &tunnel(n)))));
    let names: Vec<String> = (0..RECORDS).step_by(97).map(tunnel).collect();
    let mut next = names.iter().cycle();
    c.bench_function("a tunnel among 100,000", |b| {
        b.iter(|| directory.lookup(black_box(next.next().expect("it goes round"))).len());
    });
}

fn ranking(c: &mut Criterion) {
    let mut group = c.benchmark_group("rank");
    for entries in [1, 3, 10, 100] {
        let mut all = empty();
        for n in 0..entries {
            for change in said(std::iter::once(record(n, &tunnel(0)))) {
                all.say(Instant::now(), &owner(n), &change, &mut Vec::new());
            }
        }
        let judge = |_: &OwnedRecord| Judged {
            standing: Standing::Live,
            trip: Some(Duration::from_millis(3)),
            ..Judged::default()
        };
        let mut seed = 0;
        group.bench_function(format!("{entries} records"), |b| {
            b.iter(|| {
                seed += 1;
                rank(&all.lookup(&tunnel(0)), Order::Random, seed, judge).count()
            });
        });
    }
    group.finish();
}

fn applying(c: &mut Criterion) {
    let changes = said((0..RECORDS).map(|n| record(n, &tunnel(n))));
    let (owner, mut slots, mut versions) = (owner(0), SlotTable::default(), Versions::default());
    // Brings the version up to that of the directory.
    (0..=RECORDS).for_each(|_| drop(versions.change(Write::status(Status::Ready))));
    let mut full = directory(&owner, &changes);
    let mut other = false;
    c.bench_function("a slot changes among 100,000", |b| {
        b.iter(|| {
            other = !other;
            let write = slots.replace(5, record(RECORDS + usize::from(other), &tunnel(RECORDS)));
            full.apply(Instant::now(), &owner, black_box(&versions.change(write)), &mut Vec::new());
        });
    });
    c.bench_function("a hundred slots of a newcomer", |b| {
        b.iter_batched_ref(
            empty,
            |directory| {
                for change in &changes[..100] {
                    directory.apply(Instant::now(), &owner, change, &mut Vec::new());
                }
            },
            BatchSize::SmallInput,
        );
    });
}

fn sessions(c: &mut Criterion) {
    let key = ClusterKey::new(&[1; 32], "default");
    let [a, b] = [2, 3].map(|n| Identity::new(&[n; 32]));
    let meet = || {
        let (ours, first) = Handshake::begin(&key, &a, [4; 32]);
        let Ok((theirs, second)) = Handshake::answer(&key, &b, [5; 32], &first, &[0; 40]) else {
            panic!("it is ours")
        };
        let Ok((one, third, _)) = ours.prove(&second, &[0; 40]) else { panic!("it is its answer") };
        let Ok((other, _)) = theirs.complete(&third) else { panic!("it is its proof") };
        [one, other]
    };
    c.bench_function("a handshake, both sides", |b| b.iter(meet));
    let mut group = c.benchmark_group("session");
    let [mut one, other] = meet();
    for bytes in [100, 1_000, 60_000] {
        let plain = vec![7; bytes];
        let (counter, frame) = one.encrypt(&plain);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("encrypt {bytes} bytes"), |b| b.iter(|| one.encrypt(black_box(&plain))));
        group.bench_function(format!("decrypt {bytes} bytes"), |b| {
            b.iter(|| other.decrypt(counter, black_box(&frame)));
        });
    }
    group.finish();
}

fn codec(c: &mut Criterion) {
    let changes = said(std::iter::once(record(7, &tunnel(7))));
    let mut value = Vec::new();
    encode_cell(&changes[0].cell, &mut value);
    let changes = vec![(changes[0].slot, &*value)];
    let push = wire::Push { age_us: 9, id: 9, former: None, since: 8, until: 9, changes };
    let plain = wire::pack(Kind::Push, &wire::encode(&push));
    c.bench_function("a push of one record: encode and pack", |b| {
        b.iter(|| wire::pack(Kind::Push, &wire::encode(black_box(&push))));
    });
    c.bench_function("a push of one record: split, decode and parse", |b| {
        b.iter(|| {
            let (_, payload) = wire::split(black_box(&plain)).expect("a frame");
            let push: wire::Push<'_> = wire::decode(payload).expect("a push");
            push.changes.iter().filter_map(|(slot, value)| decode_cell(*slot, value)).count()
        });
    });
}

/// A cell as frames and journals have it.
fn cells(c: &mut Criterion) {
    let Change { slot, cell } = said(std::iter::once(record(7, &tunnel(7)))).swap_remove(0);
    let mut bytes = Vec::new();
    encode_cell(&cell, &mut bytes);
    let mut group = c.benchmark_group("cell");
    let mut buffer = Vec::with_capacity(bytes.len());
    group.bench_function(format!("encode {} bytes", bytes.len()), |b| {
        b.iter(|| {
            buffer.clear();
            encode_cell(black_box(&cell), &mut buffer);
        });
    });
    group.bench_function(format!("decode {} bytes", bytes.len()), |b| {
        b.iter(|| decode_cell(slot, black_box(&bytes)));
    });
    group.finish();
}

/// How long one call into the agent's state takes, which is how long the lock is held: the longest of each kind, and all of them
/// together, which is what it would be in one go. Prints; there is nothing to repeat.
fn holds(_: &mut Criterion) {
    for (what, tunnels) in [("each of another tunnel", RECORDS), ("all of one tunnel", 1)] {
        let settings = Settings::of(owner(RECORDS));
        let mut state = State::new(Instant::now(), &settings, Restored::default());
        println!("a peer with {RECORDS} records, {what}");
        let bring = |state: &mut State| {
            let due = state.due(Instant::now(), 0, |_| false);
            state.has_work() && due.next < Instant::now() + Duration::from_secs(1)
        };
        for generation in 1..=2 {
            let owner = Owner { generation, ..owner(0) };
            let changes = said((0..RECORDS).map(|n| record(n, &tunnel(n % tunnels))));
            let until = changes.len() as u64;
            let mut parts = changes.chunks(1_000).peekable();
            timed(&mut state, &format!("  start {generation}: its records arrive"), |state| {
                let changes = parts.next().unwrap_or_default().to_vec();
                let until = if parts.peek().is_none() { until } else { 0 };
                let extent = Extent { since: 0, until, whole: None };
                state.handle(Instant::now(), News::Changed { owner: owner.clone(), changes, extent });
                parts.peek().is_some()
            });
            state.handle(Instant::now(), News::Heard { owner: owner.clone(), trip: None });
            timed(&mut state, &format!("  start {generation}: the indexes follow"), bring);
            let mut turns = 0..100;
            timed(&mut state, "  a Get", |state| {
                black_box(state.resolve(Instant::now(), &tunnel(0), turns.start));
                turns.next().is_some()
            });
        }
        let gone = Owner { generation: 2, ..owner(0) };
        timed(&mut state, "  it leaves, and is forgotten", |state| {
            let status = Write::status(Status::Left);
            let cell = Cell { version: RECORDS as u64 + 2, content: status.content };
            let changes = vec![Change { slot: status.slot, cell }];
            let extent = Extent { since: 0, until: RECORDS as u64 + 2, whole: None };
            state.handle(Instant::now(), News::Changed { owner: gone.clone(), changes, extent });
            state.handle(Instant::now(), News::Forgotten { owner: gone.clone() });
            false
        });
        timed(&mut state, "  the indexes follow", bring);
    }
}

/// Repeats steps until there is none, and prints how long they took.
fn timed(state: &mut State, what: &str, mut step: impl FnMut(&mut State) -> bool) {
    let (mut longest, mut all, mut times) = (Duration::ZERO, Duration::ZERO, 0);
    loop {
        let begun = Instant::now();
        let goes_on = step(state);
        let took = begun.elapsed();
        state.take_effects();
        (longest, all, times) = (longest.max(took), all + took, times + 1);
        if !goes_on {
            break;
        }
    }
    println!("{what}: at most {longest:.1?} under the lock; {all:.1?} in {times} steps");
}

criterion_group!(benches, lookup, ranking, applying, sessions, codec, cells, holds);
criterion_main!(benches);
