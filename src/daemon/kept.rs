//! What a start continues with: the content of the journal, or the snapshot of a predecessor that has just stopped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::journal::identity::{self, IdentitySecret};
use crate::journal::peers::PeerAddresses;
use crate::journal::{self, Journal, OpenError};
use crate::sentence::sentence;
use gossd_core::agent::Restored;
use gossd_core::label::Label;
use gossd_core::record::Generation;

/// What a start continues with.
pub(super) struct StartState {
    pub(super) generation: Generation,
    pub(super) restored: Restored,
    /// The journal; `None` if none is configured; an error if it cannot be used.
    pub(super) journal: Result<Option<Journal>, String>,
    /// The ids in the journal, if the journal may differ from what was restored.
    pub(super) differs: Option<Vec<Label>>,
    pub(super) peers: PeerAddresses,
    pub(super) identity: IdentitySecret,
}

impl StartState {
    /// Opens the journal of a process that takes over, unless its predecessor uses the same file until it stops.
    /// Whether the journal can be used must be known before the predecessor stops.
    pub(super) async fn open_other(
        config: &Config,
        predecessors: Option<(u64, u64)>,
    ) -> anyhow::Result<Option<OpenedJournal>> {
        let Some(folder) = &config.data_dir else { return Ok(None) };
        let own = Journal::id(folder, &config.name);
        if own.is_some() && own == predecessors {
            return Ok(None);
        }
        open(config, generation(config.clock_ahead)?.max(config.generation)).await
    }

    /// Reads the journal and the snapshot of a predecessor that has just stopped; the snapshot counts more. The journal
    /// of another agent or of a later version is an error; a journal that cannot be used is none.
    pub(super) async fn open(
        config: &Config,
        snapshot: Option<Vec<u8>>,
        other: Option<OpenedJournal>,
    ) -> anyhow::Result<Self> {
        let at_least = generation(config.clock_ahead)?.max(config.generation);
        let former = match snapshot {
            Some(bytes) => {
                let read = spawn_blocking(move || journal::snapshot::read(&bytes)).await?;
                Some(read.context("cannot read the snapshot of the running agent")?)
            }
            None => None,
        };
        let at_least = former.as_ref().map_or(at_least, |former| at_least.max(former.generation));
        let was_other = other.is_some();
        let (kept, journal) = match other {
            Some(opened) => opened,
            None => open(config, at_least).await?.unwrap_or((None, Ok(None))),
        };
        let generation = kept.as_ref().map_or(at_least, |kept| kept.generation.max(at_least));
        // Before it hands over, a predecessor writes its journal if it can, and if its journal is the same file.
        let differs = match (&former, &kept) {
            (Some(former), Some(kept)) if was_other || !is_alike(former, kept) => Some(ids(kept)),
            _ => None,
        };
        let restored = former.or(kept).map_or_else(Restored::default, |kept| {
            let journal::RestoredJournal { leases, entrypoints, rules, draining, told, .. } = kept;
            Restored { leases, entrypoints, claims: rules, draining, told }
        });
        let peers = match &config.data_dir {
            Some(folder) => {
                let path = journal::peers::path(folder, &config.name);
                let cluster = config.cluster.clone();
                spawn_blocking(move || journal::peers::read(&path, &cluster)).await?
            }
            None => PeerAddresses::new(),
        };
        let identity = identity(config).await?;
        Ok(Self { generation, restored, journal, differs, peers, identity })
    }
}

fn is_alike(one: &journal::RestoredJournal, other: &journal::RestoredJournal) -> bool {
    let numbers =
        |of: &journal::RestoredJournal| (of.leases.held.len(), of.leases.lapsed.len(), of.rules.len());
    numbers(one) == numbers(other)
}

fn ids(kept: &journal::RestoredJournal) -> Vec<Label> {
    let leases = &kept.leases;
    let records = leases.held.iter().chain(&leases.lapsed).map(|holding| holding.record.id.clone());
    records.chain(leases.released.iter().map(|(id, _)| id.clone())).collect()
}

/// The agent's identity: without a folder, or with one that cannot be used, it is for this start only.
async fn identity(config: &Config) -> anyhow::Result<IdentitySecret> {
    let Some(folder) = &config.data_dir else { return Ok(identity::generate()) };
    let path = identity::path(folder, &config.name);
    match spawn_blocking(move || identity::read_or_make(&path)).await? {
        Ok(identity) => Ok(identity),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "no identity to keep: peers take the next start for another agent"
            );
            Ok(identity::generate())
        }
    }
}

/// The content of a journal, and the journal, or why it cannot be used.
type OpenedJournal = (Option<journal::RestoredJournal>, Result<Option<Journal>, String>);

/// `None` if no journal is configured.
async fn open(config: &Config, at_least: Generation) -> anyhow::Result<Option<OpenedJournal>> {
    let Some(folder) = config.data_dir.clone() else { return Ok(None) };
    let name = config.name.clone();
    let opened = spawn_blocking(move || {
        let opened = Journal::open(&folder, &name, at_least);
        let is_unusable = matches!(opened, Err(OpenError::Unusable { .. }));
        let read = if is_unusable { Journal::read(&folder, &name, at_least) } else { None };
        (opened, read, folder)
    });
    let (opened, read, folder) = opened.await?;
    match opened {
        Ok((journal, kept)) => {
            if let Some(path) = &kept.set_aside {
                tracing::error!(kept = %path.display(), "the journal was damaged; set it aside and started afresh");
            }
            Ok(Some((Some(kept), Ok(Some(journal)))))
        }
        Err(OpenError::Unusable { source: why, path }) => {
            let records = read.as_ref().map_or(0, |kept| kept.leases.held.len());
            tracing::error!(error = %why, journal = %path.display(), records, "continuing in memory, with what could be read");
            let folder = folder.display();
            let why = sentence!(
                "no journal in {folder} since the start: {why}; mend that, and start the agent again"
            );
            Ok(Some((read, Err(why.to_string()))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Milliseconds since 1970: higher at every start, as long as the clock does not go back.
#[expect(clippy::disallowed_methods, reason = "the one place: a generation has to rise from start to start")]
fn generation(ahead: Duration) -> anyhow::Result<Generation> {
    let now = (SystemTime::now() + ahead).duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Generation::try_from(now.as_millis())?)
}
