//! Keyrings changed here and there, and their files.

use proptest::prelude::*;

use super::*;

fn hand(keys: &[&Key]) -> Keyring {
    let lines: Vec<_> = keys.iter().map(|key| key.line().to_string()).collect();
    Keyring::parse(&lines.join("\n")).unwrap()
}

fn again(keyring: &Keyring) -> Keyring {
    Keyring::parse(&keyring.text()).unwrap()
}

fn ids(keyring: &Keyring) -> Vec<KeyId> {
    keyring.ids().collect()
}

#[test]
fn a_generated_key_is_a_key_file() {
    let (one, two) = (Key::generate(), Key::generate());
    assert_ne!(one.line(), two.line());
    let keyring =
        Keyring::parse(&format!("# current\n{}\n\n{}\n{}", *one.line(), *two.line(), *one.line())).unwrap();
    assert_eq!(ids(&keyring), [one.id(), two.id()], "in the file's order, each once");
    assert!(!keyring.is_shared());
}

#[test]
fn what_is_not_a_key_file_says_where_and_never_what() {
    let parse = |text: &str| Keyring::parse(text).unwrap_err();
    assert_eq!(parse("# nothing\n"), KeyringError::Empty);
    assert_eq!(parse("\nsecret!\n"), KeyringError::BadLine(2));
    assert_eq!(parse("c2hvcnQ="), KeyringError::BadLine(1));
    let many: Vec<_> = (0..=MAX_KEYS).map(|_| Key::generate().line().to_string()).collect();
    assert_eq!(parse(&many.join("\n")), KeyringError::TooMany);
    assert!(!parse("secret!").to_string().contains("secret"));
}

#[test]
fn nothing_prints_a_key() {
    let key = Key::generate();
    let keyring = hand(&[&key]);
    assert_eq!(format!("{keyring:?} {key:?}"), format!("[{0}] Key({0})", key.id()));
    assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    for bad in ["", "123", "+1234567", "1234567g", "123456789"] {
        assert_eq!(bad.parse::<KeyId>(), Err(NoKeyId), "{bad}");
    }
}

#[test]
fn a_file_keeps_turns_and_removals_in_comments_and_any_gossd_can_read_it() {
    let [a, b, c] = [(); 3].map(|()| Key::generate());
    let changes = [
        KeyringChange::Add(b.clone()),
        KeyringChange::Use(b.id()),
        KeyringChange::Remove(a.id()),
        KeyringChange::Add(c.clone()),
    ];
    let keyring = changes.into_iter().fold(hand(&[&a]), |keyring, change| keyring.changed(change).unwrap());
    assert_eq!(again(&keyring).fingerprint(), keyring.fingerprint());
    let text = keyring.text();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some(&**b.line()), "the first seals");
    assert_eq!((lines.next(), lines.next()), (Some(&**c.line()), None));
    let typed = keyring.text().replace("turn 2", "turn two").replace("removed ", "removed x");
    assert!(Keyring::parse(&typed).is_ok(), "a comment is a comment");
}

#[test]
fn a_change_that_makes_no_sense_is_refused_with_the_way_out() {
    let [a, b, c] = [(); 3].map(|()| Key::generate());
    let ring = hand(&[&a, &b]);
    let refused = |keyring: &Keyring, change| keyring.changed(change).unwrap_err();
    assert_eq!(refused(&ring, KeyringChange::Use(c.id())), ChangeError::Unknown(c.id()));
    assert_eq!(refused(&ring, KeyringChange::Remove(c.id())), ChangeError::Unknown(c.id()));
    assert_eq!(refused(&ring, KeyringChange::Remove(a.id())), ChangeError::Seals(a.id()));
    let without = ring.changed(KeyringChange::Remove(b.id())).unwrap();
    assert_eq!(refused(&without, KeyringChange::Add(b.clone())), ChangeError::Removed(b.id()));
    let full = (0..MAX_ADDED - 1)
        .fold(hand(&[&a]), |ring, _| ring.changed(KeyringChange::Add(Key::generate())).unwrap());
    assert_eq!(refused(&full, KeyringChange::Add(c)), ChangeError::Full);
    let last = Keyring::parse(&format!("# gossd: turn {MAX_TURN}\n{}\n{}", *a.line(), *b.line())).unwrap();
    assert_eq!(refused(&last, KeyringChange::Use(b.id())), ChangeError::NoTurn);
}

#[test]
fn a_change_that_was_made_changes_nothing() {
    let [a, b] = [(); 2].map(|()| Key::generate());
    let ring = hand(&[&a]).changed(KeyringChange::Add(b.clone())).unwrap();
    for change in [KeyringChange::Add(b.clone()), KeyringChange::Use(a.id())] {
        assert_eq!(ring.changed(change).unwrap().fingerprint(), ring.fingerprint());
    }
    let without = ring.changed(KeyringChange::Remove(b.id())).unwrap();
    assert_eq!(without.changed(KeyringChange::Remove(b.id())).unwrap().fingerprint(), without.fingerprint());
}

#[test]
fn keyrings_made_by_hand_are_left_alone_and_one_meets_a_shared_one_without_losing_a_key() {
    let [a, b, c] = [(); 3].map(|()| Key::generate());
    let (one, two) = (hand(&[&a]), hand(&[&b, &a]));
    assert_eq!(ids(&one.merged(&two)), [a.id()]);
    let shared = one.changed(KeyringChange::Add(c.clone())).unwrap();
    let (left, right) = (shared.merged(&two), two.merged(&shared));
    assert_eq!(left.fingerprint(), right.fingerprint());
    assert_eq!(left.sealing(), a.id(), "the only one that had a turn");
    assert!([&a, &b, &c].iter().all(|key| left.has(key.id())));
}

#[test]
fn the_last_turn_seals_and_of_two_at_once_the_lower_key() {
    let [a, b, c] = [(); 3].map(|()| Key::generate());
    let ring = hand(&[&a, &b, &c]);
    let use_ = |ring: &Keyring, key: &Key| ring.changed(KeyringChange::Use(key.id())).unwrap();
    let (left, right) = (use_(&ring, &b), use_(&ring, &c));
    assert_eq!(left.merged(&right).sealing(), b.id().min(c.id()));
    let later = use_(&use_(&ring, &b), &a);
    assert_eq!(right.merged(&later).sealing(), a.id());
    assert_eq!(later.merged(&right).sealing(), a.id());
}

#[test]
fn who_shares_no_key_has_nothing_to_tell() {
    let [a, b] = [(); 2].map(|()| Key::generate());
    let both = hand(&[&a, &b]).changed(KeyringChange::Add(a.clone())).unwrap();
    let one = both.changed(KeyringChange::Remove(b.id())).unwrap();
    let other =
        both.changed(KeyringChange::Use(b.id())).unwrap().changed(KeyringChange::Remove(a.id())).unwrap();
    assert_eq!(one.merged(&other).fingerprint(), one.fingerprint());
}

#[test]
fn what_a_peer_spells_is_bounded_and_has_the_key_that_it_speaks_with() {
    let ring = hand(&[&Key::generate()]).changed(KeyringChange::Add(Key::generate())).unwrap();
    let with = ring.sealing();
    let spelled = |adjust: fn(&mut Spelled)| {
        let mut spelled = ring.spell();
        adjust(&mut spelled);
        spelled.read(with)
    };
    assert_eq!(spelled(|_| {}).unwrap().fingerprint(), ring.fingerprint());
    let many = |spelled: &mut Spelled| {
        spelled.keys.extend((0..MAX_KEYS).map(|n| (0, [u8::try_from(n).unwrap(); 32])));
    };
    assert!(spelled(many).is_none());
    assert!(spelled(|spelled| spelled.keys.clear()).is_none());
    assert!(spelled(|spelled| spelled.keys[1].0 = MAX_TURN + 1).is_none());
    assert!(
        spelled(|spelled| spelled.removed.extend((0..=32_u8).map(|n| (n.into(), KeyId::of([9, 9, 9, n])))))
            .is_none()
    );
    let gone = |spelled: &mut Spelled| {
        let seals = Key::new(&spelled.keys[0].1).id();
        spelled.removed.push((9, seals));
    };
    assert!(spelled(gone).is_none(), "the key that it speaks with is removed");
}

/// Agents that change keys, each by what it was told last of the others, and meet in any order.
#[derive(Clone)]
struct Party {
    rings: Vec<Keyring>,
    /// What each agent knows of each: keys, the sealing one first, and fingerprint.
    told: Vec<Vec<(Vec<KeyId>, Fingerprint)>>,
}

impl Party {
    fn new(agents: usize, first: &Key) -> Self {
        let rings = vec![hand(&[first]); agents];
        let tells: Vec<_> = rings.iter().map(|ring| (ids(ring), ring.fingerprint())).collect();
        Self { told: vec![tells; agents], rings }
    }

    fn tell(&mut self, from: usize, to: usize) {
        let ring = &self.rings[from];
        self.told[to][from] = (ids(ring), ring.fingerprint());
    }

    fn give(&mut self, from: usize, to: usize) {
        self.rings[to] = self.rings[to].merged(&self.rings[from]);
        self.told[to][to] = (ids(&self.rings[to]), self.rings[to].fingerprint());
    }

    /// As an operator does at one agent, without force.
    fn change(&mut self, at: usize, change: KeyringChange) {
        let safe = match change {
            KeyringChange::Add(_) => true,
            KeyringChange::Use(id) => self.told[at].iter().all(|(keys, _)| keys.contains(&id)),
            KeyringChange::Remove(_) => {
                let ours = self.rings[at].fingerprint();
                self.told[at].iter().all(|(_, fingerprint)| *fingerprint == ours)
            }
        };
        if safe && let Ok(changed) = self.rings[at].changed(change) {
            self.rings[at] = changed;
            self.told[at][at] = (ids(&self.rings[at]), self.rings[at].fingerprint());
        }
    }

    /// Whether any two have a key that both open.
    fn can_all_speak(&self) -> bool {
        let speak = |a: &Keyring, b: &Keyring| a.ids().any(|id| b.has(id));
        self.rings.iter().all(|a| self.rings.iter().all(|b| speak(a, b)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_changed_where_and_told_when_nobody_is_cut_off_and_all_end_with_one_keyring(
        steps in proptest::collection::vec((0..4_usize, 0..4_usize, 0..6_u8, 0..6_usize), 1..80),
    ) {
        let keys: Vec<Key> = (0..6_u8).map(|n| Key::new(&[n; KEY_LEN])).collect();
        let mut party = Party::new(4, &keys[0]);
        for (one, other, what, key) in steps {
            let id = keys[key].id();
            match what {
                0 => party.change(one, KeyringChange::Add(keys[key].clone())),
                1 => party.change(one, KeyringChange::Use(id)),
                2 => party.change(one, KeyringChange::Remove(id)),
                3 => party.give(one, other),
                _ => party.tell(one, other),
            }
            prop_assert!(party.can_all_speak());
        }
        for _ in 0..2 {
            for one in 0..4 {
                (0..4).for_each(|other| party.give(one, other));
            }
        }
        let first = party.rings[0].fingerprint();
        prop_assert!(party.rings.iter().all(|ring| ring.fingerprint() == first));
    }

    #[test]
    fn no_text_can_make_it_panic(text in "(# gossd: (turn|removed) [0-9a-f ]{0,20}\n|[A-Za-z0-9+/]{43}=\n|.{0,9}\n){0,30}") {
        if let Ok(keyring) = Keyring::parse(&text) {
            prop_assert_eq!(again(&keyring).fingerprint(), keyring.fingerprint());
        }
    }
}
