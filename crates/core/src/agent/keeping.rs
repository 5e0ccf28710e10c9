//! What a journal has to keep: changes, in batches, each until the journal has written it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use crate::entrypoints::{EntrypointKey, Registered};
use crate::hostname::{Claim, ClaimKey};
use crate::label::Label;
use crate::lease::Word;
use crate::slot::Version;

/// A commit that takes longer than this is late: a kill may then cost more than a second of changes. A disk takes a few
/// milliseconds, a busy one a hundred.
pub const LATE: Duration = Duration::from_millis(500);
/// For how long a late commit is a problem. The next one may be late as well.
const LATE_FOR: Duration = Duration::from_secs(60);
/// Words of one batch. More wait for the next one.
const MOST_WORDS: usize = 4_096;
/// Words that are taken in one go, for those that wait for the lock.
const BITE: usize = 256;

/// What changed and is to be kept, as it is now.
#[derive(Debug, Default)]
pub struct Batch {
    /// The newest state of each id.
    pub words: BTreeMap<Label, Word>,
    /// Claims on host names; none for one that is not stated any more.
    pub claims: BTreeMap<ClaimKey, Option<Arc<Claim>>>,
    /// Renew periods of instances; none for one that is not known any more.
    pub periods: BTreeMap<Label, Option<Duration>>,
    /// Where instances registered; none for one that is not known any more.
    pub entrypoints: BTreeMap<EntrypointKey, Option<Registered>>,
    /// Whether the agent drains, if that changed.
    pub draining: Option<bool>,
    /// With this batch, the journal has everything to this version of the agent's changes; none if some changes before it wait
    /// for the next batch.
    pub told: Option<Version>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        let gosts = self.periods.len() + self.entrypoints.len();
        self.words.len() + self.claims.len() + gosts + usize::from(self.draining.is_some())
    }
}

impl Batch {
    /// Adds what changed later.
    fn extend(&mut self, later: Self) {
        let Self { words, claims, periods, entrypoints, draining, told } = later;
        self.words.extend(words);
        self.claims.extend(claims);
        self.periods.extend(periods);
        self.entrypoints.extend(entrypoints);
        self.draining = draining.or(self.draining);
        self.told = told;
    }
}

/// How the journal is.
#[derive(Debug)]
pub(super) enum Health {
    /// There is none, perhaps against the operator's will: what changes is not kept.
    Absent(Option<String>),
    /// It takes what changes.
    Good,
    /// It does not, and why; the agent tries on.
    Bad(String),
}

/// How quickly the journal takes what changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When the commit began that is under way.
    begun: Option<Instant>,
    /// How long the last one took.
    last: Duration,
    /// The last late one: when it ended, and how long it took.
    late: Option<(Instant, Duration)>,
}

impl Pace {
    /// How long the commit under way has taken so far, or else the last one.
    pub(super) fn commit(self, now: Instant) -> Duration {
        self.begun.map_or(self.last, |begun| now.saturating_duration_since(begun))
    }

    /// How long the last late commit took, while that is a problem.
    pub(super) fn late(self, now: Instant) -> Option<Duration> {
        let (ended, took) = self.late?;
        (now.saturating_duration_since(ended) < LATE_FOR).then_some(took)
    }
}

impl Health {
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Good | Self::Absent(None) => None,
            Self::Bad(why) | Self::Absent(Some(why)) => Some(why.clone()),
        }
    }
}

impl State {
    /// Says that a journal keeps what changes from now on.
    pub fn use_journal(&mut self) {
        self.journal = Health::Good;
    }

    /// Says why there is no journal although one was wanted.
    pub fn miss_journal(&mut self, why: String) {
        self.journal = Health::Absent(Some(why));
    }

    /// Whether a journal keeps what changes, or is to do so once it can.
    pub fn has_journal(&self) -> bool {
        !matches!(self.journal, Health::Absent(_))
    }

    /// Counts everything as changed: the journal may lack some of it, and have what is not known here, with these ids.
    pub fn rewrite_journal(&mut self, others: Vec<Label>) {
        self.touch_all();
        self.leases.touch(others);
    }

    /// All that a journal would keep, for a process that takes over.
    pub fn all_kept(&mut self, now: Instant) -> Batch {
        while self.carry_out(now) {}
        self.touch_all();
        self.take_changed(usize::MAX)
    }

    /// What changed since this was asked last. The result goes to [`Self::written`] or [`Self::not_written`].
    ///
    /// It holds a part of the changes if there are many; then [`Self::written`] is false, and there is more to take.
    pub fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        while self.fill(&mut batch) {}
        batch
    }

    /// Takes a bite of it, and adds it to a batch: whether there is more, and the batch has room.
    pub fn fill(&mut self, batch: &mut Batch) -> bool {
        let room = MOST_WORDS.saturating_sub(batch.words.len());
        batch.extend(self.take_changed(room.min(BITE)));
        self.writing = batch.len();
        !self.took_all && batch.words.len() < MOST_WORDS
    }

    /// The write of a batch begins.
    pub fn commit_begins(&mut self, now: Instant) {
        self.pace.begun = Some(now);
    }

    /// It ended, whether the batch is written or not.
    pub fn commit_ends(&mut self, now: Instant) {
        let Some(begun) = self.pace.begun.take() else { return };
        let took = now.saturating_duration_since(begun);
        self.pace.last = took;
        if took <= LATE {
            return;
        }
        self.counts.late_commits += 1;
        let is_known = self.pace.late(now).is_some();
        self.pace.late = Some((now, took));
        // One that hung was told of while it did.
        if !is_known && matches!(self.journal, Health::Good) {
            self.effects.lines.push(Line::JournalLate { took });
        }
    }

    /// A write, or a look at the file, has not ended for long, as `why` says. It may still end.
    pub fn journal_hangs(&mut self, why: String) {
        self.fail(why);
    }

    /// How large the journal's file is, in bytes.
    pub fn note_journal_size(&mut self, bytes: u64) {
        self.journal_bytes = bytes;
    }

    /// The last batch is kept: whether all is.
    pub fn written(&mut self) -> bool {
        self.writing = 0;
        let has_all = !self.is_touched();
        // After a failure everything is written anew, in several batches if there is much of it. What changes meanwhile is of no
        // matter: as soon as one batch leaves nothing behind, everything has been written.
        if has_all || self.took_all {
            self.rewrites = false;
            if let Health::Bad(_) = std::mem::replace(&mut self.journal, Health::Good) {
                self.effects.lines.push(Line::JournalWritten);
            }
        }
        has_all
    }

    /// The last batch is not kept, and perhaps nothing that was before it.
    pub fn not_written(&mut self, batch: Batch, error: String, lost: bool) {
        self.writing = 0;
        let Batch { words, claims, periods, entrypoints, draining, told: _ } = batch;
        self.leases.touch(words.into_keys());
        self.leases.touch_periods(periods.into_keys());
        self.entrypoints.touched().extend(entrypoints.into_keys());
        self.directory.claims.touch(claims.into_keys());
        if draining.is_some() {
            self.drain.touch();
        }
        // A disk that failed may have lost what it had taken before. So everything is written anew, also what the journal had.
        if lost || !std::mem::replace(&mut self.rewrites, true) {
            self.touch_all();
        }
        self.counts.journal_errors += 1;
        self.fail(error);
    }

    fn fail(&mut self, why: String) {
        if !matches!(self.journal, Health::Bad(_)) {
            self.effects.lines.push(Line::JournalNotWritten { error: why.clone() });
        }
        self.journal = Health::Bad(why);
    }

    /// Counts everything as changed.
    fn touch_all(&mut self) {
        self.leases.touch_all();
        self.entrypoints.touch_all();
        self.directory.claims.touch_all();
        self.drain.touch();
    }

    /// What changed, as it is now, up to so many words.
    fn take_changed(&mut self, most_words: usize) -> Batch {
        self.told_touched = false;
        let ids = self.leases.take_some_touched(most_words);
        let keys = self.directory.claims.take_touched();
        let entrypoints = std::mem::take(self.entrypoints.touched());
        let mut batch = Batch {
            words: ids.into_iter().map(|id| (id.clone(), self.leases.word(&id))).collect(),
            claims: keys.into_iter().map(|key| (key.clone(), self.directory.claims.kept(&key))).collect(),
            periods: self.leases.take_periods(),
            entrypoints: entrypoints
                .into_iter()
                .map(|key| (key.clone(), self.entrypoints.word(&key)))
                .collect(),
            draining: self.drain.take_touched(),
            told: None,
        };
        self.took_all = !self.is_touched();
        batch.told = self.took_all.then(|| self.versions.last());
        batch
    }

    /// Forgets what changed: no journal keeps it.
    pub(super) fn keep_nothing(&mut self) {
        self.told_touched = false;
        self.leases.take_touched();
        self.leases.take_periods();
        self.directory.claims.take_touched();
        self.entrypoints.touched().clear();
        self.drain.take_touched();
    }
}
