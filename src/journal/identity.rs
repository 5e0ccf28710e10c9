//! The file of an agent's identity: the private key by which peers know it again, whatever its address is.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::{beside, private_file};
use crate::secret_file;
use gossd_core::record::AgentName;

/// A private key.
pub(crate) type IdentitySecret = Zeroizing<[u8; 32]>;

/// The path of the identity of the agent with this name.
pub(crate) fn path(dir: &Path, name: &AgentName) -> PathBuf {
    dir.join(format!("{name}.identity"))
}

/// An identity that nobody had before.
pub(crate) fn generate() -> IdentitySecret {
    Zeroizing::new(rand::random())
}

/// Reads the file, or makes it with a new identity. A file that holds no identity is set aside. An error if others may read
/// the file, or it cannot be read or written.
pub(crate) fn read_or_make(path: &Path) -> anyhow::Result<IdentitySecret> {
    match secret_file::read(path) {
        Ok(bytes) => match parse(&bytes) {
            Some(identity) => return Ok(identity),
            None => set_aside(path)?,
        },
        Err(secret_file::SecretFileError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(secret_file::SecretFileError::Guessable(_)) => set_aside(path)?,
        Err(error) => return Err(error.into()),
    }
    let identity = generate();
    let line = Zeroizing::new(format!("{}\n", Zeroizing::new(BASE64.encode(*identity)).as_str()));
    let draft = beside(path, "new");
    let mut file = private_file(&draft, true)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(identity)
}

fn set_aside(path: &Path) -> io::Result<()> {
    let aside = beside(path, "damaged");
    fs::rename(path, &aside)?;
    tracing::error!(
        kept = %aside.display(),
        "the identity was damaged; set it aside and made another one: peers that know this agent by the former one accept it \
         when it has been silent"
    );
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<IdentitySecret> {
    let bytes = Zeroizing::new(BASE64.decode(bytes.trim_ascii()).ok()?);
    let identity: IdentitySecret = Zeroizing::new(bytes.as_slice().try_into().ok()?);
    identity.iter().any(|byte| *byte != 0).then_some(identity)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::journal::tests::WHY;

    /// Of the first version. Never changed.
    const FROZEN: &str = include_str!("../../tests/frozen/0.1/identity");

    #[test]
    fn the_first_versions_identity_is_read_and_spelled_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &"a".parse().unwrap());
        assert!(path.ends_with("a.identity"), "{WHY}");
        io::Write::write_all(&mut private_file(&path, true).unwrap(), FROZEN.as_bytes()).unwrap();
        let expected: Vec<u8> = (1..=32).collect();
        assert_eq!(read_or_make(&path).unwrap().as_slice(), expected, "{WHY}");
        fs::remove_file(&path).unwrap();
        let made = read_or_make(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", BASE64.encode(*made)), "{WHY}");
    }

    #[test]
    fn an_identity_is_made_once_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &"a".parse().unwrap());
        let made = read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(*read_or_make(&path).unwrap(), *made);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_or_make(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_damaged_identity_is_set_aside_and_another_one_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &"a".parse().unwrap());
        for damaged in ["", "not base64", "AAAA", &BASE64.encode([0; 32])] {
            let draft = private_file(&path, true).unwrap();
            fs::write(&path, damaged).unwrap();
            drop(draft);
            let made = read_or_make(&path).unwrap();
            assert_eq!(fs::read_to_string(beside(&path, "damaged")).unwrap(), damaged);
            assert_eq!(*read_or_make(&path).unwrap(), *made);
        }
    }
}
