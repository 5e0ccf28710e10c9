//! Evidence for and against a record besides its Renews: whether its gost answers a dial, and what gost asks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::label::Label;
use super::super::moment::Moment;
use super::super::slot::Write;
use super::{LeaseTable, Sign};

/// A gost that asks for a tunnel may have asked while the tunnel's connector was being registered.
pub const FRESH: Duration = Duration::from_secs(2);
/// A gost that has not renewed for this long does not renew, although it answers: three times the longest
/// `tunnel.ttl` known to be in use.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(900);
/// Instances that are looked at for Renews that are late: more than any host has.
const MOST_NODES: usize = 256;
/// How long a lease goes on while its gost is dialled: a second for the connection, two for the answer, and as long
/// as many may wait for theirs.
const TRIAL: Duration = Duration::from_secs(5);

/// What follows when the only gost of an agent asks where a tunnel is.
#[derive(Debug, PartialEq, Eq)]
pub enum AskOutcome {
    /// Nothing: it may have asked before its connector was there.
    Fresh,
    /// Its only connector's record was stale, and lapsed.
    Lapsed(Write),
    /// It has several connectors and may ask for another network: those that it does not renew once more lapse then.
    Shortened,
}

impl LeaseTable {
    /// Whether only this instance of gost's tunnel handler has live records here.
    pub fn is_the_only_one(&self, node: &Label) -> bool {
        self.instances.alive() == 1 && self.sibling(node, false).is_some()
    }

    /// Whether all live records of gost's tunnel handler are of one instance.
    pub fn is_the_only_gost(&self) -> bool {
        self.instances.alive() == 1
    }

    /// The instances of gost's tunnel handler with live records.
    pub fn live_nodes(&self) -> impl Iterator<Item = &Label> {
        self.instances.live_nodes()
    }

    /// When the next Renew of an instance would be late, if its period is known.
    pub fn late(&self, node: &Label) -> Option<Instant> {
        self.instances.late(node).map(|late| self.start.instant(late))
    }

    /// The instances whose Renew became late after `since` and until `now`, at most so many; and when the next one will be. Of
    /// [`MOST_NODES`], to keep the lock short.
    pub fn late_nodes(
        &self,
        since: Option<Instant>,
        now: Instant,
        most: usize,
    ) -> (Vec<Label>, Option<Instant>) {
        let (mut late, mut next) = (Vec::new(), None::<Instant>);
        for node in self.instances.live_nodes().take(MOST_NODES) {
            match self.late(node) {
                Some(at) if at > now => next = Some(next.map_or(at, |next| next.min(at))),
                Some(at) if since.is_none_or(|since| at > since) && late.len() < most => {
                    late.push(node.clone());
                }
                Some(_) | None => {}
            }
        }
        (late, next)
    }

    /// Whether an instance has records here, and none of gost's tunnel handler.
    pub fn is_routers(&self, node: &Label) -> bool {
        self.instances.ids(node).next().is_some() && self.sibling(node, false).is_none()
    }

    /// An instance asks where a tunnel is of which it has these live records here. gost asks only for tunnels that it has
    /// no connector of, or none of the wanted network.
    pub fn asked(&mut self, now: Instant, ids: &[Label]) -> AskOutcome {
        let now = self.start.moment(now);
        let is_fresh = |id: &&Label| {
            let lease = self.leases.get(id).filter(|lease| lease.slot.is_some());
            lease.is_none_or(|lease| {
                matches!(lease.sign, Sign::Registered | Sign::Renewed) && now.since(lease.seen) <= FRESH
            })
        };
        let old: Vec<&Label> = ids.iter().filter(|id| !is_fresh(id)).collect();
        match (ids, &*old) {
            (_, []) => AskOutcome::Fresh,
            ([id], _) => self.lapse(now, id).map_or(AskOutcome::Fresh, AskOutcome::Lapsed),
            (_, old) => {
                for id in old {
                    self.shorten(now, id);
                }
                AskOutcome::Shortened
            }
        }
    }

    /// A record lapses unless it is renewed once more in time.
    fn shorten(&mut self, now: Moment, id: &Label) {
        let Some(lease) = self.leases.get_mut(id) else { return };
        let once_more = self.instances.period(&lease.holding.record.node).once_more(self.ttl);
        if now + once_more < lease.deadline {
            lease.deadline = now + once_more;
            self.queue(id);
        }
    }

    /// Lets a live record go on whose lease has ended, if that may be because its gost renews less often than was known: it
    /// has never been seen to renew twice, and can be dialled. Whether it has a connection here shows nothing: between its
    /// Renews an idle one closes them, and only a Renew shows whose a new one is.
    pub(super) fn go_on_trial(&mut self, now: Moment, id: &Label, trials: &mut BTreeSet<Label>) -> bool {
        let Some(lease) = self.leases.get_mut(id).filter(|lease| lease.slot.is_some()) else { return false };
        let record = &lease.holding.record;
        let is_unknown = self.instances.period(&record.node).longest().is_none();
        let may_live = is_unknown
            && now.since(lease.seen) < LONGEST_PERIOD
            && !lease.holding.dial.is_empty()
            && !record.is_routers();
        if may_live {
            trials.insert(record.node.clone());
            (lease.on_trial, lease.deadline) = (true, now + TRIAL);
        }
        may_live
    }
}
