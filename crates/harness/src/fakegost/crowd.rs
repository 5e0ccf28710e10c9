//! Many tunnels at one gost, for what only shows with many: frames that need TCP, a journal that grows. Nobody visits
//! them.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::plugin::{Plugin, PluginArgs, Service};
use crate::stdout::say;

#[derive(Debug, Args)]
pub(crate) struct CrowdArgs {
    #[command(flatten)]
    plugin: PluginArgs,
    /// How many tunnels, one connector each
    #[arg(long)]
    count: u16,
    /// Seconds between the Renews of a connector
    #[arg(long, default_value_t = 2.0)]
    ttl: f64,
    /// Only look whether the agent knows them all
    #[arg(long)]
    look: bool,
}

/// A gost of its own beside the other one: at the same entrypoint it would be taken for its successor.
const ENTRYPOINT: &str = ":8430";

/// Registers them, says `ready`, and renews them for ever; or looks.
pub(crate) async fn run(args: CrowdArgs) -> anyhow::Result<()> {
    let plugin = Plugin::new(&args.plugin)?;
    if args.look {
        let mut unknown = 0;
        for number in 0..args.count {
            unknown += u16::from(plugin.get(&tunnel(number)).await.is_empty());
        }
        ensure!(unknown == 0, "{unknown} of {} tunnels are not known", args.count);
        return Ok(());
    }
    // An agent that restarts looks whether it is alive.
    let entrypoint = TcpListener::bind(format!("0.0.0.0{ENTRYPOINT}")).await?;
    tokio::spawn(async move { while entrypoint.accept().await.is_ok() {} });
    let node = Uuid::new_v4().to_string();
    let connectors: Vec<Service> = (0..args.count).map(|number| connector(number, &node)).collect();
    for connector in &connectors {
        plugin.register(connector).await;
    }
    say("ready");
    let mut ticks = interval(Duration::try_from_secs_f64(args.ttl)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        for connector in &connectors {
            plugin
                .renew(&Service { network: String::new(), address: String::new(), ..connector.clone() })
                .await;
        }
    }
}

/// The same tunnels wherever they are registered and looked for.
fn tunnel(number: u16) -> String {
    Uuid::from_u128(0xc0_0000 + u128::from(number)).to_string()
}

fn connector(number: u16, node: &str) -> Service {
    let [id, node, network, address] =
        [Uuid::new_v4().to_string(), node.into(), "tcp".into(), ENTRYPOINT.into()];
    Service { id, name: tunnel(number), node, network, address }
}
