//! Files that hold secrets: keys, tokens, private keys. They are read only if they are files, belong to this user or to
//! root, and nobody but their owner and their group can read or change them. Of the content, only lines that everybody
//! would guess are noticed.
//!
//! The group is allowed because a service's secrets often belong to root and are read through a group: with the Debian
//! package, with systemd's credentials and with a Kubernetes Secret.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use zeroize::Zeroizing;

/// Longest secret file in bytes: a hundred times any useful one.
pub(crate) const MAX_LEN: u64 = 1 << 20;
/// The permission bits of users who are neither owner nor in the group.
const OTHERS: u32 = 0o007;
/// First buffer for a file without a known length, such as one of `/proc`. A buffer that grows would leave copies of the
/// secret in memory.
const LEAST: u64 = 16 << 10;
/// The user that may change every file anyway.
const ROOT: u32 = 0;
/// A random secret of so many characters has more than [`FEW`] different ones, in base64 and in hexadecimal digits.
const LONG: usize = 32;
/// The base64 text of 32 equal bytes has at most so many different characters: four that are repeated, and the last two.
const FEW: usize = 6;

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
    /// Its owner may change it at any time, and its permissions, too.
    #[error(
        "belongs to another user (uid {owner}), who may change it: `chown {us} {}`, or to root", path.display()
    )]
    Foreign {
        /// The file's owner.
        owner: u32,
        /// This process's user.
        us: u32,
        /// The file.
        path: PathBuf,
    },
    /// A pipe would be waited for, and what comes out of a device has no end.
    #[error("is {0}, not a file: put the secret into a file of its own")]
    NoFile(&'static str),
    /// Over [`MAX_LEN`].
    #[error("has more than {MAX_LEN} bytes")]
    TooLong,
    /// A line that everybody would guess, such as a key of zeros.
    #[error(
        "line {0} is a few characters repeated, which everybody can guess: `gossd keygen` makes a key, \
         `openssl rand -hex 32` a token"
    )]
    Guessable(usize),
}

/// Reads a whole file. The content is wiped from memory when it is dropped.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let file = open(path)?;
    // Of the opened file: the name may lead to another one by now.
    let found = file.metadata()?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretFileError::Open { mode, path: path.into() });
    }
    let us = geteuid().as_raw();
    if !is_trusted(found.uid(), us) {
        return Err(SecretFileError::Foreign { owner: found.uid(), us, path: path.into() });
    }
    let room = found.len().clamp(LEAST, MAX_LEN) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(SecretFileError::TooLong);
    }
    match bytes.split(|byte| *byte == b'\n').position(is_guessable) {
        Some(at) => Err(SecretFileError::Guessable(at + 1)),
        None => Ok(bytes),
    }
}

/// Opens a file and nothing else. Opening a pipe without `O_NONBLOCK` would wait until somebody writes to it.
pub(crate) fn open(path: &Path) -> Result<File, SecretFileError> {
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let found = file.metadata()?;
    if found.is_file() {
        return Ok(file);
    }
    Err(SecretFileError::NoFile(if found.is_dir() { "a folder" } else { "a pipe, socket or device" }))
}

/// Whether a file of this owner is as safe as one of our own.
fn is_trusted(owner: u32, us: u32) -> bool {
    owner == us || owner == ROOT
}

/// Whether a line of a secret file is a few characters repeated: the key of 32 zeros, or of 32 other equal bytes. Comments are
/// no secrets, nor is what is no text.
pub(crate) fn is_guessable(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let different: BTreeSet<u8> = line.iter().copied().collect();
    let is_text = different.iter().all(u8::is_ascii_graphic);
    line.len() >= LONG && is_text && !line.starts_with(b"#") && different.len() <= FEW
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
    fn only_this_user_and_root_may_own_a_secret() {
        for (owner, us, fine) in
            [(1_000, 1_000, true), (0, 1_000, true), (0, 0, true), (1_001, 1_000, false), (1_000, 0, false)]
        {
            assert_eq!(is_trusted(owner, us), fine, "of {owner} for {us}");
        }
        // Only root can give a file away.
        let file = file(0o600);
        if std::os::unix::fs::chown(file.path(), Some(65_531), None).is_ok() && geteuid().is_root() {
            let told = read(file.path()).unwrap_err().to_string();
            let command = format!("`chown 0 {}`", file.path().display());
            assert!(told.contains("uid 65531") && told.contains(&command), "{told}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status().unwrap();
        assert!(made.success());
        for (path, what) in [
            (&*pipe, "a pipe, socket or device"),
            (Path::new("/dev/zero"), "a pipe, socket or device"),
            (folder.path(), "a folder"),
        ] {
            let told = read(path).unwrap_err().to_string();
            assert!(told.contains(what) && told.contains("a file of its own"), "{told}");
        }
    }

    #[test]
    fn a_secret_that_everybody_would_guess_is_refused() {
        use base64::Engine as _;
        use base64::prelude::BASE64_STANDARD;
        for byte in 0..=255 {
            assert!(is_guessable(BASE64_STANDARD.encode([byte; 32]).as_bytes()), "{byte}");
        }
        for text in ["0".repeat(64), "ab".repeat(32), "x".repeat(32)] {
            assert!(is_guessable(text.as_bytes()), "{text}");
        }
        let made = crate::net::keyfile::generate().line();
        let sequence: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let sequence = BASE64_STANDARD.encode(sequence);
        let comment = "#".repeat(80);
        for text in
            [&*made, "0b7c1f0e5d7a4c9f8e21d3a6b5947c10", "-----BEGIN PRIVATE KEY-----", &sequence, &comment]
        {
            assert!(!is_guessable(text.as_bytes()), "{text}");
        }
        let file = file(0o600);
        std::fs::write(&file, format!("# a key\n{}\n", BASE64_STANDARD.encode([0; 32]))).unwrap();
        let told = read(file.path()).unwrap_err().to_string();
        assert!(
            told.starts_with("line 2 ") && told.contains("gossd keygen") && !told.contains("AAAA"),
            "{told}"
        );
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
