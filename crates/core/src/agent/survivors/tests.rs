//! Peers that die and leave their gosts behind, in paused time; dials are answered by the test.

use super::super::tests::{Agent, advance, agent, hear, ids, lose, now, owner, say};
use super::super::{LEASE_TTL, Owner};
use super::*;
use crate::agent::News;
use crate::slot::Status;

/// An agent that lost a peer with a record, which visitors ask for.
fn lost() -> (Agent, Owner) {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &["1"], Status::Ready);
    hear(&agent, &b);
    assert!(due(&agent).is_empty(), "nobody dials peers that are heard");
    lose(&agent, &b);
    assert_eq!(ids(&agent), ["1"]);
    (agent, b)
}

/// The entrypoints that are to be dialled now.
fn due(agent: &Agent) -> Vec<Address> {
    agent.lock().survivors.take_due(now())
}

/// Visitors ask once a second, and every dial ends like this.
fn pass(agent: &Agent, time: Duration, dialled: Dialled) {
    let end = now() + time;
    while now() < end {
        ids(agent);
        for address in due(agent) {
            agent.survivor_dialled(&address, dialled);
        }
        advance(Duration::from_secs(1));
    }
}

#[test]
fn the_record_of_a_dead_peer_stays_while_its_gost_answers_and_for_an_hour_at_most() {
    let (agent, _) = lost();
    pass(&agent, LEASE_TTL + PAUSE, Dialled::Answered);
    assert_eq!(ids(&agent), ["1"]);
    let b = agent.view().members.into_iter().find(|member| member.name.as_str() == "b").unwrap();
    assert_eq!(b.standing, Standing::Hidden, "the peer itself is dead");
    let at = agent.explain("t").remove(0);
    assert_eq!((at.rank, at.owner.standing), (Some(0), Standing::Hidden));

    pass(&agent, PRESERVE.saturating_sub(LEASE_TTL + 2 * PAUSE), Dialled::Answered);
    assert_eq!(ids(&agent), ["1"]);
    pass(&agent, 2 * PAUSE, Dialled::Answered);
    assert!(ids(&agent).is_empty());
}

#[test]
fn it_comes_last_and_goes_when_its_gost_refuses_or_is_silent() {
    for dialled in [Dialled::Refused, Dialled::Silent] {
        let (agent, _) = lost();
        pass(&agent, LEASE_TTL + PAUSE, Dialled::Answered);
        let c = owner("c", 1);
        say(&agent, &c, &["2"], Status::Ready);
        hear(&agent, &c);
        assert_eq!(ids(&agent), ["2", "1"]);
        pass(&agent, PAUSE, dialled);
        assert_eq!(ids(&agent), ["2"], "{dialled:?}");
    }
}

#[test]
fn nothing_is_kept_of_a_peer_that_nobody_dialled_or_that_said_goodbye() {
    let (agent, _) = lost();
    advance(LEASE_TTL);
    assert!(ids(&agent).is_empty());

    let (agent, b) = lost();
    pass(&agent, LEASE_TTL, Dialled::Answered);
    say(&agent, &b, &["1"], Status::Left);
    assert!(ids(&agent).is_empty());
}

#[test]
fn it_is_not_forgotten_while_its_gost_answers() {
    let (agent, b) = lost();
    pass(&agent, LEASE_TTL + PAUSE, Dialled::Answered);
    agent.handle(News::Forgotten { owner: b });
    agent.collect_changes();
    assert_eq!(ids(&agent), ["1"]);
    pass(&agent, 2 * PAUSE, Dialled::Refused);
    agent.collect_changes();
    assert_eq!(agent.view().counts.records, 0);
}

#[test]
fn what_nobody_asks_for_is_dialled_no_more_and_there_is_a_bound() {
    let (agent, b) = lost();
    assert_eq!(due(&agent).len(), 1);
    assert!(due(&agent).is_empty(), "after a pause");
    advance(PAUSE);
    assert_eq!(due(&agent).len(), 1);
    advance(WANTED);
    assert!(due(&agent).is_empty());
    assert_eq!(agent.lock().survivors.len(), 0);

    for n in 1..=MAX_ENTRYPOINTS + 1 {
        agent.lock().survivors.want(now(), &format!("10.0.0.1:{n}").as_str().into(), &b.name);
    }
    assert_eq!(due(&agent).len(), MAX_ENTRYPOINTS);
}
