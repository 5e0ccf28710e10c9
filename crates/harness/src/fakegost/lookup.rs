//! One Get, as gost would make it: what an agent answers for a tunnel.

use clap::Args;

use crate::plugin::{PluginArgs, Plugins};
use crate::stdout::say;

#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    #[command(flatten)]
    plugin: PluginArgs,
    /// The tunnel's id
    #[arg(long)]
    tunnel: String,
}

/// Prints the addresses, one per line, in the agent's order.
pub(crate) async fn run(args: LookupArgs) -> anyhow::Result<()> {
    let plugin = Plugins::new(&args.plugin)?;
    plugin.get(&args.tunnel).await.iter().for_each(|record| say(&record.address));
    Ok(())
}
