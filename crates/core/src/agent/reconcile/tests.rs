//! An agent whose journal may be older than what its peers remember.

use super::super::tests::{Agent, advance, change, hear, ids, now, owner, say, tell, with_settings};
use super::super::{LEASE_TTL, News, Restored};
use super::*;
use crate::agent::tests::{holding, register};
use crate::lease::KeptLeases;
use crate::link::ReplicaStore as _;
use crate::quota::Quota;
use crate::replica::Extent;
use crate::slot::Content;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// Agent `a`, generation 5, with a journal that has these records, and everything to that version of that start.
fn returned(held: &[&str], told: Option<(Generation, Version)>) -> Agent {
    let held = held.iter().map(|id| holding(id)).collect();
    let leases = KeptLeases { held, ..KeptLeases::default() };
    let restored = Restored { leases, told, ..Restored::default() };
    with_settings("a", 5, LEASE_TTL, Quota::default(), restored)
}

/// The same, of which peers do not know yet that it is ready.
fn waiting(held: &[&str], told: (Generation, Version), known: &[&str]) -> Agent {
    let agent = returned(held, Some(told));
    let known = known.iter().map(|name| name.parse().unwrap()).collect();
    agent.lock().withhold_status(now() + HALF_A_SECOND, known);
    agent
}

/// Whether peers get to know that it is ready.
fn is_published(agent: &Agent) -> bool {
    agent.collected().iter().any(|change| change.slot == STATUS_SLOT)
}

#[test]
fn what_was_released_after_a_copy_of_the_journal_was_made_is_not_listed_when_it_is_put_back() {
    for (told, left) in [
        // The copy is of the start that peers remember, at an earlier version; or of a start before that one.
        ((4, 2), vec!["1"]),
        ((3, 900), vec!["1"]),
        // The journal has all that peers know, and perhaps more.
        ((4, 100), vec!["1", "2"]),
        ((4, 700), vec!["1", "2"]),
    ] {
        let agent = returned(&["1", "2"], Some(told));
        say(&agent, &owner("a", 4), &["1"], Status::Ready);
        let mut listed = ids(&agent);
        listed.sort();
        assert_eq!(listed, left, "{told:?}");
    }
}

#[test]
fn a_gost_that_renews_what_peers_do_not_remember_has_it_listed_again() {
    let agent = returned(&["1", "2"], Some((3, 1)));
    assert!(super::super::tests::renew(&agent, "1"), "before peers told anything");
    say(&agent, &owner("a", 4), &[], Status::Ready);
    assert_eq!(ids(&agent), ["1"]);
    register(&agent, "3");
    assert!(super::super::tests::renew(&agent, "2"), "it was thought to be gone");
    assert_eq!(agent.resolve("t").len(), 3);
}

#[test]
fn what_peers_remember_in_part_or_of_an_earlier_start_releases_nothing() {
    let agent = returned(&["1", "2"], Some((4, 2)));
    let status = change(STATUS_SLOT, 100, Content::Status(Status::Ready));
    let gaps = Extent { since: 7, until: 100, whole: None };
    agent.handle(News::Changed { owner: owner("a", 4), changes: vec![status], extent: gaps });
    assert_eq!(agent.resolve("t").len(), 2, "there are gaps");
    say(&agent, &owner("a", 3), &[], Status::Ready);
    assert_eq!(agent.resolve("t").len(), 2, "the journal is newer");
}

#[test]
fn a_snapshot_of_the_process_before_is_never_older() {
    let agent = returned(&["1"], None);
    say(&agent, &owner("a", 4), &[], Status::Ready);
    assert_eq!(ids(&agent), ["1"]);
}

#[test]
fn peers_do_not_list_a_journal_before_they_told_what_they_remember_of_it() {
    let agent = waiting(&["1", "2"], (4, 2), &["b"]);
    assert!(agent.resolve("t").is_empty(), "nor are they listed here, if a read does not wait so long");
    assert!(!is_published(&agent), "but its records are");
    let own = agent.owner().clone();
    let part = agent.lock().part(&own, 0, 0).unwrap();
    assert!(
        part.changes.iter().all(|change| change.slot != STATUS_SLOT),
        "nor is a question answered with it"
    );
    assert!(!agent.lock().has_caught_up(now(), std::iter::empty(), false));

    hear(&agent, &owner("b", 1));
    tell(&agent, &owner("a", 4), Vec::new());
    assert!(!is_published(&agent), "it remembers something");
    say(&agent, &owner("a", 4), &["1"], Status::Ready);
    assert_eq!(ids(&agent), ["1"]);
    let told = agent.collected();
    let last = told.iter().max_by_key(|change| change.cell.version).unwrap();
    assert_eq!(last.cell.content, Content::Status(Status::Ready), "after all that changed meanwhile");
}

#[test]
fn whoever_remembers_nothing_is_not_waited_for() {
    let agent = waiting(&["1"], (4, 2), &["b", "c"]);
    agent.collect_changes();
    hear(&agent, &owner("b", 1));
    advance(HALF_A_SECOND / 4);
    assert!(!is_published(&agent), "c was known, too");
    hear(&agent, &owner("c", 1));
    assert!(!is_published(&agent), "it may be about to tell");
    advance(TELLING);
    assert!(is_published(&agent));
}

#[test]
fn peers_that_are_away_are_waited_for_half_a_second() {
    for remembers in [false, true] {
        let agent = waiting(&["1"], (4, 2), &["b"]);
        if remembers {
            hear(&agent, &owner("b", 1));
            tell(&agent, &owner("a", 4), Vec::new());
        }
        let next = agent.lock().due(now(), 1, |_| false).next;
        advance(HALF_A_SECOND.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(!is_published(&agent) && next <= now() + Duration::from_millis(1));
        advance(Duration::from_millis(1));
        assert!(is_published(&agent), "remembers: {remembers}");
    }
}

#[test]
fn an_operator_who_drains_meanwhile_is_not_overruled() {
    let agent = waiting(&["1"], (4, 2), &["b"]);
    agent.say(Status::Draining);
    assert!(is_published(&agent));
    advance(HALF_A_SECOND);
    assert!(!is_published(&agent), "once");
}

#[test]
fn an_agent_without_records_of_a_journal_is_ready_at_once() {
    let agent = returned(&[], Some((4, 2)));
    agent.lock().withhold_status(now() + HALF_A_SECOND, Vec::new());
    assert!(is_published(&agent));
}
