//! The lease table against a model that is too simple to be wrong: a map of ids, looked through at every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::verdict::BITE;
use super::*;
use crate::slot::tests::record;
use crate::slot::{Content, Slot, Write};
use crate::tombstone::IN_FLIGHT;

const TTL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum LeaseStep {
    Register { id: u8, node: u8, port: u8 },
    Renew { id: u8 },
    Release { id: u8 },
    Kill { node: u8 },
    Ask { node: u8 },
    Wait { seconds: u64 },
}

/// The one instance that can be dialled, and answers.
const ANSWERS: u8 = 2;

fn step() -> impl Strategy<Value = LeaseStep> {
    prop_oneof![
        5 => (0..10_u8, 0..3_u8, 0..2_u8).prop_map(|(id, node, port)| LeaseStep::Register { id, node, port }),
        5 => (0..10_u8).prop_map(|id| LeaseStep::Renew { id }),
        2 => (0..10_u8).prop_map(|id| LeaseStep::Release { id }),
        1 => (0..3_u8).prop_map(|node| LeaseStep::Kill { node }),
        2 => (0..3_u8).prop_map(|node| LeaseStep::Ask { node }),
        4 => (1..40_u64).prop_map(|seconds| LeaseStep::Wait { seconds }),
        1 => Just(LeaseStep::Wait { seconds: KEEP_LAPSED.as_secs() }),
    ]
}

/// An id as the model sees it.
#[derive(Clone, Debug)]
struct ModelId {
    node: u8,
    port: u8,
    live: bool,
    until: Instant,
    seen: Instant,
    /// When it was renewed last; none if it was registered since.
    renewed: Option<Instant>,
}

/// The intervals between Renews of each connector of an instance, each with its end.
#[derive(Clone, Debug, Default)]
struct Intervals(Vec<(Instant, Duration)>);

impl Intervals {
    /// The longest one of each of the last three rounds, the first being the last round: a round ends when a connector is
    /// renewed that was renewed in it.
    fn rounds(&self) -> Vec<Duration> {
        let mut rounds: Vec<(Instant, Duration)> = Vec::new();
        for (end, interval) in &self.0 {
            match rounds.last_mut() {
                Some((began, longest)) if *end < *began + *interval => *longest = (*longest).max(*interval),
                _ => rounds.push((*end, *interval)),
            }
        }
        rounds.iter().rev().take(3).map(|(_, longest)| *longest).collect()
    }

    fn ttl(&self) -> Duration {
        let last = self.rounds();
        let at_least = if last.len() == 3 { Duration::ZERO } else { TTL };
        // Kept in whole milliseconds.
        let whole = |period: Duration| {
            Duration::from_millis(period.as_nanos().div_ceil(1_000_000).try_into().unwrap())
        };
        let learned = |period: Duration| (whole(period) * 3).clamp(Duration::from_secs(5), KEEP_LAPSED);
        last.into_iter().max().map_or(TTL, |period| learned(period).max(at_least))
    }
}

#[derive(Default)]
struct Model {
    known: BTreeMap<u8, ModelId>,
    /// When ids were released, and whether they were known.
    released: BTreeMap<u8, (Instant, bool)>,
    /// Of each instance. They outlive its records.
    intervals: BTreeMap<u8, Intervals>,
    /// Who registered last at a port.
    claims: BTreeMap<u8, u8>,
}

impl Model {
    fn apply(&mut self, now: Instant, step: &LeaseStep) {
        match *step {
            LeaseStep::Register { id, .. } if self.in_flight(now, id).is_some_and(|was_known| !was_known) => {
            }
            LeaseStep::Register { id, node, port } => self.register(now, id, node, port),
            LeaseStep::Renew { id } => {
                if let Some(known) = self.known.get_mut(&id) {
                    let intervals = self.intervals.entry(known.node).or_default();
                    if let Some(last) = known.renewed.replace(now) {
                        intervals.0.push((now, now - last));
                    }
                    (known.live, known.seen, known.until) = (true, now, now + intervals.ttl());
                }
            }
            LeaseStep::Release { id } => {
                let was_known = self.known.remove(&id).is_some();
                if self.in_flight(now, id).is_none() {
                    self.released.insert(id, (now, was_known));
                }
            }
            LeaseStep::Kill { node } => self.lapse(now, |known| known.node == node),
            LeaseStep::Ask { node } => {
                let live: Vec<u8> = self.live_of(node);
                let ttl = self.ttl(node);
                let is_old = |known: &ModelId| now - known.seen > FRESH;
                if let [only] = live[..] {
                    let old = is_old(&self.known[&only]);
                    self.lapse(now, |known| old && known.node == node);
                } else {
                    let old = self.known.values_mut().filter(|known| known.node == node && known.live);
                    for known in old.filter(|known| is_old(known)) {
                        known.until = known.until.min(now + ttl / 3 + Duration::from_secs(2));
                    }
                }
            }
            LeaseStep::Wait { .. } => {
                self.known.retain(|_, known| known.live || known.until > now);
                let unknown = self.intervals.get(&ANSWERS).is_none_or(|all| all.0.is_empty());
                let answers =
                    |known: &ModelId| known.node == ANSWERS && unknown && now - known.seen < LONGEST_PERIOD;
                for known in self.known.values_mut().filter(|known| known.until <= now && answers(known)) {
                    known.until = now + TTL;
                }
                self.lapse(now, |known| known.until <= now);
            }
        }
        self.claims.retain(|_, node| self.known.values().any(|known| known.node == *node));
    }

    fn ttl(&self, node: u8) -> Duration {
        self.intervals.get(&node).map_or(TTL, Intervals::ttl)
    }

    fn live_of(&self, node: u8) -> Vec<u8> {
        let live = self.known.iter().filter(|(_, known)| known.node == node && known.live);
        live.map(|(id, _)| *id).collect()
    }

    /// Whether an id was known when it was released, if calls may be in flight beside that.
    fn in_flight(&self, now: Instant, id: u8) -> Option<bool> {
        let (at, was_known) = self.released.get(&id)?;
        (!self.known.contains_key(&id) && now - *at < IN_FLIGHT).then_some(*was_known)
    }

    fn register(&mut self, now: Instant, id: u8, node: u8, port: u8) {
        let known = ModelId { node, port, live: true, until: now + self.ttl(node), seen: now, renewed: None };
        self.released.remove(&id);
        let moved_from = self.known.insert(id, known).map(|before| before.node);
        if let Some(before) = moved_from
            && !self.known.values().any(|known| known.node == before)
        {
            self.claims.retain(|_, claimant| *claimant != before);
        }
        match self.claims.insert(port, node) {
            Some(former) if former != node => self.lapse(now, |k| k.node == former && k.port == port),
            _ => {}
        }
    }

    fn lapse(&mut self, now: Instant, which: impl Fn(&ModelId) -> bool) {
        for known in self.known.values_mut().filter(|known| known.live && which(known)) {
            (known.live, known.until) = (false, now + KEEP_LAPSED);
        }
    }

    fn live(&self) -> BTreeSet<String> {
        self.known.iter().filter(|(_, known)| known.live).map(|(id, _)| id.to_string()).collect()
    }
}

/// The last content of each slot that the table wrote.
#[derive(Default)]
struct Slots(BTreeMap<Slot, Content>);

impl Slots {
    fn take(&mut self, changes: impl IntoIterator<Item = Write>) {
        self.0.extend(changes.into_iter().map(|change| (change.slot, change.content)));
    }

    /// The ids in them; each has one.
    fn live(&self) -> BTreeSet<String> {
        let record = |content: &Content| content.record().map(|record| record.id.to_string());
        let ids: Vec<_> = self.0.values().filter_map(record).collect();
        let set: BTreeSet<_> = ids.iter().cloned().collect();
        assert_eq!(set.len(), ids.len(), "an id in two slots");
        set
    }
}

/// What the table makes of a step; `ids` are those that are live of the instance that asks.
fn apply(table: &mut LeaseTable, now: Instant, step: &LeaseStep, ids: &[u8]) -> Vec<Write> {
    match step {
        LeaseStep::Register { id, node, port } => {
            let address = format!("10.0.0.1:{}", 80 + port).into();
            let record =
                Record { node: node.to_string().into(), address, ..(*record(&id.to_string(), "t")).clone() };
            let dial = if *node == ANSWERS { "127.0.0.1:80" } else { "" };
            table.register(now, Holding { record: Arc::new(record), dial: dial.into() }).unwrap()
        }
        LeaseStep::Renew { id } => match table.renew(now, &id.to_string().into()) {
            Renewal::Revived(change) => vec![change],
            Renewal::Renewed | Renewal::Released | Renewal::Unknown => Vec::new(),
        },
        LeaseStep::Release { id } => table.release(now, &id.to_string().into()).into_iter().collect(),
        LeaseStep::Kill { node } => table.judge(now, &node.to_string().into(), Verdict::Dead).changes,
        LeaseStep::Ask { node } => {
            let ids = ids.iter().map(|id| id.to_string().into()).collect::<Vec<_>>();
            debug_assert!(ids.iter().all(|id| table.is_live(id)), "of {node}");
            match table.asked(now, &ids) {
                AskOutcome::Lapsed(change) => vec![change],
                AskOutcome::Fresh | AskOutcome::Shortened => Vec::new(),
            }
        }
        LeaseStep::Wait { .. } => {
            let Expired { changes, trials } = table.expire(now);
            for node in &trials {
                table.judge(now, node, Verdict::Answered);
            }
            changes
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn the_table_holds_and_says_what_the_model_holds(
        steps in proptest::collection::vec(step(), 1..120),
        bite in prop_oneof![1..5_usize, Just(BITE)],
    ) {
        let mut now = Instant::now();
        let (mut table, mut model) = (LeaseTable::new(Instant::now(), TTL).biting(bite), Model::default());
        let mut slots = Slots::default();
        for step in &steps {
            // No two calls come at the same instant.
            now += Duration::from_nanos(1);
            // The driver looks whenever something is due, so the model may look at every second.
            if let LeaseStep::Wait { seconds } = step {
                let until = now + Duration::from_secs(*seconds);
                while let Some(due) = table.next_deadline().filter(|due| *due <= until) {
                    now = due.max(now);
                    slots.take(table.carry_out().changes);
                    slots.take(apply(&mut table, now, step, &[]));
                    model.apply(now, step);
                }
                now = until;
            }
            let asked = if let LeaseStep::Ask { node } = step { model.live_of(*node) } else { Vec::new() };
            slots.take(apply(&mut table, now, step, &asked));
            model.apply(now, step);
            slots.take(table.carry_out().changes);
            // What is still to be carried out is the model's at once.
            if table.next_deadline().is_none_or(|due| due > now) {
                prop_assert_eq!(slots.live(), model.live(), "after {:?}", step);
                prop_assert_eq!(table.live(), model.live().len());
                prop_assert_eq!(table.live() + table.lapsed(), model.known.len());
            }
        }
    }
}
