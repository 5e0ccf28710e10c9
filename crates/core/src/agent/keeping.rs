//! What a journal has to keep: changes, in batches, each until the journal has written it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::State;
use super::effects::Line;
use crate::entrypoints::{EntrypointKey, Registered};
use crate::hostname::{Claim, ClaimKey};
use crate::label::Label;
use crate::lease::Word;

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
    pub fn all_kept(&mut self) -> Batch {
        self.touch_all();
        self.take_changed()
    }

    /// What changed since this was asked last. The result goes to [`Self::written`] or [`Self::not_written`].
    pub fn take_batch(&mut self) -> Batch {
        let batch = self.take_changed();
        self.writing = batch.len();
        batch
    }

    /// How large the journal's file is, in bytes.
    pub fn note_journal_size(&mut self, bytes: u64) {
        self.journal_bytes = bytes;
    }

    /// The last batch is kept: whether all is.
    pub fn written(&mut self) -> bool {
        self.writing = 0;
        if let Health::Bad(_) = std::mem::replace(&mut self.journal, Health::Good) {
            self.effects.lines.push(Line::JournalWritten);
        }
        !self.is_touched()
    }

    /// The last batch is not kept, and perhaps nothing that was before it.
    pub fn not_written(&mut self, batch: Batch, error: String, lost: bool) {
        self.writing = 0;
        if lost {
            self.touch_all();
        } else {
            let Batch { words, claims, periods, entrypoints, draining } = batch;
            self.leases.touch(words.into_keys());
            self.leases.touch_periods(periods.into_keys());
            self.entrypoints.touched().extend(entrypoints.into_keys());
            self.directory.claims.touch(claims.into_keys());
            if draining.is_some() {
                self.drain.touch();
            }
        }
        if !matches!(self.journal, Health::Bad(_)) {
            self.effects.lines.push(Line::JournalNotWritten { error: error.clone() });
        }
        self.counts.journal_errors += 1;
        self.journal = Health::Bad(error);
    }

    /// Counts everything as changed.
    fn touch_all(&mut self) {
        self.leases.touch_all();
        self.entrypoints.touch_all();
        self.directory.claims.touch_all();
        self.drain.touch();
    }

    /// All that changed, as it is now.
    fn take_changed(&mut self) -> Batch {
        self.told_touched = false;
        let ids = self.leases.take_touched();
        let keys = self.directory.claims.take_touched();
        let entrypoints = std::mem::take(self.entrypoints.touched());
        Batch {
            words: ids.into_iter().map(|id| (id.clone(), self.leases.word(&id))).collect(),
            claims: keys.into_iter().map(|key| (key.clone(), self.directory.claims.kept(&key))).collect(),
            periods: self.leases.take_periods(),
            entrypoints: entrypoints
                .into_iter()
                .map(|key| (key.clone(), self.entrypoints.word(&key)))
                .collect(),
            draining: self.drain.take_touched(),
        }
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
