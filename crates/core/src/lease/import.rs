//! What a table takes from another store that its gosts used until now.

use std::time::Instant;

use super::super::label::Label;
use super::super::slot::{SlotsFull, Write};
use super::{Holding, LeaseTable, Sign};

/// What an import of a record found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// An id that was not known, or had lapsed: it has a lease now.
    Taken(Write),
    /// A live record of that id, which stays as it is.
    Held {
        /// Whether gost has called for it, and not only a journal or an import said it.
        is_confirmed: bool,
    },
    /// The id was released a moment ago: gost knows more than whoever imports.
    Released,
}

impl LeaseTable {
    /// Holds a record that another store kept, until gost renews it or its lease ends.
    pub fn import(&mut self, now: Instant, holding: Holding) -> Result<Imported, SlotsFull> {
        if let Some(found) = self.import_finds(now, &holding.record.id) {
            return Ok(found);
        }
        let id = holding.record.id.clone();
        let taken = self.take(self.start.moment(now), holding, Sign::Restored)?;
        Ok(taken.map_or_else(|| self.import_finds(now, &id).unwrap_or(Imported::Released), Imported::Taken))
    }

    /// What an import of an id would find; none if it would be taken.
    pub fn import_finds(&self, now: Instant, id: &Label) -> Option<Imported> {
        match self.leases.get(id) {
            Some(lease) => lease.slot.is_some().then(|| {
                let is_confirmed = !matches!(lease.sign, Sign::Restored | Sign::Inherited);
                Imported::Held { is_confirmed }
            }),
            None => self.suppresses(self.start.moment(now), id).then_some(Imported::Released),
        }
    }
}
