//! The lease table against a model that is too simple to be wrong: a map of ids, looked through at every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::slot::tests::record;
use crate::domain::slot::{Change, Content, Slot};

const TTL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Step {
    Register { id: u8, node: u8, port: u8 },
    Renew { id: u8 },
    Release { id: u8 },
    Kill { node: u8 },
    Doubt { node: u8 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..10_u8, 0..3_u8, 0..2_u8).prop_map(|(id, node, port)| Step::Register { id, node, port }),
        5 => (0..10_u8).prop_map(|id| Step::Renew { id }),
        2 => (0..10_u8).prop_map(|id| Step::Release { id }),
        1 => (0..3_u8).prop_map(|node| Step::Kill { node }),
        1 => (0..3_u8).prop_map(|node| Step::Doubt { node }),
        4 => (1..40_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Wait { seconds: KEEP_LAPSED.as_secs() }),
    ]
}

/// An id as the model sees it.
#[derive(Clone, Debug)]
struct Known {
    node: u8,
    port: u8,
    live: bool,
    until: Instant,
    renews: Vec<Instant>,
}

impl Known {
    fn ttl(&self) -> Duration {
        let intervals = self.renews.windows(2).map(|pair| pair[1] - pair[0]);
        let last: Vec<_> = intervals.rev().take(3).collect();
        let at_least = if last.len() == 3 { Duration::ZERO } else { TTL };
        let learned = |period: Duration| (period * 3).clamp(Duration::from_secs(5), KEEP_LAPSED);
        last.into_iter().max().map_or(TTL, |period| learned(period).max(at_least))
    }
}

#[derive(Default)]
struct Model {
    known: BTreeMap<u8, Known>,
    released: BTreeSet<u8>,
    /// Who registered last at a port.
    claims: BTreeMap<u8, u8>,
}

impl Model {
    fn apply(&mut self, now: Instant, step: &Step) {
        match *step {
            Step::Register { id, .. } if self.released.contains(&id) => {}
            Step::Register { id, node, port } => self.register(now, id, node, port),
            Step::Renew { id } => {
                if let Some(known) = self.known.get_mut(&id) {
                    known.renews.push(now);
                    (known.live, known.until) = (true, now + known.ttl());
                }
            }
            Step::Release { id } => {
                self.known.remove(&id);
                self.released.insert(id);
            }
            Step::Kill { node } => self.lapse(now, |known| known.node == node),
            Step::Doubt { node } => {
                for known in self.known.values_mut().filter(|known| known.node == node && known.live) {
                    known.until = known.until.min(now + known.ttl() / 3 + Duration::from_secs(2));
                }
            }
            Step::Wait { .. } => {
                self.known.retain(|_, known| known.live || known.until > now);
                self.lapse(now, |known| known.until <= now);
            }
        }
        self.claims.retain(|_, node| self.known.values().any(|known| known.node == *node));
    }

    fn register(&mut self, now: Instant, id: u8, node: u8, port: u8) {
        let renews = self.known.get(&id).map(|known| known.renews.clone()).unwrap_or_default();
        let mut known = Known { node, port, live: true, until: now, renews };
        known.until = now + known.ttl();
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

    fn lapse(&mut self, now: Instant, which: impl Fn(&Known) -> bool) {
        for known in self.known.values_mut().filter(|known| known.live && which(known)) {
            (known.live, known.until) = (false, now + KEEP_LAPSED);
        }
    }

    fn live(&self) -> BTreeSet<String> {
        self.known.iter().filter(|(_, known)| known.live).map(|(id, _)| id.to_string()).collect()
    }
}

/// What the table said of each slot last.
#[derive(Default)]
struct Slots(BTreeMap<Slot, Content>);

impl Slots {
    fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.0.extend(changes.into_iter().map(|change| (change.slot, change.cell.content)));
    }

    /// The ids in them; each has one.
    fn live(&self) -> BTreeSet<String> {
        let record = |content: &Content| match content {
            Content::Record(record) => Some(record.id.to_string()),
            Content::Empty | Content::Status(_) | Content::Rule(_) => None,
        };
        let ids: Vec<_> = self.0.values().filter_map(record).collect();
        let set: BTreeSet<_> = ids.iter().cloned().collect();
        assert_eq!(set.len(), ids.len(), "an id in two slots");
        set
    }
}

fn apply(table: &mut LeaseTable, now: Instant, step: &Step) -> Vec<Change> {
    match step {
        Step::Register { id, node, port } => {
            let address = format!("10.0.0.1:{}", 80 + port).into();
            let record =
                Record { node: node.to_string().into(), address, ..(*record(&id.to_string(), "t")).clone() };
            table.register(now, Holding { record: Arc::new(record), dial: "".into() }).unwrap()
        }
        Step::Renew { id } => match table.renew(now, &id.to_string().into()) {
            Renewal::Revived(change) => vec![change],
            Renewal::Renewed | Renewal::Released | Renewal::Unknown => Vec::new(),
        },
        Step::Release { id } => table.release(&id.to_string().into()).into_iter().collect(),
        Step::Kill { node } => table.lapse_instance(now, &node.to_string()),
        Step::Doubt { node } => {
            table.doubt_instance(now, &node.to_string());
            Vec::new()
        }
        Step::Wait { .. } => table.expire(now),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn the_table_holds_and_says_what_the_model_holds(steps in proptest::collection::vec(step(), 1..120)) {
        let mut now = Instant::now();
        let (mut table, mut model) = (LeaseTable::new(Instant::now(), TTL), Model::default());
        let mut slots = Slots::default();
        for step in &steps {
            // The driver looks whenever something is due, so the model may look at every second.
            if let Step::Wait { seconds } = step {
                let until = now + Duration::from_secs(*seconds);
                while let Some(due) = table.next_deadline().filter(|due| *due <= until) {
                    now = due.max(now);
                    slots.take(table.expire(now));
                    model.apply(now, step);
                }
                now = until;
            }
            slots.take(apply(&mut table, now, step));
            model.apply(now, step);
            prop_assert_eq!(slots.live(), model.live(), "after {:?}", step);
            prop_assert_eq!(table.live(), model.live().len());
            prop_assert_eq!(table.live() + table.lapsed(), model.known.len());
        }
    }
}
