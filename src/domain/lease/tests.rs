//! The lease table in scenarios.

use super::*;
use crate::domain::slot::Content;
use crate::domain::slot::tests::record;

const TTL: Duration = Duration::from_secs(60);

fn table() -> (LeaseTable, Instant) {
    (LeaseTable::new(Instant::now(), TTL), Instant::now())
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn take(table: &mut LeaseTable, now: Instant, id: &str) -> Option<Change> {
    register(table, now, &record(id, "t")).pop()
}

fn register(table: &mut LeaseTable, now: Instant, record: &Record) -> Vec<Change> {
    let holding = Holding { record: Arc::new(record.clone()), dial: "127.0.0.1:80".into() };
    table.register(now, holding).unwrap()
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
    assert!(second.cell.seq > first.cell.seq);
}

#[test]
fn the_first_deregister_wins_over_whatever_comes_later() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    assert_eq!(table.release(&"1".into()).unwrap().cell.content, Content::Empty);
    assert_eq!(take(&mut table, now, "1"), None);
    assert_eq!(table.renew(now, &"1".into()), Renewal::Released);
    assert_eq!(table.live(), 0);
}

#[test]
fn a_deregister_may_overtake_its_register() {
    let (mut table, now) = table();
    assert_eq!(table.release(&"1".into()), None);
    assert_eq!(take(&mut table, now, "1"), None);
}

#[test]
fn an_overdue_record_lapses_and_a_late_renew_revives_it() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    assert!(table.expire(now + secs(59)).is_empty());
    assert_eq!(table.expire(now + secs(60)).len(), 1);
    assert_eq!(table.live(), 0);
    assert!(matches!(table.renew(now + secs(90), &"1".into()), Renewal::Revived(_)));
    assert_eq!(table.live(), 1);
}

#[test]
fn a_record_lapsed_for_an_hour_is_forgotten() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    table.expire(now + secs(60));
    table.expire(now + secs(60) + KEEP_LAPSED);
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
    assert!(table.expire(now + secs(48 + 44)).is_empty());
    assert_eq!(table.expire(now + secs(48 + 45)).len(), 1, "three periods of 15 s");
}

#[test]
fn a_long_period_counts_at_once_and_a_short_one_when_it_is_sure() {
    let (mut table, now) = table();
    take(&mut table, now, "long");
    take(&mut table, now, "late");
    for at in [20, 59] {
        table.renew(now + secs(at), &"long".into());
    }
    // Held up until 13 s, so that the next one comes 2 s later.
    for at in [13, 15] {
        table.renew(now + secs(at), &"late".into());
    }
    assert!(table.expire(now + secs(14) + TTL).is_empty(), "not after three times 2 s");
    assert_eq!(table.expire(now + secs(15) + TTL).len(), 1);
    assert!(table.expire(now + secs(59 + 3 * 39 - 1)).is_empty());
    assert_eq!(table.expire(now + secs(59 + 3 * 39)).len(), 1);
}

#[test]
fn a_hasty_pair_of_renews_does_not_shorten_the_lease() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in [10, 25, 53, 55] {
        assert_eq!(table.renew(now + secs(at), &"1".into()), Renewal::Renewed);
    }
    assert!(table.expire(now + secs(55 + 83)).is_empty(), "the longest of 15, 28 and 2 s, three times");
}

#[test]
fn a_learned_lease_is_never_under_five_seconds() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in 0..4 {
        table.renew(now + Duration::from_millis(at), &"1".into());
    }
    assert!(table.expire(now + secs(4)).is_empty());
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
    assert_eq!(table.lapse_instance(now, "a").len(), 2);
    assert!(table.lapse_instance(now, "a").is_empty(), "once");
    assert_eq!((table.live(), table.lapsed()), (1, 2));
    assert!(
        matches!(table.renew(now + secs(9), &"1".into()), Renewal::Revived(_)),
        "it was not dead after all"
    );
}

#[test]
fn a_doubted_instance_has_one_more_period() {
    let (mut table, now) = table();
    register(&mut table, now, &of("1", "a", "10.0.0.1:80"));
    for at in [0, 15, 30, 45] {
        table.renew(now + secs(at), &"1".into());
    }
    table.doubt_instance(now + secs(50), "a");
    assert!(table.expire(now + secs(66)).is_empty());
    assert_eq!(table.expire(now + secs(67)).len(), 1, "a period of 15 s and 2 s to be late");

    let mut table = LeaseTable::new(now, TTL);
    register(&mut table, now, &of("1", "a", "10.0.0.1:80"));
    table.doubt_instance(now, "a");
    table.renew(now + secs(10), &"1".into());
    assert!(table.expire(now + secs(69)).is_empty(), "renewed in time");
    assert_eq!(table.expire(now + secs(70)).len(), 1);
}

#[test]
fn a_lease_that_gets_shorter_ends_earlier() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for at in 1..5 {
        table.renew(now + secs(at), &"1".into());
    }
    assert!(table.next_deadline().unwrap() <= now + secs(4 + 5), "not at the first minute");
    assert_eq!(table.expire(now + secs(9)).len(), 1);
}

#[test]
fn doubts_do_not_fill_the_heap() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    for n in 0..1_000 {
        table.doubt_instance(now + secs(n), "node");
        table.renew(now + secs(n), &"1".into());
        table.expire(now + secs(n));
    }
    assert!(table.deadlines.len() < 100, "{}", table.deadlines.len());
}

#[test]
fn a_routers_instance_is_not_dialled() {
    let (mut table, now) = table();
    let router = Record { name: "host@r".into(), network: Network::Udp, ..of("1", "r", "10.0.0.1:80") };
    register(&mut table, now, &router);
    assert!(table.dials("r").is_empty());
    register(&mut table, now, &of("2", "a", "10.0.0.1:80"));
    register(&mut table, now, &of("3", "a", "10.0.0.1:80"));
    assert_eq!(table.dials("a"), ["127.0.0.1:80".into()].into());
}

#[test]
fn what_a_journal_kept_is_back_with_fresh_leases() {
    let (mut before, now) = table();
    take(&mut before, now, "1");
    take(&mut before, now, "2");
    before.release(&"2".into());
    let touched = before.take_touched();
    assert_eq!(touched.len(), 2);
    let Word::Held(held) = before.word(&"1".into()) else { panic!("1 is held") };
    assert_eq!((before.word(&"2".into()), before.word(&"3".into())), (Word::Released, Word::Forgotten));

    let mut after = LeaseTable::new(now, TTL);
    assert_eq!(after.restore(now + secs(50), vec![held], Vec::new(), &["2".into()]).len(), 1);
    assert!(after.take_touched().is_empty(), "the journal knows");
    assert!(after.expire(now + secs(109)).is_empty());
    assert_eq!(take(&mut after, now, "2"), None, "released for ever");
    assert_eq!(after.expire(now + secs(110)).len(), 1);
}

#[test]
fn what_had_lapsed_is_not_said_again_after_a_restart_but_can_be_revived() {
    let (mut before, now) = table();
    take(&mut before, now, "1");
    before.take_touched();
    assert_eq!(before.expire(now + TTL).len(), 1);
    assert_eq!(before.take_touched(), ["1".into()].into(), "the journal has to know");
    let Word::Lapsed(lapsed) = before.word(&"1".into()) else { panic!("1 has lapsed") };

    let mut after = LeaseTable::new(now, TTL);
    assert!(after.restore(now, Vec::new(), vec![lapsed], &[]).is_empty());
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
    after.restore(now, vec![held], Vec::new(), &[]);
    register(&mut after, now, &of("2", "another", &entrypoint.to_string()));
    assert_eq!((after.is_lapsed(&"1".into()), after.is_live(&"2".into())), (true, true));
}

#[test]
fn everything_can_be_told_to_a_journal_again() {
    let (mut table, now) = table();
    take(&mut table, now, "1");
    table.release(&"2".into());
    table.take_touched();
    table.touch_all();
    assert_eq!(table.take_touched(), ["1".into(), "2".into()].into());
}

#[test]
fn a_sibling_tells_an_instances_address() {
    let (mut table, now) = table();
    register(&mut table, now, &Record { network: Network::Udp, ..of("1", "a", "10.0.0.1:80") });
    assert_eq!(table.sibling(&"a".into()), None);
    register(&mut table, now, &of("2", "a", "10.0.0.1:80"));
    assert_eq!(table.sibling(&"a".into()).unwrap().record.id, *"2");
    table.release(&"2".into());
    assert_eq!(table.sibling(&"a".into()), None);
}

#[test]
fn an_instance_that_goes_and_returns_again_and_again_leaves_no_deadlines_behind() {
    let (mut table, now) = table();
    for n in 0..100 {
        register(&mut table, now, &of(&n.to_string(), "n", "10.0.0.1:80"));
    }
    for second in 0..1_000 {
        let now = now + secs(second);
        assert_eq!(table.lapse_instance(now, "n").len(), 100);
        for n in 0..100 {
            assert!(matches!(table.renew(now, &n.to_string().as_str().into()), Renewal::Revived(_)));
        }
        table.expire(now);
        assert!(table.deadlines() <= table.deadlines_max(), "{} after {second} s", table.deadlines());
    }
    assert_eq!(table.expire(now + secs(2_000)).len(), 100, "each is still looked at in time");
}

#[test]
fn the_room_of_a_peak_is_given_back() {
    let (mut table, now) = table();
    for n in 0..10_000 {
        register(&mut table, now, &of(&n.to_string(), &n.to_string(), &format!("10.0.0.1:{}", n + 1)));
    }
    for n in 10..10_000 {
        table.release(&n.to_string().as_str().into());
    }
    table.expire(now + secs(59));
    assert!(table.room() >= 50_000);
    assert_eq!(table.expire(now + TTL).len(), 10);
    table.give_back();
    assert_eq!((table.lapsed(), table.slot_gaps()), (10, 0));
    assert!(table.room() < 400, "{}", table.room());
}
