//! What a start goes on with: what the journal kept, or what a predecessor that has just stopped held.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::task::spawn_blocking;

use crate::agent::Restored;
use crate::config::Config;
use crate::domain::record::Generation;
use crate::journal::peers::Peers;
use crate::journal::{self, Journal, OpenError};

/// What a start has to go on with.
pub(super) struct Kept {
    pub(super) generation: Generation,
    pub(super) restored: Restored,
    /// The journal to go on with; none if none is wanted; or why there is none.
    pub(super) journal: Result<Option<Journal>, String>,
    /// Whether the journal may lack some of what was restored.
    pub(super) is_behind: bool,
    /// Peers that were known.
    pub(super) peers: Peers,
}

impl Kept {
    /// Reads the journal and, of a predecessor that has just stopped, its snapshot, which is what counts then. A journal of
    /// another agent, or of a later version, ends the start; one that cannot be used does not.
    pub(super) async fn open(config: &Config, snapshot: Option<Vec<u8>>) -> anyhow::Result<Self> {
        let at_least = generation(config.clock_ahead)?;
        let former = match snapshot {
            Some(bytes) => {
                let read = spawn_blocking(move || journal::snapshot::read(&bytes)).await?;
                Some(read.context("what the agent that ran held cannot be read")?)
            }
            None => None,
        };
        let at_least = former.as_ref().map_or(at_least, |former| at_least.max(former.generation));
        let (folder, name) = (config.data_dir.clone(), config.name.clone());
        let opened = match folder.clone() {
            Some(folder) => Some(spawn_blocking(move || Journal::open(&folder, &name, at_least)).await?),
            None => None,
        };
        let (kept, journal) = match opened {
            Some(Ok((journal, kept))) => {
                if let Some(path) = &kept.set_aside {
                    tracing::error!(kept = %path.display(), "the journal was damaged; set it aside and started afresh");
                }
                (Some(kept), Ok(Some(journal)))
            }
            Some(Err(error @ OpenError::Unusable { .. })) => {
                tracing::error!(%error, "going on in memory");
                (None, Err(format!("no journal in {}", folder.unwrap_or_default().display())))
            }
            Some(Err(error)) => return Err(error.into()),
            None => (None, Ok(None)),
        };
        let generation = kept.as_ref().map_or(at_least, |kept| kept.generation);
        // A predecessor writes its journal before it hands over, if it can.
        let is_behind = match (&former, &kept) {
            (Some(former), Some(kept)) => {
                former.leases.held.len() != kept.leases.held.len() || former.rules.len() != kept.rules.len()
            }
            _ => false,
        };
        let restored = former.or(kept).map_or_else(Restored::default, |kept| {
            let journal::Restored { leases, entrypoints, rules, draining, .. } = kept;
            Restored { leases, entrypoints, rules, draining }
        });
        let peers = match &config.data_dir {
            Some(folder) => {
                let path = journal::peers::path(folder, &config.name);
                spawn_blocking(move || journal::peers::read(&path)).await?
            }
            None => Peers::new(),
        };
        Ok(Self { generation, restored, journal, is_behind, peers })
    }
}

/// Milliseconds since 1970: higher at every start, as long as the clock does not go back.
#[expect(clippy::disallowed_methods, reason = "the one place: a generation has to rise from start to start")]
fn generation(ahead: Duration) -> anyhow::Result<Generation> {
    let now = (SystemTime::now() + ahead).duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Generation::try_from(now.as_millis())?)
}
