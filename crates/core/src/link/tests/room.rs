//! The room that links are tested in: agents, each with copies of slots, on a network in memory that can lose, cut and
//! repeat, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::event::PeerChange;

pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) struct Room {
    pub(super) now: Instant,
    pub(super) agents: BTreeMap<SocketAddr, Member>,
    /// Frames under way; everything takes one millisecond.
    pub(super) wire: VecDeque<Sent>,
    /// All that was ever sent.
    pub(super) recording: Vec<Sent>,
    /// Who had to end, and at what address its name is taken.
    pub(super) names_taken: Vec<(SocketAddr, SocketAddr)>,
    /// Who has to start anew, above which generation.
    pub(super) superseded: Vec<(SocketAddr, u64)>,
    pub(super) lose: fn(Kind, usize) -> bool,
    /// Whether nothing gets from one to the other.
    pub(super) cut: fn(SocketAddr, SocketAddr) -> bool,
    pub(super) sent: usize,
    /// Where frames for an address arrive, if not there; none for nowhere.
    pub(super) arrives: BTreeMap<SocketAddr, Option<SocketAddr>>,
    /// Where frames of an agent seem to come from, if not from where it is.
    pub(super) seems: BTreeMap<SocketAddr, SocketAddr>,
    /// What operators were told, and at which agent.
    pub(super) lines: Vec<(SocketAddr, LinkLine)>,
    /// Above so many agents not everybody watches everybody.
    pub(super) mesh: usize,
}

/// From where, to where, and what.
pub(super) type Sent = (SocketAddr, SocketAddr, Kind, Arc<[u8]>);

pub(super) struct Member {
    pub(super) link: Link,
    pub(super) counters: Arc<Counters>,
    pub(super) copies: Copies,
}

/// What an agent knows of owners' slots, and what it got.
#[derive(Default)]
pub(super) struct Copies {
    /// Ours among them.
    pub(super) slots: BTreeMap<Owner, BTreeMap<Slot, Cell>>,
    /// To which version who is known without a gap.
    pub(super) versions: BTreeMap<Owner, Version>,
    pub(super) own: Option<Owner>,
    pub(super) applied: Vec<(Owner, Vec<Change>)>,
    /// Who was heard (true) or fell silent (false).
    pub(super) told: Vec<(Owner, bool)>,
    /// Who was silent for a moment.
    pub(super) doubted: Vec<Owner>,
    pub(super) hearsay: Vec<Owner>,
    pub(super) forgotten: Vec<Owner>,
    pub(super) buried: Vec<Owner>,
    pub(super) changed: Vec<(Owner, PeerChange)>,
    /// What peers asked for: of whom, after which version, from which slot.
    pub(super) asked: Vec<(Owner, Version, Slot)>,
    /// For what peers sought a detour, and what they are answered.
    pub(super) sought: Vec<(Owner, TunnelId)>,
    pub(super) offer: Option<Offer>,
    /// What peers offered.
    pub(super) offers: Vec<(Owner, u64, Offer)>,
}

impl Copies {
    pub(super) fn write(&mut self, owner: &Owner, changes: &[Change]) {
        let slots = self.slots.entry(owner.clone()).or_default();
        for Change { slot, cell } in changes {
            if slots.get(slot).is_none_or(|before| before.version < cell.version) {
                slots.insert(*slot, cell.clone());
            }
        }
    }
}

/// Copies that note what they are asked.
pub(super) struct Noting<'a>(pub(super) std::cell::RefCell<&'a mut Copies>);

impl ReplicaStore for Noting<'_> {
    fn apply(&mut self, _: Instant, news: News) {
        let copies = self.0.get_mut();
        match news {
            News::Changed { owner, changes, extent } => {
                let known = copies.versions.entry(owner.clone()).or_default();
                if *known >= extent.since {
                    *known = extent.until.max(*known);
                }
                copies.write(&owner, &changes);
                if !changes.is_empty() {
                    copies.applied.push((owner, changes));
                }
            }
            News::Heard { owner, .. } => copies.told.push((owner, true)),
            News::Doubted { owner } => copies.doubted.push(owner),
            News::Silent { owner, .. } => copies.told.push((owner, false)),
            News::Hearsay { owner, .. } => copies.hearsay.push(owner),
            News::Buried { owner } => copies.buried.push(owner),
            News::Forgotten { owner } => copies.forgotten.push(owner),
            News::Differs { owner, change } => copies.changed.push((owner, change)),
            News::Offered { by, id, offer } => copies.offers.push((by, id, offer)),
            News::Refused { .. } => {}
        }
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        let copies = self.0.borrow();
        (copies.own.as_ref() != Some(owner)).then(|| copies.versions.get(owner).copied().unwrap_or_default())
    }

    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        let mut copies = self.0.borrow_mut();
        copies.asked.push((owner.clone(), after, from));
        let until = *copies.versions.get(owner)?;
        let cells = copies.slots.get(owner).into_iter().flatten();
        let cells = cells.filter(|(slot, cell)| **slot >= from && cell.version > after);
        let changes = cells.map(|(slot, cell)| Change { slot: *slot, cell: cell.clone() }).collect();
        Some(Part { changes, next: None, whole: false, until })
    }

    fn offer(&mut self, _: Instant, by: &Owner, tunnel: TunnelId) -> Offer {
        let copies = self.0.get_mut();
        copies.sought.push((by.clone(), tunnel));
        copies.offer.clone().unwrap_or(Offer::Nothing)
    }
}

pub(super) fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8002))
}

pub(super) fn owner(n: u8, generation: u64) -> Owner {
    Owner { name: format!("a{n}").parse().unwrap(), generation }
}

pub(super) fn change_to(version: u64, status: Status) -> Change {
    Change { slot: 0, cell: Cell { version, content: Content::Status(status) } }
}

pub(super) fn change(version: u64) -> Change {
    change_to(version, Status::Ready)
}

impl Room {
    pub(super) fn new(agents: u8) -> Self {
        Self::of(agents, MESH)
    }

    /// A room in which not everybody watches everybody above so many agents.
    pub(super) fn of(agents: u8, mesh: usize) -> Self {
        toy::play();
        let mut room = Self {
            now: Instant::now(),
            agents: BTreeMap::new(),
            wire: VecDeque::new(),
            recording: Vec::new(),
            names_taken: Vec::new(),
            superseded: Vec::new(),
            lose: |_, _| false,
            cut: |_, _| false,
            sent: 0,
            arrives: BTreeMap::new(),
            seems: BTreeMap::new(),
            lines: Vec::new(),
            mesh,
        };
        for n in 1..=agents {
            room.enter(n, 1, Keyring::public());
        }
        room
    }

    pub(super) fn enter(&mut self, n: u8, generation: u64, keyring: Keyring) {
        self.enter_as(n, &format!("a{n}"), generation, keyring, "c");
    }

    pub(super) fn enter_clone_of(&mut self, original: u8, n: u8, generation: u64) {
        let name = format!("a{original}");
        self.enter_with([original; 32], n, &name, generation, Keyring::public(), "c");
    }

    pub(super) fn enter_as(&mut self, n: u8, name: &str, generation: u64, keyring: Keyring, cluster: &str) {
        self.enter_with([n; 32], n, name, generation, keyring, cluster);
    }

    pub(super) fn enter_with(
        &mut self,
        identity: [u8; 32],
        n: u8,
        name: &str,
        generation: u64,
        keyring: Keyring,
        cluster: &str,
    ) {
        let owner = Owner { name: name.parse().unwrap(), generation };
        let counters = Arc::new(Counters::default());
        let mut seed = [n; 32];
        seed[..8].copy_from_slice(&generation.to_le_bytes());
        let settings = LinkSettings {
            owner: owner.clone(),
            addr: addr(n),
            identity,
            version: "1.2.3".into(),
            keyring,
            key_file: true,
            cluster: cluster.into(),
            interval: INTERVAL,
            dead_grace: DEAD_GRACE,
            mesh: self.mesh,
            seed,
        };
        let link = Link::new(self.now, settings, counters.clone());
        let copies = Copies { own: Some(owner), ..Copies::default() };
        self.agents.insert(addr(n), Member { link, counters, copies });
    }

    pub(super) fn meet(&mut self) {
        let all: BTreeSet<SocketAddr> = self.agents.keys().copied().collect();
        for at in &all {
            self.join(*at, all.clone());
        }
        self.run(100);
    }

    pub(super) fn join(&mut self, at: SocketAddr, joins: BTreeSet<SocketAddr>) {
        let now = self.now;
        let effects = self.at(at).link.handle_joins(now, joins);
        self.perform(at, effects);
    }

    pub(super) fn at(&mut self, at: SocketAddr) -> &mut Member {
        self.agents.get_mut(&at).expect("it is there")
    }

    pub(super) fn link(&mut self, n: u8) -> &mut Link {
        &mut self.at(addr(n)).link
    }

    pub(super) fn copies(&self, n: u8) -> &Copies {
        &self.agents[&addr(n)].copies
    }

    pub(super) fn forget_what_was_noted(&mut self) {
        for Member { copies, .. } in self.agents.values_mut() {
            let Copies { applied, told, hearsay, forgotten, changed, asked, .. } = copies;
            applied.clear();
            told.clear();
            hearsay.clear();
            forgotten.clear();
            changed.clear();
            asked.clear();
        }
    }

    pub(super) fn run(&mut self, ms: u32) {
        let end = self.now + ms * MS;
        while self.now < end {
            let due = self.agents.values().map(|agent| agent.link.next_due()).min();
            let due = due.filter(|_| self.wire.is_empty()).unwrap_or(self.now);
            self.now = due.max(self.now + MS).min(end);
            for (from, to, kind, frame) in std::mem::take(&mut self.wire) {
                self.sent += 1;
                let from = self.seems.get(&from).copied().unwrap_or(from);
                let to = self.arrives.get(&to).copied().unwrap_or(Some(to));
                if let Some(to) = to.filter(|_| !(self.lose)(kind, self.sent)) {
                    self.deliver(from, to, &frame);
                }
            }
            for at in self.agents.keys().copied().collect::<Vec<_>>() {
                let now = self.now;
                let Member { link, copies, .. } = self.at(at);
                if link.next_due() <= now {
                    let effects = link.handle_due(now, &mut Noting(copies.into()));
                    self.perform(at, effects);
                }
            }
        }
    }

    pub(super) fn deliver(&mut self, from: SocketAddr, to: SocketAddr, frame: &[u8]) {
        let now = self.now;
        let Some(Member { link, copies, .. }) = self.agents.get_mut(&to) else { return };
        let effects = link.handle_frame(now, from, frame, &mut Noting(copies.into()));
        self.perform(to, effects);
    }

    /// An agent sends anything in its session with another.
    pub(super) fn say(&mut self, n: u8, to: u8, plain: &[u8]) {
        let link = self.link(n);
        link.send_plain(Kind::Push, plain, addr(to));
        let effects = link.take_effects();
        self.perform(addr(n), effects);
    }

    pub(super) fn publish(&mut self, n: u8, version: u64) {
        self.publish_change(n, change(version));
    }

    pub(super) fn publish_at(&mut self, at: SocketAddr, version: u64) {
        self.publish_change_at(at, change(version));
    }

    pub(super) fn publish_change(&mut self, n: u8, change: Change) {
        self.publish_change_at(addr(n), change);
    }

    fn publish_change_at(&mut self, at: SocketAddr, change: Change) {
        let now = self.now;
        let Member { link, copies, .. } = self.at(at);
        let us = copies.own.clone().unwrap();
        copies.versions.insert(us.clone(), change.cell.version);
        copies.write(&us, std::slice::from_ref(&change));
        let effects = link.handle_changes(now, vec![change]);
        self.perform(at, effects);
    }

    pub(super) fn perform(&mut self, at: SocketAddr, effects: LinkEffects) {
        for Frame { to, kind, bytes } in effects.frames {
            if !(self.cut)(at, to) {
                self.recording.push((at, to, kind, bytes.clone()));
                self.wire.push_back((at, to, kind, bytes));
            }
        }
        self.names_taken.extend(effects.name_taken.map(|by| (at, by)));
        self.superseded.extend(effects.superseded.map(|known| (at, known)));
        self.lines.extend(effects.lines.into_iter().map(|line| (at, line)));
    }

    /// The agent that is at one address says that it is reached at another.
    pub(super) fn advertise(&mut self, at: SocketAddr, advertised: SocketAddr) {
        let now = self.now;
        let effects = self.at(at).link.handle_address(now, advertised, BTreeSet::new());
        self.perform(at, effects);
    }

    /// A host gets another address, and its agent notices.
    pub(super) fn move_host(&mut self, n: u8, to: u8) {
        let member = self.agents.remove(&addr(n)).unwrap();
        self.agents.insert(addr(to), member);
        self.advertise(addr(to), addr(to));
    }

    pub(super) fn counters(&self, n: u8) -> &Counters {
        &self.agents[&addr(n)].counters
    }

    /// How many peers an agent knows, but for those that are only expected back.
    pub(super) fn shown(&self, n: u8) -> usize {
        self.agents[&addr(n)].link.peers.table.values().filter(|known| !known.is_forgotten).count()
    }

    pub(super) fn peers(&self, n: u8) -> usize {
        self.agents[&addr(n)].link.live().count()
    }

    /// What who got, of whom.
    pub(super) fn applied(&self) -> Vec<(SocketAddr, Owner, Vec<Change>)> {
        let of = |(at, agent): (&SocketAddr, &Member)| {
            let at = *at;
            agent.copies.applied.clone().into_iter().map(move |(owner, changes)| (at, owner, changes))
        };
        self.agents.iter().flat_map(of).collect()
    }

    /// Which agents got which versions.
    pub(super) fn numbers(&self) -> Vec<(SocketAddr, u64)> {
        let applied = self.applied();
        let versions =
            applied.iter().flat_map(|(at, _, changes)| changes.iter().map(|c| (*at, c.cell.version)));
        let mut got: Vec<_> = versions.collect();
        got.sort_unstable();
        got.dedup();
        got
    }

    /// Who was asked for whose slots.
    pub(super) fn asked(&self) -> Vec<(SocketAddr, Owner)> {
        let of = |(at, agent): (&SocketAddr, &Member)| {
            let at = *at;
            agent.copies.asked.clone().into_iter().map(move |(owner, ..)| (at, owner))
        };
        self.agents.iter().flat_map(of).collect()
    }

    /// How many frames of a kind were sent.
    pub(super) fn sent(&self, kind: Kind) -> usize {
        self.recording.iter().filter(|(_, _, sent, _)| *sent == kind).count()
    }
}
