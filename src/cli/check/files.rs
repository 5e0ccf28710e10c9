//! Files: keys, tokens and certificates that the agent can read and other users cannot; and a folder with room for the
//! journal.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::Finding;
use crate::cli::words;
use crate::config::Config;
use crate::net::keyfile;
use crate::plugin::Tokens;
use crate::plugin::tls::TlsFiles;
use gossd_core::link::keyring::Keyring;

/// A journal of 100,000 records, and as much again while it is rewritten.
const ENOUGH: u64 = 256 << 20;
/// With less, the next writes fail.
const TOO_LITTLE: u64 = 16 << 20;

/// The cluster's keys. A made-up key takes the place of an unusable file, so that the other checks can go on.
pub(super) fn keys(file: Option<&Path>) -> (Keyring, Option<Finding>) {
    let Some(path) = file else { return (Keyring::public(), None) };
    match keyfile::read(path) {
        Ok(keyring) => (keyring, Some(secret("key file", path, None::<String>))),
        Err(error) => {
            let made_up = Keyring::parse(&keyfile::generate().line()).expect("a key that was just made");
            (made_up, Some(secret("key file", path, Some(words::told(&error)))))
        }
    }
}

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let tokens =
        config.token_file.as_deref().map(|path| secret("token file", path, Tokens::open(path).err()));
    let tls = config.tls.clone().map(certificate);
    let data = match &config.data_dir {
        Some(folder) => data_dir(folder),
        None => Finding::ok(
            "data folder",
            "none: after a restart, gost's Renews and peers bring the records back",
        ),
    };
    let admin_tokens =
        config.admin_token_file.as_deref().map(|path| secret("admin tokens", path, Tokens::open(path).err()));
    tokens.into_iter().chain(admin_tokens).chain(tls).chain([data]).collect()
}

fn certificate(files: TlsFiles) -> Finding {
    let key = files.key.clone();
    secret("certificate", &key, files.open().err())
}

/// A file that only the agent may read: what is wrong with it.
fn secret(check: &'static str, path: &Path, unusable: Option<impl Display>) -> Finding {
    unusable.map_or_else(|| Finding::ok(check, path.display()), |why| Finding::fail(check, why))
}

fn data_dir(folder: &Path) -> Finding {
    let there = folder.is_dir();
    let writes = if there { try_write(folder) } else { may_write(folder) };
    let free = nearest(folder).and_then(|folder| statvfs(folder).ok());
    judge_folder(folder, there, &writes, free.map(|free| free.f_bavail.saturating_mul(free.f_frsize)))
}

fn judge_folder(folder: &Path, there: bool, writes: &io::Result<()>, free: Option<u64>) -> Finding {
    let path = folder.display();
    if let Err(error) = writes {
        let what = if there { "write in" } else { "make" };
        let text = format!(
            "cannot {what} {path} ({error}): let this user, or set --data-dir; without it the agent keeps nothing"
        );
        return Finding::fail("data folder", text);
    }
    let there = if there { "" } else { ", to be made" };
    let Some(free) = free else { return Finding::ok("data folder", format!("{path}{there}")) };
    let text = format!("{path}{there}, {} MiB free", free >> 20);
    match free {
        ..TOO_LITTLE => Finding::fail("data folder", format!("{text}: make room")),
        TOO_LITTLE..ENOUGH => {
            Finding::warn("data folder", format!("{text}: a full journal takes {} MiB", ENOUGH >> 20))
        }
        ENOUGH.. => Finding::ok("data folder", text),
    }
}

/// Writes a file and removes it, because permissions do not tell whether a disk is full or read-only.
pub(super) fn try_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".check-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).open(&path).and_then(|mut file| {
        io::Write::write_all(&mut file, b"gossd check")?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Whether a file or folder can be made at this path, with the folders above it if they are missing.
pub(super) fn may_write(path: &Path) -> io::Result<()> {
    let folder = nearest(path).filter(|found| found.is_dir()).ok_or(io::ErrorKind::NotADirectory)?;
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The path itself, or its nearest parent that exists.
fn nearest(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    path.ancestors()
        .map(|path| if path.as_os_str().is_empty() { here } else { path })
        .find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Severity;
    use super::*;

    #[test]
    fn a_key_that_others_can_read_fails_and_one_that_is_none_stands_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, &*keyfile::generate().line()).unwrap();
        for (mode, verdict) in [(0o600, Severity::Ok), (0o640, Severity::Ok), (0o644, Severity::Fail)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let (keyring, found) = keys(Some(&path));
            assert_eq!((keyring.is_public(), found.unwrap().verdict), (false, verdict), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let (keyring, found) = keys(Some(&path));
        let found = found.unwrap();
        assert_eq!((keyring.is_public(), found.verdict), (false, Severity::Fail));
        assert!(found.text.contains("gossd keygen"), "{found:?}");
        assert!(keys(None).0.is_public() && keys(None).1.is_none());
    }

    #[test]
    fn tokens_and_certificates_are_read() {
        let named = |name: &str| Config {
            token_file: Some(name.into()),
            tls: Some(TlsFiles { certificate: name.into(), key: name.into() }),
            ..Config::loopback("a".parse().unwrap())
        };
        let found = examine(&named("/nonexistent"));
        let failed: Vec<_> = found.iter().filter(|found| found.verdict == Severity::Fail).collect();
        assert_eq!(failed.iter().map(|found| found.check).collect::<Vec<_>>(), ["token file", "certificate"]);
        assert!(failed.iter().all(|found| found.text.contains("/nonexistent")), "{found:?}");
    }

    #[test]
    fn a_folder_needs_room_and_a_right() {
        let no = || Err(io::ErrorKind::PermissionDenied.into());
        let mib = |n: u64| Some(n << 20);
        for (there, writes, free, verdict, text) in [
            (true, Ok(()), mib(300), Severity::Ok, "/data, 300 MiB free"),
            (false, Ok(()), mib(256), Severity::Ok, "/data, to be made, 256 MiB free"),
            (true, Ok(()), None, Severity::Ok, "/data"),
            (true, Ok(()), mib(255), Severity::Warn, "/data, 255 MiB free: a full journal"),
            (true, Ok(()), mib(15), Severity::Fail, "/data, 15 MiB free: make room"),
            (true, no(), mib(300), Severity::Fail, "cannot write in /data (permission denied)"),
            (false, no(), None, Severity::Fail, "cannot make /data"),
        ] {
            let found = judge_folder(Path::new("/data"), there, &writes, free);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.text.starts_with(text), "{found:?}");
        }
    }

    #[test]
    fn examining_a_folder_leaves_nothing_in_it_and_makes_none() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new/journal");
        assert_ne!(data_dir(&new).verdict, Severity::Fail);
        assert_ne!(data_dir(folder.path()).verdict, Severity::Fail);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(data_dir(&file.join("sub")).verdict, Severity::Fail, "a file is no folder");
        assert!(nearest(Path::new("relative")).is_some());
    }
}
