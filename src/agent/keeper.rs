//! Brings what changed to the journal, behind the replies, and goes on in memory when the journal cannot.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::effects::Line;
use super::{Agent, State};
use crate::journal::{Batch, Journal, WriteError, snapshot};
use gossd_core::label::Label;

/// Changes of this long share a commit: what an agent loses when it is killed is 50 ms at most, with the disk's own time.
const COALESCE: Duration = Duration::from_millis(35);
/// How long to wait with a journal that could not be written.
const RETRY: Duration = Duration::from_secs(1);
/// How long a stopping agent waits for its journal.
const FLUSH: Duration = Duration::from_millis(500);

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

impl Agent {
    /// Says that a journal keeps what changes from now on; [`Self::keep`] has to be run.
    pub fn use_journal(&self) {
        self.lock().journal = Health::Good;
    }

    /// Writes everything again: the journal may lack some of it, and have what is not known here, with these ids.
    pub fn rewrite_journal(&self, others: Vec<Label>) {
        self.with(|state, _| {
            state.touch_all();
            state.leases.touch(others);
        });
    }

    /// All that a journal would keep, for a process that takes over.
    pub fn snapshot(&self) -> Vec<u8> {
        let all = self.with(|state, _| {
            state.touch_all();
            state.take_batch()
        });
        snapshot::write(self.owner().generation, &all)
    }

    /// Says why there is no journal although one was wanted.
    pub fn miss_journal(&self, why: String) {
        self.lock().journal = Health::Absent(Some(why));
    }

    /// Whether a journal keeps what changes, or is to do so once it can.
    pub fn has_journal(&self) -> bool {
        !matches!(self.lock().journal, Health::Absent(_))
    }

    /// Writes what changes to the journal, for ever.
    pub async fn keep(self, journal: Journal) -> anyhow::Result<()> {
        let mut journal = journal;
        loop {
            let taken = self.next_batch().await;
            let (batch, written);
            (journal, batch, written) = spawn_blocking(move || {
                let written = journal.write(&taken);
                (journal, taken, written)
            })
            .await
            .context("the journal's writer ended")?;
            match written {
                Ok(()) => {
                    self.lock().journal_bytes = journal.bytes();
                    self.written();
                }
                Err(error) => {
                    self.not_written(batch, &error);
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits for something to be kept. [`Self::written`] has to be told when it is.
    pub async fn next_batch(&self) -> Batch {
        loop {
            self.shared.touched.notified().await;
            sleep(COALESCE).await;
            let taken = self.take_batch();
            if !taken.is_empty() {
                return taken;
            }
        }
    }

    /// Waits until the journal has everything, or for a moment. Without one, there is nothing to wait for.
    pub async fn flush(&self) {
        if !self.has_journal() {
            return;
        }
        let mut kept = self.shared.kept.subscribe();
        let _ = tokio::time::timeout(FLUSH, kept.wait_for(|kept| *kept)).await;
    }

    pub(super) fn take_batch(&self) -> Batch {
        self.with(|state, _| {
            let batch = state.take_batch();
            state.writing = batch.len();
            batch
        })
    }

    /// The last batch is kept.
    pub fn written(&self) {
        if self.with(|state, _| state.written()) {
            self.shared.kept.send_replace(true);
        }
    }

    pub(super) fn not_written(&self, batch: Batch, error: &WriteError) {
        let lost = matches!(error, WriteError::StartedAfresh { .. });
        self.with(|state, _| state.not_written(batch, error.to_string(), lost));
        self.shared.touched.notify_one();
    }
}

impl State {
    /// The last batch is kept: whether all is.
    fn written(&mut self) -> bool {
        self.writing = 0;
        if let Health::Bad(_) = std::mem::replace(&mut self.journal, Health::Good) {
            self.effects.lines.push(Line::JournalWritten);
        }
        !self.is_touched()
    }

    /// The last batch is not kept, and perhaps nothing that was before it.
    fn not_written(&mut self, batch: Batch, error: String, lost: bool) {
        self.writing = 0;
        if lost {
            self.touch_all();
        } else {
            let Batch { words, rules, periods, entrypoints, draining } = batch;
            self.leases.touch(words.into_keys());
            self.leases.touch_periods(periods.into_keys());
            self.entrypoints.touched().extend(entrypoints.into_keys());
            self.claims.touch(rules.into_keys());
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
        self.claims.touch_all();
        self.drain.touch();
    }

    /// All that changed, as it is now.
    fn take_batch(&mut self) -> Batch {
        self.told_touched = false;
        let ids = self.leases.take_touched();
        let keys = self.claims.take_touched();
        let entrypoints = std::mem::take(self.entrypoints.touched());
        Batch {
            words: ids.into_iter().map(|id| (id.clone(), self.leases.word(&id))).collect(),
            rules: keys.into_iter().map(|key| (key.clone(), self.claims.word(&key))).collect(),
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
        self.claims.take_touched();
        self.entrypoints.touched().clear();
        self.drain.take_touched();
    }
}
