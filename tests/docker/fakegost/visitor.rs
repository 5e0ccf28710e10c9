//! Visitors of a tunnel's host name at several entrypoints, each on its own clock: one that hangs does not slow
//! down the others, nor the next request at its own entrypoint.

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

use crate::line::{Answer, read_line};
use crate::stdout::{say_json, unix_ms};
use crate::tunnel::halves;

/// A visitor's patience.
const DEADLINE: Duration = Duration::from_secs(15);
/// Requests at one entrypoint that are not answered yet; beyond that the next one waits.
const MAX_IN_FLIGHT: usize = 1_000;
/// How long an entrypoint's name keeps its address.
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
}

/// Visits for ever.
pub(crate) async fn run(args: VisitorArgs) -> anyhow::Result<()> {
    ensure!(args.every_ms > 0, "--every-ms must not be 0");
    let every = Duration::from_millis(args.every_ms);
    for name in args.entrypoints {
        let entrypoint = Arc::new(Entrypoint { name, address: Mutex::default() });
        tokio::spawn(visit(entrypoint, args.host.clone(), every));
    }
    std::future::pending().await
}

async fn visit(entrypoint: Arc<Entrypoint>, host: String, every: Duration) {
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let place = places.clone().acquire_owned().await.expect("never closed");
        let (entrypoint, host) = (entrypoint.clone(), host.clone());
        tokio::spawn(async move {
            entrypoint.request(&host).await;
            drop(place);
        });
    }
}

struct Entrypoint {
    name: String,
    /// Where it was when it was last looked up.
    address: Mutex<Option<(SocketAddr, Instant)>>,
}

impl Entrypoint {
    /// One request, and the line that tells of it.
    async fn request(&self, host: &str) {
        let (at_ms, start) = (unix_ms(), Instant::now());
        let ended = timeout(DEADLINE, self.ask(host)).await;
        let took_ms = start.elapsed().as_secs_f64() * 1_000.0;
        let took_ms = (took_ms * 1_000.0).round() / 1_000.0;
        let (ok, answer) = match ended {
            Ok(Ok(Answer::Served(text))) => (true, text),
            Ok(Ok(Answer::NoRule)) => (false, "404".into()),
            Ok(Ok(Answer::NotReached)) => (false, "503".into()),
            Ok(Err(error)) => (false, format!("{error:#}")),
            Err(_) => (false, "no answer in 15 s".into()),
        };
        say_json(&json!({"at_ms": at_ms, "to": self.name, "ok": ok, "took_ms": took_ms, "answer": answer}));
    }

    async fn ask(&self, host: &str) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(self.resolve().await?).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = halves(stream);
        writer.write_all(format!("GET {host}\n").as_bytes()).await.context("write")?;
        let line = read_line(&mut reader).await.context("read")?.context("closed without an answer")?;
        Answer::parse(&line).with_context(|| format!("no answer: {line:?}"))
    }

    /// A name server's moods are not what is measured: an address is kept for a second, and used on if its name
    /// is not found any more.
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
