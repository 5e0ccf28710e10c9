//! What tests read: one line at a time on standard output, whole and at once. Knows nothing of what it says.

use std::io::Write as _;
use std::time::SystemTime;

use serde_json::Value;

/// Says a line. If nobody reads any more there is nobody to work for.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Says a JSON line.
pub(crate) fn say_json(line: &Value) {
    say(&line.to_string());
}

/// Milliseconds since 1970: the lines of several containers of one host are put side by side by it.
#[expect(clippy::disallowed_methods, reason = "the containers of a test share one clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
