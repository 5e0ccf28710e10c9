//! A journal's file without a disk: what a start makes of any entries, and of any bytes. For fuzzers.

use super::RestoredJournal;
use super::log::{self, Commit, Contents, Stamp};
use gossd_core::agent::Batch;

/// The number of a keyspace, a key and what is kept.
pub type Entry = (u8, Vec<u8>, Vec<u8>);

/// What a start makes of entries.
pub fn read(entries: &[Entry]) -> RestoredJournal {
    restored(Commit::made_up(Stamp::first(1), entries).contents())
}

/// What a start makes of the bytes of a whole file; none if it sets the file aside.
pub fn read_file(bytes: &[u8]) -> Option<RestoredJournal> {
    log::read_bytes(bytes).map(restored)
}

/// The bytes of a file after a batch.
pub fn write_file(batch: &Batch) -> Vec<u8> {
    log::write_bytes(&Commit::of(Stamp::first(1), batch, &log::changes(batch)))
}

fn restored(contents: Contents) -> RestoredJournal {
    let generation = contents.stamp.generation;
    contents.restored(generation, None)
}
