//! Many tunnels at one gost, for effects that need many: frames too large for UDP, a journal that grows. Nobody visits
//! these tunnels.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::plugin::{PluginArgs, Plugins, ServiceFields};
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

/// An entrypoint of its own. At the entrypoint of the other gost, this one would count as its successor.
const ENTRYPOINT: &str = ":8430";

/// Registers the tunnels, prints `ready`, and renews for ever; or only looks the tunnels up.
pub(crate) async fn run(args: CrowdArgs) -> anyhow::Result<()> {
    let plugin = Plugins::new(&args.plugin)?;
    if args.look {
        let mut unknown = 0;
        for number in 0..args.count {
            unknown += u16::from(plugin.get(&tunnel(number)).await.is_empty());
        }
        ensure!(unknown == 0, "{unknown} of {} tunnels are not known", args.count);
        return Ok(());
    }
    // A restarted agent dials the entrypoint to see whether this gost is alive.
    let entrypoint = TcpListener::bind(format!("0.0.0.0{ENTRYPOINT}")).await?;
    tokio::spawn(async move { while entrypoint.accept().await.is_ok() {} });
    let node = Uuid::new_v4().to_string();
    let connectors: Vec<ServiceFields> = (0..args.count).map(|number| connector(number, &node)).collect();
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
                .renew(&ServiceFields { network: String::new(), address: String::new(), ..connector.clone() })
                .await;
        }
    }
}

/// The id of a tunnel, the same in every run.
fn tunnel(number: u16) -> String {
    Uuid::from_u128(0xc0_0000 + u128::from(number)).to_string()
}

fn connector(number: u16, node: &str) -> ServiceFields {
    let [id, node, network, address] =
        [Uuid::new_v4().to_string(), node.into(), "tcp".into(), ENTRYPOINT.into()];
    ServiceFields { id, name: tunnel(number), node, network, address }
}
