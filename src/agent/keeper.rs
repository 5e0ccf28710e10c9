//! Writes changes to the journal after the calls were answered, and continues in memory while the journal cannot be
//! written.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Agent;
use crate::journal::thread::{JournalThread, Written};
use crate::journal::{WriteError, snapshot};
use crate::sentence::sentence;
use gossd_core::agent::{Batch, State};
use gossd_core::label::Label;

/// Changes within this time share a commit. A change waits at most for the commit that is under way, for this, and for its own
/// commit: a killed agent loses no more.
const COALESCE: Duration = Duration::from_millis(35);
/// How long to wait before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file is looked at while there is nothing to write: it may be gone.
const LOOK: Duration = Duration::from_secs(1);
/// A disk that takes longer than this for a commit hangs.
const HANGS: Duration = Duration::from_secs(2);
/// How long an agent waits for its journal when it stops. All in all, a stop takes at most five seconds.
pub(crate) const FLUSH: Duration = Duration::from_secs(2);
/// The same when it hands over, or an operator waits: what is not on disk is handed over, or is told.
pub(crate) const FLUSH_BRIEFLY: Duration = Duration::from_millis(500);

impl Agent {
    /// From now on, changes are collected for a journal; [`Self::keep`] has to run.
    pub fn use_journal(&self) {
        self.with(|state, _| state.use_journal());
    }

    /// Writes everything again. The journal may lack some entries, and may contain these ids, which are unknown here.
    pub fn rewrite_journal(&self, others: Vec<Label>) {
        self.with(|state, _| state.rewrite_journal(others));
    }

    /// Everything that a journal would contain, for a process that takes over.
    pub fn snapshot(&self) -> Vec<u8> {
        let (all, unreconciled) = self.with(|state, now| (state.all_kept(now), state.unreconciled()));
        snapshot::write(self.owner().generation, &all, unreconciled)
    }

    /// Notes why there is no journal although one is configured.
    pub fn miss_journal(&self, why: String) {
        self.with(|state, _| state.miss_journal(why));
    }

    /// Whether changes are collected for a journal, even if it cannot be written now.
    pub fn has_journal(&self) -> bool {
        self.lock().has_journal()
    }

    /// Writes changes to the journal, for ever.
    pub(crate) async fn keep(self, journal: JournalThread) -> anyhow::Result<()> {
        loop {
            let batch = self.look_until_changed(&journal).await?;
            self.with(State::commit_begins);
            let written = self.told_if_it_hangs(journal.write(batch)).await?;
            self.with(State::commit_ends);
            let Written { batch, result, bytes } = written;
            self.with(|state, _| state.note_journal_size(bytes));
            match result {
                Ok(()) => self.written(),
                Err(error) => {
                    self.not_written(batch, &error);
                    // A fresh file is there; another attempt may find a disk that works.
                    if matches!(error, WriteError::Failed { .. }) {
                        sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// Waits for changes, and meanwhile looks for the file.
    async fn look_until_changed(&self, journal: &JournalThread) -> anyhow::Result<Batch> {
        let mut next = pin!(self.next_batch());
        loop {
            if let Ok(batch) = timeout(LOOK, &mut next).await {
                return Ok(batch);
            }
            if let Err(error) = self.told_if_it_hangs(journal.look()).await? {
                self.not_written(Batch::default(), &error);
            }
        }
    }

    /// Waits for what the journal's thread answers, and notes it if that takes long.
    async fn told_if_it_hangs<T>(&self, mut answer: oneshot::Receiver<T>) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            if let Ok(answer) = timeout(HANGS, &mut answer).await {
                return answer.context("the journal's thread ended");
            }
            let seconds = begun.elapsed().as_secs();
            let why = sentence!("a write has not ended for {seconds} s: the disk hangs or is very slow");
            self.with(|state, _| state.journal_hangs(why.to_string()));
        }
    }

    /// Waits for changes to write. After the write, call [`Self::written`].
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

    /// Waits until the journal has everything, for a limited time. Returns how many changes it does not have. Without a journal,
    /// returns at once.
    pub async fn flush(&self, at_most: Duration) -> usize {
        if !self.has_journal() {
            return 0;
        }
        // Of a gost that has just died, too.
        while self.in_turn(State::carry_out) {}
        let mut kept = self.shared.kept.subscribe();
        match timeout(at_most, kept.wait_for(|kept| *kept)).await {
            Ok(_) => 0,
            Err(_) => self.view().journal.pending,
        }
    }

    pub(super) fn take_batch(&self) -> Batch {
        let mut batch = Batch::default();
        while self.in_turn(|state, _| state.fill(&mut batch)) {}
        batch
    }

    /// The last batch is on disk.
    pub fn written(&self) {
        if self.with(|state, _| state.written()) {
            self.shared.kept.send_replace(true);
        }
    }

    pub(super) fn not_written(&self, batch: Batch, error: &WriteError) {
        let lost = matches!(error, WriteError::StartedAfresh { .. });
        self.with(|state, _| state.not_written(batch, error.to_string(), lost));
    }
}
