//! The agent that a process is started for: on inherited sockets, in the place of another, or on its own.

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use anyhow::Context as _;

use super::client::{self, Client, NoReport};
use super::flags::{LogFormat, RunArgs};
use super::{supervisor, words};
use crate::config::Config;
use crate::daemon::{Daemon, Former};
use crate::listeners::{Inherited, Listeners, hold};
use crate::ops::takeover::PROTOCOL;
use crate::ops::takeover::predecessor::Predecessor;
use crate::plugin::http;
use crate::wall_clock;

/// The agent that this process is started for.
pub(super) async fn start(
    args: &RunArgs,
    mut config: Config,
    mut inherited: Inherited,
) -> anyhow::Result<Daemon> {
    let (take_over, scheme) = (args.take_over, if args.tls_cert.is_some() { "https" } else { "http" });
    let is_json = matches!(args.log_format, LogFormat::Json);
    inherited.configure(&mut config);
    config.validate()?;
    let mut predecessor = None;
    if take_over {
        let client = Client::Control(config.control.clone().context("--take-over needs --control")?);
        let who = [("name", config.name.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
        match client.upgrade(&client::path("/take-over", &who), PROTOCOL).await {
            Ok(stream) => {
                let (met, sockets) = Predecessor::meet(stream).await?;
                inherited.extend(sockets);
                predecessor = Some(met);
            }
            Err(NoReport::Absent(_, error))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                tracing::info!(control = %client, "no agent runs here to take over from; starting as usual");
            }
            Err(error) => return Err(error).context("the agent that runs does not hand over"),
        }
    }
    if predecessor.is_none() {
        if config.hold {
            inherited.extend(held(&config).await?);
        }
        inherited.make_way(&config);
    }
    let plugin_socket = config.plugin_socket.clone();
    let sealed = if config.keyring.is_public() { "no key, this host only" } else { "sealed" };
    let name = config.name.clone();
    let started = async {
        let mut listeners = Listeners::open(&config, inherited)?;
        // Before anything can go wrong that a restart may heal. A Unix socket that is kept is of use by its file only.
        if supervisor::keep(&listeners.handles).await
            && let Some(file) = listeners.plugin_file.take()
        {
            file.leave();
        }
        let former = predecessor.as_mut().map_or(Former::Ended, Former::Runs);
        Daemon::start_on(listeners, config, former).await
    };
    let daemon = match (started.await, predecessor) {
        (Ok(daemon), Some(predecessor)) => {
            predecessor.release().await.context("the agent that ran does not end")?;
            tracing::info!("took over from the agent that ran");
            daemon
        }
        (Ok(daemon), None) => daemon,
        (Err(error), Some(predecessor)) => {
            predecessor.give_up(&words::told(&error)).await;
            return Err(error.context("not taken over; the agent that ran goes on"));
        }
        (Err(error), None) => return Err(error),
    };
    announce(&daemon, scheme, plugin_socket.as_deref(), is_json)?;
    let listed =
        |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tracing::info!(
        agent = %name,
        version = env!("CARGO_PKG_VERSION"),
        plugin = listed(&daemon.plugins),
        gossip = %daemon.gossip,
        admin = daemon.admin.map_or_else(|| "none".to_owned(), |admin| admin.to_string()),
        advertised = %daemon.advertised,
        keys = sealed,
        records = daemon.counts().own_records,
        "ready"
    );
    Ok(daemon)
}

/// What `gossd hold` has of the agent that was here before.
async fn held(config: &Config) -> anyhow::Result<Inherited> {
    match hold::fetch(&config.name).await {
        Ok(held) => Ok(held),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(error).context(format!(
            "an agent named {} runs here already, on the sockets that `gossd hold` keeps: end it first, or replace it with \
             --take-over",
            config.name
        )),
        Err(error) => {
            tracing::debug!(%error, "no holder has sockets for this agent");
            Ok(Inherited::default())
        }
    }
}

/// Prints the daemon's addresses, in one piece and from a thread of its own: a reader that takes only the first lines must
/// not end the process, and one that reads nothing must not delay it.
fn announce(daemon: &Daemon, scheme: &str, socket: Option<&Path>, is_json: bool) -> anyhow::Result<()> {
    let plugins = daemon.plugins.iter();
    let plugins = plugins.map(|address| ("plugin", format!("{scheme}://{address}{}", http::PATH)));
    let admin = daemon.admin.map(|admin| ("admin", format!("http://{admin}")));
    let metrics = daemon.metrics.map(|metrics| ("metrics", format!("http://{metrics}/metrics")));
    let socket = socket.map(|path| ("plugin", format!("unix://{}", path.display())));
    let all =
        plugins.chain([("gossip", daemon.gossip.to_string())]).chain(admin).chain(metrics).chain(socket);
    let line = |(what, place): (&str, String)| {
        if is_json {
            // Standard output may well go where the log goes.
            let at = wall_clock::spell(wall_clock::now());
            serde_json::json!({ "timestamp": at, "level": "INFO", what: place }).to_string() + "\n"
        } else {
            format!("{what} {place}\n")
        }
    };
    let lines: String = all.map(line).collect();
    let print = move || {
        let mut stdout = io::stdout();
        let _nobody_reads_it = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
    };
    thread::Builder::new().name("announce".into()).spawn(print)?;
    Ok(())
}
