//! Unix sockets in the file system: bound where a dead process left one, never where a live one listens unless that is
//! what the caller wants, and removed at the end. Knows nothing of what is said on them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Removes the socket's file when it is dropped, if it is still the same one: a successor may have put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode; none of a file that is not to be removed.
    id: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && id(&self.path) == self.id {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    /// The file that is there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.into(), id: id(path) }
    }

    /// Leaves the file where it is: somebody else listens there.
    pub fn leave(mut self) {
        self.id = None;
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Binds a socket whose file has these permissions. One that a dead process left behind is replaced; a live
/// one, and a file that is no socket, stay.
pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    replace(path, mode)
}

/// The same, in the place of a live one too, which gets no new connections from then on. There is a socket at the path
/// all the time.
pub(crate) fn replace(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "that file is no socket"));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    let named =
        fs::set_permissions(&draft, Permissions::from_mode(mode)).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = named {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok((listener, SocketFile::at(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/gossd.sock");
        let (listener, file) = bind(&path, 0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let (_listener, again) = bind(&path, 0o660).unwrap();
        drop(file);
        assert!(path.exists(), "a successor's file stays");
        drop(again);
        assert!(!path.exists());
        fs::write(&path, "kept").unwrap();
        assert_eq!(bind(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[tokio::test]
    async fn a_live_socket_is_replaced_if_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gossd.sock");
        let (former, former_file) = bind(&path, 0o600).unwrap();
        let (listener, _file) = replace(&path, 0o600).unwrap();
        drop((former, former_file));
        let (client, accepted) = tokio::join!(tokio::net::UnixStream::connect(&path), listener.accept());
        assert!(client.is_ok() && accepted.is_ok());
    }
}
