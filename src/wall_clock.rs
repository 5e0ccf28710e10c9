//! The wall clock of this host, for people who read reports and logs: nothing is decided by it.

use std::time::{Duration, SystemTime};

/// The time now.
#[expect(clippy::disallowed_methods, reason = "it is shown, and compared with nothing")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// UTC, as RFC 3339 spells it, with milliseconds.
pub(crate) fn spell(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The time so long ago, spelled.
pub(crate) fn ago(age: Duration) -> String {
    spell(now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
}
