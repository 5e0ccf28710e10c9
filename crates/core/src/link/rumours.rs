//! Who said something of late, and how far it has come: told in pings where not everybody pings everybody, so that whoever
//! missed a push notices.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::wire;
use crate::record::Owner;
use crate::slot::Version;

/// Before that, pushes may still be under way.
const SETTLED: Duration = Duration::from_millis(300);
/// Longer than a way that loses everything is not noticed.
const AGE: Duration = Duration::from_secs(10);
/// Words that are remembered.
const MAX_WORDS: usize = 256;
/// Owners in a ping.
pub(super) const MAX_TOLD: usize = 6;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rumours {
    heard: VecDeque<(Instant, Owner, Version)>,
    /// What is told at a moment, encoded: to all that are pinged then.
    spelled: Option<(Instant, Vec<u8>)>,
}

impl Rumours {
    /// An owner has come to this version, as was heard now.
    pub(super) fn note(&mut self, now: Instant, owner: &Owner, version: Version) {
        while self.heard.front().is_some_and(|(at, ..)| {
            self.heard.len() >= MAX_WORDS || now.saturating_duration_since(*at) >= AGE
        }) {
            self.heard.pop_front();
        }
        self.heard.push_back((now, owner.clone(), version));
    }

    /// What there is to tell now, encoded.
    pub(super) fn spell(&mut self, now: Instant) -> &[u8] {
        if self.spelled.as_ref().is_none_or(|(at, _)| *at != now) {
            self.spelled = Some((now, wire::encode(&self.tell(now))));
        }
        self.spelled.as_ref().map(|(_, spelled)| spelled.as_slice()).unwrap_or_default()
    }

    /// What there is to tell, the last owners first.
    fn tell(&self, now: Instant) -> wire::Rumours<'_> {
        let age = |at: Instant| now.saturating_duration_since(at);
        let mut told: BTreeMap<&Owner, Version> = BTreeMap::new();
        for (_, owner, version) in
            self.heard.iter().rev().filter(|(at, ..)| (SETTLED..AGE).contains(&age(*at)))
        {
            if told.len() < MAX_TOLD || told.contains_key(owner) {
                let known = told.entry(owner).or_default();
                *known = version.max(known).to_owned();
            }
        }
        let owners =
            told.into_iter().map(|(owner, version)| (owner.name.as_str(), owner.generation, version));
        wire::Rumours { sparse: true, owners: owners.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(n: u8) -> Owner {
        Owner { name: format!("a{n}").parse().unwrap(), generation: 1 }
    }

    fn told(rumours: &Rumours, now: Instant) -> Vec<(String, Version)> {
        let told = rumours.tell(now).owners;
        told.into_iter().map(|(name, _, version)| (name.to_owned(), version)).collect()
    }

    #[test]
    fn the_last_owners_are_told_with_their_last_versions_that_are_not_under_way() {
        let (mut rumours, now) = (Rumours::default(), Instant::now());
        for n in 1..=9 {
            rumours.note(now, &owner(n), 5);
        }
        rumours.note(now, &owner(1), 7);
        rumours.note(now + SETTLED, &owner(1), 8);
        assert!(told(&rumours, now).is_empty());
        let expected = [(1, 7), (5, 5), (6, 5), (7, 5), (8, 5), (9, 5)];
        assert_eq!(told(&rumours, now + SETTLED), expected.map(|(n, version)| (format!("a{n}"), version)));
        assert_eq!(told(&rumours, now + AGE), [("a1".to_owned(), 8)]);
    }

    #[test]
    fn many_words_are_bounded() {
        let (mut rumours, now) = (Rumours::default(), Instant::now());
        for version in 0..10_000 {
            rumours.note(now, &owner(1), version);
        }
        assert_eq!(rumours.heard.len(), MAX_WORDS);
        rumours.note(now + AGE, &owner(1), 1);
        assert_eq!(rumours.heard.len(), 1);
    }
}
