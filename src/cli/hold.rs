//! `gossd hold`: the container beside an agent's that owns the network, and keeps the agent's sockets.

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::flags::LogFormat;
use super::log::Log;
use super::paths;
use crate::listeners::hold::Holder;
use gossd_core::record::AgentName;

#[derive(Clone, Debug, Args)]
pub(super) struct HoldArgs {
    /// The agent's name [default: the host name]
    #[arg(long, env = "GOSSD_NAME")]
    name: Option<AgentName>,
}

/// Keeps sockets until SIGTERM or SIGINT.
pub(super) fn hold(args: HoldArgs) -> anyhow::Result<()> {
    let name = paths::name(args.name)?;
    // Its log must neither end it nor make it wait when nobody reads.
    let _log = Log::start(Targets::new().with_default(LevelFilter::INFO), LogFormat::Text, name.as_str())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The first process of a container has no default for them.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let holder =
            Holder::bind(&name).context("cannot hold: is another holder of this name running here?")?;
        tracing::info!(agent = %name, "holding");
        tokio::select! {
            ended = holder.serve() => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}
