//! The task that owns the link: feeds it from the sockets and queues, and does what follows.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::incoming::Arrival;
use super::transport::{MAX_DATAGRAM, Transport};
use super::{LivePeer, log};
use crate::metrics::LAG_BUCKETS;
use gossd_core::link::counters::{Counters, Dropped};
use gossd_core::link::keyring::{self, Fingerprint, Keyring};
use gossd_core::link::keys::{KeyReport, KeysRefused};
use gossd_core::link::seal::Sealer;
use gossd_core::link::{Link, LinkEffects, Peer, ReplicaStore};
use gossd_core::record::AgentName;
use gossd_core::slot::Change;

/// Datagrams taken in one go before the other inputs get their turn.
const BATCH: usize = 64;
/// The link is asked again after this long, whatever it said: its clock runs only while it is asked.
const IDLE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Driver {
    link: Link,
    outputs: Outputs,
    /// How late the pushes of each live peer come.
    lags: HashMap<AgentName, Histogram>,
    /// Who waits until all pushes are acknowledged or given up.
    unsettled: Vec<oneshot::Sender<()>>,
}

/// What the link's effects go to.
pub(super) struct Outputs {
    pub(super) transport: Transport,
    /// The live peers.
    pub(super) peers: watch::Sender<Vec<LivePeer>>,
    /// What opens frames in other tasks, and has the keyring that a file keeps.
    pub(super) sealer: watch::Sender<Sealer>,
    pub(super) replicas: Box<dyn ReplicaStore + Send>,
    pub(super) counters: Arc<Counters>,
}

/// Changes to push.
pub(super) struct Publication {
    pub(super) changes: Vec<Change>,
    /// Told when they are acknowledged or given up.
    pub(super) settled: Option<oneshot::Sender<()>>,
}

/// What is asked or told about keys.
pub(super) enum KeyInput {
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
    /// Frames that came by TCP.
    pub(super) frames: mpsc::Receiver<Arrival>,
    /// Frames that came by TCP and did not open.
    pub(super) rejected: mpsc::Receiver<(SocketAddr, Dropped)>,
    /// Addresses to join at.
    pub(super) joins: watch::Receiver<BTreeSet<SocketAddr>>,
    pub(super) keys: mpsc::Receiver<KeyInput>,
}

impl Driver {
    pub(super) fn new(link: Link, outputs: Outputs) -> Self {
        Self { link, outputs, lags: HashMap::new(), unsettled: Vec::new() }
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
                Some(Arrival { frame, proof }) = inputs.frames.recv() => {
                    let effects = self.link.handle_frame(now(), &frame, &mut *self.outputs.replicas);
                    if effects.is_fresh {
                        proof.give();
                    }
                    self.perform(effects)?;
                }
                Some((from, why)) = inputs.rejected.recv() => self.reject(from, why)?,
                Ok(()) = inputs.joins.changed() => {
                    let joins = inputs.joins.borrow_and_update().clone();
                    let effects = self.link.handle_joins(now(), joins);
                    self.perform(effects)?;
                }
                Some(input) = inputs.keys.recv() => self.handle_keys(input)?,
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

    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let sealer = self.link.sealer();
        for _ in 0..BATCH {
            let Some((len, from)) = self.outputs.transport.try_receive(buffer) else { break };
            match sealer.open(&buffer[..len]) {
                Ok(frame) => {
                    let effects = self.link.handle_frame(now(), &frame, &mut *self.outputs.replicas);
                    self.perform(effects)?;
                }
                Err(error) => {
                    self.outputs.counters.count(error.into());
                    self.reject(from, error.into())?;
                }
            }
        }
        Ok(())
    }

    fn reject(&mut self, from: SocketAddr, why: Dropped) -> anyhow::Result<()> {
        let effects = self.link.handle_rejected(now(), from.ip(), why);
        self.perform(effects)
    }

    fn handle_keys(&mut self, input: KeyInput) -> anyhow::Result<()> {
        let now = now();
        match input {
            // Whoever asked may have given up.
            KeyInput::Report(reply) => drop(reply.send(self.link.key_report(now))),
            KeyInput::Change { change, force, done } => {
                let (result, effects) = match self.link.change_keys(now, change, force) {
                    Ok(effects) => (Ok(()), effects),
                    Err(refused) => (Err(refused), LinkEffects::default()),
                };
                let _ = done.send(result);
                self.perform(effects)?;
            }
            KeyInput::Filed { fingerprint, written } => self.link.handle_filed(now, fingerprint, written),
            KeyInput::Reread(keyring) => {
                let (is_new, effects) = self.link.handle_key_file(now, keyring);
                self.perform(effects)?;
                if is_new {
                    tracing::info!(keys = ?self.link.sealer().keyring, "read the key file again");
                }
            }
        }
        Ok(())
    }

    fn perform(&mut self, effects: LinkEffects) -> anyhow::Result<()> {
        let LinkEffects { frames, is_fresh: _, sealer, peers, lag, lines, name_taken } = effects;
        for frame in frames {
            self.outputs.transport.send(frame);
        }
        if let Some(sealer) = sealer {
            self.outputs.sealer.send_replace(sealer);
        }
        if let Some(peers) = peers {
            self.report(peers);
        }
        if let Some((agent, lag)) = lag
            && let Some(lags) = self.lags.get(&agent)
        {
            lags.observe(lag.as_secs_f64());
        }
        for line in lines {
            log::log(line, &self.outputs.sealer.borrow().keyring);
        }
        if let Some(by) = name_taken {
            anyhow::bail!(
                "the name {} is taken by the agent at {by}: give this one another --name",
                self.link.name()
            );
        }
        Ok(())
    }

    fn report(&mut self, peers: Vec<Peer>) {
        self.lags.retain(|name, _| peers.iter().any(|peer| peer.owner.name == *name));
        let live = peers.into_iter().map(|Peer { owner, addr }| {
            let lag = self.lags.entry(owner.name.clone()).or_insert_with(|| Histogram::new(LAG_BUCKETS));
            LivePeer { owner, addr, lag: lag.clone() }
        });
        self.outputs.peers.send_replace(live.collect());
    }
}

fn now() -> StdInstant {
    Instant::now().into_std()
}
