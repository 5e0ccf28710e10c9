//! A journal whose file or folder is taken away, replaced or written to by somebody else while it is in use.

use super::*;

/// A journal in a folder of a folder, so that its own may be removed.
fn below(dir: &TempDir) -> PathBuf {
    dir.path().join("state")
}

fn open_in(folder: &Path) -> (Journal, RestoredJournal) {
    Journal::open(folder, &name(), 1).unwrap()
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("host-1.example.journal")
}

/// What may become of a journal's file.
type Mishap = fn(&Path);

const MISHAPS: [(&str, Mishap); 9] = [
    ("its file is removed", |folder| fs::remove_file(path_in(folder)).unwrap()),
    ("its folder is removed", |folder| fs::remove_dir_all(folder).unwrap()),
    ("its folder is moved", |folder| fs::rename(folder, folder.with_extension("old")).unwrap()),
    ("its file is moved", |folder| fs::rename(path_in(folder), folder.join("elsewhere")).unwrap()),
    ("its folder is replaced", |folder| {
        fs::rename(folder, folder.with_extension("old")).unwrap();
        fs::create_dir(folder).unwrap();
    }),
    ("its file is replaced", |folder| {
        fs::write(folder.join("other"), "of somebody else").unwrap();
        fs::rename(folder.join("other"), path_in(folder)).unwrap();
    }),
    ("its file is emptied", |folder| fs::write(path_in(folder), "").unwrap()),
    ("its file is overwritten with a copy that is older", |folder| {
        fs::copy(folder.join("copy"), path_in(folder)).map(drop).unwrap();
    }),
    ("its lock is removed", |folder| fs::remove_file(beside(&path_in(folder), "lock")).unwrap()),
];

#[test]
fn whatever_becomes_of_the_file_the_next_look_finds_it_and_everything_is_kept_again() {
    for (what, mishap) in MISHAPS {
        let dir = dir();
        let folder = below(&dir);
        let (mut journal, _) = open_in(&folder);
        journal.write(&batch([hold("a")])).unwrap();
        fs::copy(path_in(&folder), folder.join("copy")).unwrap();
        journal.write(&batch([hold("b")])).unwrap();
        journal.look().unwrap_or_else(|error| panic!("before {what}: {error}"));
        mishap(&folder);
        let looked = journal.look();
        if what == "its lock is removed" {
            looked.unwrap_or_else(|error| panic!("{what}: the file is as good as ever: {error}"));
        } else {
            assert!(matches!(looked, Err(WriteError::StartedAfresh { .. })), "{what}: {looked:?}");
        }
        journal.look().unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = journal.bytes();
        journal.look().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(journal.bytes(), found, "{what}: what a look has found, the next one does not find again");
        // What an agent does when its journal starts afresh.
        journal.write(&batch([hold("a"), hold("b"), hold("c")])).unwrap();
        let second = Journal::open(&folder, &name(), 1).unwrap_err();
        assert!(matches!(second, OpenError::Locked { .. }), "{what}: {second}");
        drop(journal);
        assert_eq!(ids(&open_in(&folder).1), ["a", "b", "c"], "{what}");
    }
}

#[test]
fn a_write_finds_it_as_well() {
    for (what, mishap) in MISHAPS {
        let dir = dir();
        let folder = below(&dir);
        let (mut journal, _) = open_in(&folder);
        journal.write(&batch([hold("a")])).unwrap();
        fs::copy(path_in(&folder), folder.join("copy")).unwrap();
        journal.write(&batch([hold("b")])).unwrap();
        mishap(&folder);
        let everything = batch([hold("a"), hold("b"), hold("c")]);
        match journal.write(&everything) {
            Ok(()) => {}
            Err(WriteError::StartedAfresh { .. }) => journal.write(&everything).unwrap(),
            Err(error) => panic!("{what}: {error}"),
        }
        drop(journal);
        assert_eq!(ids(&open_in(&folder).1), ["a", "b", "c"], "{what}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_again_fails_until_it_can() {
    let dir = dir();
    let folder = below(&dir);
    let (mut journal, _) = open_in(&folder);
    journal.write(&batch([hold("a")])).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    for _ in 0..3 {
        assert!(matches!(journal.look(), Err(WriteError::Failed { .. })));
        assert!(matches!(journal.write(&batch([hold("b")])), Err(WriteError::Failed { .. })));
    }
    fs::remove_file(&folder).unwrap();
    assert!(matches!(journal.look(), Err(WriteError::StartedAfresh { set_aside: None, .. })));
    journal.write(&batch([hold("a"), hold("b")])).unwrap();
    drop(journal);
    assert_eq!(ids(&open_in(&folder).1), ["a", "b"]);
}

#[test]
fn another_agent_that_came_to_the_new_folder_keeps_it() {
    let dir = dir();
    let folder = below(&dir);
    let (mut journal, _) = open_in(&folder);
    fs::remove_dir_all(&folder).unwrap();
    let (other, _) = open_in(&folder);
    let error = journal.look().unwrap_err();
    assert!(error.to_string().contains("another process has it open"), "{error}");
    drop(other);
    journal.look().unwrap();
}

#[test]
fn a_journal_knows_to_which_version_it_has_everything() {
    let dir = dir();
    let (mut journal, restored) = open(&dir);
    assert_eq!(restored.told, None, "it is fresh");
    journal.write(&Batch { told: Some(7), ..batch([hold("a")]) }).unwrap();
    journal.write(&batch([hold("b")])).unwrap();
    drop(journal);
    let (journal, restored) = open(&dir);
    assert_eq!(restored.told, Some((1, 7)));
    drop(journal);
    let (mut journal, restored) = open(&dir);
    assert_eq!(restored.told, Some((1, 7)), "a start that wrote nothing does not count");
    let generation = restored.generation;
    journal.write(&Batch { told: Some(2), ..batch([hold("c")]) }).unwrap();
    drop(journal);
    assert_eq!(open(&dir).1.told, Some((generation, 2)));
}

/// Peers know more than a file that started afresh, until everything is written to it.
#[test]
fn a_journal_that_has_not_everything_yet_does_not_claim_to() {
    let dir = dir();
    let (mut journal, _) = open(&dir);
    journal.write(&batch([hold("a")])).unwrap();
    drop(journal);
    assert_eq!(open(&dir).1.told, Some((1, 0)));
}
