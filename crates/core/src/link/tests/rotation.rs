//! Keys changed under running agents, in the room of the link's tests: with loss, while one is away, on two sides of a
//! cut.

use super::suspicion::one_in_five;
use super::*;
use crate::event::PeerChange;
use crate::link::keyring::{Key, KeyringChange};
use crate::link::keys::{Filed, KeysRefused, Need};

fn keyed(keys: &[&Key]) -> Keyring {
    let lines: Vec<_> = keys.iter().map(|key| key.line().to_string()).collect();
    Keyring::parse(&lines.join("\n")).unwrap()
}

/// Agents of one key that have met.
fn room(agents: u8, first: &Key) -> Room {
    let mut room = Room::new(0);
    for n in 1..=agents {
        room.enter(n, 1, keyed(&[first]));
    }
    room.meet();
    room
}

impl Room {
    fn keyring(&self, n: u8) -> Arc<Keyring> {
        self.agents[&addr(n)].link.keyring.clone()
    }

    fn change(&mut self, n: u8, change: KeyringChange, force: bool) -> Result<(), KeysRefused> {
        let now = self.now;
        let effects = self.link(n).change_keys(now, change, force)?;
        self.perform(addr(n), effects);
        Ok(())
    }

    fn made(&mut self, n: u8, change: KeyringChange) {
        self.change(n, change, false).expect("everybody is ready");
        self.settle();
    }

    fn forced(&mut self, n: u8, change: KeyringChange) {
        self.change(n, change, true).expect("it makes sense");
        self.settle();
    }

    /// Frames go to and fro, then files are written, and that is told.
    fn settle(&mut self) {
        self.run(1_000);
        self.write_files();
        self.run(1_000);
    }

    /// Everybody's key files are written.
    fn write_files(&mut self) {
        let now = self.now;
        for at in self.agents.keys().copied().collect::<Vec<_>>() {
            let link = &mut self.at(at).link;
            let what = link.keyring.fingerprint();
            if link.peers.own.keys.filed != Filed::Written {
                let effects = link.handle_filed(now, what, Ok(()));
                self.perform(at, effects);
            }
        }
    }

    fn all_have(&self, keyring: &Keyring) -> bool {
        self.agents.values().all(|agent| agent.link.keyring.fingerprint() == keyring.fingerprint())
    }

    /// Runs until all have one keyring, and know it of each other.
    fn agree(&mut self, ms: u32) {
        for _ in 0..ms {
            self.write_files();
            let first = self.agents.values().next().expect("somebody").link.keyring.clone();
            let known = |link: &Link, now| link.key_report(now).unwrap().lacking(Need::Newest).is_empty();
            if self.all_have(&first) && self.agents.values().all(|agent| known(&agent.link, self.now)) {
                return;
            }
            self.run(1);
        }
        let rings: Vec<_> = self
            .agents
            .values()
            .map(|Member { link, .. }| (link.keyring.clone(), link.key_report(self.now)))
            .collect();
        panic!("no agreement in {ms} ms: {rings:#?}");
    }

    fn reasons(&self, n: u8, need: Need) -> Vec<String> {
        let report = self.agents[&addr(n)].link.key_report(self.now).unwrap();
        report.lacking(need).into_iter().map(|lack| format!("{}: {}", lack.agent, lack.why)).collect()
    }
}

#[test]
fn a_key_is_added_used_and_removed_at_one_agent_and_so_at_all() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(5, &old);
    for change in
        [KeyringChange::Add(new.clone()), KeyringChange::Use(new.id()), KeyringChange::Remove(old.id())]
    {
        room.made(3, change);
        room.agree(1_000);
    }
    assert_eq!(room.keyring(5).ids().collect::<Vec<_>>(), [new.id()]);
    let told = room
        .copies(1)
        .changed
        .iter()
        .filter(|(of, change)| *of == owner(3, 1) && *change == PeerChange::Keys);
    assert_eq!(told.count(), 3, "of each change once");
    assert_eq!([1, 2, 3, 4, 5].map(|n| room.peers(n)), [4; 5]);
    assert_eq!(room.suspicions(), 0);
    room.publish(1, 7);
    room.run(5);
    assert_eq!(room.numbers().len(), 4, "and changes still arrive");
}

fn keys_reach_everybody_although_one_frame_in_five_is_lost_among(agents: u8) {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(agents, &old);
    room.lose = one_in_five;
    for change in
        [KeyringChange::Add(new.clone()), KeyringChange::Use(new.id()), KeyringChange::Remove(old.id())]
    {
        room.change(1, change, false).unwrap();
        room.agree(20_000);
    }
    assert_eq!(room.keyring(2).ids().count(), 1);
    assert_eq!(room.suspicions(), 0);
}

#[test]
fn keys_reach_everybody_although_one_frame_in_five_is_lost() {
    [3, 6].into_iter().for_each(keys_reach_everybody_although_one_frame_in_five_is_lost_among);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn keys_reach_twenty_although_one_frame_in_five_is_lost() {
    keys_reach_everybody_although_one_frame_in_five_is_lost_among(20);
}

#[test]
fn an_agent_that_was_away_comes_back_with_its_old_key_and_is_given_the_new_one() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    for away in [1, 3] {
        // Agent 1 is the one that others join at, and joins nobody.
        let mut room = room(3, &old);
        room.agents.remove(&addr(away));
        room.run(5_000);
        let asked = 2;
        room.made(asked, KeyringChange::Add(new.clone()));
        let name = format!("a{away}");
        let refused = room.change(asked, KeyringChange::Use(new.id()), false).unwrap_err().to_string();
        let why = |silence: u8| format!("{name}: silent for {silence} s; does not have the key {}", new.id());
        assert!([6, 7].into_iter().any(|silence| refused.contains(&why(silence))), "{refused}");
        assert_eq!(refused.matches("\n  ").count(), 1, "nobody else: {refused}");
        room.forced(asked, KeyringChange::Use(new.id()));
        assert!(room.change(asked, KeyringChange::Remove(old.id()), false).is_err());

        room.enter(away, 2, keyed(&[&old]));
        let others = if away == 1 { BTreeSet::new() } else { BTreeSet::from([addr(1)]) };
        room.join(addr(away), others);
        room.run(5_000);
        assert_eq!(room.keyring(away).sealing(), new.id());
        assert_eq!(room.peers(away), 2);
        room.agree(1_000);
        room.made(asked, KeyringChange::Remove(old.id()));
        assert_eq!(room.keyring(away).ids().collect::<Vec<_>>(), [new.id()]);
    }
}

#[test]
fn a_removal_that_was_forced_cuts_off_who_was_away_and_nobody_else() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(3, &old);
    room.agents.remove(&addr(3));
    room.run(5_000);
    room.made(1, KeyringChange::Add(new.clone()));
    for change in [KeyringChange::Use(new.id()), KeyringChange::Remove(old.id())] {
        room.forced(1, change);
    }
    room.enter(3, 2, keyed(&[&old]));
    room.meet();
    room.run(5_000);
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [1, 1, 0]);
    assert!(room.counters(3).dropped(Dropped::UnknownKey) > 0);
}

#[test]
fn two_operators_on_two_sides_of_a_cut_lose_no_key_and_cut_nobody_off() {
    let [old, near, far] = [(); 3].map(|()| Key::generate());
    let mut room = room(4, &old);
    room.made(1, KeyringChange::Add(near.clone()));
    room.made(4, KeyringChange::Add(far.clone()));
    room.agree(1_000);
    room.cut = |from, to| (from <= addr(2)) != (to <= addr(2));
    room.run(5_000);
    // Everybody is known to have both keys, so each side may go on, but not to the end.
    room.made(1, KeyringChange::Use(near.id()));
    room.made(4, KeyringChange::Use(far.id()));
    assert!(room.change(2, KeyringChange::Remove(old.id()), false).is_err());
    assert!(room.change(3, KeyringChange::Remove(old.id()), false).is_err());
    assert_eq!([1, 2, 3, 4].map(|n| room.keyring(n).sealing()), [near.id(), near.id(), far.id(), far.id()]);

    room.cut = |_, _| false;
    room.run(3_000);
    room.agree(1_000);
    let ring = room.keyring(1);
    assert_eq!(ring.sealing(), near.id().min(far.id()));
    assert!([&old, &near, &far].iter().all(|key| ring.has(key.id())));
    assert_eq!([1, 2, 3, 4].map(|n| room.peers(n)), [3; 4]);
}

#[test]
fn keys_that_each_side_of_a_cut_added_and_used_by_force_open_everywhere_when_it_is_healed() {
    let [old, near, far] = [(); 3].map(|()| Key::generate());
    let mut room = room(4, &old);
    room.cut = |from, to| (from <= addr(2)) != (to <= addr(2));
    room.run(5_000);
    for (at, key) in [(1, &near), (4, &far)] {
        room.made(at, KeyringChange::Add(key.clone()));
        room.forced(at, KeyringChange::Use(key.id()));
    }
    room.cut = |_, _| false;
    // Nobody opens what the other side seals, but for the old key, with which strangers are tried.
    room.run(10_000);
    room.agree(1_000);
    assert!([&old, &near, &far].iter().all(|key| room.keyring(3).has(key.id())));
    assert_eq!([1, 2, 3, 4].map(|n| room.peers(n)), [3; 4]);
}

#[test]
fn whoever_starts_anew_learns_from_the_others_who_is_away() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(3, &old);
    room.agents.remove(&addr(3));
    room.run(600_000);
    room.made(1, KeyringChange::Add(new.clone()));
    room.enter(2, 2, keyed(&[&old]));
    room.meet();
    room.settle();
    let reasons = room.reasons(2, Need::Key(new.id()));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].starts_with("a3: silent for 10 min; does not have the key"), "{reasons:?}");
}

#[test]
fn who_said_goodbye_is_not_waited_for_until_it_comes_back() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(3, &old);
    // Agent 2 learns it from the board.
    room.cut = |from, to| [from, to] == [addr(3), addr(2)];
    room.publish_change(3, change_to(7, Status::Left));
    room.run(10);
    room.agents.remove(&addr(3));
    room.cut = |_, _| false;
    room.run(3_000);
    for change in [KeyringChange::Add(new.clone()), KeyringChange::Use(new.id())] {
        room.made(1, change);
        room.agree(1_000);
    }
    room.enter(3, 2, keyed(&[&old]));
    room.meet();
    room.run(3_000);
    assert_eq!(room.keyring(3).sealing(), new.id());
}

#[test]
fn an_agent_that_cannot_write_its_file_is_named_until_it_can() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(2, &old);
    room.made(1, KeyringChange::Add(new.clone()));
    let (now, what) = (room.now, room.keyring(2).fingerprint());
    let effects = room.link(2).handle_filed(now, what, Err("cannot write /key".into()));
    room.perform(addr(2), effects);
    room.run(1_000);
    assert_eq!(room.reasons(1, Need::Key(new.id())), ["a2: in memory only: key file not writable"]);
    assert_eq!(room.reasons(2, Need::Key(new.id())), ["a2: in memory only: cannot write /key"]);
    assert!(room.change(1, KeyringChange::Use(new.id()), false).is_err());
    assert!(room.change(2, KeyringChange::Use(new.id()), false).is_err());
    room.write_files();
    room.run(1_000);
    room.made(1, KeyringChange::Use(new.id()));
}

#[test]
fn an_older_gossd_is_named_and_understood_for_as_long_as_its_key_opens() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = Room::new(0);
    // The second skips frames of kinds that it does not know, and sends none.
    room.lose = |kind, _| matches!(kind, Kind::Cards | Kind::Handover);
    (1..=2).for_each(|n| room.enter(n, 1, keyed(&[&old])));
    room.meet();
    room.made(1, KeyringChange::Add(new.clone()));
    let refused = room.change(1, KeyringChange::Use(new.id()), false).unwrap_err().to_string();
    assert!(refused.contains("a2: has not told what keys it has: is it an older gossd?"), "{refused}");
    room.forced(1, KeyringChange::Use(new.id()));
    assert_eq!(room.peers(2), 1);
    room.forget_what_was_noted();
    room.publish(1, 7);
    room.publish(2, 8);
    room.run(5);
    assert!(
        room.numbers().contains(&(addr(2), 7)) && room.numbers().contains(&(addr(1), 8)),
        "{:?}",
        room.numbers()
    );
    assert_eq!(room.keyring(1).sealing(), new.id());
    assert_eq!(room.suspicions(), 0);
}

#[test]
fn keyrings_made_by_hand_stay_as_they_are_until_somebody_changes_one() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = Room::new(0);
    room.enter(1, 1, keyed(&[&old]));
    room.enter(2, 1, keyed(&[&old, &new]));
    room.enter(3, 1, keyed(&[&new, &old]));
    room.meet();
    room.run(5_000);
    let keys = [1, 2, 3].map(|n| room.keyring(n).ids().count());
    assert_eq!((keys, room.peers(2)), ([1, 2, 2], 2));
    let now = room.now;
    let report = room.link(2).key_report(now).unwrap();
    assert_eq!(
        report.agents.iter().map(|agent| agent.seals).collect::<Vec<_>>(),
        [Some(old.id()), Some(old.id()), Some(new.id())]
    );
    room.made(2, KeyringChange::Add(new.clone()));
    room.agree(1_000);
    assert_eq!(room.keyring(1).ids().collect::<Vec<_>>(), [old.id(), new.id()]);
}

#[test]
fn a_file_that_is_read_again_replaces_what_a_hand_made_and_adds_to_what_is_shared() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(2, &old);
    let read = keyed;
    let now = room.now;
    assert!(room.link(1).handle_key_file(now, read(&[&new, &old])).0);
    assert!(!room.link(1).handle_key_file(now, read(&[&new, &old])).0);
    assert_eq!(room.keyring(1).sealing(), new.id());
    assert!(room.link(1).handle_key_file(now, read(&[&old])).0);
    assert_eq!(room.keyring(1).ids().collect::<Vec<_>>(), [old.id()]);

    room.made(2, KeyringChange::Add(Key::generate()));
    let now = room.now;
    assert!(room.link(1).handle_key_file(now, read(&[&old, &new])).0);
    room.run(2_000);
    room.agree(1_000);
    assert!(room.keyring(2).has(new.id()), "what a hand added is given to all");
    let now = room.now;
    assert!(!room.link(1).handle_key_file(now, read(&[&old])).0);
    assert_eq!(room.keyring(1).ids().count(), 3, "and what a file lacks is not taken away");
    let report = room.link(1).key_report(now).unwrap();
    assert_eq!(report.agents[0].file, Some(Filed::Pending), "but is written to it again");
}

#[test]
fn without_a_key_of_our_own_there_is_nothing_to_change() {
    let mut room = Room::new(2);
    room.meet();
    for change in [KeyringChange::Add(Key::generate()), KeyringChange::Use(Key::generate().id())] {
        let refused = room.change(1, change, true).unwrap_err();
        assert!(refused.to_string().contains("gossd keys generate > key"), "{refused}");
    }
}

#[test]
fn when_all_agree_nothing_more_is_said_of_keys() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(5, &old);
    room.made(1, KeyringChange::Add(new));
    room.agree(1_000);
    room.run(2_000);
    room.recording.clear();
    room.run(30_000);
    let said =
        room.recording.iter().filter(|(_, _, kind, _)| matches!(kind, Kind::Cards | Kind::Handover)).count();
    assert_eq!(said, 0);
}

#[test]
fn who_recorded_a_handover_and_has_its_key_does_not_learn_the_new_one() {
    let [old, new] = [(); 2].map(|()| Key::generate());
    let mut room = room(2, &old);
    room.recording.clear();
    room.made(1, KeyringChange::Add(new.clone()));
    let secret = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &**new.line()).unwrap();
    assert!(room.sent(Kind::Handover) > 0);
    let recording = std::mem::take(&mut room.recording);
    assert!(recording.iter().all(|(.., frame)| !frame.windows(secret.len()).any(|window| window == secret)));
    // The thief has the old key, and an identity of its own; but no session.
    room.enter(3, 1, keyed(&[&old]));
    for (from, _, _, frame) in &recording {
        room.deliver(*from, addr(3), frame);
    }
    assert_eq!(room.keyring(3).ids().collect::<Vec<_>>(), [old.id()]);
}
