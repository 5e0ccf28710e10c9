//! The log: text or JSON on standard error, through a [`LineQueue`], so that nothing in the agent waits for whoever reads
//! it. When that is systemd's journal, which keeps the time itself, each line begins with its priority instead, so
//! that `journalctl --priority warning` finds what it should.

mod flat;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use self::flat::Flat;
use self::queue::LineQueue;
use super::blame::origins;
use super::flags::{LogFormat, RunArgs};
use super::words::{plain, told, visible};
use crate::own_log::{OwnLog, RecentLines};

/// How long the end of the process waits for standard error to take what is left.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The same for a thread that panics: the process may end before anything else is written.
const PANIC: Duration = Duration::from_millis(100);
/// The priority of errors: sd-daemon(3).
const ERROR: u8 = 3;

/// The log of a running agent. Dropping it writes what is left, if that does not take long.
pub(super) struct Log {
    level: reload::Handle<Targets, Registry>,
    sink: Sink,
    recent: RecentLines,
}

/// Where lines go.
#[derive(Clone)]
struct Sink {
    queue: Arc<LineQueue>,
    /// Whether each begins with its priority.
    with_priority: bool,
    /// How lines are made that are no events, if they are JSON.
    flat: Option<Flat>,
}

/// One event's line.
struct LogLine<'a> {
    sink: &'a Sink,
    priority: u8,
}

/// An error before there is a log, or an agent, as a line of a log that is JSON.
pub(super) fn error_line(text: &str) -> String {
    Flat { agent: String::new() }.line("ERROR", text)
}

/// What `--log-level` lets through.
pub(super) fn filter(args: &RunArgs) -> anyhow::Result<Targets> {
    Ok(args.log_level.0.parse()?)
}

impl Log {
    /// Logs from now on, panics as well.
    pub(super) fn start(filter: Targets, format: LogFormat, agent: &str) -> anyhow::Result<Self> {
        // A handle of its own: whoever else writes to standard error must not wait for the writer's.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let sink = Sink {
            queue: LineQueue::to(stderr, tell_dropped)?,
            with_priority: matches!(format, LogFormat::Text) && is_journal(),
            flat: matches!(format, LogFormat::Json).then(|| Flat { agent: agent.into() }),
        };
        let (filter, level) = reload::Layer::new(filter);
        let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let log = fmt::layer().with_ansi(colours).with_target(false).log_internal_errors(false);
        let log = log.with_writer(sink.clone());
        let recent = RecentLines::default();
        let kept = recent.clone();
        // As JSON, whatever the format: with the time, and without colours.
        let keep = fmt::layer().event_format(Flat { agent: agent.into() }).log_internal_errors(false);
        let keep = keep.with_ansi(false).with_writer(move || KeptLine(kept.clone()));
        let registry = tracing_subscriber::registry().with(filter).with(keep);
        match &sink.flat {
            Some(flat) => registry.with(log.event_format(flat.clone())).init(),
            None if sink.with_priority => registry.with(log.without_time().with_level(false)).init(),
            None => registry.with(log).init(),
        }
        let panics = sink.clone();
        panic::set_hook(Box::new(move |panic| panics.say_panic(panic)));
        Ok(Self { level, sink, recent })
    }

    /// Lets other lines through from now on.
    pub(super) fn adjust(&self, filter: Targets) -> anyhow::Result<()> {
        Ok(self.level.reload(filter)?)
    }

    /// Says why the process ends, whatever the log lets through.
    pub(super) fn say_last(&self, error: &anyhow::Error) {
        self.sink.say(&format!("gossd: {}{}", told(error), origins(error)));
    }

    /// What the agent knows of it.
    pub(super) fn own(&self) -> OwnLog {
        OwnLog { dropped: self.sink.queue.dropped(), recent: self.recent.clone() }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.sink.queue.flush(LAST_WORDS);
    }
}

fn tell_dropped(lines: u64) {
    if lines == 1 {
        tracing::warn!("1 log line was dropped: standard error did not take it");
    } else {
        tracing::warn!("{lines} log lines were dropped: standard error did not take them");
    }
}

/// Whether standard error is what systemd said that it connected to its journal; a child may have another.
fn is_journal() -> bool {
    let Ok(told) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stream| told == format!("{}:{}", stream.st_dev, stream.st_ino))
}

impl Sink {
    fn push(&self, priority: u8, line: &[&[u8]]) {
        let prefix = if self.with_priority { format!("<{priority}>") } else { String::new() };
        self.queue.push(&[&[prefix.as_bytes()], line].concat());
    }

    /// Says an error that is no event, of several lines perhaps.
    fn say(&self, text: &str) {
        if let Some(flat) = &self.flat {
            return self.push(ERROR, &[flat.line("ERROR", text).as_bytes(), b"\n"]);
        }
        for line in text.lines() {
            self.push(ERROR, &[plain(line).as_bytes(), b"\n"]);
        }
    }

    /// What the standard library would say, which would wait for standard error.
    fn say_panic(&self, panic: &PanicHookInfo<'_>) {
        let thread = thread::current();
        self.say(&format!("thread '{}' {panic}", thread.name().unwrap_or("unnamed")));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            self.say(&backtrace.to_string());
        }
        self.queue.flush(PANIC);
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { sink: self, priority: 6 }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> LogLine<'a> {
        let priority = match *event.level() {
            Level::ERROR => ERROR,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        LogLine { sink: self, priority }
    }
}

impl Write for LogLine<'_> {
    /// Takes a whole event, as it is given. Texts of callers and peers are in it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match str::from_utf8(event) {
            Ok(text) => self.sink.push(self.priority, &[visible(text).as_bytes()]),
            Err(_) => self.sink.push(self.priority, &[event]),
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event's line, to be kept.
struct KeptLine(RecentLines);

impl Write for KeptLine {
    /// Takes a whole event, as it is given.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(&String::from_utf8_lossy(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set where this test program runs itself, to panic there.
    const PANICS: &str = "GOSSD_TEST_PANICS";

    #[test]
    fn a_panic_is_said_on_standard_error_with_its_thread_and_place() {
        let stderr = || File::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
        if env::var_os(PANICS).is_some() {
            for with_priority in [false, true] {
                let sink =
                    Sink { queue: LineQueue::to(stderr(), |_| {}).unwrap(), with_priority, flat: None };
                panic::set_hook(Box::new(move |panic| sink.say_panic(panic)));
                let panics = thread::Builder::new().name("worker".into()).spawn(|| panic!("one\ntwo"));
                assert!(panics.unwrap().join().is_err());
            }
            return;
        }
        let mut again = Command::new(env::current_exe().unwrap());
        again.args([
            "--exact",
            "cli::log::tests::a_panic_is_said_on_standard_error_with_its_thread_and_place",
        ]);
        let output = again.env(PANICS, "1").env_remove("RUST_BACKTRACE").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let [place, one, two, journals_place, "<3>one", "<3>two"] = lines[..] else { panic!("{said}") };
        assert!(place.starts_with("thread 'worker' panicked at src/cli/log/mod.rs:"), "{place}");
        assert_eq!((one, two), ("one", "two"));
        assert_eq!(journals_place, format!("<3>{place}"));
    }
}
