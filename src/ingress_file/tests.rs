//! The file on a real disk, in real time.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::lines::tests::{HASH_OF_ONE, ONE, World};
use super::*;
use crate::ops::report::IngressFileReport;
use gossd_core::hostname::Naming;

const SOON: Duration = Duration::from_secs(20);
const NO_HOLD: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3_600);

/// A file that is kept up to date until this is dropped.
struct Kept {
    world: World,
    folder: TempDir,
    health: FileHealth,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kept {
    fn start(world: World, folder: TempDir, hold: Duration) -> Self {
        let path = path(&folder);
        let file = IngressFile::new(path, world.ingress.clone(), hold);
        let health = file.health().clone();
        Self { world, folder, health, task: tokio::spawn(file.keep()) }
    }

    fn text(&self) -> String {
        fs::read_to_string(path(&self.folder)).unwrap_or_default()
    }

    async fn until(&self, what: &str, holds: impl Fn(&IngressFileReport) -> bool) {
        let start = std::time::Instant::now();
        while !holds(&self.health.report().unwrap()) {
            assert!(!self.task.is_finished(), "{what}: it ended");
            assert!(start.elapsed() < SOON, "{what}: {:?}", self.health.report().unwrap());
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_text(&self, what: &str, text: &str) {
        self.until(what, |_| self.text() == text).await;
    }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("hosts")
}

fn claim(host: &str) -> String {
    format!("{host} {ONE}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_written_when_its_lines_change_and_only_then() {
    let kept = Kept::start(World::new(Names::default()), tempfile::tempdir().unwrap(), NO_HOLD);
    kept.until("an empty file is there", |report| report.writes == 1).await;
    assert_eq!(kept.text(), "");
    let start = Instant::now();
    for (n, host) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(kept.world.ingress.set_rule(host, ONE, None), Ok(true));
        kept.until("the name is there", |report| report.lines == n + 1).await;
    }
    assert!(start.elapsed() >= PACE * 2, "once a second at most: {:?}", start.elapsed());
    kept.until_text("all are", &(claim("a") + &claim("b") + &claim("c"))).await;
    let writes = kept.health.report().unwrap().writes;
    assert!(writes <= 4, "{writes}");
    let before = kept.world.agent.hosts_revision();
    assert_eq!(
        kept.world.agent.claim("no name", gossd_core::hostname::Endpoint::parse(ONE).unwrap(), |_| true),
        Ok(true)
    );
    assert!(before < kept.world.agent.hosts_revision());
    sleep(PACE * 2).await;
    assert_eq!(kept.health.report().unwrap().writes, writes, "no line changed");

    let naming = Naming::new(&[], 1, &["b".to_owned()]).unwrap();
    kept.world.latest.send_replace(Arc::new(Names::new(naming, [("www", ONE)]).unwrap()));
    kept.until_text("the operator said something else", &(claim("a") + &claim("c") + &claim("www"))).await;

    fs::remove_file(path(&kept.folder)).unwrap();
    kept.until_text("somebody removed it", &(claim("a") + &claim("c") + &claim("www"))).await;
    fs::write(path(&kept.folder), "# comment").unwrap();
    kept.until_text("somebody wrote to it", &(claim("a") + &claim("c") + &claim("www"))).await;
    assert_eq!(kept.health.report().unwrap().failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_keeps_what_it_cannot_know_yet_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let former = format!("{HASH_OF_ONE} {ONE}\n{}", claim("former"));
    fs::write(path(&folder), &former).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path(&folder));
    let kept = Kept::start(World::new(Names::default()), folder, LONG);
    kept.until("it is read", |report| report.former == 2).await;
    assert_eq!(
        (kept.health.report().unwrap().writes, inode(&path(&kept.folder))),
        (0, before),
        "it is as it should be"
    );
    kept.world.attach(ONE);
    kept.until("one is known", |report| report.former == 1).await;
    assert_eq!(kept.text(), former);
    assert_eq!(kept.world.ingress.set_rule("new", ONE, None), Ok(true));
    kept.until_text("a new one comes to them", &(former.clone() + &claim("new"))).await;

    let Kept { world, folder, .. } = &kept;
    let copy = tempfile::tempdir().unwrap();
    fs::copy(path(folder), path(&copy)).unwrap();
    let path = path(&copy);
    let lister = Lister::new(world.ingress.clone(), FileLimits::USUAL);
    let mut keeper = Keeper { path: path.clone(), lister, former: None, is: None };
    let basis = |holds| Basis { hosts: 0, names: world.names.get(), holds };
    assert!(matches!(keeper.go(&basis(true), true).written, Ok(false)));
    assert!(matches!(keeper.go(&basis(false), true).written, Ok(true)), "it knows better now");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{HASH_OF_ONE} {ONE}\n{}", claim("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_file_is_not_overwritten_while_it_may_be_needed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(path(&folder)).unwrap();
    let kept = Kept::start(World::new(Names::default()), folder, LONG);
    kept.until("it is reported and tried again", |report| report.failures >= 2).await;
    let problem = kept.health.report().unwrap().problem.unwrap();
    assert!(problem.contains("it exists and is no file"), "{problem}");
    assert_eq!(kept.world.ingress.set_rule("a", ONE, None), Ok(true));
    fs::remove_dir(path(&kept.folder)).unwrap();
    kept.until_text("it is mended", &claim("a")).await;
    kept.until("nothing is wrong any more", |report| report.problem.is_none()).await;
}
