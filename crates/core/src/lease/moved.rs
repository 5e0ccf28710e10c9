//! Records whose gost is reached at another address than before, because its host is.

use super::super::label::Label;
use super::super::slot::Write;
use super::{Holding, LeaseTable};

impl LeaseTable {
    /// The ids of all records, live and lapsed.
    pub fn ids(&self) -> Vec<Label> {
        self.leases.ids().cloned().collect()
    }

    /// Gives records the addresses that `moved` finds for them; those for which it finds none stay as they are. No lease gets
    /// longer or shorter, and no instance replaces another.
    pub fn readdress(&mut self, ids: &[Label], moved: impl Fn(&Holding) -> Option<Holding>) -> Vec<Write> {
        let found = ids.iter().filter_map(|id| Some((id, moved(&self.leases.get(id)?.holding)?)));
        let found: Vec<_> = found.map(|(id, holding)| (id.clone(), holding)).collect();
        found.into_iter().filter_map(|(id, holding)| self.readdress_one(id, holding)).collect()
    }

    fn readdress_one(&mut self, id: Label, holding: Holding) -> Option<Write> {
        let lease = self.leases.get_mut(&id)?;
        let before = std::mem::replace(&mut lease.holding, holding);
        self.instances.readdress(&before.record, &lease.holding.record);
        let (old, new) = (before.record.size(), lease.holding.record.size());
        self.bytes = self.bytes + new - old;
        let change = match lease.slot {
            Some(slot) if before.record != lease.holding.record => {
                Some(self.slots.replace(slot.get(), lease.holding.record.clone()))
            }
            Some(_) => None,
            None => {
                self.lapsed_bytes = self.lapsed_bytes + new - old;
                None
            }
        };
        self.touched.insert(id);
        change
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::super::record::Record;
    use super::super::super::slot::tests::record;
    use super::*;

    fn holding(id: &str, node: &str, address: &str) -> Holding {
        let record = Record { node: node.into(), address: address.into(), ..Record::clone(&record(id, "t")) };
        Holding { record: Arc::new(record), dial: "127.0.0.1:80".into() }
    }

    fn to(address: &'static str) -> impl Fn(&Holding) -> Option<Holding> {
        move |before| {
            let record = Record { address: address.into(), ..Record::clone(&before.record) };
            (before.record.address != *address)
                .then(|| Holding { record: Arc::new(record), dial: before.dial.clone() })
        }
    }

    #[test]
    fn a_move_writes_each_live_record_once_and_changes_no_lease() {
        let now = Instant::now();
        let mut table = LeaseTable::new(now, Duration::from_secs(60));
        for id in ["1", "2"] {
            table.register(now, holding(id, "n", "10.0.0.1:80")).unwrap();
        }
        table.register(now, holding("3", "gone", "10.0.0.1:81")).unwrap();
        table.lapse_one(now, &"3".into());
        table.take_touched();
        let (left, bytes) = (table.remaining(now, &"1".into()), table.bytes());
        let writes = table.readdress(&table.ids(), to("10.0.0.200:80"));
        assert_eq!(writes.len(), 2, "what has lapsed is not published");
        assert_eq!(table.take_touched().len(), 3, "the journal gets all");
        assert_eq!(table.remaining(now, &"1".into()), left);
        assert_eq!(
            (table.bytes(), table.live(), table.lapsed()),
            (bytes + 3 * 2, 2, 1),
            "two digits more, three times"
        );
        assert!(table.readdress(&table.ids(), to("10.0.0.200:80")).is_empty());
        assert!(table.take_touched().is_empty());
    }

    #[test]
    fn whoever_has_an_entrypoint_has_it_after_the_move_and_is_replaced_there() {
        let now = Instant::now();
        let mut table = LeaseTable::new(now, Duration::from_secs(60));
        table.register(now, holding("1", "n", "10.0.0.1:80")).unwrap();
        table.readdress(&table.ids(), to("10.0.0.2:80"));
        let writes = table.register(now, holding("2", "next", "10.0.0.2:80")).unwrap();
        assert_eq!((writes.len(), table.live()), (2, 1), "the former instance's record lapsed");
    }
}
