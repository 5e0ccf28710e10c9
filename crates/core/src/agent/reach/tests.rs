//! Entrypoints that visitors want, in paused time; dials are answered by the test.

use std::collections::BTreeSet;

use super::super::tests::{
    Agent, advance, agent, change, hear, ids, lose, now, owner, record, register, say, tell,
};
use super::super::{LEASE_TTL, Owner};
use super::*;
use crate::agent::News;
use crate::record::{Network, Record};
use crate::slot::{Content, Status};

const WORKS: Tried = Tried::Works(Duration::from_millis(1));

/// An agent that hears a peer with a record.
fn heard() -> (Agent, Owner) {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &["1"], Status::Ready);
    hear(&agent, &b);
    (agent, b)
}

/// An agent that lost a peer with a record, which visitors ask for.
fn lost() -> (Agent, Owner) {
    let (agent, b) = heard();
    lose(&agent, &b);
    assert_eq!(ids(&agent), ["1"]);
    (agent, b)
}

/// The entrypoints that are to be dialled now.
fn due(agent: &Agent) -> Vec<Try> {
    agent.lock().reaches.take_due(now())
}

/// Every dial that is due ends like this. How many there were.
fn dial(agent: &Agent, tried: Tried) -> usize {
    let due = due(agent);
    for entrypoint in &due {
        agent.tried(&entrypoint.address, tried);
    }
    due.len()
}

/// Visitors ask once a second, and every dial ends like this. How many there were.
fn pass(agent: &Agent, time: Duration, tried: Tried) -> usize {
    let end = now() + time;
    let mut dials = 0;
    while now() < end {
        ids(agent);
        dials += dial(agent, tried);
        advance(Duration::from_secs(1));
    }
    dials
}

/// What peers are told that this host does not reach.
fn told(agent: &Agent) -> Vec<(String, bool)> {
    let state = agent.lock();
    let unreached = state.directory.replicas.unreached_by(&state.owner);
    unreached.map(|one| (one.entrypoint.to_string(), one.is_silent)).collect()
}

fn lines(agent: &Agent) -> Vec<Line> {
    agent.lock().take_effects().lines
}

#[test]
fn what_a_visitor_wants_is_dialled_at_once_and_every_ten_seconds_and_seldom_when_it_has_long_worked() {
    let (agent, _) = heard();
    assert!(due(&agent).is_empty(), "nobody asked");
    ids(&agent);
    let next = agent.lock().reaches.next_due();
    assert_eq!(next, Some(now()));
    let address = Address::from("10.0.0.1:80");
    assert_eq!(due(&agent), [Try { address: address.clone(), asks: false }]);
    ids(&agent);
    assert!(due(&agent).is_empty(), "it is being dialled");
    agent.tried(&address, WORKS);
    assert_eq!(pass(&agent, Duration::from_secs(100), WORKS), 9);
    assert_eq!(pass(&agent, SETTLED.saturating_sub(Duration::from_secs(100)), WORKS), 50);
    assert!(pass(&agent, SETTLED, WORKS) <= 11);
    assert!(told(&agent).is_empty());
}

#[test]
fn what_nobody_wants_is_not_dialled_and_is_at_once_when_somebody_does() {
    let (agent, _) = heard();
    ids(&agent);
    dial(&agent, WORKS);
    advance(WANTED);
    assert!(due(&agent).is_empty() && agent.lock().reaches.next_due().is_none());
    advance(Duration::from_secs(30));
    assert_eq!(agent.lock().entrypoints(now())[0].reach, Reach::Untried, "that was long ago");
    ids(&agent);
    assert_eq!(dial(&agent, WORKS), 1);
    advance(REMEMBERED);
    due(&agent);
    assert_eq!(agent.lock().reaches.len(), 0);
}

#[test]
fn our_own_entrypoints_are_not_dialled() {
    let agent = agent();
    register(&agent, "1");
    assert_eq!(ids(&agent), ["1"]);
    assert!(due(&agent).is_empty());
}

#[test]
fn a_routers_entrypoint_is_a_udp_port_and_is_not_dialled() {
    let (agent, _) = heard();
    let c = owner("c", 1);
    let router = Record { name: "host@r".into(), network: Network::Udp, ..record("2") };
    tell(&agent, &c, vec![change(1, 1, Content::Record(Arc::new(router)))]);
    say(&agent, &c, &[], Status::Ready);
    hear(&agent, &c);
    assert_eq!(agent.resolve("host@r").len(), 1);
    assert!(due(&agent).is_empty());
}

#[test]
fn one_that_is_dialled_in_vain_is_tried_again_after_ever_longer_pauses() {
    let (agent, _) = heard();
    let mut pauses = Vec::new();
    let mut last = now();
    while pauses.len() < 7 {
        ids(&agent);
        if dial(&agent, Tried::Silent) > 0 {
            pauses.push((now() - last).as_secs());
            last = now();
        }
        advance(Duration::from_secs(1));
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30]);
}

#[test]
fn a_record_that_was_dialled_in_vain_comes_behind_one_that_works_and_stays() {
    let (agent, _) = heard();
    let c = owner("c", 1);
    let other = Record { address: "10.0.0.2:80".into(), ..record("2") };
    tell(&agent, &c, vec![change(1, 1, Content::Record(Arc::new(other)))]);
    say(&agent, &c, &[], Status::Ready);
    hear(&agent, &c);
    let firsts =
        |agent: &Agent| (0..20).map(|_| agent.resolve("t")[0].id.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(firsts(&agent).len(), 2, "they take turns");
    for entrypoint in due(&agent) {
        let works = entrypoint.address == *"10.0.0.2:80";
        agent.tried(&entrypoint.address, if works { WORKS } else { Tried::Refused });
    }
    assert_eq!(firsts(&agent), ["2".to_owned()].into());
    assert_eq!(ids(&agent), ["2", "1"], "a try that may last 15 s is better than none");
    assert!(lines(&agent).iter().all(|line| matches!(line, Line::Tried { .. })), "once may be chance");
}

#[test]
fn a_fault_is_said_once_and_told_to_peers_until_it_is_over() {
    let (agent, _) = heard();
    let address = "10.0.0.1:80".to_owned();
    pass(&agent, Duration::from_secs(2), Tried::Refused);
    assert_eq!(told(&agent), [(address.clone(), false)]);
    let faults = |agent: &Agent| {
        let lines = lines(agent).into_iter();
        lines.filter(|line| matches!(line, Line::Unreached { .. } | Line::Reached { .. })).collect::<Vec<_>>()
    };
    assert!(matches!(faults(&agent)[..], [Line::Unreached { tried: Tried::Refused, .. }]));
    pass(&agent, Duration::from_secs(60), Tried::Silent);
    assert!(faults(&agent).is_empty());
    assert_eq!(told(&agent), [(address, true)]);
    assert!(agent.lock().entrypoints(now())[0].is_fault);
    pass(&agent, Duration::from_secs(31), WORKS);
    assert!(matches!(faults(&agent)[..], [Line::Reached { .. }]));
    assert!(told(&agent).is_empty());
}

#[test]
fn a_fault_is_none_any_more_if_its_host_is_lost_or_nobody_wants_it() {
    for is_lost in [true, false] {
        let (agent, b) = heard();
        pass(&agent, Duration::from_secs(3), Tried::Silent);
        assert_eq!(told(&agent).len(), 1);
        if is_lost {
            lose(&agent, &b);
        } else {
            advance(WANTED);
        }
        agent.collect_changes();
        assert!(told(&agent).is_empty(), "lost: {is_lost}");
    }
}

#[test]
fn the_record_of_a_dead_peer_stays_while_its_gost_answers_and_for_an_hour_at_most() {
    let (agent, _) = lost();
    assert_eq!(dial(&agent, WORKS), 1);
    pass(&agent, LEASE_TTL + SILENT_PAUSE, WORKS);
    assert_eq!(ids(&agent), ["1"]);
    let b = agent.view().members.into_iter().find(|member| member.name.as_str() == "b").unwrap();
    assert_eq!(b.standing, Standing::Hidden, "the peer itself is dead");
    let at = agent.explain("t").remove(0);
    assert_eq!((at.rank, at.owner.standing), (Some(0), Standing::Hidden));

    pass(&agent, PRESERVE.saturating_sub(LEASE_TTL + 2 * SILENT_PAUSE), WORKS);
    assert_eq!(ids(&agent), ["1"]);
    pass(&agent, 2 * SILENT_PAUSE, WORKS);
    assert!(ids(&agent).is_empty());
}

#[test]
fn it_comes_last_and_goes_when_its_gost_refuses_or_is_silent() {
    for tried in [Tried::Refused, Tried::Silent] {
        let (agent, _) = lost();
        pass(&agent, LEASE_TTL + SILENT_PAUSE, WORKS);
        let c = owner("c", 1);
        say(&agent, &c, &["2"], Status::Ready);
        hear(&agent, &c);
        assert_eq!(agent.explain("t").len(), 2);
        pass(&agent, SILENT_PAUSE, tried);
        assert_eq!(ids(&agent), ["2"], "{tried:?}");
    }
}

#[test]
fn a_connection_shows_nothing_of_a_gost_whose_agent_is_dead() {
    let (agent, b) = heard();
    pass(&agent, Duration::from_secs(1), WORKS);
    lose(&agent, &b);
    ids(&agent);
    let asked = due(&agent);
    assert!(asked[0].asks, "at once");
    agent.tried(&asked[0].address, Tried::Silent);
    advance(LEASE_TTL);
    assert!(ids(&agent).is_empty());
}

#[test]
fn a_dial_that_began_while_its_agent_was_heard_shows_no_more_than_a_connection() {
    let (agent, b) = heard();
    ids(&agent);
    let begun = due(&agent).remove(0);
    lose(&agent, &b);
    ids(&agent);
    agent.tried(&begun.address, WORKS);
    let next = due(&agent).remove(0);
    assert!(next.asks, "at once");
    advance(LEASE_TTL);
    assert!(ids(&agent).is_empty(), "nothing answered");
}

#[test]
fn nothing_is_kept_of_a_peer_that_nobody_dialled_or_that_said_goodbye() {
    let (agent, _) = lost();
    advance(LEASE_TTL);
    assert!(ids(&agent).is_empty());

    let (agent, b) = lost();
    pass(&agent, LEASE_TTL, WORKS);
    say(&agent, &b, &["1"], Status::Left);
    assert!(ids(&agent).is_empty());
}

#[test]
fn it_is_not_forgotten_while_its_gost_answers() {
    let (agent, b) = lost();
    pass(&agent, LEASE_TTL + SILENT_PAUSE, WORKS);
    agent.handle(News::Forgotten { owner: b });
    dial(&agent, WORKS);
    agent.collect_changes();
    assert_eq!(ids(&agent), ["1"]);
    pass(&agent, 2 * SILENT_PAUSE, Tried::Refused);
    agent.collect_changes();
    assert_eq!(agent.view().counts.records, 0);
}

#[test]
fn there_are_no_more_than_64_and_ten_dials_a_second() {
    let (agent, b) = heard();
    let address = |n: usize| Address::from(format!("10.0.0.1:{n}"));
    for n in 1..=MAX_ENTRYPOINTS + 1 {
        agent.lock().reaches.want(now(), &address(n), &b.name, false, By::Visitor);
    }
    assert_eq!(agent.lock().reaches.len(), MAX_ENTRYPOINTS);
    let start = now();
    let mut dials = 0;
    while dials < MAX_ENTRYPOINTS {
        dials += due(&agent).len();
        let passed = (now() - start).as_millis();
        assert!(dials as u128 * 100 <= passed + 1_000, "{dials} after {passed} ms");
        advance(Duration::from_millis(10));
    }
    assert!(now() - start < Duration::from_secs(6), "and they are not held up for longer");
    for n in 2..=MAX_ENTRYPOINTS {
        agent.tried(&address(n), WORKS);
    }
    advance(GIVES_WAY);
    for n in 3..=MAX_ENTRYPOINTS {
        agent.lock().reaches.want(now(), &address(n), &b.name, false, By::Visitor);
    }
    agent.lock().reaches.want(now(), &address(1_000), &b.name, false, By::Visitor);
    let known = agent.lock().entrypoints(now());
    assert!(known.iter().any(|known| known.address == address(1_000)), "in place of one that is not wanted");
    assert!(!known.iter().any(|known| known.address == address(2)));
    assert_eq!(known.len(), MAX_ENTRYPOINTS);
}

#[test]
fn what_was_dialled_in_vain_while_its_agent_was_away_is_dialled_at_once_when_it_is_back_and_no_fault_before()
{
    let (agent, b) = heard();
    pass(&agent, Duration::from_secs(3), Tried::Silent);
    lose(&agent, &b);
    pass(&agent, Duration::from_secs(20), Tried::Silent);
    lines(&agent);
    hear(&agent, &b);
    ids(&agent);
    assert_eq!((told(&agent), due(&agent).len()), (Vec::new(), 1));
    agent.tried(&"10.0.0.1:80".into(), WORKS);
    let faults = |line: &Line| matches!(line, Line::Unreached { .. });
    assert!(told(&agent).is_empty() && !lines(&agent).iter().any(faults));
    // One that is in vain after that is, after a second one.
    lose(&agent, &b);
    hear(&agent, &b);
    pass(&agent, Duration::from_secs(15), Tried::Silent);
    assert_eq!(told(&agent).len(), 1);
}
