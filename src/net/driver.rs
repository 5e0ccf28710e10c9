//! The task that owns the link: feeds it from the sockets and queues, and does what follows.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::incoming::Arrival;
use super::log;
use super::transport::{MAX_DATAGRAM, Reached, Transport, reaches};
use gossd_core::address::canonical;
use gossd_core::agent::Seek;
use gossd_core::link::joins::Joins;
use gossd_core::link::keyring::{self, Fingerprint, Keyring};
use gossd_core::link::keys::{KeyReport, KeysRefused};
use gossd_core::link::{Link, LinkEffects, NotBuried, Peer, PeerCard, ReplicaStore};
use gossd_core::record::{AgentName, Generation};
use gossd_core::slot::Change;

/// Datagrams taken in one go before the other inputs get their turn.
const BATCH: usize = 64;
/// The link is asked again after this long, whatever it said: its clock runs only while it is asked.
const IDLE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Driver {
    link: Link,
    outputs: Outputs,
    /// Who waits until all pushes are acknowledged or given up.
    unsettled: Vec<oneshot::Sender<()>>,
    /// Addresses to join at that our socket cannot send to, and that were logged.
    unreachable: BTreeSet<SocketAddr>,
}

/// What the link's effects go to.
pub(super) struct Outputs {
    pub(super) transport: Transport,
    /// Where it listens.
    pub(super) bound: SocketAddr,
    /// The live peers.
    pub(super) peers: watch::Sender<Vec<Peer>>,
    /// How late pushes come, in seconds.
    pub(super) lags: Histogram,
    /// The keyring in force, which a file keeps.
    pub(super) keyring: watch::Sender<Arc<Keyring>>,
    pub(super) replicas: Box<dyn ReplicaStore + Send>,
    /// How it goes with the addresses to join at.
    pub(super) joins: watch::Sender<Joins>,
    /// A later start of this agent that peers know.
    pub(super) superseded: watch::Sender<Option<Generation>>,
}

/// Changes to push.
pub(super) struct Publication {
    pub(super) changes: Vec<Change>,
    /// Told when they are acknowledged or given up.
    pub(super) settled: Option<oneshot::Sender<()>>,
}

/// What operators and other tasks ask of the link, or tell it.
pub(super) enum Command {
    /// What is known of every peer.
    Cards(oneshot::Sender<Vec<PeerCard>>),
    /// Forget a silent agent.
    Bury(AgentName, oneshot::Sender<Result<(), NotBuried>>),
    /// Everybody's keys.
    Report(oneshot::Sender<Result<KeyReport, KeysRefused>>),
    /// Change them.
    Change { change: keyring::KeyringChange, force: bool, done: oneshot::Sender<Result<(), KeysRefused>> },
    /// The key file was written, or not.
    Filed { fingerprint: Fingerprint, written: Result<(), String> },
    /// The key file was read again.
    Reread(Keyring),
}

/// What the driver listens to, besides its UDP socket.
pub(super) struct Inputs {
    pub(super) pushes: mpsc::Receiver<Publication>,
    /// Peers to ask for detours.
    pub(super) seeks: mpsc::Receiver<Vec<Seek>>,
    /// Frames that came by TCP.
    pub(super) frames: mpsc::Receiver<Arrival>,
    /// What came of sending frames by TCP.
    pub(super) reached: mpsc::Receiver<Reached>,
    /// Addresses to join at.
    pub(super) joins: watch::Receiver<BTreeSet<SocketAddr>>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Where peers reach this host, and all its addresses.
    pub(super) host: watch::Receiver<(SocketAddr, BTreeSet<IpAddr>)>,
}

impl Driver {
    pub(super) fn new(link: Link, outputs: Outputs) -> Self {
        Self { link, outputs, unsettled: Vec::new(), unreachable: BTreeSet::new() }
    }

    /// Runs for ever. Errors of the socket are counted, not returned: the next frame may be fine.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            let wake = Instant::from_std(self.link.next_due()).min(Instant::now() + IDLE);
            tokio::select! {
                Ok(()) = self.outputs.transport.readable() => self.receive(&mut buffer)?,
                Some(Publication { changes, settled }) = inputs.pushes.recv() => {
                    let effects = self.link.handle_changes(now(), changes);
                    self.perform(effects)?;
                    self.unsettled.extend(settled);
                }
                Some(seeks) = inputs.seeks.recv() => {
                    let effects = self.link.handle_seeks(&seeks);
                    self.perform(effects)?;
                }
                Some(Arrival { from, frame, is_fresh }) = inputs.frames.recv() => {
                    let effects = self.link.handle_frame(now(), from, &frame, &mut *self.outputs.replicas);
                    // The connection may be gone by now.
                    let _ = is_fresh.send(effects.is_fresh);
                    self.perform(effects)?;
                }
                Some((to, gets_through)) = inputs.reached.recv() => {
                    let effects = self.link.handle_tcp(now(), to, gets_through);
                    self.perform(effects)?;
                }
                Ok(()) = inputs.joins.changed() => {
                    let joins = self.reachable(&inputs.joins.borrow_and_update());
                    let effects = self.link.handle_joins(now(), joins);
                    self.perform(effects)?;
                }
                Ok(()) = inputs.host.changed() => {
                    let (addr, addresses) = inputs.host.borrow_and_update().clone();
                    let effects = self.link.handle_address(now(), addr, addresses);
                    self.perform(effects)?;
                }
                Some(input) = inputs.commands.recv() => self.handle_command(input)?,
                () = sleep_until(wake) => {}
            }
            if self.link.is_settled() {
                for settled in self.unsettled.drain(..) {
                    // Whoever waited may have given up.
                    let _ = settled.send(());
                }
            }
            let now = now();
            if self.link.next_due() <= now {
                let effects = self.link.handle_due(now, &mut *self.outputs.replicas);
                self.perform(effects)?;
            }
        }
    }

    /// The addresses to join at that our socket can send to. Others would never be reached, and without a word.
    fn reachable(&mut self, joins: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
        let bound = self.outputs.bound;
        let (can, cannot): (BTreeSet<_>, BTreeSet<_>) =
            joins.iter().map(|addr| canonical(*addr)).partition(|addr| reaches(bound, *addr));
        for join in cannot.difference(&self.unreachable) {
            tracing::warn!(
                %join,
                gossip = %bound,
                "cannot join there: --gossip listens on {} only, and that is an address of {}. Set --gossip to [::]:{}, which \
                 is both",
                if bound.is_ipv4() { "IPv4" } else { "IPv6" },
                if join.is_ipv4() { "IPv4" } else { "IPv6" },
                bound.port()
            );
        }
        self.unreachable = cannot;
        can
    }

    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            let Some((len, from)) = self.outputs.transport.try_receive(buffer) else { break };
            let effects = self.link.handle_frame(now(), from, &buffer[..len], &mut *self.outputs.replicas);
            self.perform(effects)?;
        }
        Ok(())
    }

    fn handle_command(&mut self, input: Command) -> anyhow::Result<()> {
        let now = now();
        match input {
            // Whoever asked may have given up.
            Command::Cards(reply) => drop(reply.send(self.link.cards())),
            Command::Bury(name, done) => {
                let buried = self.link.handle_burial(now, &name, &mut *self.outputs.replicas);
                let (result, effects) = buried.map_or_else(
                    |refused| (Err(refused), LinkEffects::default()),
                    |effects| (Ok(()), effects),
                );
                let _ = done.send(result);
                self.perform(effects)?;
            }
            Command::Report(reply) => drop(reply.send(self.link.key_report(now))),
            Command::Change { change, force, done } => {
                let (result, effects) = match self.link.change_keys(now, change, force) {
                    Ok(effects) => (Ok(()), effects),
                    Err(refused) => (Err(refused), LinkEffects::default()),
                };
                let _ = done.send(result);
                self.perform(effects)?;
            }
            Command::Filed { fingerprint, written } => {
                let effects = self.link.handle_filed(now, fingerprint, written);
                self.perform(effects)?;
            }
            Command::Reread(keyring) => {
                let (is_new, effects) = self.link.handle_key_file(now, keyring);
                self.perform(effects)?;
                if is_new {
                    tracing::info!(keys = ?self.link.keyring(), "read the key file again");
                }
            }
        }
        Ok(())
    }

    fn perform(&mut self, effects: LinkEffects) -> anyhow::Result<()> {
        let LinkEffects { frames, is_fresh: _, keyring, peers, lag, lines, name_taken, joins, superseded } =
            effects;
        for frame in frames {
            self.outputs.transport.send(frame);
        }
        if let Some(keyring) = keyring {
            self.outputs.keyring.send_replace(keyring);
        }
        if let Some(peers) = peers {
            self.outputs.peers.send_replace(peers);
        }
        if let Some(lag) = lag {
            self.outputs.lags.observe(lag.as_secs_f64());
        }
        for line in lines {
            log::log(line, self.link.keyring());
        }
        if let Some(joins) = joins {
            self.outputs.joins.send_replace(joins);
        }
        if superseded.is_some() {
            self.outputs.superseded.send_replace(superseded);
        }
        if let Some(by) = name_taken {
            anyhow::bail!(
                "the name {} is taken by the agent at {by}: give this one another --name",
                self.link.name()
            );
        }
        Ok(())
    }
}

fn now() -> StdInstant {
    Instant::now().into_std()
}
