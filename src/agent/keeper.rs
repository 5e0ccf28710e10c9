//! Brings what changed to the journal, behind the replies, and goes on in memory when the journal cannot.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Agent;
use crate::journal::{Journal, WriteError, snapshot};
use gossd_core::agent::Batch;
use gossd_core::label::Label;

/// Changes of this long share a commit: what an agent loses when it is killed is 50 ms at most, with the disk's own time.
const COALESCE: Duration = Duration::from_millis(35);
/// How long to wait with a journal that could not be written.
const RETRY: Duration = Duration::from_secs(1);
/// How long a stopping agent waits for its journal.
const FLUSH: Duration = Duration::from_millis(500);

impl Agent {
    /// Says that a journal keeps what changes from now on; [`Self::keep`] has to be run.
    pub fn use_journal(&self) {
        self.with(|state, _| state.use_journal());
    }

    /// Writes everything again: the journal may lack some of it, and have what is not known here, with these ids.
    pub fn rewrite_journal(&self, others: Vec<Label>) {
        self.with(|state, _| state.rewrite_journal(others));
    }

    /// All that a journal would keep, for a process that takes over.
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::write(self.owner().generation, &self.with(|state, _| state.all_kept()))
    }

    /// Says why there is no journal although one was wanted.
    pub fn miss_journal(&self, why: String) {
        self.with(|state, _| state.miss_journal(why));
    }

    /// Whether a journal keeps what changes, or is to do so once it can.
    pub fn has_journal(&self) -> bool {
        self.lock().has_journal()
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
                    self.with(|state, _| state.note_journal_size(journal.bytes()));
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
        self.with(|state, _| state.take_batch())
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
    }
}
