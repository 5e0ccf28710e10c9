//! `--ingress-file`: the host names that this agent knows, in a file that gost's own loader reads. A gost that reads
//! the file needs no agent to find the tunnel of a host name, so its visitors reach the tunnels at its own host even
//! while the agent is away. `lines` makes the content, `disk` replaces the file, `health` reports its state.
//!
//! A task of its own writes the file, so that neither the disk nor the work delays plugin calls. When the agent ends,
//! the file stays as it is. An agent that has just started keeps the names that it cannot know yet.

mod disk;
mod health;
mod lines;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub(crate) use self::health::FileHealth;

use self::disk::{FileIdentity, NotReplaced};
use self::lines::{FileLimits, Lines, Lister, Listing, MAX_BYTES};
use crate::plugin::{Ingress, Names};
use crate::sentence::sentence;

/// A client that binds causes several changes in a row: they share a write.
const COALESCE: Duration = Duration::from_millis(100);
/// Least time between two writes: gost reads the file once a second.
const PACE: Duration = Duration::from_secs(1);
/// After a write, the pause is this many times as long as the write took. So even very many names take at most a tenth
/// of a processor.
const REST: u32 = 9;
/// How often to check whether somebody removed or replaced the file.
const LOOK: Duration = Duration::from_secs(5);
/// A write that takes longer is reported as a problem.
const SLOW: Duration = Duration::from_secs(5);

/// The task that keeps the file.
pub(crate) struct IngressFile {
    ingress: Ingress,
    /// Until then, lines of a former start stay in any case.
    held_until: Instant,
    health: FileHealth,
    keeper: Keeper,
}

/// What the disk's thread needs to write the file.
struct Keeper {
    path: PathBuf,
    lister: Lister,
    /// Lines of a former start whose names are not known here yet; `None` before the file was read.
    former: Option<Lines>,
    /// The current content and stamp of the file, as far as known.
    is: Option<(Checksum, FileIdentity)>,
}

type Checksum = [u8; 32];

/// What the lines depend on.
#[derive(Clone)]
struct Basis {
    hosts: u64,
    names: Arc<Names>,
    holds: bool,
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        let Self { hosts, names, holds } = other;
        self.hosts == *hosts && Arc::ptr_eq(&self.names, names) && self.holds == *holds
    }
}

/// The result of one run.
struct RunResult {
    /// What the file should contain, and how many of its lines come from a former start; `None` if that was not
    /// computed.
    listed: Option<(Listing, usize)>,
    /// Whether the file had to be written.
    written: Result<bool, NotReplaced>,
}

impl IngressFile {
    /// Does not touch the file before [`Self::keep`] runs. Lines of a former start stay at least for `hold`, even if
    /// the peers have sent their records: that long, this agent may not know its own tunnels again.
    pub(crate) fn new(path: PathBuf, ingress: Ingress, hold: Duration) -> Self {
        let health = FileHealth::of(&path);
        let lister = Lister::new(ingress.clone(), FileLimits::USUAL);
        let keeper = Keeper { path, lister, former: None, is: None };
        Self { ingress, held_until: Instant::now() + hold, health, keeper }
    }

    pub(crate) fn health(&self) -> &FileHealth {
        &self.health
    }

    /// Writes the file whenever its lines change, for ever.
    pub(crate) async fn keep(self) -> anyhow::Result<()> {
        let Self { ingress, held_until, health, mut keeper } = self;
        let (agent, mut names) = (ingress.agent(), ingress.names().clone());
        let mut changes = agent.watch();
        let mut last: Option<Basis> = None;
        let (mut not_before, mut look) = (Instant::now(), Instant::now());
        loop {
            let holds = agent.is_young() || Instant::now() < held_until;
            let basis = Basis { hosts: agent.hosts_revision(), names: names.get(), holds };
            let is_news = last.as_ref() != Some(&basis);
            if is_news || look <= Instant::now() {
                let start = Instant::now();
                let outcome;
                (keeper, outcome) = go(keeper, basis.clone(), is_news, &health).await?;
                last = outcome.written.is_ok().then_some(basis);
                health.note(outcome);
                not_before = start + PACE.max(start.elapsed() * (REST + 1));
                look = Instant::now() + LOOK;
            }
            if last.is_some() {
                tokio::select! {
                    // Signs of life from peers change this too, so it wakes often.
                    _ = changes.changed() => {}
                    () = names.changed() => {}
                    () = sleep_until(look) => {}
                }
            }
            sleep(COALESCE).await;
            sleep_until(not_before).await;
        }
    }
}

/// One run, on a thread that may block.
async fn go(
    mut keeper: Keeper,
    basis: Basis,
    is_news: bool,
    health: &FileHealth,
) -> anyhow::Result<(Keeper, RunResult)> {
    let mut going = spawn_blocking(move || {
        let outcome = keeper.go(&basis, is_news);
        (keeper, outcome)
    });
    let gone = if let Ok(gone) = timeout(SLOW, &mut going).await {
        gone
    } else {
        let seconds = SLOW.as_secs();
        health.note_problem(&sentence!("the disk has not completed the write for {seconds} s"));
        going.await
    };
    gone.context("the ingress file's writer ended")
}

impl Keeper {
    fn go(&mut self, basis: &Basis, is_news: bool) -> RunResult {
        if !is_news && self.is_untouched() {
            return RunResult { listed: None, written: Ok(false) };
        }
        let mut former = match self.former.take().map_or_else(|| self.first_look(), Ok) {
            Ok(former) => former,
            Err(error) if basis.holds => return RunResult { listed: None, written: Err(error.into()) },
            Err(_) => Lines::new(),
        };
        if !basis.holds {
            former.clear();
        }
        let listing = self.lister.list(&basis.names, &mut former);
        let written = self.replace_unless_same(&listing.text);
        let listed = Some((listing, former.len()));
        self.former = Some(former);
        RunResult { listed, written }
    }

    /// Whether nobody else has changed the file.
    fn is_untouched(&self) -> bool {
        let found = disk::stamp(&self.path).ok().flatten();
        self.is.is_some_and(|(_, stamp)| found == Some(stamp))
    }

    /// Reads the file of a former start.
    fn first_look(&mut self) -> io::Result<Lines> {
        let Some(stamp) = disk::stamp(&self.path)? else { return Ok(Lines::new()) };
        let text = disk::read(&self.path, MAX_BYTES)?;
        self.is = Some((digest(&text), stamp));
        Ok(lines::parse(&String::from_utf8_lossy(&text)))
    }

    fn replace_unless_same(&mut self, text: &str) -> Result<bool, NotReplaced> {
        let wanted = digest(text.as_bytes());
        if self.is.is_some_and(|(is, _)| is == wanted) && self.is_untouched() {
            return Ok(false);
        }
        self.is = None;
        self.is = Some((wanted, disk::replace(&self.path, text)?));
        Ok(true)
    }
}

fn digest(text: &[u8]) -> Checksum {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests;
