//! A gost that renews its connector: one call after the other, on one kept connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

const CONNECTOR: &str = r#"{"id":"c23d4f42-c892-42b3-8b74-6d3b6d20b2ea","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"tcp","address":""}"#;
/// An answer that takes longer counts as missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Durations of calls in milliseconds, in rising order.
pub(crate) struct CallTimes(Vec<f64>);

impl CallTimes {
    /// The duration that this share of the calls did not exceed.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "figures"
    )]
    pub(crate) fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
    }
}

/// The connection of the gost.
pub(crate) struct Renewer {
    stream: BufReader<TcpStream>,
}

impl Renewer {
    pub(crate) fn start(plugin: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(plugin)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut renewer = Self { stream: BufReader::new(stream) };
        renewer.call("POST", &CONNECTOR.replace(r#""address":"""#, r#""address":"10.0.0.1:8420""#))?;
        Ok(renewer)
    }

    #[expect(clippy::disallowed_methods, reason = "a thread of its own; timers of the runtime are coarser")]
    /// Renews the connector at this rate for this long. Fails if any call fails.
    pub(crate) fn make(&mut self, a_second: u64, time: Duration) -> anyhow::Result<CallTimes> {
        let step = Duration::from_secs(1) / u32::try_from(a_second)?;
        let (begun, mut due, mut times) = (Instant::now(), Instant::now(), Vec::new());
        while begun.elapsed() < time {
            let late = Instant::now() > due;
            if !late {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            // A late timer is not the agent's fault; an earlier call that took too long is.
            let from = if late { due } else { Instant::now() };
            self.call("PUT", CONNECTOR)?;
            times.push(from.elapsed().as_secs_f64() * 1e3);
            due += step;
        }
        times.sort_by(f64::total_cmp);
        Ok(CallTimes(times))
    }

    fn call(&mut self, method: &str, body: &str) -> anyhow::Result<()> {
        let len = body.len();
        let request = format!(
            "{method} /sd HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len}\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut len) = (String::new(), 0);
        self.stream.read_line(&mut status)?;
        ensure!(status.starts_with("HTTP/1.1 200"), "a {method} was answered {status:?}");
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                len = value.parse().context("a length")?;
            }
        }
        self.stream.read_exact(&mut vec![0; len])?;
        Ok(())
    }
}
