//! Brings what changed to the journal, behind the replies, and goes on in memory when the journal cannot.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Agent;
use crate::journal::{Batch, Journal, WriteError, snapshot};

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

    /// Writes everything again: the journal may lack some of it.
    pub fn rewrite_journal(&self) {
        let mut state = self.lock();
        state.leases.touch_all();
        state.claims.touch_all();
        drop(state);
        self.note_touched();
    }

    /// All that a journal would keep, for a process that takes over.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.leases.touch_all();
        state.claims.touch_all();
        drop(state);
        snapshot::write(self.owner().generation, &self.take_batch())
    }

    /// Says why there is no journal although one was wanted.
    pub fn miss_journal(&self, why: String) {
        self.lock().journal = Health::Absent(Some(why));
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

    /// Waits until the journal has everything, or for a moment; not at all without a journal.
    pub async fn flush(&self) {
        if matches!(self.lock().journal, Health::Absent(_)) {
            return;
        }
        let mut kept = self.shared.kept.subscribe();
        let _ = tokio::time::timeout(FLUSH, kept.wait_for(|kept| *kept)).await;
    }

    pub(super) fn note_touched(&self) {
        self.shared.kept.send_if_modified(|kept| std::mem::replace(kept, false));
        self.shared.touched.notify_one();
    }

    pub(super) fn take_batch(&self) -> Batch {
        let mut state = self.lock();
        let ids = state.leases.take_touched();
        let keys = state.claims.take_touched();
        state.writing = ids.len() + keys.len();
        Batch {
            words: ids.into_iter().map(|id| (id.clone(), state.leases.word(&id))).collect(),
            rules: keys.into_iter().map(|key| (key.clone(), state.claims.word(&key))).collect(),
        }
    }

    /// The last batch is kept.
    pub fn written(&self) {
        let mut state = self.lock();
        state.writing = 0;
        if let Health::Bad(_) = std::mem::replace(&mut state.journal, Health::Good) {
            tracing::info!("the journal is written again");
        }
        let kept = !state.is_touched();
        drop(state);
        if kept {
            self.shared.kept.send_replace(true);
        } else {
            self.shared.touched.notify_one();
        }
    }

    pub(super) fn not_written(&self, batch: Batch, error: &WriteError) {
        let mut state = self.lock();
        state.writing = 0;
        if matches!(error, WriteError::StartedAfresh { .. }) {
            state.leases.touch_all();
            state.claims.touch_all();
        } else {
            state.leases.touch(batch.words.into_keys());
            state.claims.touch(batch.rules.into_keys());
        }
        if !matches!(state.journal, Health::Bad(_)) {
            tracing::error!(%error, "cannot write the journal; going on in memory, and trying again");
        }
        state.counts.journal_errors += 1;
        state.journal = Health::Bad(error.to_string());
        drop(state);
        self.shared.touched.notify_one();
    }
}
