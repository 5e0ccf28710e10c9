//! What a journal's file holds, as a start takes it: whatever a journal cannot have written is left out, and costs nothing else.

use std::path::PathBuf;

use super::RestoredJournal;
use super::kept::{KeptId, Keyspace, read, read_entrypoint, read_label, read_period, read_rule};
use super::log::{Row, Stamp};
use gossd_core::entrypoints::Registered;
use gossd_core::hostname::Claim;
use gossd_core::label::Label;
use gossd_core::lease;
use gossd_core::record::Generation;
use gossd_core::slot::Version;
use gossd_core::tombstone::Release;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) stamp: Stamp,
    leases: lease::KeptLeases,
    entrypoints: Vec<Registered>,
    rules: Vec<Claim>,
    draining: bool,
    told: Option<(Generation, Version)>,
}

impl Contents {
    /// Of the newest row of each key.
    pub(super) fn of(stamp: Stamp, draining: bool, told: (Generation, Version), rows: &[Row<'_>]) -> Self {
        let mut contents = Self { stamp, draining, told: Some(told), ..Self::default() };
        let unreadable = rows.iter().filter(|row| contents.take(row).is_none()).count();
        if unreadable > 0 {
            tracing::warn!(records = unreadable, "skipped what the journal cannot have written");
        }
        contents
    }

    /// Takes an entry; none if it is not one that a journal can have written.
    fn take(&mut self, row: &Row<'_>) -> Option<()> {
        let (key, kept) = (row.key, row.kept?);
        let keyspace = Keyspace::ALL.into_iter().find(|keyspace| *keyspace as u8 == row.keyspace)?;
        match keyspace {
            Keyspace::Words => self.take_word(read_label(key)?, read(kept)?)?,
            Keyspace::Rules => self.rules.push(read_rule(key, kept)?),
            Keyspace::Periods => self.leases.periods.push(read_period(key, kept)?),
            Keyspace::Entrypoints => self.entrypoints.push(read_entrypoint(key, kept)?),
        }
        Some(())
    }

    fn take_word(&mut self, id: Label, kept: KeptId<'_>) -> Option<()> {
        match kept {
            KeptId::Held(kept) => self.leases.held.push(kept.holding(&id)?),
            KeptId::Lapsed(kept) => self.leases.lapsed.push(kept.holding(&id)?),
            KeptId::Released => self.leases.released.push((id, Release::Held)),
            KeptId::Unheard => self.leases.released.push((id, Release::Unheard)),
        }
        Some(())
    }

    /// What is given to a start of that generation.
    pub(super) fn restored(self, generation: Generation, set_aside: Option<PathBuf>) -> RestoredJournal {
        let Self { stamp: _, leases, entrypoints, rules, draining, told } = self;
        RestoredJournal { generation, leases, entrypoints, rules, draining, told, set_aside }
    }
}
