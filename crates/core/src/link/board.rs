//! The board: what each agent states about itself, slowly, and everybody has to know even while it is silent. Every agent
//! has a card of every other one. Two agents compare a hash of their boards from time to time; only if the hashes differ do
//! they exchange their cards: all if they are few, or else those of the rows whose hashes differ. So a newcomer meets everybody
//! by joining anybody, and an agent that is cut off from a peer learns from a third one that the peer lives, how far its slots
//! have come, and which keys it has.
//!
//! A card carries how long ago the agent gave its last sign of life, never a time of day. Whoever takes a card subtracts
//! that from its own time, so no clocks are compared.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::keys::KeyringSummary;
use super::peers::{Admission, EXPECTED, KnownPeer, Peers};
use super::session::Peer;
use super::whereabouts::free;
use super::wire;
use crate::agent::News;
use crate::event::PeerChange;
use crate::record::{AgentName, Generation, Owner};
use crate::slot::{MAX_VERSION, Version};

/// Rows of a board, and bits of a set of them. A thousand agents are eight to a row, and the hashes of all rows fit a datagram.
pub(super) const ROWS: u8 = 128;
/// The whole board.
pub(super) const ALL_ROWS: u128 = u128::MAX;
/// Agents of which a digest asks for a sign of life.
pub(super) const MAX_SILENT: usize = 64;
/// What others tell of a silent agent counts if they heard it so much later than we did: less may be our own word, come
/// back with the time that it took.
const ECHO: Duration = Duration::from_secs(1);
/// Longest version of a program, in bytes.
pub(super) const MAX_PROGRAM: usize = 32;

/// What cards of a peer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// Who was received by somebody else, and starts that are not remembered any more, in this order.
    pub(super) news: Vec<News>,
    /// So far have these come that do not reach us.
    pub(super) versions: Vec<(Owner, Version)>,
    /// Whether an agent or an address is new.
    pub(super) moved: bool,
    /// Cards that cannot be.
    pub(super) refused: usize,
    /// Where those are that have told others something newer of themselves than us.
    pub(super) outdated: Vec<SocketAddr>,
}

/// What two boards compare of an agent: its name, and what has to be the same.
type Compared<'a> = (&'a str, (Generation, u64, SocketAddr, bool));

/// The hashes of a board's rows.
pub(super) struct RowHashes {
    hashes: Vec<u64>,
    /// Of which something has changed since.
    stale: u128,
}

impl RowHashes {
    /// None is known yet.
    pub(super) fn new() -> Self {
        Self { hashes: vec![0; ROWS.into()], stale: ALL_ROWS }
    }

    /// Something of an agent in this row has changed.
    pub(super) fn change(&mut self, row: u8) {
        self.stale |= 1 << row;
    }
}

impl Peers {
    /// Our own slots have come to this version.
    pub(super) fn published(&mut self, version: Version) {
        self.own.version = self.own.version.max(version);
    }

    /// What two boards have in common that know the same of the agents in these rows.
    pub(super) fn hash(&mut self, rows: u128) -> u64 {
        let hashes = self.row_hashes().iter().zip(0..).filter(|(_, row)| is_in(rows, *row));
        short_hash(hashes.fold(Sha256::new(), |sum, (hash, _)| sum.chain_update(hash.to_le_bytes())))
    }

    /// The same of each row.
    pub(super) fn row_hashes(&mut self) -> &[u64] {
        let stale = std::mem::take(&mut self.rows.stale);
        if stale != 0 {
            let mut hashes = std::mem::take(&mut self.rows.hashes);
            (0..).zip(&mut hashes).filter(|(row, _)| is_in(stale, *row)).for_each(|(_, hash)| *hash = 0);
            let mut cards: Vec<_> = self.compared().filter(|(row, _)| is_in(stale, *row)).collect();
            cards.sort_unstable();
            for cards in cards.chunk_by(|(one, _), (other, _)| one == other) {
                let hash =
                    cards.iter().fold(Sha256::new(), |sum, (_, card)| sum.chain_update(wire::encode(card)));
                hashes[usize::from(cards[0].0)] = short_hash(hash);
            }
            self.rows.hashes = hashes;
        }
        &self.rows.hashes
    }

    /// The rows that differ from those of another board.
    pub(super) fn rows_unlike(&mut self, theirs: &wire::Rows<'_>) -> u128 {
        theirs.unlike(self.row_hashes())
    }

    /// What of each agent has to be the same on two boards, ourselves included, and its row; nothing of those that are only
    /// expected back, which everybody forgets at another moment.
    fn compared(&self) -> impl Iterator<Item = (u8, Compared<'_>)> {
        let own = &self.own;
        let Peer { owner, addr } = &own.peer;
        let name = owner.name.as_str();
        let ours = (row(name), (name, (owner.generation, own.revision, *addr, own.left)));
        let others = self.table.values().filter(|known| !known.is_forgotten).map(|known| {
            let Peer { owner, addr } = &known.peer;
            (known.row, (owner.name.as_str(), (owner.generation, known.revision, *addr, known.left)))
        });
        others.chain([ours])
    }

    /// Our own card.
    pub(super) fn own_card(&self) -> wire::Card<'_> {
        let own = &self.own;
        let Peer { owner, addr } = &own.peer;
        wire::Card {
            name: owner.name.as_str(),
            generation: owner.generation,
            revision: own.revision,
            addr: *addr,
            left: own.left,
            buried: false,
            version: own.version,
            age_ms: 0,
            program: &own.program,
            keys: Some(own.keys.clone()),
        }
    }

    /// The cards of these rows, ours first, then those with the latest signs of life.
    pub(super) fn cards(&self, ran: Instant, rows: u128) -> Vec<wire::Card<'_>> {
        let others = self.table.values().filter(|known| is_in(rows, known.row));
        let mut cards: Vec<_> = others.map(|known| known.card(ran)).collect();
        cards.sort_by_key(|card| card.age_ms);
        let own = Some(self.own_card()).filter(|own| is_in(rows, row(own.name)));
        own.into_iter().chain(cards).collect()
    }

    /// The cards of these agents, as far as something is known of them.
    pub(super) fn cards_of<'a>(
        &'a self,
        ran: Instant,
        names: impl Iterator<Item = &'a str>,
    ) -> Vec<wire::Card<'a>> {
        let known =
            names.take(MAX_SILENT).filter_map(|name| self.table.get(&name.parse::<AgentName>().ok()?));
        known.map(|known| known.card(ran)).collect()
    }

    /// The agents that are not among the live ones and did not leave; of many, a different choice at each turn.
    pub(super) fn silent(&self, ran: Instant, turn: usize) -> Vec<&str> {
        let silent =
            self.table.values().filter(|known| !known.left && !known.is_forgotten && !known.is_live(ran));
        let mut silent: Vec<_> = silent.map(|known| known.peer.owner.name.as_str()).collect();
        let first = turn % silent.len().max(1);
        silent.rotate_left(first);
        silent.truncate(MAX_SILENT);
        silent
    }

    /// Takes cards of a live peer. Of itself its word holds; what frames of another agent tell us ourselves counts more
    /// than its word.
    pub(super) fn take(&mut self, ran: Instant, by: &Owner, cards: &[wire::Card<'_>]) -> Learned {
        let mut learned = Learned::default();
        // Agents that share a host reach each other at loopback addresses, and no others do.
        let teller = self.table.get(&by.name).map(|known| known.peer.addr);
        let is_near = [Some(self.own.peer.addr), teller].iter().flatten().any(|addr| addr.ip().is_loopback());
        for card in cards {
            let Some(name) = card.name.parse::<AgentName>().ok().filter(|_| card.is_plausible()) else {
                learned.refused += 1;
                continue;
            };
            if name == self.own.peer.owner.name {
                continue;
            }
            match self.table.get_mut(&name) {
                Some(known) if name == by.name => {
                    let had = known.keys.clone().filter(|_| known.is_own_word);
                    if known.peer.owner == *by && known.take_own_word(card) {
                        self.rows.change(known.row);
                        let has = known.keys.as_ref().map(|keys| keys.fingerprint);
                        if had.is_some_and(|had| Some(had.fingerprint) != has) {
                            learned.news.push(News::Differs { owner: by.clone(), change: PeerChange::Keys });
                        }
                    }
                }
                Some(known) if known.is_live(ran) => {
                    let is_same = card.generation == known.peer.owner.generation;
                    if is_same && known.is_own_word && !known.tie.watches && card.revision > known.revision {
                        learned.outdated.push(known.peer.addr);
                    }
                    if is_same && !known.is_own_word && known.take_statement(card) {
                        self.rows.change(known.row);
                    }
                }
                Some(_) | None => self.take_one(ran, name, card, is_near, &mut learned),
            }
        }
        learned
    }

    fn take_one(
        &mut self,
        ran: Instant,
        name: AgentName,
        card: &wire::Card<'_>,
        is_near: bool,
        learned: &mut Learned,
    ) {
        let age = Duration::from_millis(card.age_ms.into());
        let Some(sign) = ran.checked_sub(age) else { return };
        let owner = Owner { name, generation: card.generation };
        let peer = Peer { owner: owner.clone(), addr: card.addr };
        match self.table.get_mut(&owner.name) {
            Some(known) if known.peer.owner.generation > card.generation => return,
            Some(known) if known.peer.owner.generation == card.generation => {
                if sign > known.sign + ECHO {
                    (known.sign, known.version) = (sign, known.version.max(card.version));
                    if age < self.grace {
                        known.is_forgotten = false;
                        self.rows.change(known.row);
                    }
                    learned.news.push(News::Hearsay { owner: owner.clone(), age });
                }
                if known.take_statement(card) {
                    known.is_own_word = false;
                    if known.peer.addr != card.addr {
                        // No session is at the new address, until there was a handshake.
                        free(&mut self.addresses, &known.peer);
                        (known.peer.addr, learned.moved) = (card.addr, true);
                    }
                    self.rows.change(known.row);
                }
                if card.left && !known.left {
                    known.left = true;
                    self.rows.change(known.row);
                }
                if card.buried && !known.is_buried {
                    known.is_buried = true;
                    learned.news.push(News::Buried { owner: owner.clone() });
                }
            }
            before => {
                // Half of the time only: whoever forgets an agent a moment sooner is not to be reminded of it.
                let is_forgotten = age > self.grace / 2;
                if age > EXPECTED / 2 || is_forgotten && (card.left || before.is_some()) {
                    return;
                }
                let room = if before.is_some() { Some(Vec::new()) } else { self.make_room(ran, Some(sign)) };
                let Some(forgotten) = room else { return };
                let mut admission = Admission { forgotten, ..Admission::default() };
                let mut known = KnownPeer::new(sign, peer, card.program.into());
                known.state(card);
                known.is_near = is_near;
                (known.version, known.is_forgotten, known.is_buried) =
                    (card.version, is_forgotten, card.buried);
                self.lose_contact(&owner.name);
                if let Some(before) = self.table.remove(&owner.name) {
                    known.take_place_of(ran, before, &mut admission);
                }
                self.rows.change(known.row);
                self.table.insert(owner.name.clone(), known);
                learned.moved = true;
                learned.news.extend(admission.forgotten.into_iter().map(|owner| News::Forgotten { owner }));
                // Whom an operator gave up is not listed by those either who never heard it.
                if is_forgotten || card.buried {
                    return;
                }
                learned.news.push(News::Hearsay { owner: owner.clone(), age });
            }
        }
        learned.versions.push((owner, card.version));
    }
}

/// Which row an agent is in.
pub(super) fn row(name: &str) -> u8 {
    Sha256::digest(name)[0] % ROWS
}

fn is_in(rows: u128, row: u8) -> bool {
    rows >> row & 1 == 1
}

pub(super) fn short_hash(hash: Sha256) -> u64 {
    let hash: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}

impl KnownPeer {
    fn card(&self, ran: Instant) -> wire::Card<'_> {
        let age = ran.saturating_duration_since(self.sign).as_millis();
        wire::Card {
            name: self.peer.owner.name.as_str(),
            generation: self.peer.owner.generation,
            revision: self.revision,
            addr: self.peer.addr,
            left: self.left,
            buried: self.is_buried,
            version: self.version,
            age_ms: u32::try_from(age).unwrap_or(u32::MAX),
            program: &self.program,
            keys: self.keys.clone(),
        }
    }

    /// Takes what an agent states of itself, by others, if that is newer. Whether it is.
    fn take_statement(&mut self, card: &wire::Card<'_>) -> bool {
        let is_newer = card.revision > self.revision;
        if is_newer {
            self.state(card);
        }
        is_newer
    }

    /// Takes what it states of itself, whatever others said of it. Whether that is new. Where it is, its sessions tell.
    fn take_own_word(&mut self, card: &wire::Card<'_>) -> bool {
        if card.generation != self.peer.owner.generation || self.is_own_word && card.revision <= self.revision
        {
            return false;
        }
        self.is_own_word = true;
        self.state(card);
        true
    }

    fn state(&mut self, card: &wire::Card<'_>) {
        self.revision = card.revision;
        self.program = card.program.into();
        self.keys.clone_from(&card.keys);
        self.give = None;
    }
}

impl wire::Rows<'_> {
    /// The rows that differ from ours.
    pub(super) fn unlike(&self, ours: &[u64]) -> u128 {
        let theirs = self.hashes.as_chunks().0.iter().map(|hash| u64::from_le_bytes(*hash));
        let pairs = ours.iter().zip(theirs).enumerate();
        pairs.filter(|(_, (ours, theirs))| *ours != theirs).fold(0, |rows, (row, _)| rows | 1 << row)
    }
}

impl wire::Card<'_> {
    fn is_plausible(&self) -> bool {
        let is_address = !self.addr.ip().is_unspecified() && self.addr.port() != 0;
        let has_few_keys = self.keys.as_ref().is_none_or(KeyringSummary::is_plausible);
        is_address && has_few_keys && self.version <= MAX_VERSION && self.program.len() <= MAX_PROGRAM
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::MAX_KNOWN;
    use super::super::peers::tests::{GRACE, S, of, session};
    use super::*;

    fn owner(n: u16, generation: Generation) -> Owner {
        Owner { name: format!("a{n}").parse().unwrap(), generation }
    }

    /// The board of agent `n`.
    fn board(n: u16) -> Peers {
        of(&format!("a{n}"), 1, n)
    }

    /// Agent `n` is met, by a handshake.
    fn meet(board: &mut Peers, now: Instant, n: u16, generation: Generation) {
        let (session, _) = session(now, &format!("a{n}"), generation, n);
        assert!(board.admit(now, 100 * u32::from(n) + u32::try_from(generation).unwrap(), session).is_some());
    }

    fn hearsay(n: u16, generation: Generation, age: Duration) -> News {
        News::Hearsay { owner: owner(n, generation), age }
    }

    /// All cards of one board, taken by another.
    fn tell(from: &Peers, to: &mut Peers, now: Instant) -> Learned {
        to.take(now, &from.own.peer.owner.clone(), &from.cards(now, ALL_ROWS))
    }

    fn generation(board: &Peers, n: u16) -> Option<Generation> {
        Some(board.table.get(&owner(n, 1).name)?.peer.owner.generation)
    }

    #[test]
    fn boards_that_told_each_other_all_have_one_hash_and_others_have_not() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut one, now, 2, 1);
        meet(&mut one, now, 3, 1);
        meet(&mut other, now, 1, 1);
        assert_ne!(one.hash(ALL_ROWS), other.hash(ALL_ROWS));
        let learned = tell(&one, &mut other, now);
        assert!(learned.moved && learned.news == [hearsay(3, 1, Duration::ZERO)], "{learned:?}");
        tell(&other, &mut one, now);
        assert_eq!(one.hash(ALL_ROWS), other.hash(ALL_ROWS));
        one.left(&owner(3, 1));
        assert_ne!(one.hash(ALL_ROWS), other.hash(ALL_ROWS), "one knows that an agent left");
        assert!(!tell(&one, &mut other, now).moved);
        assert_eq!(one.hash(ALL_ROWS), other.hash(ALL_ROWS));
        one.published(7);
        assert_eq!(one.hash(ALL_ROWS), other.hash(ALL_ROWS), "versions travel in pings");
        one.state(|own| own.keys.filed = super::super::keys::Filed::Pending);
        assert_ne!(one.hash(ALL_ROWS), other.hash(ALL_ROWS), "it states something else of its keys");
        tell(&one, &mut other, now);
        assert_eq!(one.hash(ALL_ROWS), other.hash(ALL_ROWS));
        assert_eq!(other.table[&owner(1, 1).name].keys, Some(one.own.keys.clone()));
    }

    #[test]
    #[ignore = "seconds: scripts/check.sh runs it"]
    fn a_silent_agent_lives_as_long_as_anybody_receives_its_frames() {
        let start = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut one, start, 3, 1);
        meet(&mut other, start, 3, 1);
        let mut now = start;
        for n in 0..300 {
            now += 2 * S;
            meet(&mut other, now, 3, 1);
            let silent: Vec<_> = one.silent(now, 0).into_iter().map(str::to_owned).collect();
            let told = other.cards_of(now, silent.iter().map(String::as_str));
            let learned = one.take(now + S, &owner(2, 1), &told);
            // It is silent after a moment only.
            let expected = if n < 2 { vec![] } else { vec![hearsay(3, 1, Duration::ZERO)] };
            assert_eq!(learned.news, expected, "{n}");
            assert!(one.forget(now).is_empty());
        }
        assert!(one.forget(now + GRACE.checked_sub(S).unwrap()).is_empty());
        assert_eq!(one.forget(now + GRACE + S), [owner(3, 1)]);
    }

    #[test]
    fn what_agents_repeat_to_each_other_keeps_nobody_alive() {
        let start = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut one, start, 3, 1);
        meet(&mut other, start, 3, 1);
        let mut now = start + 10 * S;
        // Each word takes half a second to the other side.
        let delay = Duration::from_millis(500);
        for _ in 0..200 {
            let told = other.cards_of(now, ["a3"].into_iter());
            assert_eq!(one.take(now + delay, &owner(2, 1), &told).news, []);
            let told = one.cards_of(now + delay, ["a3"].into_iter());
            assert_eq!(other.take(now + 2 * delay, &owner(1, 1), &told).news, []);
            now += S;
        }
        assert_eq!(one.forget(start + GRACE), [owner(3, 1)]);
    }

    #[test]
    fn a_forgotten_agent_is_not_brought_back_by_those_who_forget_it_a_moment_later_but_expected() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut other, now, 3, 1);
        meet(&mut one, now, 2, 1);
        let late = now + GRACE.checked_sub(S).unwrap();
        let learned = tell(&other, &mut one, late);
        assert_eq!((learned.news, learned.versions), (vec![], vec![]));
        assert!(one.table[&owner(3, 1).name].is_forgotten, "a key that it needs is kept");
        assert!(one.forget(late).is_empty());
        let mut young = board(4);
        assert_eq!(tell(&other, &mut young, now + S).news.len(), 2, "within half of the grace");
    }

    #[test]
    fn what_our_own_sessions_tell_counts_more_than_a_card() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut one, now, 3, 1);
        meet(&mut one, now, 2, 1);
        meet(&mut other, now, 3, 2);
        assert!(tell(&other, &mut one, now).news.is_empty());
        assert_eq!(generation(&one, 3), Some(1));
        let later = now + 6 * S;
        meet(&mut other, later, 3, 2);
        assert_eq!(tell(&other, &mut one, later).news.len(), 1, "it is not heard here any more");
        assert_eq!(generation(&one, 3), Some(2));
    }

    #[test]
    fn of_one_that_left_the_last_words_are_asked_for_and_of_a_buried_one_nothing() {
        let start = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut one, start, 3, 1);
        meet(&mut other, start, 3, 1);
        let now = start + 20 * S;
        meet(&mut one, now, 2, 1);
        other.left(&owner(3, 1));
        let learned = tell(&other, &mut one, now);
        assert_eq!(learned.news, [], "it says itself what is to become of its records");
        assert!(learned.versions.iter().any(|(asked, _)| *asked == owner(3, 1)) && one.knows(&owner(3, 1)));

        meet(&mut one, start, 4, 1);
        meet(&mut other, start, 4, 1);
        assert_eq!(other.bury(now, &owner(4, 1).name), Ok(owner(4, 1)));
        let learned = tell(&other, &mut one, now);
        assert_eq!(learned.news, [News::Buried { owner: owner(4, 1) }]);
        assert!(!one.knows(&owner(4, 1)), "or its records would come back");
        assert_eq!(tell(&other, &mut one, now).news, [], "told once");
        assert!(one.silent(now, 0).iter().all(|name| *name != "a4"));
        let mut newcomer = board(5);
        let learned = tell(&other, &mut newcomer, now);
        let heard_of = |n| {
            learned
                .news
                .iter()
                .any(|news| matches!(news, News::Hearsay { owner: of, .. } if *of == owner(n, 1)))
        };
        assert!(!heard_of(4) && !newcomer.knows(&owner(4, 1)), "whoever comes later does not hear of it");
        meet(&mut one, now, 4, 1);
        assert!(one.knows(&owner(4, 1)), "it came back");
    }

    #[test]
    fn of_itself_a_peers_word_holds_and_an_older_one_does_not() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        meet(&mut one, now, 2, 1);
        let before = other.own_card().revision;
        other.state(|own| own.program = "2".into());
        one.take(now, &owner(2, 1), &[other.own_card()]);
        let older = wire::Card { revision: before, program: "1", ..other.own_card() };
        one.take(now, &owner(2, 1), &[older]);
        assert_eq!(&*one.table[&owner(2, 1).name].program, "2");
        let of_another_start = wire::Card { generation: 2, revision: 9, program: "3", ..other.own_card() };
        one.take(now, &owner(2, 1), &[of_another_start]);
        assert_eq!(&*one.table[&owner(2, 1).name].program, "2");
    }

    #[test]
    fn made_up_agents_take_no_more_room_than_real_ones_and_push_no_live_one_out() {
        let now = Instant::now() + GRACE;
        let mut board = board(1);
        meet(&mut board, now, 2, 1);
        let names: Vec<_> = (10..2 * MAX_KNOWN + 10).map(|n| format!("m{n}")).collect();
        let addr = "10.0.0.3:1".parse().unwrap();
        let card = |name, age_ms| wire::Card {
            name,
            generation: 1,
            revision: 1,
            addr,
            left: false,
            buried: false,
            version: 0,
            age_ms,
            program: "1",
            keys: None,
        };
        let cards: Vec<_> = names.iter().map(|name| card(name, 1_000)).collect();
        board.take(now, &owner(2, 1), &cards);
        assert_eq!(board.len().0, MAX_KNOWN);
        assert!(board.knows(&owner(2, 1)));
        meet(&mut board, now, 4, 1);
        assert!(board.knows(&owner(4, 1)), "who is here has room");
        assert_eq!(board.cards(now, ALL_ROWS).len(), MAX_KNOWN + 1, "with our own");
        let news = board.take(now + 2 * S, &owner(2, 1), &cards[MAX_KNOWN..]).news;
        let forgotten = news.iter().filter(|news| matches!(news, News::Forgotten { .. })).count();
        assert_eq!(
            (board.len().0, forgotten, news.len() - forgotten),
            (MAX_KNOWN, MAX_KNOWN - 2, MAX_KNOWN - 2)
        );
        assert!([2, 4].map(|n| owner(n, 1)).iter().all(|live| board.knows(live)), "older, but live");
        let hostile = [
            wire::Card { addr: "0.0.0.0:1".parse().unwrap(), ..card("x", 0) },
            wire::Card { program: "a version of more than thirty-two bytes", ..card("x", 0) },
            wire::Card { version: u64::MAX, ..card("x", 0) },
        ];
        assert_eq!(board.take(now, &owner(2, 1), &hostile), Learned { refused: 3, ..Learned::default() });
    }
}
