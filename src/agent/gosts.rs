//! What tells that a gost beside this agent lives or that a record of it is stale, besides its Renews: its plugin
//! connections, a dial of its entrypoint, and what it asks.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant as StdInstant};

use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::effects::Line;
use super::{Agent, State};
use gossd_core::address::Address;
use gossd_core::connection::{Caller, ConnectionId};
use gossd_core::entrypoints::{EntrypointKey, Place};
use gossd_core::label::Label;
use gossd_core::lease::{Asked, Holding};
use gossd_core::record::{Draft, Record};

/// A gost that does not refuse within this time is not known to be dead. A refusal takes a round trip within the
/// host; the rest is for hosts that are starved.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between the two refusals that tell of a death: one alone may be a gost that is about to listen.
const AGAIN: Duration = Duration::from_millis(20);
/// After how long a gost that answered is dialled again, as long as no connection of it returns: a process that ends closes
/// its sockets one after the other, those of its plugins perhaps before those of its entrypoint.
const LATER: [Duration; 2] = [Duration::from_millis(40), Duration::from_secs(1)];
/// Gosts that are dialled at a time; more wait for their turn.
const MAX_DIALS: usize = 256;
/// Questions that are evidence, with less than this between them, are told to the operator once.
const EPISODE: Duration = Duration::from_secs(60);

/// What dialling all entrypoints of an instance led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// At least one took the connection.
    Answered,
    /// Each refused it, twice.
    Refused,
    /// Neither: silence, no route, no address to dial. No evidence of anything.
    Silent,
}

/// A gost that is to be dialled.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    node: Label,
    addresses: BTreeSet<Address>,
    /// How often it answered before.
    answered: usize,
}

/// The dials that run. Nothing waits for them.
#[derive(Default)]
pub(super) struct Dials {
    tasks: JoinSet<(Dial, Dialled)>,
    /// By instance: those that are to be dialled again are waiting for that.
    running: HashMap<Label, Running>,
}

struct Running {
    task: AbortHandle,
    waits: bool,
}

impl Dials {
    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        MAX_DIALS.saturating_sub(self.tasks.len())
    }

    /// Whether an instance is being dialled, and not only to be dialled again.
    pub(super) fn has(&self, node: &Label) -> bool {
        self.running.get(node).is_some_and(|running| !running.waits)
    }

    /// Dials an instance in place of what it waited for.
    pub(super) fn start(&mut self, dial: Dial) {
        let (node, later) = (dial.node.clone(), dial.answered.checked_sub(1).and_then(|nth| LATER.get(nth)));
        let task = self.tasks.spawn(async move {
            if let Some(later) = later {
                sleep(*later).await;
            }
            let dialled = dial_all(&dial.addresses).await;
            (dial, dialled)
        });
        if let Some(before) = self.running.insert(node, Running { task, waits: later.is_some() }) {
            before.task.abort();
        }
    }

    /// The next one that ended; none while none runs.
    pub(super) async fn next(&mut self) -> Option<(Dial, Dialled)> {
        loop {
            // One that was replaced.
            let Ok((dial, dialled)) = self.tasks.join_next().await? else { continue };
            // Another may have begun in the moment that this one ended.
            if self.running.get(&dial.node).is_some_and(|running| running.task.is_finished()) {
                self.running.remove(&dial.node);
            }
            return Some((dial, dialled));
        }
    }
}

impl Agent {
    /// A gost was dialled. If it is to be dialled once more, how.
    pub(super) fn dialled(&self, dial: Dial, dialled: Dialled) -> Option<Dial> {
        self.with(|state, now| state.dialled(now, dial, dialled))
    }

    /// A gost of this host asks where a tunnel is: one that had its connector would not ask. So if it is the only gost here,
    /// its own record of the tunnel is stale; one that it has just registered aside.
    pub fn asked(&self, connection: ConnectionId, name: &str) {
        self.with(|state, now| state.asked(now, connection, name));
    }

    /// A gost registered, and said where it is: for calls that do not.
    pub fn note_entrypoint(&self, caller: Caller, record: &Record, dial: &Address) {
        let key = EntrypointKey { node: record.node.clone(), routers: record.is_routers() };
        let place = Place { address: record.address.clone(), dial: dial.clone() };
        self.with(|state, _| state.entrypoints.note(key, caller.remote, place));
    }

    /// Where an entrypoint is that a Register does not name: where its instance registered last, or else any gost of the
    /// caller's host.
    pub fn registered_last(&self, caller: Caller, draft: Draft<'_>) -> Option<Place> {
        let state = self.lock();
        let key = key_of(draft);
        // From the journal of an agent that noted no entrypoints.
        let sibling = state.place_of_sibling(&key).filter(|place| !place.dial.is_empty());
        let noted =
            || state.entrypoints.of(&key).or_else(|| state.entrypoints.last(caller.remote, key.routers));
        sibling.or_else(|| noted().cloned())
    }
}

impl State {
    /// A gost was dialled: if it is dead, and did not return meanwhile, its records lapse; of what waited for this dial,
    /// those that it does not answer for.
    fn dialled(&mut self, now: StdInstant, dial: Dial, dialled: Dialled) -> Option<Dial> {
        let node = &dial.node;
        let is_connected = self.connections.has(&node.text());
        let addresses = dial.addresses.clone();
        self.effects.lines.push(Line::Dialled { node: node.clone(), addresses, dialled });
        self.counts.dialled[dialled as usize] += 1;
        let is_dead = dialled == Dialled::Refused && !is_connected;
        let changes = match dialled {
            Dialled::Refused if is_dead && !self.broken.leases => self.leases.lapse_instance(now, node),
            Dialled::Answered if self.broken.dials => self.leases.lapse_instance(now, node),
            Dialled::Answered => {
                self.leases.answered(now, node);
                Vec::new()
            }
            Dialled::Refused | Dialled::Silent => self.leases.unanswered(now, node),
        };
        let records = changes.len();
        self.counts.lapsed += records as u64;
        self.tell_all(now, changes);
        if records > 0 {
            let node = node.clone();
            self.effects.lines.push(if is_dead {
                Line::Gone { node, records }
            } else {
                Line::Unanswered { node, records }
            });
        }
        let again = dialled == Dialled::Answered && !is_connected && dial.answered < LATER.len();
        again.then(|| Dial { answered: dial.answered + 1, ..dial })
    }

    fn asked(&mut self, now: StdInstant, connection: ConnectionId, name: &str) {
        if self.broken.leases {
            return;
        }
        let Some((node, ids)) = self.in_question(connection, name) else { return };
        let Asked::Lapsed(change) = self.leases.asked(now, &ids) else { return };
        self.counts.asked += 1;
        self.counts.lapsed += 1;
        self.tell(now, change);
        if self.evidence.begins(now) {
            self.effects.lines.push(Line::Asked { tunnel: name.into(), node, id: ids[0].clone() });
        }
    }

    /// Whether a record of a tunnel is ours.
    pub(super) fn has_own(&self, name: &str) -> bool {
        self.directory.lookup(name).iter().any(|entry| *entry.owner == self.owner)
    }

    /// Gosts that are to be dialled.
    pub(super) fn dials(&mut self, trials: BTreeSet<Label>, running: &Dials) -> Vec<Dial> {
        let orphans = self.connections.take_orphans(running.room(), |node| running.has(&node.into()));
        let orphans = orphans.iter().map(|node| Label::from(&**node));
        // What is on trial asks again.
        let trials = trials.into_iter().filter(|node| !running.has(node));
        let nodes: BTreeSet<Label> = orphans.chain(trials).take(running.room()).collect();
        let dials =
            nodes.into_iter().map(|node| Dial { addresses: self.leases.dials(&node), node, answered: 0 });
        dials.filter(|dial| !dial.addresses.is_empty()).collect()
    }

    /// The instance that asks for a tunnel which is registered here for it, with the ids of that; none if another gost may
    /// be asking.
    fn in_question(&self, connection: ConnectionId, name: &str) -> Option<(Label, Vec<Label>)> {
        let own = self.directory.lookup(name).iter().filter(|entry| *entry.owner == self.owner);
        let own: Vec<&Record> = own.map(|entry| &*entry.record).collect();
        let node = own.first()?.node.clone();
        let ids = own.iter().map(|record| record.id.clone()).collect();
        let text = node.text();
        let other = |other: &str| *other != *text && !self.leases.is_routers(&other.into());
        let is_only = self.leases.is_the_only_one(&node) && !self.connections.nodes().any(other);
        // gost's calls share its connections.
        let may_be_it = self.connections.has_spoken(connection, &text) || !self.connections.has(&text);
        let is_it = is_only && may_be_it;
        is_it.then(|| (node.clone(), ids))
    }

    /// Where the other records of an instance and handler are.
    pub(super) fn place_of_sibling(&self, key: &EntrypointKey) -> Option<Place> {
        let Holding { record, dial } = self.leases.sibling(&key.node, key.routers)?;
        Some(Place { address: record.address.clone(), dial: dial.clone() })
    }
}

/// The handler that a call is from: only the names of gost's router handler have an `@`.
pub(super) fn key_of(draft: Draft<'_>) -> EntrypointKey {
    EntrypointKey { node: draft.node.into(), routers: draft.name.contains('@') }
}

/// Which questions of gosts were told to the operator.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    last: Option<StdInstant>,
}

impl Evidence {
    /// Whether a question is the first one for a while.
    fn begins(&mut self, now: StdInstant) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) >= EPISODE)
    }
}

async fn dial_all(addresses: &BTreeSet<Address>) -> Dialled {
    let first = dial_each(addresses).await;
    if first != Dialled::Refused {
        return first;
    }
    sleep(AGAIN).await;
    dial_each(addresses).await
}

pub(super) async fn dial_each(addresses: &BTreeSet<Address>) -> Dialled {
    let mut all = if addresses.is_empty() { Dialled::Silent } else { Dialled::Refused };
    for address in addresses {
        let Ok(address) = address.to_string().parse::<SocketAddr>() else {
            all = Dialled::Silent;
            continue;
        };
        match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Dialled::Answered,
            Ok(Err(error)) if is_refusal(error.kind()) => {}
            Ok(Err(_)) | Err(_) => all = Dialled::Silent,
        }
    }
    all
}

/// A listener that goes in the moment between the handshake and our look at it resets the connection.
fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests;
