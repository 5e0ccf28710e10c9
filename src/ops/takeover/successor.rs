//! The running agent's side: another process takes over from this one.

use std::io;
use std::os::fd::BorrowedFd;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{FAILED, GO, PROTOCOL, SERVING, in_time};
use crate::listeners::pass;
use crate::ops::Ops;
use crate::ops::connections::ImpatientStream;
use crate::ops::routes::{Answered, Failure, Params, Shared};
use crate::ops::server::Then;

/// Who asks to take over.
#[derive(Debug, Deserialize)]
pub(in crate::ops) struct Who {
    /// The name of its agent: only an agent's own successor gets its sockets.
    name: String,
    /// Version of its program.
    version: String,
}

pub(in crate::ops) async fn take_over(
    State(ops): Shared,
    Params(Who { name, version }): Params<Who>,
    Extension(then): Extension<Then>,
    upgrade: Option<Extension<OnUpgrade>>,
) -> Answered {
    let own = &ops.agent.owner().name;
    if name != own.as_str() {
        return Err(Failure(StatusCode::CONFLICT, format!("its name is {own}, not {name}")));
    }
    let Some(Extension(upgrade)) = upgrade else {
        return Err(Failure(StatusCode::UPGRADE_REQUIRED, format!("the request has no Upgrade: {PROTOCOL}")));
    };
    let _is_set = then.try_send(Box::pin(async move { ops.prepare(upgrade, version).await }));
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

impl Ops {
    /// Resolves when a process has our sockets and waits for us to stop.
    pub async fn succeeded(&self) -> Successor {
        match self.successors.1.lock().await.recv().await {
            Some(successor) => successor,
            // The sender is beside it.
            None => std::future::pending().await,
        }
    }

    /// Lets a successor get ready, and then the agent stop for it. The failure of one that does not get so far is logged,
    /// and changes nothing.
    async fn prepare(&self, upgrade: OnUpgrade, version: String) {
        tracing::info!(version, "another process is about to take over");
        match self.give_sockets(upgrade, version).await {
            // A second one at the same time is closed, and logs that itself.
            Ok(successor) => drop(self.successors.0.try_send(successor)),
            Err(error) => tracing::warn!(
                "the process that was to take over did not start, so this agent goes on: {error}"
            ),
        }
    }

    /// Gives our sockets to whoever asked on this connection, and waits until they are in use. We go on serving meanwhile.
    async fn give_sockets(&self, upgrade: OnUpgrade, version: String) -> io::Result<Successor> {
        let (roles, sockets): (Vec<_>, Vec<BorrowedFd<'_>>) =
            self.outside.about.handles.sockets().map(|(role, socket)| (role.as_str(), socket)).unzip();
        let journal =
            self.outside.about.journal.map_or("-".into(), |(device, inode)| format!("{device}:{inode}"));
        let line = format!("sockets {journal} {}", roles.join(" "));
        let successor = Successor { stream: in_time(met(upgrade)).await?, version };
        in_time(pass::send(&successor.stream, &line, &sockets)).await?;
        successor.expect(GO).await?;
        Ok(successor)
    }
}

/// A process at the other end of our control socket that wants to take over.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    /// Version of its program.
    pub version: String,
}

/// An error is why the process does not take over: its own reason, or that it ended or was silent for too long.
impl Successor {
    /// Gives it all that we held, and waits until it serves. We have stopped.
    pub async fn hand_over(&mut self, snapshot: &[u8]) -> io::Result<()> {
        in_time(async {
            self.stream.write_u64(snapshot.len() as u64).await?;
            self.stream.write_all(snapshot).await
        })
        .await?;
        self.expect(SERVING).await
    }

    async fn expect(&self, expected: &str) -> io::Result<()> {
        let (line, _) = in_time(pass::receive(&self.stream)).await?;
        if line == expected {
            return Ok(());
        }
        Err(io::Error::other(line.strip_prefix(FAILED).unwrap_or(&line).to_owned()))
    }
}

/// The connection, once the successor reads it without HTTP.
async fn met(upgrade: OnUpgrade) -> io::Result<UnixStream> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<ImpatientStream<UnixStream>>>() else {
        return Err(io::Error::other("not the control socket"));
    };
    let mut stream = io.into_inner().into_inner();
    // The HTTP server may have read the byte already.
    if read_buf.is_empty() {
        stream.read_u8().await?;
    }
    Ok(stream)
}
