//! A value that is read from files, and read again when a file changes or a reload is asked for. Unusable content
//! changes nothing: a typing error in a file must not lock gost out. Knows nothing of the files' meaning.

use std::fs::{self, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::secret_file;

/// How often the files are checked for changes.
pub const EVERY: Duration = Duration::from_secs(2);

/// An unusable file. The text never quotes the file's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Unusable {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub why: String,
}

impl Unusable {
    /// A file, and what is wrong with it.
    pub fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }
}

/// The newest usable value; all clones see the same one.
#[derive(Debug)]
pub struct Latest<T>(watch::Receiver<Arc<T>>);

impl<T> Latest<T> {
    /// A value that the holder of the sender can replace.
    pub fn of(value: T) -> (watch::Sender<Arc<T>>, Self) {
        let (latest, newest) = watch::channel(Arc::new(value));
        (latest, Self(newest))
    }

    /// The current value.
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Waits until the value is replaced.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The sender is gone, so nothing will replace the value.
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Parses a value from files.
pub type Load<T> = fn(&[PathBuf]) -> Result<T, Unusable>;

/// The files of a value, to be read again.
pub struct Files<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    stamps: Vec<Option<FileStamp>>,
    latest: watch::Sender<Arc<T>>,
}

/// A file's time of change, length, inode and mode: if any differs, the file is read again.
type FileStamp = (SystemTime, u64, u64, u32);

impl<T: Send + Sync + 'static> Files<T> {
    /// Reads the files for the first time: unusable content is an error.
    pub fn open(paths: Vec<PathBuf>, load: Load<T>) -> Result<(Self, Latest<T>), Unusable> {
        let stamps = stamps(&paths);
        let (latest, newest) = watch::channel(Arc::new(load(&paths)?));
        Ok((Self { paths, load, stamps, latest }, Latest(newest)))
    }

    /// Reads the files again when one of them has changed, and at each notice in `reload`. Ends when the sender of
    /// `reload` is gone.
    pub async fn follow(mut self, every: Duration, mut reload: watch::Receiver<()>) -> anyhow::Result<()> {
        loop {
            let insist = tokio::select! {
                () = sleep(every) => false,
                reload = reload.changed() => match reload {
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
        // Taken before the content, so that a write in between is noticed the next time.
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
            Err(error) => tracing::error!(%error, "not usable; the previous content stays in force"),
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<FileStamp>> {
    let stamp = |m: Metadata| Some((m.modified().ok()?, m.len(), m.ino(), m.mode()));
    paths.iter().map(|path| fs::metadata(path).ok().and_then(stamp)).collect()
}

/// The text of a secret file, or why it is unusable.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    secret_file::read(path).map_err(|why| Unusable::new(path, why.to_string()))
}

/// The text of a file that is no secret, or why it is unusable. A pipe is refused here, too: it would be waited for.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let mut text = Vec::new();
    let mut file = secret_file::open(path).map_err(|why| Unusable::new(path, why.to_string()))?;
    file.read_to_end(&mut text).map_err(|why| Unusable::new(path, format!("cannot be read: {why}")))?;
    Ok(text)
}
