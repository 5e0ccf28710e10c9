//! Requests that a listener turned away before it read what they ask for: counted by reason, and logged at a bounded pace
//! with what the operator can do. Knows no protocol.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often one reason is logged at most: whoever is turned away can come back thousands of times a second.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// A gost that is refused comes again before this is over: with a visitor, or when it renews.
const LATELY: Duration = Duration::from_secs(60);

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A web page made it.
    WebPage,
    /// It names a host that is not this one, as a web page does whose name was made to resolve to this host.
    Host,
    /// A token is wanted, and the request has none that is in force.
    Token,
    /// Nothing is served there, or nothing of that kind: a setting of gost's leads to the wrong place.
    Path,
    /// The admin listener is open to other hosts and has no tokens.
    Open,
    /// As many event streams are open as may be.
    Streams,
}

impl Reason {
    /// Every reason, with its name in metrics.
    const ALL: [(Self, &'static str); 6] = [
        (Self::WebPage, "web_page"),
        (Self::Host, "host"),
        (Self::Token, "token"),
        (Self::Path, "path"),
        (Self::Open, "open"),
        (Self::Streams, "streams"),
    ];
}

/// How often each reason was met at one listener.
#[derive(Debug, Default)]
pub(crate) struct RejectedCounts {
    counts: [AtomicU64; Reason::ALL.len()],
    times: Mutex<[Times; Reason::ALL.len()]>,
}

/// When a reason was met, and logged, the last time.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    met: Option<Instant>,
    warned: Option<Instant>,
}

impl RejectedCounts {
    /// Counts a request. `warn` logs it, unless the same reason was logged a moment ago.
    pub(crate) fn count(&self, why: Reason, warn: impl FnOnce()) {
        self.count_at(Instant::now(), why, warn);
    }

    fn count_at(&self, now: Instant, why: Reason, warn: impl FnOnce()) {
        self.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        let mut all = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let Times { met, warned } = &mut all[why as usize];
        *met = Some(now);
        if warned.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY) {
            *warned = Some(now);
            drop(all);
            warn();
        }
    }

    /// Whether a reason was met in the last minute: then it goes on.
    pub(crate) fn goes_on(&self, why: Reason) -> bool {
        let all = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        all[why as usize].met.is_some_and(|met| met.elapsed() < LATELY)
    }

    /// The numbers of some reasons, with the names of the reasons: as labels of a metric.
    pub(crate) fn labelled(
        &self,
        reasons: impl Fn(Reason) -> bool,
    ) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
        let reasons = Reason::ALL.into_iter().filter(move |(reason, _)| reasons(*reason));
        reasons
            .map(|(reason, word)| ([("reason", word)], self.counts[reason as usize].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_always_and_logged_at_a_bounded_pace() {
        let (counts, start) = (RejectedCounts::default(), Instant::now());
        let mut logged = Vec::new();
        for (after, why) in [
            (0, Reason::WebPage),
            (1, Reason::WebPage),
            (2, Reason::Host),
            (599, Reason::WebPage),
            (600, Reason::WebPage),
        ] {
            counts.count_at(start + Duration::from_secs(after), why, || logged.push(after));
        }
        assert_eq!(logged, [0, 2, 600]);
        let of_pages: Vec<_> = counts.labelled(|why| matches!(why, Reason::WebPage | Reason::Host)).collect();
        assert_eq!(of_pages, [([("reason", "web_page")], 4), ([("reason", "host")], 1)]);
    }
}
