//! Journals on a real file system: restarts, kills, full disks and every kind of damage.

mod damage;
mod disk;
mod gone;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::frames::Frames;
use super::kept::{Keyspace, write_word};
use super::log::{Commit, Row, Sum};
use super::*;
use gossd_core::entrypoints::EntrypointKey;
use gossd_core::entrypoints::Place;
use gossd_core::hostname::Endpoint;
use gossd_core::label::Label;
use gossd_core::lease::Holding;
use gossd_core::lease::Word;
use gossd_core::record::{Network, Record};
use gossd_core::tombstone::Release;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// In memory if possible: a busy disk would delay hundreds of journals.
fn quick_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| dir())
}

fn name() -> AgentName {
    "host-1.example".parse().unwrap()
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("host-1.example.journal")
}

fn open(dir: &TempDir) -> (Journal, RestoredJournal) {
    Journal::open(dir.path(), &name(), 1).unwrap()
}

fn refusal(dir: &TempDir) -> OpenError {
    Journal::open(dir.path(), &name(), 1).unwrap_err()
}

fn held(id: &str) -> Holding {
    let network = if id.len().is_multiple_of(2) { Network::Udp } else { Network::Tcp };
    let address = format!("[2001:db8::1]:{}", 8000 + id.len());
    let record = Record {
        id: id.into(),
        name: "gost.example.org@0c4d".into(),
        node: "0b1f3a52-8a0e-4a3f-9f51-2b1f0c9d8e7a".into(),
        network,
        address: address.into(),
    };
    let dial = if id.starts_with('u') { "" } else { "127.0.0.1:8420" };
    Holding { record: Arc::new(record), dial: dial.into() }
}

fn batch<const N: usize>(entries: [(&str, Word); N]) -> Batch {
    let words = entries.into_iter().map(|(id, entry)| (id.into(), entry)).collect();
    Batch { words, ..Batch::default() }
}

fn rule(host: &str, clock: u64) -> Claim {
    let endpoint = Endpoint::parse("$4d21094e-b74c-4916-86c1-d9fa36ea677b").unwrap();
    Claim { host: host.into(), endpoint, clock }
}

fn claiming<const N: usize>(rules: [Claim; N]) -> Batch {
    let rules = rules.into_iter().map(|rule| (rule.key(), Some(Arc::new(rule)))).collect();
    Batch { claims: rules, ..Batch::default() }
}

fn hold(id: &str) -> (&str, Word) {
    (id, Word::Held(held(id)))
}

fn holding(ids: std::ops::Range<usize>) -> Batch {
    let words = ids.map(|n| n.to_string()).map(|id| (id.as_str().into(), Word::Held(held(&id))));
    Batch { words: words.collect(), ..Batch::default() }
}

fn ids(restored: &RestoredJournal) -> Vec<String> {
    let mut ids: Vec<_> = restored.leases.held.iter().map(|held| held.record.id.to_string()).collect();
    ids.sort();
    ids
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

fn released(restored: &RestoredJournal) -> Vec<String> {
    let mut ids: Vec<_> = restored.leases.released.iter().map(|(id, _)| id.to_string()).collect();
    ids.sort();
    ids
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The newest row of each keyspace and key.
type Kept = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// What the bytes of a file come to.
fn summed(file: &[u8]) -> (Sum, Kept) {
    let mut frames = Frames::of(io::Cursor::new(file)).unwrap();
    let sum = Sum::read(&mut frames).unwrap();
    let mut kept = Kept::new();
    let take = |rows: Vec<Row<'_>>| {
        kept.extend(rows.iter().map(|row| ((row.keyspace, row.key.into()), row.kept.unwrap().into())));
        Ok(())
    };
    sum.visit(&mut frames, take).unwrap();
    (sum, kept)
}

/// Appends a commit to a journal behind its back.
fn tamper(dir: &TempDir, entries: &[(u8, &[u8], &[u8])]) {
    let mut bytes = fs::read(file(dir)).unwrap();
    let stamp = summed(&bytes).0.stamp.next();
    let rows = entries.iter().map(|(keyspace, key, kept)| Row { keyspace: *keyspace, key, kept: Some(kept) });
    let frame =
        Commit { stamp, rows: rows.collect(), ..Commit::default() }.frame(bytes.len() as u64).unwrap();
    bytes.extend(frame);
    fs::write(file(dir), bytes).unwrap();
}

/// Writes the file anew, whether that is worth it or not.
fn compact_now(journal: &mut Journal) {
    let mut store = journal.store.take().unwrap();
    journal.go_on_with(replace(&journal.path, |empty| store.compacted(empty)).unwrap());
}

/// The number of [`Keyspace::Words`].
const WORDS: u8 = Keyspace::Words as u8;

#[test]
fn everything_comes_back() {
    let dir = dir();
    let (mut journal, restored) = open(&dir);
    assert_eq!((restored.generation, restored.leases.held, restored.leases.released), (1, vec![], vec![]));
    journal
        .write(&batch([hold("a"), hold("bb"), hold("unknown"), ("gone", Word::Released(Release::Held))]))
        .unwrap();
    journal.write(&batch([("late", Word::Lapsed(held("late"))), ("bb", Word::Lapsed(held("bb")))])).unwrap();
    assert_eq!(journal.path(), file(&dir));
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!(restored.leases.held, [held("a"), held("unknown")]);
    assert_eq!(restored.leases.lapsed, [held("bb"), held("late")]);
    assert_eq!((released(&restored), &restored.set_aside), (texts(["gone"]), &None));
}

#[test]
fn entries_about_gosts_are_restored_and_removed() {
    let dir = dir();
    let (mut journal, restored) = open(&dir);
    assert!(restored.leases.periods.is_empty() && restored.entrypoints.is_empty());
    let registered = |node: &str, routers, home: Option<&str>, number| {
        let key = EntrypointKey { node: node.into(), routers };
        let place = Place { address: "[2001:db8::1]:8420".into(), dial: "".into() };
        Registered { key, home: home.map(|ip| ip.parse().unwrap()), place, number }
    };
    let all = [registered("n", false, None, 3), registered("n", true, Some("2001:db8::9"), u64::MAX / 2)];
    let mut batch = Batch::default();
    batch.periods.insert("n".into(), Some(Duration::from_millis(15_001)));
    batch.periods.insert("gone".into(), Some(Duration::from_secs(1)));
    batch.entrypoints.extend(all.iter().map(|registered| (registered.key.clone(), Some(registered.clone()))));
    journal.write(&batch).unwrap();
    batch.periods = [("gone".into(), None)].into();
    batch.entrypoints = [(all[0].key.clone(), None)].into();
    drop(journal);
    let (mut journal, mut restored) = open(&dir);
    restored.entrypoints.sort_by_key(|registered| registered.number);
    assert_eq!((restored.leases.periods.len(), &*restored.entrypoints), (2, &all[..]));
    journal.write(&batch).unwrap();
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!(restored.leases.periods, [("n".into(), Duration::from_millis(15_001))]);
    assert_eq!(restored.entrypoints, all[1..]);
}

#[test]
fn impossible_entries_about_gosts_are_skipped() {
    use super::kept::{bytes, read_entrypoint, read_period};
    for (node, millis) in [(&b""[..], 1), (b"n", 0), (b"n", u64::MAX), (b"a\nb", 1), (b"\xff", 1)] {
        assert_eq!(read_period(node, &bytes(&millis)), None, "{node:?} {millis}");
    }
    assert_eq!(read_period(b"n", &[]), None);
    let key = EntrypointKey { node: "n".into(), routers: false };
    let at = |address: &str| {
        let place = Place { address: address.into(), dial: "nonsense".into() };
        let registered = Registered { key: key.clone(), home: None, place, number: u64::MAX };
        let entrypoints = [(key.clone(), Some(registered))].into();
        let [(at, kept)] =
            Keyspace::Entrypoints.changes(&Batch { entrypoints, ..Batch::default() }).try_into().unwrap();
        (at, kept.unwrap())
    };
    let (good, kept) = at("10.0.0.1:80");
    let read = read_entrypoint(&good, &kept).unwrap();
    assert!(read.place.dial.is_empty() && read.number < u64::MAX, "there is room for later ones");
    for (key, kept) in
        [(&b""[..], &kept), (b"t", &kept), (b"xn", &kept), (b"ta\nb", &kept), (b"tn", &at("nonsense").1)]
    {
        assert_eq!(read_entrypoint(key, kept), None, "{key:?}");
    }
    assert_eq!(read_entrypoint(b"tn", &kept[..3]), None);
    let later = [&kept[..], b"more"].concat();
    assert_eq!(read_entrypoint(&good, &later), Some(read), "what a later version appends is no damage");
}

#[test]
fn what_a_later_version_appends_costs_no_entry() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let claims = claiming([rule("x", 7)]);
    journal.write(&claims).unwrap();
    drop(journal);
    let later = |bytes: &[u8]| [bytes, b"more"].concat();
    let record = |holding: &Holding| {
        let mut bytes = Vec::new();
        gossd_core::codec::encode(&holding.record.clone().into(), &mut bytes);
        bytes
    };
    let appended = postcard::to_stdvec(&(0_u8, later(&record(&held("b"))), &held("b").dial)).unwrap();
    let (claim, kept) = Keyspace::Rules.changes(&claims).pop().unwrap();
    let foreign = 1 + Keyspace::ALL.map(|keyspace| keyspace as u8).into_iter().max().unwrap();
    tamper(
        &dir,
        &[
            (Keyspace::Rules as u8, &claim, &later(&kept.unwrap())),
            (WORDS, b"a", &later(&write_word(&Word::Held(held("a"))).unwrap())),
            (WORDS, b"b", &appended),
            (WORDS, b"c", &later(&write_word(&Word::Lapsed(held("c"))).unwrap())),
            (WORDS, b"d", &later(&write_word(&Word::Released(Release::Held)).unwrap())),
            (WORDS, b"e", &[9]),
            (foreign, b"a", b"of a later version"),
        ],
    );
    let (mut journal, restored) = open(&dir);
    assert_eq!(
        (&*restored.leases.held, &*restored.leases.lapsed),
        (&[held("a"), held("b")][..], &[held("c")][..])
    );
    assert_eq!((released(&restored), &*restored.rules), (texts(["d"]), &[rule("x", 7)][..]));
    journal.write(&batch([("a", Word::Forgotten)])).unwrap();
    // Compacted.
    compact_now(&mut journal);
    drop(journal);
    let bytes = fs::read(file(&dir)).unwrap();
    let (_, rows) = summed(&bytes);
    let kept = |keyspace, key: &[u8]| rows.get(&(keyspace, key.into())).map(Vec::as_slice);
    assert_eq!(kept(WORDS, b"e"), Some(&[9][..]), "a word that is not known stays");
    assert_eq!(kept(foreign, b"a"), Some(&b"of a later version"[..]), "an entry of another kind");
    assert_eq!(kept(WORDS, b"b"), Some(&*appended), "and so do fields");
    assert_eq!(kept(WORDS, b"a"), None);
}

#[test]
fn the_last_drain_state_is_restored() {
    let dir = dir();
    for (said, drains) in [(None, false), (Some(true), true), (None, true), (Some(false), false)] {
        let (mut journal, _) = open(&dir);
        let batch = Batch { draining: said, ..batch([hold("a")]) };
        assert!(!batch.is_empty());
        journal.write(&batch).unwrap();
        drop(journal);
        assert_eq!(open(&dir).1.draining, drains, "{said:?}");
    }
}

#[test]
fn how_an_id_was_released_comes_back() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let unheard = || Word::Released(Release::Unheard);
    journal.write(&batch([("overtook", unheard()), ("held", Word::Released(Release::Held))])).unwrap();
    journal.write(&batch([("later", unheard()), ("overtook", unheard())])).unwrap();
    drop(journal);
    let (mut journal, restored) = open(&dir);
    let mut all = [("held", Release::Held), ("overtook", Release::Unheard), ("later", Release::Unheard)];
    let sorted = |restored: RestoredJournal| {
        let mut released = restored.leases.released;
        released.sort_by_key(|(id, _)| id.to_string());
        released
    };
    let labelled = |all: &[(&str, Release)]| {
        all.iter().map(|(id, release)| (Label::from(*id), *release)).collect::<Vec<_>>()
    };
    all.sort_by_key(|(id, _)| *id);
    assert_eq!(sorted(restored), labelled(&all));
    journal
        .write(&batch([("overtook", Word::Released(Release::Held)), ("held", Word::Held(held("held")))]))
        .unwrap();
    drop(journal);
    let want = [("later", Release::Unheard), ("overtook", Release::Held)];
    assert_eq!(sorted(open(&dir).1), labelled(&want));
}

#[test]
fn the_newest_word_on_an_id_wins() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let moved = Holding { dial: "10.0.0.9:1".into(), ..held("moved") };
    for words in [
        batch([
            hold("moved"),
            hold("forgotten"),
            hold("released"),
            ("revived", Word::Released(Release::Held)),
        ]),
        batch([("moved", Word::Held(moved.clone())), ("forgotten", Word::Forgotten), hold("revived")]),
        batch([("released", Word::Released(Release::Held)), ("never seen", Word::Forgotten)]),
        batch([("late", Word::Released(Release::Held)), ("dropped", Word::Released(Release::Held))]),
        batch([("released", Word::Released(Release::Held)), ("dropped", Word::Forgotten)]),
    ] {
        journal.write(&words).unwrap();
    }
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!(restored.leases.held, [moved, held("revived")]);
    assert_eq!(released(&restored), ["late", "released"]);
}

#[test]
fn claims_come_back_as_they_were_said_last() {
    let dir = dir();
    let (mut journal, restored) = open(&dir);
    assert_eq!(restored.rules, []);
    journal.write(&claiming([rule("x", 7), rule("y.example.org", 8), rule("gone", 9)])).unwrap();
    let mut batch = claiming([rule("x", 3)]);
    batch.claims.insert(rule("gone", 9).key(), None);
    journal.write(&batch).unwrap();
    drop(journal);
    assert_eq!(
        open(&dir).1.rules,
        [rule("y.example.org", 8), rule("x", 3)],
        "in the order in which they were said"
    );
}

#[test]
fn an_empty_batch_is_no_error() {
    let dir = dir();
    open(&dir).0.write(&Batch::default()).unwrap();
}

fn words() -> impl Strategy<Value = Vec<Vec<(u8, u8)>>> {
    prop::collection::vec(prop::collection::vec((0_u8..12, 0_u8..3), 0..8), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_journal_is_the_sum_of_its_batches(batches in words(), reopened in 0_usize..12, compacted in 0_usize..12) {
        let dir = dir();
        let (mut journal, _) = open(&dir);
        let (mut want_held, mut want_released) = (BTreeSet::new(), BTreeSet::new());
        for (at, words) in batches.iter().enumerate() {
            if at == reopened {
                drop(journal);
                journal = open(&dir).0;
            }
            if at == compacted {
                compact_now(&mut journal);
            }
            let words: BTreeMap<String, u8> = words.iter().map(|(id, word)| (format!("{id:02}"), *word)).collect();
            let mut batch = Batch::default();
            for (id, word) in words {
                let entry = match word {
                    0 => Word::Held(held(&id)),
                    1 => Word::Released(Release::Held),
                    _ => Word::Forgotten,
                };
                batch.words.insert(id.as_str().into(), entry);
                want_held.remove(&id);
                want_released.remove(&id);
                match word {
                    0 => drop(want_held.insert(id)),
                    1 => drop(want_released.insert(id)),
                    _ => {}
                }
            }
            journal.write(&batch).unwrap();
        }
        drop(journal);
        let (_, restored) = open(&dir);
        prop_assert_eq!(ids(&restored), want_held.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(released(&restored), want_released.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn two_starts_from_one_copy_of_a_journal_are_not_the_same_start() {
    let dir = dir();
    drop(open(&dir));
    let copy = fs::read(file(&dir)).unwrap();
    let generations = [0; 8].map(|_| {
        fs::write(file(&dir), &copy).unwrap();
        open(&dir).1.generation
    });
    // In one of a hundred thousand runs, one is the same as the one before.
    assert!(generations.windows(2).all(|pair| pair[0] != pair[1]), "{generations:?}");
}

#[test]
fn every_start_has_a_higher_generation_whatever_the_clock_says() {
    let dir = dir();
    let mut last = 0;
    for at_least in [1_000, 100_000_000, 5, 0, 200_000_000] {
        let (mut journal, restored) = Journal::open(dir.path(), &name(), at_least).unwrap();
        assert!(restored.generation > last && restored.generation >= at_least, "at least {at_least}");
        last = restored.generation;
        journal.write(&batch([hold("a")])).unwrap();
    }
}

#[test]
fn a_journal_belongs_to_one_agent_at_a_time() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let refused = refusal(&dir);
    assert!(matches!(&refused, OpenError::Locked { path } if *path == file(&dir)), "{refused}");
    assert!(refused.to_string().contains("another agent of this name is running on this host"));
    journal.store = None;
    assert!(matches!(refusal(&dir), OpenError::Locked { .. }), "also while its store is closed");
    journal.write(&batch([hold("a")])).unwrap();
    Journal::open(dir.path(), &"another".parse().unwrap(), 1).unwrap();
    drop(journal);
    assert_eq!(ids(&open(&dir).1), ["a"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    let dir = dir();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let error = Journal::open(&blocked.join("state"), &name(), 1).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
    fs::create_dir(file(&dir)).unwrap();
    assert!(matches!(refusal(&dir), OpenError::Unusable { .. }));
    assert!(file(&dir).is_dir(), "a directory is nobody's damaged journal");
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_a_journal() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = dir();
    let state = dir.path().join("var/gossd");
    let (journal, _) = Journal::open(&state, &name(), 1).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(journal.path())), (0o700, 0o600));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "the journal and its lock");
}

/// A journal that held twenty thousand records and holds ten, and the size of its file then.
fn mostly_changes(dir: &TempDir) -> (Journal, u64) {
    let (mut journal, _) = open(dir);
    let all = holding(0..20_000);
    journal.write(&all).unwrap();
    let full = journal.bytes();
    let words = all.words.keys().skip(10).map(|id| (id.clone(), Word::Forgotten)).collect();
    journal.write(&Batch { words, ..Batch::default() }).unwrap();
    (journal, full)
}

#[test]
fn a_bloated_file_is_compacted_at_the_next_start() {
    let dir = dir();
    let (journal, full) = mostly_changes(&dir);
    drop(journal);
    let (journal, restored) = open(&dir);
    assert_eq!(restored.leases.held.len(), 10);
    assert!(journal.bytes() < full / 8, "{full} bytes, then {}", journal.bytes());
    assert_eq!(names(&dir), ["host-1.example.journal", "host-1.example.journal.lock"]);
}

#[test]
fn a_file_is_compacted_while_it_is_in_use() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let mut largest = 0;
    for round in 0..200 {
        journal.write(&holding(0..200)).unwrap_or_else(|error| panic!("{round}: {error}"));
        largest = largest.max(journal.bytes());
        journal.compact();
    }
    assert!((1 << 20..3 << 19).contains(&largest), "{largest} bytes");
    drop(journal);
    assert_eq!(open(&dir).1.leases.held.len(), 200);
}

#[test]
fn a_file_that_cannot_be_compacted_is_written_on() {
    let dir = dir();
    let (mut journal, full) = mostly_changes(&dir);
    drop(journal);
    // Where the compacted file would be made.
    fs::create_dir(beside(&file(&dir), "new")).unwrap();
    (journal, _) = open(&dir);
    assert!(journal.bytes() > full);
    journal.write(&batch([hold("a")])).unwrap();
    assert!(!journal.store.as_ref().unwrap().is_bloated(), "it is not tried again at once");
    drop(journal);
    assert_eq!(open(&dir).1.leases.held.len(), 11);
}

#[test]
fn a_compacted_file_that_has_the_name_is_written_to_whatever_came_after() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    journal.write(&batch([hold("a")])).unwrap();
    // As if the folder could not be synced after the new file had got the name.
    let mut store = journal.store.take().unwrap();
    replace(&file(&dir), |empty| store.compacted(empty)).unwrap();
    journal.go_on_with(store);
    journal.write(&batch([hold("b")])).unwrap();
    drop(journal);
    assert_eq!(ids(&open(&dir).1), ["a", "b"]);
}

#[test]
fn rows_of_many_commits_are_in_one_once_the_file_is_written_anew() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    for n in 0..50 {
        journal.write(&holding(n..n + 1)).unwrap();
    }
    compact_now(&mut journal);
    let bytes = fs::read(file(&dir)).unwrap();
    let mut frames = Frames::of(io::Cursor::new(&bytes)).unwrap();
    let mut count = 0;
    while frames.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!((count, frames.unfinished(), summed(&bytes).1.len()), (2, 0, 50));
}

#[test]
fn damage_that_a_compaction_finds_is_set_aside_and_everything_is_asked_for() {
    for last in [false, true] {
        let dir = dir();
        let (mut journal, _) = mostly_changes(&dir);
        assert!(journal.store.as_ref().unwrap().is_bloated());
        let mut bytes = fs::read(file(&dir)).unwrap();
        let at = if last { bytes.len() - 1 } else { bytes.len() / 3 };
        bytes[at] ^= 1;
        fs::write(file(&dir), bytes).unwrap();
        // Nobody wrote to it: the disk is bad.
        journal.left = FileMark::at(&file(&dir)).ok();
        journal.compact();
        let everything = batch([hold("a")]);
        let afresh = journal.write(&everything).unwrap_err();
        assert!(matches!(afresh, WriteError::StartedAfresh { set_aside: Some(_), .. }), "{last}: {afresh}");
        journal.write(&everything).unwrap();
        drop(journal);
        assert_eq!(ids(&open(&dir).1), ["a"]);
    }
}

/// A journal written by the first version, in hexadecimal digits. Never changed.
const FROZEN: &str = include_str!("../../tests/frozen/0.1/journal.txt");
/// What to do when a test of frozen bytes fails.
pub(super) const WHY: &str = include_str!("../../tests/frozen/README.md");

/// The bytes of hexadecimal digits.
pub(super) fn unhex(digits: &str) -> Vec<u8> {
    let two = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.trim().as_bytes().chunks(2).map(two).collect()
}

/// The digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What the first version's journal has.
fn one_of_everything() -> Batch {
    let mut all = batch([hold("a"), hold("unknown"), ("gone", Word::Released(Release::Held))]);
    all.words.insert("bb".into(), Word::Lapsed(held("bb")));
    all.words.insert("early".into(), Word::Released(Release::Unheard));
    all.claims = claiming([rule("x", 7), rule("y.example.org", 8)]).claims;
    all.periods.insert("n".into(), Some(Duration::from_millis(15_001)));
    for (routers, home) in [(false, None), (true, Some("2001:db8::9".parse().unwrap()))] {
        let key = EntrypointKey { node: "n".into(), routers };
        let place = Place { address: "[2001:db8::1]:8420".into(), dial: "".into() };
        all.entrypoints.insert(key.clone(), Some(Registered { key, home, place, number: 3 }));
    }
    Batch { draining: Some(true), told: Some(9), ..all }
}

#[test]
fn the_first_versions_journal_is_read_and_written() {
    let dir = dir();
    fs::write(file(&dir), unhex(FROZEN)).unwrap();
    let (mut journal, restored) = open(&dir);
    let generation = restored.generation;
    assert!(generation > 1 && restored.set_aside.is_none(), "{restored:?}. {WHY}");
    assert_eq!(
        (ids(&restored), released(&restored)),
        (texts(["a", "unknown"]), texts(["early", "gone"])),
        "{WHY}"
    );
    assert_eq!(restored.leases.lapsed, [held("bb")], "{WHY}");
    assert_eq!(restored.rules, [rule("x", 7), rule("y.example.org", 8)], "{WHY}");
    assert_eq!(
        (restored.draining, restored.told, restored.entrypoints.len()),
        (true, Some((1, 9)), 2),
        "{WHY}"
    );
    journal.write(&batch([hold("new"), ("a", Word::Released(Release::Held))])).unwrap();
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!(
        (ids(&restored), released(&restored)),
        (texts(["new", "unknown"]), texts(["a", "early", "gone"]))
    );
    assert!(restored.generation > generation);
}

/// A journal of this version can be read by the first one: its bytes are the first one's, but for what is appended.
#[test]
fn the_first_version_reads_what_this_one_writes() {
    let dir = dir();
    open(&dir).0.write(&one_of_everything()).unwrap();
    let written = fs::read(file(&dir)).unwrap();
    if std::env::var_os("GOSSD_FREEZE").is_some() {
        println!("{}", hex(&written));
    }
    let frozen = unhex(FROZEN);
    assert_eq!(written[..16], frozen[..16], "its head. {WHY}");
    let ((now, rows), (then, frozen)) = (summed(&written), summed(&frozen));
    assert_eq!((now.stamp, now.draining, now.told), (then.stamp, then.draining, then.told), "{WHY}");
    assert_eq!(rows.len(), frozen.len(), "{WHY}");
    for ((key, now), (before, then)) in rows.iter().zip(&frozen) {
        assert_eq!(key, before, "{WHY}");
        assert!(
            now.starts_with(then),
            "{:?} was {then:02x?}, and is {now:02x?}. {WHY}",
            str::from_utf8(then)
        );
    }
}
