//! The task that keeps the file of host names, if there is one.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use crate::ingress_file::{FileHealth, IngressFile};
use crate::plugin::Ingress;

/// Keeps the file. For `hold`, lines of an earlier start stay in it. Without a file, its metrics still exist, as zeros.
pub(super) fn keep(
    path: Option<PathBuf>,
    ingress: &Ingress,
    hold: Duration,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> (Option<AbortHandle>, FileHealth) {
    let Some(path) = path else { return (None, FileHealth::default()) };
    let file = IngressFile::new(path, ingress.clone(), hold);
    let health = file.health().clone();
    (Some(tasks.spawn(file.keep())), health)
}
