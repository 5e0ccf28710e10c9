//! Files that hold secrets: keys, tokens, private keys. They are read only if nobody but their owner and their group can
//! read or change them. Knows nothing of what is in them.
//!
//! The group may, because a service's secrets belong to root and are read by its group: the Debian package and systemd's
//! credentials are such, and a Kubernetes Secret.

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest secret file, in bytes; a hundred times any that makes sense.
pub(crate) const MAX_LEN: u64 = 1 << 20;
/// What users who are neither the owner nor in the group may do: nothing.
const OTHERS: u32 = 0o007;
/// Set aside at once for what has no length, such as a pipe: a buffer that grows leaves secrets behind.
const LEAST: u64 = 16 << 10;

/// Why a file is not taken. Never quotes what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Not there, or not for us.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Whoever is on this host may have read or changed it.
    #[error(
        "every user of this host may read or change it (mode {mode:04o}): `chmod 600 {}`, or 640 where gossd reads it \
         by its group", path.display()
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

/// Reads a file whole, and wipes it from memory when it is dropped.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let file = File::open(path)?;
    // Of what was opened, not of what has the name by now.
    let found = file.metadata()?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(Refused::Open { mode, path: path.into() });
    }
    let room = found.len().clamp(LEAST, MAX_LEN) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN { Err(Refused::TooLong) } else { Ok(bytes) }
}

/// The permissions with which a secret replaces a file that had these.
pub(crate) fn closed(mode: u32) -> Permissions {
    Permissions::from_mode(mode & 0o7777 & !OTHERS)
}

/// Takes a file that a secret is about to be written to from everybody but its owner, if others could read it: a shell's
/// `>` makes such files. A terminal or pipe stays as it is.
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
        assert!(matches!(read(&link), Err(Refused::Open { mode: 0o644, .. })));
        file.as_file().set_permissions(Permissions::from_mode(0o600)).unwrap();
        assert!(read(&link).is_ok());
    }

    #[test]
    fn a_file_has_an_end() {
        let file = file(0o600);
        file.as_file().set_len(MAX_LEN).unwrap();
        assert!(read(file.path()).is_ok());
        file.as_file().set_len(MAX_LEN + 1).unwrap();
        assert!(matches!(read(file.path()), Err(Refused::TooLong)));
        assert!(matches!(read(Path::new("/nonexistent")), Err(Refused::Unreadable(_))));
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
