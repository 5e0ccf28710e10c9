//! A journal's file without a disk: what a start makes of any bytes. For fuzzers.

use super::RestoredJournal;
use super::contents::Contents;
use super::kept::bytes;
use super::log::{self, Commit, Stamp};
use gossd_core::agent::Batch;

/// What a start makes of the bytes of a whole file; none if it sets the file aside.
pub fn read_file(file: &[u8]) -> Option<RestoredJournal> {
    log::read_bytes(file).map(restored)
}

/// The bytes of a file with these encoded commits, each with its checksums.
pub fn write_file(commits: &[Vec<u8>]) -> Vec<u8> {
    log::write_bytes(commits)
}

/// The encoded commit of a batch, the `count`th of a file.
pub fn write_commit(count: u64, batch: &Batch) -> Vec<u8> {
    bytes(&Commit::of(Stamp::counted(count), batch, &log::changes(batch)))
}

/// An encoded commit of any entries: the number of a keyspace, a key and what is kept.
pub fn made_up(count: u64, entries: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let rows = entries.iter().map(|entry| log::Row { keyspace: entry.0, key: entry.1, kept: Some(entry.2) });
    bytes(&Commit { stamp: Stamp::counted(count), rows: rows.collect(), ..Commit::default() })
}

fn restored(contents: Contents) -> RestoredJournal {
    let generation = contents.stamp.generation;
    contents.restored(generation, None)
}
