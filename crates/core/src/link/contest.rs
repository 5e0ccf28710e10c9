//! Who keeps a name that two processes claim: its holder, if it still shows a sign of life.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::record::AgentName;

/// Names that two processes claim, and since when we know.
#[derive(Debug, Default)]
pub(crate) struct Contests(BTreeMap<AgentName, Instant>);

/// How a contest stands.
pub(crate) enum Contest {
    /// The holder was asked for a sign of life.
    Undecided,
    /// The holder answered.
    HolderLives,
    /// The holder did not answer in time.
    HolderGone,
}

impl Contests {
    /// How long the holder of a name has to show that it lives: its host may be starved for a moment.
    const PATIENCE: Duration = Duration::from_millis(1_500);
    /// After this, a contest starts anew.
    const EXPIRY: Duration = Duration::from_secs(10);

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A newcomer claims a name whose holder was last heard at `heard`.
    pub(crate) fn judge(&mut self, name: &AgentName, now: Instant, heard: Instant) -> Contest {
        self.0.retain(|_, since| now.saturating_duration_since(*since) < Self::EXPIRY);
        let since = *self.0.entry(name.clone()).or_insert(now);
        if heard > since {
            Contest::HolderLives
        } else if now.saturating_duration_since(since) < Self::PATIENCE {
            Contest::Undecided
        } else {
            self.0.remove(name);
            Contest::HolderGone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_a_moment_to_show_that_it_lives() {
        let (name, now) = ("a".parse().unwrap(), Instant::now());
        let mut contests = Contests::default();
        assert!(matches!(contests.judge(&name, now, now), Contest::Undecided));
        let late = now + Contests::PATIENCE;
        assert!(matches!(contests.judge(&name, late, now), Contest::HolderGone));
        assert!(matches!(contests.judge(&name, late, now), Contest::Undecided), "anew");
        assert!(matches!(contests.judge(&name, late, late + Contests::PATIENCE), Contest::HolderLives));
    }
}
