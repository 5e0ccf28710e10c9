//! A value that is read from files, and read again when they change or somebody says so. Content that is no
//! good changes nothing: a typing error in a file must not lock gost out. Knows nothing of what the files mean.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::secret_file;

/// How often files are looked at.
pub const EVERY: Duration = Duration::from_secs(2);

/// A file that is no good. Never quotes what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Unusable {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Unusable {
    /// A file, and what is wrong with it.
    pub fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }
}

/// The newest good value. Every clone sees it.
#[derive(Debug)]
pub struct Latest<T>(watch::Receiver<Arc<T>>);

impl<T> Latest<T> {
    /// A value that whoever has the sender can replace.
    pub fn of(value: T) -> (watch::Sender<Arc<T>>, Self) {
        let (latest, newest) = watch::channel(Arc::new(value));
        (latest, Self(newest))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Waits for another value than the one that was there when this was last called.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody can replace it any more.
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Reads a value from files.
pub type Load<T> = fn(&[PathBuf]) -> Result<T, Unusable>;

/// The files of a value, and who reads them again.
pub struct Files<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    stamps: Vec<Option<Stamp>>,
    latest: watch::Sender<Arc<T>>,
}

/// What tells that a file is another one than before, or that others may read it now or no more.
type Stamp = (SystemTime, u64, u64, u32);

impl<T: Send + Sync + 'static> Files<T> {
    /// Reads them for the first time, when content that is no good is an error.
    pub fn open(paths: Vec<PathBuf>, load: Load<T>) -> Result<(Self, Latest<T>), Unusable> {
        let stamps = stamps(&paths);
        let (latest, newest) = watch::channel(Arc::new(load(&paths)?));
        Ok((Self { paths, load, stamps, latest }, Latest(newest)))
    }

    /// Reads them again whenever one of them changed, and whenever `told` changes. Ends when nobody can tell
    /// any more.
    pub async fn follow(mut self, every: Duration, mut told: watch::Receiver<()>) -> anyhow::Result<()> {
        loop {
            let insist = tokio::select! {
                () = sleep(every) => false,
                told = told.changed() => match told {
                    Ok(()) => true,
                    Err(_) => return Ok(()),
                },
            };
            self = spawn_blocking(move || {
                self.look(insist);
                self
            })
            .await?;
        }
    }

    fn look(&mut self, insist: bool) {
        // Before the content: what is written meanwhile is seen the next time.
        let stamps = stamps(&self.paths);
        if !insist && stamps == self.stamps {
            return;
        }
        self.stamps = stamps;
        let files = self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match (self.load)(&self.paths) {
            Ok(value) => {
                self.latest.send_replace(Arc::new(value));
                tracing::info!(files, "read again");
            }
            Err(error) => tracing::error!(%error, "not usable; what was read before stays in force"),
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |m: Metadata| Some((m.modified().ok()?, m.len(), m.ino(), m.mode()));
    paths.iter().map(|path| fs::metadata(path).ok().and_then(stamp)).collect()
}

/// A secret file's text, or why there is none.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    secret_file::read(path).map_err(|why| Unusable::new(path, why.to_string()))
}

/// A file's text, or why there is none.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    fs::read(path).map_err(|error: io::Error| Unusable::new(path, format!("cannot be read: {error}")))
}
