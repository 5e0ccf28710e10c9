//! The clock: an agent derives its generation from it, so it should not go back.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Finding;
use crate::cli::words::time;

/// The first of January 2024, in seconds since 1970. A host whose clock was never set is before it.
const SENSIBLE: Duration = Duration::from_secs(1_704_067_200);
/// Clocks are corrected by a little all the time.
const TOLERANCE: Duration = Duration::from_secs(60);
/// Most files that are examined: a data folder holds a journal, its lock, and a few damaged files.
const MAX_FILES: usize = 1_000;

#[expect(clippy::disallowed_methods, reason = "what is examined is this host's own clock")]
pub(super) fn examine(folder: Option<&Path>) -> Finding {
    judge(SystemTime::now(), folder.and_then(newest))
}

/// The time at which the newest file of a folder was written.
fn newest(folder: &Path) -> Option<SystemTime> {
    let files = folder.read_dir().ok()?.take(MAX_FILES);
    files.filter_map(|file| file.ok()?.metadata().ok()?.modified().ok()).max()
}

fn judge(now: SystemTime, newest: Option<SystemTime>) -> Finding {
    let sensible = SystemTime::UNIX_EPOCH + SENSIBLE;
    if let Ok(early) = sensible.duration_since(now) {
        let early = time(early.as_secs_f64());
        return Finding::fail(
            "clock",
            format!("it is {early} before 2024: set it, for example with `timedatectl`"),
        );
    }
    let back = newest.and_then(|newest| newest.duration_since(now).ok()).filter(|back| *back > TOLERANCE);
    match back {
        Some(back) => {
            let back = time(back.as_secs_f64());
            let text = format!(
                "it is {back} behind the newest file in --data-dir: it went back, or was ahead; set it, because a start \
                 without that folder would look older to peers than the one before"
            );
            Finding::warn("clock", text)
        }
        None => Finding::ok("clock", "it is set, and has not gone back"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_was_never_set_or_went_back_is_noticed() {
        let now = 1_764_000_000;
        for (now, newest, verdict, text) in [
            (86_400, None, Severity::Fail, "it is 19722 d before 2024"),
            (now, None, Severity::Ok, "it is set, and has not gone back"),
            (now, Some(now - 5), Severity::Ok, "it is set, and has not gone back"),
            (now, Some(now + 59), Severity::Ok, "it is set, and has not gone back"),
            (now, Some(now + 7_200), Severity::Warn, "it is 2 h behind the newest file"),
        ] {
            let found = judge(at(now), newest.map(at));
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.text.starts_with(text), "{found:?}");
        }
    }

    #[test]
    fn the_newest_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(folder.path()), None);
        for (name, seconds) in [("a", 7), ("b", 9), ("c", 8)] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(at(seconds)).unwrap();
        }
        assert_eq!(newest(folder.path()), Some(at(9)));
        assert_eq!(newest(Path::new("/nonexistent")), None);
    }
}
