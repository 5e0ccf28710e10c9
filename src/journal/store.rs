//! What is inside a journal's file: tables of redb, and how a batch becomes one commit. Must not know
//! where the file is, who else wants it, or what is done about a damaged one.

use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition, TableError,
};
use serde::{Deserialize, Serialize};

use super::RestoredJournal;
use super::kept::{
    KeptId, Keyspace, Row, RowChange, read, read_entrypoint, read_label, read_period, read_rule, write_word,
};
use crate::sentence::sentence;
use gossd_core::agent::Batch;
use gossd_core::entrypoints::Registered;
use gossd_core::hostname::Claim;
use gossd_core::label::Label;
use gossd_core::lease::{self, Word};
use gossd_core::record::Generation;
use gossd_core::slot::Version;
use gossd_core::tombstone::{MAX_TOMBSTONES, Release};

/// Of this file; a later gossd that writes what this one cannot read has to raise it. The first one spelled records out.
const FORMAT: u64 = 2;
/// redb's own default is a gigabyte. A batch touches few pages and a start reads each page once, so more than
/// this gains nothing; tests have almost none, for their damage to be read.
const CACHE: usize = if cfg!(test) { 16 << 10 } else { 1 << 20 };
/// A file under this is not worth compacting.
const SMALL: u64 = 1 << 20;
/// A file is mostly free when it is this many times what it holds. Batches that touch most pages of a large
/// file, which copy what they change, make it five times.
const BLOATED: u64 = 8;

/// Numbers about the file itself. Every format has this table.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// A rising number → the id that was released as that: which tombstone is the oldest.
const RELEASED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("released");
/// In [`META`]: 1 while the agent drains.
const DRAINING: &str = "draining";
/// In [`META`]: the version of its changes to which a start has written everything, and which start that was. A start that has
/// written nothing yet is not in it.
const TOLD: &str = "told";
const TOLD_BY: &str = "told by";

/// How far a file has come; every commit says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    /// Of the agent's start that wrote last.
    pub(super) generation: Generation,
    /// How many commits the file has seen.
    commits: u64,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) stamp: Stamp,
    pub(super) leases: lease::KeptLeases,
    pub(super) entrypoints: Vec<Registered>,
    pub(super) rules: Vec<Claim>,
    pub(super) draining: bool,
    told: Option<(Generation, Version)>,
    /// By their numbers.
    released: Vec<(u64, (Label, Release))>,
    /// Bytes of all of it, without what a tree needs around them.
    size: u64,
}

/// The entries of the tables, as they are written. Fields are never changed, only appended.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(not(feature = "fuzz"), allow(unreachable_pub, reason = "only the fuzzers see it"))]
pub struct KeptEntries {
    /// In the order of [`Keyspace::ALL`]; a later version may have more.
    pub tables: Vec<Vec<Row>>,
    /// Whether the agent drains.
    pub draining: bool,
}

/// What keeps a file from being used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what a journal wrote, and why.
    Damaged(String),
    /// Its format is a later one's.
    Newer,
    /// Somebody else has it.
    Locked,
    /// The system refuses; the file may be as good as ever.
    Io(io::Error),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    /// See [`MAX_TOMBSTONES`].
    pub(super) max_released: u64,
}

impl Stamp {
    /// Of a fresh file.
    pub(super) fn first(generation: Generation) -> Self {
        Self { generation, commits: 0 }
    }

    pub(super) fn next(self) -> Self {
        Self { commits: self.commits.saturating_add(1), ..self }
    }

    /// Of the start after the one that left this.
    pub(super) fn raised(self, at_least: Generation) -> Result<Self, Fault> {
        /// Two starts that continue with copies of one journal, because it was put back, must not take each other for the same
        /// start. Of the clock that may be a few minutes, and it has to be wrong for this to count.
        const APART: u64 = 1 << 20;
        let next = self.generation.checked_add(1 + rand::random_range(0..APART));
        let next = next.ok_or_else(|| Fault::Damaged("its generation is the last there can be".into()))?;
        Ok(Self { generation: next.max(at_least), ..self.next() })
    }

    /// Of the same start, after `known` was known to be on disk.
    pub(super) fn following(self, known: Self) -> Result<Self, Fault> {
        if self < known {
            return Err(Fault::Damaged("it has lost what was on disk already".into()));
        }
        Ok(self.next())
    }
}

impl Store {
    /// Makes a journal of an empty file.
    pub(super) fn create(path: &Path, stamp: Stamp) -> Result<Self, Fault> {
        let store = Self::with(builder().create(path)?);
        store.begin(stamp, &Batch::default())?;
        Ok(store)
    }

    /// The same in what is not a file.
    #[cfg(feature = "fuzz")]
    pub(super) fn within(backend: impl redb::StorageBackend) -> Result<Self, Fault> {
        Ok(Self::with(builder().create_with_backend(backend)?))
    }

    /// Makes an empty store a journal that starts with a batch.
    pub(super) fn begin(&self, stamp: Stamp, batch: &Batch) -> Result<(), Fault> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(META)?.insert("format", FORMAT)?;
        transaction.commit()?;
        self.commit(stamp, batch)
    }

    /// Opens a journal and reads all of it; None if there is no such file.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, Contents)>, Fault> {
        let length = match path.metadata() {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut store = Self::with(builder().open(path)?);
        let contents = store.contents()?;
        if length > SMALL.max(BLOATED * contents.size) {
            store.database.compact()?;
        }
        Ok(Some((store, contents)))
    }

    /// Shrinks a file of that length if it is mostly free. Looks at every page, and may move them all.
    pub(super) fn shrink(&mut self, length: u64) -> Result<(), Fault> {
        if length > SMALL && length > BLOATED * self.size()? {
            self.database.compact()?;
        }
        Ok(())
    }

    /// Bytes of what it holds, without what a tree needs around them.
    fn size(&self) -> Result<u64, Fault> {
        let transaction = self.database.begin_read()?;
        let mut size = transaction.open_table(RELEASED)?.stats()?.stored_bytes();
        for table in Keyspace::ALL {
            if let Some(entries) = there(transaction.open_table(definition(table)))? {
                size += entries.stats()?.stored_bytes();
            }
        }
        Ok(size)
    }

    /// Makes a batch durable.
    pub(super) fn commit(&self, stamp: Stamp, batch: &Batch) -> Result<(), Fault> {
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("generation", stamp.generation)?;
            meta.insert("commits", stamp.commits)?;
            if let Some(draining) = batch.draining {
                meta.insert(DRAINING, u64::from(draining))?;
            }
            if let Some(told) = batch.told {
                meta.insert(TOLD, told)?;
                meta.insert(TOLD_BY, stamp.generation)?;
            }
            let entries = transaction.open_table(definition(Keyspace::Words))?;
            let released = transaction.open_table(RELEASED)?;
            let mut words = Words { entries, released };
            for (id, word) in &batch.words {
                words.note(id.text().as_bytes(), word)?;
            }
            words.forget_oldest(self.max_released)?;
            for table in [Keyspace::Rules, Keyspace::Periods, Keyspace::Entrypoints] {
                let changes = table.changes(batch);
                // Opening a table for writing costs a commit a page, used or not.
                if !changes.is_empty() {
                    let mut entries = transaction.open_table(definition(table))?;
                    changes.iter().try_for_each(|change| note(&mut entries, change))?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn with(database: Database) -> Self {
        Self { database, max_released: MAX_TOMBSTONES as u64 }
    }

    pub(super) fn contents(&self) -> Result<Contents, Fault> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let number = |key| -> Result<u64, Fault> {
            let found = meta.get(key)?.map(|number| number.value());
            found.ok_or_else(|| Fault::Damaged(format!("it has no {key}")))
        };
        match number("format")? {
            FORMAT => {}
            format if format > FORMAT => return Err(Fault::Newer),
            format => {
                let why = format!("it has format {format}, and this gossd reads format {FORMAT}");
                return Err(Fault::Damaged(why));
            }
        }
        let stamp = Stamp { generation: number("generation")?, commits: number("commits")? };
        // Not read, but a file without it could not be written to.
        transaction.open_table(RELEASED)?;
        let draining = meta.get(DRAINING)?.is_some_and(|draining| draining.value() != 0);
        // Of a journal that does not say it, peers know no more than it has, unless they know of a later start.
        let told = meta.get(TOLD_BY)?.zip(meta.get(TOLD)?);
        let told = told.map_or((stamp.generation, Version::MAX), |(by, told)| (by.value(), told.value()));
        let mut contents = Contents { stamp, draining, told: Some(told), ..Contents::default() };
        let mut unreadable = 0;
        for table in Keyspace::ALL {
            // Not there until something was in it.
            let Some(entries) = there(transaction.open_table(definition(table)))? else { continue };
            for entry in entries.iter()? {
                let (key, kept) = entry?;
                unreadable += u64::from(contents.take(table, key.value(), kept.value()).is_none());
            }
        }
        if unreadable > 0 {
            tracing::warn!(records = unreadable, "skipped what the journal cannot have written");
        }
        Ok(contents)
    }
}

impl Contents {
    /// Takes an entry; none if it is not one that a journal can have written.
    fn take(&mut self, table: Keyspace, key: &[u8], kept: &[u8]) -> Option<()> {
        self.size += (key.len() + kept.len()) as u64;
        match table {
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
            KeptId::Released(number) => self.released.push((number, (id, Release::Held))),
            KeptId::Unheard(number) => self.released.push((number, (id, Release::Unheard))),
        }
        Some(())
    }

    /// What is given to a start of that generation.
    pub(super) fn restored(self, generation: Generation, set_aside: Option<PathBuf>) -> RestoredJournal {
        let Self { stamp: _, mut leases, entrypoints, rules, draining, told, mut released, size: _ } = self;
        released.sort_by_key(|(number, _)| *number);
        leases.released = released.into_iter().map(|(_, released)| released).collect();
        RestoredJournal { generation, leases, entrypoints, rules, draining, told, set_aside }
    }

    /// Of these entries, which no file holds.
    pub(super) fn of(entries: &KeptEntries) -> Self {
        let mut contents = Self { draining: entries.draining, ..Self::default() };
        for (table, entries) in Keyspace::ALL.into_iter().zip(&entries.tables) {
            for (key, kept) in entries {
                contents.take(table, key, kept);
            }
        }
        contents
    }
}

impl KeptEntries {
    /// All that is in a batch.
    pub(super) fn of(batch: &Batch) -> Self {
        let kept = |table: Keyspace| {
            table.changes(batch).into_iter().filter_map(|(key, kept)| Some((key, kept?))).collect()
        };
        Self { tables: Keyspace::ALL.map(kept).into(), draining: batch.draining.unwrap_or_default() }
    }
}

/// The two tables that a word changes. A word says that its id was released as `n` exactly if `n` is numbered with its id.
struct Words<'a> {
    entries: redb::Table<'a, &'static [u8], &'static [u8]>,
    released: redb::Table<'a, u64, &'static [u8]>,
}

impl Words<'_> {
    fn note(&mut self, id: &[u8], word: &Word) -> Result<(), Fault> {
        let before = self.number(id)?;
        let number = match word {
            Word::Released(_) => Some(before.map_or_else(|| self.bury(id), Ok)?),
            Word::Held(_) | Word::Lapsed(_) | Word::Forgotten => None,
        };
        if let Some(before) = before.filter(|_| number.is_none()) {
            self.released.remove(before)?;
        }
        note(&mut self.entries, &(id.into(), write_word(word, number.unwrap_or_default())))
    }

    fn bury(&mut self, id: &[u8]) -> Result<u64, Fault> {
        let number = self.released.last()?.map_or(0, |(last, _)| last.value().saturating_add(1));
        self.released.insert(number, id)?;
        Ok(number)
    }

    fn forget_oldest(&mut self, most: u64) -> Result<(), Fault> {
        while self.released.len()? > most {
            let Some((number, id)) =
                self.released.pop_first()?.map(|(n, id)| (n.value(), id.value().to_vec()))
            else {
                break;
            };
            // Not so only in a file that somebody made up.
            if self.number(&id)? == Some(number) {
                self.entries.remove(id.as_slice())?;
            }
        }
        Ok(())
    }

    /// The number of an id that is released.
    fn number(&self, id: &[u8]) -> Result<Option<u64>, Fault> {
        Ok(self.entries.get(id)?.and_then(|kept| KeptId::number(kept.value())))
    }
}

fn note(
    entries: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    (key, kept): &RowChange,
) -> Result<(), Fault> {
    match kept {
        Some(kept) => drop(entries.insert(key.as_slice(), kept.as_slice())?),
        None => drop(entries.remove(key.as_slice())?),
    }
    Ok(())
}

fn definition(table: Keyspace) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// A table that is not there until something is in it.
fn there<T>(opened: Result<T, TableError>) -> Result<Option<T>, Fault> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Every open verifies every page's checksum, after a clean end too: redb otherwise trusts such a file, and
/// panics or answers wrongly where it should not have.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// What redb says, sorted by what can be done about it.
impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            // How redb says that a file is too short, or none of its own.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            error @ (redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::PersistentSavepointExists) => Self::Damaged(error.to_string()),
            error => Self::Io(io::Error::other(error)),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damaged(why) => Self::new(io::ErrorKind::InvalidData, why),
            Fault::Newer => {
                Self::new(io::ErrorKind::InvalidData, &*sentence!("it was written by a newer gossd"))
            }
            Fault::Locked => {
                Self::new(io::ErrorKind::ResourceBusy, &*sentence!("another process has it open"))
            }
            Fault::Io(error) => error,
        }
    }
}
