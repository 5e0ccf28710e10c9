//! The log: text or JSON on standard error. When that is systemd's journal, which keeps the time itself, each line begins
//! with its priority instead, so that `journalctl --priority warning` finds what it should.

use std::env;
use std::io::{self, IsTerminal as _, Stderr, Write};

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::flags::{LogFormat, RunArgs};

/// Changes what is logged while the agent runs.
pub(super) type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// What `--log-level` lets through.
pub(super) fn filter(args: &RunArgs) -> anyhow::Result<EnvFilter> {
    // chitchat's own lines speak of its internals; what an operator needs, we say.
    Ok(EnvFilter::try_new(format!("chitchat=error,{}", args.log_level.0))?)
}

/// Logs from now on.
pub(super) fn start(args: &RunArgs) -> anyhow::Result<LevelHandle> {
    let (filter, handle) = reload::Layer::new(filter(args)?);
    let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = fmt::layer().with_ansi(colours).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match args.log_format {
        LogFormat::Json => registry.with(log.json().with_writer(io::stderr)).init(),
        LogFormat::Text if is_journal() => {
            registry.with(log.without_time().with_level(false).with_writer(Journal)).init();
        }
        LogFormat::Text => registry.with(log.with_writer(io::stderr)).init(),
    }
    Ok(handle)
}

/// Whether standard error is what systemd said that it connected to its journal; a child may have another.
fn is_journal() -> bool {
    let Ok(told) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stream| told == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// Standard error, a priority before each line: sd-daemon(3).
struct Journal;

/// One event's line.
struct Line {
    priority: u8,
    stderr: Stderr,
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { priority: 6, stderr: io::stderr() }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        let priority = match *event.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        Line { priority, ..self.make_writer() }
    }
}

impl Write for Line {
    /// Takes a whole event, as it is given.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = [format!("<{}>", self.priority).as_bytes(), event].concat();
        self.stderr.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}
