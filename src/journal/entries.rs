//! A journal's file without a disk: what a start makes of any entries, and of any bytes. For fuzzers.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::gosts::spell_entrypoint;
use super::kept::{spell_rule, spell_word};
use super::store::{Contents, Entries, Entry, Stamp, Store};
use super::{Restored, guarded};
use gossd_core::agent::Batch;
use gossd_core::entrypoints::Registered;
use gossd_core::hostname::Claim;
use gossd_core::lease::Word;

/// What a start makes of entries: of words by their id, and of claims by their key.
pub fn read(words: &[(&[u8], &[u8])], rules: &[(&[u8], &[u8])]) -> Restored {
    restored(Contents::of(&Entries { words: owned(words), rules: owned(rules), ..Entries::default() }))
}

/// What a start makes of entries about gosts: of periods by their instance, and of entrypoints by their key.
pub fn read_gosts(periods: &[(&[u8], u64)], entrypoints: &[(&[u8], &[u8])]) -> Restored {
    let periods = periods.iter().map(|(node, millis)| (node.to_vec(), *millis)).collect();
    restored(Contents::of(&Entries { periods, entrypoints: owned(entrypoints), ..Entries::default() }))
}

/// How an entrypoint is written: key and value.
pub fn write_entrypoint(registered: &Registered) -> (Vec<u8>, Vec<u8>) {
    spell_entrypoint(registered)
}

/// How a word is written; `number` is that of a released id. None for one that is not kept.
pub fn write_word(word: &Word, number: u64) -> Option<Vec<u8>> {
    spell_word(word, number)
}

/// How a claim is written: key and value.
pub fn write_rule(rule: &Claim) -> (Vec<u8>, Vec<u8>) {
    spell_rule(rule)
}

/// What a start makes of the bytes of a whole file; none if it sets the file aside.
pub fn read_file(bytes: Vec<u8>) -> Option<Restored> {
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

fn owned(entries: &[(&[u8], &[u8])]) -> Vec<Entry> {
    entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn restored(contents: Contents) -> Restored {
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
