//! What the rest of the program knows of its own log: how many lines were dropped, and the newest ones, which are kept in
//! memory for `gossd debug`: whoever looks for a fault comes after it. Does not know what a line means.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;

/// Most bytes of lines that are kept: about 1,000 lines.
const MAX_BYTES: usize = 256 << 10;

/// A handle; clones share the lines.
#[derive(Clone, Debug, Default)]
pub struct OwnLog {
    /// Lines that standard error did not take.
    pub dropped: Counter,
    /// The newest lines.
    pub recent: RecentLines,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct RecentLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl RecentLines {
    /// Keeps a line, and no longer the oldest ones if there is no room. One that is too long for that is not kept.
    pub fn push(&self, line: &str) {
        if line.len() > MAX_BYTES {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line.into());
        while kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
    }

    /// All of them, the oldest first.
    pub fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().map(|line| &**line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_within_their_room_and_in_their_order() {
        let recent = RecentLines::default();
        let line = |n: usize| format!("{n:0>99}\n");
        for n in 0..10_000 {
            recent.push(&line(n));
        }
        recent.push(&"x".repeat(MAX_BYTES + 1));
        let text = recent.text();
        let kept = MAX_BYTES / 100;
        let want: String = (10_000 - kept..10_000).map(line).collect();
        assert_eq!(text, want);
    }
}
