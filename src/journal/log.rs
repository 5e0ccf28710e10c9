//! What is inside a journal's file: a log of commits, each with checksums, and what they come to. Must not know where the file
//! is, who else wants it, or what is done about a damaged one.
//!
//! A file is a head and frames; a frame is three numbers of four bytes, low bytes first, and a commit: how long the commit is, its
//! CRC-32, and the CRC-32 of these two and of where the frame is. Of a kill in the middle of an append, part of the last frame is
//! there, in any order of its pages; a frame before it was on disk when it was begun.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::FileMark;
use super::contents::Contents;
use super::kept::{Keyspace, RowChange, read};
use crate::sentence::sentence;
use gossd_core::agent::Batch;
use gossd_core::record::Generation;
use gossd_core::slot::Version;

/// Of this file; a later gossd that writes what this one cannot read has to raise it.
const FORMAT: u32 = 3;
/// How a file begins, whatever its format.
const MAGIC: [u8; 8] = *b"gossdlog";
const HEAD: usize = MAGIC.len() + 2 * size_of::<u32>();
/// In front of a commit.
const FRAME: usize = 3 * size_of::<u32>();
/// No file is longer: five million records.
const MAX_BYTES: u64 = 1 << 30;
/// More than this is not what a kill left of one commit.
const MAX_UNFINISHED: usize = 64 << 20;
/// A file under this is not worth compacting.
const SMALL: u64 = 1 << 20;
/// A file is bloated when it is this many times what it holds: then each byte is written twice in all.
const BLOATED: u64 = 2;
/// Rows of a frame of a compacted file: no more than some hundred kilobytes in memory.
const ROWS: usize = 1 << 10;

/// How far a file has come; every commit says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Of the agent's start that wrote last.
    pub(super) generation: Generation,
    /// How many commits the file has seen.
    commits: u64,
}

/// What is written at once. Fields are never changed, only appended.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Commit<'a> {
    pub(super) stamp: Stamp,
    /// Whether the agent drains; none if that is as before.
    pub(super) draining: Option<bool>,
    /// The version of its changes to which a start has written everything, and which start that was.
    pub(super) told: Option<(Generation, Version)>,
    #[serde(borrow)]
    pub(super) rows: Vec<Row<'a>>,
}

/// A change of one entry. Fields are never changed, only appended to what is kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Row<'a> {
    /// A [`Keyspace`], or one of a later version.
    pub(super) keyspace: u8,
    #[serde(borrow)]
    pub(super) key: &'a [u8],
    /// None of what is not kept any more.
    #[serde(borrow)]
    pub(super) kept: Option<&'a [u8]>,
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
    file: File,
    /// Of its whole commits.
    length: u64,
    /// At what length it is bloated.
    bloated: u64,
    /// Whether the file may be another than it seems: it has to be opened again.
    is_spoilt: bool,
}

impl Stamp {
    /// Of a fresh file.
    pub(super) fn first(generation: Generation) -> Self {
        Self { generation, commits: 0 }
    }

    /// Of the commit of that number.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn counted(commits: u64) -> Self {
        Self { generation: 1, commits }
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
    /// Opens a journal and reads all of it; none if there is no such file. What a kill left of an unfinished commit is cut off.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, Contents)>, Fault> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let bytes = read_all(&mut file)?;
        let (sum, length) = Sum::read(&bytes)?;
        let unfinished = bytes.len() - length;
        if unfinished > 0 {
            tracing::warn!(bytes = unfinished, "the journal's last commit was not finished: it is dropped");
            file.set_len(length as u64)?;
        }
        Ok(Some((Self::of(file, length as u64, sum.size()), sum.contents())))
    }

    fn of(file: File, length: u64, holds: u64) -> Self {
        let bloated = SMALL.max((BLOATED * holds).min(MAX_BYTES / 2)).max(holds + holds / 4);
        Self { file, length, bloated, is_spoilt: false }
    }

    /// Makes an empty file a journal that has come so far and holds nothing.
    pub(super) fn create(empty: File, stamp: Stamp) -> Result<Self, Fault> {
        Self::holding(empty, &Sum { stamp, ..Sum::default() })
    }

    /// Writes what this one holds, and no more, to an empty file.
    pub(super) fn compacted(&mut self, empty: File) -> Result<Self, Fault> {
        let bytes = read_all(&mut self.file)?;
        match Sum::read(&bytes)? {
            (sum, length) if length as u64 == self.length => Self::holding(empty, &sum),
            _ => Err(Fault::Damaged("its last commit has changed".into())),
        }
    }

    fn holding(empty: File, sum: &Sum<'_>) -> Result<Self, Fault> {
        let mut out = io::BufWriter::new(empty);
        out.write_all(&head())?;
        let mut length = HEAD as u64;
        for commit in sum.commits() {
            let frame = commit.frame(length)?;
            out.write_all(&frame)?;
            length += frame.len() as u64;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Self::of(file, length, length))
    }

    /// Makes a batch durable. After an error, the file is as it was, or [spoilt](Self::is_spoilt).
    pub(super) fn commit(&mut self, stamp: Stamp, batch: &Batch) -> Result<(), Fault> {
        let frame = Commit::of(stamp, batch, &changes(batch)).frame(self.length)?;
        let length = self.length + frame.len() as u64;
        if length > MAX_BYTES {
            return Err(Fault::Io(io::ErrorKind::FileTooLarge.into()));
        }
        let taken = self.file.write_all_at(&frame, self.length);
        let is_taken = taken.is_ok();
        if let Err(error) = taken.and_then(|()| self.file.sync_data()) {
            // What the system took, and could not put on disk, it may take for written from now on.
            let is_cut = self.file.set_len(self.length).is_ok();
            self.is_spoilt = is_taken || !is_cut;
            return Err(error.into());
        }
        self.length = length;
        Ok(())
    }

    pub(super) fn is_spoilt(&self) -> bool {
        self.is_spoilt
    }

    /// Whether most of it is what has changed since.
    pub(super) fn is_bloated(&self) -> bool {
        self.length > self.bloated
    }

    /// It could not be compacted: not before it is a quarter longer.
    pub(super) fn stay_bloated(&mut self) {
        self.bloated = self.length + self.length / 4;
    }

    /// How the file is now; none if that cannot be told.
    pub(super) fn mark(&self) -> Option<FileMark> {
        self.file.metadata().ok().map(|found| FileMark::of(&found))
    }
}

fn read_all(file: &mut File) -> Result<Vec<u8>, Fault> {
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(Fault::Damaged(format!("its {length} bytes are more than a journal has")));
    }
    let mut bytes = Vec::new();
    let room = usize::try_from(length).ok().and_then(|length| bytes.try_reserve_exact(length).ok());
    room.ok_or(Fault::Io(io::ErrorKind::OutOfMemory.into()))?;
    file.rewind()?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn head() -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (words, check) = head.split_at_mut(HEAD - size_of::<u32>());
    words[..MAGIC.len()].copy_from_slice(&MAGIC);
    words[MAGIC.len()..].copy_from_slice(&FORMAT.to_le_bytes());
    check.copy_from_slice(&crc32fast::hash(words).to_le_bytes());
    head
}

/// Whether a file begins as those do that this program reads.
fn check_head(file: &[u8]) -> Result<(), Fault> {
    let damaged = |why: &str| Fault::Damaged(why.into());
    let head = file.get(..HEAD).ok_or_else(|| damaged("it is too short"))?;
    let (words, check) = head.split_at(HEAD - size_of::<u32>());
    if !words.starts_with(&MAGIC) || number(check) != crc32fast::hash(words) {
        return Err(damaged("it is no journal of gossd's"));
    }
    match number(&words[MAGIC.len()..]) {
        FORMAT => Ok(()),
        later if later > FORMAT => Err(Fault::Newer),
        former => {
            Err(Fault::Damaged(format!("it has format {former}, and this gossd reads format {FORMAT}")))
        }
    }
}

/// Of the first four bytes; fewer are none.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The CRC of a frame's sizes, and of where it is in the file: nothing that somebody else writes into a record is a frame there.
fn check(sizes: &[u8], at: u64) -> u32 {
    let mut check = crc32fast::Hasher::new();
    check.update(sizes);
    check.update(&at.to_le_bytes());
    check.finalize()
}

/// The commit of the frame at `at` in a file, and what follows it; none if that frame is not whole.
fn commit_at(file: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (frame, rest) = file.get(at..)?.split_at_checked(FRAME)?;
    let (sizes, checked) = frame.split_at(2 * size_of::<u32>());
    if number(checked) != check(sizes, at as u64) {
        return None;
    }
    let commit = rest.get(..number(sizes).try_into().ok()?)?;
    let is_whole = number(&sizes[size_of::<u32>()..]) == crc32fast::hash(commit);
    is_whole.then_some((commit, at + FRAME + commit.len()))
}

impl<'a> Row<'a> {
    fn place(&self) -> (u8, &'a [u8]) {
        (self.keyspace, self.key)
    }
}

impl<'a> Commit<'a> {
    pub(super) fn of(stamp: Stamp, batch: &Batch, changes: &'a [(Keyspace, RowChange)]) -> Self {
        let row = |(keyspace, (key, kept)): &'a (Keyspace, RowChange)| Row {
            keyspace: *keyspace as u8,
            key,
            kept: kept.as_deref(),
        };
        let told = batch.told.map(|version| (stamp.generation, version));
        Self { stamp, draining: batch.draining, told, rows: changes.iter().map(row).collect() }
    }

    /// The frame that it is at `at` in a file.
    pub(super) fn frame(&self, at: u64) -> Result<Vec<u8>, Fault> {
        let room = vec![0; FRAME];
        framed(postcard::to_extend(self, room).map_err(|error| Fault::Io(io::Error::other(error)))?, at)
    }

    /// What a start makes of the bytes of one; none if they are none. What a later version appended is left out.
    pub(super) fn read_alone(bytes: &'a [u8]) -> Option<Contents> {
        let mut sum = Sum::default();
        sum.add(read(bytes)?);
        Some(sum.settled().contents())
    }
}

/// Writes the numbers of a frame in front of its commit.
fn framed(mut frame: Vec<u8>, at: u64) -> Result<Vec<u8>, Fault> {
    let too_long = |_| Fault::Io(io::ErrorKind::FileTooLarge.into());
    let (numbers, commit) = frame.split_at_mut(FRAME);
    let (sizes, checked) = numbers.split_at_mut(2 * size_of::<u32>());
    let (length, crc) = sizes.split_at_mut(size_of::<u32>());
    length.copy_from_slice(&u32::try_from(commit.len()).map_err(too_long)?.to_le_bytes());
    crc.copy_from_slice(&crc32fast::hash(commit).to_le_bytes());
    checked.copy_from_slice(&check(sizes, at).to_le_bytes());
    Ok(frame)
}

/// All that a batch changes.
pub(super) fn changes(batch: &Batch) -> Vec<(Keyspace, RowChange)> {
    let of = |keyspace: Keyspace| keyspace.changes(batch).into_iter().map(move |change| (keyspace, change));
    Keyspace::ALL.into_iter().flat_map(of).collect()
}

/// What commits come to.
#[derive(Debug, Default)]
pub(super) struct Sum<'a> {
    pub(super) stamp: Stamp,
    pub(super) draining: bool,
    pub(super) told: Option<(Generation, Version)>,
    /// The newest row of each key, in the order of the keys.
    pub(super) rows: Vec<Row<'a>>,
}

impl<'a> Sum<'a> {
    /// Of the bytes of a file; and how many of them are whole commits. What follows those is an unfinished one.
    pub(super) fn read(file: &'a [u8]) -> Result<(Self, usize), Fault> {
        check_head(file)?;
        let (mut sum, mut at, mut settled) = (Self::default(), HEAD, 0);
        while let Some((commit, after)) = commit_at(file, at) {
            let Some(commit) = read::<Commit<'_>>(commit) else {
                return Err(Fault::Damaged("it has a commit that no gossd wrote".into()));
            };
            if at > HEAD && commit.stamp.commits.wrapping_sub(sum.stamp.commits) > 1 {
                return Err(Fault::Damaged("a commit is missing in it".into()));
            }
            sum.add(commit);
            if sum.rows.len() > 2 * settled + ROWS {
                // Not every row that was ever written is to be in memory.
                sum = sum.settled();
                settled = sum.rows.len();
            }
            at = after;
        }
        // A whole commit after one that is not shows that this one was on disk once.
        let is_followed = || (at + 1..file.len()).any(|at| commit_at(file, at).is_some());
        if at == HEAD || file.len() - at > MAX_UNFINISHED || is_followed() {
            return Err(Fault::Damaged(format!("its checksums are wrong from byte {at} on")));
        }
        Ok((sum.settled(), at))
    }

    fn add(&mut self, commit: Commit<'a>) {
        self.stamp = commit.stamp;
        self.draining = commit.draining.unwrap_or(self.draining);
        self.told = commit.told.or(self.told);
        self.rows.extend(commit.rows);
    }

    /// Leaves of the rows that were added those which count. The rows of a commit have an order, so that little is to be sorted.
    fn settled(mut self) -> Self {
        self.rows.sort_by_key(Row::place);
        self.rows.dedup_by(|later, former| {
            let is_same = later.place() == former.place();
            if is_same {
                *former = *later;
            }
            is_same
        });
        self.rows.retain(|row| row.kept.is_some());
        self
    }

    /// Bytes of all that it holds.
    fn size(&self) -> u64 {
        /// Of a row's numbers.
        const AROUND: usize = 4;
        let size = |row: &Row<'_>| AROUND + row.key.len() + row.kept.map_or(0, <[u8]>::len);
        self.rows.iter().map(|row| size(row) as u64).sum()
    }

    /// The commits of a file that holds this and no more: one at least.
    fn commits(&self) -> impl Iterator<Item = Commit<'a>> + '_ {
        let stamp = self.stamp;
        let first = Commit { stamp, draining: Some(self.draining), told: self.told, rows: Vec::new() };
        let more = self.rows.chunks(ROWS);
        std::iter::once(first).chain(more.map(move |rows| Commit {
            stamp,
            rows: rows.into(),
            ..Commit::default()
        }))
    }

    fn contents(&self) -> Contents {
        // Of a journal that does not say it, peers know no more than it has, unless they know of a later start.
        let told = self.told.unwrap_or((self.stamp.generation, Version::MAX));
        Contents::of(self.stamp, self.draining, told, &self.rows)
    }
}

/// A file without a disk, for fuzzers: what a start makes of its bytes; none if it sets the file aside.
#[cfg(feature = "fuzz")]
pub(super) fn read_bytes(file: &[u8]) -> Option<Contents> {
    Sum::read(file).ok().map(|(sum, _)| sum.contents())
}

/// The bytes of a file with these encoded commits.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn write_bytes(commits: &[Vec<u8>]) -> Vec<u8> {
    let mut file = head().to_vec();
    for commit in commits {
        let frame = framed([&[0; FRAME], &**commit].concat(), file.len() as u64);
        file.extend(frame.unwrap_or_default());
    }
    file
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
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
