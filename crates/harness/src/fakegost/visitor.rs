//! Web visitors of a host name at several entrypoints, or members, who name the tunnel. Each entrypoint has its own
//! clock: a request that hangs delays neither the other entrypoints nor the next request at its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::connector::halves;
use crate::http_wire::{HttpMessage, Unsized};
use crate::line::{RelayRequest, read_line};
use crate::stdout::{say_json, unix_ms};

/// How long a visitor waits.
const DEADLINE: Duration = Duration::from_secs(15);
/// Most requests at one entrypoint without an answer; after that the next one waits.
const MAX_IN_FLIGHT: usize = 1_000;
/// How long the address of an entrypoint's name is used before it is resolved again.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct VisitorArgs {
    /// The gosts' entrypoints
    #[arg(long, required = true, value_delimiter = ',')]
    entrypoints: Vec<String>,
    /// The host name that is asked for
    #[arg(long)]
    host: String,
    /// Milliseconds between the starts of two requests at one entrypoint
    #[arg(long, default_value_t = 20)]
    every_ms: u64,
    /// Visit as a member of this tunnel, at gosts' tunnel ports
    #[arg(long)]
    tunnel: Option<String>,
}

pub(crate) async fn run(args: VisitorArgs) -> anyhow::Result<()> {
    ensure!(args.every_ms > 0, "--every-ms must not be 0");
    let every = Duration::from_millis(args.every_ms);
    for name in args.entrypoints {
        let (host, tunnel) = (args.host.clone(), args.tunnel.clone());
        let entrypoint = VisitedEntrypoint { name, host, tunnel, address: Mutex::default() };
        tokio::spawn(visit(Arc::new(entrypoint), every));
    }
    std::future::pending().await
}

async fn visit(entrypoint: Arc<VisitedEntrypoint>, every: Duration) {
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let place = places.clone().acquire_owned().await.expect("never closed");
        let entrypoint = entrypoint.clone();
        tokio::spawn(async move {
            entrypoint.request().await;
            drop(place);
        });
    }
}

struct VisitedEntrypoint {
    name: String,
    host: String,
    tunnel: Option<String>,
    /// The last resolved address, and when that was.
    address: Mutex<Option<(SocketAddr, Instant)>>,
}

impl VisitedEntrypoint {
    /// One request, and the line that reports it.
    async fn request(&self) {
        let (at_ms, start) = (unix_ms(), Instant::now());
        let ended = timeout(DEADLINE, self.ask()).await;
        let took_ms = start.elapsed().as_secs_f64() * 1_000.0;
        let took_ms = (took_ms * 1_000.0).round() / 1_000.0;
        let (ok, answer) = match ended {
            Ok(Ok(text)) => (true, text),
            Ok(Err(error)) => (false, format!("{error:#}")),
            Err(_) => (false, "no answer in 15 s".into()),
        };
        say_json(&json!({"at_ms": at_ms, "to": self.name, "ok": ok, "took_ms": took_ms, "answer": answer}));
    }

    async fn ask(&self) -> anyhow::Result<String> {
        let stream = TcpStream::connect(self.resolve().await?).await.context("connect")?;
        stream.set_nodelay(true)?;
        match &self.tunnel {
            None => ask_as_visitor(stream, &self.host).await,
            Some(tunnel) => ask_as_member(stream, tunnel, &self.host).await,
        }
    }

    /// Failures of the name server are not to be measured: an address is used for a second, and longer if the name
    /// cannot be resolved again.
    async fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let known = *self.address.lock().expect("no panic holds it");
        if let Some((address, at)) = known
            && at.elapsed() < FRESH
        {
            return Ok(address);
        }
        let found = lookup_host(&self.name).await.ok().and_then(|mut all| all.next());
        let address = found.or(known.map(|(address, _)| address)).context("its name is not found")?;
        *self.address.lock().expect("no panic holds it") = Some((address, Instant::now()));
        Ok(address)
    }
}

/// A web request. Returns the body if the status is 200.
async fn ask_as_visitor(mut stream: TcpStream, host: &str) -> anyhow::Result<String> {
    let request =
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: visitor\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("write")?;
    let answer = HttpMessage::read(&mut stream, &mut Vec::new(), Unsized::ToTheEnd).await?;
    let answer = answer.context("closed without an answer")?;
    let status = answer.head.status()?;
    ensure!(status == 200, "{status}");
    Ok(String::from_utf8_lossy(&answer.body).trim_end().to_owned())
}

async fn ask_as_member(stream: TcpStream, tunnel: &str, host: &str) -> anyhow::Result<String> {
    let (mut reader, mut writer) = halves(stream);
    let relay = RelayRequest { tunnel: tunnel.into(), host: host.into() };
    writer.write_all(relay.line().as_bytes()).await.context("write")?;
    let line = read_line(&mut reader).await.context("read")?.context("closed without an answer")?;
    line.strip_prefix("OK ").map(str::to_owned).with_context(|| line.clone())
}
