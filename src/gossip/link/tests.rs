//! Links in one room: a network in memory that can delay, lose, repeat and forge, in virtual time.

mod naming;
mod suspicion;

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::SeedableRng as _;

pub(super) use self::suspicion::one_in_five;
use super::*;
use crate::gossip::keyring::{Keyring, generate};
use gossd_core::slot::{Cell, Content, Status, Version};

const MS: Duration = Duration::from_millis(1);

pub(super) struct Room {
    pub(super) now: Instant,
    pub(super) links: BTreeMap<SocketAddr, (Link, Arc<Sealer>, Arc<Counters>)>,
    /// Frames under way, with their receiver; everything takes one millisecond.
    pub(super) wire: VecDeque<(SocketAddr, Kind, Arc<[u8]>)>,
    /// All that was ever sent.
    pub(super) recording: Vec<(SocketAddr, Kind, Arc<[u8]>)>,
    pub(super) applied: Vec<(SocketAddr, Owner, Vec<Change>)>,
    /// To which version who has heard whom without a gap.
    heard: HashMap<(SocketAddr, Owner), Version>,
    /// Who may have missed something of whom.
    asks: Vec<(SocketAddr, Owner)>,
    /// Who was asked, and what.
    asked: Vec<(SocketAddr, Question)>,
    handshakes: Vec<(SocketAddr, SocketAddr)>,
    /// Who heard (true) or missed (false) whom.
    told: Vec<(SocketAddr, Owner, bool)>,
    names_taken: Vec<(SocketAddr, SocketAddr)>,
    pub(super) lose: fn(Kind, usize) -> bool,
    /// Whether nothing gets from one to the other.
    pub(super) cut: fn(SocketAddr, SocketAddr) -> bool,
    /// What comes of a frame under way.
    pub(super) translate: fn(&Opened) -> Vec<Opened>,
    sent: usize,
}

pub(super) fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8002))
}

fn seal(sealer: &Sealer, nonce: u8, plain: &[u8]) -> Vec<u8> {
    sealer.seal(sealer.keyring().sealing(), [nonce; 24], plain)
}

fn change(version: u64) -> Change {
    Change { slot: 0, cell: Cell { version, content: Content::Status(Status::Ready) } }
}

impl Room {
    pub(super) fn new(agents: u8) -> Self {
        let mut room = Self {
            now: Instant::now(),
            links: BTreeMap::new(),
            wire: VecDeque::new(),
            recording: Vec::new(),
            applied: Vec::new(),
            heard: HashMap::new(),
            asks: Vec::new(),
            asked: Vec::new(),
            handshakes: Vec::new(),
            told: Vec::new(),
            names_taken: Vec::new(),
            lose: |_, _| false,
            cut: |_, _| false,
            translate: |frame| vec![frame.clone()],
            sent: 0,
        };
        for n in 1..=agents {
            room.enter(n, 1, &Arc::new(Sealer::new(Keyring::public(), "c")));
        }
        room
    }

    pub(super) fn enter(&mut self, n: u8, generation: u64, sealer: &Arc<Sealer>) {
        self.enter_as(n, &format!("a{n}"), generation, sealer);
    }

    fn enter_as(&mut self, n: u8, name: &str, generation: u64, sealer: &Arc<Sealer>) {
        let owner = Owner { name: name.parse().unwrap(), generation };
        let counters = Arc::new(Counters::default());
        let rng = StdRng::seed_from_u64(u64::from(n) << 32 | generation);
        let link = Link::new(owner, addr(n), sealer.clone(), counters.clone(), rng);
        self.links.insert(addr(n), (link, sealer.clone(), counters));
    }

    pub(super) fn meet(&mut self) {
        let all: HashSet<SocketAddr> = self.links.keys().copied().collect();
        for (link, _, _) in self.links.values_mut() {
            link.set_targets(self.now, HashSet::new(), &all);
        }
        self.run(100);
    }

    pub(super) fn run(&mut self, ms: u32) {
        for _ in 0..ms {
            self.now += MS;
            for (to, kind, frame) in std::mem::take(&mut self.wire) {
                self.sent += 1;
                if !(self.lose)(kind, self.sent) {
                    self.deliver(to, &frame);
                }
            }
            for at in self.links.keys().copied().collect::<Vec<_>>() {
                let link = &mut self.links.get_mut(&at).unwrap().0;
                if link.next_deadline().is_some_and(|due| due <= self.now) {
                    let effects = link.handle_deadline(self.now);
                    self.perform(at, effects);
                }
            }
        }
    }

    fn deliver(&mut self, to: SocketAddr, frame: &[u8]) {
        let Some((link, sealer, counters)) = self.links.get_mut(&to) else { return };
        match sealer.open(frame) {
            Ok(opened) => {
                let frames = (self.translate)(&opened);
                let effects = frames.iter().flat_map(|frame| link.handle_frame(self.now, frame)).collect();
                self.perform(to, effects);
            }
            Err(error) => counters.count(error.into()),
        }
    }

    pub(super) fn publish(&mut self, n: u8, version: u64) {
        let effects = self.links.get_mut(&addr(n)).unwrap().0.handle_changes(self.now, vec![change(version)]);
        self.perform(addr(n), effects);
    }

    pub(super) fn perform(&mut self, at: SocketAddr, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, .. } if (self.cut)(at, to) => {}
                Effect::Send { to, kind, frame } => {
                    self.recording.push((to, kind, frame.clone()));
                    self.wire.push_back((to, kind, frame));
                }
                Effect::Tell(News::Changed { owner, changes, extent }) => {
                    let heard = self.heard.entry((at, owner.clone())).or_default();
                    if *heard >= extent.since {
                        *heard = extent.until.max(*heard);
                    }
                    self.applied.push((at, owner, changes));
                }
                Effect::Ask { owner, said } => {
                    let heard = self.heard.entry((at, owner.clone())).or_default();
                    if said.is_none_or(|said| *heard < said) {
                        self.asks.push((at, owner));
                    }
                }
                Effect::Asked(question) => self.asked.push((at, question)),
                Effect::Handshake(peer) => self.handshakes.push((at, peer)),
                Effect::Tell(News::Heard { owner, .. }) => self.told.push((at, owner, true)),
                Effect::Tell(News::Silent { owner, .. }) => self.told.push((at, owner, false)),
                Effect::NameTaken(by) => self.names_taken.push((at, by)),
                Effect::Tell(_) | Effect::Chitchat { .. } | Effect::Admitted(_) | Effect::KeysTaken(_) => {}
            }
        }
    }

    pub(super) fn counters(&self, n: u8) -> &Counters {
        &self.links[&addr(n)].2
    }

    pub(super) fn peers(&self, n: u8) -> usize {
        self.links[&addr(n)].0.live().count()
    }

    /// Which agents heard which numbers.
    pub(super) fn numbers(&self) -> Vec<(SocketAddr, u64)> {
        let mut heard: Vec<_> = self
            .applied
            .iter()
            .flat_map(|(at, _, changes)| changes.iter().map(|c| (*at, c.cell.version)))
            .collect();
        heard.sort_unstable();
        heard.dedup();
        heard
    }
}

#[test]
fn agents_that_know_an_address_admit_each_other_and_exchange_states() {
    let mut room = Room::new(3);
    room.meet();
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [2, 2, 2]);
    assert!(room.handshakes.contains(&(addr(1), addr(3))));
}

#[test]
fn states_are_exchanged_again_until_chitchat_knows_the_peer() {
    let mut room = Room::new(2);
    room.meet();
    room.handshakes.clear();
    room.run(2_000);
    assert!(room.handshakes.contains(&(addr(1), addr(2))));
    let all = HashSet::from([addr(1), addr(2)]);
    for (link, ..) in room.links.values_mut() {
        link.set_targets(room.now, all.clone(), &all);
    }
    room.handshakes.clear();
    room.run(2_000);
    assert!(room.handshakes.is_empty());
}

#[test]
fn a_change_reaches_every_peer_after_one_delay_in_one_sealed_frame() {
    let mut room = Room::new(4);
    room.meet();
    room.recording.clear();
    room.publish(1, 7);
    let frames: Vec<_> = room.recording.iter().filter(|(_, kind, _)| *kind == Kind::Push).collect();
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|(_, _, frame)| Arc::ptr_eq(frame, &frames[0].2)), "sealed once");
    room.run(1);
    assert_eq!(room.numbers(), [(addr(2), 7), (addr(3), 7), (addr(4), 7)]);
    room.run(1_000);
    let pushes = room.recording.iter().filter(|(_, kind, _)| *kind == Kind::Push).count();
    assert_eq!(pushes, 3, "acknowledged, so not repeated");
}

#[test]
fn a_lost_push_is_said_again() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |kind, n| kind == Kind::Push && !n.is_multiple_of(4);
    for version in 1..=50 {
        room.publish(1, version);
        room.run(200);
    }
    assert!(room.numbers().len() >= 40, "{} of 50", room.numbers().len());
    let given_up = room.counters(1).pushes_given_up();
    assert_eq!(room.numbers().len() as u64 + given_up, 50, "what did not arrive was left to repair");
}

#[test]
fn whoever_missed_a_push_does_not_believe_that_it_knows_all() {
    let mut room = Room::new(2);
    room.meet();
    let known = |room: &Room| {
        let owner = Owner { name: "a1".parse().unwrap(), generation: 1 };
        room.heard.get(&(addr(2), owner)).copied().unwrap_or_default()
    };
    room.publish(1, 1);
    room.run(10);
    assert_eq!(known(&room), 1);
    room.lose = |kind, _| kind == Kind::Push;
    room.publish(1, 2);
    room.run(5_000);
    room.lose = |_, _| false;
    room.publish(1, 3);
    room.run(10);
    assert_eq!(
        (known(&room), room.numbers().last()),
        (1, Some(&(addr(2), 3))),
        "it has 3, and may miss others"
    );
}

#[test]
fn who_meets_or_returns_is_asked_what_it_said() {
    let mut room = Room::new(2);
    room.meet();
    let owner = |n: u8| Owner { name: format!("a{n}").parse().unwrap(), generation: 1 };
    let both = [(addr(1), owner(2)), (addr(2), owner(1))];
    assert!(both.iter().all(|ask| room.asks.contains(ask)), "{:?}", room.asks);
    room.asks.clear();
    room.lose = |_, _| true;
    room.run(8_000);
    room.lose = |_, _| false;
    room.run(1_200);
    assert!(both.iter().all(|ask| room.asks.contains(ask)), "{:?}", room.asks);
}

#[test]
fn what_no_push_brought_is_missed_at_the_pings() {
    let mut room = Room::new(2);
    room.meet();
    room.asks.clear();
    room.publish(1, 7);
    room.run(2_000);
    assert!(room.asks.is_empty(), "nothing is missing: {:?}", room.asks);
    room.lose = |kind, _| kind == Kind::Push;
    room.publish(1, 8);
    room.run(2_000);
    let owner = Owner { name: "a1".parse().unwrap(), generation: 1 };
    assert!(room.asks.contains(&(addr(2), owner)) && room.asks.iter().all(|(at, _)| *at == addr(2)));
}

#[test]
fn the_owner_is_asked_if_it_is_heard_and_anybody_else_if_not() {
    let mut room = Room::new(3);
    room.meet();
    let version = 4;
    for (owner, generation, asked) in [("a2", 1, Some(addr(2))), ("a2", 9, None), ("a9", 1, None)] {
        let owner = Owner { name: owner.parse().unwrap(), generation };
        let effects = room.links.get_mut(&addr(1)).unwrap().0.ask(room.now, &owner, version);
        room.asked.clear();
        room.perform(addr(1), effects);
        room.run(1);
        let [(at, question)] = &*room.asked else { panic!("{:?}", room.asked) };
        assert_eq!(*question, Question { by: addr(1), owner: owner.clone(), after: version, from: 0 });
        assert!(asked.is_none_or(|asked| *at == asked));
        assert!(room.links.get_mut(&addr(1)).unwrap().0.ask(room.now, &owner, version).is_empty(), "once");
    }
}

#[test]
fn a_lost_ack_repeats_the_push_and_not_its_acknowledgement_only() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |kind, _| kind == Kind::PushAck;
    room.publish(1, 7);
    room.run(2_000);
    assert!(room.applied.len() > 1, "each repetition is a new frame, so that it is acknowledged anew");
    assert_eq!(room.counters(2).dropped(Dropped::Replayed), 0);
}

#[test]
fn a_recorded_conversation_changes_nothing_when_it_is_played_again() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    let recording = room.recording.clone();
    let (applied, sent) = (room.applied.len(), room.recording.len());
    for (to, _, frame) in &recording {
        room.deliver(*to, frame);
    }
    assert_eq!((room.applied.len(), room.recording.len()), (applied, sent), "no effect and no answer");
    let replayed = room.counters(1).dropped(Dropped::Replayed) + room.counters(2).dropped(Dropped::Replayed);
    assert!(replayed > 0);
}

#[test]
fn a_restarted_agent_takes_nothing_from_a_recording() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    let recording = room.recording.clone();
    room.applied.clear();
    room.links.remove(&addr(1));
    room.enter(2, 2, &Arc::new(Sealer::new(Keyring::public(), "c")));
    for (to, _, frame) in &recording {
        room.deliver(*to, frame);
        room.run(20);
    }
    assert!(room.applied.is_empty());
    assert_eq!(room.peers(2), 0, "nobody answered its challenge");
    assert!(room.counters(2).dropped(Dropped::Stranger) > 0);
}

#[test]
fn our_own_frames_thrown_back_are_dropped() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    let push = room.recording.iter().rfind(|(_, kind, _)| *kind == Kind::Push).unwrap().2.clone();
    room.deliver(addr(1), &push);
    assert_eq!(room.counters(1).dropped(Dropped::Reflected), 1);
    assert!(room.applied.iter().all(|(at, ..)| *at != addr(1)));
}

#[test]
fn an_agent_told_to_join_itself_leaves_itself_alone() {
    let mut room = Room::new(1);
    let alias = addr(9);
    let (link, sealer, counters) = room.links.remove(&addr(1)).unwrap();
    room.links.insert(alias, (link, sealer, counters));
    room.meet();
    let pings = |room: &Room| room.recording.iter().filter(|(to, ..)| *to == alias).count();
    assert_eq!(pings(&room), 1, "one, which came back");
    room.meet();
    assert_eq!(pings(&room), 1);
}

#[test]
fn an_agent_with_another_key_stays_outside_and_is_counted() {
    let mut room = Room::new(2);
    room.enter(3, 1, &Arc::new(Sealer::new(Keyring::parse(&generate()).unwrap(), "c")));
    room.enter(4, 1, &Arc::new(Sealer::new(Keyring::public(), "other")));
    room.meet();
    room.publish(3, 7);
    room.publish(4, 8);
    room.run(100);
    assert_eq!([1, 2, 3, 4].map(|n| room.peers(n)), [1, 1, 0, 0]);
    assert!(room.applied.is_empty());
    assert!(room.counters(1).dropped(Dropped::UnknownKey) > 0);
    assert!(room.counters(1).dropped(Dropped::BadSeal) > 0);
}

#[test]
fn a_peer_that_was_silent_gets_an_exchange_of_states_when_it_is_back() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |_, _| true;
    room.run(8_000);
    assert_eq!([1, 2].map(|n| room.peers(n)), [0, 0]);
    room.handshakes.clear();
    room.lose = |_, _| false;
    room.run(1_200);
    assert_eq!([1, 2].map(|n| room.peers(n)), [1, 1]);
    assert!(room.handshakes.contains(&(addr(1), addr(2))) || room.handshakes.contains(&(addr(2), addr(1))));
}

#[test]
fn whatever_an_authentic_peer_sends_is_dropped_or_taken_and_never_ends_anything() {
    let mut room = Room::new(2);
    room.meet();
    let header = Header { session: [9; 8], counter: 0, from: addr(7), kind: 0, compressed: false };
    let sealer = Sealer::new(Keyring::public(), "c");
    let mut malformed = 0;
    for kind in 0..=255 {
        for payload in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x01\xff\xff\xff\xff\x0f", &[0; 300]]
        {
            let header = Header { kind, counter: 1, ..header };
            room.deliver(addr(1), &seal(&sealer, kind, &wire::pack(header, payload)));
            malformed = room.counters(1).dropped(Dropped::Malformed);
        }
    }
    for len in 0..40 {
        room.deliver(addr(1), &seal(&sealer, 1, &vec![0xff; len]));
    }
    let unspecified = Header { from: "0.0.0.0:1".parse().unwrap(), ..header };
    room.deliver(addr(1), &seal(&sealer, 2, &wire::pack(unspecified, b"\0")));
    assert!(malformed > 0 && room.counters(1).dropped(Dropped::UnknownKind) > 0);
    assert_eq!(room.peers(1), 1);
    room.publish(2, 7);
    room.run(5);
    assert_eq!(room.numbers(), [(addr(1), 7)]);
}

fn public() -> Arc<Sealer> {
    Arc::new(Sealer::new(Keyring::public(), "c"))
}

#[test]
fn an_agent_that_crashed_asks_for_what_it_said_also_if_none_of_it_was_pushed() {
    let mut room = Room::new(2);
    room.meet();
    room.enter(1, 2, &public());
    room.meet();
    room.run(1_000);
    let former = Owner { name: "a1".parse().unwrap(), generation: 1 };
    assert!(room.asks.contains(&(addr(1), former)), "{:?}", room.asks);
}

#[test]
fn an_agent_that_crashed_hears_from_its_peers_what_it_said_last() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    room.applied.clear();
    // The first words to the returned agent are lost, or come before it has admitted who says them.
    room.lose = |kind, n| kind == Kind::Push && n % 3 != 0;
    room.enter(1, 2, &public());
    room.meet();
    room.run(1_000);
    let former = Owner { name: "a1".parse().unwrap(), generation: 1 };
    assert!(room.applied.contains(&(addr(1), former.clone(), vec![change(7)])), "{:?}", room.applied);
    assert!(room.asks.contains(&(addr(1), former)), "for what it said before: {:?}", room.asks);
    assert!(room.applied.iter().all(|(at, ..)| *at == addr(1)), "nobody else is told");
}
