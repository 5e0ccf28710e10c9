//! The new process's side: the agent that we take over from.

use std::io;
use std::path::Path;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{FAILED, GO, MAX_SNAPSHOT, PATIENCE, SERVING};
use crate::control::{Answer, Request};
use crate::listeners::{Inherited, hold, pass};
use gossd_core::record::AgentName;

/// An agent that hands over.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// Its journal, as [`Journal::id`](crate::journal::Journal::id) tells it.
    pub journal: Option<(u64, u64)>,
}

/// Why nothing can be taken over. The running agent goes on.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// It says why.
    #[error("the agent that runs does not hand over: {0}")]
    Refused(String),
    /// It ended meanwhile, or is stuck.
    #[error("the agent that runs does not hand over: {0}")]
    Gone(#[from] io::Error),
}

impl Predecessor {
    /// The agent of this name that runs at that control socket, and its sockets; none if nobody listens there.
    pub async fn meet(path: &Path, name: &AgentName) -> Result<Option<(Self, Inherited)>, NotGiven> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let request = Request::TakeOver { name: name.to_string(), version: env!("CARGO_PKG_VERSION").into() };
        let request = serde_json::to_string(&request).map_err(io::Error::other)?;
        let (line, sockets) = timeout(PATIENCE, async {
            pass::send(&stream, &request, &[]).await?;
            pass::receive(&stream).await
        })
        .await
        .map_err(io::Error::from)??;
        let Some((journal, roles)) = line.strip_prefix("sockets ").and_then(|rest| rest.split_once(' '))
        else {
            let answer: Result<Answer, _> = serde_json::from_str(&line);
            return Err(NotGiven::Refused(answer.map_or(line, |answer| answer.text)));
        };
        let sockets = hold::named(roles, sockets).ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
        let number = |text: &str| text.parse().ok();
        let journal = journal.split_once(':').and_then(|(device, inode)| number(device).zip(number(inode)));
        Ok(Some((Self { stream, journal }, Inherited::kept(sockets))))
    }

    /// Makes it stop, and gives what it held.
    pub async fn stop(&mut self) -> Result<Vec<u8>, NotGiven> {
        let given = async {
            pass::send(&self.stream, GO, &[]).await?;
            let len = self.stream.read_u64().await?;
            if len > MAX_SNAPSHOT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "more than any agent holds"));
            }
            let mut snapshot = Vec::new();
            (&mut self.stream).take(len).read_to_end(&mut snapshot).await?;
            if snapshot.len() as u64 == len { Ok(snapshot) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        };
        Ok(timeout(PATIENCE, given).await.map_err(io::Error::from)??)
    }

    /// Lets it end: we serve.
    pub async fn release(self) -> io::Result<()> {
        timeout(PATIENCE, pass::send(&self.stream, SERVING, &[])).await?
    }

    /// Lets it go on, and tells it why.
    pub async fn give_up(self, why: &str) {
        let line = format!("{FAILED}{}", why.replace('\n', " "));
        let line: String = line.chars().take(4_000).collect();
        // Without it, it goes on as well.
        let _ = timeout(PATIENCE, pass::send(&self.stream, &line, &[])).await;
    }
}
