//! Who is suspected, and when: dead hosts soon, living ones never.

use super::*;

impl Room {
    pub(super) fn suspicions(&self) -> usize {
        self.told().iter().filter(|(_, _, heard)| !heard).count()
    }

    /// Who heard (true) or missed (false) whom.
    fn told(&self) -> Vec<(SocketAddr, Owner, bool)> {
        let of = |(at, agent): (&SocketAddr, &Member)| {
            let at = *at;
            agent.copies.told.clone().into_iter().map(move |(owner, heard)| (at, owner, heard))
        };
        self.agents.iter().flat_map(of).collect()
    }

    /// Milliseconds until everybody has told of `count` suspicions.
    fn until_suspicions(&mut self, count: usize) -> u32 {
        for ms in 0..10_000 {
            if self.suspicions() >= count {
                return ms;
            }
            self.run(1);
        }
        panic!("{} suspicions", self.suspicions());
    }
}

fn a_dead_host_is_suspect_everywhere(agents: u8) {
    let mut room = Room::new(agents);
    room.meet();
    room.agents.remove(&addr(1));
    let is_doubted = |member: &Member| member.copies.doubted.iter().any(|owner| owner.name.as_str() == "a1");
    let mut doubted = 0;
    while !room.agents.values().all(is_doubted) {
        room.run(1);
        doubted += 1;
    }
    assert!((500..=1_300).contains(&doubted), "{doubted} ms with {agents}");
    let ms = doubted + room.until_suspicions(usize::from(agents) - 1);
    assert!((2_000..=3_000).contains(&ms), "{ms} ms with {agents}");
    assert!(room.told().iter().all(|(_, owner, heard)| *heard || owner.name.as_str() == "a1"));
}

#[test]
fn a_dead_host_is_suspect_everywhere_within_three_seconds() {
    [3, 12].into_iter().for_each(a_dead_host_is_suspect_everywhere);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn a_dead_host_among_fifty_is_suspect_everywhere_within_three_seconds() {
    a_dead_host_is_suspect_everywhere(50);
}

/// Whether the n-th frame is lost: an even draw of one in five that is the same in every run.
pub(super) fn one_in_five(_: Kind, n: usize) -> bool {
    let mut z = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).is_multiple_of(5)
}

fn suspicions_in_ten_minutes_of_loss(agents: u8) -> usize {
    let mut room = Room::new(agents);
    room.meet();
    room.lose = one_in_five;
    for _ in 0..600 {
        room.run(1_000);
        room.recording.clear();
    }
    room.suspicions()
}

#[test]
fn pings_that_are_due_at_almost_the_same_time_share_a_look_at_all_peers() {
    let mut room = Room::new(1);
    let Member { link, copies, .. } = room.agents.get_mut(&addr(1)).unwrap();
    let (mut targets, mut looks, mut pings) = (BTreeSet::new(), 0, 0);
    for ms in 0..6_000 {
        room.now += MS;
        if let Ok(n @ 2..=100) = u8::try_from(ms) {
            targets.insert(addr(n));
            link.handle_joins(room.now, targets.clone());
        }
        if link.next_due() <= room.now {
            let sent = link.handle_due(room.now, &mut Noting(copies.into())).frames.len();
            if ms >= 5_000 {
                (looks, pings) = (looks + 1, pings + sent);
            }
        }
    }
    assert_eq!(pings, 198, "everybody twice a second");
    assert!(looks <= 100, "{looks} looks");
}

#[test]
fn nobody_alive_is_suspected_in_ten_minutes_at_twenty_per_cent_loss() {
    assert_eq!(suspicions_in_ten_minutes_of_loss(3), 0);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn nobody_of_eight_is_suspected_in_ten_minutes_at_twenty_per_cent_loss() {
    assert_eq!(suspicions_in_ten_minutes_of_loss(8), 0);
}

#[test]
#[ignore = "minutes, even with optimization: cargo test --release --lib -- --ignored"]
fn nobody_of_fifty_is_suspected_in_ten_minutes_at_twenty_per_cent_loss() {
    assert_eq!(suspicions_in_ten_minutes_of_loss(50), 0);
}

#[test]
fn a_burst_of_changes_makes_nobody_suspect() {
    let mut room = Room::new(5);
    room.meet();
    for version in 1..=20_000 {
        room.publish(1, version);
        if version % 10 == 0 {
            room.run(1);
        }
    }
    room.run(10_000);
    assert_eq!(room.suspicions(), 0);
}

#[test]
fn our_own_pause_is_nobodys_silence() {
    for pause in [2, 10, 600] {
        let mut room = Room::new(3);
        room.meet();
        room.run(3_000);
        let us = room.agents.remove(&addr(1)).unwrap();
        room.now += Duration::from_secs(pause);
        room.agents.insert(addr(1), us);
        room.forget_what_was_noted();
        room.run(5_000);
        let told: Vec<_> =
            room.told().into_iter().filter(|(at, _, heard)| *at == addr(1) && !heard).collect();
        assert!(told.is_empty(), "{pause} s: {told:?}");
    }
}

#[test]
fn a_peer_starved_for_two_seconds_is_not_suspected() {
    for phase in 0..10 {
        let mut room = Room::new(4);
        room.meet();
        room.run(3_000 + 100 * phase);
        let starved = room.agents.remove(&addr(1)).unwrap();
        room.run(2_000);
        room.agents.insert(addr(1), starved);
        room.run(3_000);
        assert_eq!(room.suspicions(), 0);
    }
}

#[test]
fn a_suspect_that_is_heard_again_is_told_at_once() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |_, _| true;
    room.until_suspicions(2);
    room.forget_what_was_noted();
    room.lose = |_, _| false;
    room.run(1_100);
    assert!(room.told().iter().any(|(at, _, heard)| *at == addr(1) && *heard));
    assert!(room.told().iter().any(|(at, _, heard)| *at == addr(2) && *heard));
}
