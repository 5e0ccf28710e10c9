//! What is inside a journal's file: tables of redb, and how a batch becomes one commit. Must not know
//! where the file is, who else wants it, or what is done about a damaged one.

use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, TableError, WriteTransaction,
};

use serde::{Deserialize, Serialize};

use super::Restored;
use super::gosts::{read_entrypoint, read_period, spell_entrypoint, spell_key};
use super::kept::{Kept, KeptHolding, KeptRule, read_id, read_rule};
use gossd_core::agent::Batch;
use gossd_core::entrypoints::Registered;
use gossd_core::hostname::{Claim, ClaimKey};
use gossd_core::label::Label;
use gossd_core::lease::{self, Word};
use gossd_core::record::Generation;
use gossd_core::tombstone::{MAX_TOMBSTONES, Release};

/// Of this file; a later gossd that writes what this one cannot read has to raise it.
const FORMAT: u64 = 1;
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
/// Id → [`Kept`]. Bytes, not strings, so that one bad id costs one record.
const WORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("words");
/// A rising number → the id that was released as that: which tombstone is the oldest.
const RELEASED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("released");

/// Tunnel id and host → [`KeptRule`]. Files of the first versions have no such table.
const RULES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rules");
/// Instance → its Renew period, in milliseconds. Earlier files have no such table, nor the next one.
const PERIODS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("periods");
/// Instance and handler → where it registered.
const ENTRYPOINTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entrypoints");
/// In [`META`]: 1 while the agent drains.
const DRAINING: &str = "draining";

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
    pub(super) leases: lease::Kept,
    pub(super) entrypoints: Vec<Registered>,
    pub(super) rules: Vec<Claim>,
    pub(super) draining: bool,
    /// Bytes of all of it, without what a tree needs around them.
    size: u64,
}

/// Key and value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// The entries of the tables, as they are written. Fields are never changed, only appended.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Entries {
    pub(super) words: Vec<Entry>,
    pub(super) rules: Vec<Entry>,
    pub(super) periods: Vec<(Vec<u8>, u64)>,
    pub(super) entrypoints: Vec<Entry>,
    pub(super) draining: bool,
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
        let next = self.generation.checked_add(1);
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
        let mut size = transaction.open_table(WORDS)?.stats()?.stored_bytes();
        size += transaction.open_table(RELEASED)?.stats()?.stored_bytes();
        if let Some(rules) = there(transaction.open_table(RULES))? {
            size += rules.stats()?.stored_bytes();
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
            let words = transaction.open_table(WORDS)?;
            let released = transaction.open_table(RELEASED)?;
            let mut tables = Tables { words, released };
            for (id, entry) in &batch.words {
                tables.note(id.text().as_bytes(), entry)?;
            }
            tables.forget_oldest(self.max_released)?;
            // Opening a table for writing costs a commit a page, used or not.
            if !batch.claims.is_empty() {
                let mut rules = transaction.open_table(RULES)?;
                for (key, rule) in &batch.claims {
                    note_rule(&mut rules, key, rule.as_deref())?;
                }
            }
            if !batch.is_without_gosts() {
                note_gosts(&transaction, batch)?;
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
            format => return Err(Fault::Damaged(format!("nothing ever had format {format}"))),
        }
        let stamp = Stamp { generation: number("generation")?, commits: number("commits")? };
        // Not read, but a file without it could not be written to.
        transaction.open_table(RELEASED)?;
        let draining = meta.get(DRAINING)?.is_some_and(|draining| draining.value() != 0);
        let mut contents = Contents { stamp, draining, ..Contents::default() };
        let mut released = Vec::new();
        let mut unreadable = 0;
        for word in transaction.open_table(WORDS)?.iter()? {
            let (id, kept) = word?;
            unreadable += u64::from(!contents.take_word(id.value(), kept.value(), &mut released));
        }
        if let Some(rules) = there(transaction.open_table(RULES))? {
            for kept in rules.iter()? {
                let (key, kept) = kept?;
                unreadable += u64::from(!contents.take_rule(key.value(), kept.value()));
            }
        }
        if let Some(periods) = there(transaction.open_table(PERIODS))? {
            for kept in periods.iter()? {
                let (node, millis) = kept?;
                unreadable += u64::from(!contents.take_period(node.value(), millis.value()));
            }
        }
        if let Some(entrypoints) = there(transaction.open_table(ENTRYPOINTS))? {
            for kept in entrypoints.iter()? {
                let (key, kept) = kept?;
                unreadable += u64::from(!contents.take_entrypoint(key.value(), kept.value()));
            }
        }
        if unreadable > 0 {
            tracing::warn!(records = unreadable, "skipped what the journal cannot have written");
        }
        contents.take_released(released);
        Ok(contents)
    }
}

impl Contents {
    /// Whether a word is one that a journal can have written. Where an id was released stands by its number.
    fn take_word(&mut self, id: &[u8], kept: &[u8], released: &mut Vec<Released>) -> bool {
        self.size += (id.len() + kept.len()) as u64;
        let Some((id, kept)) = read_id(id).zip(Kept::read(kept)) else { return false };
        if let Some((number, release)) = kept.release() {
            released.push(Released { number, id: id.into(), release });
            return true;
        }
        let lapsed = matches!(kept, Kept::Lapsed(_));
        let holdings = if lapsed { &mut self.leases.lapsed } else { &mut self.leases.held };
        let before = holdings.len();
        holdings.extend(kept.holding(id));
        holdings.len() > before
    }

    /// Whether a claim is one that could have been said.
    fn take_rule(&mut self, key: &[u8], kept: &[u8]) -> bool {
        self.size += (key.len() + kept.len()) as u64;
        let before = self.rules.len();
        self.rules.extend(read_rule(key, kept));
        self.rules.len() > before
    }

    /// Whether a period is one that could have been learned.
    fn take_period(&mut self, node: &[u8], millis: u64) -> bool {
        self.size += node.len() as u64;
        let before = self.leases.periods.len();
        self.leases.periods.extend(read_period(node, millis));
        self.leases.periods.len() > before
    }

    /// Whether an entrypoint is one that could have been registered.
    fn take_entrypoint(&mut self, key: &[u8], kept: &[u8]) -> bool {
        self.size += (key.len() + kept.len()) as u64;
        let before = self.entrypoints.len();
        self.entrypoints.extend(read_entrypoint(key, kept));
        self.entrypoints.len() > before
    }

    /// What is given to a start of that generation.
    pub(super) fn restored(self, generation: Generation, set_aside: Option<PathBuf>) -> Restored {
        let Self { stamp: _, leases, entrypoints, rules, draining, size: _ } = self;
        Restored { generation, leases, entrypoints, rules, draining, set_aside }
    }

    /// Of these entries, which no file holds.
    pub(super) fn of(entries: &Entries) -> Self {
        let Entries { words, rules, periods, entrypoints, draining } = entries;
        let (mut contents, mut released) = (Self { draining: *draining, ..Self::default() }, Vec::new());
        for (id, kept) in words {
            contents.take_word(id, kept, &mut released);
        }
        for (key, kept) in rules {
            contents.take_rule(key, kept);
        }
        for (node, millis) in periods {
            contents.take_period(node, *millis);
        }
        for (key, kept) in entrypoints {
            contents.take_entrypoint(key, kept);
        }
        contents.take_released(released);
        contents
    }

    fn take_released(&mut self, mut released: Vec<Released>) {
        released.sort_by_key(|released| released.number);
        self.leases.released =
            released.into_iter().map(|Released { id, release, .. }| (id, release)).collect();
    }
}

/// An id that was released.
struct Released {
    number: u64,
    id: Label,
    release: Release,
}

/// The two tables that a word changes. A word says that its id was released as `n` exactly if `n` is numbered with its id.
struct Tables<'a> {
    words: Table<'a, &'static [u8], &'static [u8]>,
    released: Table<'a, u64, &'static [u8]>,
}

impl Tables<'_> {
    fn note(&mut self, id: &[u8], entry: &Word) -> Result<(), Fault> {
        let kept = match entry {
            Word::Held(holding) => Kept::Held(KeptHolding::of(holding)),
            Word::Lapsed(holding) => Kept::Lapsed(KeptHolding::of(holding)),
            Word::Released(release) => match self.number(id)? {
                Some(number) => Kept::released(*release, number),
                None => Kept::released(*release, self.bury(id)?),
            },
            Word::Forgotten => return self.forget(id),
        };
        let number = kept.release().map(|(number, _)| number);
        let before = self.words.insert(id, kept.bytes()?.as_slice())?;
        let before = before.and_then(|before| Kept::number(before.value()));
        if let Some(before) = before.filter(|before| Some(*before) != number) {
            self.released.remove(before)?;
        }
        Ok(())
    }

    fn bury(&mut self, id: &[u8]) -> Result<u64, Fault> {
        let number = self.released.last()?.map_or(0, |(last, _)| last.value().saturating_add(1));
        self.released.insert(number, id)?;
        Ok(number)
    }

    fn forget(&mut self, id: &[u8]) -> Result<(), Fault> {
        let before = self.words.remove(id)?;
        if let Some(number) = before.and_then(|before| Kept::number(before.value())) {
            self.released.remove(number)?;
        }
        Ok(())
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
                self.words.remove(id.as_slice())?;
            }
        }
        Ok(())
    }

    /// The number of an id that is released.
    fn number(&self, id: &[u8]) -> Result<Option<u64>, Fault> {
        Ok(self.words.get(id)?.and_then(|kept| Kept::number(kept.value())))
    }
}

/// A table that is not there until something is in it.
fn there<T>(opened: Result<T, TableError>) -> Result<Option<T>, Fault> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn note_gosts(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Fault> {
    let mut periods = transaction.open_table(PERIODS)?;
    for (node, period) in &batch.periods {
        let (text, millis) = (node.text(), period.and_then(|period| u64::try_from(period.as_millis()).ok()));
        match millis {
            Some(millis) => drop(periods.insert(text.as_bytes(), millis)?),
            None => drop(periods.remove(text.as_bytes())?),
        }
    }
    let mut entrypoints = transaction.open_table(ENTRYPOINTS)?;
    for (key, registered) in &batch.entrypoints {
        match registered {
            Some(registered) => {
                let (key, kept) = spell_entrypoint(registered);
                drop(entrypoints.insert(key.as_slice(), kept.as_slice())?);
            }
            None => drop(entrypoints.remove(spell_key(key).as_slice())?),
        }
    }
    Ok(())
}

fn note_rule(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &ClaimKey,
    rule: Option<&Claim>,
) -> Result<(), Fault> {
    let at = [key.tunnel.as_bytes(), key.host.as_bytes()].concat();
    match rule {
        Some(rule) => drop(table.insert(at.as_slice(), KeptRule::bytes(rule)?.as_slice())?),
        None => drop(table.remove(at.as_slice())?),
    }
    Ok(())
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
            Fault::Newer => Self::new(io::ErrorKind::InvalidData, "it was written by a newer gossd"),
            Fault::Locked => Self::new(io::ErrorKind::ResourceBusy, "another process has it open"),
            Fault::Io(error) => error,
        }
    }
}
