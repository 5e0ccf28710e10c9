//! The new process's side: it takes over from an agent that runs.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{FAILED, GO, MAX_SNAPSHOT, MEET, SERVING, in_time};
use crate::listeners::{Inherited, hold, pass};

/// An agent that hands over.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// The [`Journal::id`](crate::journal::Journal::id) of its journal.
    pub journal: Option<(u64, u64)>,
}

/// An error means that the agent ended meanwhile, is stuck, or is none. If it runs, it goes on.
impl Predecessor {
    /// The agent at the other end of a connection that changed to [`PROTOCOL`](super::PROTOCOL), and its sockets.
    pub async fn meet(mut stream: UnixStream) -> io::Result<(Self, Inherited)> {
        let (line, sockets) = in_time(async {
            stream.write_u8(MEET).await?;
            pass::receive(&stream).await
        })
        .await?;
        let given = line.strip_prefix("sockets ").and_then(|rest| rest.split_once(' '));
        let given = given.and_then(|(journal, roles)| Some((journal, hold::named(roles, sockets)?)));
        let (journal, sockets) = given.ok_or(io::ErrorKind::InvalidData)?;
        let number = |text: &str| text.parse().ok();
        let journal = journal.split_once(':').and_then(|(device, inode)| number(device).zip(number(inode)));
        Ok((Self { stream, journal }, Inherited::kept(sockets)))
    }

    /// Makes it stop. What it held.
    pub async fn stop(&mut self) -> io::Result<Vec<u8>> {
        in_time(async {
            pass::send(&self.stream, GO, &[]).await?;
            let len = self.stream.read_u64().await?;
            if len > MAX_SNAPSHOT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "more than any agent holds"));
            }
            let mut snapshot = Vec::new();
            (&mut self.stream).take(len).read_to_end(&mut snapshot).await?;
            if snapshot.len() as u64 == len { Ok(snapshot) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
        .await
    }

    /// Lets it end: we serve.
    pub async fn release(self) -> io::Result<()> {
        in_time(pass::send(&self.stream, SERVING, &[])).await
    }

    /// Lets it go on, and sends it the reason.
    pub async fn give_up(self, why: &str) {
        let line = format!("{FAILED}{}", why.replace('\n', " "));
        let line: String = line.chars().take(4_000).collect();
        // Without the reason, it goes on as well.
        let _ = in_time(pass::send(&self.stream, &line, &[])).await;
    }
}
