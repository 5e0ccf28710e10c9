//! What becomes of all records of an instance at once: a bite at a time, for those that wait for the lock. A record of which
//! there was a sign after the verdict fell is left alone.

use std::ops::Bound;
use std::time::Instant;

use super::LeaseTable;
use crate::address::Address;
use crate::label::Label;
use crate::moment::Moment;
use crate::record::Record;
use crate::slot::Write;

/// Records that are looked at in one go, for those that wait for the lock.
pub(super) const BITE: usize = 100;

/// What is found about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its gost is dead: its records lapse.
    Dead,
    /// Its gost answered a dial: what waited for that goes on.
    Answered,
    /// It did not: what waited for that lapses.
    Unanswered,
    /// Another instance has registered at this entrypoint, of gost's router handler or of its tunnel handler: the records that it
    /// has there lapse.
    Replaced(Address, bool),
}

/// One that is being carried out.
#[derive(Debug)]
pub(super) struct Pending {
    node: Label,
    verdict: Verdict,
    at: Moment,
    /// The last id that was looked at.
    after: Option<Label>,
    lapsed: usize,
}

impl Pending {
    /// When the verdict fell.
    pub(super) fn at(&self) -> Moment {
        self.at
    }
}

/// What came of a bite.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Of records that lapsed.
    pub changes: Vec<Write>,
    /// The verdict that has been carried out with it, if it has: on whom, and how many records lapsed in all.
    pub ended: Option<(Label, Verdict, usize)>,
}

impl LeaseTable {
    /// Begins to carry out a verdict. [`Self::next_deadline`] is over until [`Self::carry_out`] has done the rest. One that falls
    /// again before it has been carried out begins anew, so there are never more than entrypoints and instances.
    pub fn judge(&mut self, now: Instant, node: &Label, verdict: Verdict) -> Judged {
        let at = self.start.moment(now);
        let is_same = |pending: &Pending| pending.node == *node && pending.verdict == verdict;
        let same = self.pending.iter().position(is_same).and_then(|at| self.pending.remove(at));
        let lapsed = same.map_or(0, |same| same.lapsed);
        self.bite(Pending { node: node.clone(), verdict, at, after: None, lapsed })
    }

    /// Whether a verdict has not been carried out yet.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Goes on with the verdict that has waited for longest.
    pub fn carry_out(&mut self) -> Judged {
        self.pending.pop_front().map(|pending| self.bite(pending)).unwrap_or_default()
    }

    fn bite(&mut self, mut pending: Pending) -> Judged {
        let from = pending.after.take();
        // Nothing was said of it between the verdict and its first bite.
        let is_first = from.is_none();
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Vec<Label> = self.instances.ids_from(&pending.node, from).take(self.bite).cloned().collect();
        let mut changes = Vec::new();
        for id in &ids {
            changes.extend(self.bear(id, &pending, is_first));
        }
        pending.lapsed += changes.len();
        if ids.len() == self.bite {
            pending.after = ids.last().cloned();
            self.pending.push_back(pending);
            return Judged { changes, ended: None };
        }
        let Pending { node, verdict, lapsed, .. } = pending;
        Judged { changes, ended: Some((node, verdict, lapsed)) }
    }

    fn bear(&mut self, id: &Label, pending: &Pending, is_first: bool) -> Option<Write> {
        let lease = self.leases.get_mut(id).filter(|lease| is_first || lease.seen <= pending.at)?;
        match &pending.verdict {
            Verdict::Answered => {
                if lease.on_trial {
                    // Its entry in the heap is earlier, and finds the new deadline.
                    (lease.on_trial, lease.deadline) = (false, pending.at + self.ttl);
                }
                return None;
            }
            Verdict::Unanswered if !lease.on_trial => return None,
            Verdict::Replaced(address, routers) if !is_at(&lease.holding.record, address, *routers) => {
                return None;
            }
            Verdict::Dead | Verdict::Unanswered | Verdict::Replaced(..) => {}
        }
        self.lapse(pending.at, id)
    }
}

fn is_at(record: &Record, address: &Address, routers: bool) -> bool {
    record.address == *address && record.is_routers() == routers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::lease::{Holding, Renewal};
    use crate::slot::tests::record;

    const TTL: Duration = Duration::from_secs(60);

    /// A gost's records, more than are looked at in one go.
    fn many() -> (LeaseTable, Instant) {
        let (mut table, now) = (LeaseTable::new(Instant::now(), TTL).biting(10), Instant::now());
        for n in 0..35 {
            register(&mut table, now, n);
        }
        (table, now)
    }

    fn register(table: &mut LeaseTable, now: Instant, n: usize) {
        let holding =
            Holding { record: Arc::clone(&record(&format!("{n:02}"), "t")), dial: "127.0.0.1:80".into() };
        table.register(now, holding).unwrap();
    }

    /// Does the rest, and says what was in each bite and how many lapsed in all.
    fn rest(table: &mut LeaseTable) -> (Vec<usize>, Option<usize>) {
        let mut bites = Vec::new();
        while table.next_deadline().is_some_and(|due| due <= Instant::now()) {
            let Judged { changes, ended } = table.carry_out();
            bites.push(changes.len());
            if let Some((_, _, lapsed)) = ended {
                return (bites, Some(lapsed));
            }
        }
        (bites, None)
    }

    #[test]
    fn many_records_lapse_in_bites_and_are_counted_once() {
        let (mut table, now) = many();
        let first = table.judge(now, &"node".into(), Verdict::Dead);
        assert_eq!((first.changes.len(), first.ended), (10, None));
        assert_eq!(table.live(), 25, "the others are still listed");
        assert_eq!(rest(&mut table), (vec![10, 10, 5], Some(35)));
        assert_eq!((table.live(), table.lapsed()), (0, 35));
        assert_eq!(table.carry_out(), Judged::default(), "nothing is left");
    }

    #[test]
    fn what_its_gost_says_after_a_verdict_stands() {
        let (mut table, now) = many();
        table.judge(now, &"node".into(), Verdict::Dead);
        let later = now + Duration::from_nanos(1);
        assert_eq!(table.renew(later, &"34".into()), Renewal::Renewed, "it has not lapsed yet");
        assert!(matches!(table.renew(later, &"03".into()), Renewal::Revived(_)), "it has");
        register(&mut table, later, 99);
        table.release(later, &"20".into());
        assert_eq!(rest(&mut table).1, Some(33));
        let live: BTreeSet<_> = ["03", "34", "99"].into_iter().map(String::from).collect();
        let is_live = |id: &String| table.is_live(&Label::from(&**id));
        assert_eq!(live.iter().filter(|id| is_live(id)).count(), 3);
        assert_eq!(table.live(), 3);
    }

    #[test]
    fn a_dial_ends_every_trial_that_waited_for_it() {
        for (verdict, live) in [(Verdict::Answered, 35), (Verdict::Unanswered, 0)] {
            let (mut table, now) = many();
            let end = now + TTL;
            while table.next_deadline().is_some_and(|due| due <= end) {
                assert!(table.expire(end).changes.is_empty(), "they are on trial");
            }
            table.judge(end, &"node".into(), verdict);
            while !table.pending.is_empty() {
                table.carry_out();
            }
            assert_eq!(table.live(), live);
        }
    }

    #[test]
    fn a_verdict_that_falls_again_begins_anew_and_is_carried_out_once() {
        let (mut table, now) = many();
        for n in 0..100 {
            table.judge(now + Duration::from_nanos(n), &"node".into(), Verdict::Dead);
        }
        assert_eq!(table.pending.len(), 1);
        let late = now + Duration::from_nanos(50);
        assert!(matches!(table.renew(late, &"00".into()), Renewal::Revived(_)));
        table.judge(now + Duration::from_nanos(100), &"node".into(), Verdict::Dead);
        while table.has_pending() {
            table.carry_out();
        }
        assert_eq!(table.live(), 0, "also what returned in between");
    }

    #[test]
    fn a_small_gost_does_not_wait_until_a_large_one_has_gone() {
        let (mut table, now) = many();
        let other =
            Record { node: "other".into(), address: "10.0.0.9:80".into(), ..(*record("a", "t")).clone() };
        table.register(now, Holding { record: Arc::new(other), dial: Address::default() }).unwrap();
        table.judge(now, &"node".into(), Verdict::Dead);
        let judged = table.judge(now, &"other".into(), Verdict::Dead);
        assert_eq!(judged.changes.len(), 1);
        assert_eq!(judged.ended, Some(("other".into(), Verdict::Dead, 1)));
    }
}
