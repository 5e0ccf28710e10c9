//! Ids that were deregistered a moment ago: calls that were in flight beside the Deregister change nothing. An id that is
//! registered again later, by a person with `curl`, is a new record.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::label::Label;
use super::moment::Moment;

/// How many released ids an agent remembers; the oldest go first. More than the disconnects of [`IN_FLIGHT`] at a
/// thousand a second.
pub const MAX_TOMBSTONES: usize = 100_000;
/// For how long a call may be in flight beside a Deregister. gost sends both within milliseconds; the rest is for a plugin
/// connection that is re-established, and for hosts that are held up.
pub const IN_FLIGHT: Duration = Duration::from_secs(60);

/// What a Deregister found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// A record. gost registers an id once, so no Register of it is in flight any more.
    Held,
    /// Nothing: the id's Register may still be in flight.
    Unheard,
}

/// The released ids, bounded.
#[derive(Debug, Default)]
pub struct Tombstones {
    /// A hashed map that is full, and changes, doubles its room, because what was removed leaves marks in it.
    ids: BTreeMap<Label, (Moment, Release)>,
    /// One whose time is not its id's is stale.
    oldest_first: VecDeque<(Moment, Label)>,
}

impl Tombstones {
    /// Remembers a released id. False if it was released before and that still counts.
    pub fn bury(&mut self, now: Moment, id: &Label, release: Release) -> bool {
        if self.get(now, id).is_some() {
            return false;
        }
        self.ids.insert(id.clone(), (now, release));
        self.oldest_first.push_back((now, id.clone()));
        if self.oldest_first.len() > MAX_TOMBSTONES {
            self.forget_oldest();
        }
        true
    }

    /// How an id was released, for as long as calls may be in flight beside that.
    pub fn get(&self, now: Moment, id: &Label) -> Option<Release> {
        let (at, release) = self.ids.get(id)?;
        (now.since(*at) < IN_FLIGHT).then_some(*release)
    }

    /// How an id was released that is not forgotten yet.
    pub fn last(&self, id: &Label) -> Option<Release> {
        self.ids.get(id).map(|(_, release)| *release)
    }

    /// An id is registered again.
    pub fn remove(&mut self, id: &Label) {
        self.ids.remove(id);
    }

    /// Forgets ids beside which nothing can be in flight any more, no more than `most`: which.
    pub fn expire(&mut self, now: Moment, most: usize) -> Vec<Label> {
        let mut gone = Vec::new();
        for _ in 0..most {
            let Some((at, _)) = self.oldest_first.front() else { break };
            if now.since(*at) < IN_FLIGHT {
                break;
            }
            gone.extend(self.forget_oldest());
        }
        gone
    }

    /// The released ids, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = &Label> {
        self.ids.keys()
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn forget_oldest(&mut self) -> Option<Label> {
        let (at, id) = self.oldest_first.pop_front()?;
        if self.ids.get(&id).is_none_or(|(newer, _)| *newer != at) {
            return None;
        }
        self.ids.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::moment::Start;
    use super::*;

    fn now() -> Moment {
        let now = Instant::now();
        Start(now).moment(now)
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let (mut tombstones, now) = (Tombstones::default(), now());
        for n in 0..=MAX_TOMBSTONES {
            assert!(tombstones.bury(now, &n.to_string().into(), Release::Held));
        }
        assert_eq!(tombstones.len(), MAX_TOMBSTONES);
        assert_eq!(tombstones.get(now, &"0".into()), None);
        assert_eq!(tombstones.get(now, &"1".into()), Some(Release::Held));
        assert!(!tombstones.bury(now, &"1".into(), Release::Unheard));
    }

    #[test]
    fn a_release_counts_for_as_long_as_calls_may_be_in_flight_beside_it() {
        let (mut tombstones, now, id) = (Tombstones::default(), now(), "1".into());
        assert!(tombstones.bury(now, &id, Release::Unheard));
        let late = now + IN_FLIGHT.saturating_sub(Duration::from_millis(1));
        assert_eq!(tombstones.get(late, &id), Some(Release::Unheard));
        assert!(!tombstones.bury(late, &id, Release::Held), "the first one counts");
        assert!(tombstones.expire(late, 9).is_empty());
        let after = now + IN_FLIGHT;
        assert_eq!(tombstones.get(after, &id), None);
        assert!(tombstones.bury(after, &id, Release::Held), "and the next one is another");
        assert_eq!(tombstones.get(after, &id), Some(Release::Held));
        assert!(tombstones.expire(after, 9).is_empty(), "the former is stale");
        assert_eq!(tombstones.expire(after + IN_FLIGHT, 9), [id]);
        assert!(tombstones.is_empty() && tombstones.oldest_first.is_empty());
    }

    #[test]
    fn they_are_forgotten_a_few_at_a_time() {
        let (mut tombstones, now) = (Tombstones::default(), now());
        for n in 0..10 {
            tombstones.bury(now, &n.to_string().into(), Release::Held);
        }
        tombstones.remove(&"0".into());
        assert_eq!(tombstones.expire(now + IN_FLIGHT, 4).len(), 3, "one was registered again");
        assert_eq!(tombstones.len(), 6);
    }
}
