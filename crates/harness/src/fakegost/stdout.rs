//! What tests read on standard output: whole lines, each flushed at once. Knows nothing of their content.

use std::io::Write as _;
use std::time::SystemTime;

use serde_json::Value;

/// Prints a line. Ends the process if nobody reads any more.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

pub(crate) fn say_json(line: &Value) {
    say(&line.to_string());
}

/// Milliseconds since 1970, by which the lines of several containers on one host are ordered.
#[expect(clippy::disallowed_methods, reason = "the containers of a test share one clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
