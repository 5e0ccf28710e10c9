//! The file on disk: read once at the start, replaced as a whole, and checked for changes by others. Every call may
//! take as long as the disk takes. Knows nothing of the content.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Gid, fchown};

use crate::sentence::sentence;

/// Readable by the group, because gost may run as another user of a common group.
pub(crate) const MODE: u32 = 0o640;

/// If any of these differs, somebody has replaced or changed the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: SystemTime,
}

/// Why a file was not replaced; gost continues with the old one.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReplaced {
    /// The system refused.
    #[error("{}", sentence!("{why}: this user must be able to create files in that folder, and the disk must have room", why = .0))]
    Io(#[from] io::Error),
    /// The new file would belong to another group.
    #[error("{}", sentence!(
        "this user is not in the file's group {group}, through which gost may read it: add this user to the group, or let \
         new files inherit it from the folder (`chmod g+s FOLDER`)",
        group = .0
    ))]
    Group(u32),
}

/// The stamp of a file, if there is one.
pub(super) fn stamp(path: &Path) -> io::Result<Option<FileIdentity>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => FileIdentity::of(&found).map(Some),
        // Opening a pipe would wait for a writer.
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, &*sentence!("it exists and is no file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first bytes of an existing file.
pub(super) fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(most as u64).read_to_end(&mut text)?;
    Ok(text)
}

/// Creates or replaces a file. A reader sees either the whole old content or the whole new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<FileIdentity, NotReplaced> {
    stamp(path)?;
    let draft = beside(path);
    // A draft may remain from a process that was killed. It is removed and never opened, because somebody else may have
    // put a link there.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft)?;
    let replaced = fill(file, path, text).and_then(|stamp| {
        fs::rename(&draft, path)?;
        Ok(stamp)
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&draft);
    }
    replaced
}

fn fill(mut file: File, path: &Path, text: &str) -> Result<FileIdentity, NotReplaced> {
    // Independent of the umask.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    if let Ok(old) = fs::metadata(path)
        && old.gid() != file.metadata()?.gid()
    {
        fchown(&file, None, Some(Gid::from_raw(old.gid()))).map_err(|_| NotReplaced::Group(old.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    Ok(FileIdentity::of(&file.metadata()?)?)
}

/// `<path>.new`: in the same folder, so that it can be renamed over the file.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

impl FileIdentity {
    fn of(file: &Metadata) -> io::Result<Self> {
        let modified = file.modified()?;
        Ok(Self { device: file.dev(), inode: file.ino(), bytes: file.len(), modified })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_its_readers_group_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        assert_eq!(stamp(&path).unwrap(), None);
        let first = replace(&path, "one\n").unwrap();
        assert_eq!(stamp(&path).unwrap(), Some(first));
        let mut open = File::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // Only root may give files to another group.
        let is_anybodys = chown(&path, None, Some(65_534)).is_ok();
        let second = replace(&path, "two\n").unwrap();
        assert_eq!(stamp(&path).unwrap(), Some(second));
        assert_ne!(first, second);
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, MODE);
        assert!(!is_anybodys || found.gid() == 65_534, "the group stays");
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n", "who has opened the old one reads the old one");
        assert_eq!(read(&path, 99).unwrap(), b"two\n");
        assert_eq!(read(&path, 2).unwrap(), b"tw");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_at_the_drafts_path_is_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("hosts"), folder.path().join("victim"));
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, folder.path().join("hosts.new")).unwrap();
        replace(&path, "text\n").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn a_path_that_is_no_file_is_neither_read_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::create_dir(&path).unwrap();
        assert!(stamp(&path).is_err() && replace(&path, "").is_err());
        let gone = folder.path().join("gone/hosts");
        assert_eq!(stamp(&gone).unwrap(), None);
        let why = replace(&gone, "").unwrap_err().to_string();
        assert!(why.contains("this user must be able to create files in that folder"), "{why}");
    }
}
