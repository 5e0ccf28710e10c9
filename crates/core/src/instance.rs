//! Which records belong to which gost instance, how often each renews, and which instance answers at which entrypoint:
//! what is needed to let all records of a dead or replaced instance go at once, and none too early.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::address::Address;
use super::capacity::GiveBack as _;
use super::label::Label;
use super::moment::Moment;
use super::period::Period;
use super::record::Record;

/// Instances that are remembered without a record, for the next connector to have their Renew period at once; the oldest
/// go first. A gost instance ends with its process, or at a reload of its configuration.
pub const MAX_IDLE: usize = 256;

/// A Renew that is expected may come so much later, or an eighth of its period: gost renews one connector after the other.
const LATE: Duration = Duration::from_secs(1);

/// An entrypoint as an instance claims it. The router handler's is a UDP port, so it does not compete with a
/// tunnel handler's of the same number.
type ClaimedPort = (Address, bool);

/// The instances of the records held, and some that had records before.
#[derive(Debug, Default)]
pub struct Instances {
    known: HashMap<Label, Instance>,
    /// Those without a record, in the order in which they lost their last one.
    idle: BTreeMap<u64, Label>,
    last_idle: u64,
    /// How many have a live record of the tunnel handler's.
    alive: usize,
    claims: HashMap<ClaimedPort, Label>,
    /// How many records an instance has at an entrypoint: without any, it claims nothing there.
    counts: HashMap<(Label, ClaimedPort), usize>,
    /// Instances whose period is to be kept, or not any more.
    touched: BTreeSet<Label>,
}

#[derive(Debug, Default)]
struct Instance {
    ids: BTreeSet<Label>,
    /// Its place among those without a record.
    idle: Option<u64>,
    /// Live records of the tunnel handler's.
    live: u32,
    period: Period,
    /// Its last Renew.
    renewed: Option<Moment>,
    /// The period as it was touched last.
    kept: Option<Duration>,
}

impl Instances {
    /// A record is held from now on.
    pub fn add(&mut self, record: &Record) {
        let instance = self.known.entry(record.node.clone()).or_default();
        if let Some(place) = instance.idle.take() {
            self.idle.remove(&place);
        }
        instance.ids.insert(record.id.clone());
        *self.counts.entry((record.node.clone(), claim_of(record))).or_default() += 1;
    }

    /// A record is held no longer.
    pub fn remove(&mut self, record: &Record) {
        let Some(instance) = self.known.get_mut(&record.node) else { return };
        instance.ids.remove(&record.id);
        if instance.ids.is_empty() {
            if instance.period.longest().is_some() {
                self.rest(record.node.clone());
                self.forget_idle();
            } else {
                self.known.remove(&record.node);
            }
        }
        self.uncount(record);
    }

    /// A record that is held has another address from now on. An instance keeps what it has claimed.
    pub(super) fn readdress(&mut self, before: &Record, after: &Record) {
        let (from, to) = (claim_of(before), claim_of(after));
        if from == to {
            return;
        }
        let has = self.claims.get(&from) == Some(&before.node);
        *self.counts.entry((after.node.clone(), to.clone())).or_default() += 1;
        if has {
            self.claims.insert(to, after.node.clone());
        } else {
            self.claim_if_vacant(after);
        }
        self.uncount(before);
    }

    /// A record is at an entrypoint no longer. Without any, its instance claims nothing there.
    fn uncount(&mut self, record: &Record) {
        let at = (record.node.clone(), claim_of(record));
        let Some(count) = self.counts.get_mut(&at) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&at);
            if self.claims.get(&at.1) == Some(&at.0) {
                self.claims.remove(&at.1);
            }
        }
    }

    /// A record that is held is live from now on.
    pub(super) fn rise(&mut self, record: &Record) {
        let Some(instance) = self.known.get_mut(&record.node).filter(|_| !record.is_routers()) else {
            return;
        };
        instance.live += 1;
        self.alive += usize::from(instance.live == 1);
    }

    /// A record that is held is live no longer.
    pub(super) fn fall(&mut self, record: &Record) {
        let Some(instance) = self.known.get_mut(&record.node).filter(|_| !record.is_routers()) else {
            return;
        };
        instance.live -= 1;
        self.alive -= usize::from(instance.live == 0);
    }

    /// How many instances have a live record of the tunnel handler's.
    pub fn alive(&self) -> usize {
        self.alive
    }

    /// A connector of an instance is renewed, and was at `last`, if that is known: the instance's period as it is now.
    pub(super) fn renewed(&mut self, node: &Label, last: Option<Moment>, now: Moment) -> Period {
        let Some(instance) = self.known.get_mut(node) else { return Period::default() };
        instance.renewed = Some(now);
        if let Some(last) = last {
            instance.period.learn(last, now);
            let period = instance.period.longest().filter(|_| instance.period.is_sure());
            if period.is_some_and(|period| instance.kept.is_none_or(|kept| differs(period, kept))) {
                instance.kept = period;
                self.touched.insert(node.clone());
            }
        }
        instance.period.clone()
    }

    /// The instances with a live record of the tunnel handler's.
    pub(super) fn live_nodes(&self) -> impl Iterator<Item = &Label> {
        self.known.iter().filter(|(_, instance)| instance.live > 0).map(|(node, _)| node)
    }

    /// When the next Renew of an instance would be late, if its period is known.
    pub(super) fn late(&self, node: &Label) -> Option<Moment> {
        let Instance { period, renewed, .. } = self.known.get(node)?;
        let period = period.longest()?;
        Some((*renewed)? + period + LATE.max(period / 8))
    }

    /// Takes back the period of an instance that is known from before a restart. Its records come afterwards, and then
    /// [`Self::restored`].
    pub(super) fn restore(&mut self, node: Label, period: Duration) {
        let instance = self.known.entry(node.clone()).or_default();
        (instance.period, instance.kept) = (Period::of(period), Some(period));
        self.rest(node);
    }

    /// All is taken back.
    pub(super) fn restored(&mut self) {
        self.forget_idle();
        self.touched.clear();
    }

    /// What is known of an instance's Renew period.
    pub(super) fn period(&self, node: &Label) -> Period {
        self.known.get(node).map(|instance| instance.period.clone()).unwrap_or_default()
    }

    /// The period of an instance, for the journal; none if it is not sure, or the instance is forgotten.
    pub fn kept(&self, node: &Label) -> Option<Duration> {
        self.known.get(node)?.kept
    }

    /// The instances whose kept period changed, and that were forgotten.
    pub(super) fn touched(&mut self) -> &mut BTreeSet<Label> {
        &mut self.touched
    }

    /// How many of them there are.
    pub fn touched_len(&self) -> usize {
        self.touched.len()
    }

    /// Counts every kept period as changed.
    pub(super) fn touch_all(&mut self) {
        let kept = self.known.iter().filter(|(_, instance)| instance.kept.is_some());
        self.touched.extend(kept.map(|(node, _)| node.clone()));
    }

    /// The instance of a record that registers claims its entrypoint. The instance that it takes the entrypoint
    /// from, if there is one: its gost was replaced.
    pub fn claim(&mut self, record: &Record) -> Option<Label> {
        match self.claims.insert(claim_of(record), record.node.clone()) {
            Some(former) if former != record.node => Some(former),
            _ => None,
        }
    }

    /// The instance of a record has its entrypoint, unless another with a live record claims that: it was there before this
    /// agent could show who came last.
    pub fn claim_if_vacant(&mut self, record: &Record) {
        let claimant = self.claims.entry(claim_of(record)).or_insert_with(|| record.node.clone());
        let has_live = |instance: &Instance| instance.live > 0;
        if !record.is_routers() && !self.known.get(claimant).is_some_and(has_live) {
            *claimant = record.node.clone();
        }
    }

    /// The instance that has a record's entrypoint.
    pub fn claimant(&self, record: &Record) -> Option<&Label> {
        self.claims.get(&claim_of(record))
    }

    /// Whether an instance with a live record has a tunnel handler's entrypoint.
    pub(super) fn lives_at(&self, entrypoint: &Address) -> bool {
        let node = self.claims.get(&(entrypoint.clone(), false));
        node.and_then(|node| self.known.get(node)).is_some_and(|instance| instance.live > 0)
    }

    /// The ids of an instance's records.
    pub fn ids(&self, node: &Label) -> impl Iterator<Item = &Label> {
        self.known.get(node).into_iter().flat_map(|instance| &instance.ids)
    }

    /// Those of them from one on, in their order.
    pub(super) fn ids_from(&self, node: &Label, from: Bound<Label>) -> impl Iterator<Item = &Label> {
        let instance = self.known.get(node).into_iter();
        instance.flat_map(move |instance| instance.ids.range((from.as_ref(), Bound::Unbounded)))
    }

    /// Gives back the capacity of a peak that is over.
    pub fn give_back(&mut self) {
        self.known.give_back();
        self.claims.give_back();
        self.counts.give_back();
    }

    /// Entries that there is capacity for.
    pub(super) fn capacity(&self) -> usize {
        self.known.capacity() + self.claims.capacity() + self.counts.capacity()
    }

    /// How many entrypoints are some instance's.
    pub fn entrypoints(&self) -> usize {
        self.claims.len()
    }

    /// How many instances are known, with records or without.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All instances with records.
    pub fn nodes(&self) -> impl Iterator<Item = &Label> {
        self.known.iter().filter(|(_, instance)| !instance.ids.is_empty()).map(|(node, _)| node)
    }

    /// An instance has no record, and is remembered.
    fn rest(&mut self, node: Label) {
        self.last_idle += 1;
        if let Some(instance) = self.known.get_mut(&node) {
            instance.idle = Some(self.last_idle);
            self.idle.insert(self.last_idle, node);
        }
    }

    /// Forgets the oldest of too many instances without a record.
    fn forget_idle(&mut self) {
        while self.idle.len() > MAX_IDLE
            && let Some((_, node)) = self.idle.pop_first()
        {
            if self.known.remove(&node).is_some_and(|instance| instance.kept.is_some()) {
                self.touched.insert(node);
            }
        }
    }
}

/// Whether a period is another one, and not the same as measured: by more than a quarter.
fn differs(period: Duration, kept: Duration) -> bool {
    period.abs_diff(kept) > kept / 4
}

fn claim_of(record: &Record) -> ClaimedPort {
    (record.address.clone(), record.is_routers())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::moment::Start;
    use super::super::slot::tests::record;
    use super::*;

    fn at(address: &str, id: &str) -> Record {
        Record { address: address.into(), ..Record::clone(&record(id, "t")) }
    }

    fn of(node: &str) -> Record {
        Record { node: node.into(), ..Record::clone(&record("1", "t")) }
    }

    #[test]
    fn an_entrypoint_without_a_record_is_nobodys() {
        let mut instances = Instances::default();
        instances.add(&at("10.0.0.2:80", "stays"));
        for port in 1..1_000 {
            let record = at(&format!("10.0.0.1:{port}"), "moves");
            instances.add(&record);
            instances.claim(&record);
            instances.remove(&record);
        }
        assert_eq!((instances.entrypoints(), instances.nodes().count()), (0, 1));
    }

    #[test]
    fn an_entrypoint_is_its_claimants_until_the_last_of_its_records_goes() {
        let mut instances = Instances::default();
        let records = ["1", "2"].map(|id| at("10.0.0.1:80", id));
        for record in &records {
            instances.add(record);
            assert_eq!(instances.claim(record), None);
        }
        instances.remove(&records[0]);
        assert_eq!(instances.claimant(&records[0]), Some(&"node".into()));
        instances.remove(&records[1]);
        assert_eq!(instances.claimant(&records[0]), None);
    }

    #[test]
    fn an_entrypoint_whose_claimant_has_no_live_record_is_vacant() {
        let mut instances = Instances::default();
        let [former, present] = ["former", "present"].map(of);
        for record in [&former, &present] {
            instances.add(record);
            instances.rise(record);
            instances.claim_if_vacant(record);
        }
        assert_eq!(instances.claimant(&present), Some(&former.node));
        instances.fall(&former);
        instances.claim_if_vacant(&present);
        assert_eq!(instances.claimant(&present), Some(&present.node));
    }

    #[test]
    fn an_instance_is_alive_while_a_record_of_its_tunnel_handler_is() {
        let mut instances = Instances::default();
        let (one, other) = (at("10.0.0.1:80", "1"), at("10.0.0.1:80", "2"));
        let router =
            Record { name: "host@r".into(), network: super::super::record::Network::Udp, ..of("router") };
        for record in [&one, &other, &router] {
            instances.add(record);
            instances.rise(record);
        }
        assert_eq!(instances.alive(), 1);
        instances.fall(&one);
        assert_eq!(instances.alive(), 1);
        instances.fall(&other);
        instances.fall(&router);
        assert_eq!(instances.alive(), 0);
    }

    #[test]
    fn the_period_of_an_instance_outlives_its_records_for_a_bounded_number_of_instances() {
        let mut instances = Instances::default();
        let start = Instant::now();
        let moment = |second: u64| Start(start).moment(start + Duration::from_secs(second));
        instances.add(&of("never renewed"));
        instances.remove(&of("never renewed"));
        assert!(instances.is_empty(), "nothing is known of it");
        for n in 0..=MAX_IDLE {
            let record = of(&n.to_string());
            instances.add(&record);
            for second in [10, 20, 30] {
                instances.renewed(&record.node, Some(moment(second - 10)), moment(second));
            }
            instances.remove(&record);
        }
        let period = |node: &str| instances.period(&node.into()).longest();
        assert_eq!((period("0"), period("1")), (None, Some(Duration::from_secs(10))));
        assert_eq!((instances.len(), instances.nodes().count()), (MAX_IDLE, 0));
        assert_eq!((instances.kept(&"0".into()), instances.touched().len()), (None, MAX_IDLE + 1));
    }

    #[test]
    fn the_periods_of_all_instances_with_records_come_back_and_those_of_some_without() {
        let mut instances = Instances::default();
        let all = 2 * MAX_IDLE + 10;
        for n in 0..all {
            instances.restore(n.to_string().into(), Duration::from_secs(10));
        }
        let with_records = all - MAX_IDLE - 5;
        for n in 0..with_records {
            instances.add(&of(&n.to_string()));
        }
        instances.restored();
        let known = (0..all).filter(|n| instances.period(&n.to_string().into()).is_sure());
        assert_eq!(known.count(), with_records + MAX_IDLE);
        assert_eq!(instances.touched_len(), 0);
    }

    #[test]
    fn a_period_is_kept_when_it_is_sure_and_again_when_it_is_another() {
        let mut instances = Instances::default();
        let start = Instant::now();
        let moment = |milli: u64| Start(start).moment(start + Duration::from_millis(milli));
        let mut now = 0;
        instances.add(&of("n"));
        let mut renew = |every: u64| {
            instances.renewed(&"n".into(), Some(moment(now)), moment(now + every));
            now += every;
            std::mem::take(instances.touched()).len()
        };
        assert_eq!([10_000, 10_001, 9_999, 10_100, 9_900, 12_000].map(&mut renew), [0, 0, 1, 0, 0, 0]);
        assert_eq!([15_000, 15_000, 15_000].map(&mut renew), [1, 0, 0]);
        assert_eq!([5_000, 5_000, 5_000].map(&mut renew), [0, 0, 1]);
    }
}
