//! `gossd hold`: keeps an agent's sockets while the agent is replaced, where there is no systemd. It is the process of
//! the container that owns the network, and does nothing else. The holder and the agent meet at an abstract Unix
//! socket. Such a socket belongs to the network namespace that both share, so they need no common folder. Each requires
//! that the other runs as its own user.
//!
//! The protocol is one line each way, with descriptors beside it. The answer to `give` is the roles of the kept
//! sockets, or `owned` while an agent uses them: two agents would take each other's connections. `keep ROLE...`
//! replaces the kept sockets. The agent's connection stays open for as long as the agent lives.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Inherited, Role, pass};
use gossd_core::record::AgentName;

/// How long the holder keeps the sockets of a lost agent. Then it closes them, because a port that refuses shows gost
/// sooner that nobody is there than a backlog that nobody empties.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(30);
/// How long the other side may take for a line.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a successor waits for the end of the agent that still uses the sockets.
const SUCCESSION: Duration = Duration::from_secs(2);
/// How often an agent looks for a holder, when the last one is gone.
const RETRY: Duration = Duration::from_secs(1);
/// Most clients at a time: the agent, its successor, and some more.
const MAX_CLIENTS: usize = 16;

/// First words of the holder's answers.
const GIVEN: &str = "given";
const OWNED: &str = "owned";

type Sockets = Vec<(Role, OwnedFd)>;

/// The process that holds the sockets.
#[derive(Debug)]
pub(crate) struct Holder {
    listener: UnixListener,
    held: Sockets,
    /// The client that uses the sockets, while it is connected.
    owner: Option<u64>,
    /// Successors that wait for the end of the owner.
    waiting: Vec<mpsc::Sender<Sockets>>,
    /// When to close the sockets, if no successor comes.
    expires: Option<Instant>,
}

enum ClientEvent {
    Give,
    Keep(u64, Sockets),
    Gone(u64),
}

struct QueuedEvent {
    event: ClientEvent,
    /// Channel for the answer.
    reply: mpsc::Sender<Sockets>,
}

impl Holder {
    /// Prepares to hold the sockets of the agent of this name, in this network namespace.
    pub(crate) fn bind(name: &AgentName) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&address(name)?)?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { listener, held: Vec::new(), owner: None, waiting: Vec::new(), expires: None })
    }

    pub(crate) async fn serve(mut self) -> anyhow::Result<()> {
        let (messages, mut received) = mpsc::channel::<QueuedEvent>(MAX_CLIENTS);
        let mut clients = JoinSet::new();
        let mut last = 0;
        loop {
            while clients.try_join_next().is_some() {}
            let expires = self.expires;
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if clients.len() < MAX_CLIENTS && is_our_users(&stream) => {
                        last += 1;
                        clients.spawn(attend(stream, last, messages.clone()));
                    }
                    Ok(_) => tracing::warn!("refused a client of `gossd hold`: it runs as another user, or there are too many"),
                    Err(_) => sleep(Duration::from_millis(50)).await,
                },
                Some(message) = received.recv() => self.handle(message),
                () = sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => {
                    self.expires = None;
                    self.held.clear();
                    tracing::warn!(seconds = KEPT_FOR.as_secs(), "no agent came back: closed its sockets, so its ports refuse now");
                }
            }
        }
    }

    fn handle(&mut self, QueuedEvent { event, reply }: QueuedEvent) {
        // The client may have gone meanwhile. The channel has room for the one answer.
        match event {
            ClientEvent::Give if self.owner.is_some() => self.wait(reply),
            ClientEvent::Give => drop(reply.try_send(clones(&self.held))),
            ClientEvent::Keep(client, sockets) => {
                tracing::info!(sockets = sockets.len(), "keeping the sockets of an agent");
                (self.held, self.owner, self.expires) = (sockets, Some(client), None);
                drop(reply.try_send(Vec::new()));
            }
            ClientEvent::Gone(client) if self.owner == Some(client) => {
                tracing::info!("the agent ended; keeping its sockets for the next one");
                (self.owner, self.expires) = (None, Some(Instant::now() + KEPT_FOR));
                for successor in self.waiting.drain(..) {
                    let _ = successor.try_send(clones(&self.held));
                }
            }
            ClientEvent::Gone(_) => {}
        }
    }

    fn wait(&mut self, successor: mpsc::Sender<Sockets>) {
        self.waiting.retain(|other| !other.is_closed());
        self.waiting.push(successor);
    }
}

async fn attend(stream: UnixStream, client: u64, messages: mpsc::Sender<QueuedEvent>) {
    let ask = async |event| {
        let (reply, mut replies) = mpsc::channel(1);
        let _ = messages.send(QueuedEvent { event, reply }).await;
        timeout(SUCCESSION, replies.recv()).await.ok().flatten()
    };
    while let Ok((line, sockets)) = pass::receive(&stream).await {
        let event = match line.strip_prefix("keep") {
            Some(roles) => match named(roles, sockets) {
                Some(sockets) => ClientEvent::Keep(client, sockets),
                None => break,
            },
            None if line == "give" => ClientEvent::Give,
            None => break,
        };
        let (word, given) = ask(event).await.map_or((OWNED, Vec::new()), |given| (GIVEN, given));
        if !matches!(timeout(PATIENCE, send(&stream, word, &given)).await, Ok(Ok(()))) {
            break;
        }
    }
    let (reply, _) = mpsc::channel(1);
    let _ = messages.send(QueuedEvent { event: ClientEvent::Gone(client), reply }).await;
}

/// The sockets that a holder in this network namespace keeps for the agent of this name; `AddrInUse` while a running
/// agent uses them.
pub(crate) async fn fetch(name: &AgentName) -> io::Result<Inherited> {
    let stream = connect(name)?;
    let given = async {
        pass::send(&stream, "give", &[]).await?;
        pass::receive(&stream).await
    };
    let (line, sockets) = timeout(PATIENCE, given).await??;
    if line == OWNED {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let sockets = line.strip_prefix(GIVEN).and_then(|roles| named(roles, sockets));
    Ok(Inherited::kept(sockets.ok_or(io::ErrorKind::InvalidData)?))
}

/// Gives these sockets to the holder for as long as this runs, and again to each new holder.
pub(crate) async fn keep(name: AgentName, sockets: Vec<(Role, OwnedFd)>) -> anyhow::Result<()> {
    let mut missing = false;
    loop {
        match keep_once(&name, &sockets, &mut missing).await {
            Ok(()) => tracing::warn!("the `gossd hold` that kept our sockets ended; looking for another"),
            Err(error) if !missing => tracing::warn!(
                %error,
                "no `gossd hold` of this name and user answers in this network namespace: while this agent is replaced, \
                 its ports refuse, and gost backs off"
            ),
            Err(_) => {}
        }
        missing = true;
        sleep(RETRY).await;
    }
}

/// Returns when the holder is gone.
async fn keep_once(name: &AgentName, sockets: &Sockets, missing: &mut bool) -> io::Result<()> {
    let stream = connect(name)?;
    timeout(PATIENCE, async {
        send(&stream, "keep", sockets).await?;
        pass::receive(&stream).await
    })
    .await??;
    if std::mem::take(missing) {
        tracing::info!("a `gossd hold` keeps our sockets again");
    }
    // The holder sends nothing more; this returns at its end.
    let _ = pass::receive(&stream).await;
    Ok(())
}

fn connect(name: &AgentName) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect(&address(name)?)?;
    socket.set_nonblocking(true)?;
    let stream = UnixStream::from_std(socket.into())?;
    if is_our_users(&stream) { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// An abstract address: it exists in the kernel, not in a file system.
fn address(name: &AgentName) -> io::Result<SockAddr> {
    SockAddr::unix(format!("\0gossd-hold/{name}"))
}

fn is_our_users(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

async fn send(stream: &UnixStream, word: &str, sockets: &Sockets) -> io::Result<()> {
    let mut line = vec![word];
    line.extend(sockets.iter().map(|(role, _)| role.as_str()));
    let sockets: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    pass::send(stream, &line.join(" "), &sockets).await
}

/// Pairs descriptors with the roles that a line names, in the line's order.
pub(crate) fn named(roles: &str, sockets: Vec<OwnedFd>) -> Option<Vec<(Role, OwnedFd)>> {
    let roles: Vec<Role> = roles.split_whitespace().map(Role::named).collect::<Option<_>>()?;
    (roles.len() == sockets.len()).then(|| roles.into_iter().zip(sockets).collect())
}

fn clones(sockets: &Sockets) -> Sockets {
    sockets.iter().filter_map(|(role, socket)| Some((*role, socket.try_clone().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn name(text: &str) -> AgentName {
        format!("{text}-{}", std::process::id()).parse().unwrap()
    }

    /// Two agents of one name must not take each other's connections.
    async fn until_owned(name: &AgentName) {
        while fetch(name).await.map_err(|error| error.kind()).err() != Some(io::ErrorKind::AddrInUse) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn kept_sockets_are_given_to_the_next_agent() {
        let name = name("held");
        let holder = tokio::spawn(Holder::bind(&name).unwrap().serve());
        assert!(fetch(&name).await.unwrap().is_empty(), "nothing yet");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let agent = tokio::spawn(keep(name.clone(), vec![(Role::Plugin, listener.into())]));
        until_owned(&name).await;
        agent.abort();
        drop(agent.await);
        let mut inherited = fetch(&name).await.unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok(), "nobody is refused meanwhile");
        let taken = inherited.take_tcp(Role::Plugin, address).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        holder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_that_nobody_takes_are_closed() {
        let name = name("lost");
        let holder = tokio::spawn(Holder::bind(&name).unwrap().serve());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let agent = tokio::spawn(keep(name.clone(), vec![(Role::Plugin, listener.into())]));
        until_owned(&name).await;
        agent.abort();
        drop(agent.await);
        let gone = async {
            while !fetch(&name).await.unwrap().is_empty() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(KEPT_FOR * 2, gone).await.unwrap();
        holder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_that_is_early_gets_the_sockets_when_the_agent_ends() {
        let name = name("early");
        let holder = tokio::spawn(Holder::bind(&name).unwrap().serve());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let agent = tokio::spawn(keep(name.clone(), vec![(Role::Plugin, listener.into())]));
        until_owned(&name).await;
        let end = async {
            sleep(SUCCESSION / 2).await;
            agent.abort();
        };
        let (inherited, ()) = tokio::join!(fetch(&name), end);
        assert!(!inherited.unwrap().is_empty());
        holder.abort();
    }

    #[tokio::test]
    async fn an_agent_without_a_holder_goes_on() {
        assert!(fetch(&name("none")).await.is_err());
    }
}
