//! The lease table in scenarios.

use super::*;
use crate::record::Network;
use crate::slot::Content;
use crate::slot::tests::record;
use crate::tombstone::IN_FLIGHT;

const TTL: Duration = Duration::from_secs(60);

fn table() -> (LeaseTable, Instant) {
    (LeaseTable::new(Instant::now(), TTL), Instant::now())
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn take(table: &mut LeaseTable, now: Instant, id: &str) -> Option<Write> {
    register(table, now, &record(id, "t")).pop()
}

fn register(table: &mut LeaseTable, now: Instant, record: &Record) -> Vec<Write> {
    let holding = Holding { record: Arc::new(record.clone()), dial: "127.0.0.1:80".into() };
    table.register(now, holding).unwrap()
}

/// What lapses of an instance with few records.
fn judge(table: &mut LeaseTable, now: Instant, node: &Label, verdict: Verdict) -> Vec<Write> {
    table.judge(now, node, verdict).changes
}

/// What lapses of gosts that answer no dial.
fn expire(table: &mut LeaseTable, now: Instant) -> Vec<Write> {
    let Expired { mut changes, trials } = table.expire(now);
    changes.extend(trials.iter().flat_map(|node| judge(table, now, node, Verdict::Unanswered)));
    changes
}

/// A record of an instance at an address.
fn of(id: &str, node: &str, address: &str) -> Record {
    Record { node: node.into(), address: address.into(), ..(*record(id, "t")).clone() }
}

#[test]
fn registering_twice_says_it_once() {
    let (mut table, now) = table();
    assert!(take(&mut table, now, "1").is_some());
    assert_eq!(take(&mut table, now, "1"), None);
    assert_eq!(table.live(), 1);
}

#[test]
fn a_moved_record_keeps_its_slot() {
    let (mut table, now) = table();
    let first = take(&mut table, now, "1").unwrap();
    let moved = Record { address: "10.0.0.2:80".into(), ..(*record("1", "t")).clone() };
    let second = register(&mut table, now, &moved).remove(0);
    assert_eq!(first.slot, second.slot);
}

#[test]
fn a_renew_in_flight_beside_a_deregister_does_not_bring_the_record_back() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    assert_eq!(table.release(now, &"1".into()).unwrap().content, Content::Empty);
    assert_eq!(table.renew(now + IN_FLIGHT.saturating_sub(secs(1)), &"1".into()), Renewal::Released);
    assert_eq!(table.renew(now + IN_FLIGHT, &"1".into()), Renewal::Unknown, "a minute later it is any Renew");
    assert_eq!(table.live(), 0);
}

#[test]
fn an_id_that_was_held_and_released_is_registered_anew_at_once() {
    let (mut table, now) = table();
    for _ in 0..3 {
        assert!(take(&mut table, now, "1").is_some());
        assert_eq!(table.renew(now, &"1".into()), Renewal::Renewed);
        assert!(table.release(now, &"1".into()).is_some());
    }
    assert_eq!(table.word(&"1".into()), Word::Released(Release::Held));
    take(&mut table, now, "lapsed");
    expire(&mut table, now + TTL);
    assert_eq!(table.release(now + TTL, &"lapsed".into()), None);
    assert!(take(&mut table, now + TTL, "lapsed").is_some(), "a lapsed one was held, too");
}

#[test]
fn a_deregister_may_overtake_its_register_by_a_minute() {
    let (mut table, now) = table();
    assert_eq!(table.release(now, &"1".into()), None);
    assert_eq!(take(&mut table, now, "1"), None);
    assert_eq!(take(&mut table, now + IN_FLIGHT.saturating_sub(secs(1)), "1"), None);
    assert_eq!(table.word(&"1".into()), Word::Released(Release::Unheard));
    assert!(take(&mut table, now + IN_FLIGHT, "1").is_some(), "whoever registers now did not send it before");
}

#[test]
fn a_release_is_forgotten_when_nothing_can_be_in_flight_beside_it() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    table.release(now, &"1".into());
    table.take_touched();
    expire(&mut table, now + IN_FLIGHT);
    assert_eq!(table.take_touched(), ["1".into()].into(), "the journal forgets it, too");
    assert_eq!((table.word(&"1".into()), table.released()), (Word::Forgotten, 0));
}

#[test]
fn an_overdue_record_lapses_and_a_late_renew_revives_it() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    assert!(expire(&mut table, now + secs(59)).is_empty());
    assert_eq!(expire(&mut table, now + secs(60)).len(), 1);
    assert_eq!(table.live(), 0);
    assert!(matches!(table.renew(now + secs(90), &"1".into()), Renewal::Revived(_)));
    assert_eq!(table.live(), 1);
}

#[test]
fn a_record_lapsed_for_an_hour_is_forgotten() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    expire(&mut table, now + secs(60));
    expire(&mut table, now + secs(60) + KEEP_LAPSED);
    assert_eq!(table.renew(now + secs(60) + KEEP_LAPSED, &"1".into()), Renewal::Unknown);
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn renews_teach_their_period() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in [3, 18, 33, 48] {
        table.renew(now + secs(at), &"1".into());
    }
    assert!(expire(&mut table, now + secs(48 + 44)).is_empty());
    assert_eq!(expire(&mut table, now + secs(48 + 45)).len(), 1, "three periods of 15 s");
}

#[test]
fn a_long_period_counts_at_once_and_a_short_one_when_it_is_sure() {
    let (mut table, now) = table();
    register(&mut table, now, &of("long", "a", "10.0.0.1:80"));
    register(&mut table, now, &of("late", "b", "10.0.0.1:81"));
    for at in [20, 59] {
        table.renew(now + secs(at), &"long".into());
    }
    // Held up until 13 s, so that the next one comes 2 s later.
    for at in [13, 15] {
        table.renew(now + secs(at), &"late".into());
    }
    assert!(expire(&mut table, now + secs(14) + TTL).is_empty(), "not after three times 2 s");
    assert_eq!(expire(&mut table, now + secs(15) + TTL).len(), 1);
    assert!(expire(&mut table, now + secs(59 + 3 * 39 - 1)).is_empty());
    assert_eq!(expire(&mut table, now + secs(59 + 3 * 39)).len(), 1);
}

#[test]
fn a_hasty_pair_of_renews_does_not_shorten_the_lease() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in [10, 25, 53, 55] {
        assert_eq!(table.renew(now + secs(at), &"1".into()), Renewal::Renewed);
    }
    assert!(expire(&mut table, now + secs(55 + 83)).is_empty(), "the longest of 15, 28 and 2 s, three times");
}

#[test]
fn a_learned_lease_is_never_under_five_seconds() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in 0..4 {
        table.renew(now + Duration::from_millis(at), &"1".into());
    }
    assert!(expire(&mut table, now + secs(4)).is_empty());
}

#[test]
fn an_instance_that_registers_at_anothers_entrypoint_replaces_it_at_once() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "old", "10.0.0.1:80"));
    register(&mut table, now, &of("2", "old", "10.0.0.1:80"));
    register(&mut table, now, &of("3", "old", "10.0.0.1:90"));
    let changes = register(&mut table, now, &of("4", "new", "10.0.0.1:80"));
    assert_eq!(changes.len(), 3, "one new, two gone");
    assert_eq!(table.live(), 2, "what the old one has elsewhere stays");
    assert!(register(&mut table, now, &of("5", "new", "10.0.0.1:80")).len() == 1, "once");
}

#[test]
fn instances_at_different_addresses_leave_each_other_alone() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "a", "10.0.0.1:80"));
    register(&mut table, now, &of("2", "b", "10.0.0.2:80"));
    register(&mut table, now, &of("3", "c", "10.0.0.1:81"));
    assert_eq!(table.live(), 3);
}

#[test]
fn a_router_at_a_udp_port_does_not_replace_a_tunnel_at_the_tcp_port() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "tunnels", "10.0.0.1:80"));
    let router = Record { name: "host@r".into(), network: Network::Udp, ..of("2", "router", "10.0.0.1:80") };
    register(&mut table, now, &router);
    assert_eq!(table.live(), 2);
}

#[test]
fn a_replaced_instance_that_still_renews_is_alive() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "a", "10.0.0.9:80"));
    register(&mut table, now, &of("2", "b", "10.0.0.9:80"));
    assert!(matches!(table.renew(now, &"1".into()), Renewal::Revived(_)));
    assert_eq!(table.live(), 2);
    assert!(register(&mut table, now, &of("3", "b", "10.0.0.9:80")).len() == 1, "b has replaced a already");
}

#[test]
fn all_records_of_a_dead_instance_lapse_and_no_others() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "a", "10.0.0.1:80"));
    register(&mut table, now, &of("2", "a", "10.0.0.1:81"));
    register(&mut table, now, &of("3", "b", "10.0.0.1:82"));
    assert_eq!(judge(&mut table, now, &"a".into(), Verdict::Dead).len(), 2);
    assert!(judge(&mut table, now, &"a".into(), Verdict::Dead).is_empty(), "once");
    assert_eq!((table.live(), table.lapsed()), (1, 2));
    assert!(
        matches!(table.renew(now + secs(9), &"1".into()), Renewal::Revived(_)),
        "it was not dead after all"
    );
}

#[test]
fn a_gost_with_many_lapsed_records_and_one_that_lives_can_be_dialled() {
    let (mut table, now) = table();
    for n in 0..1_500 {
        register(&mut table, now, &of(&format!("{n:04}"), "a", "10.0.0.1:80"));
    }
    judge(&mut table, now, &"a".into(), Verdict::Dead);
    while table.has_pending() {
        table.carry_out();
    }
    assert!(table.dials(&"a".into()).is_empty());
    table.renew(now + secs(1), &"1499".into());
    assert_eq!(table.dials(&"a".into()), ["127.0.0.1:80".into()].into());
}

#[test]
fn a_new_connector_has_the_period_of_its_gost_at_once() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in [0, 100, 200, 300] {
        table.renew(now + secs(at), &"1".into());
    }
    table.release(now + secs(301), &"1".into());
    let later = now + secs(310);
    take(&mut table, later, "2");
    assert!(expire(&mut table, later + secs(299)).is_empty(), "also if it had none for a while");
    assert_eq!(expire(&mut table, later + secs(300)).len(), 1, "three periods of 100 s");
    assert_eq!(table.remaining(later, &"2".into()), None, "it has lapsed");
    register(&mut table, later, &of("3", "another", "10.0.0.1:81"));
    assert_eq!(expire(&mut table, later + TTL).len(), 1, "another gost has its own");
}

#[test]
fn a_period_outlives_a_restart() {
    let (mut before, now) = table();
    take(&mut before, now, "1");
    for at in [0, 100, 200, 300] {
        before.renew(now + secs(at), &"1".into());
    }
    let periods: Vec<_> =
        before.take_periods().into_iter().filter_map(|(node, p)| Some((node, p?))).collect();
    assert_eq!(periods, [("node".into(), secs(100))]);
    let Word::Held(held) = before.word(&"1".into()) else { panic!("it is held") };
    let mut after = LeaseTable::new(now, TTL);
    after.restore(now, KeptLeases { held: vec![held], periods, ..KeptLeases::default() });
    assert!(!after.is_touched());
    assert!(expire(&mut after, now + secs(299)).is_empty());
    take(&mut after, now, "2");
    assert_eq!(expire(&mut after, now + secs(300)).len(), 2);
}

/// A record that nobody renews, when its lease has ended.
fn on_trial() -> (LeaseTable, Instant) {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    let Expired { changes, trials } = table.expire(now + TTL);
    assert_eq!((changes, trials), (Vec::new(), ["node".into()].into()));
    (table, now + TTL)
}

#[test]
fn a_connector_whose_gost_has_no_known_period_is_dialled_before_it_lapses() {
    let (mut table, now) = on_trial();
    assert!(table.is_live(&"1".into()));
    judge(&mut table, now, &"node".into(), Verdict::Answered);
    assert!(expire(&mut table, now + TTL.saturating_sub(secs(1))).is_empty());
    assert_eq!(table.expire(now + TTL).trials.len(), 1, "once for each lease");
    assert_eq!(judge(&mut table, now + TTL, &"node".into(), Verdict::Unanswered).len(), 1);
    assert_eq!((table.live(), table.lapsed()), (0, 1));
    assert!(judge(&mut table, now + TTL, &"node".into(), Verdict::Unanswered).is_empty());
    assert!(matches!(table.renew(now + TTL, &"1".into()), Renewal::Revived(_)), "like any other");
}

#[test]
fn a_renew_ends_a_trial_however_the_dial_ends() {
    let (mut table, now) = on_trial();
    assert_eq!(table.renew(now, &"1".into()), Renewal::Renewed);
    assert!(judge(&mut table, now, &"node".into(), Verdict::Unanswered).is_empty());
    assert!(table.is_live(&"1".into()));
}

#[test]
fn a_dial_that_does_not_end_is_asked_for_again() {
    let (mut table, now) = on_trial();
    assert!(table.expire(now + secs(1)).trials.is_empty());
    assert_eq!(table.expire(now + secs(5)).trials.len(), 1);
    assert_eq!(expire(&mut table, now + secs(10)).len(), 1, "nobody answers");
}

#[test]
fn who_is_known_to_renew_or_was_silent_for_too_long_or_cannot_be_dialled_is_not_on_trial() {
    let (mut table, now) = table();
    let lapses = |table: &mut LeaseTable, at: Instant| {
        let Expired { changes, trials } = table.expire(at);
        (changes.len(), trials.len())
    };
    take(&mut table, now, "1");
    table.renew(now, &"1".into());
    table.renew(now + secs(15), &"1".into());
    assert_eq!(lapses(&mut table, now + secs(15) + TTL), (1, 0), "it is late");

    let (mut table, now) = on_trial();
    let mut end = now;
    while table.is_live(&"1".into()) {
        judge(&mut table, end, &"node".into(), Verdict::Answered);
        end += TTL;
        table.expire(end);
    }
    assert_eq!(end + TTL, now + LONGEST_PERIOD);

    let (mut table, now) = self::table();
    let nowhere = Holding { record: record("1", "t"), dial: "".into() };
    table.register(now, nowhere).unwrap();
    let router = Record { name: "host@r".into(), network: Network::Udp, ..of("2", "r", "10.0.0.1:80") };
    register(&mut table, now, &router);
    assert_eq!(lapses(&mut table, now + TTL), (2, 0));
}

#[test]
fn a_gost_that_asks_for_its_own_tunnel_has_lost_its_only_connector() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    let asked = |table: &mut LeaseTable, at| table.asked(at, &["1".into()]);
    assert_eq!(asked(&mut table, now + FRESH), AskOutcome::Fresh, "it may have asked before");
    assert_eq!(table.renew(now + secs(3), &"1".into()), Renewal::Renewed);
    assert_eq!(asked(&mut table, now + secs(5)), AskOutcome::Fresh);
    let late = now + secs(5) + Duration::from_millis(1);
    assert!(matches!(asked(&mut table, late), AskOutcome::Lapsed(_)));
    assert_eq!((table.live(), table.lapsed(), asked(&mut table, late)), (0, 1, AskOutcome::Fresh));
    assert!(matches!(table.renew(late, &"1".into()), Renewal::Revived(_)), "it was not stale after all");
}

#[test]
fn what_a_journal_kept_is_old_from_the_first_moment() {
    let now = Instant::now();
    let mut table = LeaseTable::new(now, TTL);
    let held = vec![Holding { record: record("1", "t"), dial: "127.0.0.1:80".into() }];
    table.restore(now, KeptLeases { held, ..KeptLeases::default() });
    assert!(matches!(table.asked(now, &["1".into()]), AskOutcome::Lapsed(_)));
}

#[test]
fn a_gost_with_several_connectors_may_ask_for_another_network_and_has_one_more_period() {
    let (mut table, now) = table();
    for id in ["1", "2"] {
        take(&mut table, now, id);
        for at in [0, 15, 30, 45] {
            table.renew(now + secs(at), &id.into());
        }
    }
    let now = now + secs(50);
    take(&mut table, now, "young");
    let all = ["1", "2", "young"].map(Label::from);
    assert_eq!(table.asked(now, &all), AskOutcome::Shortened);
    table.renew(now + secs(10), &"1".into());
    assert!(expire(&mut table, now + secs(16)).is_empty(), "a period of 15 s and 2 s to be late");
    assert_eq!(expire(&mut table, now + secs(17)).len(), 1);
    assert!(table.is_live(&"1".into()) && table.is_live(&"young".into()) && table.is_lapsed(&"2".into()));
}

#[test]
fn only_instances_with_live_records_of_the_tunnel_handler_count_as_gosts() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "a", "10.0.0.1:80"));
    let router = Record { name: "host@r".into(), network: Network::Udp, ..of("2", "r", "10.0.0.1:80") };
    register(&mut table, now, &router);
    let (a, b, r) = ("a".into(), "b".into(), "r".into());
    assert!(table.is_the_only_one(&a) && !table.is_the_only_one(&r));
    assert!(table.is_routers(&r) && !table.is_routers(&a) && !table.is_routers(&"unknown".into()));
    register(&mut table, now, &of("3", "b", "10.0.0.1:81"));
    assert!(!table.is_the_only_one(&a) && !table.is_the_only_one(&b));
    judge(&mut table, now, &b, Verdict::Dead);
    assert!(table.is_the_only_one(&a));
}

#[test]
fn a_lease_that_gets_shorter_ends_earlier() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in 1..5 {
        table.renew(now + secs(at), &"1".into());
    }
    assert!(table.next_deadline().unwrap() <= now + secs(4 + 5), "not at the first minute");
    assert_eq!(expire(&mut table, now + secs(9)).len(), 1);
}

#[test]
fn doubts_do_not_fill_the_heap() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    take(&mut table, now, "2");
    for n in (0..3_000).step_by(3) {
        table.asked(now + secs(n), &["1".into(), "2".into()]);
        table.renew(now + secs(n), &"1".into());
        expire(&mut table, now + secs(n));
    }
    assert!(table.deadlines.len() < 100, "{}", table.deadlines.len());
}

#[test]
fn a_routers_instance_is_dialled_at_a_udp_port() {
    let (mut table, now) = table();
    let router = Record { name: "host@r".into(), network: Network::Udp, ..of("1", "r", "10.0.0.1:80") };
    register(&mut table, now, &router);
    assert!(table.dials(&"r".into()).is_empty());
    assert_eq!(table.router_dials(&"r".into()), ["127.0.0.1:80".into()].into());
    register(&mut table, now, &of("2", "a", "10.0.0.1:80"));
    register(&mut table, now, &of("3", "a", "10.0.0.1:80"));
    assert_eq!(table.dials(&"a".into()), ["127.0.0.1:80".into()].into());
}

#[test]
fn what_a_journal_kept_is_back_with_fresh_leases() {
    let (mut before, now) = table();
    take(&mut before, now, "1");
    take(&mut before, now, "2");
    before.release(now, &"2".into());
    let touched = before.take_touched();
    assert_eq!(touched.len(), 2);
    let Word::Held(held) = before.word(&"1".into()) else { panic!("1 is held") };
    let released = Word::Released(Release::Held);
    assert_eq!((before.word(&"2".into()), before.word(&"3".into())), (released, Word::Forgotten));

    let mut after = LeaseTable::new(now, TTL);
    let released = vec![("2".into(), Release::Held), ("3".into(), Release::Unheard)];
    let kept = KeptLeases { held: vec![held], released, ..KeptLeases::default() };
    assert_eq!(after.restore(now + secs(50), kept).len(), 1);
    assert!(after.take_touched().is_empty(), "the journal knows");
    assert_eq!(take(&mut after, now + secs(50), "3"), None, "its Deregister was first");
    assert_eq!(after.renew(now + secs(50), &"2".into()), Renewal::Released);
    assert!(expire(&mut after, now + secs(109)).is_empty());
    assert_eq!(expire(&mut after, now + secs(110)).len(), 1);
    assert!(take(&mut after, now + secs(110), "2").is_some(), "a new record");
}

#[test]
fn what_had_lapsed_is_not_said_again_after_a_restart_but_can_be_revived() {
    let (mut before, now) = table();
    take(&mut before, now, "1");
    before.take_touched();
    assert_eq!(expire(&mut before, now + TTL).len(), 1);
    assert_eq!(before.take_touched(), ["1".into()].into(), "the journal has to know");
    let Word::Lapsed(lapsed) = before.word(&"1".into()) else { panic!("1 has lapsed") };

    let mut after = LeaseTable::new(now, TTL);
    assert!(after.restore(now, KeptLeases { lapsed: vec![lapsed], ..KeptLeases::default() }).is_empty());
    assert_eq!((after.live(), after.lapsed(), after.lapsed_bytes()), (0, 1, after.bytes()));
    assert!(matches!(after.renew(now + secs(5), &"1".into()), Renewal::Revived(_)));
    assert_eq!(after.take_touched(), ["1".into()].into(), "live again");
    assert!(matches!(after.word(&"1".into()), Word::Held(_)));
    assert_eq!((after.live(), after.lapsed_bytes()), (1, 0));
}

#[test]
fn an_instance_from_before_a_restart_is_replaced_like_any_other() {
    let (mut before, now) = table();
    let Some(_) = take(&mut before, now, "1") else { panic!("it is taken") };
    let Word::Held(held) = before.word(&"1".into()) else { panic!("1 is held") };
    let entrypoint = held.record.address.clone();
    let mut after = LeaseTable::new(now, TTL);
    after.restore(now, KeptLeases { held: vec![held], ..KeptLeases::default() });
    register(&mut after, now, &of("2", "another", &entrypoint.to_string()));
    assert_eq!((after.is_lapsed(&"1".into()), after.is_live(&"2".into())), (true, true));
}

#[test]
fn everything_can_be_told_to_a_journal_again() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    table.release(now, &"2".into());
    table.take_touched();
    table.touch_all();
    assert_eq!(table.take_touched(), ["1".into(), "2".into()].into());
}

#[test]
fn a_sibling_of_the_same_handler_tells_an_instances_address() {
    let (mut table, now) = table();
    let sibling = |table: &LeaseTable, routers| {
        table.sibling(&"a".into(), routers).map(|holding| holding.record.id.to_string())
    };
    let router = Record { name: "host@r".into(), network: Network::Udp, ..of("1", "a", "10.0.0.1:80") };
    register(&mut table, now, &router);
    assert_eq!((sibling(&table, false), sibling(&table, true).as_deref()), (None, Some("1")));
    register(&mut table, now, &Record { network: Network::Udp, ..of("2", "a", "10.0.0.1:90") });
    assert_eq!(sibling(&table, false).as_deref(), Some("2"), "a tunnel's udp connector is at its TCP port");
    table.release(now, &"2".into());
    assert_eq!(sibling(&table, false), None);
}

#[test]
#[ignore = "seconds: scripts/check.sh runs it"]
fn an_instance_that_goes_and_returns_again_and_again_leaves_no_deadlines_behind() {
    let (mut table, now) = table();
    for n in 0..100 {
        register(&mut table, now, &of(&n.to_string(), "n", "10.0.0.1:80"));
    }
    for second in 0..1_000 {
        let now = now + secs(second);
        assert_eq!(judge(&mut table, now, &"n".into(), Verdict::Dead).len(), 100);
        for n in 0..100 {
            assert!(matches!(table.renew(now, &n.to_string().as_str().into()), Renewal::Revived(_)));
        }
        expire(&mut table, now);
        assert!(table.deadlines() <= table.deadlines_max(), "{} after {second} s", table.deadlines());
    }
    assert_eq!(expire(&mut table, now + secs(2_000)).len(), 100, "each is still looked at in time");
}

#[test]
fn the_capacity_of_a_peak_is_given_back() {
    let (mut table, now) = table();
    for n in 0..10_000 {
        register(&mut table, now, &of(&n.to_string(), &n.to_string(), &format!("10.0.0.1:{}", n + 1)));
    }
    for n in 10..10_000 {
        table.release(now, &n.to_string().as_str().into());
    }
    expire(&mut table, now + secs(59));
    assert!(table.capacity() >= 50_000);
    assert_eq!(expire(&mut table, now + TTL).len(), 10);
    table.give_back();
    assert_eq!((table.lapsed(), table.slot_gaps()), (10, 0));
    assert!(table.capacity() < 400, "{}", table.capacity());
}

fn imported(table: &mut LeaseTable, now: Instant, id: &str) -> Imported {
    table.import(now, Holding { record: record(id, "t"), dial: "127.0.0.1:80".into() }).unwrap()
}

#[test]
fn what_is_imported_waits_for_its_renew() {
    let (mut table, now) = table();
    assert!(matches!(imported(&mut table, now, "1"), Imported::Taken(_)));
    assert_eq!(imported(&mut table, now, "1"), Imported::Held { is_confirmed: false });
    assert_eq!(table.renew(now, &"1".into()), Renewal::Renewed);
    assert_eq!(imported(&mut table, now, "1"), Imported::Held { is_confirmed: true });
    assert!(table.take_touched().contains(&"1".into()), "the journal gets it");
    assert_eq!(table.live(), 1);
}

#[test]
fn what_nobody_renews_lapses_and_is_imported_again() {
    let (mut table, now) = table();
    imported(&mut table, now, "1");
    assert_eq!(expire(&mut table, now + TTL).len(), 1);
    assert!(matches!(imported(&mut table, now + TTL, "1"), Imported::Taken(_)));
    assert_eq!((table.live(), table.lapsed()), (1, 0));
}

#[test]
fn gosts_deregister_counts_more_than_an_import() {
    let (mut table, now) = table();
    assert_eq!(table.release(now, &"1".into()), None);
    assert_eq!(imported(&mut table, now, "1"), Imported::Released);
    assert_eq!(table.live(), 0);
}

#[test]
fn an_import_replaces_no_instance_that_registers_at_the_same_entrypoint() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "new", "10.0.0.1:80"));
    let former = of("2", "former", "10.0.0.1:80");
    let imported = table.import(now, Holding { record: Arc::new(former), dial: "127.0.0.1:80".into() });
    assert!(matches!(imported, Ok(Imported::Taken(_))));
    assert_eq!(table.live(), 2, "both live until the former one is not renewed");
}
