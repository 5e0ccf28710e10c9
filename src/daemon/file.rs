//! The file of host names: kept, if one is wanted.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use crate::ingress_file::{Health, IngressFile};
use crate::plugin::Ingress;

/// Keeps the file, and what an earlier start wrote in it for that long. Without a file, there are figures as well, of
/// nothing.
pub(super) fn keep(
    path: Option<PathBuf>,
    ingress: &Ingress,
    hold: Duration,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> (Option<AbortHandle>, Health) {
    let Some(path) = path else { return (None, Health::default()) };
    let file = IngressFile::new(path, ingress.clone(), hold);
    let health = file.health().clone();
    (Some(tasks.spawn(file.keep())), health)
}
