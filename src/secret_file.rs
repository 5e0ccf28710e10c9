//! Files that hold secrets: keys, tokens, private keys. They are read only if nobody but their owner and their group
//! can read or change them. Knows nothing of the content.
//!
//! The group is allowed because a service's secrets often belong to root and are read through a group: with the Debian
//! package, with systemd's credentials and with a Kubernetes Secret.

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest secret file in bytes: a hundred times any useful one.
pub(crate) const MAX_LEN: u64 = 1 << 20;
/// The permission bits of users who are neither owner nor in the group.
const OTHERS: u32 = 0o007;
/// First buffer for a file without a known length, such as a pipe. A buffer that grows would leave copies of the secret
/// in memory.
const LEAST: u64 = 16 << 10;

/// Why a secret file was refused. The text never quotes the content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// The file does not exist, or this user may not read it.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Every user of this host may have read or changed it.
    #[error(
        "every user of this host may read or change it (mode {mode:04o}): `chmod 600 {}`, or 640 if gossd reads it \
         through its group", path.display()
    )]
    Open {
        /// The file's permissions.
        mode: u32,
        /// The file.
        path: PathBuf,
    },
    /// Over [`MAX_LEN`].
    #[error("has more than {MAX_LEN} bytes")]
    TooLong,
}

/// Reads a whole file. The content is wiped from memory when it is dropped.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let file = File::open(path)?;
    // Of the opened file: the name may lead to another one by now.
    let found = file.metadata()?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretFileError::Open { mode, path: path.into() });
    }
    let room = found.len().clamp(LEAST, MAX_LEN) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN { Err(SecretFileError::TooLong) } else { Ok(bytes) }
}

/// The permissions for a secret that replaces a file of this mode.
pub(crate) fn closed(mode: u32) -> Permissions {
    Permissions::from_mode(mode & 0o7777 & !OTHERS)
}

/// Before a secret is written to this file: removes the permissions of everybody but the owner, if others could read
/// it. A shell's `>` makes such files. A terminal or pipe stays as it is.
pub(crate) fn close(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if found.is_file() && found.mode() & OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "secret").unwrap();
        file.as_file().set_permissions(Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_file_that_others_may_read_or_change_is_refused_and_told_how_to_close() {
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o440, true),
            (0o660, true),
            (0o644, false),
            (0o604, false),
            (0o602, false),
            (0o601, false),
            (0o666, false),
        ] {
            let file = file(mode);
            match read(file.path()) {
                Ok(bytes) => assert!(fine && *bytes == b"secret", "{mode:o}"),
                Err(error) => {
                    let said = error.to_string();
                    let command = format!("`chmod 600 {}`", file.path().display());
                    assert!(!fine && said.contains(&command), "{mode:o}: {said}");
                    assert!(
                        said.contains(&format!("(mode {mode:04o})")) && !said.contains("secret"),
                        "{said}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        let file = file(0o644);
        std::os::unix::fs::symlink(file.path(), &link).unwrap();
        assert!(matches!(read(&link), Err(SecretFileError::Open { mode: 0o644, .. })));
        file.as_file().set_permissions(Permissions::from_mode(0o600)).unwrap();
        assert!(read(&link).is_ok());
    }

    #[test]
    fn a_file_has_an_end() {
        let file = file(0o600);
        file.as_file().set_len(MAX_LEN).unwrap();
        assert!(read(file.path()).is_ok());
        file.as_file().set_len(MAX_LEN + 1).unwrap();
        assert!(matches!(read(file.path()), Err(SecretFileError::TooLong)));
        assert!(matches!(read(Path::new("/nonexistent")), Err(SecretFileError::Unreadable(_))));
    }

    #[test]
    fn what_a_secret_goes_to_is_closed_before() {
        for (before, after) in [(0o644, 0o600), (0o666, 0o600), (0o640, 0o640), (0o600, 0o600)] {
            let file = file(before);
            close(file.as_file()).unwrap();
            assert_eq!(file.as_file().metadata().unwrap().mode() & 0o7777, after, "{before:o}");
            assert_eq!(closed(before).mode() & OTHERS, 0);
        }
        assert!(close(&File::options().write(true).open("/dev/null").unwrap()).is_ok(), "no file");
    }
}
