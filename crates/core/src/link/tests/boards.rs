//! Boards of many agents, and newcomers among them.

use super::*;

fn card(name: &str, age_ms: u32) -> wire::Card<'_> {
    let (generation, revision, left, buried, version) = (1, 1, false, false, 0);
    wire::Card {
        name,
        generation,
        revision,
        addr: addr(9),
        left,
        buried,
        version,
        age_ms,
        program: "1",
        keys: None,
    }
}

/// What two boards of 500 agents each are told, if they differ in these: the bytes of all frames that compare them.
fn compared(differ: [&[u32]; 2]) -> usize {
    let mut room = Room::new(2);
    room.meet();
    let names: Vec<String> = (0..500).map(|n| format!("left-{n}")).collect();
    let now = room.now;
    for (n, differ) in [1, 2].into_iter().zip(differ) {
        let card = |(at, name)| wire::Card {
            revision: if differ.contains(&at) { 2 } else { 1 },
            left: true,
            ..card(name, 1_000)
        };
        let cards: Vec<_> = (0..).zip(names.iter().map(String::as_str)).map(card).collect();
        // That it left is believed of whoever is known.
        for _ in 0..2 {
            assert_eq!(room.link(n).peers.take(now, &owner(3 - n, 1), &cards).refused, 0);
        }
    }
    room.recording.clear();
    room.link(2).next_digest += 60 * 1_000 * MS;
    let differ = |room: &mut Room| room.link(1).peers.hash(ALL_ROWS) != room.link(2).peers.hash(ALL_ROWS);
    while differ(&mut room) {
        room.run(1);
        assert!(room.sent(Kind::Digest) <= 1, "one comparison tells both");
    }
    room.run(4_000);
    let frames = room.recording.iter().filter(|(.., kind, _)| matches!(kind, Kind::Rows | Kind::Cards));
    frames.map(|(.., bytes)| bytes.len()).sum()
}

#[test]
fn of_large_boards_only_the_rows_that_differ_are_told() {
    assert_eq!(compared([&[], &[]]), 0);
    let one = compared([&[7], &[]]);
    assert!(one < 3_000, "{one}: the hashes of all rows, perhaps both ways, and a row");
    let both_ways = compared([&[7, 8, 9], &[10, 11]]);
    assert!(both_ways < 4_500, "{both_ways}");
    let all: Vec<u32> = (0..500).collect();
    let whole = compared([&all, &[]]);
    assert!(whole > 500 * 20, "{whole}");
}

#[test]
fn hashes_of_rows_that_there_are_not_say_nothing() {
    let mut room = Room::new(1);
    let mut unlike = |len| room.link(1).peers.rows_unlike(&wire::Rows { hashes: &vec![1; len] });
    assert_eq!([0, 7, 8, 15, 16].map(&mut unlike), [0, 0, 1, 1, 3]);
    assert_eq!([1_024, 60_000].map(&mut unlike), [ALL_ROWS; 2]);
}

/// Sixty agents that are only expected back.
fn miss(room: &mut Room, n: u8) {
    let names: Vec<String> = (0..60).map(|n| format!("away-{n}")).collect();
    let age_ms = u32::try_from(DEAD_GRACE.as_millis()).unwrap() * 2 / 3;
    let cards: Vec<_> = names.iter().map(|name| card(name, age_ms)).collect();
    let now = room.now;
    room.link(n).peers.take(now, &owner(100, 1), &cards);
    assert_eq!(expected(room, n), 60);
}

fn expected(room: &mut Room, n: u8) -> usize {
    room.link(n).peers.table.values().filter(|known| known.is_forgotten).count()
}

#[test]
fn a_newcomer_learns_of_all_although_frames_get_lost() {
    let mut room = Room::new(2);
    room.meet();
    (1..=2).for_each(|n| miss(&mut room, n));
    room.lose = one_in_five;
    room.enter(3, 1, Keyring::public());
    room.join(addr(3), [addr(1)].into());
    room.run(4_000);
    assert_eq!((expected(&mut room, 3), room.peers(3)), (60, 2));
}

/// A key that they need would be removed where nobody expects them back.
#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn a_newcomer_among_many_is_told_at_once_also_who_is_only_expected_back() {
    let mut room = Room::new(36);
    room.meet();
    (1..=36).for_each(|n| miss(&mut room, n));
    room.enter(37, 1, Keyring::public());
    room.join(addr(37), [addr(1)].into());
    room.run(20);
    assert_eq!((expected(&mut room, 37), room.peers(37)), (60, 36));
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn nobody_of_many_compares_its_board_with_each_newcomer() {
    let mut room = Room::new(36);
    room.meet();
    room.run(12_000);
    room.enter(37, 1, Keyring::public());
    room.recording.clear();
    room.join(addr(37), [addr(1)].into());
    room.run(300);
    assert_eq!(room.peers(37), 36);
    let digests =
        room.recording.iter().filter(|(_, to, kind, _)| *kind == Kind::Digest && *to == addr(37)).count();
    assert!(digests < 6, "{digests} of 36");
}

#[test]
fn the_keys_of_a_session_are_used_for_an_hour() {
    let mut room = Room::new(2);
    room.meet();
    let hour = 3_600_000;
    room.run(hour - 10_000);
    let begun = |room: &mut Room| {
        let session = room.link(1).peers.to(addr(2)).expect("there is one");
        session.since
    };
    let first = begun(&mut room);
    room.run(9_000);
    assert_eq!(begun(&mut room), first);
    room.run(2_000);
    assert!(begun(&mut room) > first);
    assert!(room.copies(1).told.iter().all(|(_, heard)| *heard), "and nobody notices");
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn what_pushes_and_rumours_missed_is_found_when_boards_are_compared() {
    const AGENTS: u8 = 48;
    let mut room = Room::of(AGENTS, 4);
    room.meet();
    room.run(3_000);
    // All say something at once, more than rumours tell, and longer ago than they do.
    room.lose = |kind, _| matches!(kind, Kind::Push | Kind::Question);
    (1..=AGENTS).for_each(|n| room.publish(n, 7));
    room.run(12_000);
    room.lose = |_, _| false;
    room.recording.clear();
    room.run(6_000);
    let lacking: Vec<(u8, u8)> = (1..=AGENTS)
        .flat_map(|at| (1..=AGENTS).map(move |of| (at, of)))
        .filter(|(at, of)| room.copies(*at).versions.get(&owner(*of, 1)) != Some(&7))
        .collect();
    assert!(lacking.is_empty(), "{} of them: {lacking:?}", lacking.len());
    let versions = room.recording.iter().filter(|(.., kind, _)| *kind == Kind::Versions);
    assert!(versions.map(|(.., bytes)| bytes.len()).max() <= Some(MAX_DATAGRAM));
    room.recording.clear();
    room.run(10_000);
    assert_eq!([Kind::Copies, Kind::Versions].map(|kind| room.sent(kind)), [0; 2], "they are the same now");
}

#[test]
fn versions_that_a_member_makes_up_are_not_believed_and_cost_others_little() {
    let mut room = Room::of(24, 4);
    room.meet();
    room.run(3_000);
    room.publish(3, 7);
    room.run(1_000);
    let names: Vec<String> = (1..=24).map(|n| format!("a{n}")).collect();
    let owners: Vec<_> = names.iter().map(|name| (name.as_str(), 1, u64::MAX)).collect();
    let versions = wire::pack(Kind::Versions, &wire::encode(&wire::Versions { is_answer: false, owners }));
    let digest = wire::Digest { hash: 0, cards: 24, silent: vec![], copies: 1 };
    let digest = wire::pack(Kind::Digest, &wire::encode(&digest));
    room.recording.clear();
    for _ in 0..300 {
        room.say(2, 1, &versions);
        room.say(2, 1, &digest);
        room.run(10);
    }
    assert_eq!(room.copies(1).versions[&owner(3, 1)], 7);
    let questions =
        room.recording.iter().filter(|(from, _, kind, _)| *kind == Kind::Question && *from == addr(1));
    let questions = questions.count();
    assert!((1..=4 * 24).contains(&questions), "{questions} questions in three seconds");
    assert!(room.sent(Kind::Copies) <= 8, "{}", room.sent(Kind::Copies));
}

#[test]
fn an_agent_that_a_card_brings_is_pinged_soon_whoever_was_at_its_address() {
    let mut room = Room::new(2);
    room.meet();
    let now = room.now;
    let link = room.link(1);
    assert_eq!(link.peers.take(now, &owner(2, 1), &[card("new", 1_000)]).refused, 0);
    let found = link.peers.judge(now, now, &link.pings).approached;
    assert!(found.contains(&(addr(9), Nearness::Stranger)), "{found:?}");
}
