//! Gosts that freeze, in paused time; what they are asked is answered by the test.

use super::super::tests::{Agent, HERE, advance, agent, holding, ids, now, record, renew, with_quota};
use super::super::{Dial, Dialled, MAX_DIALS};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// An agent whose only gost has a tunnel, and can be asked.
fn attached() -> Agent {
    let agent = agent();
    let holding = crate::lease::Holding { dial: "127.0.0.1:80".into(), ..holding("1") };
    agent.register(HERE, holding).unwrap();
    agent
}

/// The gosts that are asked now.
fn asked(agent: &Agent) -> Vec<Dial> {
    let due = agent.lock().due(now(), MAX_DIALS, |_| false);
    due.dials.into_iter().filter(|dial| dial.asks).collect()
}

/// Visitors come so often a second, for that long. How often gost was asked.
fn visited(agent: &Agent, seconds: u32) -> usize {
    let mut times = 0;
    for _ in 0..seconds {
        agent.called(1);
        times += asked(agent).len();
        advance(SECOND);
    }
    times
}

/// Nothing happens for that long: when gost is asked, after how many seconds, and with what outcome each time.
fn silence(agent: &Agent, seconds: u64, outcome: Dialled) -> Vec<u64> {
    let mut at = Vec::new();
    for second in 0..seconds {
        for dial in asked(agent) {
            at.push(second);
            if outcome == Dialled::Answered {
                // It asks us first.
                agent.lock().called(now(), 1, false);
            }
            assert!(agent.dialled(dial, outcome).is_none());
        }
        advance(SECOND);
    }
    at
}

/// What peers are told.
fn is_told(agent: &Agent) -> bool {
    let state = agent.lock();
    state.directory.replicas.unreached_by(&state.owner).next().is_some()
}

#[test]
fn a_gost_that_visitors_use_is_asked_when_it_falls_silent_and_if_it_lives_not_again() {
    let agent = attached();
    assert_eq!(visited(&agent, 30), 0, "while it is used");
    let mut asked = Vec::new();
    for _ in 0..240 {
        // The last visitor came a second ago.
        asked.extend(silence(&agent, 15, Dialled::Answered));
        renew(&agent, "1");
    }
    assert_eq!(asked, [4], "in an idle hour, once");
    assert!(!is_told(&agent));
}

#[test]
fn a_single_visitor_shows_nothing() {
    let agent = attached();
    agent.called(1);
    assert!(silence(&agent, 60, Dialled::Answered).is_empty());
}

#[test]
fn a_frozen_gost_is_told_and_asked_again_until_it_speaks() {
    let agent = attached();
    visited(&agent, 10);
    let at = silence(&agent, 12, Dialled::Mute);
    assert_eq!(at, [4, 6, 8, 10]);
    assert!(is_told(&agent));
    assert_eq!(ids(&agent), ["1"], "its record stays");
    let lines: Vec<_> = agent.lock().take_effects().lines;
    assert_eq!(lines.iter().filter(|line| matches!(line, Line::Frozen { .. })).count(), 1, "said once");
    agent.called(1);
    assert!(!is_told(&agent), "it is the only gost, and asks something");
    let lines: Vec<_> = agent.lock().take_effects().lines;
    assert!(lines.iter().any(|line| matches!(line, Line::Thawed { .. })));
}

#[test]
fn a_renew_or_an_answer_is_life_as_well() {
    for is_renew in [true, false] {
        let agent = attached();
        visited(&agent, 10);
        silence(&agent, 6, Dialled::Mute);
        assert!(is_told(&agent));
        if is_renew {
            renew(&agent, "1");
        } else {
            silence(&agent, 2, Dialled::Answered);
        }
        assert!(!is_told(&agent), "renew: {is_renew}");
    }
}

#[test]
fn a_gost_that_calls_while_it_is_asked_is_not_frozen() {
    let agent = attached();
    visited(&agent, 10);
    advance(QUIET);
    let dial = asked(&agent).remove(0);
    renew(&agent, "1");
    agent.dialled(dial, Dialled::Mute);
    assert!(!is_told(&agent));
}

#[test]
fn a_gost_without_visitors_is_asked_when_a_renew_is_late_and_not_before() {
    let agent = attached();
    for _ in 0..5 {
        for _ in 0..15 {
            assert!(asked(&agent).is_empty());
            advance(SECOND);
        }
        renew(&agent, "1");
    }
    // The period is 15 s, and a Renew may be late by an eighth of that.
    assert_eq!(silence(&agent, 30, Dialled::Mute)[..2], [17, 19]);
    assert!(is_told(&agent));
}

#[test]
fn of_a_gost_that_has_no_record_any_more_nothing_is_told() {
    let agent = attached();
    visited(&agent, 10);
    silence(&agent, 6, Dialled::Mute);
    agent.deregister(HERE, crate::record::Draft { id: "1", name: "t", node: "n", network: "", address: "" });
    advance(AGAIN);
    agent.collect_changes();
    assert!(!is_told(&agent));
    assert_eq!(agent.lock().silence.len(), 0);
}

#[test]
fn a_gost_that_was_there_before_the_agent_comes_behind_others_until_it_calls() {
    let started = |nodes: &[&str]| {
        let kept = |node: &&str| {
            let record = crate::record::Record { id: (*node).into(), node: (*node).into(), ..record("1") };
            crate::lease::Holding { record: record.into(), dial: "127.0.0.1:80".into() }
        };
        let place = crate::entrypoints::Place { address: record("1").address, dial: "127.0.0.1:80".into() };
        let registered = |(number, node): (u64, &&str)| crate::entrypoints::Registered {
            key: crate::entrypoints::EntrypointKey { node: (*node).into(), routers: false },
            home: (*node == "guest").then(|| [10, 0, 0, 9].into()),
            place: place.clone(),
            number,
        };
        let entrypoints = (0..).zip(nodes).map(registered).collect();
        let held = nodes.iter().map(kept).collect();
        let leases = crate::lease::KeptLeases { held, ..crate::lease::KeptLeases::default() };
        let told = Some((1, 0));
        let restored =
            crate::agent::Restored { leases, entrypoints, told, ..crate::agent::Restored::default() };
        with_quota(crate::quota::Quota::default(), restored)
    };
    let agent = started(&["n"]);
    assert!(is_told(&agent));
    agent.called(1);
    assert!(!is_told(&agent), "of the only gost, any call is one");

    let agent = started(&["n", "m"]);
    agent.called(1);
    assert!(is_told(&agent), "either may have called");
    for (node, waits) in [("n", true), ("m", false)] {
        let draft = crate::record::Draft { id: node, name: "t", node, network: "", address: "" };
        let heal = crate::agent::Heal { dial: &|address| address.to_owned(), fallback: None };
        agent.renew(HERE, draft, &heal).unwrap();
        assert_eq!(is_told(&agent), waits, "{node}");
    }
    assert!(!is_told(&started(&["guest"])), "it has an agent of its own");
    let agent = started(&["n"]);
    let record = crate::record::Record { node: "n".into(), ..record("2") };
    agent.register(HERE, crate::lease::Holding { record: record.into(), dial: "".into() }).unwrap();
    assert!(!is_told(&agent), "who registers has called");
}
