//! A journal on a thread of its own, so that a disk that hangs holds up nothing else: no task of the agent, no thread that the
//! runtime waits for, and no end of the process. Every call of the file system for the journal is made there, the last ones, which
//! close the file, included.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::{oneshot, watch};

use super::{Journal, WriteError};
use gossd_core::agent::Batch;

/// What the thread is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Write a batch, and give it back.
    Write(Batch, oneshot::Sender<Written>),
    /// Look whether the file is still the one that it writes to.
    Look(oneshot::Sender<Result<(), WriteError>>),
}

/// What came of a batch.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) batch: Batch,
    pub(crate) result: Result<(), WriteError>,
    /// Of the file, afterwards.
    pub(crate) bytes: u64,
}

/// A journal's thread. It ends, and closes the journal, when this is dropped and its job is done.
#[derive(Debug)]
pub(crate) struct JournalThread {
    jobs: mpsc::Sender<Job>,
}

/// Tells when the journal is closed, so that another process can open it.
pub(crate) type JournalClosed = watch::Receiver<()>;

impl JournalThread {
    /// Starts the thread.
    pub(crate) fn start(journal: Journal) -> io::Result<(Self, JournalClosed)> {
        let (thread, jobs) = Self::without_journal();
        let (closing, closed) = watch::channel(());
        let work = move || {
            work(journal, &jobs);
            drop(closing);
        };
        thread::Builder::new().name("journal".into()).spawn(work)?;
        Ok((thread, closed))
    }

    /// The handle of a thread, and what the thread would be asked: tests are the disk themselves.
    pub(crate) fn without_journal() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, asked) = mpsc::channel();
        (Self { jobs }, asked)
    }

    /// Asks for a write; the answer is an error only if the thread has ended, which only a panic makes it.
    pub(crate) fn write(&self, batch: Batch) -> oneshot::Receiver<Written> {
        let (done, written) = oneshot::channel();
        let _ = self.jobs.send(Job::Write(batch, done));
        written
    }

    /// Asks for a look.
    pub(crate) fn look(&self) -> oneshot::Receiver<Result<(), WriteError>> {
        let (done, looked) = oneshot::channel();
        let _ = self.jobs.send(Job::Look(done));
        looked
    }
}

fn work(mut journal: Journal, jobs: &mpsc::Receiver<Job>) {
    // Whoever asked may have ended meanwhile.
    for job in jobs {
        match job {
            Job::Write(batch, done) => {
                let result = journal.write(&batch);
                let _ = done.send(Written { batch, result, bytes: journal.bytes() });
                journal.compact();
            }
            Job::Look(done) => drop(done.send(journal.look())),
        }
    }
}
