//! The running agent's side: a process that wants to take over from us.

use std::io;
use std::os::fd::BorrowedFd;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{FAILED, GO, PATIENCE, SERVING};
use crate::listeners::{Handles, pass};

/// A process at the other end of our control socket that wants to take over.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    /// Its program's version.
    pub version: String,
}

/// Why a successor did not take over.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It says why itself.
    #[error("{0}")]
    Said(String),
    /// It is gone, or says nothing.
    #[error("it ended, or said nothing for too long: {0}")]
    Gone(#[from] io::Error),
}

impl Successor {
    /// Whoever asked on this connection.
    pub fn new(stream: UnixStream, version: String) -> Self {
        Self { stream, version }
    }

    /// Gives it our sockets, and waits until it is ready to use them. We go on serving meanwhile.
    pub async fn prepare(&mut self, handles: &Handles, journal: Option<(u64, u64)>) -> Result<(), NotTaken> {
        let (roles, sockets): (Vec<_>, Vec<BorrowedFd<'_>>) =
            handles.sockets().map(|(role, socket)| (role.as_str(), socket)).unzip();
        let journal = journal.map_or("-".into(), |(device, inode)| format!("{device}:{inode}"));
        let line = format!("sockets {journal} {}", roles.join(" "));
        timeout(PATIENCE, pass::send(&self.stream, &line, &sockets)).await.map_err(io::Error::from)??;
        self.hear(GO).await
    }

    /// Gives it all that we held, and waits until it serves. We have stopped.
    pub async fn hand_over(&mut self, snapshot: &[u8]) -> Result<(), NotTaken> {
        let given = async {
            self.stream.write_u64(snapshot.len() as u64).await?;
            self.stream.write_all(snapshot).await
        };
        timeout(PATIENCE, given).await.map_err(io::Error::from)??;
        self.hear(SERVING).await
    }

    async fn hear(&self, word: &str) -> Result<(), NotTaken> {
        let (line, _) = timeout(PATIENCE, pass::receive(&self.stream)).await.map_err(io::Error::from)??;
        if line == word {
            return Ok(());
        }
        Err(NotTaken::Said(line.strip_prefix(FAILED).unwrap_or(&line).to_owned()))
    }
}
