//! Every kind of damage to a file.

use super::*;

/// A journal's file with three batches of forty records, and where its frames begin; the last of these is its end.
fn image() -> (Vec<u8>, Vec<usize>) {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    let length = || fs::read(file(&dir)).unwrap().len();
    let mut ends = vec![16, length()];
    for first in [0, 40, 80] {
        journal.write(&holding(first..first + 40)).unwrap();
        ends.push(length());
    }
    (fs::read(file(&dir)).unwrap(), ends)
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
    let mut magic = image().0[..16].to_vec();
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
fn what_a_kill_leaves_of_a_file_has_every_finished_commit() {
    let (image, ends) = image();
    let spread = (1..60).map(|n| image.len() * n / 60);
    let around = ends.iter().flat_map(|end| [end - 1, *end, end + 1, end + 11, end + 12, end + 13]);
    for length in [1, 8, 15].into_iter().chain(spread).chain(around).filter(|length| *length <= image.len()) {
        let restored = start_on(&image[..length], &format!("{length} of {} bytes", image.len()));
        assert_eq!(restored.set_aside.is_some(), length < ends[1], "{length} of {} bytes", image.len());
        let finished = ends[2..].iter().filter(|end| **end <= length).count();
        assert_eq!(restored.leases.held.len(), 40 * finished, "{length} of {} bytes", image.len());
    }
    // The pages of an append come to a disk in any order.
    let (begun, last) = (ends[3], &image[ends[3]..]);
    for lost in [0..512, 100..700, 512..1024, 12..24, 0..last.len()] {
        let mut torn = image.clone();
        torn[begun..][lost.clone()].fill(0);
        let restored = start_on(&torn, &format!("{lost:?} of the last commit"));
        assert_eq!((restored.set_aside, restored.leases.held.len()), (None, 80), "{lost:?}");
    }
    let longer = [&image[..], &[0; 4096]].concat();
    assert_eq!(start_on(&longer, "a page longer").leases.held.len(), 120);
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let (image, ends) = image();
    let spread = (0..image.len()).step_by(image.len() / 60 + 1);
    let frames = ends.iter().take(4).flat_map(|end| *end..end + 16);
    for at in (0..16).chain(spread).chain(frames) {
        let mut flipped = image.clone();
        flipped[at] ^= 0xff;
        let what = format!("byte {at} of {}", image.len());
        let restored = start_on(&flipped, &what);
        // Of the last commit, it is as after a kill.
        assert_eq!(restored.set_aside.is_some(), at < ends[3], "{what}");
        assert_eq!(restored.leases.held.len(), if at < ends[3] { 0 } else { 80 }, "{what}");
    }
}

#[test]
fn a_commit_counts_only_where_it_was_written() {
    let (image, ends) = image();
    let swapped =
        [&image[..ends[1]], &image[ends[2]..ends[3]], &image[ends[1]..ends[2]], &image[ends[3]..]].concat();
    assert!(start_on(&swapped, "two in the wrong order").set_aside.is_some());
    for (what, bytes, held) in [
        ("one is cut out", [&image[..ends[2]], &image[ends[3]..]].concat(), 40),
        ("all of them twice", [&image[..], &image[ends[1]..]].concat(), 120),
    ] {
        let restored = start_on(&bytes, what);
        assert_eq!((restored.leases.held.len(), restored.set_aside), (held, None), "{what}");
    }
}

/// A client chooses its tunnel's id, which lies in the file as it is.
#[test]
fn what_a_client_chose_is_no_commit_of_the_journal() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    journal.write(&batch([hold("a")])).unwrap();
    let begun = fs::read(file(&dir)).unwrap().len();
    // A whole frame, but for where it is: the length 4, two checksums, and four bytes.
    let id = "04000000-7b82-4c5f-8c75-ff18b1f48aad";
    let record = Record { name: id.into(), ..(*held("b").record).clone() };
    journal.write(&batch([("b", Word::Held(Holding { record: Arc::new(record), ..held("b") }))])).unwrap();
    let mut torn = fs::read(file(&dir)).unwrap();
    let lies = torn.windows(8).position(|bytes| bytes == [4, 0, 0, 0, 0x7b, 0x82, 0x4c, 0x5f]);
    assert!(lies.is_some_and(|at| at > begun), "it does not lie there as it is");
    torn[begun + 4] ^= 1;
    fs::write(file(&dir), &torn).unwrap();
    drop(journal);
    let (_, restored) = open(&dir);
    assert_eq!((ids(&restored), restored.set_aside), (texts(["a"]), None));
}

/// A file of that format which begins with a commit.
fn file_of(format: u32, commit: &[u8]) -> Vec<u8> {
    let mut file = log::write_bytes(&[commit.to_vec()]);
    file[8..12].copy_from_slice(&format.to_le_bytes());
    let check = crc32fast::hash(&file[..12]);
    file[12..16].copy_from_slice(&check.to_le_bytes());
    file
}

#[test]
fn a_file_of_something_else_is_set_aside() {
    let last = Commit { stamp: Stamp::first(u64::MAX), ..Commit::default() };
    let bytes = |commit: &Commit<'_>| postcard::to_stdvec(commit).unwrap();
    assert_eq!(start_on(&file_of(3, &bytes(&Commit::default())), "a good file").set_aside, None);
    for (what, bytes) in [
        ("a database", [&b"redb\x1a\x0a\xa9\x0d\x0a"[..], &[1; 9_000]].concat()),
        ("no commit", file_of(3, b"")[..16].to_vec()),
        ("an empty commit", file_of(3, b"")),
        ("a commit that no gossd wrote", file_of(3, &[0xff; 100])),
        (
            "a commit is missing",
            log::write_bytes(
                &[1, 3].map(|count| bytes(&Commit { stamp: Stamp::counted(count), ..Commit::default() })),
            ),
        ),
        ("an impossible format", file_of(0, &bytes(&Commit::default()))),
        ("a former format", file_of(2, &bytes(&Commit::default()))),
        ("the last generation", file_of(3, &bytes(&last))),
    ] {
        let dir = dir();
        fs::write(file(&dir), bytes).unwrap();
        let (_, restored) = Journal::open(dir.path(), &name(), 7).unwrap();
        assert_eq!((restored.set_aside.is_some(), restored.generation), (true, 7), "{what}");
    }
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let dir = dir();
    drop(open(&dir));
    OpenOptions::new().write(true).open(file(&dir)).unwrap().set_len((1 << 30) + 1).unwrap();
    assert!(open(&dir).1.set_aside.is_some());
}

#[test]
fn the_file_of_a_newer_gossd_is_left_alone() {
    let dir = dir();
    let newer = file_of(4, b"what this one cannot read");
    fs::write(file(&dir), &newer).unwrap();
    for _ in 0..2 {
        let error = refusal(&dir);
        assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    }
    assert_eq!(names(&dir), ["host-1.example.journal", "host-1.example.journal.lock"]);
    assert_eq!(fs::read(file(&dir)).unwrap(), newer);
}

#[test]
fn a_damaged_record_costs_no_other() {
    let dir = dir();
    open(&dir).0.write(&batch([hold("a"), ("b", Word::Released(Release::Held)), hold("c")])).unwrap();
    let kept = |id: &[u8], [name, node, address, dial]: [&str; 4]| {
        let [id, name, node] = [str::from_utf8(id).unwrap_or("\u{fffd}"), name, node].map(Label::from);
        let record = Record { id, name, node, network: Network::Tcp, address: address.into() };
        let holding = Holding { record: Arc::new(record), dial: dial.into() };
        write_word(&Word::Held(holding)).unwrap()
    };
    let long = "x".repeat(513);
    let good = ["t", "n", "h:1", ""];
    let entries = [
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
    ];
    let entries: Vec<_> = entries.iter().map(|(id, kept)| (WORDS, *id, &**kept)).collect();
    tamper(&dir, &entries);
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

/// A file that was longer when its length was asked for.
struct Shrunk(io::Cursor<Vec<u8>>);

impl io::Read for Shrunk {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl io::Seek for Shrunk {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let more = if to == io::SeekFrom::End(0) { 10_000 } else { 0 };
        Ok(self.0.seek(to)? + more)
    }
}

/// An error of the disk would leave the file in use, and what is written to it later would be lost with it.
#[test]
fn a_file_that_is_cut_while_it_is_read_is_damaged() {
    let (image, ends) = image();
    for cut in [10, ends[1] + 5, ends[2] - 1, ends[3] + 20] {
        let read = || Sum::read(&mut Frames::of(Shrunk(io::Cursor::new(image[..cut].to_vec())))?);
        assert!(matches!(read(), Err(Fault::Damaged(_))), "cut to {cut}");
    }
}
