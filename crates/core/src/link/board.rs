//! The board: a card of every agent of the cluster, also of those that do not reach this one. Two agents compare a hash of
//! their boards from time to time; only if the hashes differ do they exchange their cards. So a newcomer meets everybody
//! by joining anybody, and an agent that is cut off from a peer learns from a third one that the peer lives, and how far
//! its version has come.
//!
//! A card carries how long ago the agent gave its last sign of life, never a time of day. Whoever takes a card subtracts
//! that from its own time, so no clocks are compared.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::session::Peer;
use super::wire;
use crate::agent::News;
use crate::record::{AgentName, Generation, Owner};
use crate::replicas::MAX_AGENTS;
use crate::slot::{MAX_VERSION, Version};

/// Agents that a board knows.
pub(crate) const MAX_CARDS: usize = MAX_AGENTS;
/// Agents of which a digest asks for a sign of life.
pub(super) const MAX_SILENT: usize = 64;
/// How often peers are asked for what a former start of this agent changed, until one tells: perhaps none knows.
const ROUNDS: u32 = 8;
/// Bytes of all cards in one frame, so that they fit the largest payload; the cards with the oldest signs stay out.
const CARDS_BYTES: usize = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Board {
    us: Peer,
    left: bool,
    version: Version,
    /// An agent that gave no sign of life for this long is forgotten.
    grace: Duration,
    cards: BTreeMap<AgentName, HeldCard>,
    /// Former starts of this agent that peers remember.
    own_former: BTreeMap<Generation, OwnFormer>,
    /// Of what [`Self::hash`] covers; none since that changed.
    hash: Option<u64>,
}

/// What is known of an agent. Times are of the time in which this process ran: a pause of our own is no silence of others.
#[derive(Debug)]
struct HeldCard {
    generation: Generation,
    addr: SocketAddr,
    left: bool,
    version: Version,
    /// Its last sign of life, here or at somebody else's.
    sign: Instant,
    /// The start that this one replaced, and when: forgotten later, because others may still repair from it.
    former: Option<(Generation, Instant)>,
}

/// A former start of this agent.
#[derive(Debug)]
struct OwnFormer {
    /// Since when we know of it.
    since: Instant,
    /// How often peers are to be asked yet for what it changed: no ping says that something of it is missing.
    rounds: u32,
}

/// What cards of a peer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// Who was received by somebody else, and starts that are not remembered any more, in this order.
    pub(super) news: Vec<News>,
    /// So far have these come that do not reach us.
    pub(super) versions: Vec<(Owner, Version)>,
    /// Whether an agent or an address is new.
    pub(super) moved: bool,
}

impl Board {
    /// A board with our own card.
    pub(super) fn new(us: Peer, grace: Duration) -> Self {
        let (cards, own_former) = (BTreeMap::new(), BTreeMap::new());
        Self { us, left: false, version: 0, grace, cards, own_former, hash: None }
    }

    /// Our own slots have come to this version.
    pub(super) fn published(&mut self, version: Version) {
        self.version = self.version.max(version);
    }

    /// We are about to leave.
    pub(super) fn leave(&mut self) {
        (self.left, self.hash) = (true, None);
    }

    /// A peer's process is admitted, or back after a silence in which others may have changed its card, or we forgot it.
    /// The former start of its agent, if another one was known, and the starts that are forgotten now.
    pub(super) fn admitted(
        &mut self,
        ran: Instant,
        peer: &Peer,
        is_live: impl Fn(&AgentName) -> bool,
    ) -> (Option<Generation>, Vec<Owner>) {
        let Peer { owner: Owner { name, generation }, addr } = peer;
        self.hash = None;
        let known = self.cards.get(name).map(|card| card.generation);
        let former = known.filter(|known| known != generation);
        let mut forgotten = Vec::new();
        if known.is_none() {
            forgotten.extend(self.make_room(None, is_live).unwrap_or_default());
        }
        let card = HeldCard::new(ran, *generation, *addr);
        forgotten.extend(self.replace(ran, name, card));
        (former, forgotten)
    }

    /// A live peer's frames arrive; its version has come so far.
    pub(super) fn received(&mut self, ran: Instant, name: &AgentName, version: Version) {
        if let Some(card) = self.cards.get_mut(name) {
            card.sign = ran;
            card.version = card.version.max(version);
        }
    }

    /// An agent said goodbye.
    pub(super) fn left(&mut self, owner: &Owner) {
        let card = self.cards.get_mut(&owner.name).filter(|card| card.generation == owner.generation);
        if let Some(card) = card {
            (card.left, self.hash) = (true, None);
        }
    }

    /// A peer remembers a former start of this agent.
    pub(super) fn remembered(&mut self, ran: Instant, generation: Generation) {
        /// More than agents restart within the time in which they are remembered.
        const MOST: usize = 64;
        if self.own_former.len() < MOST {
            self.own_former.entry(generation).or_insert(OwnFormer { since: ran, rounds: ROUNDS });
        }
    }

    /// A peer told what a former start of this agent changed.
    pub(super) fn told(&mut self, generation: Generation) {
        if let Some(former) = self.own_former.get_mut(&generation) {
            former.rounds = 0;
        }
    }

    /// The former starts of this agent to ask for once more.
    pub(super) fn untold(&mut self) -> Vec<Owner> {
        let untold = self.own_former.iter_mut().filter(|(_, former)| former.rounds > 0);
        let starts = untold.map(|(generation, former)| {
            former.rounds -= 1;
            Owner { name: self.us.owner.name.clone(), generation: *generation }
        });
        starts.collect()
    }

    /// What two boards that know the same have in common.
    pub(super) fn hash(&mut self) -> u64 {
        if let Some(hash) = self.hash {
            return hash;
        }
        let mut all: Vec<_> = self.compared().collect();
        all.sort_unstable();
        let mut hash = Sha256::new().chain_update(b"gossd board");
        for card in all {
            hash.update(wire::encode(&card));
        }
        let hash: [u8; 32] = hash.finalize().into();
        *self.hash.insert(u64::from_le_bytes(std::array::from_fn(|at| hash[at])))
    }

    /// What of each agent has to be the same on two boards, ourselves included.
    fn compared(&self) -> impl Iterator<Item = (&str, (Generation, SocketAddr, bool))> {
        let Peer { owner, addr } = &self.us;
        let own = (owner.name.as_str(), (owner.generation, *addr, self.left));
        let others = self.cards.iter();
        let others = others.map(|(name, card)| (name.as_str(), (card.generation, card.addr, card.left)));
        others.chain([own])
    }

    /// All cards, ours first, then those with the latest signs of life.
    pub(super) fn cards(&self, ran: Instant) -> Vec<wire::Card<'_>> {
        let Peer { owner, addr } = &self.us;
        let own = wire::Card {
            name: owner.name.as_str(),
            generation: owner.generation,
            addr: *addr,
            left: self.left,
            version: self.version,
            age_ms: 0,
        };
        let mut cards: Vec<_> = self.cards.iter().map(|(name, card)| card.spell(ran, name)).collect();
        cards.sort_by_key(|card| card.age_ms);
        let mut bytes = 0;
        let fits = |card: &wire::Card<'_>| {
            bytes += card.name.len() + 48;
            bytes <= CARDS_BYTES
        };
        [own].into_iter().chain(cards).take_while(fits).collect()
    }

    /// The cards of these agents, as far as something is known of them.
    pub(super) fn cards_of<'a>(
        &'a self,
        ran: Instant,
        names: impl Iterator<Item = &'a str>,
    ) -> Vec<wire::Card<'a>> {
        let known = names
            .take(MAX_SILENT)
            .filter_map(|name| self.cards.get_key_value(&name.parse::<AgentName>().ok()?));
        known.map(|(name, card)| card.spell(ran, name)).collect()
    }

    /// The agents that are not among the live ones and did not leave, those with the latest signs of life first.
    pub(super) fn silent(&self, is_live: impl Fn(&AgentName) -> bool) -> Vec<&str> {
        let silent = self.cards.iter().filter(|(name, card)| !card.left && !is_live(name));
        let mut silent: Vec<_> = silent.collect();
        silent.sort_by_key(|(_, card)| std::cmp::Reverse(card.sign));
        silent.into_iter().take(MAX_SILENT).map(|(name, _)| name.as_str()).collect()
    }

    /// Takes cards of a peer. What frames of an agent tell us ourselves counts more.
    pub(super) fn take(
        &mut self,
        ran: Instant,
        cards: &[wire::Card<'_>],
        is_live: impl Fn(&AgentName) -> bool,
    ) -> Learned {
        let mut learned = Learned::default();
        for card in cards {
            let Ok(name) = card.name.parse::<AgentName>() else { continue };
            if name != self.us.owner.name && !is_live(&name) && card.is_plausible() {
                self.take_one(ran, name, card, &is_live, &mut learned);
            }
        }
        learned
    }

    fn take_one(
        &mut self,
        ran: Instant,
        name: AgentName,
        card: &wire::Card<'_>,
        is_live: impl Fn(&AgentName) -> bool,
        learned: &mut Learned,
    ) {
        let age = Duration::from_millis(card.age_ms.into());
        let Some(sign) = ran.checked_sub(age) else { return };
        let owner = Owner { name, generation: card.generation };
        let known = self.cards.get_mut(&owner.name).filter(|known| known.generation >= card.generation);
        if let Some(known) = known {
            if known.generation > card.generation {
                return;
            }
            if sign > known.sign {
                (known.sign, known.version) = (sign, known.version.max(card.version));
                learned.news.push(News::Hearsay { owner: owner.clone(), age });
                if known.addr != card.addr {
                    (known.addr, self.hash, learned.moved) = (card.addr, None, true);
                }
            }
            if card.left && !known.left {
                (known.left, self.hash) = (true, None);
            }
        } else {
            // Half of the time only: whoever forgets an agent a moment sooner is not to be reminded of it.
            if age > self.grace / 2 {
                return;
            }
            let is_known = self.cards.contains_key(&owner.name);
            let room = if is_known { Some(Vec::new()) } else { self.make_room(Some(sign), is_live) };
            let Some(mut forgotten) = room else { return };
            let new = HeldCard {
                left: card.left,
                version: card.version,
                ..HeldCard::new(sign, card.generation, card.addr)
            };
            (self.hash, learned.moved) = (None, true);
            let name = owner.name.clone();
            forgotten.extend(self.replace(ran, &name, new));
            learned.news.extend(forgotten.into_iter().map(|owner| News::Forgotten { owner }));
            learned.news.push(News::Hearsay { owner: owner.clone(), age });
        }
        learned.versions.push((owner, card.version));
    }

    /// Whether these cards are of all agents that we know, each at least as new.
    pub(super) fn knows_no_more_than(&self, cards: &[wire::Card<'_>]) -> bool {
        let theirs: BTreeMap<&str, _> =
            cards.iter().map(|card| (card.name, (card.generation, card.addr, card.left))).collect();
        self.compared().all(|(name, ours)| theirs.get(name) == Some(&ours))
    }

    /// The starts to forget by now.
    pub(super) fn forget(&mut self, ran: Instant) -> Vec<Owner> {
        let is_over = |at: Instant, grace| ran.saturating_duration_since(at) >= grace;
        let grace = self.grace;
        let mut forgotten = Vec::new();
        for (name, card) in &mut self.cards {
            if let Some((generation, _)) = card.former.take_if(|(_, since)| is_over(*since, grace)) {
                forgotten.push(Owner { name: name.clone(), generation });
            }
        }
        let before = self.cards.len();
        self.cards.retain(|name, card| {
            let over = is_over(card.sign, grace);
            if over {
                forgotten.extend(card.starts(name));
            }
            !over
        });
        if self.cards.len() < before {
            self.hash = None;
        }
        let name = &self.us.owner.name;
        self.own_former.retain(|generation, former| {
            let over = is_over(former.since, grace);
            if over {
                forgotten.push(Owner { name: name.clone(), generation: *generation });
            }
            !over
        });
        forgotten
    }

    /// Where agents are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.cards.values().map(|card| card.addr)
    }

    /// Whom it knows, and whether each left.
    pub(super) fn owners(&self) -> impl Iterator<Item = (Owner, bool)> {
        self.cards
            .iter()
            .map(|(name, card)| (Owner { name: name.clone(), generation: card.generation }, card.left))
    }

    /// Whether it knows that start of an agent.
    pub(super) fn knows(&self, owner: &Owner) -> bool {
        self.cards.get(&owner.name).is_some_and(|card| card.generation == owner.generation)
    }

    /// How many agents it knows.
    pub(super) fn len(&self) -> usize {
        self.cards.len()
    }

    fn replace(&mut self, ran: Instant, name: &AgentName, mut card: HeldCard) -> Vec<Owner> {
        let before = self.cards.remove(name);
        let mut forgotten = Vec::new();
        if let Some(before) = before {
            card.former = before.former;
            if before.generation == card.generation {
                card.version = card.version.max(before.version);
            } else {
                let older = card.former.replace((before.generation, ran));
                // A start that takes turns with another, because two agents have a name, is remembered.
                let older = older.filter(|(generation, _)| *generation != card.generation);
                forgotten.extend(older.map(|(generation, _)| Owner { name: name.clone(), generation }));
            }
        }
        self.cards.insert(name.clone(), card);
        forgotten
    }

    /// Makes room for one more: if need be, in the place of the agent with the oldest sign of life that is not live, if
    /// that is older than this one's. What frames told us ourselves has room in any case. The starts that are forgotten
    /// now; none if there is no room.
    fn make_room(
        &mut self,
        sign: Option<Instant>,
        is_live: impl Fn(&AgentName) -> bool,
    ) -> Option<Vec<Owner>> {
        if self.cards.len() < MAX_CARDS {
            return Some(Vec::new());
        }
        let older = self.cards.iter().filter(|(_, card)| sign.is_none_or(|sign| card.sign < sign));
        let oldest = older.filter(|(name, _)| !is_live(name)).min_by_key(|(_, card)| card.sign);
        let name = oldest.map(|(name, _)| name.clone())?;
        self.cards.remove(&name).map(|card| card.starts(&name).collect())
    }
}

impl HeldCard {
    fn new(sign: Instant, generation: Generation, addr: SocketAddr) -> Self {
        Self { generation, addr, left: false, version: 0, sign, former: None }
    }

    /// Its starts that are remembered.
    fn starts(&self, name: &AgentName) -> impl Iterator<Item = Owner> {
        let former = self.former.map(|(generation, _)| generation);
        let starts = former.into_iter().chain([self.generation]);
        starts.map(|generation| Owner { name: name.clone(), generation })
    }

    fn spell<'a>(&self, ran: Instant, name: &'a AgentName) -> wire::Card<'a> {
        let age = ran.saturating_duration_since(self.sign).as_millis();
        wire::Card {
            name: name.as_str(),
            generation: self.generation,
            addr: self.addr,
            left: self.left,
            version: self.version,
            age_ms: u32::try_from(age).unwrap_or(u32::MAX),
        }
    }
}

impl wire::Card<'_> {
    fn is_plausible(&self) -> bool {
        !self.addr.ip().is_unspecified() && self.addr.port() != 0 && self.version <= MAX_VERSION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(300);
    const S: Duration = Duration::from_secs(1);

    fn peer(n: usize, generation: Generation) -> Peer {
        let name = format!("a{n}").parse().unwrap();
        let port = u16::try_from(n + 1).unwrap();
        Peer { owner: Owner { name, generation }, addr: SocketAddr::from(([10, 0, 0, 1], port)) }
    }

    fn hearsay(n: usize, generation: Generation) -> News {
        News::Hearsay { owner: peer(n, generation).owner, age: Duration::ZERO }
    }

    fn nobody(_: &AgentName) -> bool {
        false
    }

    fn board(n: usize) -> Board {
        Board::new(peer(n, 1), GRACE)
    }

    /// All cards of one board, taken by another.
    fn tell(from: &Board, to: &mut Board, now: Instant) -> Learned {
        to.take(now, &from.cards(now), |_| false)
    }

    #[test]
    fn boards_that_told_each_other_all_have_one_hash_and_others_have_not() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        one.admitted(now, &peer(2, 1), nobody);
        one.admitted(now, &peer(3, 1), nobody);
        other.admitted(now, &peer(1, 1), nobody);
        assert_ne!(one.hash(), other.hash());
        let learned = tell(&one, &mut other, now);
        assert!(learned.moved && learned.news == [hearsay(3, 1)], "{learned:?}");
        assert_eq!(one.hash(), other.hash());
        one.left(&peer(3, 1).owner);
        assert_ne!(one.hash(), other.hash(), "one knows that an agent left");
        assert!(!tell(&one, &mut other, now).moved);
        assert_eq!(one.hash(), other.hash());
        one.published(7);
        assert_eq!(one.hash(), other.hash(), "versions travel in pings");
    }

    #[test]
    fn a_silent_agent_lives_as_long_as_anybody_receives_its_frames() {
        let start = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        one.admitted(start, &peer(3, 1), nobody);
        other.admitted(start, &peer(3, 1), nobody);
        let mut now = start;
        for _ in 0..600 {
            now += S;
            other.received(now, &peer(3, 1).owner.name, 5);
            let silent: Vec<_> = one.silent(|_| false).into_iter().map(str::to_owned).collect();
            let told = other.cards_of(now, silent.iter().map(String::as_str));
            let learned = one.take(now + S, &told, |_| false);
            assert_eq!(learned.news, [hearsay(3, 1)]);
            assert_eq!(learned.versions, [(peer(3, 1).owner, 5)]);
            assert!(one.forget(now).is_empty());
        }
        let told = other.cards_of(now, ["a3"].into_iter()).len();
        assert_eq!((told, one.forget(now + GRACE.checked_sub(S).unwrap()).len()), (1, 0));
        assert_eq!(one.forget(now + GRACE + S), [peer(3, 1).owner]);
    }

    #[test]
    fn a_forgotten_agent_is_not_brought_back_by_those_who_forget_it_a_moment_later() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        other.admitted(now, &peer(3, 1), nobody);
        let late = now + GRACE.checked_sub(S).unwrap();
        let told = other.cards_of(late, ["a3"].into_iter());
        assert_eq!((told.len(), one.take(late, &told, |_| false)), (1, Learned::default()));
        assert!(tell(&other, &mut one, now + S).moved);
        assert!(one.forget(late).is_empty());
    }

    #[test]
    fn what_our_own_sessions_tell_counts_more_than_a_card() {
        let now = Instant::now();
        let (mut one, mut other) = (board(1), board(2));
        one.admitted(now, &peer(3, 1), nobody);
        other.admitted(now, &Peer { addr: peer(9, 1).addr, ..peer(3, 2) }, nobody);
        let told = other.cards(now);
        assert_eq!(
            one.take(now, &told, |name| *name == peer(3, 1).owner.name).news.len(),
            1,
            "only of itself"
        );
        assert_eq!(one.owners().filter(|(owner, _)| owner.generation == 2).count(), 0);
        assert_eq!(one.take(now, &told, |_| false).news.len(), 1);
        assert_eq!(one.owners().filter(|(owner, _)| owner.generation == 2).count(), 1);
    }

    #[test]
    fn a_start_that_was_replaced_is_forgotten_later_and_at_once_when_another_replaces_that() {
        let now = Instant::now();
        let mut board = board(1);
        assert_eq!(board.admitted(now, &peer(3, 1), nobody), (None, vec![]));
        assert_eq!(board.admitted(now + S, &peer(3, 2), nobody), (Some(1), vec![]));
        assert_eq!(board.admitted(now + S, &peer(3, 2), nobody), (None, vec![]), "the same start again");
        assert_eq!(board.admitted(now + 2 * S, &peer(3, 3), nobody), (Some(2), vec![peer(3, 1).owner]));
        assert_eq!(board.admitted(now + 2 * S, &peer(3, 2), nobody), (Some(3), vec![]), "they take turns");
        assert_eq!(board.admitted(now + 2 * S, &peer(3, 3), nobody), (Some(2), vec![]), "they take turns");
        board.received(now + GRACE, &peer(3, 3).owner.name, 0);
        assert_eq!(board.forget(now + GRACE + 2 * S), [peer(3, 2).owner]);
        board.remembered(now, 0);
        assert_eq!(board.forget(now + GRACE), [peer(1, 0).owner], "our own former start");
    }

    #[test]
    fn made_up_agents_take_no_more_room_than_real_ones_and_push_no_live_one_out() {
        let now = Instant::now() + GRACE;
        let mut board = board(1);
        board.admitted(now, &peer(2, 1), nobody);
        let names: Vec<_> = (10..2 * MAX_CARDS + 10).map(|n| format!("m{n}")).collect();
        let addr = peer(3, 1).addr;
        let card = |name, age_ms| wire::Card { name, generation: 1, addr, left: false, version: 0, age_ms };
        let cards: Vec<_> = names.iter().map(|name| card(name, 1_000)).collect();
        board.take(now, &cards, |_| false);
        assert_eq!(board.len(), MAX_CARDS);
        assert!(board.owners().any(|(owner, _)| owner == peer(2, 1).owner));
        board.admitted(now, &peer(4, 1), nobody);
        assert!(board.owners().any(|(owner, _)| owner == peer(4, 1).owner), "who is here has room");
        assert!(wire::encode(&board.cards(now)).len() <= CARDS_BYTES);
        let is_live = |name: &AgentName| ["a2", "a4"].contains(&name.as_str());
        let news = board.take(now + 2 * S, &cards[MAX_CARDS..], is_live).news;
        let forgotten = news.iter().filter(|news| matches!(news, News::Forgotten { .. })).count();
        assert_eq!(
            (board.len(), forgotten, news.len() - forgotten),
            (MAX_CARDS, MAX_CARDS - 2, MAX_CARDS - 2)
        );
        assert!([2, 4].map(|n| peer(n, 1).owner).iter().all(|live| board.knows(live)), "older, but live");
        let hostile = wire::Card { addr: "0.0.0.0:1".parse().unwrap(), ..card("x", 0) };
        assert_eq!(board.take(now, &[hostile], |_| false), Learned::default());
    }
}
