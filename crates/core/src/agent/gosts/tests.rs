//! Gosts that die, forget and ask, in paused time; dials are answered by the test.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::tests::{Agent, HERE, advance, now, owner, with_settings};
use super::super::{Broken, Heal, HealedFrom, LEASE_TTL, Restored, Settings};
use super::*;
use crate::lease::{FRESH, KeptLeases, Word};
use crate::quota::Quota;
use crate::record::Network;

const SECOND: Duration = Duration::from_secs(1);
/// A second less than a lease.
const NEARLY: Duration = LEASE_TTL.saturating_sub(SECOND);
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

fn agent() -> Agent {
    with(Restored::default())
}

fn with(restored: Restored) -> Agent {
    with_settings("a", 5, LEASE_TTL, Quota::default(), restored)
}

/// A record of tunnel `t` of a gost, which each listens at its own port.
fn holding(id: &str, node: &str) -> Holding {
    let port = 8_000 + u16::from(node.as_bytes()[0]);
    let [id, name, node] = [id, "t", node].map(Label::from);
    let record = Record { id, name, node, network: Network::Tcp, address: format!("10.0.0.1:{port}").into() };
    Holding { record: Arc::new(record), dial: format!("127.0.0.1:{port}").into() }
}

fn register(agent: &Agent, id: &str, node: &str) {
    register_over(agent, 1, id, node);
}

fn register_over(agent: &Agent, connection: ConnectionId, id: &str, node: &str) {
    bind(agent, Caller::local(connection), &holding(id, node));
}

/// gost registers, and says where it is.
fn bind(agent: &Agent, caller: Caller, holding: &Holding) {
    agent.register(caller, holding.clone()).unwrap();
    agent.note_entrypoint(caller, &holding.record, &holding.dial);
}

fn renew(agent: &Agent, id: &str, name: &str, node: &str) -> bool {
    renew_by(agent, HERE, id, name, node)
}

fn renew_by(agent: &Agent, caller: Caller, id: &str, name: &str, node: &str) -> bool {
    let heal = Heal { dial: &|_| String::new(), fallback: None };
    agent.renew(caller, Draft { id, name, node, network: "", address: "" }, &heal).unwrap()
}

/// The instances that are to be dialled now.
fn to_dial(agent: &Agent) -> Vec<Dial> {
    let mut state = agent.lock();
    let expired = state.leases.expire(now());
    state.tell_all(now(), expired.changes);
    state.dials(expired.trials, MAX_DIALS, |_| false)
}

fn only(dials: Vec<Dial>) -> Dial {
    let [dial] = <[Dial; 1]>::try_from(dials).expect("one gost to dial");
    dial
}

fn listed(agent: &Agent) -> usize {
    agent.resolve("t").len()
}

/// A gost of this host asks over that connection; how many records it is answered.
fn ask(agent: &Agent, connection: ConnectionId) -> usize {
    agent.asked(connection, "t");
    listed(agent)
}

#[test]
fn a_gost_whose_last_connection_closes_is_dialled_at_once_and_refusing_it_is_gone() {
    let agent = agent();
    register_over(&agent, 1, "1", "n");
    register_over(&agent, 2, "2", "n");
    register_over(&agent, 2, "3", "m");
    agent.connection_closed(1);
    assert!(to_dial(&agent).is_empty(), "it has another");
    agent.connection_closed(2);
    let dials = to_dial(&agent);
    assert_eq!(dials.len(), 2);
    assert!(to_dial(&agent).is_empty(), "once");
    let n = dials.into_iter().find(|dial| dial.node == *"n").unwrap();
    assert_eq!(n.addresses, ["127.0.0.1:8110".into()].into());
    assert!(agent.dialled(n, Dialled::Refused).is_none());
    assert_eq!(agent.resolve("t")[0].id, *"3");
    assert_eq!(agent.view().changes.lapsed, 2);
}

#[test]
fn a_snapshot_has_nothing_of_a_gost_that_is_dead_however_much_is_left_to_do() {
    let agent = agent();
    for n in 0..1_000 {
        register_over(&agent, 1, &n.to_string(), "n");
    }
    agent.connection_closed(1);
    agent.dialled(only(to_dial(&agent)), Dialled::Refused);
    let is_live = |agent: &Agent| agent.lock().leases().live();
    assert!((1..1_000).contains(&is_live(&agent)), "it goes in bites");
    let kept = agent.lock().all_kept(now());
    assert!(!kept.words.values().any(|word| matches!(word, Word::Held(_))));
    assert_eq!(is_live(&agent), 0);
}

#[test]
fn a_gost_that_returned_meanwhile_loses_nothing() {
    let agent = agent();
    register_over(&agent, 1, "1", "n");
    agent.connection_closed(1);
    let dial = only(to_dial(&agent));
    assert!(renew_by(&agent, Caller::local(2), "1", "t", "n"));
    assert!(agent.dialled(dial, Dialled::Refused).is_none());
    assert_eq!(listed(&agent), 1);
}

#[test]
fn an_answer_or_silence_leaves_the_lease_alone() {
    for (dialled, again) in [(Dialled::Answered, true), (Dialled::Silent, false)] {
        let agent = with(Restored {
            leases: KeptLeases { held: vec![holding("1", "n")], ..KeptLeases::default() },
            ..Restored::default()
        });
        let mut dial = only(to_dial(&agent));
        let mut dials = 1;
        while let Some(next) = agent.dialled(dial, dialled) {
            dial = next;
            dials += 1;
        }
        assert_eq!(
            dials,
            if again { 1 + LATER.len() } else { 1 },
            "a process that ends closes one socket after another"
        );
        advance(NEARLY);
        agent.collect_changes();
        assert_eq!(listed(&agent), 1, "{dialled:?}");
        // Whether it renews seldom or is gone, another dial tells.
        advance(SECOND);
        let dial = only(to_dial(&agent));
        agent.dialled(dial, dialled);
        assert_eq!(listed(&agent), usize::from(dialled == Dialled::Answered), "{dialled:?}");
    }
}

#[test]
fn a_gost_that_cannot_be_dialled_has_its_lease() {
    let agent = agent();
    let nowhere = Holding { dial: "".into(), ..holding("1", "n") };
    agent.register(HERE, nowhere).unwrap();
    agent.connection_closed(1);
    assert!(to_dial(&agent).is_empty());
    advance(NEARLY);
    agent.collect_changes();
    assert_eq!(listed(&agent), 1);
}

#[test]
fn no_more_gosts_are_dialled_at_a_time_than_there_is_room_for() {
    let held = (0..MAX_DIALS + 3).map(|n| {
        let Holding { record, dial } = holding(&n.to_string(), "n");
        let record = Record { node: n.to_string().into(), ..Record::clone(&record) };
        Holding { record: Arc::new(record), dial }
    });
    let leases = KeptLeases { held: held.collect(), ..KeptLeases::default() };
    let agent = with(Restored { leases, ..Restored::default() });
    assert_eq!(to_dial(&agent).len(), MAX_DIALS);
    assert_eq!(to_dial(&agent).len(), 3, "the others have their turn");
}

#[test]
fn a_gost_that_answers_does_not_lose_a_connector_for_an_unknown_period() {
    let agent = agent();
    register(&agent, "1", "n");
    loses_nothing(&agent);
    register(&agent, "2", "n");
    advance(899 * SECOND);
    assert!(to_dial(&agent).is_empty());
    assert_eq!(listed(&agent), 2, "three times five minutes, the new one, too");

    // Its HTTP client closes idle connections.
    let agent = self::agent();
    register(&agent, "1", "n");
    agent.connection_closed(1);
    loses_nothing(&agent);

    // It has not called this start of the agent.
    let leases = KeptLeases { held: vec![holding("1", "n")], ..KeptLeases::default() };
    loses_nothing(&with(Restored { leases, ..Restored::default() }));
}

/// A gost of which one connector is known answers every dial, and no connector is lost.
fn loses_nothing(agent: &Agent) {
    // Renewed every five minutes, first at the end of one.
    for renewed in [300, 600] {
        while agent.lock().leases.is_live(&"1".into()) && now() < at(agent, renewed) {
            advance(SECOND);
            for dial in to_dial(agent) {
                let mut next = Some(dial);
                while let Some(dial) = next {
                    next = agent.dialled(dial, Dialled::Answered);
                }
            }
        }
        assert_eq!(listed(agent), 1);
        assert!(renew(agent, "1", "t", "n"));
    }
}

fn at(agent: &Agent, second: u32) -> Instant {
    agent.lock().started + second * SECOND
}

#[test]
fn a_gost_on_trial_is_asked_because_a_frozen_one_can_be_connected_to() {
    let agent = agent();
    register(&agent, "1", "n");
    advance(LEASE_TTL);
    let dial = only(to_dial(&agent));
    assert!(dial.asks);
    agent.dialled(Dial::of(dial.node.clone(), dial.addresses.clone()), Dialled::Answered);
    assert_eq!(listed(&agent), 1);
    agent.dialled(dial, Dialled::Silent);
    assert_eq!(listed(&agent), 0, "a connection was no answer");
    register(&agent, "2", "n");
    agent.connection_closed(1);
    assert!(!only(to_dial(&agent)).asks, "a refusal is all that is looked for");
}

#[test]
fn a_connected_gost_that_does_not_answer_has_no_more_than_its_lease() {
    for dialled in [Dialled::Refused, Dialled::Silent] {
        let agent = agent();
        register(&agent, "1", "n");
        advance(LEASE_TTL);
        let dial = only(to_dial(&agent));
        assert_eq!(listed(&agent), 1);
        assert!(agent.dialled(dial, dialled).is_none());
        assert_eq!(listed(&agent), 0, "{dialled:?}");
    }
}

#[test]
fn a_get_of_the_only_gost_tells_that_its_own_record_is_stale() {
    let agent = agent();
    register(&agent, "1", "n");
    assert_eq!(ask(&agent, 1), 1, "it may have asked before");
    advance(FRESH + SECOND);
    assert_eq!(ask(&agent, 1), 0, "the very answer does not list it");
    assert_eq!((agent.view().changes.asked, agent.view().lapsed), (1, 1));
    assert!(!agent.collected().is_empty(), "and peers hear of it");
    assert!(renew(&agent, "1", "t", "n"));
    assert_eq!(listed(&agent), 1, "a late Renew revives it");
    assert_eq!(ask(&agent, 1), 1, "and that is a moment ago");
}

#[test]
fn a_get_after_a_restart_counts_at_once_whatever_its_connection() {
    let leases = KeptLeases { held: vec![holding("1", "n")], ..KeptLeases::default() };
    let agent = with(Restored { leases, ..Restored::default() });
    assert_eq!(ask(&agent, 7), 0);
}

#[test]
fn a_gost_with_several_connectors_of_a_tunnel_may_ask_for_the_other_network() {
    let agent = agent();
    register(&agent, "1", "n");
    register(&agent, "2", "n");
    for _ in 0..4 {
        advance(15 * SECOND);
        assert!(renew(&agent, "1", "t", "n") && renew(&agent, "2", "t", "n"));
    }
    advance(FRESH + SECOND);
    assert_eq!(ask(&agent, 1), 2, "one of them may be what it does not ask for");
    advance(12 * SECOND);
    assert!(renew(&agent, "1", "t", "n"));
    advance(4 * SECOND);
    agent.collect_changes();
    assert_eq!(listed(&agent), 2);
    advance(SECOND);
    agent.collect_changes();
    assert_eq!(listed(&agent), 1, "one more period of 15 s and 2 s to be late");
    assert_eq!(agent.view().changes.asked, 0);
}

#[test]
fn a_get_tells_nothing_where_another_gost_may_be_asking() {
    let old = || {
        let agent = agent();
        register_over(&agent, 1, "1", "n");
        advance(FRESH + SECOND);
        agent
    };
    let agent = old();
    register_over(&agent, 2, "other", "m");
    assert_eq!(ask(&agent, 1), 2, "two gosts have records here");

    let agent = old();
    assert!(!renew_by(&agent, Caller::at(ELSEWHERE, 2), "unknown", "u", "m"));
    assert_eq!(ask(&agent, 1), 1, "another gost is connected");
    agent.connection_closed(2);
    assert_eq!(ask(&agent, 1), 0);

    let agent = old();
    assert_eq!(ask(&agent, 2), 1, "the one that is registered here calls by another connection");

    let agent = old();
    let router =
        Record { name: "h@r".into(), network: Network::Udp, ..Record::clone(&holding("2", "r").record) };
    agent
        .register(Caller::local(2), Holding { record: Arc::new(router), dial: "127.0.0.1:1".into() })
        .unwrap();
    assert_eq!(ask(&agent, 1), 0, "a router's handler asks for other names");

    let agent = old();
    agent.asked(1, "another tunnel");
    assert_eq!(listed(&agent), 1);
}

#[test]
fn a_renew_that_nothing_else_heals_is_of_the_gost_that_registered_last() {
    let agent = agent();
    assert!(!renew(&agent, "x", "t", "m"), "nobody registered");
    register(&agent, "1", "n");
    register(&agent, "2", "o");
    assert!(renew(&agent, "x", "u", "m"));
    assert_eq!(agent.resolve("u")[0].address, *"10.0.0.1:8111");
    assert_eq!(agent.heals()[HealedFrom::RegisteredLast as usize].1, 1);
    assert!(!renew_by(&agent, Caller::at(ELSEWHERE, 2), "y", "u", "p"), "that is no gost of that host");
    bind(&agent, Caller::at(ELSEWHERE, 2), &holding("3", "q"));
    assert!(renew_by(&agent, Caller::at(ELSEWHERE, 2), "y", "v", "p"));
    assert_eq!(agent.resolve("v")[0].address, *"10.0.0.1:8113");
    agent.deregister(HERE, Draft { id: "1", name: "t", node: "n", network: "", address: "" });
    assert!(renew(&agent, "z", "w", "n"));
    assert_eq!(
        agent.resolve("w")[0].address,
        *"10.0.0.1:8110",
        "its own is the nearest, although it has no record"
    );
    assert_eq!(agent.heals()[HealedFrom::Sibling as usize].1, 1);
}

#[test]
fn a_healed_router_is_udp_and_at_a_routers_port() {
    let agent = agent();
    register(&agent, "1", "n");
    assert!(!renew(&agent, "x", "host@r", "n"), "a tunnel's port is not a router's");
    let heal = Heal { dial: &|_| String::new(), fallback: Some("10.0.0.1:9000".into()) };
    let draft = Draft { id: "x", name: "host@r", node: "n", network: "", address: "" };
    assert!(agent.renew(HERE, draft, &heal).unwrap());
    let healed = agent.resolve("host@r").remove(0);
    assert_eq!((healed.network, &healed.address), (Network::Udp, &"10.0.0.1:9000".into()));

    let router =
        Record { name: "a@r".into(), network: Network::Udp, ..Record::clone(&holding("2", "r").record) };
    bind(&agent, HERE, &Holding { record: Arc::new(router), dial: "".into() });
    assert!(renew(&agent, "y", "b@r", "r") && renew(&agent, "z", "c@r", "s"));
    for name in ["b@r", "c@r"] {
        let healed = agent.resolve(name).remove(0);
        assert_eq!((healed.network, &healed.address), (Network::Udp, &"10.0.0.1:8114".into()), "{name}");
    }
    assert!(renew(&agent, "w", "u", "r"));
    let healed = agent.resolve("u").remove(0);
    assert_eq!(
        (healed.network, &healed.address),
        (Network::Tcp, &"10.0.0.1:8110".into()),
        "the last tunnel's"
    );
}

#[test]
fn what_is_known_of_gosts_outlives_a_restart() {
    let agent = agent();
    agent.use_journal();
    register(&agent, "1", "n");
    for _ in 0..4 {
        advance(100 * SECOND);
        assert!(renew(&agent, "1", "t", "n"));
    }
    let batch = agent.take_batch();
    let held = batch.words.values().filter_map(|word| match word {
        Word::Held(holding) => Some(holding.clone()),
        Word::Lapsed(_) | Word::Released(_) | Word::Forgotten => None,
    });
    let periods = batch.periods.iter().filter_map(|(node, period)| Some((node.clone(), (*period)?)));
    let leases = KeptLeases { held: held.collect(), periods: periods.collect(), ..KeptLeases::default() };
    let entrypoints = batch.entrypoints.into_values().flatten().collect();
    let after = with(Restored { leases, entrypoints, ..Restored::default() });
    advance(299 * SECOND);
    assert!(to_dial(&after).len() == 1 && listed(&after) == 1, "three periods of 100 s");
    assert!(renew(&after, "x", "u", "another"));
    assert_eq!(after.resolve("u")[0].address, *"10.0.0.1:8110");
}

#[test]
fn a_gost_that_does_not_say_where_it_is_replaces_only_one_that_is_gone() {
    let unsaid = |id, node| {
        let Holding { record, dial } = holding(id, "n");
        let node: &str = node;
        Holding { record: Arc::new(Record { node: node.into(), ..Record::clone(&record) }), dial }
    };
    let agent = agent();
    register_over(&agent, 1, "1", "n");
    agent.register_unsaid(Caller::local(2), unsaid("2", "m")).unwrap();
    assert_eq!(listed(&agent), 2, "another service of one gost, perhaps");
    agent.connection_closed(1);
    agent.connection_closed(2);
    agent.register_unsaid(Caller::local(3), unsaid("3", "o")).unwrap();
    let left: Vec<_> = agent.resolve("t").iter().map(|record| record.id.to_string()).collect();
    assert!(
        left.contains(&"3".to_owned()) && !left.contains(&"1".to_owned()),
        "it was started again: {left:?}"
    );
    agent.deregister(HERE, Draft { id: "overtaken", name: "t", node: "o", network: "", address: "" });
    agent.register_unsaid(Caller::local(3), unsaid("overtaken", "p")).unwrap();
    assert!(!agent.lock().leases.is_live(&"overtaken".into()));
    assert_eq!(
        agent.lock().entrypoints.len(),
        1,
        "what was guessed is no entrypoint that anybody registered"
    );
}

#[test]
fn an_agent_whose_leases_are_broken_on_purpose_goes_on_listing_a_dead_gost() {
    let broken = Broken { leases: true, ..Broken::default() };
    let settings = Settings { broken, ..Settings::of(owner("a", 5)) };
    let agent = Agent::new(&settings, Restored::default());
    register(&agent, "1", "n");
    agent.connection_closed(1);
    let dial = only(agent.lock().dials(BTreeSet::new(), MAX_DIALS, |_| false));
    assert!(agent.dialled(dial, Dialled::Refused).is_none());
    advance(2 * LEASE_TTL);
    agent.collect_changes();
    assert_eq!(ask(&agent, 1), 1, "or the tests in containers could not tell");
}
