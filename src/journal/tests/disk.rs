//! Full disks, and processes that are killed while they write.

use super::*;

/// A small file system, unmounted when dropped.
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
    assert_eq!((restored.leases.held.len(), restored.set_aside), (2_000, None));
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

/// The folder of the process that will be killed, and its first number.
const DOOMED: &str = "GOSSD_TEST_DOOMED_JOURNAL";
/// For how many batches a number stays held.
const STAY: u32 = 5;

#[test]
fn written_batches_survive_a_kill() {
    if let Ok(doomed) = std::env::var(DOOMED) {
        return write_until_killed(&doomed);
    }
    let dir = dir();
    let mut last = 0;
    for round in 0..10 {
        last = kill_at_some_moment(&dir, last + 1);
        let (_, restored) = open(&dir);
        assert_eq!(restored.set_aside, None);
        // The batch after the last reported one may have been written.
        let batches = restored.leases.released.len();
        assert!((last as usize..=last as usize + 1).contains(&batches), "round {round}: {last}, {batches}");
        for n in last.saturating_sub(STAY - 2).max(1)..=last {
            assert!(ids(&restored).contains(&format!("held-{n}")), "round {round}: {n} of {last}");
        }
        assert!(restored.leases.held.len() <= STAY as usize + 1);
    }
}

fn write_until_killed(doomed: &str) {
    let (from, dir) = doomed.split_once(' ').unwrap();
    let (mut journal, _) = Journal::open(Path::new(dir), &name(), 1).unwrap();
    for n in from.parse::<u32>().unwrap().. {
        let (new, old) = (format!("held-{n}"), format!("held-{}", n.saturating_sub(STAY)));
        let gone = format!("released-{n}");
        let words = [hold(&new), (&old, Word::Forgotten), (&gone, Word::Released(Release::Held))];
        journal.write(&batch(words)).unwrap();
        // Not `println`, which the test harness would capture.
        let mut out = io::stdout().lock();
        writeln!(out, "\nwritten {n}").unwrap();
        out.flush().unwrap();
    }
}

/// The last number that the process reported as written.
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
        .args(["--exact", "journal::tests::disk::written_batches_survive_a_kill", "--nocapture"])
        .env(DOOMED, format!("{from} {}", dir.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
