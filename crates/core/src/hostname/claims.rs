//! The owner's truth about rules: which claims on host names it says, and which ones it only remembers because
//! whoever said them is gone. Each is looked at about once a [`LAP`]: one whose tunnel has had no record anywhere
//! for [`GRACE`] is given up, so that the name is free.
//!
//! Time is counted in looks, not read: an agent that was stopped for a while must not take the tunnels it has
//! not heard of since for dead ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Claim, ClaimKey, Clock, TunnelId};
use crate::room::Room as _;
use crate::slot::{Slot, SlotTable, SlotsFull, Write};

/// Between two looks at a claim.
pub const LAP: Duration = Duration::from_secs(60);
/// Looks at a tunnel without a record, one after the other, that end its claim.
const MAX_IDLE: u32 = 60;
/// How long a name is kept for a tunnel without a record: clients reconnect, hosts are booted.
pub const GRACE: Duration = LAP.saturating_mul(MAX_IDLE);
/// Looks until a claim from the journal counts like any other: a lease from the journal lasts no longer.
const PROBATION: u32 = 2;
/// Looks, one after the other, that find a claim's tunnel at another agent only, before it is left to that. In
/// between, each of two agents hears if the other has lost the tunnel as well.
const MAX_AWAY: u32 = 2;
/// Claims looked at in one go, to keep the lock short.
const BATCH: usize = 128;
/// Claims that are remembered at most; a bound against owners that come and go.
pub const MAX_REMEMBERED: usize = crate::slot::MAX_EACH as usize;

/// The claims of one owner.
#[derive(Debug)]
pub struct ClaimTable {
    claims: HashMap<ClaimKey, Kept>,
    slots: SlotTable,
    /// Who is to be looked at next; an entry whose ticket is not its claim's is stale.
    turns: VecDeque<(ClaimKey, u64)>,
    last_ticket: u64,
    touched: BTreeSet<ClaimKey>,
    said: usize,
    bytes: usize,
    /// Claims made before we can have heard what others say, by host.
    young: HashMap<Arc<str>, ClaimKey>,
    /// The highest clock that the journal had.
    restored: Clock,
    /// Tunnels that the operator's rules close, and where the cluster is told so.
    closed: BTreeMap<TunnelId, Slot>,
    /// Tunnels that other agents say are closed: kept by the journal, lest they be open until those are heard again.
    closed_elsewhere: BTreeSet<TunnelId>,
}

#[derive(Debug)]
struct Kept {
    claim: Arc<Claim>,
    /// None if it is only remembered.
    slot: Option<Slot>,
    /// Looks in a row without a record of the tunnel.
    idle: u32,
    /// Looks until it counts fully.
    probation: u32,
    /// Looks in a row that found its tunnel at another agent that says it too, and not here.
    away: u32,
    ticket: u64,
}

/// What the rest of the cluster shows of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether any agent has a record of its tunnel.
    pub alive: bool,
    /// Whether this agent has one.
    pub here: bool,
    /// Since when another agent, surely alive, says the claim that also has a record of its tunnel.
    pub elsewhere: Option<Clock>,
    /// The latest claim on the host of another tunnel that has a record.
    pub rival: Option<Clock>,
    /// When the tunnel first claimed the host, as far as is known.
    pub claimed: Option<Clock>,
    /// Since when anybody says the claim.
    pub said: Option<Clock>,
}

/// What looking at claims led to.
#[derive(Debug, Default)]
pub struct Looked {
    /// Of our own slots.
    pub changes: Vec<Write>,
    /// Claims that were remembered, and are no more.
    pub forgotten: Vec<ClaimKey>,
}

impl Default for ClaimTable {
    fn default() -> Self {
        Self {
            claims: HashMap::new(),
            slots: SlotTable::for_claims(),
            turns: VecDeque::new(),
            last_ticket: 0,
            touched: BTreeSet::new(),
            said: 0,
            bytes: 0,
            young: HashMap::new(),
            restored: 0,
            closed: BTreeMap::new(),
            closed_elsewhere: BTreeSet::new(),
        }
    }
}

impl ClaimTable {
    /// Takes back what a journal kept, but for the tunnels that others said were closed; see
    /// [`Self::note_closed_elsewhere`].
    pub fn restore(&mut self, claims: Vec<Claim>) -> Vec<Write> {
        let mut changes = Vec::new();
        for claim in claims {
            if claim.is_closing() {
                self.closed_elsewhere.insert(claim.endpoint.tunnel);
                continue;
            }
            let key = claim.key();
            self.restored = self.restored.max(claim.clock);
            changes.extend(self.say(Arc::new(claim)).ok().flatten());
            if let Some(claim) = self.claims.get_mut(&key) {
                claim.probation = PROBATION;
            }
        }
        self.touched.clear();
        changes
    }

    /// Says a claim, which has its whole grace again; nothing else changes if it is said already.
    pub fn say(&mut self, claim: Arc<Claim>) -> Result<Option<Write>, SlotsFull> {
        let key = claim.key();
        let change = self.put(claim)?;
        if let Some(claim) = self.claims.get_mut(&key) {
            (claim.idle, claim.away) = (0, 0);
        }
        Ok(change)
    }

    fn put(&mut self, claim: Arc<Claim>) -> Result<Option<Write>, SlotsFull> {
        let key = claim.key();
        let before = self.claims.get(&key).and_then(|claim| Some((claim.slot?, claim.claim.clone())));
        let change = match before {
            Some((_, said)) if said == claim => None,
            Some((slot, _)) => Some(self.slots.replace(slot, claim.clone())),
            None => {
                let change = self.slots.put(claim.clone())?;
                self.said += 1;
                self.bytes += claim.size();
                Some(change)
            }
        };
        let slot = change.as_ref().map(|change| change.slot).or_else(|| self.claims.get(&key)?.slot);
        if change.is_some() {
            self.touched.insert(key.clone());
        }
        self.keep(key, claim, slot);
        Ok(change)
    }

    /// Says that the operator's rules close these tunnels, and no others.
    pub fn close(&mut self, tunnels: &BTreeSet<TunnelId>) -> Vec<Write> {
        let opened: Vec<TunnelId> =
            self.closed.keys().filter(|tunnel| !tunnels.contains(tunnel)).copied().collect();
        let slots = opened.iter().filter_map(|tunnel| self.closed.remove(tunnel));
        let mut changes: Vec<Write> = slots.map(|slot| self.slots.clear(slot)).collect();
        for tunnel in tunnels {
            if self.closed.contains_key(tunnel) {
                continue;
            }
            // An agent's rules and claims together are far from filling its slots.
            let Ok(change) = self.slots.put(Arc::new(Claim::closing(*tunnel))) else { break };
            self.closed.insert(*tunnel, change.slot);
            changes.push(change);
        }
        changes
    }

    /// Notes whether other agents say that a tunnel is closed.
    pub fn note_closed_elsewhere(&mut self, tunnel: TunnelId, closed: bool) {
        let changed =
            if closed { self.closed_elsewhere.insert(tunnel) } else { self.closed_elsewhere.remove(&tunnel) };
        if changed {
            self.touched.insert(Claim::closing(tunnel).key());
        }
    }

    /// Whether there is room to remember more.
    pub fn can_remember(&self) -> bool {
        self.claims.len() - self.said < MAX_REMEMBERED
    }

    /// Remembers a claim of an owner that is gone.
    pub fn remember(&mut self, claim: Arc<Claim>) {
        let key = claim.key();
        if !self.claims.contains_key(&key) {
            self.keep(key, claim, None);
        }
    }

    /// Forgets a claim that is only remembered.
    pub fn forget(&mut self, key: &ClaimKey) {
        if !self.says(key) {
            self.claims.remove(key);
        }
    }

    /// Notes that a claim was made before we can have heard what others say.
    pub fn note_young(&mut self, key: ClaimKey) {
        self.young.insert(key.host.clone(), key);
    }

    /// By now we would have heard of rivals.
    pub fn grow_up(&mut self) {
        self.young = HashMap::new();
    }

    /// Another tunnel's claim on a host was heard. If ours was made too soon to know and would win, it is said
    /// again as what it is: later.
    pub fn yield_to(&mut self, rival: &Claim, later: Clock) -> Option<Write> {
        let key = self.young.get(&rival.host).filter(|key| key.tunnel != rival.endpoint.tunnel)?.clone();
        self.young.remove(&rival.host);
        let ours = self.claims.get(&key).filter(|claim| claim.slot.is_some())?.claim.clone();
        if ours.rank() > rival.rank() {
            return None;
        }
        self.say(Arc::new(Claim { clock: later, ..(*ours).clone() })).ok().flatten()
    }

    /// Takes back a claim.
    pub fn unsay(&mut self, key: &ClaimKey) -> Option<Write> {
        let claim = self.claims.remove(key)?;
        self.silence(&claim)
    }

    /// Looks at the claims whose turn it is; says no more than `most`.
    pub fn look(&mut self, most: usize, look: impl Fn(&ClaimKey) -> Look) -> Looked {
        let mut looked = Looked::default();
        for _ in 0..self.batch() {
            let Some((key, ticket)) = self.turns.pop_front() else { break };
            if self.claims.get(&key).is_some_and(|claim| claim.ticket == ticket) {
                let found = look(&key);
                self.judge(&key, found, most, &mut looked);
                if self.claims.contains_key(&key) {
                    self.turns.push_back((key, ticket));
                }
            }
        }
        looked
    }

    /// When to look again, for each claim to have its turn once a [`LAP`]; none without claims.
    pub fn pace(&self) -> Option<Duration> {
        let looks = u32::try_from(self.turns.len().div_ceil(self.batch().max(1))).ok()?;
        LAP.checked_div(looks)
    }

    /// Whether a claim is said here.
    pub fn says(&self, key: &ClaimKey) -> bool {
        self.claims.get(key).is_some_and(|claim| claim.slot.is_some())
    }

    /// Gives back the room of a peak that is over.
    pub fn give_back(&mut self) {
        self.claims.give_back();
        self.turns.give_back();
        self.young.give_back();
    }

    /// Entries that there is room for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.claims.room() + self.turns.room() + self.young.room()
    }

    /// How many claims are kept, said or remembered.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// How many claims are said.
    pub fn said(&self) -> usize {
        self.said
    }

    /// What they count against a quota, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The claims whose state changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<ClaimKey> {
        std::mem::take(&mut self.touched)
    }

    /// How many claims changed since they were last taken.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Whether any changed since it was asked for.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Counts claims as changed again: they could not be written.
    pub fn touch(&mut self, keys: impl IntoIterator<Item = ClaimKey>) {
        self.touched.extend(keys);
    }

    /// Counts all that are said as changed: a journal starts afresh.
    pub fn touch_all(&mut self) {
        let said = self.claims.iter().filter(|(_, claim)| claim.slot.is_some());
        self.touched.extend(said.map(|(key, _)| key.clone()));
        self.touched.extend(self.closed_elsewhere.iter().map(|tunnel| Claim::closing(*tunnel).key()));
    }

    /// What a journal has to keep of a claim: nothing unless it is said.
    pub fn word(&self, key: &ClaimKey) -> Option<Arc<Claim>> {
        let closing = Claim::closing(key.tunnel);
        if closing.key() == *key {
            return self.closed_elsewhere.contains(&key.tunnel).then(|| Arc::new(closing));
        }
        self.claims.get(key).filter(|claim| claim.slot.is_some()).map(|claim| claim.claim.clone())
    }

    fn judge(&mut self, key: &ClaimKey, look: Look, most: usize, looked: &mut Looked) {
        let (restored, is_full) = (self.restored, self.said >= most);
        let Some(claim) = self.claims.get_mut(key) else { return };
        claim.idle = if look.alive { 0 } else { claim.idle + 1 };
        let unproven = claim.probation > 0;
        claim.probation = claim.probation.saturating_sub(1);
        let clock = claim.claim.clock;
        // While we were away, the name may have become another's.
        let lost = unproven && !look.alive && look.rival.is_some_and(|since| since > restored);
        let is_away = !look.here && look.elsewhere.is_some_and(|since| since <= clock);
        claim.away = if is_away { claim.away + 1 } else { 0 };
        let taken_back = claim.slot.is_none() && look.claimed.is_none();
        if claim.idle >= MAX_IDLE || lost || taken_back {
            self.give_up(key, looked);
        } else if claim.slot.is_none() {
            // Somebody has to, for those to hear who were not there.
            if !is_full && (look.here || look.said.is_none_or(|said| said > clock)) {
                self.say_first(key, look.claimed.unwrap_or(clock), looked);
            }
        } else if claim.away >= MAX_AWAY {
            // Its tunnel has moved on: one agent less to keep it.
            looked.changes.extend(self.unsay(key));
        } else if look.claimed.is_some_and(|first| first < clock) {
            self.say_first(key, look.claimed.unwrap_or(clock), looked);
        }
    }

    fn give_up(&mut self, key: &ClaimKey, looked: &mut Looked) {
        match self.claims.remove(key) {
            Some(claim) if claim.slot.is_some() => looked.changes.extend(self.silence(&claim)),
            Some(_) | None => looked.forgotten.push(key.clone()),
        }
    }

    /// Says a claim with the tunnel's first clock, so that it does not lose what another agent said.
    fn say_first(&mut self, key: &ClaimKey, clock: Clock, looked: &mut Looked) {
        let Some(claim) = self.claims.get(key) else { return };
        let claim = Arc::new(Claim { clock, ..(*claim.claim).clone() });
        // Without a free slot it stays as it was.
        looked.changes.extend(self.put(claim).ok().flatten());
    }

    fn keep(&mut self, key: ClaimKey, claim: Arc<Claim>, slot: Option<Slot>) {
        if let Some(kept) = self.claims.get_mut(&key) {
            (kept.claim, kept.slot) = (claim, slot);
            return;
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.turns.push_back((key.clone(), ticket));
        self.claims.insert(key, Kept { claim, slot, idle: 0, probation: 0, away: 0, ticket });
    }

    fn silence(&mut self, claim: &Kept) -> Option<Write> {
        let slot = claim.slot?;
        self.touched.insert(claim.claim.key());
        self.said -= 1;
        self.bytes -= claim.claim.size();
        Some(self.slots.clear(slot))
    }

    fn batch(&self) -> usize {
        // As many as have their turn if there is one look a second.
        self.turns.len().div_ceil(60).min(BATCH)
    }
}

impl Look {
    /// Of a claim of which nothing is known beside it.
    pub const NOTHING: Self =
        Self { alive: false, here: false, elsewhere: None, rival: None, claimed: None, said: None };
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::super::claim;
    use super::*;
    use crate::slot::Content;

    const ALIVE: Look = Look { alive: true, ..Look::NOTHING };
    const HERE: Look = Look { here: true, ..ALIVE };
    /// Of a claim that is only remembered.
    const KNOWN: Look = Look { claimed: Some(4), ..Look::NOTHING };

    fn table(claim: &Arc<Claim>) -> ClaimTable {
        let mut table = ClaimTable::default();
        assert!(table.say(claim.clone()).unwrap().is_some());
        table
    }

    fn times(table: &mut ClaimTable, looks: u32, look: Look) -> Vec<Write> {
        (0..looks).flat_map(|_| table.look(usize::MAX, |_| look).changes).collect()
    }

    #[test]
    fn a_claim_is_said_once() {
        let claim = claim("x", 1, 4);
        let mut table = table(&claim);
        assert_eq!(table.say(claim.clone()).unwrap(), None);
        assert_eq!((table.said(), table.bytes()), (1, claim.size()));
        assert_eq!(table.take_touched().len(), 1);
        assert!(!table.is_touched());
        let private =
            Arc::new(Claim { endpoint: Endpoint { private: true, ..claim.endpoint }, ..(*claim).clone() });
        let change = table.say(private.clone()).unwrap().unwrap();
        assert_eq!(change.content, Content::Claim(private));
        assert_eq!((table.said(), table.bytes()), (1, claim.size()));
        assert!(table.unsay(&claim.key()).is_some() && table.unsay(&claim.key()).is_none());
        assert_eq!((table.said(), table.bytes(), table.word(&claim.key())), (0, 0, None));
    }

    #[test]
    fn a_name_is_kept_for_an_hour_without_a_record_and_then_free() {
        let claim = claim("x", 1, 4);
        let mut table = table(&claim);
        assert!(times(&mut table, MAX_IDLE - 1, Look::NOTHING).is_empty());
        assert!(times(&mut table, 3, ALIVE).is_empty(), "a record anywhere starts the hour anew");
        assert!(times(&mut table, MAX_IDLE - 1, Look::NOTHING).is_empty());
        let freed = times(&mut table, 1, Look::NOTHING);
        assert_eq!(freed[0].content, Content::Empty);
        assert!(!table.says(&claim.key()) && table.pace().is_none());
    }

    #[test]
    fn a_remembered_claim_is_said_once_nobody_else_says_it() {
        let claim = claim("x", 1, 4);
        let mut table = ClaimTable::default();
        table.remember(claim.clone());
        let said_by_another = Look { said: Some(4), ..KNOWN };
        assert!(times(&mut table, 3, said_by_another).is_empty() && !table.says(&claim.key()));
        let said = times(&mut table, 1, Look { said: Some(9), ..KNOWN });
        assert_eq!(said[0].content, Content::Claim(claim.clone()), "another may say it with a later clock");
        assert!(table.word(&claim.key()).is_some(), "and it is journaled");

        let mut full = ClaimTable::default();
        full.remember(claim.clone());
        assert!(full.look(0, |_| KNOWN).changes.is_empty(), "not over the quota");
        assert_eq!(
            times(&mut full, 1, Look { said: Some(4), here: true, ..KNOWN }).len(),
            1,
            "or where its tunnel is"
        );
    }

    #[test]
    fn an_inherited_claim_has_its_hour_and_no_more() {
        let claim = claim("x", 1, 4);
        let mut table = ClaimTable::default();
        table.remember(claim.clone());
        let freed = times(&mut table, MAX_IDLE, KNOWN);
        assert_eq!(freed.len(), 2, "said, and taken back");
        assert!(!table.says(&claim.key()));
    }

    #[test]
    fn a_remembered_claim_that_others_took_back_is_forgotten() {
        let claim = claim("x", 1, 4);
        let mut table = ClaimTable::default();
        table.remember(claim.clone());
        assert_eq!(table.look(9, |_| HERE).forgotten, [claim.key()]);
        assert!(!table.is_touched(), "it never was in the journal");
    }

    #[test]
    fn a_claim_made_too_soon_gives_way_once_if_it_would_win() {
        for (ours, theirs, yields) in [(1, 60, true), (61, 60, false)] {
            let rule1 = claim("x", 1, ours);
            let mut table = table(&rule1);
            table.note_young(rule1.key());
            assert_eq!(table.yield_to(&claim("y", 2, theirs), 61), None, "another host");
            assert_eq!(table.yield_to(&claim("x", 1, theirs), 61), None, "its own tunnel");
            let change = table.yield_to(&claim("x", 2, theirs), 61);
            assert_eq!(
                change.map(|change| change.content),
                yields.then(|| Content::Claim(claim("x", 1, 61)))
            );
            assert_eq!(table.yield_to(&claim("x", 2, 99), 100), None, "and only once");
        }
        let rule1 = claim("x", 1, 1);
        let mut table = table(&rule1);
        table.note_young(rule1.key());
        table.grow_up();
        assert_eq!(table.yield_to(&claim("x", 2, 60), 61), None);
    }

    #[test]
    fn a_claim_is_left_to_the_agent_that_has_the_tunnel_now() {
        let mut table = table(&claim("x", 1, 4));
        assert!(
            times(&mut table, 2, Look { elsewhere: Some(5), ..ALIVE }).is_empty(),
            "not to a later claim"
        );
        assert!(
            times(&mut table, 2, Look { elsewhere: Some(4), ..HERE }).is_empty(),
            "not while it is here too"
        );
        let there = Look { elsewhere: Some(4), ..ALIVE };
        assert!(
            times(&mut table, MAX_AWAY - 1, there).is_empty(),
            "nor before the other could have lost it too"
        );
        assert!(times(&mut table, 1, ALIVE).is_empty());
        assert!(times(&mut table, MAX_AWAY - 1, there).is_empty());
        assert_eq!(times(&mut table, 1, there).len(), 1);
    }

    #[test]
    fn the_tunnels_first_claim_counts_wherever_it_is_said() {
        let mut table = table(&claim("x", 1, 9));
        let said = times(&mut table, 1, Look { claimed: Some(4), ..HERE });
        assert_eq!(said[0].content, Content::Claim(claim("x", 1, 4)));
    }

    #[test]
    fn a_claim_from_the_journal_yields_to_a_tunnel_that_lives_unless_its_own_does() {
        let restored = || {
            let mut table = ClaimTable::default();
            assert_eq!(table.restore(vec![(*claim("x", 1, 4)).clone()]).len(), 1);
            assert!(!table.is_touched());
            table
        };
        let later = Look { rival: Some(5), ..Look::NOTHING };
        assert_eq!(times(&mut restored(), 1, later).len(), 1);
        let concurrent = Look { rival: Some(4), ..Look::NOTHING };
        assert!(times(&mut restored(), 2, concurrent).is_empty(), "a loser that it knew of is no reason");
        let mut table = restored();
        times(&mut table, PROBATION, Look { rival: Some(5), ..HERE });
        assert!(times(&mut table, 1, later).is_empty(), "it has its hour like any other");
    }

    #[test]
    fn every_claim_has_its_turn_once_a_lap_in_short_goes() {
        for count in [1_u32, 59, 61, 7_000, 20_000] {
            let mut table = ClaimTable::default();
            for n in 0..count {
                table.say(claim(&n.to_string(), u128::from(n), 1)).unwrap();
            }
            let pace = table.pace().unwrap();
            let looks = LAP.as_nanos().div_ceil(pace.as_nanos());
            let seen = std::cell::RefCell::new(BTreeSet::new());
            let most = (0..looks).map(|_| {
                let before = seen.borrow().len();
                table.look(usize::MAX, |key| {
                    seen.borrow_mut().insert(key.clone());
                    HERE
                });
                seen.borrow().len() - before
            });
            assert!(most.max().unwrap() <= BATCH);
            assert_eq!(seen.borrow().len(), count as usize);
        }
    }

    #[test]
    fn what_the_operators_rules_close_is_said_for_as_long_as_they_do() {
        let mut table = table(&claim("x", 1, 4));
        table.take_touched();
        let tunnels = [1, 2, 3].map(super::super::tunnel);
        let contents = |changes: Vec<Write>| changes.into_iter().map(|change| change.content);
        let closing = |tunnel| Content::Claim(Arc::new(Claim::closing(tunnel)));
        let said = contents(table.close(&tunnels[..2].iter().copied().collect()));
        assert_eq!(said.collect::<Vec<_>>(), [closing(tunnels[0]), closing(tunnels[1])]);
        assert!(table.close(&tunnels[..2].iter().copied().collect()).is_empty(), "once");
        let said = contents(table.close(&tunnels[1..].iter().copied().collect()));
        assert_eq!(said.collect::<Vec<_>>(), [Content::Empty, closing(tunnels[2])]);
        assert_eq!((table.len(), table.said()), (1, 1), "they are no claims");
        assert!(!table.is_touched(), "the flags say them again after a restart");
    }

    #[test]
    fn what_others_close_is_kept_for_the_next_start() {
        let (mut table, tunnel) = (ClaimTable::default(), super::super::tunnel(1));
        let key = Claim::closing(tunnel).key();
        table.note_closed_elsewhere(tunnel, true);
        assert_eq!(table.take_touched(), [key.clone()].into());
        let kept = table.word(&key).unwrap();
        table.note_closed_elsewhere(tunnel, true);
        assert!(!table.is_touched(), "once");
        let mut after = ClaimTable::default();
        assert!(after.restore(vec![(*kept).clone()]).is_empty(), "it is not ours to say");
        assert!(after.is_empty() && after.word(&key).is_some());
        after.note_closed_elsewhere(tunnel, false);
        assert_eq!((after.take_touched(), after.word(&key)), ([key].into(), None));
    }

    #[test]
    fn the_room_of_a_peak_is_given_back() {
        let mut table = ClaimTable::default();
        let claims: Vec<_> = (0..10_000).map(|n| claim(&n.to_string(), 1, 1)).collect();
        for claim in &claims {
            assert!(table.say(claim.clone()).unwrap().is_some());
            table.note_young(claim.key());
        }
        for claim in &claims[10..] {
            assert!(table.unsay(&claim.key()).is_some());
        }
        table.grow_up();
        assert!(table.room() >= 20_000);
        while table.turns.len() > 10 {
            table.look(0, |_| HERE);
        }
        table.give_back();
        assert!(table.room() < 200 && table.len() == 10, "{}", table.room());
    }
}
