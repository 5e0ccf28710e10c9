//! `--ingress-file`: the host names that this agent knows, in a file that gost's own loader reads. A gost that reads it
//! asks nobody which tunnel a host name belongs to, so its visitors reach the tunnels at its own host whether the agent is
//! there or not. `lines` says what stands in it, `disk` replaces it, `health` tells how it is.
//!
//! It is written by a task of its own, whose disk and whose work are on no thread that answers calls. When the agent ends,
//! the file stays as it was; an agent that has just started keeps the names that it cannot know yet.

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

pub(crate) use self::health::Health;

use self::disk::{NotReplaced, Stamp};
use self::lines::{Bounds, Lines, Lister, Listing, MAX_BYTES};
use crate::plugin::{Ingress, Names};

/// A client that binds brings several changes one after the other: they share a write.
const COALESCE: Duration = Duration::from_millis(100);
/// Between two writes: gost does not look more often.
const PACE: Duration = Duration::from_secs(1);
/// How many times as long as a write took the next one is put off, so that many names take no more than a tenth of a
/// processor.
const REST: u32 = 9;
/// How often to look whether somebody removed or replaced the file.
const LOOK: Duration = Duration::from_secs(5);
/// A disk that takes longer is told of.
const SLOW: Duration = Duration::from_secs(5);

/// Keeps the file.
pub(crate) struct IngressFile {
    ingress: Ingress,
    /// Until when what a former start wrote stays in any case.
    held_until: Instant,
    health: Health,
    keeper: Keeper,
}

/// What is with the disk while the file is written.
struct Keeper {
    path: PathBuf,
    lister: Lister,
    /// Lines of a former start of which nothing is known yet; none before they were read.
    former: Option<Lines>,
    /// What the file is, as far as we know.
    is: Option<(Digest, Stamp)>,
}

type Digest = [u8; 32];

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

/// What came of one go.
struct Outcome {
    /// What the file should be, and how many of its lines are a former start's; none where that was not looked at.
    listed: Option<(Listing, usize)>,
    /// Whether it had to be written.
    written: Result<bool, NotReplaced>,
}

impl IngressFile {
    /// A file that is not touched before [`Self::keep`] runs. Names of a former start stay for `hold` even if the peers
    /// were heard: for as long as this agent may not know its own tunnels again.
    pub(crate) fn new(path: PathBuf, ingress: Ingress, hold: Duration) -> Self {
        let health = Health::of(&path);
        let lister = Lister::new(ingress.clone(), Bounds::USUAL);
        let keeper = Keeper { path, lister, former: None, is: None };
        Self { ingress, held_until: Instant::now() + hold, health, keeper }
    }

    /// How the file is.
    pub(crate) fn health(&self) -> &Health {
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
                    // Signs of life are changes, too: this is often.
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

/// One go, on a thread that may take its time.
async fn go(
    mut keeper: Keeper,
    basis: Basis,
    is_news: bool,
    health: &Health,
) -> anyhow::Result<(Keeper, Outcome)> {
    let mut going = spawn_blocking(move || {
        let outcome = keeper.go(&basis, is_news);
        (keeper, outcome)
    });
    let gone = if let Ok(gone) = timeout(SLOW, &mut going).await {
        gone
    } else {
        health.note_problem(&format!("the disk has not done it for {} s: is it there?", SLOW.as_secs()));
        going.await
    };
    gone.context("the ingress file's writer ended")
}

impl Keeper {
    fn go(&mut self, basis: &Basis, is_news: bool) -> Outcome {
        if !is_news && self.is_untouched() {
            return Outcome { listed: None, written: Ok(false) };
        }
        let mut former = match self.former.take().map_or_else(|| self.first_look(), Ok) {
            Ok(former) => former,
            Err(error) if basis.holds => return Outcome { listed: None, written: Err(error.into()) },
            Err(_) => Lines::new(),
        };
        if !basis.holds {
            former.clear();
        }
        let listing = self.lister.list(&basis.names, &mut former);
        let written = self.replace_unless_same(&listing.text);
        let listed = Some((listing, former.len()));
        self.former = Some(former);
        Outcome { listed, written }
    }

    /// Whether the file is still the one that we know.
    fn is_untouched(&self) -> bool {
        let found = disk::stamp(&self.path).ok().flatten();
        self.is.is_some_and(|(_, stamp)| found == Some(stamp))
    }

    /// What a former start wrote.
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

fn digest(text: &[u8]) -> Digest {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests;
