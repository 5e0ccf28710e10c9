//! Unix sockets in the file system. Binding replaces the file of a dead process, and that of a live one only on
//! request; the end removes it. Knows no protocol.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The permission bits of a file's group.
const GROUP: u32 = 0o070;

/// Removes the socket's file when dropped, unless a successor has put another file there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode; `None` if the file is not to be removed.
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
    /// The file that exists at this path.
    pub fn at(path: &Path) -> Self {
        Self { path: path.into(), id: id(path) }
    }

    /// Leaves the file in place: another process listens there.
    pub fn leave(mut self) {
        self.id = None;
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Binds a socket whose file has these permissions. The file of a dead process is replaced. The socket of a live
/// process, and a file that is no socket, stay: an error.
pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    replace(path, mode)
}

/// Binds like [`bind`], and also replaces the socket of a live process, which gets no new connections from then on. At
/// every moment there is a socket at the path.
pub(crate) fn replace(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file there is no socket"));
    }
    if let Some(folder) = path.parent() {
        make_folder(folder, mode)?;
    }
    let draft = draft(path);
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

/// Where a socket is bound before its file gets its name.
fn draft(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Whether a socket that says that it is bound here is the one that [`bind`] or [`replace`] put at a path, or that another
/// program bound there: the kernel goes on to say the name that it was bound by.
pub(crate) fn is_at(bound: &Path, path: &Path) -> bool {
    bound == path || bound == draft(path)
}

/// Makes the folders of a socket that are missing. Whoever may open the socket may enter them, and nobody else.
fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    let folder_mode = if mode & GROUP == 0 { 0o700 } else { 0o750 };
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => fs::set_permissions(folder, Permissions::from_mode(folder_mode))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    async fn folders_that_are_made_for_a_socket_are_for_those_who_may_open_it() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        for (name, mode, folders) in [("own", 0o600, 0o700), ("group", 0o660, 0o750)] {
            let folder = root.path().join(name);
            let (_listener, _file) = bind(&folder.join("below/gossd.sock"), mode).unwrap();
            for made in [&folder, &folder.join("below")] {
                assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, folders, "{made:?}");
            }
        }
        assert_eq!(
            fs::metadata(&root).unwrap().permissions().mode() & 0o777,
            0o755,
            "others stay as they are"
        );
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
