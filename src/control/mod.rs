//! The agent's control socket: what `gossd leave`, `gossd drain` and `gossd keys` say to a running agent, and where a
//! successor introduces itself. A Unix socket that only its owner can open; one JSON line each way.

mod keys;
pub(crate) mod takeover;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub(crate) use self::keys::{KeyRequest, Outcome, Secret};

use crate::agent::Agent;
use crate::control::takeover::successor::Successor;
use crate::gossip::Cluster;
use crate::listeners::Handles;
use gossd_core::slot::Status;

/// Longest request.
const MAX_LINE: u64 = 4_096;
/// Longest answer: the keys of a thousand agents.
const MAX_ANSWER: u64 = 1 << 20;
/// Clients at a time: an operator, a health check, and some. Nobody else can open the socket.
const MAX_CLIENTS: usize = 16;
/// A client that says nothing for this long is left.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a goodbye waits for the peers' acks.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a client is served at most: the time to say something, and the longest that any request takes.
const SERVED: Duration = PATIENCE.saturating_add(keys::WAIT).saturating_add(Duration::from_secs(1));

/// Only the agent's own user may open the socket.
pub(crate) const MODE: u32 = 0o600;

/// What can be asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// Say goodbye and stop.
    Leave,
    /// Hide our records at the peers.
    Drain,
    /// Show them again.
    Undrain,
    /// Say how it goes.
    Health,
    /// Change the keys, or say who has which.
    Keys(KeyRequest),
    /// Hand everything over to whoever asks; [`crate::control::takeover`] goes on from there.
    TakeOver {
        /// Whose name it has: only an agent's own successor gets its sockets.
        name: String,
        /// Its program's version.
        version: String,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether it was done.
    pub done: bool,
    /// What was done, or why not.
    pub text: String,
    /// Who has which keys, if that was the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Outcome>,
}

impl Answer {
    fn done(text: String) -> Self {
        Self { done: true, text, keys: None }
    }
}

/// The serving side.
#[derive(Clone)]
pub struct Control {
    agent: Agent,
    cluster: Cluster,
    left: Arc<Notify>,
    handles: Arc<Handles>,
    journal: Option<(u64, u64)>,
    successors: mpsc::Sender<Successor>,
    ready: Arc<Mutex<mpsc::Receiver<Successor>>>,
}

impl Control {
    /// Controls this agent, which has these sockets, and the journal with this [`Journal::id`](crate::journal::Journal::id).
    pub fn new(agent: Agent, cluster: Cluster, handles: Arc<Handles>, journal: Option<(u64, u64)>) -> Self {
        let (successors, ready) = mpsc::channel(1);
        Self {
            agent,
            cluster,
            left: Arc::default(),
            handles,
            journal,
            successors,
            ready: Arc::new(Mutex::new(ready)),
        }
    }

    /// Resolves when a process has our sockets and waits for us to stop.
    pub async fn succeeded(&self) -> Successor {
        match self.ready.lock().await.recv().await {
            Some(successor) => successor,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Resolves when somebody asked the agent to leave, and it has.
    pub async fn left(&self) {
        self.left.notified().await;
    }

    /// Says goodbye to the peers: they hide our records at once. True if all that are heard took it.
    pub async fn say_goodbye(&self) -> bool {
        self.tell(Status::Left).await
    }

    /// Serves the socket for ever.
    pub async fn serve(self, listener: UnixListener) -> anyhow::Result<()> {
        let mut clients = JoinSet::new();
        loop {
            while clients.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) if clients.len() < MAX_CLIENTS => {
                    let this = self.clone();
                    clients.spawn(async move {
                        if let Ok(Ok(Some(successor))) = timeout(SERVED, this.answer(stream)).await {
                            this.prepare(successor).await;
                        }
                    });
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Lets a successor get ready, and then the agent stop for it. One that fails before is not noticed but in the log.
    async fn prepare(&self, mut successor: Successor) {
        tracing::info!(version = successor.version, "another process is about to take over");
        match successor.prepare(&self.handles, self.journal).await {
            // A second one at the same time is closed, and says so itself.
            Ok(()) => drop(self.successors.try_send(successor)),
            Err(error) => tracing::warn!(
                "the process that was to take over did not start, so this agent goes on: {error}"
            ),
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<Option<Successor>> {
        let mut line = Zeroizing::new(String::new());
        let (reader, _) = stream.split();
        let mut reader = BufReader::new(reader.take(MAX_LINE));
        timeout(PATIENCE, reader.read_line(&mut line)).await??;
        let request: Result<Request, _> = serde_json::from_str(&line);
        if let Ok(Request::TakeOver { name, version }) = &request
            && name == self.agent.owner().name.as_str()
        {
            return Ok(Some(Successor::new(stream, version.clone())));
        }
        let leaves = matches!(request, Ok(Request::Leave));
        let answer = match request {
            Ok(request) => self.perform(request).await,
            Err(error) => Answer { done: false, text: format!("not a request: {error}"), keys: None },
        };
        let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        stream.shutdown().await?;
        if leaves {
            self.left.notify_one();
        }
        Ok(None)
    }

    async fn perform(&self, request: Request) -> Answer {
        let (status, text) = match request {
            Request::Health => return self.health(),
            Request::Keys(request) => return self.answer_keys(request).await,
            Request::TakeOver { name, .. } => {
                let text = format!("its name is {}, not {name}", self.agent.owner().name);
                return Answer { done: false, text, keys: None };
            }
            Request::Leave => (Status::Left, "left: peers have hidden our records, and the agent stops"),
            Request::Drain => {
                (Status::Draining, "draining: peers have hidden our records; this host still uses them")
            }
            Request::Undrain => (Status::Ready, "not draining: peers list our records again"),
        };
        let told = self.tell(status).await;
        let is_lost = !self.agent.has_journal() || self.agent.journal_problem().is_some();
        let text = if status == Status::Draining && is_lost {
            format!("{text}; it is in no journal, so a restart undoes it")
        } else {
            text.to_owned()
        };
        let text = if told { text } else { format!("{text} (not every peer has acknowledged it yet)") };
        Answer::done(text)
    }

    fn health(&self) -> Answer {
        let counts = self.agent.counts();
        let journal = self.agent.journal_problem();
        let journal = journal.map(|problem| format!("; the journal: {problem}")).unwrap_or_default();
        let records = counted(counts.records, "record", "records");
        let peers = counted(self.cluster.peers(), "peer is", "peers are");
        let own = counts.own_records;
        let text = format!("serving {records}, {own} of them registered here; {peers} heard{journal}");
        Answer::done(text)
    }

    async fn tell(&self, status: Status) -> bool {
        let told = async {
            self.agent.say(status).await;
            self.cluster.settled().await;
        };
        timeout(GOODBYE, told).await.is_ok()
    }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Asks the agent behind a control socket.
pub(crate) async fn ask(path: &Path, request: Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path).await?;
    let mut line = Zeroizing::new(serde_json::to_vec(&request).map_err(io::Error::other)?);
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = String::new();
    timeout(SERVED, BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer)).await??;
    serde_json::from_str(&answer).map_err(io::Error::other)
}
