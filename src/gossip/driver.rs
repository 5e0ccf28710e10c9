//! The task that owns the link: feeds it from the sockets and queues, and does what it wants done.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::antientropy::Member;
use super::counters::{Counters, Dropped};
use super::incoming::Arrival;
use super::keyring::{self, Fingerprint, Keyring};
use super::keys::{Refused, Report};
use super::link::{Effect, Link};
use super::seal::Sealer;
use super::session::Peer;
use super::transport::{MAX_DATAGRAM, Transport};
use super::{Heard, Hearer};
use gossd_core::agent::News;
use gossd_core::record::{AgentName, Owner};
use gossd_core::slot::{Change, Version};

/// Datagrams taken in one go before the other inputs get their turn.
const BATCH: usize = 64;
/// With nothing due, look again after this long.
const IDLE: Duration = Duration::from_secs(1);
/// What is told of peers is told anew this often, and at once when one comes or goes.
const COUNT: Duration = Duration::from_millis(250);
/// An agent that finds its name taken within this time of its start ends.
const YOUNG: Duration = Duration::from_secs(60);
/// A peer that is not understood is worth a line this often.
const REJECTION_LOG: Duration = Duration::from_secs(60);
/// Addresses that the log remembers; beyond, rejections are only counted.
const MAX_REJECTIONS: usize = 1_024;

/// See the module.
pub(super) struct Driver {
    pub(super) link: Link,
    pub(super) transport: Transport,
    pub(super) sealer: Arc<Sealer>,
    pub(super) hearer: Arc<dyn Hearer>,
    pub(super) counters: Arc<Counters>,
    /// Messages for chitchat.
    pub(super) incoming: mpsc::Sender<(Peer, Vec<u8>)>,
    /// Peers that chitchat should exchange states with now.
    pub(super) handshakes: mpsc::Sender<SocketAddr>,
    /// The peers that are heard.
    pub(super) peers: watch::Sender<Vec<Heard>>,
    pub(super) rejections: Rejections,
    /// Who waits until all pushes are acknowledged or given up.
    pub(super) unsettled: Vec<oneshot::Sender<()>>,
    pub(super) name: AgentName,
    pub(super) started: Instant,
    pub(super) name_logged: Option<Instant>,
    /// When the peers were last counted.
    pub(super) counted: Instant,
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
    Report(oneshot::Sender<Result<Report, Refused>>),
    /// Change them.
    Change { change: keyring::Change, force: bool, done: oneshot::Sender<Result<(), Refused>> },
    /// The key file was written, or not.
    Filed { fingerprint: Fingerprint, written: Result<(), String> },
    /// The key file was read again.
    Reread(Keyring),
}

/// What the driver listens to, besides its UDP socket.
pub(super) struct Inputs {
    pub(super) pushes: mpsc::Receiver<Publication>,
    /// Messages from chitchat.
    pub(super) outgoing: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    /// Frames that came by TCP.
    pub(super) frames: mpsc::Receiver<Arrival>,
    /// Frames that came by TCP and did not open.
    pub(super) rejected: mpsc::Receiver<(SocketAddr, Dropped)>,
    /// Whom chitchat knows.
    pub(super) members: watch::Receiver<Vec<Member>>,
    /// Addresses to join at.
    pub(super) joins: watch::Receiver<HashSet<SocketAddr>>,
    pub(super) keys: mpsc::Receiver<KeyInput>,
}

impl Driver {
    /// Runs for ever. Errors of the socket are counted, not returned: the next frame may be fine.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            let now = Instant::now();
            let wake =
                self.link.next_deadline().map_or(now + IDLE, |at| Instant::from_std(at).min(now + IDLE));
            tokio::select! {
                Ok(()) = self.transport.readable() => self.receive(&mut buffer)?,
                Some(Publication { changes, settled }) = inputs.pushes.recv() => {
                    let effects = self.link.handle_changes(now_std(), changes);
                    self.perform(effects)?;
                    self.unsettled.extend(settled);
                }
                Some((to, message)) = inputs.outgoing.recv() => {
                    let effects = self.link.handle_chitchat(to, &message);
                    self.perform(effects)?;
                }
                Some(Arrival { frame, proof }) = inputs.frames.recv() => {
                    let effects = self.link.handle_frame(now_std(), &frame);
                    if self.link.took_last() {
                        proof.give();
                    }
                    self.perform(effects)?;
                }
                Some((from, why)) = inputs.rejected.recv() => self.rejections.log(from.ip(), why),
                Ok(()) = inputs.members.changed() => self.retarget(&mut inputs)?,
                Ok(()) = inputs.joins.changed() => self.retarget(&mut inputs)?,
                Some(input) = inputs.keys.recv() => self.handle_keys(input)?,
                () = sleep_until(wake) => {}
            }
            if self.link.is_settled() {
                for settled in self.unsettled.drain(..) {
                    // Whoever waited may have given up.
                    let _ = settled.send(());
                }
            }
            if self.link.next_deadline().is_none_or(|at| at <= now_std()) {
                let effects = self.link.handle_deadline(now_std());
                self.perform(effects)?;
                if self.counted.elapsed() >= COUNT {
                    self.count_peers();
                }
            }
        }
    }

    fn count_peers(&mut self) {
        self.counted = Instant::now();
        let live: Vec<Heard> = self.link.heard().collect();
        let owners = |peers: &[Heard]| peers.iter().map(|peer| peer.owner.clone()).collect::<HashSet<_>>();
        self.peers.send_if_modified(|told| {
            let changed = owners(told) != owners(&live);
            *told = live;
            changed
        });
    }

    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            let Some((len, from)) = self.transport.try_receive(buffer) else { break };
            match self.sealer.open(&buffer[..len]) {
                Ok(frame) => {
                    let effects = self.link.handle_frame(now_std(), &frame);
                    self.perform(effects)?;
                }
                Err(error) => {
                    self.counters.count(error.into());
                    self.rejections.log(from.ip(), error.into());
                }
            }
        }
        Ok(())
    }

    /// After every round: pings whom chitchat knows, and asks for what they said that is not known here.
    fn retarget(&mut self, inputs: &mut Inputs) -> anyhow::Result<()> {
        let members = inputs.members.borrow_and_update().clone();
        for Member { owner, left, .. } in &members {
            self.link.handle_mention(now_std(), owner, *left);
        }
        let addrs = members.iter().map(|member| member.addr).collect();
        self.link.set_targets(now_std(), addrs, &inputs.joins.borrow_and_update());
        for Member { owner, version, .. } in &members {
            self.ask(owner, Some(*version))?;
        }
        Ok(())
    }

    /// Asks for what an owner said, unless all to this version is known.
    fn ask(&mut self, owner: &Owner, said: Option<Version>) -> anyhow::Result<()> {
        let Some(known) = self.hearer.version(owner) else { return Ok(()) };
        if said.is_some_and(|said| known >= said) {
            return Ok(());
        }
        let effects = self.link.ask(now_std(), owner, known);
        self.perform(effects)
    }

    fn handle_keys(&mut self, input: KeyInput) -> anyhow::Result<()> {
        let now = now_std();
        match input {
            // Whoever asked may have given up.
            KeyInput::Report(reply) => drop(reply.send(self.link.key_report(now))),
            KeyInput::Change { change, force, done } => {
                let changed = self.link.change_keys(now, change, force);
                let (result, effects) = match changed {
                    Ok(effects) => (Ok(()), effects),
                    Err(refused) => (Err(refused), Vec::new()),
                };
                let _ = done.send(result);
                self.perform(effects)?;
            }
            KeyInput::Filed { fingerprint, written } => self.link.handle_filed(now, fingerprint, written),
            KeyInput::Reread(keyring) => {
                if self.link.handle_key_file(now, keyring) {
                    tracing::info!(keys = ?self.sealer.keyring(), "read the key file again");
                }
            }
        }
        Ok(())
    }

    fn perform(&mut self, effects: Vec<Effect>) -> anyhow::Result<()> {
        for effect in effects {
            match effect {
                Effect::Send { to, kind, frame } => self.transport.send(to, kind, frame),
                Effect::Tell(event) => {
                    if matches!(event, News::Silent { .. }) {
                        self.count_peers();
                    }
                    self.hearer.hear(event);
                }
                Effect::Chitchat { from, message } => {
                    if self.incoming.try_send((from, message)).is_err() {
                        self.counters.count(Dropped::QueueFull);
                    }
                }
                Effect::Handshake(peer) => {
                    // A full queue means that exchanges are under way already.
                    let _ = self.handshakes.try_send(peer);
                }
                Effect::Ask { owner, said } => self.ask(&owner, said)?,
                Effect::Asked(question) => {
                    let part = self.hearer.part(&question.owner, question.after, question.from);
                    let effects = self.link.answer(&question, part);
                    self.perform(effects)?;
                }
                Effect::Admitted(peer) => {
                    self.count_peers();
                    tracing::info!(agent = %peer.owner.name, address = %peer.addr, "peer joined");
                }
                Effect::NameTaken(by) => self.name_taken(by)?,
                Effect::KeysTaken(peer) => {
                    let keys = self.sealer.keyring();
                    tracing::info!(agent = %peer.owner.name, ?keys, "took keys from a peer; the first seals");
                }
            }
        }
        Ok(())
    }

    /// An agent that has just started gives way. One that has served for a while stays: ending it would take
    /// its records away, and it is for the operator to say which of the two is wrong.
    fn name_taken(&mut self, by: SocketAddr) -> anyhow::Result<()> {
        let name = &self.name;
        anyhow::ensure!(
            self.started.elapsed() > YOUNG,
            "the name {name:?} is taken by the agent at {by}: give this one another --name"
        );
        if self.name_logged.is_none_or(|at| at.elapsed() > REJECTION_LOG) {
            self.name_logged = Some(Instant::now());
            tracing::error!(%name, other = %by, "two agents have this name; peers listen to one of them only");
        }
        Ok(())
    }
}

fn now_std() -> std::time::Instant {
    Instant::now().into_std()
}

/// One line a minute for each address that sends what we do not understand.
#[derive(Default)]
pub(super) struct Rejections {
    logged: HashMap<IpAddr, Instant>,
}

impl Rejections {
    fn log(&mut self, from: IpAddr, why: Dropped) {
        if self.is_due(from) {
            let hint = match why {
                Dropped::UnknownKey => "its key is not in our --key-file",
                Dropped::BadSeal => "forged, damaged, or its --cluster is not ours",
                Dropped::Version => "another version of gossd",
                _ => "not a gossd frame",
            };
            tracing::warn!(address = %from, "dropped a gossip frame: {hint}");
        }
    }

    /// Whether this address gets a line now; if so, it gets no other for a while.
    fn is_due(&mut self, from: IpAddr) -> bool {
        let now = Instant::now();
        if self.logged.get(&from).is_some_and(|at| now.duration_since(*at) < REJECTION_LOG) {
            return false;
        }
        if self.logged.len() >= MAX_REJECTIONS {
            self.logged.retain(|_, at| now.duration_since(*at) < REJECTION_LOG);
            if self.logged.len() >= MAX_REJECTIONS {
                return false;
            }
        }
        self.logged.insert(from, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_gets_one_line_a_minute_and_the_memory_of_it_is_bounded() {
        let mut rejections = Rejections::default();
        let addr = |n: u32| IpAddr::from(n.to_be_bytes());
        assert!(rejections.is_due(addr(1)) && !rejections.is_due(addr(1)) && rejections.is_due(addr(2)));
        tokio::time::advance(REJECTION_LOG).await;
        assert!(rejections.is_due(addr(1)));
        for n in 10..5_000 {
            rejections.is_due(addr(n));
        }
        assert_eq!(rejections.logged.len(), MAX_REJECTIONS);
    }
}
