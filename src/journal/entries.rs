//! A journal's file without a disk: what a start makes of any entries, and of any bytes. For fuzzers.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

pub use super::store::KeptEntries;
use super::store::{Contents, Stamp, Store};
use super::{RestoredJournal, guarded};
use gossd_core::agent::Batch;

/// What a start makes of entries.
pub fn read(entries: &KeptEntries) -> RestoredJournal {
    restored(Contents::of(entries))
}

/// How a batch is written.
pub fn write(batch: &Batch) -> KeptEntries {
    KeptEntries::of(batch)
}

/// What a start makes of the bytes of a whole file; none if it sets the file aside.
pub fn read_file(bytes: Vec<u8>) -> Option<RestoredJournal> {
    let memory = Memory(Arc::new(Mutex::new(bytes)));
    guarded(|| Store::within(memory)?.contents()).ok().map(restored)
}

/// The bytes of a file after a batch.
pub fn write_file(batch: &Batch) -> Vec<u8> {
    let memory = Memory::default();
    let written = guarded(|| Store::within(memory.clone())?.begin(Stamp::first(1), batch));
    written.expect("memory takes everything");
    memory.bytes().clone()
}

fn restored(contents: Contents) -> RestoredJournal {
    let generation = contents.stamp.generation;
    contents.restored(generation, None)
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(len)?)
}

fn beyond() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        let read = range(offset, out.len()).and_then(|range| bytes.get(range)).ok_or_else(beyond)?;
        out.copy_from_slice(read);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A file could be as long as it says; here, that is memory.
        let len = usize::try_from(len).ok().filter(|len| *len <= 64 << 20).ok_or_else(beyond)?;
        self.bytes().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes();
        let written = range(offset, data.len()).and_then(|range| bytes.get_mut(range)).ok_or_else(beyond)?;
        written.copy_from_slice(data);
        Ok(())
    }
}
