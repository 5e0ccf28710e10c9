//! Peers that say what they do not reach, in paused time.

use std::sync::Arc;

use super::super::News;
use super::super::tests::{
    Agent, HERE, advance, agent, change, hear, holding, lose, now, owner, record, register, renew, say, tell,
};
use super::*;
use crate::lease::Holding;
use crate::record::Record;
use crate::slot::{Content, Status, Unreached};

const OURS: &str = "10.0.0.1:80";

/// A peer that is heard, without records.
fn peer(agent: &Agent, name: &str) -> Owner {
    let peer = owner(name, 1);
    say(agent, &peer, &[], Status::Ready);
    hear(agent, &peer);
    peer
}

/// A peer says in a slot that it does not reach an entrypoint.
fn blame(agent: &Agent, peer: &Owner, version: u32, entrypoint: &str, is_silent: bool) {
    let unreached = Unreached { entrypoint: entrypoint.into(), is_silent };
    put(agent, peer, version, Content::Unreached(Arc::new(unreached)));
}

/// A peer says that it reaches it again.
fn acquit(agent: &Agent, peer: &Owner, version: u32) {
    put(agent, peer, version, Content::Empty);
}

fn put(agent: &Agent, peer: &Owner, version: u32, content: Content) {
    tell(agent, peer, vec![change(FIRST_UNREACHED, version, content)]);
}

/// Who cannot reach which of our entrypoints, as operators are shown it.
fn shown(agent: &Agent) -> Vec<(String, Vec<String>, Vec<String>)> {
    let names = |of: &BTreeSet<AgentName>| of.iter().map(ToString::to_string).collect();
    let all = agent.view().own_unreached;
    all.iter().map(|of| (of.entrypoint.to_string(), names(&of.refused), names(&of.silent))).collect()
}

/// What is in the log after that time: who cannot reach our entrypoint, or that it is over.
fn logged(agent: &Agent, time: Duration) -> Vec<String> {
    let end = now() + time;
    let mut logged = Vec::new();
    loop {
        renew(agent, "1");
        agent.collected();
        logged.extend(agent.effects().lines.iter().filter_map(|line| match line {
            Line::OwnUnreached(of) => {
                let names = of.refused.iter().chain(&of.silent).map(AgentName::as_str);
                Some(names.collect::<Vec<_>>().join(" "))
            }
            Line::OwnReached { .. } => Some("over".into()),
            _ => None,
        }));
        if now() >= end {
            return logged;
        }
        advance(LOOK);
    }
}

/// An agent with a record, and two peers.
fn cluster() -> (Agent, Owner, Owner) {
    let agent = agent();
    register(&agent, "1");
    let (b, c) = (peer(&agent, "b"), peer(&agent, "c"));
    assert!(logged(&agent, LOOK).is_empty());
    (agent, b, c)
}

#[test]
fn the_owner_is_told_once_by_whom_and_again_every_hour_and_when_it_is_over() {
    let (agent, b, c) = cluster();
    blame(&agent, &b, 200, OURS, true);
    assert_eq!(shown(&agent), [(OURS.into(), vec![], vec!["b".to_owned()])], "at once");
    assert!(logged(&agent, LOOK).is_empty(), "others may say the same in a moment");
    blame(&agent, &c, 200, OURS, false);
    assert_eq!(logged(&agent, LOOK), ["c b"]);
    assert!(logged(&agent, AGAIN.saturating_sub(LOOK)).is_empty());
    assert_eq!(logged(&agent, LOOK), ["c b"]);
    acquit(&agent, &b, 201);
    assert!(logged(&agent, LOOK).is_empty());
    assert_eq!(shown(&agent), [(OURS.into(), vec!["c".to_owned()], vec![])]);
    acquit(&agent, &c, 201);
    assert_eq!(logged(&agent, LOOK), ["over"]);
    assert!(shown(&agent).is_empty());
    let events: Vec<_> =
        agent.lock().events(0, 100).unwrap().into_iter().map(|logged| logged.event).collect();
    let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<AgentName>().unwrap());
    let unreached = Event::Unreached(a.clone(), OURS.into(), vec![b, c]);
    let last = &events[events.len() - 3..];
    assert_eq!(last, [unreached.clone(), unreached, Event::Reached(a, OURS.into())]);
    logged(&agent, CALM);
    let state = agent.lock();
    assert_eq!((state.logged.len(), state.logged.next_due()), (0, None), "all is forgotten");
}

#[test]
fn a_fault_that_comes_and_goes_is_logged_every_five_minutes_at_most() {
    let (agent, b, _) = cluster();
    let mut lines = Vec::new();
    for version in 0..60 {
        blame(&agent, &b, 200 + 2 * version, OURS, true);
        lines.extend(logged(&agent, Duration::from_secs(5)));
        acquit(&agent, &b, 201 + 2 * version);
        lines.extend(logged(&agent, Duration::from_secs(5)));
    }
    assert_eq!(lines, ["b", "over", "b", "over"], "in ten minutes");
}

#[test]
fn a_peer_that_is_not_heard_says_nothing_and_one_that_is_heard_again_does() {
    let (agent, b, _) = cluster();
    blame(&agent, &b, 200, OURS, true);
    assert_eq!(logged(&agent, GATHER), ["b"]);
    agent.handle(News::Doubted { owner: b.clone() });
    assert_eq!(shown(&agent).len(), 1, "a doubt is no death");
    lose(&agent, &b);
    assert!(shown(&agent).is_empty());
    assert_eq!(logged(&agent, LOOK), ["over"]);
    logged(&agent, CALM);
    hear(&agent, &b);
    assert_eq!(shown(&agent).len(), 1);
    assert_eq!(logged(&agent, LOOK + GATHER), ["b"]);
}

#[test]
fn what_a_former_start_of_a_peer_said_is_gone_with_it() {
    let (agent, b, _) = cluster();
    blame(&agent, &b, 200, OURS, true);
    assert_eq!(logged(&agent, GATHER), ["b"]);
    let restarted = owner("b", 2);
    hear(&agent, &restarted);
    say(&agent, &restarted, &[], Status::Ready);
    assert!(shown(&agent).is_empty());
    assert_eq!(logged(&agent, LOOK), ["over"]);
}

#[test]
fn an_entrypoint_without_a_live_record_of_ours_is_not_our_fault() {
    let (agent, b, _) = cluster();
    blame(&agent, &b, 200, "10.0.0.9:80", true);
    assert!(shown(&agent).is_empty() && logged(&agent, GATHER).is_empty());
    let elsewhere = Record { node: "m".into(), address: "10.0.0.9:80".into(), ..record("2") };
    let elsewhere = Holding { record: Arc::new(elsewhere), ..holding("2") };
    agent.register(HERE, elsewhere).unwrap();
    assert_eq!(logged(&agent, LOOK + GATHER), ["b"], "it is ours from now on");
    agent.deregister(HERE, crate::record::Draft { id: "2", name: "t", node: "m", network: "", address: "" });
    assert_eq!(logged(&agent, LOOK), ["over"]);
}

#[test]
fn the_log_has_no_more_than_64_entrypoints_and_all_are_shown() {
    let (agent, b, _) = cluster();
    for n in 0..MOST_LOGGED + 5 {
        let (id, entrypoint) = (format!("n{n}"), format!("10.0.1.{n}:80"));
        let record = Record { node: (&*id).into(), address: (&*entrypoint).into(), ..record(&id) };
        agent.register(HERE, Holding { record: Arc::new(record), ..holding(&id) }).unwrap();
        let unreached = Unreached { entrypoint: (&*entrypoint).into(), is_silent: true };
        let slot = FIRST_UNREACHED + u32::try_from(n).unwrap();
        tell(&agent, &b, vec![change(slot, 200 + slot, Content::Unreached(Arc::new(unreached)))]);
    }
    assert_eq!(logged(&agent, GATHER).len(), MOST_LOGGED);
    assert_eq!(shown(&agent).len(), MOST_LOGGED + 5);
}

#[test]
fn all_that_is_heard_is_shown_by_host_and_entrypoint_with_whose_it_is() {
    let (agent, b, c) = cluster();
    blame(&agent, &c, 200, "10.0.0.2:80", false);
    advance(Duration::from_secs(7));
    blame(&agent, &b, 200, OURS, true);
    let (total, all) = agent.lock().unreached(now());
    let view = |by: &str, entrypoint: &str, is_silent, since| UnreachedView {
        by: by.parse().unwrap(),
        entrypoint: entrypoint.into(),
        is_silent,
        since: Duration::from_secs(since),
    };
    assert_eq!((total, &*all), (2, &[view("b", OURS, true, 0), view("c", "10.0.0.2:80", false, 7)][..]));
    let wanted: BTreeSet<Address> = all.into_iter().map(|one| one.entrypoint).collect();
    let state = agent.lock();
    let found = |name: &Owner| state.entrypoints_among(&name.name, &wanted, 0);
    assert_eq!(found(agent.owner()), ([OURS.into()].into(), None));
    assert_eq!(found(&b), (BTreeSet::new(), None));
    let names: Vec<_> = state.owner_names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b", "c"]);
}
