//! What keeps a journal's file from being used.

use std::io;
use std::path::Path;

use super::OpenError;
use crate::sentence::sentence;

/// What keeps a file from being used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what a journal wrote, and why.
    Damaged(String),
    /// Its format is a later one's.
    Newer,
    /// Somebody else has it.
    Locked,
    /// The system refuses; the file may be as good as ever.
    Io(io::Error),
}

impl Fault {
    pub(super) fn at_open(self, path: &Path) -> OpenError {
        let path = path.into();
        match self {
            Self::Locked => OpenError::Locked { path },
            Self::Newer => OpenError::Newer { path },
            fault => OpenError::Unusable { path, source: fault.into() },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damaged(why) => Self::new(io::ErrorKind::InvalidData, why),
            Fault::Newer => {
                Self::new(io::ErrorKind::InvalidData, &*sentence!("it was written by a newer gossd"))
            }
            Fault::Locked => {
                Self::new(io::ErrorKind::ResourceBusy, &*sentence!("another process has it open"))
            }
            Fault::Io(error) => error,
        }
    }
}
