//! What is inside a journal's file: a log of commits, and what they come to. Must not know where the file is, who else wants it, or
//! what is done about a damaged one.
//!
//! A file is read twice: once to learn which row of each key is the newest, and once to take those. So whoever reads it, at a
//! start or to write it anew, never has it in memory.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::FileMark;
use super::contents::Contents;
use super::fault::Fault;
use super::frames::{Frames, MAX_BYTES, framed, head, room};
use super::kept::{Keyspace, RowChange, read};
use gossd_core::agent::Batch;
use gossd_core::record::Generation;
use gossd_core::slot::Version;

/// A file under this is not worth compacting.
const SMALL: u64 = 1 << 20;
/// Rows at least of a frame of a file that is written anew, and between two looks at which of them count.
const ROWS: usize = 1 << 10;
/// A file is bloated when it is this many times what it holds: then each byte is written twice in all.
const BLOATED: u64 = 2;

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
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let read = ReadFile::of(&file)?;
        if read.unfinished > 0 {
            tracing::warn!(
                bytes = read.unfinished,
                "the journal's last commit was not finished: it is dropped"
            );
            file.set_len(read.length)?;
        }
        Ok(Some((Self::of(file, read.length, read.holds), read.contents)))
    }

    /// What a file holds that cannot be written; none if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Contents>, Fault> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(ReadFile::of(&opened?)?.contents)),
        }
    }

    fn of(file: File, length: u64, holds: u64) -> Self {
        let bloated = SMALL.max((BLOATED * holds).min(MAX_BYTES / 2)).max(holds + holds / 4);
        Self { file, length, bloated, is_spoilt: false }
    }

    /// Makes an empty file a journal that has come so far and holds nothing. Peers know all the more of that start.
    pub(super) fn create(empty: File, stamp: Stamp) -> Result<Self, Fault> {
        let told = Some((stamp.generation, Version::MIN));
        let nothing = Commit { stamp, draining: Some(false), told, rows: Vec::new() };
        Draft::new(empty, &nothing)?.finish()
    }

    /// Writes what this one holds, and no more, to an empty file.
    pub(super) fn compacted(&mut self, empty: File) -> Result<Self, Fault> {
        let mut frames = Frames::of(&self.file)?;
        let sum = Sum::read(&mut frames)?;
        if frames.at() != self.length {
            return Err(Fault::Damaged("its last commit has changed".into()));
        }
        let mut draft = Draft::new(empty, &sum.commit())?;
        sum.visit(&mut frames, |rows| draft.take(&rows))?;
        draft.finish()
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

/// A file that is being written, as a whole.
struct Draft {
    out: io::BufWriter<File>,
    length: u64,
    stamp: Stamp,
    /// To be written, in one frame of many, whatever frames they came in: keyspace, key and what is kept.
    rows: Vec<(u8, Vec<u8>, Vec<u8>)>,
}

impl Draft {
    fn new(empty: File, first: &Commit<'_>) -> Result<Self, Fault> {
        let (head, stamp) = (head(), first.stamp);
        let length = head.len() as u64;
        let mut draft = Self { out: io::BufWriter::new(empty), length, stamp, rows: Vec::new() };
        draft.out.write_all(&head)?;
        draft.append(first)?;
        Ok(draft)
    }

    fn take(&mut self, rows: &[Row<'_>]) -> Result<(), Fault> {
        let rows = rows.iter().filter_map(|row| Some((row.keyspace, row.key.into(), row.kept?.into())));
        self.rows.extend(rows);
        if self.rows.len() < ROWS { Ok(()) } else { self.append_rows() }
    }

    fn append_rows(&mut self) -> Result<(), Fault> {
        let all = std::mem::take(&mut self.rows);
        let rows = all.iter().map(|(keyspace, key, kept)| Row { keyspace: *keyspace, key, kept: Some(kept) });
        self.append(&Commit { stamp: self.stamp, rows: rows.collect(), ..Commit::default() })
    }

    fn append(&mut self, commit: &Commit<'_>) -> Result<(), Fault> {
        let frame = commit.frame(self.length)?;
        self.length += frame.len() as u64;
        Ok(self.out.write_all(&frame)?)
    }

    fn finish(mut self) -> Result<Store, Fault> {
        if !self.rows.is_empty() {
            self.append_rows()?;
        }
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Store::of(file, self.length, self.length))
    }
}

impl<'a> Commit<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        read(bytes).ok_or_else(|| Fault::Damaged("it has a commit that no gossd wrote".into()))
    }

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
        framed(postcard::to_extend(self, room()).map_err(|error| Fault::Io(io::Error::other(error)))?, at)
    }

    /// What a start makes of the bytes of one; none if they are none. What a later version appended is left out.
    pub(super) fn read_alone(bytes: &'a [u8]) -> Option<Contents> {
        let commit: Self = read(bytes)?;
        let (mut sum, mut newest) = (Sum::default(), Newest::default());
        sum.add(&commit, &mut newest);
        sum.newest = newest.places();
        let mut contents = sum.contents();
        contents.take(&sum.newest.of(&mut 0, commit.rows));
        Some(contents)
    }
}

/// All that a batch changes.
pub(super) fn changes(batch: &Batch) -> Vec<(Keyspace, RowChange)> {
    let of = |keyspace: Keyspace| keyspace.changes(batch).into_iter().map(move |change| (keyspace, change));
    Keyspace::ALL.into_iter().flat_map(of).collect()
}

/// What commits come to.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) stamp: Stamp,
    pub(super) draining: bool,
    pub(super) told: Option<(Generation, Version)>,
    newest: Places,
}

impl Sum {
    /// Of the frames of a file that are whole.
    pub(super) fn read(frames: &mut Frames<impl Read + Seek>) -> Result<Self, Fault> {
        let (mut sum, mut newest) = (Self::default(), Newest::default());
        let mut is_first = true;
        while let Some(commit) = frames.next()? {
            let commit = Commit::read(commit)?;
            if !is_first && commit.stamp.commits.wrapping_sub(sum.stamp.commits) > 1 {
                return Err(Fault::Damaged("a commit is missing in it".into()));
            }
            sum.add(&commit, &mut newest);
            is_first = false;
        }
        sum.newest = newest.places();
        Ok(sum)
    }

    fn add(&mut self, commit: &Commit<'_>, newest: &mut Newest) {
        self.stamp = commit.stamp;
        self.draining = commit.draining.unwrap_or(self.draining);
        self.told = commit.told.or(self.told);
        commit.rows.iter().for_each(|row| newest.add(row));
    }

    /// Goes through the same frames again, with the newest row of each key, those of a commit at a time.
    pub(super) fn visit(
        &self,
        frames: &mut Frames<impl Read + Seek>,
        mut visit: impl FnMut(Vec<Row<'_>>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let end = frames.at();
        frames.rewind()?;
        let mut seen = 0;
        while frames.at() < end {
            let commit =
                frames.next()?.ok_or_else(|| Fault::Damaged("it changes while it is read".into()))?;
            let rows = self.newest.of(&mut seen, Commit::read(commit)?.rows);
            if !rows.is_empty() {
                visit(rows)?;
            }
        }
        Ok(())
    }

    /// All but the rows.
    fn commit(&self) -> Commit<'static> {
        Commit { stamp: self.stamp, draining: Some(self.draining), told: self.told, rows: Vec::new() }
    }

    /// All but the rows.
    fn contents(&self) -> Contents {
        // Of a journal that does not say it, peers know no more than it has, unless they know of a later start.
        let told = self.told.unwrap_or((self.stamp.generation, Version::MAX));
        Contents::new(self.stamp, self.draining, told)
    }
}

/// Finds out which row of each key is the newest. Of keys it has hashes only, a tenth of their size, which nobody can choose keys for:
/// two of five million keys have the same once in 10^15 files. A hashed map would be half empty.
#[derive(Debug, Default)]
struct Newest {
    hashers: [RandomState; 2],
    /// How many rows there were.
    seen: u32,
    rows: Vec<Seen>,
    /// Once those that count were left of the rows, how many these were.
    settled: usize,
}

/// A row, in the order of keys and then of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    key: [u8; 12],
    place: u32,
    is_kept: bool,
}

/// For each row, in their order, whether it is the newest of its key.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<u64>);

impl Newest {
    fn add(&mut self, row: &Row<'_>) {
        let [wide, narrow] = self.hashers.each_ref().map(|hasher| hasher.hash_one((row.keyspace, row.key)));
        let mut key = [0; 12];
        key[..8].copy_from_slice(&wide.to_le_bytes());
        key[8..].copy_from_slice(&narrow.to_le_bytes()[..4]);
        if self.rows.len() == self.rows.capacity() {
            self.settle();
            self.rows.reserve_exact(ROWS.max(self.settled));
        }
        self.rows.push(Seen { key, place: self.seen, is_kept: row.kept.is_some() });
        self.seen += 1;
    }

    /// Leaves of the rows those which count.
    fn settle(&mut self) {
        self.rows.sort_unstable();
        self.rows.dedup_by(|later, former| {
            let is_same = later.key == former.key;
            if is_same {
                *former = *later;
            }
            is_same
        });
        self.rows.retain(|row| row.is_kept);
        self.settled = self.rows.len();
    }

    fn places(mut self) -> Places {
        self.settle();
        let mut places = vec![0; self.seen as usize / 64 + 1];
        for Seen { place, .. } in self.rows {
            places[place as usize / 64] |= 1 << (place % 64);
        }
        Places(places)
    }
}

impl Places {
    /// Leaves of rows, of which `seen` came before, those that are the newest.
    fn of<'a>(&self, seen: &mut usize, mut rows: Vec<Row<'a>>) -> Vec<Row<'a>> {
        rows.retain(|_| {
            let place = *seen;
            *seen += 1;
            self.0.get(place / 64).is_some_and(|places| places & (1 << (place % 64)) != 0)
        });
        rows
    }
}

/// A file, read.
struct ReadFile {
    contents: Contents,
    /// Of its whole frames.
    length: u64,
    /// Bytes after these.
    unfinished: u64,
    /// Bytes of the rows that count.
    holds: u64,
}

impl ReadFile {
    fn of(file: impl Read + Seek) -> Result<Self, Fault> {
        /// Of a row's numbers.
        const AROUND: usize = 4;
        let mut frames = Frames::of(file)?;
        let sum = Sum::read(&mut frames)?;
        let (length, unfinished) = (frames.at(), frames.unfinished());
        let (mut contents, mut holds) = (sum.contents(), 0);
        sum.visit(&mut frames, |rows| {
            let size = |row: &Row<'_>| AROUND + row.key.len() + row.kept.map_or(0, <[u8]>::len);
            holds += rows.iter().map(|row| size(row) as u64).sum::<u64>();
            contents.take(&rows);
            Ok(())
        })?;
        frames.check_rest()?;
        Ok(Self { contents, length, unfinished, holds })
    }
}

/// A file without a disk, for fuzzers: what a start makes of its bytes; none if it sets the file aside.
#[cfg(feature = "fuzz")]
pub(super) fn read_bytes(file: &[u8]) -> Option<Contents> {
    ReadFile::of(io::Cursor::new(file)).ok().map(|read| read.contents)
}

/// The bytes of a file with these encoded commits.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn write_bytes(commits: &[Vec<u8>]) -> Vec<u8> {
    let mut file = head().to_vec();
    for commit in commits {
        let frame = framed([&room(), &**commit].concat(), file.len() as u64);
        file.extend(frame.unwrap_or_default());
    }
    file
}
