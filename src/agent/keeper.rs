//! Writes changes to the journal after the calls were answered, and continues in memory while the journal cannot be
//! written.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Agent;
use crate::journal::{Journal, WriteError, snapshot};
use gossd_core::agent::Batch;
use gossd_core::label::Label;

/// Changes within this time share a commit. With the disk's own time, an agent that is killed loses at most the last 50
/// ms.
const COALESCE: Duration = Duration::from_millis(35);
/// How long to wait before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a stopping agent waits for its journal.
const FLUSH: Duration = Duration::from_millis(500);

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
        snapshot::write(self.owner().generation, &self.with(|state, _| state.all_kept()))
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

    /// Waits until the journal has everything, for a limited time. Without a journal, returns at once.
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
