//! A cluster in which not everybody watches everybody: what holds in a small one has to hold here.

use super::super::watch::Tie;
use super::suspicion::one_in_five;
use super::*;

/// So few that a room of twenty is a large cluster.
const FEW: usize = 4;

fn large(agents: u8) -> Room {
    let mut room = Room::of(agents, FEW);
    room.meet();
    room.run(3_000);
    room.forget_what_was_noted();
    room
}

impl Room {
    fn suspected(&self) -> BTreeSet<String> {
        let told = self.agents.values().flat_map(|agent| agent.copies.told.clone());
        told.filter(|(_, heard)| !heard).map(|(owner, _)| owner.name.to_string()).collect()
    }

    /// How many agents have not yet told that they miss this one.
    fn unaware(&self, n: u8) -> usize {
        let misses = |member: &&Member| member.copies.told.last_of(n) == Some(false);
        self.agents.len() - self.agents.values().filter(misses).count()
    }
}

trait LastOf {
    fn last_of(&self, n: u8) -> Option<bool>;
}

impl LastOf for Vec<(Owner, bool)> {
    fn last_of(&self, n: u8) -> Option<bool> {
        let name = owner(n, 1).name;
        self.iter().rev().find(|(owner, _)| owner.name == name).map(|(_, heard)| *heard)
    }
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn signs_of_life_do_not_grow_with_the_cluster() {
    let sent = [20, 40].map(|agents| {
        let mut room = large(agents);
        room.recording.clear();
        room.run(20_000);
        (room.sent(Kind::Ping) + room.sent(Kind::Pong)) / usize::from(agents)
    });
    // In twenty seconds: 40 to each of 8 watchers, and 80 questions and answers to others at most.
    assert!(sent.iter().all(|sent| (250..=500).contains(sent)), "{sent:?}");
    assert_eq!(large(20).suspicions(), 0);
}

#[test]
fn a_dead_host_is_suspect_everywhere_within_three_seconds() {
    let mut room = large(12);
    room.agents.remove(&addr(1));
    let mut ms = 0;
    while room.unaware(1) > 0 {
        room.run(10);
        ms += 10;
        assert!(ms <= 3_000, "{} do not know", room.unaware(1));
    }
    assert!(ms >= 2_000, "{ms} ms");
    assert_eq!(room.suspected(), BTreeSet::from(["a1".to_owned()]));
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn a_dead_host_is_suspect_everywhere_although_one_frame_in_five_is_lost() {
    let mut room = large(24);
    room.lose = one_in_five;
    room.run(20_000);
    assert_eq!(room.suspicions(), 0);
    room.agents.remove(&addr(1));
    room.run(3_500);
    assert_eq!(room.unaware(1), 0);
    room.run(60_000);
    assert_eq!(room.suspected(), BTreeSet::from(["a1".to_owned()]));
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn half_of_the_hosts_can_die_at_once() {
    let mut room = large(24);
    for n in 1..=12 {
        room.agents.remove(&addr(n));
    }
    room.run(12_000);
    assert!(
        (1..=12).all(|n| room.unaware(n) == 0),
        "{:?}",
        (1..=12).map(|n| room.unaware(n)).collect::<Vec<_>>()
    );
    assert_eq!(room.suspected().len(), 12);
}

#[test]
fn a_host_that_was_cut_off_suspects_all_and_is_suspected_by_all_and_everybody_meets_again() {
    let mut room = large(12);
    room.cut = |from, to| (from == addr(1)) != (to == addr(1));
    room.run(6_000);
    assert_eq!(room.unaware(1), 1, "all but itself");
    assert_eq!(room.copies(1).told.iter().filter(|(_, heard)| !heard).count(), 11);
    assert!((2..=12).all(|n| room.unaware(n) == 11), "and nobody else does");
    room.forget_what_was_noted();
    room.cut = |_, _| false;
    room.run(3_000);
    let heard = |at: u8, n: u8| room.copies(at).told.last_of(n) == Some(true);
    assert!((2..=12).all(|n| heard(n, 1)), "{:?}", (2..=12).filter(|n| !heard(*n, 1)).collect::<Vec<_>>());
    assert!((2..=12).all(|n| heard(1, n)));
    room.forget_what_was_noted();
    room.run(30_000);
    assert_eq!(room.suspicions(), 0);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn a_partition_in_halves_is_noticed_and_heals() {
    let mut room = large(24);
    room.cut = |from, to| half(from) != half(to);
    room.run(6_000);
    let missed = |room: &Room, at: u8| room.copies(at).told.iter().filter(|(_, heard)| !heard).count();
    assert!(
        (1..=24).all(|at| missed(&room, at) == 12),
        "{:?}",
        (1..=24).map(|at| missed(&room, at)).collect::<Vec<_>>()
    );
    room.cut = |_, _| false;
    room.forget_what_was_noted();
    room.run(3_000);
    assert!(
        (1..=24).all(|n| room.peers(n) == 23),
        "{:?}",
        (1..=24).map(|n| room.peers(n)).collect::<Vec<_>>()
    );
    room.run(30_000);
    assert_eq!(room.suspicions(), 0);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn halves_that_have_forgotten_each_other_meet_at_once() {
    let mut room = large(24);
    room.cut = |from, to| half(from) != half(to);
    room.run(320_000);
    assert!((1..=24).all(|n| room.shown(n) == 11));
    room.cut = |_, _| false;
    // Each asks one of the others every quarter of a second, and all as soon as one answers.
    room.run(300);
    assert_eq!((1..=24).map(|n| room.peers(n)).collect::<Vec<_>>(), [23; 24]);
}

/// Frames in a session that the other end does not know arrive nowhere, and nothing is expected in it.
#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn a_session_of_which_the_other_end_knows_nothing_is_noticed_at_the_first_push() {
    let mut room = large(24);
    let is_apart = |room: &mut Room, n: u8| {
        let name = owner(n, 1).name;
        room.link(1).peers.table[&name].tie == Tie { watches: false, is_watched: false }
    };
    let others: Vec<u8> = (2..=24).filter(|n| is_apart(&mut room, *n)).collect();
    assert!(others.len() > 4, "{others:?}");
    for other in &others {
        room.link(1).peers.to(addr(*other)).expect("a session").theirs ^= 1;
    }
    // Until then, those that hear of the first one from others cannot notice. One that says much is to notice as well.
    for version in 7..87 {
        room.publish(1, version);
        room.run(20);
    }
    room.publish(1, 87);
    room.run(20);
    let told = room.numbers();
    assert!(others.iter().all(|other| told.contains(&(addr(*other), 87))), "{others:?}");
}

#[test]
fn everybody_doubts_an_agent_as_soon_as_its_watchers_tell() {
    let mut room = large(24);
    room.forget_what_was_noted();
    room.agents.remove(&addr(1));
    let doubting = |room: &Room| (2..=24).filter(|n| room.copies(*n).doubted.contains(&owner(1, 1))).count();
    while doubting(&room) == 0 {
        room.run(1);
    }
    let mut ms = 0;
    while doubting(&room) < 23 {
        room.run(1);
        ms += 1;
        assert!(ms <= 100, "only {} of 23 after {ms} ms", doubting(&room));
    }
}

fn half(at: SocketAddr) -> bool {
    (1..=12).any(|n| addr(n) == at)
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn nobody_alive_is_suspected_in_five_minutes_at_forty_per_cent_loss() {
    let mut room = large(16);
    room.lose = |kind, n| one_in_five(kind, n) || one_in_five(kind, n + 7_919);
    room.run(300_000);
    assert_eq!(room.suspicions(), 0);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn all_watchers_of_an_agent_that_speak_ill_of_it_make_nobody_suspect_it_while_it_answers() {
    let mut room = large(24);
    let silent = vec![wire::Silent { name: "a2", generation: 1, silence_ms: 3_000 }];
    let alert = wire::encode(&wire::Alert { silent });
    let plan = &room.agents[&addr(1)].link.peers.plan;
    let watchers: BTreeSet<String> = plan.watchers(&owner(2, 1).name).map(ToString::to_string).collect();
    let liars: Vec<u8> = (1..=24).filter(|n| watchers.contains(&format!("a{n}"))).collect();
    assert!(liars.len() >= 3, "{liars:?}");
    for _ in 0..50 {
        for liar in &liars {
            for to in (1..=24).filter(|n| n != liar).map(addr) {
                let link = room.link(*liar);
                link.send(Kind::Alert, &alert, to);
                let effects = link.take_effects();
                room.perform(addr(*liar), effects);
            }
        }
        room.run(100);
    }
    assert_eq!(room.suspicions(), 0);
    let asked = |(from, to, kind, _): &&Sent| *kind == Kind::Ping && *to == addr(2) && *from != addr(2);
    assert!(room.recording.iter().filter(asked).count() > 100, "everybody was told, and asked it");
}

#[test]
fn changes_reach_everybody_and_a_newcomer_meets_everybody() {
    let mut room = large(12);
    room.publish(1, 7);
    room.run(5);
    assert_eq!(room.numbers().len(), 11);
    room.enter(13, 1, Keyring::public());
    room.join(addr(13), [addr(5)].into());
    room.run(5_000);
    assert!((1..=13).all(|n| room.peers(n) == 12));
}

#[test]
fn whoever_missed_a_push_hears_of_it_in_the_pings_of_others() {
    let mut room = large(12);
    // The one who misses it is neither watched by the owner nor its watcher.
    let missed = (2..=12).find(|n| {
        let known = &room.agents[&addr(1)].link.peers.table[&owner(*n, 1).name];
        !known.tie.watches && !known.tie.is_watched
    });
    let missed = missed.expect("somebody is far");
    room.lose = |kind, _| kind == Kind::Push;
    let (others, target) = ((2..=12).filter(|n| *n != missed), addr(missed));
    room.publish(1, 7);
    // Before the owner's turn comes to ask it for a sign of life.
    room.run(4_000);
    assert!(room.numbers().iter().any(|(at, _)| *at != target), "pings of the owner told its watchers");
    assert!(others.count() == 10 && room.numbers().contains(&(target, 7)), "and theirs told everybody");
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn an_agent_that_some_of_its_watchers_do_not_reach_lives_for_all_others_and_is_not_asked_without_end() {
    let mut room = large(24);
    let subject = owner(1, 1).name;
    let watchers: BTreeSet<String> =
        room.agents[&addr(2)].link.peers.plan.watchers(&subject).take(5).map(ToString::to_string).collect();
    let cut: BTreeSet<SocketAddr> =
        (2..=24).filter(|n| watchers.contains(&format!("a{n}"))).map(addr).collect();
    assert!(cut.len() >= 3, "{watchers:?}");
    CUT.with_borrow_mut(|now_cut| now_cut.clone_from(&cut));
    room.cut = |from, to| {
        CUT.with_borrow(|cut| from == addr(1) && cut.contains(&to) || to == addr(1) && cut.contains(&from))
    };
    room.run(30_000);
    let suspect: BTreeSet<SocketAddr> =
        (2..=24).filter(|n| room.copies(*n).told.last_of(1) == Some(false)).map(addr).collect();
    assert_eq!(suspect, cut, "those that do not reach it, and no others");
    room.recording.clear();
    room.run(10_000);
    let asked =
        room.recording.iter().filter(|(_, to, kind, _)| *to == addr(1) && *kind == Kind::Ping).count();
    assert!(asked <= 10 * 30, "{asked} pings in ten seconds");
}

thread_local! {
    /// Who does not reach the first agent.
    static CUT: std::cell::RefCell<BTreeSet<SocketAddr>> = const { std::cell::RefCell::new(BTreeSet::new()) };
}

#[test]
fn an_agent_that_left_is_pushed_to_by_nobody_soon_after() {
    let mut room = large(12);
    room.publish_change(1, change_to(9, Status::Left));
    room.run(50);
    room.agents.remove(&addr(1));
    room.run(6_000);
    let live: Vec<u8> = (2..=12).filter(|n| room.peers(*n) != 10).collect();
    assert!(live.is_empty(), "{live:?} take it for alive");
}

#[test]
fn an_agent_for_which_there_are_few_does_as_those_for_which_there_are_many() {
    let mut room = large(12);
    // Two start anew, among fewer than it takes to begin watching: for all others there are many.
    for n in 4..=9 {
        room.agents.remove(&addr(n));
    }
    room.mesh = 6;
    room.run(20_000);
    room.agents.remove(&addr(1));
    room.enter(1, 2, Keyring::public());
    room.join(addr(1), [addr(2)].into());
    room.run(3_000);
    assert!(room.agents.values().all(|agent| agent.link.peers.plan.is_sparse()));
}

#[test]
fn who_was_heard_is_live_also_when_it_is_watched_by_others_from_now_on() {
    const MESH: u8 = 16;
    let mut room = Room::of(MESH, MESH.into());
    room.meet();
    // So long that nobody has just been asked or admitted.
    room.run(8_000);
    let reported = |room: &mut Room, n: u8| room.link(n).reported.len();
    assert!((1..=MESH).all(|n| reported(&mut room, n) == usize::from(MESH) - 1));
    room.enter(MESH + 1, 1, Keyring::public());
    room.join(addr(MESH + 1), [addr(1)].into());
    for _ in 0..200 {
        room.run(1);
        let lost: Vec<u8> = (1..=MESH).filter(|n| reported(&mut room, *n) < usize::from(MESH) - 1).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
    assert!(room.link(1).peers.plan.is_sparse());
    assert!((1..=MESH).all(|n| reported(&mut room, n) == usize::from(MESH)));
}

#[test]
fn a_word_is_as_old_as_its_way_was_long() {
    let mut room = Room::of(12, 4);
    room.meet();
    room.run(2_000);
    let now = room.now;
    let link = room.link(1);
    let name = owner(5, 1).name;
    let watcher = link.peers.plan.watchers(&name).find(|watcher| **watcher != link.us().owner.name);
    let by = link.peers.table[watcher.unwrap()].peer.clone();
    for _ in 0..20 {
        link.pings.measured(now, by.addr, 400 * MS);
    }
    let trip = link.pings.trip(by.addr).unwrap();
    assert!(trip > 300 * MS);
    let silent = wire::Silent { name: name.as_str(), generation: 1, silence_ms: 1_500 };
    link.take_alerts(now, &by, &wire::Alert { silent: vec![silent] });
    let said = link.ran.now.unwrap().checked_sub(trip / 2).unwrap();
    assert_eq!(link.peers.table[&name].alerts[0].sign, said.checked_sub(1_500 * MS).unwrap());
}
