//! Load from another process: h2load, which supports both of gost's protocols and logs every request.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// A call that is repeated.
#[derive(Clone, Debug)]
pub(crate) struct LoadCall {
    /// `GET`, `PUT` or, for gRPC, `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the call uses HTTP/2 with gRPC's headers.
    pub grpc: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadPace {
    /// Connections, each with one call at a time.
    pub connections: u32,
    /// The duration, after one second that does not count.
    pub seconds: u32,
    /// Calls a second over all connections; `None` for as many as possible.
    pub rate: Option<f64>,
}

#[derive(Clone, Debug)]
pub(crate) struct LoadResult {
    /// Calls a second.
    pub rate: f64,
    /// The duration of each call in milliseconds, in rising order.
    pub times: Vec<f64>,
}

impl LoadResult {
    /// The duration that this share of all calls did not exceed.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        self.times.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
    }
}

/// Makes a call at `authority` for the whole duration. Fails if any answer was an error.
pub(crate) fn run(authority: &str, call: &LoadCall, pace: LoadPace) -> anyhow::Result<LoadResult> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut command = h2load(call, folder.path())?;
    command.args(["--warm-up-time", "1", "--duration", &pace.seconds.to_string()]);
    command.args(["--clients", &pace.connections.to_string()]);
    if let Some(rate) = pace.rate {
        command.args(["--rps", &format!("{:.0}", (rate / f64::from(pace.connections)).max(1.0))]);
    }
    command.arg("--log-file").arg(&log);
    let said = said(&mut command, authority, call)?;
    let rate = said.lines().find_map(|line| {
        let mut words = line.strip_prefix("finished in ")?.split(", ");
        words.nth(1)?.strip_suffix(" req/s")?.parse().ok()
    });
    let times = read(&std::fs::read_to_string(&log)?)?;
    Ok(LoadResult { rate: rate.with_context(|| said.clone())?, times })
}

/// Makes so many calls on one connection, one after the other. Fails if any answer was an error.
pub(crate) fn repeat(authority: &str, call: &LoadCall, count: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = h2load(call, folder.path())?;
    command.args(["--clients", "1", "--requests", &count.to_string()]);
    let said = said(&mut command, authority, call)?;
    ensure!(said.contains(&format!("status codes: {count} 2xx")), "not every call was answered: {said}");
    Ok(())
}

fn h2load(call: &LoadCall, folder: &Path) -> anyhow::Result<Command> {
    let body = folder.join("body");
    let mut command = Command::new("h2load");
    if !call.grpc {
        command.arg("--h1");
    }
    command.args(["--threads", "1", "--max-concurrent-streams", "1"]);
    if !call.body.is_empty() {
        std::fs::write(&body, &call.body)?;
        command.arg("--data").arg(&body);
    }
    command.args(["--header", &format!(":method: {}", call.method)]);
    let kind = if call.grpc { "application/grpc" } else { "application/json" };
    command.args(["--header", &format!("content-type: {kind}"), "--header", "te: trailers"]);
    Ok(command)
}

fn said(command: &mut Command, authority: &str, call: &LoadCall) -> anyhow::Result<String> {
    command.arg(format!("http://{authority}{}", call.path));
    let output = command.output().context("h2load (Debian: apt-get install nghttp2-client)")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "h2load: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// Parses lines of start in microseconds, status, and duration in microseconds.
fn read(log: &str) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for line in log.lines() {
        let mut words = line.split('\t');
        let (Some(_), Some(status), Some(took)) = (words.next(), words.next(), words.next()) else {
            bail!("h2load noted {line:?}")
        };
        ensure!(status == "200", "an answer was {status}");
        times.push(took.parse::<f64>()? / 1e3);
    }
    ensure!(!times.is_empty(), "nothing was answered");
    times.sort_by(f64::total_cmp);
    Ok(times)
}
