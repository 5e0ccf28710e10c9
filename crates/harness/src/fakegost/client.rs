//! A tunnel client with a web target built in. It binds at a gost and answers the requests that gost forwards. When it
//! loses the gost, it binds again, at the pace of gost's own client.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::connector::halves;
use crate::line::{parse_bound, read_line};
use crate::stdout::{say_json, unix_ms};

/// How long gost's client waits before it binds again; after each failed bind, twice as long.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// How long a bind may take: a frozen gost accepts the connection and sends nothing.
const BIND: Duration = Duration::from_secs(5);
/// A gost pings its clients every 10 s; after this long without a ping, it counts as lost.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The gost's tunnel port
    #[arg(long)]
    server: String,
    /// The tunnel's id
    #[arg(long)]
    tunnel: Uuid,
    /// The host name that it asks for
    #[arg(long, default_value = "")]
    host: String,
    /// What its target answers
    #[arg(long)]
    say: String,
    /// Its target speaks UDP: a web visitor who is sent there gets nothing
    #[arg(long)]
    udp: bool,
}

pub(crate) async fn run(args: ClientArgs) -> anyhow::Result<()> {
    ensure!(!args.say.contains('\n') && args.say.len() < 1024, "--say is one line of less than 1 KiB");
    let mut retry = Duration::ZERO;
    loop {
        let mut was_bound = false;
        if let Err(error) = serve(&args, &mut was_bound).await {
            eprintln!("{}: {error:#}", args.server);
        }
        retry = if was_bound { RETRY } else { (retry * 2).clamp(RETRY, MAX_RETRY) };
        sleep(retry).await;
    }
}

async fn serve(args: &ClientArgs, was_bound: &mut bool) -> anyhow::Result<()> {
    let connected = timeout(BIND, TcpStream::connect(&args.server)).await.context("no connection in time")?;
    let stream = connected?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = halves(stream);
    let network = if args.udp { "udp" } else { "tcp" };
    writer.write_all(format!("BIND {} {network} {}\n", args.tunnel, args.host).as_bytes()).await?;
    let bound = timeout(BIND, read_line(&mut reader)).await.context("no answer to a bind")??;
    let bound = bound.context("closed before it was bound")?;
    let (connector, given) = parse_bound(&bound).with_context(|| format!("not bound: {bound:?}"))?;
    *was_bound = true;
    say_json(&json!({"at_ms": unix_ms(), "bound": args.server, "host": given, "connector": connector}));
    loop {
        let line = timeout(SILENCE, read_line(&mut reader)).await.context("nothing heard for 30 s")??;
        let Some(line) = line else { bail!("closed") };
        let answer = match line.strip_prefix("REQ ") {
            Some(number) if args.udp => format!("END {number}\n"),
            Some(number) => format!("RES {number} {}\n", args.say),
            None => "PONG\n".into(),
        };
        writer.write_all(answer.as_bytes()).await?;
    }
}
