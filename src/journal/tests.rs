//! Journals on a real file system: restarts, kills, full disks and every kind of damage.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use redb::{Database, MultimapTableDefinition, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::domain::record::{Network, Record};
use crate::domain::rule::Endpoint;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const WORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("words");

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// In memory where that is possible: for hundreds of journals that a busy disk would hold up.
fn quick_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| dir())
}

fn name() -> AgentName {
    "host-1.example".parse().unwrap()
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("host-1.example.journal")
}

fn open(dir: &TempDir) -> (Journal, Restored) {
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

fn rule(host: &str, clock: u64) -> Rule {
    let endpoint = Endpoint::parse("$4d21094e-b74c-4916-86c1-d9fa36ea677b").unwrap();
    Rule { host: host.into(), endpoint, clock }
}

fn claiming<const N: usize>(rules: [Rule; N]) -> Batch {
    let rules = rules.into_iter().map(|rule| (rule.key(), Some(Arc::new(rule)))).collect();
    Batch { rules, ..Batch::default() }
}

fn hold(id: &str) -> (&str, Word) {
    (id, Word::Held(held(id)))
}

fn holding(ids: std::ops::Range<usize>) -> Batch {
    let words = ids.map(|n| n.to_string()).map(|id| (id.as_str().into(), Word::Held(held(&id))));
    Batch { words: words.collect(), ..Batch::default() }
}

fn ids(restored: &Restored) -> Vec<String> {
    restored.held.iter().map(|held| held.record.id.to_string()).collect()
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

fn released(restored: &Restored) -> Vec<String> {
    restored.released.iter().map(ToString::to_string).collect()
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Changes a journal behind its back.
fn tamper(dir: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::create(file(dir)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn everything_comes_back() {
    let dir = dir();
    let (mut journal, restored) = open(&dir);
    assert_eq!((restored.generation, restored.held, restored.released), (1, vec![], vec![]));
    journal.write(&batch([hold("a"), hold("bb"), hold("unknown"), ("gone", Word::Released)])).unwrap();
    journal.write(&batch([("late", Word::Lapsed(held("late"))), ("bb", Word::Lapsed(held("bb")))])).unwrap();
    assert_eq!(journal.path(), file(&dir));
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!(restored.held, [held("a"), held("unknown")]);
    assert_eq!(restored.lapsed, [held("bb"), held("late")]);
    assert_eq!((released(&restored), &restored.set_aside), (texts(["gone"]), &None));
}

#[test]
fn the_newest_word_on_an_id_wins() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let moved = Holding { dial: "10.0.0.9:1".into(), ..held("moved") };
    for words in [
        batch([hold("moved"), hold("forgotten"), hold("released"), ("revived", Word::Released)]),
        batch([("moved", Word::Held(moved.clone())), ("forgotten", Word::Forgotten), hold("revived")]),
        batch([("released", Word::Released), ("never seen", Word::Forgotten)]),
        batch([("late", Word::Released), ("dropped", Word::Released)]),
        batch([("released", Word::Released), ("dropped", Word::Forgotten)]),
    ] {
        journal.write(&words).unwrap();
    }
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!(restored.held, [moved, held("revived")]);
    assert_eq!(released(&restored), ["released", "late"], "in the order of the first release");
}

#[test]
fn claims_come_back_as_they_were_said_last() {
    let dir = dir();
    let (mut journal, restored) = open(&dir);
    assert_eq!(restored.rules, []);
    journal.write(&claiming([rule("x", 7), rule("y.example.org", 8), rule("gone", 9)])).unwrap();
    let mut batch = claiming([rule("x", 3)]);
    batch.rules.insert(rule("gone", 9).key(), None);
    journal.write(&batch).unwrap();
    drop(journal);
    assert_eq!(open(&dir).1.rules, [rule("x", 3), rule("y.example.org", 8)]);
}

#[test]
fn a_file_from_before_there_were_claims_is_read_and_then_takes_them() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    journal.write(&batch([hold("a")])).unwrap();
    journal.write(&claiming([rule("x", 6)])).unwrap();
    drop(journal);
    tamper(&dir, |transaction| {
        let rules = TableDefinition::<'_, &[u8], &[u8]>::new("rules");
        assert!(transaction.delete_table(rules).unwrap());
    });
    let (mut journal, restored) = open(&dir);
    assert_eq!((ids(&restored), restored.rules.len(), &restored.set_aside), (texts(["a"]), 0, &None));
    journal.write(&claiming([rule("x", 7)])).unwrap();
    drop(journal);
    assert_eq!(open(&dir).1.rules, [rule("x", 7)]);
}

#[test]
fn an_empty_batch_is_no_error() {
    let dir = dir();
    open(&dir).0.write(&Batch::default()).unwrap();
}

#[test]
fn tombstones_are_bounded_and_the_oldest_go_first() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    journal.store.as_mut().unwrap().max_released = 3;
    for id in ["e", "d", "c", "b"] {
        journal.write(&batch([(id, Word::Released)])).unwrap();
    }
    journal.write(&batch([hold("e")])).unwrap();
    journal.write(&batch([("a", Word::Released)])).unwrap();
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!((released(&restored), ids(&restored)), (texts(["c", "b", "a"]), texts(["e"])));
}

fn words() -> impl Strategy<Value = Vec<Vec<(u8, u8)>>> {
    prop::collection::vec(prop::collection::vec((0_u8..12, 0_u8..3), 0..8), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_journal_is_the_sum_of_its_batches(batches in words(), reopened in 0_usize..12) {
        const MOST: usize = 4;
        let dir = dir();
        let (mut journal, _) = open(&dir);
        let (mut want_held, mut want_released) = (std::collections::BTreeSet::new(), Vec::<String>::new());
        for (at, words) in batches.iter().enumerate() {
            if at == reopened {
                drop(journal);
                journal = open(&dir).0;
            }
            journal.store.as_mut().unwrap().max_released = MOST as u64;
            let words: BTreeMap<String, u8> = words.iter().map(|(id, word)| (format!("{id:02}"), *word)).collect();
            let mut batch = Batch::default();
            for (id, word) in words {
                let entry = match word {
                    0 => Word::Held(held(&id)),
                    1 => Word::Released,
                    _ => Word::Forgotten,
                };
                batch.words.insert(id.as_str().into(), entry);
                want_held.remove(&id);
                match word {
                    0 => { want_released.retain(|known| *known != id); want_held.insert(id); }
                    1 if want_released.contains(&id) => {}
                    1 => want_released.push(id),
                    _ => want_released.retain(|known| *known != id),
                }
            }
            journal.write(&batch).unwrap();
            let excess = want_released.len().saturating_sub(MOST);
            want_released.drain(..excess);
        }
        drop(journal);
        let (_, restored) = open(&dir);
        prop_assert_eq!(ids(&restored), want_held.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(released(&restored), want_released);
    }
}

#[test]
fn every_start_has_a_higher_generation_whatever_the_clock_says() {
    let dir = dir();
    for (at_least, want) in [(1_000, 1_000), (2_000, 2_000), (5, 2_001), (2_001, 2_002), (0, 2_003)] {
        let (mut journal, restored) = Journal::open(dir.path(), &name(), at_least).unwrap();
        assert_eq!(restored.generation, want, "at least {at_least}");
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

/// A file of some journal that was closed, or that the agent was killed with.
fn image(clean: bool) -> Vec<u8> {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    for first in [0, 40, 80] {
        journal.write(&holding(first..first + 40)).unwrap();
    }
    if clean {
        drop(journal);
    }
    fs::read(file(&dir)).unwrap()
}

/// Starts an agent on a file, which must work; on damage it starts with nothing, and the file is kept.
fn start_on(bytes: &[u8], what: &str) -> Restored {
    let dir = quick_dir();
    fs::write(file(&dir), bytes).unwrap();
    let (mut journal, restored) = open(&dir);
    match &restored.set_aside {
        Some(aside) => {
            assert_eq!(*aside, beside(&file(&dir), "damaged-1"), "{what}");
            assert_eq!(fs::read(aside).unwrap().len(), bytes.len(), "{what}");
            assert_eq!((restored.held.len(), restored.released.len()), (0, 0), "{what}");
        }
        None => assert!(restored.held.len().is_multiple_of(40), "{what}: whole batches"),
    }
    journal.write(&batch([hold("new")])).unwrap();
    drop(journal);
    let (_, again) = open(&dir);
    assert_eq!(again.set_aside, None, "{what}");
    assert!(again.held.contains(&held("new")), "{what}");
    restored
}

#[test]
fn a_file_of_anything_is_set_aside() {
    let mut noise = vec![0_u8; 100_000];
    rand::fill(&mut noise[..]);
    let mut magic = image(true)[..9].to_vec();
    magic.extend(&noise);
    for (what, bytes) in [
        ("empty", &b""[..]),
        ("a byte", b"x"),
        ("text", b"{\"generation\": 7}\n"),
        ("zeros", &vec![0; 65_536]),
        ("noise", &noise),
        ("noise after the magic number", &magic),
        ("half a page of noise", &noise[..2048]),
    ] {
        assert!(start_on(bytes, what).set_aside.is_some(), "{what}");
    }
}

#[test]
fn a_truncated_file_is_set_aside() {
    for clean in [true, false] {
        let image = image(clean);
        let odd = (1..24).map(|n| image.len() * n / 24 + n);
        let pages = (1..image.len() / 4096).step_by(4).map(|n| n * 4096);
        for length in [1, 8, 9, 63, 64, 319, 320, 4095, image.len() - 1].into_iter().chain(odd).chain(pages) {
            let restored = start_on(&image[..length], &format!("{length} of {} bytes", image.len()));
            assert!(restored.set_aside.is_some() || !clean, "{length} of {} bytes", image.len());
        }
        let longer = [&image[..], &[0; 4096]].concat();
        start_on(&longer, "a page longer");
    }
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    for clean in [true, false] {
        let image = image(clean);
        let header = (0..320).step_by(11);
        let pages = (0..image.len()).step_by(image.len() / 30 + 1);
        let starts = (4096..image.len()).step_by(4096);
        for at in header.chain(pages).chain(starts) {
            let mut flipped = image.clone();
            flipped[at] ^= 0xff;
            let what = format!("byte {at} of {}, closed: {clean}", image.len());
            let restored = start_on(&flipped, &what);
            let whole = restored.held.len() == 120;
            // A file that was not closed goes back to the commit before the one that does not verify.
            assert!(whole || restored.set_aside.is_some() || !clean, "{what}");
            assert!(restored.held.iter().all(|kept| *kept == held(&kept.record.id.text())), "{what}");
        }
    }
}

#[test]
fn a_database_of_something_else_is_set_aside() {
    type Change = fn(&redb::WriteTransaction);
    let foreign: [(&str, Change); 7] = [
        ("other tables", |t| {
            assert!(t.delete_table(META).unwrap());
            t.open_table(TableDefinition::<u64, u64>::new("other")).unwrap();
        }),
        ("another kind of meta", |t| {
            t.delete_table(META).unwrap();
            t.open_table(TableDefinition::<&str, &str>::new("meta")).unwrap().insert("format", "1").unwrap();
        }),
        ("a multimap", |t| {
            t.delete_table(WORDS).unwrap();
            t.open_multimap_table(MultimapTableDefinition::<u64, u64>::new("words")).unwrap();
        }),
        ("no numbers", |t| {
            t.delete_table(TableDefinition::<u64, &[u8]>::new("released")).unwrap();
        }),
        ("an impossible format", |t| {
            t.open_table(META).unwrap().insert("format", 0).unwrap();
        }),
        ("no generation", |t| {
            t.open_table(META).unwrap().remove("generation").unwrap();
        }),
        ("the last generation", |t| {
            t.open_table(META).unwrap().insert("generation", u64::MAX).unwrap();
        }),
    ];
    for (what, change) in foreign {
        let dir = dir();
        drop(open(&dir));
        tamper(&dir, change);
        let (_, restored) = Journal::open(dir.path(), &name(), 7).unwrap();
        assert_eq!((restored.set_aside.is_some(), restored.generation), (true, 7), "{what}");
    }
}

#[test]
fn the_file_of_a_newer_gossd_is_left_alone() {
    let dir = dir();
    open(&dir).0.write(&batch([hold("a"), ("b", Word::Released)])).unwrap();
    tamper(&dir, |t| drop(t.open_table(META).unwrap().insert("format", 2).unwrap()));
    let before = names(&dir);
    for _ in 0..2 {
        let error = refusal(&dir);
        assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    }
    assert_eq!(names(&dir), before);
    tamper(&dir, |t| drop(t.open_table(META).unwrap().insert("format", 1).unwrap()));
    let (_, restored) = open(&dir);
    assert_eq!((restored.generation, ids(&restored), released(&restored)), (2, texts(["a"]), texts(["b"])));
}

#[test]
fn a_damaged_record_costs_no_other() {
    let dir = dir();
    open(&dir).0.write(&batch([hold("a"), ("b", Word::Released), hold("c")])).unwrap();
    let kept = |[name, node, address, dial]: [&str; 4]| {
        postcard::to_stdvec(&(0_u8, name, node, false, address, dial)).unwrap()
    };
    let long = "x".repeat(513);
    let good = kept(["t", "n", "h:1", ""]);
    tamper(&dir, |t| {
        let mut words = t.open_table(WORDS).unwrap();
        for (id, bytes) in [
            (&b""[..], good.clone()),
            (b"\xff\xfe", good.clone()),
            (b"line\nbreak", good.clone()),
            (long.as_bytes(), good.clone()),
            (b"d1", vec![]),
            (b"d2", vec![9, 9, 9]),
            (b"d3", [&good[..], b"more"].concat()),
            (b"d4", kept(["", "n", "h:1", ""])),
            (b"d5", kept(["t", "n", "h", ""])),
            (b"d6", kept(["t", "n", "h:0", ""])),
            (b"d7", kept(["t", "n", "h:1", "h"])),
            (b"d8", kept(["t", "n\t", "h:1", ""])),
            (b"d9", kept([&long, "n", "h:1", ""])),
            (b"good", good.clone()),
        ] {
            words.insert(id, bytes.as_slice()).unwrap();
        }
    });
    let (mut journal, restored) = open(&dir);
    assert_eq!(ids(&restored), ["a", "c", "d7", "good"]);
    assert_eq!(restored.held[2].dial, *"", "where it cannot be dialled is not known");
    assert_eq!((released(&restored), &restored.set_aside), (texts(["b"]), &None));
    journal.write(&batch([hold("d1"), ("d2", Word::Released), ("d3", Word::Forgotten)])).unwrap();
    drop(journal);
    assert_eq!(ids(&open(&dir).1), ["a", "c", "d1", "d7", "good"]);
}

#[test]
fn ten_damaged_files_are_kept_and_the_oldest_goes() {
    let dir = dir();
    let aside = |n: u64| beside(&file(&dir), &format!("damaged-{n}"));
    let date = |path: &Path, secs| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        OpenOptions::new().write(true).open(path).unwrap().set_modified(at).unwrap();
    };
    for n in 1..=10 {
        fs::write(file(&dir), format!("damage {n}")).unwrap();
        assert_eq!(open(&dir).1.set_aside, Some(aside(n)));
        date(&aside(n), if n == 3 { 1 } else { 100 + n });
    }
    for (n, want) in [(11, 3), (12, 1), (13, 2)] {
        fs::write(file(&dir), format!("damage {n}")).unwrap();
        date(&file(&dir), 100 + n);
        assert_eq!(open(&dir).1.set_aside, Some(aside(want)));
        assert_eq!(fs::read_to_string(aside(want)).unwrap(), format!("damage {n}"));
    }
    fs::remove_file(aside(7)).unwrap();
    fs::write(file(&dir), "").unwrap();
    assert_eq!(open(&dir).1.set_aside, Some(aside(7)), "the first free number");
}

#[test]
fn a_crash_while_the_file_was_made_leaves_no_damage() {
    let dir = dir();
    fs::write(beside(&file(&dir), "new"), "half a journal").unwrap();
    assert_eq!(open(&dir).1.set_aside, None);
    assert_eq!(names(&dir), ["host-1.example.journal", "host-1.example.journal.lock"]);
}

#[test]
fn damage_found_while_running_asks_for_everything_again() {
    type Spoil = fn(&Path, &[u8]);
    let spoils: [(&str, bool, Spoil); 3] = [
        ("noise", true, |path, _| fs::write(path, [7; 9000]).unwrap()),
        ("gone", false, |path, _| fs::remove_file(path).unwrap()),
        ("an old copy", true, |path, old| fs::write(path, old).unwrap()),
    ];
    for (what, kept, spoil) in spoils {
        let dir = dir();
        let (mut journal, _) = Journal::open(dir.path(), &name(), 50).unwrap();
        let old = fs::read(file(&dir)).unwrap();
        journal.write(&batch([hold("a")])).unwrap();
        // As after a failed write.
        journal.store = None;
        spoil(&file(&dir), &old);
        let words = batch([hold("b")]);
        let error = journal.write(&words).unwrap_err();
        let aside = beside(&file(&dir), "damaged-1");
        assert!(
            matches!(&error, WriteError::StartedAfresh { set_aside, .. } if *set_aside == kept.then_some(aside)),
            "{what}: {error}"
        );
        journal.write(&words).unwrap();
        drop(journal);
        let (_, restored) = open(&dir);
        assert_eq!((restored.generation, ids(&restored)), (51, texts(["b"])), "{what}");
    }
}

#[test]
fn a_file_spoilt_under_a_running_agent_does_not_end_it() {
    type Spoil = fn(&File);
    let spoils: [(&str, Spoil); 3] = [
        ("noise over everything", |mut file| file.write_all(&vec![7; 100_000]).unwrap()),
        ("truncated", |file| file.set_len(5_000).unwrap()),
        ("emptied", |file| file.set_len(0).unwrap()),
    ];
    for (what, spoil) in spoils {
        let dir = dir();
        let (mut journal, _) = open(&dir);
        let all = holding(0..4_000);
        journal.write(&all).unwrap();
        spoil(&OpenOptions::new().write(true).open(file(&dir)).unwrap());
        let failed = journal.write(&all).unwrap_err();
        assert!(matches!(failed, WriteError::Failed { .. }), "{what}: {failed}");
        let afresh = journal.write(&all).unwrap_err();
        assert!(matches!(afresh, WriteError::StartedAfresh { set_aside: Some(_), .. }), "{what}: {afresh}");
        journal.write(&all).unwrap();
        drop(journal);
        assert_eq!(open(&dir).1.held.len(), 4_000, "{what}");
    }
}

#[test]
fn a_panic_of_the_store_is_damage() {
    let fault = guarded::<()>(|| panic!("page {} is odd", 7)).unwrap_err();
    assert!(matches!(&fault, Fault::Damaged(why) if why == "the store panicked: page 7 is odd"), "{fault:?}");
}

/// A journal that held twenty thousand records and holds ten; the bytes of its file.
fn mostly_free(dir: &TempDir) -> (Journal, u64) {
    let (mut journal, _) = open(dir);
    let all = holding(0..20_000);
    journal.write(&all).unwrap();
    let words = all.words.keys().skip(10).map(|id| (id.clone(), Word::Forgotten)).collect();
    journal.write(&Batch { words, ..Batch::default() }).unwrap();
    let full = journal.bytes();
    (journal, full)
}

#[test]
fn a_mostly_free_file_shrinks_at_the_next_start() {
    let dir = dir();
    let (journal, full) = mostly_free(&dir);
    drop(journal);
    let (journal, restored) = open(&dir);
    assert_eq!(restored.held.len(), 10);
    assert!(journal.bytes() < full / 8, "{full} bytes, then {}", journal.bytes());
}

#[test]
fn a_file_whose_peak_is_over_shrinks_while_it_is_in_use() {
    let dir = dir();
    let (mut journal, full) = mostly_free(&dir);
    for _ in 0..LOOK_EVERY {
        journal.write(&holding(0..1)).unwrap();
        assert!(journal.store.is_some(), "shrinking failed");
    }
    assert!(journal.bytes() < full / 8, "{full} bytes, then {}", journal.bytes());
    drop(journal);
    assert_eq!(open(&dir).1.held.len(), 10);
}

/// A small file system of its own, gone with the value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: &str) -> Option<Self> {
        let dir = dir();
        let options = format!("size={bytes},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(dir))
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Leaves no room, not even for a page.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = |lazily: &[&str]| {
            Command::new("umount")
                .args(lazily)
                .arg(self.0.path())
                .status()
                .is_ok_and(|status| status.success())
        };
        if !unmounted(&[]) && !unmounted(&["-l"]) {
            eprintln!("cannot unmount {}", self.0.path().display());
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_recovered_from() {
    let Some(disk) = SmallDisk::mount("2m") else {
        eprintln!(
            "SKIPPED: a_full_disk_loses_nothing_and_is_recovered_from: mounting a tmpfs is not permitted"
        );
        return;
    };
    let (mut journal, _) = open(&disk.0);
    journal.write(&holding(0..100)).unwrap();
    disk.fill();
    let more = holding(100..2_000);
    for _ in 0..3 {
        let error = journal.write(&more).unwrap_err();
        assert!(matches!(error, WriteError::Failed { .. }), "{error}");
        assert!(matches!(refusal(&disk.0), OpenError::Locked { .. }), "the lock is kept");
    }
    disk.free();
    journal.write(&more).unwrap();
    disk.fill();
    assert!(journal.write(&holding(2_000..6_000)).is_err());
    drop(journal);
    if let Err(error) = Journal::open(disk.0.path(), &name(), 1) {
        assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
    }
    disk.free();
    let (_, restored) = open(&disk.0);
    assert_eq!((restored.held.len(), restored.set_aside), (2_000, None));
}

#[test]
fn a_full_disk_makes_no_half_a_journal() {
    let Some(disk) = SmallDisk::mount("256k") else {
        eprintln!("SKIPPED: a_full_disk_makes_no_half_a_journal: mounting a tmpfs is not permitted");
        return;
    };
    disk.fill();
    let error = refusal(&disk.0);
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
    assert_eq!(names(&disk.0), ["ballast", "host-1.example.journal.lock"]);
    disk.free();
    assert_eq!(open(&disk.0).1.set_aside, None);
}

/// Where the process that will be killed writes, and from which number on.
const DOOMED: &str = "GOSSD_TEST_DOOMED_JOURNAL";
/// How many batches a number stays held for.
const STAY: u32 = 5;

#[test]
fn what_was_written_is_there_after_a_kill() {
    if let Ok(doomed) = std::env::var(DOOMED) {
        return write_until_killed(&doomed);
    }
    let dir = dir();
    let mut last = 0;
    for round in 0..10 {
        last = kill_at_some_moment(&dir, last + 1);
        let (_, restored) = open(&dir);
        assert_eq!(restored.set_aside, None);
        // The batch after the last may have been written, and never been told of.
        let batches = restored.released.len();
        assert!((last as usize..=last as usize + 1).contains(&batches), "round {round}: {last}, {batches}");
        for n in last.saturating_sub(STAY - 2).max(1)..=last {
            assert!(ids(&restored).contains(&format!("held-{n}")), "round {round}: {n} of {last}");
        }
        assert!(restored.held.len() <= STAY as usize + 1);
    }
}

fn write_until_killed(doomed: &str) {
    let (from, dir) = doomed.split_once(' ').unwrap();
    let (mut journal, _) = Journal::open(Path::new(dir), &name(), 1).unwrap();
    for n in from.parse::<u32>().unwrap().. {
        let (new, old) = (format!("held-{n}"), format!("held-{}", n.saturating_sub(STAY)));
        let gone = format!("released-{n}");
        let words = [hold(&new), (&old, Word::Forgotten), (&gone, Word::Released)];
        journal.write(&batch(words)).unwrap();
        // Not `println`, which the test harness would keep.
        let mut out = io::stdout().lock();
        writeln!(out, "\nwritten {n}").unwrap();
        out.flush().unwrap();
    }
}

/// The last number that the process said was written.
fn kill_at_some_moment(dir: &TempDir, from: u32) -> u32 {
    let mut child = doomed(dir, from);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut written = lines.by_ref().filter_map(|line| line.unwrap().strip_prefix("written ")?.parse().ok());
    let enough = rand::random_range(1..12);
    let mut last = written.by_ref().take(enough).last().unwrap();
    assert!(matches!(refusal(dir), OpenError::Locked { .. }), "another process has it");
    std::thread::park_timeout(Duration::from_micros(rand::random_range(0..4_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    if let Some(after) = written.last() {
        last = after;
    }
    last
}

fn doomed(dir: &TempDir, from: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::what_was_written_is_there_after_a_kill", "--nocapture"])
        .env(DOOMED, format!("{from} {}", dir.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A journal as the first version wrote it, compressed. Never changed.
const FROZEN: &[u8] = include_bytes!("../../tests/frozen/journal-0.1.zst");

#[test]
fn the_first_versions_journal_is_read_and_written() {
    let dir = dir();
    fs::write(file(&dir), zstd::decode_all(FROZEN).unwrap()).unwrap();
    let (mut journal, restored) = open(&dir);
    let generation = restored.generation;
    assert!(generation > 1 && restored.set_aside.is_none(), "{restored:?}");
    assert_eq!(restored.held, [held("a"), held("unknown")]);
    assert_eq!(restored.lapsed, [held("bb"), held("late")]);
    assert_eq!(released(&restored), ["gone"]);
    assert_eq!(restored.rules, [rule("x", 7), rule("y.example.org", 8)]);
    journal.write(&batch([hold("new"), ("a", Word::Released)])).unwrap();
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!((ids(&restored), released(&restored)), (texts(["new", "unknown"]), texts(["gone", "a"])));
    assert!(restored.generation > generation);
}
