//! The key file of a running agent: written whenever another keyring comes into force, read again when somebody says so.
//! Knows nothing of peers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::driver::Command;
use crate::secret_file;
use gossd_core::link::keyring::{Key, Keyring};

/// Least time between two writes, whatever peers say.
const PACE: Duration = Duration::from_millis(200);
/// A file that could not be written is tried again after this: a full disk may have room by then.
const AGAIN: Duration = Duration::from_secs(30);

/// A new random key.
pub fn generate() -> Key {
    Key::new(&Zeroizing::new(rand::random()))
}

/// Reads a key file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Keyring> {
    let parsed =
        secret_file::read(path).map_err(anyhow::Error::from).and_then(|bytes| Ok(Keyring::read(&bytes)?));
    parsed.with_context(|| format!("--key-file {}", path.display()))
}

/// Keeps the file as the keyring is, for ever. A file that cannot be written, or read, changes nothing in memory.
pub(super) async fn keep(
    path: PathBuf,
    mut in_force: watch::Receiver<Arc<Keyring>>,
    mut told: watch::Receiver<()>,
    inputs: mpsc::Sender<Command>,
) -> anyhow::Result<()> {
    let mut failed = false;
    loop {
        tokio::select! {
            Ok(()) = in_force.changed() => {
                failed = file(&path, &mut in_force, failed, &inputs).await?;
                sleep(PACE).await;
            }
            () = sleep(AGAIN), if failed => failed = file(&path, &mut in_force, failed, &inputs).await?,
            Ok(()) = told.changed() => read_again(&path, &inputs).await?,
            else => anyhow::bail!("nobody uses the keys any more"),
        }
    }
}

/// Writes the keyring in force. Whether it failed.
async fn file(
    path: &Path,
    in_force: &mut watch::Receiver<Arc<Keyring>>,
    failed: bool,
    inputs: &mpsc::Sender<Command>,
) -> anyhow::Result<bool> {
    let keyring = in_force.borrow_and_update().clone();
    let fingerprint = keyring.fingerprint();
    let to = path.to_owned();
    let written = spawn_blocking(move || write(&to, &keyring)).await?;
    let path = path.display();
    match &written {
        Ok(true) => tracing::info!(%path, "wrote the key file"),
        Ok(false) => {}
        Err(error) if failed => tracing::debug!(%path, %error, "still cannot write the key file"),
        Err(error) => {
            tracing::error!(%path, %error, "cannot write the key file: keys are in memory only, and a restart loses them");
        }
    }
    let failed = written.is_err();
    let written = written.map(|_| ()).map_err(|error| format!("cannot write {path}: {error}"));
    // The driver is there for as long as we are.
    let _ = inputs.send(Command::Filed { fingerprint, written }).await;
    Ok(failed)
}

async fn read_again(path: &Path, inputs: &mpsc::Sender<Command>) -> anyhow::Result<()> {
    let from = path.to_owned();
    match spawn_blocking(move || read(&from)).await? {
        Ok(keyring) => {
            let _ = inputs.send(Command::Reread(keyring)).await;
        }
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "not usable; the keys that were there before stay in force"
            );
        }
    }
    Ok(())
}

/// Replaces the file by one with that keyring, in one step, and for good. False if there is no need to.
fn write(path: &Path, keyring: &Keyring) -> io::Result<bool> {
    // It came from there, and a hand may be about to change it again.
    if !keyring.is_shared() {
        return Ok(false);
    }
    // What a link leads to is the file.
    let path = fs::canonicalize(path)?;
    let before = secret_file::read(&path).ok().and_then(|bytes| Keyring::read(&bytes).ok());
    if before.as_ref().is_some_and(|before| before.fingerprint() == keyring.fingerprint()) {
        return Ok(false);
    }
    match replace(&path, keyring.text().as_bytes()) {
        Ok(()) => Ok(true),
        // Whoever keeps the file by other means wrote the same keys.
        Err(_) if before.is_some_and(|before| before.is_as_good_as(keyring)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    // Root may write what it was asked not to.
    if metadata.permissions().readonly() {
        return Err(io::Error::other(format!("its mode is {mode:o}")));
    }
    drop(OpenOptions::new().write(true).open(path)?);
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = Temporary::beside(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.0)?;
    file.write_all(text)?;
    let ours = file.metadata()?;
    if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
        // Only root can; another user's file is then ours, but still its group's, if that is one of ours.
        let (owner, group) = (Some(metadata.uid()), Some(metadata.gid()));
        let _ = fchown(&file, owner, group).or_else(|_| fchown(&file, None, group));
    }
    file.set_permissions(secret_file::closed(mode))?;
    file.sync_all()?;
    fs::rename(&temporary.0, path)?;
    File::open(folder)?.sync_all()
}

/// Removed when it is dropped, if it still has its name.
struct Temporary(PathBuf);

impl Temporary {
    /// Of a name that no file has, and that no other process makes up.
    fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.{:08x}", std::process::id(), rand::random::<u32>()));
        Self(name.into())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use gossd_core::link::keyring::KeyringChange;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_by_what_reads_as_the_same_keyring_and_keeps_its_mode() {
        let (folder, path) = file(&generate().line(), 0o640);
        let keyring = read(&path).unwrap().changed(KeyringChange::Add(generate())).unwrap();
        assert!(write(&path, &keyring).unwrap());
        assert_eq!(read(&path).unwrap().fingerprint(), keyring.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(names(folder.path()), ["key"], "nothing is left beside it");
        assert!(!write(&path, &keyring).unwrap(), "written once");
    }

    #[test]
    fn what_a_hand_made_is_left_to_the_hand() {
        let (_folder, path) = file("half a file", 0o600);
        assert!(!write(&path, &Keyring::parse(&generate().line()).unwrap()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a file");
    }

    #[test]
    fn a_link_stays_one() {
        let (folder, path) = file(&generate().line(), 0o600);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("key", &link).unwrap();
        let keyring = read(&path).unwrap().changed(KeyringChange::Add(generate())).unwrap();
        assert!(write(&link, &keyring).unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path).unwrap().fingerprint(), keyring.fingerprint());
    }

    #[test]
    fn a_file_that_may_not_be_written_stays_as_it_is() {
        let (old, new) = (generate(), generate());
        let (folder, path) = file(&old.line(), 0o400);
        let keyring = read(&path).unwrap().changed(KeyringChange::Add(new.clone())).unwrap();
        let error = write(&path, &keyring).unwrap_err().to_string();
        assert!(error.contains("mode is 400"), "{error}");
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), names(folder.path())),
            (old.line().to_string(), vec!["key".into()])
        );

        // Until somebody else has written the same keys to it.
        fs::remove_file(&path).unwrap();
        fs::write(&path, format!("{}\n{}\n", *old.line(), *new.line())).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(!write(&path, &keyring).unwrap());
    }
}
