//! An agent's own state over restarts, in one file: the newest word on every id that it owns, the periods and
//! entrypoints of its gosts, its claims on host names, whether it drains, and its generation. This half handles the
//! file: who may use it, and what happens when it is damaged or the disk is full. The other half, `log`, handles its
//! content.
//!
//! Must not know what a lease is, who decides what is worth keeping, or what time it is. Its calls block on the disk,
//! so they are made from a blocking thread.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::StatVfsMountFlags;

use crate::sentence::{Sentence, sentence};
use gossd_core::agent::Batch;
use gossd_core::entrypoints::Registered;
use gossd_core::hostname::Claim;
use gossd_core::lease;
use gossd_core::record::{AgentName, Generation};
use gossd_core::slot::Version;

mod contents;
#[cfg(feature = "fuzz")]
pub mod entries;
mod fault;
mod frames;
pub(crate) mod identity;
mod kept;
mod log;
pub(crate) mod peers;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod thread;

use contents::Contents;
use fault::Fault;
use log::{Stamp, Store};

/// How many damaged files are kept for inspection; then the oldest one is removed.
const MAX_SET_ASIDE: u32 = 10;

/// The content of a journal.
#[derive(Debug)]
pub struct RestoredJournal {
    /// The generation of this start: higher than that of any earlier start, and already on disk.
    pub generation: Generation,
    /// The leases that it owned, and the Renew periods of its gosts.
    pub leases: lease::KeptLeases,
    /// Where instances registered.
    pub entrypoints: Vec<Registered>,
    /// The claims on host names.
    pub rules: Vec<Claim>,
    /// Whether the agent drained.
    pub draining: bool,
    /// The start that wrote last, and the version of its changes to which the journal has everything. None of a fresh journal, and of
    /// a snapshot, which has everything.
    pub told: Option<(Generation, Version)>,
    /// The new name of a file that was damaged or no journal; a fresh journal has replaced it.
    pub set_aside: Option<PathBuf>,
}

/// An agent's journal. One process at a time can use it: the lock is held until this is dropped.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` after a failure, until the file is opened again.
    store: Option<Store>,
    /// A lower bound of the file's stamp: an older file shows that the file went back in time.
    stamp: Stamp,
    /// The file as the last write left it.
    left: Option<FileMark>,
    /// Declared last, so that it outlives the store.
    lock: Lock,
}

/// What shows that nobody else has touched a file: which one it is, how long, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileMark {
    id: (u64, u64),
    bytes: u64,
    written: Option<SystemTime>,
}

/// Why there is no journal. The content of the file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two agents with one name would write the same state.
    #[error(
        "{path} is in use: another agent of this name is running on this host; \
         stop it, or give this one another --name or another state directory"
    )]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// This program must not change what it cannot read.
    #[error("{path} was written by a newer gossd; run that one, or move the file away to start without it")]
    Newer {
        /// The journal.
        path: PathBuf,
    },
    /// The directory or the file cannot be created, read or written.
    #[error("cannot keep a journal in {path}: {source}")]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No part of the batch may count as written; everything before it is. The same batch can be written again, and the
    /// journal works again once the disk does.
    #[error("{}", sentence!("cannot write {path}: {why}", path = .path.display(), why = .source))]
    Failed {
        /// The journal.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file was damaged or gone, and the journal is empty now: everything has to be written again, including this
    /// batch.
    #[error("{}", afresh(.path, .set_aside.as_deref()))]
    StartedAfresh {
        /// The journal.
        path: PathBuf,
        /// The new name of the damaged file, if there was one.
        set_aside: Option<PathBuf>,
    },
}

impl Journal {
    /// Opens or creates `<dir>/<name>.journal`. Raises the generation on disk above the last one, or to `at_least` if that is
    /// higher. Returns the content. A file that is damaged or no journal is renamed.
    pub fn open(
        dir: &Path,
        name: &AgentName,
        at_least: Generation,
    ) -> Result<(Self, RestoredJournal), OpenError> {
        let path = dir.join(format!("{name}.journal"));
        let start = || -> Result<(OpenFile, Lock), Fault> {
            private_dir(dir)?;
            let lock = Lock::take(&beside(&path, "lock"))?;
            let raise = |last: Stamp| last.raised(at_least);
            Ok((open_or_replace(&path, Stamp::first(at_least), raise)?, lock))
        };
        let (opened, lock) = start().map_err(|fault| fault.at_open(&path))?;
        let OpenFile { store, stamp, contents, set_aside, .. } = opened;
        let restored = contents.restored(stamp.generation, set_aside);
        let mut journal = Self { path, store: None, stamp, left: None, lock };
        journal.go_on_with(store);
        journal.compact();
        Ok((journal, restored))
    }

    /// What the journal of an agent holds that cannot be written, because its disk is full or read-only; nothing if it cannot be
    /// read either.
    pub fn read(dir: &Path, name: &AgentName, at_least: Generation) -> Option<RestoredJournal> {
        let contents = Store::read(&dir.join(format!("{name}.journal"))).ok().flatten()?;
        let stamp = contents.stamp.raised(at_least).ok()?;
        Some(contents.restored(stamp.generation, None))
    }

    /// Identifies a journal across processes and mounts: device and inode of its lock. `None` if no agent of this name
    /// has been here.
    pub fn id(dir: &Path, name: &AgentName) -> Option<(u64, u64)> {
        let lock = beside(&dir.join(format!("{name}.journal")), "lock");
        fs::metadata(lock).ok().map(|lock| (lock.dev(), lock.ino()))
    }

    /// Writes a batch in one commit, which is on disk when this returns.
    pub fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let mut store = self.ready()?;
        let stamp = self.stamp.next();
        let written = store.commit(stamp, batch);
        if written.is_ok() {
            self.stamp = stamp;
        }
        if !store.is_spoilt() {
            self.go_on_with(store);
        }
        written.map_err(|fault| self.failed(fault))
    }

    /// Writes the file anew if most of it is what has changed since, while nobody waits for a write. Whether that works or not, the
    /// content stays; what turns out to be damaged, the next write finds.
    pub fn compact(&mut self) {
        let is_bloated = self.store.as_ref().is_some_and(Store::is_bloated);
        if !is_bloated || !self.is_in_place().unwrap_or_default() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        match replace(&self.path, |empty| store.compacted(empty)) {
            Ok(compacted) => self.go_on_with(compacted),
            Err(fault) => {
                let is_damaged = matches!(fault, Fault::Damaged(_));
                let error = io::Error::from(fault);
                tracing::warn!(%error, journal = %self.path.display(), "cannot compact the journal's file");
                if !is_damaged {
                    store.stay_bloated();
                    // Its mark is the one from before. So should the new file have got the name, or somebody have changed this one,
                    // then it is not written to.
                    self.store = Some(store);
                }
            }
        }
    }

    fn go_on_with(&mut self, store: Store) {
        self.left = store.mark();
        self.store = Some(store);
    }

    /// Looks whether the file can still be found, and is as it was left. One that was removed, moved away, replaced or overwritten
    /// is put aside if it is there, and started afresh: [`WriteError::StartedAfresh`].
    pub fn look(&mut self) -> Result<(), WriteError> {
        self.store = Some(self.ready()?);
        // A write would show it, but there may be none for hours.
        if is_read_only(&self.path) {
            return Err(self.failed(Fault::Io(io::ErrorKind::ReadOnlyFilesystem.into())));
        }
        Ok(())
    }

    /// Takes the store out: of the file at the path, which nobody else has touched.
    fn ready(&mut self) -> Result<Store, WriteError> {
        let in_place = self.is_in_place();
        if let Some(store) = self.store.take()
            && in_place.as_ref().is_ok_and(|in_place| *in_place)
        {
            return Ok(store);
        }
        in_place.map_err(|error| self.failed(error.into()))?;
        match self.reopen().map_err(|fault| self.failed(fault))? {
            OpenFile { store, afresh: false, .. } => Ok(store),
            OpenFile { store, set_aside, .. } => {
                self.store = Some(store);
                Err(WriteError::StartedAfresh { path: self.path.clone(), set_aside })
            }
        }
    }

    /// Whether the file at the path is as it was left, and the lock's file still has its name. A folder that cannot be looked
    /// into is an error; one that is gone is not.
    fn is_in_place(&self) -> io::Result<bool> {
        let lock = match FileMark::at(&beside(&self.path, "lock")) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let (here, ours) = (FileMark::at(&self.path).ok(), self.lock.0.metadata()?);
        Ok(lock.id == (ours.dev(), ours.ino()) && here.is_some() && here == self.left)
    }

    fn failed(&self, fault: Fault) -> WriteError {
        WriteError::Failed { path: self.path.clone(), source: fault.into() }
    }

    /// The size of the file in bytes; 0 if there is none.
    pub fn bytes(&self) -> u64 {
        self.path.metadata().map_or(0, |found| found.len())
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file again after a failure, which the file may not have survived.
    fn reopen(&mut self) -> Result<OpenFile, Fault> {
        let known = self.stamp;
        private_dir(folder_of(&self.path))?;
        let lock = beside(&self.path, "lock");
        let (held, named) = (self.lock.0.metadata()?, FileMark::at(&lock).ok());
        if named.is_none_or(|named| named.id != (held.dev(), held.ino())) {
            // The one that is held went with its folder. Another agent may have come to the new one.
            self.lock = Lock::take(&lock)?;
        }
        let opened = open_or_replace(&self.path, known, |found| found.following(known))?;
        self.stamp = opened.stamp;
        self.left = opened.store.mark();
        // Of a compacted file, that may have failed.
        sync_entries(&self.path)?;
        Ok(opened)
    }
}

impl FileMark {
    fn of(found: &Metadata) -> Self {
        Self { id: (found.dev(), found.ino()), bytes: found.len(), written: found.modified().ok() }
    }

    fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|found| Self::of(&found))
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether the file system of a path takes no writes.
fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A journal's file, after its first write.
struct OpenFile {
    store: Store,
    stamp: Stamp,
    contents: Contents,
    /// Whether the file is fresh, because there was none or none that could be used.
    afresh: bool,
    set_aside: Option<PathBuf>,
}

/// Opens the file and raises its stamp. A file that cannot be trusted is renamed, and a fresh one starts with the stamp
/// `first`.
fn open_or_replace(
    path: &Path,
    first: Stamp,
    forward: impl Fn(Stamp) -> Result<Stamp, Fault>,
) -> Result<OpenFile, Fault> {
    let existing = || -> Result<Option<OpenFile>, Fault> {
        let Some((mut store, contents)) = Store::open(path)? else { return Ok(None) };
        let stamp = forward(contents.stamp)?;
        store.commit(stamp, &Batch::default())?;
        Ok(Some(OpenFile { store, stamp, contents, afresh: false, set_aside: None }))
    };
    let set_aside = match existing() {
        Ok(Some(opened)) => return Ok(opened),
        Ok(None) => None,
        Err(Fault::Damaged(why)) => {
            let aside = set_aside(path)?;
            tracing::error!(%why, journal = %path.display(), kept_as = %aside.display(), "the journal is damaged");
            Some(aside)
        }
        Err(fault) => return Err(fault),
    };
    let store = replace(path, |file| Store::create(file, first))?;
    Ok(OpenFile { store, stamp: first, contents: Contents::default(), afresh: true, set_aside })
}

/// Creates a file that gets its name only when it is complete, so that a crash leaves no file that looks damaged.
fn replace(path: &Path, write: impl FnOnce(File) -> Result<Store, Fault>) -> Result<Store, Fault> {
    let draft = beside(path, "new");
    let written = private_file(&draft, true).map_err(Fault::Io).and_then(write).and_then(|store| {
        fs::rename(&draft, path)?;
        sync_entries(path)?;
        Ok(store)
    });
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Renames a damaged file for inspection. Returns the new name.
fn set_aside(path: &Path) -> Result<PathBuf, Fault> {
    let names: Vec<PathBuf> = (1..=MAX_SET_ASIDE).map(|n| beside(path, &format!("damaged-{n}"))).collect();
    let written = |name: &PathBuf| fs::symlink_metadata(name).and_then(|found| found.modified()).ok();
    // A free name counts as older than any file.
    let name = names.into_iter().min_by_key(written).unwrap_or_else(|| beside(path, "damaged"));
    fs::rename(path, &name)?;
    sync_entries(path)?;
    Ok(name)
}

/// The exclusive right to a journal. It is a file of its own, because the journal's file is closed, renamed and
/// replaced while the right lasts.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(path: &Path) -> Result<Self, Fault> {
        let file = private_file(path, false)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Fault::Locked),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// Unlocks explicitly: closing would not, while a child process that has not reached its `exec` shares the file.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(dir)
}

fn private_file(path: &Path, empty: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(empty);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path)
}

/// Makes the names in the journal's directory durable. Only on Unix can a directory be opened.
fn sync_entries(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `<path>.<suffix>`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

fn afresh(path: &Path, set_aside: Option<&Path>) -> Sentence {
    let path = path.display();
    match set_aside.map(Path::display) {
        None => sentence!("{path} was damaged or removed, and started afresh"),
        Some(kept) => {
            sentence!("{path} was damaged or removed, and started afresh; what it was is kept as {kept}")
        }
    }
}
