//! The roll of agents: all that are known, also while they are away, with what each told of its keyring; whom to tell of
//! ours, and how often; and which key each opens. Time comes in as arguments; nothing is sent from here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::handover::Public;
use super::keyring::{KeyId, Keyring};
use super::keys::KeyringSummary;
use super::session::{MAX_SESSIONS, Peer};
use super::wire::{Absent, KeyStatus, Session};
use crate::record::{AgentName, Generation};

/// A silent agent is expected back for this long, unless it said goodbye: a repair, and a weekend before it.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);
/// Agents that are known. A bound against made-up ones.
const MAX_KNOWN: usize = MAX_SESSIONS;
/// Silent agents that a newcomer is told of.
const MAX_ABSENT: usize = 32;
/// A peer that has not answered, or differs from us, is told again after this, and then after twice as long.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// What others tell of a silent agent counts if they heard it so much later than we did: less may be our own word, come
/// back with the time that it took.
const ECHO: Duration = Duration::from_secs(10);
/// Least time between two keyrings to one peer.
const GIVE: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct Roll {
    entries: BTreeMap<AgentName, KnownAgent>,
    /// Rises with what we tell; 0 is nobody's.
    revision: u64,
    /// What those open that are not known to open our sealing key; nearly always nobody.
    exceptions: BTreeMap<SocketAddr, KeyId>,
}

/// A known agent.
pub(crate) struct KnownAgent {
    generation: Generation,
    /// What it told last.
    pub told: Option<KeyringSummary>,
    /// Its last sign of life; none while it is heard.
    pub silent: Option<Instant>,
    left: bool,
    talk: Option<Talk>,
}

/// The exchange with one process.
struct Talk {
    session: Session,
    addr: SocketAddr,
    /// The key that its last frame was sealed with.
    spoke: KeyId,
    public: Option<Public>,
    /// Its last revision that we took.
    taken: u64,
    /// Our last revision that it took.
    acked: u64,
    next: Instant,
    pause: Duration,
    given: Option<Instant>,
}

/// Ourselves.
pub(crate) struct Ours<'a> {
    /// Our name.
    pub name: &'a AgentName,
    /// What we tell.
    pub told: &'a KeyringSummary,
    /// Of which keyring.
    pub keyring: &'a Keyring,
}

/// What a peer's status calls for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StatusReply {
    /// Our status.
    pub status: bool,
    /// Our keyring, sealed for that.
    pub give: Option<Public>,
}

/// What of our status depends on its receiver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DueStatus {
    /// Where it goes.
    pub to: SocketAddr,
    /// See [`KeyStatus::heard`].
    pub heard: u64,
}

impl Default for Roll {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), revision: 1, exceptions: BTreeMap::new() }
    }
}

impl Roll {
    /// What we tell rose by one: everybody has to hear it.
    pub(crate) fn revise(&mut self, now: Instant) {
        self.revision += 1;
        for talk in self.entries.values_mut().filter_map(|entry| entry.talk.as_mut()) {
            talk.next = now;
            talk.pause = RETRY.0;
        }
    }

    /// Its number.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// A process was admitted; the frame that proved it was sealed with that key.
    pub(crate) fn admitted(
        &mut self,
        now: Instant,
        session: Session,
        peer: &Peer,
        spoke: KeyId,
        ours: &Keyring,
    ) {
        if self.entries.len() >= MAX_KNOWN && !self.entries.contains_key(&peer.owner.name) {
            self.forget_one();
        }
        let entry = self.entries.entry(peer.owner.name.clone()).or_insert_with(|| KnownAgent::new(now));
        if let Some(former) = entry.talk.take() {
            self.exceptions.remove(&former.addr);
        }
        let talk = Talk {
            session,
            addr: peer.addr,
            spoke,
            public: None,
            taken: 0,
            acked: 0,
            next: now,
            pause: RETRY.0,
            given: None,
        };
        entry.generation = peer.owner.generation;
        entry.left = false;
        entry.silent = None;
        entry.talk = Some(talk);
        // What its former start told may not be what this one read from its file.
        tune(&mut self.exceptions, entry, None, ours);
    }

    /// A peer's frame was sealed with that key.
    pub(crate) fn spoke(&mut self, name: &AgentName, key: KeyId, ours: &Keyring) {
        if self.exceptions.is_empty() && key == ours.sealing() {
            return;
        }
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(talk) = entry.talk.as_mut() else { return };
        if std::mem::replace(&mut talk.spoke, key) != key {
            let told = entry.told.clone().filter(|_| talk.taken > 0);
            tune(&mut self.exceptions, entry, told.as_ref(), ours);
        }
    }

    /// A peer fell silent.
    pub(crate) fn silent(&mut self, name: &AgentName, since: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.silent = Some(since);
        }
    }

    /// A silent peer is heard again.
    pub(crate) fn returned(&mut self, now: Instant, name: &AgentName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.silent = None;
        if let Some(talk) = &mut entry.talk {
            talk.next = now;
        }
    }

    /// Others know of an agent, perhaps that it said goodbye.
    pub(crate) fn mentioned(&mut self, now: Instant, name: &AgentName, generation: Generation, left: bool) {
        if self.entries.len() >= MAX_KNOWN && !self.entries.contains_key(name) {
            return;
        }
        let entry = self.entries.entry(name.clone()).or_insert_with(|| KnownAgent::new(now));
        if generation >= entry.generation {
            entry.left = left;
            entry.generation = generation;
        }
    }

    /// Takes what a peer told.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        (session, name): (Session, &AgentName),
        status: &KeyStatus<'_>,
        ours: &Ours<'_>,
    ) -> StatusReply {
        for absent in &status.absent {
            if absent.name != ours.name.as_str() {
                self.take_absent(now, absent);
            }
        }
        let Some(entry) = self.entries.get_mut(name) else { return StatusReply::default() };
        let Some(talk) = entry.talk.as_mut().filter(|talk| talk.session == session) else {
            return StatusReply::default();
        };
        if status.revision < talk.taken {
            return StatusReply::default();
        }
        talk.taken = status.revision;
        talk.acked = talk.acked.max(status.heard.min(self.revision));
        talk.public = Some(status.public);
        let may_give = talk.given.is_none_or(|at| now.saturating_duration_since(at) >= GIVE);
        let give = (ours.told.shared && ours.told.differs(&status.told) && may_give).then_some(status.public);
        if give.is_some() {
            talk.given = Some(now);
        }
        tune(&mut self.exceptions, entry, Some(&status.told), ours.keyring);
        entry.told = Some(status.told.clone());
        StatusReply { status: status.ask, give }
    }

    /// What a peer tells of one that it does not hear any more: of use if we do not either, and know less.
    fn take_absent(&mut self, now: Instant, absent: &Absent<'_>) {
        let Some(sign) = now.checked_sub(Duration::from_secs(absent.silent)) else { return };
        let Ok(name) = absent.name.parse::<AgentName>() else { return };
        if absent.silent >= REMEMBERED.as_secs() {
            return;
        }
        let full = self.entries.len() >= MAX_KNOWN;
        match self.entries.get_mut(&name) {
            Some(known) if known.left && absent.generation > known.generation => {}
            Some(known) if known.left || known.silent.is_none_or(|at| at + ECHO >= sign) => return,
            None if full => return,
            Some(_) | None => {}
        }
        let entry = self.entries.entry(name).or_insert_with(|| KnownAgent::new(now));
        entry.generation = absent.generation;
        entry.left = false;
        entry.silent = Some(sign);
        entry.told.clone_from(&absent.told);
    }

    /// The peers to tell now.
    pub(crate) fn due(&mut self, now: Instant, ours: &KeyringSummary) -> Vec<DueStatus> {
        let known =
            |entry: &KnownAgent| entry.silent.is_none_or(|at| now.saturating_duration_since(at) < REMEMBERED);
        self.entries.retain(|_, entry| known(entry));
        let revision = self.revision;
        let mut due = Vec::new();
        for entry in self.entries.values_mut().filter(|entry| entry.silent.is_none()) {
            let differs = entry.told.as_ref().is_none_or(|told| told.differs(ours));
            let Some(talk) = entry.talk.as_mut() else { continue };
            if (differs || talk.acked < revision) && talk.next <= now {
                talk.next = now + talk.pause;
                talk.pause = (talk.pause * 2).min(RETRY.1);
                due.push(DueStatus { to: talk.addr, heard: talk.taken });
            }
        }
        due
    }

    /// Our last word of a peer's revision, for an answer to it.
    pub(crate) fn taken(&self, name: &AgentName) -> u64 {
        self.entries.get(name).and_then(|entry| entry.talk.as_ref()).map_or(0, |talk| talk.taken)
    }

    /// The silent ones, the latest first.
    pub(crate) fn absent(&self, now: Instant) -> Vec<Absent<'_>> {
        let mut absent: Vec<_> = self
            .known()
            .filter_map(|(name, entry)| {
                let silent = now.saturating_duration_since(entry.silent?).as_secs();
                let told = entry.told.clone();
                Some(Absent { name: name.as_str(), generation: entry.generation, silent, told })
            })
            .collect();
        absent.sort_by_key(|absent| absent.silent);
        absent.truncate(MAX_ABSENT);
        absent
    }

    /// All who are here or expected back.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&AgentName, &KnownAgent)> {
        self.entries.iter().filter(|(_, entry)| !entry.left)
    }

    /// The key to seal for an address with, if it is not our sealing key.
    pub(crate) fn exception(&self, to: SocketAddr) -> Option<KeyId> {
        self.exceptions.get(&to).copied()
    }

    /// Another keyring is in force.
    pub(crate) fn rekeyed(&mut self, ours: &Keyring) {
        self.exceptions.clear();
        for entry in self.entries.values() {
            let told = entry.told.as_ref().filter(|_| entry.talk.as_ref().is_some_and(|talk| talk.taken > 0));
            tune(&mut self.exceptions, entry, told, ours);
        }
    }

    /// Makes room by forgetting who has been silent for longest.
    fn forget_one(&mut self) {
        let silent = self.entries.iter().filter_map(|(name, entry)| Some((entry.silent?, name)));
        if let Some(name) = silent.min().map(|(_, name)| name.clone()) {
            self.entries.remove(&name);
        }
    }
}

impl KnownAgent {
    /// Somebody of whom nothing is known.
    fn new(now: Instant) -> Self {
        Self { generation: 0, told: None, silent: Some(now), left: false, talk: None }
    }
}

/// Finds which key a peer opens: by what this process of it told; until then, the one that it speaks with.
fn tune(
    exceptions: &mut BTreeMap<SocketAddr, KeyId>,
    entry: &KnownAgent,
    told: Option<&KeyringSummary>,
    ours: &Keyring,
) {
    let Some(talk) = &entry.talk else { return };
    let opens = |id: &KeyId| told.map_or(*id == talk.spoke, |told| told.keys.contains(id));
    match ours.ids().find(opens) {
        Some(id) if id != ours.sealing() => drop(exceptions.insert(talk.addr, id)),
        Some(_) | None => drop(exceptions.remove(&talk.addr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::keyring::{Key, KeyringChange};
    use crate::link::keys::Filed;
    use crate::record::Owner;

    const MINUTE: Duration = Duration::from_secs(60);

    fn before(now: Instant, by: Duration) -> Instant {
        now.checked_sub(by).unwrap()
    }

    fn name(n: usize) -> AgentName {
        format!("a{n}").parse().unwrap()
    }

    fn peer(n: usize) -> Peer {
        let addr = SocketAddr::from(([10, 0, 0, 1], u16::try_from(n + 1).unwrap()));
        Peer { owner: Owner { name: name(n), generation: 1 }, addr }
    }

    fn keyring() -> Keyring {
        let by_hand = Keyring::parse(&Key::generate().line()).unwrap();
        by_hand.changed(KeyringChange::Add(Key::generate())).unwrap()
    }

    fn absent(told: &AgentName, silent: Duration) -> Absent<'_> {
        Absent { name: told.as_str(), generation: 1, silent: silent.as_secs(), told: None }
    }

    fn status(told: KeyringSummary, revision: u64, absent: Vec<Absent<'_>>) -> KeyStatus<'_> {
        KeyStatus { revision, heard: 1, ask: false, public: [0; 32], told, absent }
    }

    /// A roll on which the first peer has told that, and what it calls for.
    fn told(now: Instant, ours: &Keyring, status: &KeyStatus<'_>) -> (Roll, StatusReply) {
        let mut roll = Roll::default();
        roll.admitted(now, [1; 8], &peer(1), ours.sealing(), ours);
        let we = KeyringSummary::of(ours, Filed::Written);
        let us = Ours { name: &name(0), told: &we, keyring: ours };
        let answer = roll.take(now, ([1; 8], &name(1)), status, &us);
        (roll, answer)
    }

    #[test]
    fn who_has_what_we_have_is_left_alone_and_who_has_not_is_given_it_at_a_bounded_pace() {
        let (now, ours) = (Instant::now(), keyring());
        let we = KeyringSummary::of(&ours, Filed::Written);
        let (mut roll, answer) = told(now, &ours, &status(we.clone(), 1, Vec::new()));
        assert_eq!((answer, roll.due(now + MINUTE, &we)), (StatusReply::default(), vec![]));

        let other = status(KeyringSummary::of(&keyring(), Filed::Written), 2, Vec::new());
        let us = Ours { name: &name(0), told: &we, keyring: &ours };
        let mut give = |at: Instant| roll.take(at, ([1; 8], &name(1)), &other, &us).give;
        assert_eq!(give(now), Some([0; 32]));
        assert_eq!(give(now + GIVE / 2), None);
        assert_eq!(give(now + GIVE), Some([0; 32]));
        let mut times = 0;
        for second in 0..600 {
            times += roll.due(now + Duration::from_secs(second), &we).len();
        }
        assert!((60..70).contains(&times), "told again and again, every ten seconds in the end: {times}");
    }

    #[test]
    fn a_silent_agent_is_remembered_for_a_week_and_one_that_left_is_not_missed() {
        let (now, ours) = (Instant::now(), keyring());
        let mut roll = Roll::default();
        for n in 1..=2 {
            roll.admitted(now, [1; 8], &peer(n), ours.sealing(), &ours);
            roll.silent(&name(n), now);
        }
        roll.mentioned(now, &name(2), 1, true);
        let known = |roll: &Roll| roll.known().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(known(&roll), [name(1)]);
        assert_eq!(roll.absent(now).len(), 1);
        roll.due(now + REMEMBERED / 2, &KeyringSummary::of(&ours, Filed::Written));
        assert_eq!(known(&roll), [name(1)]);
        roll.mentioned(now, &name(2), 2, false);
        assert_eq!(known(&roll).len(), 2, "a later start of it");
        roll.due(now + REMEMBERED, &KeyringSummary::of(&ours, Filed::Written));
        assert!(known(&roll).is_empty());
    }

    #[test]
    fn what_others_tell_of_the_silent_is_taken_from_who_heard_them_later_and_no_echo_is() {
        let (now, ours) = (Instant::now(), keyring());
        let names = [name(0), name(2), name(3)];
        let told_of = [absent(&names[0], MINUTE), absent(&names[1], MINUTE), absent(&names[2], REMEMBERED)];
        let told_us = status(KeyringSummary::of(&ours, Filed::Written), 1, told_of.into());
        let (mut roll, _) = told(now, &ours, &told_us);
        let silent =
            |roll: &Roll| roll.known().find_map(|(n, entry)| (*n == name(2)).then_some(entry.silent?));
        assert_eq!(
            (silent(&roll), roll.known().count()),
            (Some(before(now, MINUTE)), 2),
            "not us, nor the long gone"
        );
        roll.take_absent(now, &absent(&names[1], MINUTE.saturating_sub(ECHO)));
        assert_eq!(silent(&roll), Some(before(now, MINUTE)));
        roll.take_absent(now, &absent(&names[1], MINUTE / 2));
        assert_eq!(silent(&roll), Some(before(now, MINUTE / 2)));
    }

    #[test]
    fn made_up_agents_take_no_more_room_than_real_ones() {
        let (now, ours) = (Instant::now(), keyring());
        let mut roll = Roll::default();
        for n in 0..2 * MAX_KNOWN {
            roll.mentioned(before(now, MINUTE), &name(n), 1, false);
            roll.take_absent(now, &absent(&name(n + MAX_KNOWN), MINUTE));
        }
        assert_eq!((roll.known().count(), roll.absent(now).len()), (MAX_KNOWN, MAX_ABSENT));
        roll.admitted(now, [1; 8], &peer(5_000), ours.sealing(), &ours);
        assert!(roll.known().count() <= MAX_KNOWN && roll.taken(&name(5_000)) == 0);
        assert!(roll.known().any(|(known, _)| *known == name(5_000)), "who is here has room");
    }
}
