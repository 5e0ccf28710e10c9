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
    /// Entries that were left out.
    unreadable: usize,
}

impl Contents {
    /// Without any entry.
    pub(super) fn new(stamp: Stamp, draining: bool, told: (Generation, Version)) -> Self {
        Self { stamp, draining, told: Some(told), ..Self::default() }
    }

    /// Takes entries, one of each key in all.
    pub(super) fn take(&mut self, rows: &[Row<'_>]) {
        for row in rows {
            if self.take_row(row).is_none() {
                self.unreadable += 1;
            }
        }
    }

    /// None of an entry that is not one that a journal can have written.
    fn take_row(&mut self, row: &Row<'_>) -> Option<()> {
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
        let Self { stamp: _, leases, entrypoints, rules, draining, told, unreadable } = self;
        if unreadable > 0 {
            tracing::warn!(records = unreadable, "skipped what the journal cannot have written");
        }
        RestoredJournal { generation, leases, entrypoints, rules, draining, told, set_aside }
    }
}
