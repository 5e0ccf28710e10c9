//! Fills the file system of a path, like a log that nobody rotates, and frees it again.

use std::fs::{File, remove_file};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

const FILLER: &str = "fakegost-filler";
/// The file system of a test is smaller. Filling a larger one would fill the host's own.
const MAX: usize = 1 << 30;

pub(crate) fn fill(path: &Path) -> anyhow::Result<()> {
    let filler = filler(path);
    let mut file = File::options().append(true).create(true).open(&filler);
    let file = file.as_mut().map_err(|e| anyhow::anyhow!("{}: {e}", filler.display()))?;
    let mut taken = 0;
    // When no more large pieces fit, a block may still fit.
    for size in [1 << 20, 4096] {
        while write(file, size)? {
            taken += size;
            if taken > MAX {
                remove_file(&filler)?;
                bail!("more than {MAX} bytes are free at {}: not a test's file system", path.display());
            }
        }
    }
    println!("filled {taken}");
    Ok(())
}

/// Writes this many more bytes. Returns whether they fitted.
fn write(file: &mut File, size: usize) -> anyhow::Result<bool> {
    match file.write_all(&vec![b'x'; size]).and_then(|()| file.sync_data()) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(false),
        Err(error) => Err(error).context("filling"),
    }
}

/// Frees what [`fill`] took.
pub(crate) fn free(path: &Path) -> anyhow::Result<()> {
    let filler = filler(path);
    remove_file(&filler).with_context(|| filler.display().to_string())
}

fn filler(path: &Path) -> PathBuf {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("/")) };
    folder.join(FILLER)
}
