//! Every kind of damage to a file.

use super::*;

/// The file of a journal that was closed, or whose agent was killed.
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

/// Starts an agent on a file, which must work. On damage it starts empty, and the file is kept.
fn start_on(bytes: &[u8], what: &str) -> RestoredJournal {
    let dir = quick_dir();
    fs::write(file(&dir), bytes).unwrap();
    let (mut journal, restored) = open(&dir);
    match &restored.set_aside {
        Some(aside) => {
            assert_eq!(*aside, beside(&file(&dir), "damaged-1"), "{what}");
            assert_eq!(fs::read(aside).unwrap().len(), bytes.len(), "{what}");
            assert_eq!((restored.leases.held.len(), restored.leases.released.len()), (0, 0), "{what}");
        }
        None => assert!(restored.leases.held.len().is_multiple_of(40), "{what}: whole batches"),
    }
    journal.write(&batch([hold("new")])).unwrap();
    drop(journal);
    let (_, again) = open(&dir);
    assert_eq!(again.set_aside, None, "{what}");
    assert!(again.leases.held.contains(&held("new")), "{what}");
    restored
}

#[test]
fn a_file_of_random_bytes_is_set_aside() {
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
            let whole = restored.leases.held.len() == 120;
            // A file that was not closed falls back to the commit before the invalid one.
            assert!(whole || restored.set_aside.is_some() || !clean, "{what}");
            assert!(restored.leases.held.iter().all(|kept| *kept == held(&kept.record.id.text())), "{what}");
        }
    }
}

#[test]
fn a_database_of_something_else_is_set_aside() {
    type RowChange = fn(&redb::WriteTransaction);
    let foreign: [(&str, RowChange); 8] = [
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
        ("a former format", |t| {
            t.open_table(META).unwrap().insert("format", 1).unwrap();
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
    open(&dir).0.write(&batch([hold("a"), ("b", Word::Released(Release::Held))])).unwrap();
    tamper(&dir, |t| drop(t.open_table(META).unwrap().insert("format", 3).unwrap()));
    let before = names(&dir);
    for _ in 0..2 {
        let error = refusal(&dir);
        assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    }
    assert_eq!(names(&dir), before);
    tamper(&dir, |t| drop(t.open_table(META).unwrap().insert("format", 2).unwrap()));
    let (_, restored) = open(&dir);
    assert!(restored.generation > 1);
    assert_eq!((ids(&restored), released(&restored)), (texts(["a"]), texts(["b"])));
}

#[test]
fn a_damaged_record_costs_no_other() {
    let dir = dir();
    open(&dir).0.write(&batch([hold("a"), ("b", Word::Released(Release::Held)), hold("c")])).unwrap();
    let kept = |id: &[u8], [name, node, address, dial]: [&str; 4]| {
        let [id, name, node] = [str::from_utf8(id).unwrap_or("\u{fffd}"), name, node].map(Label::from);
        let record = Record { id, name, node, network: Network::Tcp, address: address.into() };
        let holding = Holding { record: Arc::new(record), dial: dial.into() };
        kept::write_word(&Word::Held(holding), 0).unwrap()
    };
    let long = "x".repeat(513);
    let good = ["t", "n", "h:1", ""];
    tamper(&dir, |t| {
        let mut words = t.open_table(WORDS).unwrap();
        for (id, bytes) in [
            (&b""[..], kept(b"", good)),
            (b"\xff\xfe", kept(b"\xff\xfe", good)),
            (b"line\nbreak", kept(b"line\nbreak", good)),
            (long.as_bytes(), kept(long.as_bytes(), good)),
            (b"d1", vec![]),
            (b"d2", vec![9, 9, 9]),
            (b"d3", kept(b"another", good)),
            (b"d4", kept(b"d4", ["", "n", "h:1", ""])),
            (b"d5", kept(b"d5", ["t", "n", "h", ""])),
            (b"d6", kept(b"d6", ["t", "n", "h:0", ""])),
            (b"d7", kept(b"d7", ["t", "n", "h:1", "h"])),
            (b"d8", kept(b"d8", ["t", "n\t", "h:1", ""])),
            (b"d9", kept(b"d9", [&long, "n", "h:1", ""])),
            (b"good", kept(b"good", good)),
        ] {
            words.insert(id, bytes.as_slice()).unwrap();
        }
    });
    let (mut journal, restored) = open(&dir);
    assert_eq!(ids(&restored), ["a", "c", "d7", "good"]);
    assert_eq!(restored.leases.held[2].dial, *"", "where it cannot be dialled is not known");
    assert_eq!((released(&restored), &restored.set_aside), (texts(["b"]), &None));
    journal
        .write(&batch([hold("d1"), ("d2", Word::Released(Release::Held)), ("d3", Word::Forgotten)]))
        .unwrap();
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
        // The state after a failed write.
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
        assert!(restored.generation > 50, "{what}");
        assert_eq!(ids(&restored), texts(["b"]), "{what}");
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
        let afresh = journal.write(&all).unwrap_err();
        assert!(matches!(afresh, WriteError::StartedAfresh { set_aside: Some(_), .. }), "{what}: {afresh}");
        journal.write(&all).unwrap();
        drop(journal);
        assert_eq!(open(&dir).1.leases.held.len(), 4_000, "{what}");
    }
}

#[test]
fn a_panic_of_the_store_is_damage() {
    let fault = guarded::<()>(|| panic!("page {} is odd", 7)).unwrap_err();
    assert!(matches!(&fault, Fault::Damaged(why) if why == "the store panicked: page 7 is odd"), "{fault:?}");
}
