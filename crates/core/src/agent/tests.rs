//! The agent in scenarios, without a socket, in a time of its own.

mod handle;

pub(super) use self::handle::{Agent, advance, now};

use std::sync::Arc;

use super::*;
use crate::address::Address;
use crate::hostname::Endpoint;
use crate::record::{Generation, Network};
use crate::replica::{EMPTY_KEPT, Extent};
use crate::slot::{Change, Version};
use crate::slot::{Content, STATUS_SLOT};
use crate::tombstone::Release;

pub(super) const HERE: Caller = Caller { remote: None, connection: 1 };

pub(super) fn owner(name: &str, generation: Generation) -> Owner {
    Owner { name: name.parse().unwrap(), generation }
}

pub(super) fn agent() -> Agent {
    with(Restored::default())
}

fn with(restored: Restored) -> Agent {
    with_quota(Quota::default(), restored)
}

pub(super) fn with_quota(quota: Quota, restored: Restored) -> Agent {
    with_settings("a", 5, LEASE_TTL, quota, restored)
}

/// An agent by its name and generation.
pub(super) fn with_settings(
    name: &str,
    generation: Generation,
    lease_ttl: Duration,
    quota: Quota,
    restored: Restored,
) -> Agent {
    Agent::new(&Settings { lease_ttl, quota, ..Settings::of(owner(name, generation)) }, restored)
}

/// What a journal kept of leases, and nothing else.
fn holds(leases: KeptLeases) -> Restored {
    Restored { leases, ..Restored::default() }
}

pub(super) fn record(id: &str) -> Record {
    let [id, name, node] = [id, "t", "n"].map(Label::from);
    Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() }
}

pub(super) fn holding(id: &str) -> Holding {
    Holding { record: Arc::new(record(id)), dial: "".into() }
}

pub(super) fn register(agent: &Agent, id: &str) {
    agent.register(HERE, holding(id)).unwrap();
}

fn renew_with(agent: &Agent, id: &str, fallback: Option<&str>) -> bool {
    let draft = Draft { id, name: "t", node: "n", network: "", address: "" };
    let heal = Heal { dial: &|address| format!("dial {address}"), fallback: fallback.map(Into::into) };
    agent.renew(HERE, draft, &heal).unwrap()
}

pub(super) fn renew(agent: &Agent, id: &str) -> bool {
    renew_with(agent, id, None)
}

fn deregister(agent: &Agent, id: &str) {
    agent.deregister(HERE, Draft { id, name: "t", node: "n", network: "", address: "" });
}

/// What an owner says of record slots 1, 2, … and then of itself.
pub(super) fn say(agent: &Agent, owner: &Owner, ids: &[&str], status: Status) {
    let content = ids.iter().map(|id| Content::Record(Arc::new(record(id))));
    let mut changes: Vec<Change> = (1..).zip(content).map(|(n, content)| change(n, n, content)).collect();
    changes.push(change(STATUS_SLOT, 100 + status as Slot, Content::Status(status)));
    tell(agent, owner, changes);
}

/// What an owner said, without gaps.
pub(super) fn tell(agent: &Agent, owner: &Owner, changes: Vec<Change>) {
    let mut extent = Extent::default();
    for change in &changes {
        extent.until = extent.until.max(change.cell.version);
    }
    agent.handle(News::Changed { owner: owner.clone(), changes, extent });
}

pub(super) fn change(slot: Slot, version: u32, content: Content) -> Change {
    Change { slot, cell: Cell { version: version.into(), content } }
}

pub(super) fn hear(agent: &Agent, owner: &Owner) {
    agent.handle(News::Heard { owner: owner.clone(), trip: None });
}

pub(super) fn lose(agent: &Agent, owner: &Owner) {
    agent.handle(News::Silent { owner: owner.clone(), silence: Duration::from_millis(2_500) });
}

pub(super) fn ids(agent: &Agent) -> Vec<String> {
    agent.resolve("t").iter().map(|record| record.id.to_string()).collect()
}

#[test]
fn a_record_is_readable_when_register_returns() {
    let agent = agent();
    register(&agent, "1");
    assert_eq!(ids(&agent), ["1"]);
    assert!(renew(&agent, "1"));
    deregister(&agent, "1");
    assert!(ids(&agent).is_empty());
    assert!(renew(&agent, "1"), "a released id is answered OK");
}

#[test]
fn renewals_leave_nothing_to_tell() {
    let agent = agent();
    register(&agent, "1");
    assert_eq!(agent.collect_changes(), 2, "the record, and that we are ready");
    for _ in 0..3 {
        renew(&agent, "1");
        register(&agent, "1");
    }
    assert_eq!(agent.collect_changes(), 0);
}

#[test]
fn a_record_that_nobody_renews_lapses() {
    let agent = agent();
    register(&agent, "1");
    agent.collect_changes();
    advance(LEASE_TTL);
    assert_eq!(agent.collect_changes(), 1);
    assert!(ids(&agent).is_empty());
    assert!(renew(&agent, "1"), "and a late Renew revives it");
    assert_eq!(ids(&agent), ["1"]);
}

#[test]
fn nobody_else_can_write_our_records() {
    let agent = agent();
    register(&agent, "1");
    agent.collect_changes();
    tell(&agent, agent.owner(), vec![change(1, 90, Content::Empty)]);
    assert_eq!((ids(&agent), agent.collect_changes()), (vec!["1".to_owned()], 0));
    assert_eq!(agent.version(agent.owner()), None, "nor tell us anything");
    deregister(&agent, "1");
    assert!(ids(&agent).is_empty());
}

#[test]
fn what_the_journal_kept_is_answered_from_the_first_moment() {
    let released = vec![("2".into(), Release::Held), ("3".into(), Release::Unheard)];
    let agent = with(holds(KeptLeases { held: vec![holding("1")], released, ..KeptLeases::default() }));
    assert_eq!(ids(&agent), ["1"]);
    assert!(renew(&agent, "1"), "healed from the journal");
    assert!(renew(&agent, "2"), "it may have been in flight beside its Deregister");
    register(&agent, "3");
    assert_eq!(ids(&agent), ["1"], "and that one, too");
    register(&agent, "2");
    assert_eq!(agent.resolve("t").len(), 2, "gost registers an id once, so that is a new record");
}

#[test]
fn our_former_self_heals_a_renew() {
    let agent = agent();
    say(&agent, &owner("a", 4), &["1", "2"], Status::Ready);
    assert!(ids(&agent).is_empty(), "what it said is not shown");
    assert!(renew(&agent, "2"));
    assert_eq!(ids(&agent), ["2"]);
    assert_eq!(agent.heals()[HealedFrom::FormerSelf as usize].1, 1);
    let dial = agent.lock().leases.sibling(&"n".into(), false).unwrap().dial.clone();
    assert_eq!(dial, *"dial 10.0.0.1:80");
}

#[test]
fn another_owners_record_heals_a_renew() {
    let agent = agent();
    say(&agent, &owner("b", 1), &["1"], Status::Ready);
    assert!(renew(&agent, "1"));
    assert_eq!(ids(&agent), ["1"], "ours, for b was never heard");
    assert_eq!(agent.heals()[HealedFrom::OtherOwner as usize].1, 1);
}

#[test]
fn a_sibling_heals_a_renew() {
    let agent = agent();
    register(&agent, "1");
    assert!(renew(&agent, "2"));
    assert_eq!(agent.resolve("t").len(), 2);
    assert_eq!(agent.heals()[HealedFrom::Sibling as usize].1, 1);
}

#[test]
fn the_fallback_address_heals_a_renew_and_without_it_nothing_does() {
    let agent = agent();
    assert!(!renew(&agent, "1"));
    assert!(ids(&agent).is_empty());
    assert!(renew_with(&agent, "1", Some("10.9.9.9:8420")));
    assert_eq!(agent.resolve("t")[0].address, *"10.9.9.9:8420");
    assert_eq!(agent.heals().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 0, 0, 1, 0, 1]);
}

#[test]
fn the_sources_are_tried_in_order() {
    let agent = agent();
    register(&agent, "sibling");
    say(&agent, &owner("b", 1), &["1"], Status::Ready);
    say(&agent, &owner("a", 4), &["1"], Status::Ready);
    for _ in 0..2 {
        assert!(renew_with(&agent, "1", Some("10.9.9.9:1")));
    }
    assert_eq!(agent.heals().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_suspect_comes_last_is_hidden_at_the_ttl_and_is_back_at_once() {
    let agent = agent();
    let (b, c) = (owner("b", 1), owner("c", 1));
    for (peer, id) in [(&b, "b"), (&c, "c")] {
        say(&agent, peer, &[id], Status::Ready);
        assert!(!ids(&agent).contains(&id.to_owned()), "not before it is heard");
        hear(&agent, peer);
    }
    lose(&agent, &b);
    for _ in 0..20 {
        assert_eq!(ids(&agent), ["c", "b"]);
    }
    advance(LEASE_TTL);
    assert_eq!(ids(&agent), ["c"]);
    hear(&agent, &b);
    assert_eq!(agent.resolve("t").len(), 2);
}

#[test]
fn who_left_is_hidden_at_once_and_its_last_frames_do_not_bring_it_back() {
    let agent = agent();
    let b = owner("b", 1);
    say(&agent, &b, &["b"], Status::Ready);
    hear(&agent, &b);
    say(&agent, &b, &["b"], Status::Left);
    assert!(ids(&agent).is_empty());
    hear(&agent, &b);
    assert!(ids(&agent).is_empty());
    let again = owner("b", 2);
    say(&agent, &again, &["b"], Status::Ready);
    hear(&agent, &again);
    assert_eq!(ids(&agent), ["b"], "its next start counts");
}

#[test]
fn a_draining_agents_records_are_hidden_elsewhere_and_used_here() {
    let agent = agent();
    let b = owner("b", 1);
    say(&agent, &b, &["b"], Status::Draining);
    hear(&agent, &b);
    register(&agent, "a");
    for status in [Status::Draining, Status::Ready] {
        agent.say(status);
        assert_eq!(ids(&agent), ["a"]);
        assert_eq!(agent.collected()[0].cell.content, Content::Status(status), "of slot 0");
    }
}

/// What a journal has of draining, if that changed.
fn kept_draining(agent: &Agent) -> Option<bool> {
    agent.take_batch().draining
}

#[test]
fn draining_is_in_the_journal_and_only_undoing_it_ends_it() {
    let agent = agent();
    agent.use_journal();
    agent.say(Status::Draining);
    assert_eq!(kept_draining(&agent), Some(true));
    agent.say(Status::Left);
    assert_eq!(kept_draining(&agent), None, "whoever comes back drains on");

    let after = with(Restored { draining: true, ..Restored::default() });
    after.use_journal();
    assert!(after.lock().is_draining() && after.view().draining);
    let told: Vec<_> = after.collected().into_iter().map(|change| change.cell.content).collect();
    assert_eq!(told, [Content::Status(Status::Draining)], "peers never hear that it is ready");
    assert_eq!(kept_draining(&after), None);
    after.say(Status::Ready);
    assert_eq!((kept_draining(&after), after.lock().is_draining()), (Some(false), false));
}

#[test]
fn a_forgotten_agent_is_gone_unless_we_doubt_ourselves() {
    let agent = agent();
    let peers = ["b", "c", "d"].map(|name| owner(name, 1));
    for peer in &peers {
        say(&agent, peer, &[peer.name.as_str()], Status::Ready);
        hear(&agent, peer);
    }
    for peer in &peers {
        lose(&agent, peer);
    }
    advance(LEASE_TTL * 2);
    assert!(agent.lock().doubts_itself());
    agent.handle(News::Forgotten { owner: peers[0].clone() });
    assert_eq!(agent.resolve("t").len(), 3, "all vanished together: it was probably us");
    advance(crate::liveness::PRESERVE);
    agent.collect_changes();
    assert!(ids(&agent).is_empty());
    assert_eq!(agent.counts().records, 2, "and what the board forgot is forgotten");
    agent.handle(News::Forgotten { owner: peers[1].clone() });
    assert_eq!(agent.counts().records, 1);
}

#[test]
fn a_former_start_of_an_agent_that_lives_goes_without_a_word() {
    let agent = agent();
    let [former, newer, other] = [owner("b", 1), owner("b", 2), owner("c", 1)];
    for peer in [&former, &newer, &other] {
        say(&agent, peer, &[peer.name.as_str()], Status::Ready);
        hear(&agent, peer);
    }
    lose(&agent, &other);
    advance(LEASE_TTL * 2);
    hear(&agent, &newer);
    agent.effects();
    let told = |gone: &Owner| {
        agent.handle(News::Forgotten { owner: gone.clone() });
        agent.effects().lines.iter().any(|line| matches!(line, Line::Forgotten { .. }))
    };
    assert!(!told(&former), "b is there");
    assert!(told(&other), "c is not");
}

#[test]
fn the_journal_gets_the_newest_word_on_each_id_and_everything_again_if_it_started_afresh() {
    use crate::lease::Word;
    let agent = agent();
    agent.use_journal();
    register(&agent, "1");
    register(&agent, "2");
    deregister(&agent, "2");
    let batch = agent.take_batch();
    assert!(matches!(batch.words[&"1".into()], Word::Held(_)));
    assert_eq!(batch.words[&"2".into()], Word::Released(Release::Held));
    assert!(agent.take_batch().is_empty());
    agent.not_written(Batch::default(), true);
    assert!(agent.lock().journal_problem().is_some());
    assert_eq!(agent.take_batch().words.len(), 2);
    agent.written();
    assert_eq!(agent.lock().journal_problem(), None);
}

#[test]
fn a_journal_that_failed_gets_everything_anew_and_only_then_is_well() {
    let agent = agent();
    agent.use_journal();
    // More than one tunnel may have.
    for n in 0..10_000 {
        let tunnel = Record { name: format!("t{}", n % 4).as_str().into(), ..record(&n.to_string()) };
        agent.register(HERE, Holding { record: Arc::new(tunnel), dial: "".into() }).unwrap();
    }
    let mut written = 0;
    let mut batches = 0;
    while written < 10_000 {
        let batch = agent.take_batch();
        (written, batches) = (written + batch.words.len(), batches + 1);
        assert_eq!(batch.told.is_some(), written == 10_000, "everything is in it");
        assert_eq!(agent.written(), written == 10_000);
    }
    assert!(batches > 2, "a few thousand at a time");
    agent.effects();
    register(&agent, "new");
    let batch = agent.take_batch();
    agent.not_written(batch, false);
    let said = |agent: &Agent| agent.effects().lines.len();
    assert_eq!(said(&agent), 1, "that it is not written");
    let batch = agent.take_batch();
    agent.not_written(batch, false);
    assert_eq!(said(&agent), 0, "it was told");
    let mut written = 0;
    loop {
        let batch = agent.take_batch();
        written += batch.words.len();
        if agent.written() {
            break;
        }
        assert!(agent.lock().journal_problem().is_some(), "it does not have everything yet");
        assert_eq!(said(&agent), 0);
    }
    assert_eq!((written, said(&agent)), (10_001, 1), "that it is written again");
    assert_eq!(agent.lock().journal_problem(), None);
}

#[test]
fn a_commit_that_hangs_is_a_problem_until_it_ends_and_a_late_one_for_a_minute() {
    let agent = agent();
    agent.use_journal();
    let commit = |agent: &Agent, took: Duration| {
        register(agent, &format!("{:?} {took:?}", now()));
        agent.take_batch();
        agent.lock().commit_begins(now());
        advance(took);
        agent.lock().commit_ends(now());
        agent.written();
        agent.effects().lines.len()
    };
    assert_eq!(commit(&agent, LATE), 1, "a gost is attached");
    assert_eq!((agent.view().journal.commit, agent.view().journal.late), (LATE, None));
    let long = LATE * 2;
    assert_eq!([commit(&agent, long), commit(&agent, long)], [1, 0], "told once");
    assert_eq!(agent.view().journal.late, Some(long));
    assert_eq!((agent.view().changes.late_commits, agent.lock().journal_problem()), (2, None));
    advance(Duration::from_secs(60));
    assert_eq!(agent.view().journal.late, None);

    register(&agent, "hangs");
    agent.take_batch();
    agent.lock().commit_begins(now());
    advance(Duration::from_secs(2));
    agent.lock().journal_hangs("for 2 s".into());
    assert!(agent.lock().journal_problem().unwrap().contains("2 s"));
    assert_eq!(agent.view().journal.commit, Duration::from_secs(2), "so far");
    agent.lock().journal_hangs("for 4 s".into());
    assert_eq!(agent.effects().lines.len(), 1, "told once");
    agent.lock().commit_ends(now());
    agent.written();
    assert_eq!(agent.effects().lines.len(), 1);
    assert_eq!(agent.lock().journal_problem(), None);
}

#[test]
fn an_agent_that_has_just_started_lists_no_start_of_a_peer_that_has_ended() {
    // What others told of its former start came first, or last.
    for others_first in [true, false] {
        let (agent, former, present) = (agent(), owner("b", 1), owner("b", 2));
        let has_caught_up = |agent: &Agent| {
            agent.lock().has_caught_up(now() + Duration::from_secs(1), [&present.name].into_iter(), true)
        };
        let tell_former = || {
            agent.handle(News::Hearsay { owner: former.clone(), age: Duration::ZERO });
            say(&agent, &former, &["stale"], Status::Ready);
        };
        if others_first {
            tell_former();
        }
        hear(&agent, &present);
        if !others_first {
            tell_former();
            assert_eq!(agent.version(&former), None, "it is not asked for");
        }
        assert_eq!((ids(&agent), has_caught_up(&agent)), (vec![], false));
        say(&agent, &present, &["new"], Status::Ready);
        assert_eq!((ids(&agent), has_caught_up(&agent)), (vec!["new".to_owned()], true));
        let again = owner("b", 3);
        hear(&agent, &again);
        assert_eq!(ids(&agent), ["new"], "a restart of a peer that is known is not noticed");
        assert!(!has_caught_up(&agent), "but its new start has not told yet");
    }
}

#[test]
fn what_a_peer_pushes_is_listed_while_the_rest_is_missing() {
    let (agent, b) = (agent(), owner("b", 1));
    let has_caught_up =
        |agent: &Agent| agent.lock().has_caught_up(now() + Duration::from_secs(1), std::iter::empty(), true);
    let push = |slot: Slot, version, content| {
        let extent = Extent { since: version - 1, until: version, whole: None };
        agent.handle(News::Changed {
            owner: b.clone(),
            changes: vec![change(slot, u32::try_from(version).unwrap(), content)],
            extent,
        });
    };
    hear(&agent, &b);
    push(5, 500, Content::Record(Arc::new(record("pushed"))));
    assert!(ids(&agent).is_empty(), "b may not be ready yet");
    // The first piece of an answer has its status.
    let status = change(STATUS_SLOT, 300, Content::Status(Status::Ready));
    agent.handle(News::Changed { owner: b.clone(), changes: vec![status], extent: Extent::default() });
    assert_eq!(ids(&agent), ["pushed"]);
    push(6, 501, Content::Record(Arc::new(record("pushed later"))));
    push(5, 502, Content::Empty);
    assert_eq!((ids(&agent), has_caught_up(&agent)), (vec!["pushed later".to_owned()], false));
    let first = change(1, 100, Content::Record(Arc::new(record("first"))));
    let extent = Extent { since: 0, until: 502, whole: None };
    agent.handle(News::Changed { owner: b.clone(), changes: vec![first], extent });
    assert_eq!((ids(&agent).len(), has_caught_up(&agent)), (2, true));
    // A start that is known is listed until the next one has told all.
    let again = owner("b", 2);
    hear(&agent, &again);
    let status = change(STATUS_SLOT, 300, Content::Status(Status::Ready));
    agent.handle(News::Changed { owner: again, changes: vec![status], extent: Extent::default() });
    assert_eq!(ids(&agent).len(), 2);
}

#[test]
fn a_part_of_what_others_told_of_a_silent_peer_is_not_listed() {
    let (agent, b) = (agent(), owner("b", 1));
    let part = vec![
        change(STATUS_SLOT, 300, Content::Status(Status::Ready)),
        change(1, 100, Content::Record(Arc::new(record("1")))),
    ];
    agent.handle(News::Hearsay { owner: b.clone(), age: Duration::ZERO });
    agent.handle(News::Changed { owner: b, changes: part, extent: Extent::default() });
    assert!(ids(&agent).is_empty());
}

#[test]
fn an_agent_has_not_caught_up_before_the_first_peer_told_of_the_others() {
    let agent = agent();
    let has_caught_up = |agent: &Agent| agent.lock().has_caught_up(now(), std::iter::empty(), true);
    hear(&agent, &owner("b", 1));
    say(&agent, &owner("b", 1), &["b"], Status::Ready);
    assert!(!has_caught_up(&agent), "it may know others");
    agent.handle(News::Hearsay { owner: owner("c", 1), age: Duration::ZERO });
    advance(Duration::from_millis(20));
    assert!(!has_caught_up(&agent), "and it does");
    hear(&agent, &owner("c", 1));
    say(&agent, &owner("c", 1), &["c"], Status::Ready);
    agent.handle(News::Heard { owner: owner("c", 1), trip: Some(Duration::from_millis(100)) });
    advance(Duration::from_millis(199));
    assert!(!has_caught_up(&agent), "over an ocean that takes longer");
    advance(Duration::from_millis(1));
    assert!(has_caught_up(&agent));
}

#[test]
fn of_a_tunnel_with_many_connectors_the_best_are_answered_and_the_others_counted() {
    let agent = agent();
    let many: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    say(&agent, &owner("b", 1), &many.iter().map(|id| &**id).collect::<Vec<_>>(), Status::Ready);
    hear(&agent, &owner("b", 1));
    register(&agent, "here");
    let tally = agent.lock().count_records(now(), "t");
    assert_eq!((ids(&agent).len(), tally.known, tally.eligible), (64, 301, 301));
    let seen = agent.lock().tunnel(now(), "t".into());
    assert_eq!((seen.listed, seen.eligible, seen.hidden, seen.agents.len()), (64, 301, 0, 2));
    assert_eq!(agent.explain("t").iter().filter(|candidate| candidate.rank.is_some()).count(), 64);
    lose(&agent, &owner("b", 1));
    assert_eq!(ids(&agent)[0], "here", "what surely lives comes first");
    advance(LEASE_TTL / 2);
    assert!(renew(&agent, "here"));
    advance(LEASE_TTL / 2);
    assert_eq!(ids(&agent), ["here"]);
    let seen = agent.lock().tunnel(now(), "t".into());
    assert_eq!((seen.listed, seen.eligible, seen.hidden), (1, 1, 300));
    assert_eq!(agent.explain("t").len(), 1 + 64, "of those that are hidden, some");
}

#[test]
fn the_capacity_of_a_peak_is_given_back() {
    let agent = agent();
    let all: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    for id in &all {
        register(&agent, id);
    }
    for id in &all {
        deregister(&agent, id);
    }
    agent.collect_changes();
    let room = || {
        let state = agent.lock();
        (state.leases.capacity(), state.directory.replicas.places())
    };
    assert!(room().0 >= 5_000 && room().1 >= 5_000);
    advance(EMPTY_KEPT.max(LEASE_TTL));
    // What is overdue goes in bites, and the rest once a minute.
    for _ in 0..60 {
        agent.collect_changes();
    }
    advance(LEASE_TTL);
    agent.collect_changes();
    assert!(room().0 < 600 && room().1 == 16, "{:?}", room());
}

#[test]
fn a_change_is_pending_until_it_is_on_disk() {
    let agent = agent();
    agent.use_journal();
    let pending = || agent.view().journal.pending;
    register(&agent, "1");
    assert_eq!(pending(), 1);
    let batch = agent.take_batch();
    register(&agent, "2");
    assert_eq!(pending(), 2, "one of them in a commit");
    agent.not_written(batch, false);
    assert_eq!(pending(), 3, "again, and all else that a journal has: whether it drains");
    let _batch = agent.take_batch();
    agent.written();
    assert_eq!(pending(), 0);
}

#[test]
fn what_follows_from_a_call_is_told_once() {
    let agent = agent();
    agent.use_journal();
    agent.collect_changes();
    agent.effects();
    let told = |Effects { is_due, is_revised, is_touched, lines }: Effects| {
        (is_due, is_revised, is_touched, lines.len())
    };
    register(&agent, "1");
    assert_eq!(
        told(agent.effects()),
        (true, true, true, 1),
        "for the cluster, for who asks, for the journal, and for whoever waits for the first call of a gost"
    );
    agent.collect_changes();
    assert!(renew(&agent, "1"));
    assert_eq!(told(agent.effects()), (false, false, false, 0), "a Renew is nobody's business");
    register(&agent, "2");
    assert_eq!(
        told(agent.effects()),
        (true, true, false, 0),
        "the journal knows that something waits for it"
    );
    agent.take_batch();
    agent.collect_changes();
    deregister(&agent, "2");
    assert_eq!(told(agent.effects()), (true, true, true, 0));
    agent.collect_changes();
    lose(&agent, &owner("b", 1));
    assert_eq!(
        told(agent.effects()),
        (true, true, false, 1),
        "the operator is told of a silent peer, whose death the driver waits for"
    );
}

#[test]
fn the_first_call_of_a_gost_is_told_once_whatever_it_is() {
    let attached = |effects: Effects| {
        let mut lines = effects.lines.into_iter();
        lines.find_map(
            |line| if let Line::Attached { node, remote } = line { Some((node, remote)) } else { None },
        )
    };
    let agent = agent();
    agent.lock().called(now(), 1, true);
    assert_eq!(attached(agent.effects()), Some((None, None)), "a question names no gost");
    register(&agent, "1");
    assert_eq!(attached(agent.effects()), None);

    let agent = self::agent();
    let guest = "192.0.2.9".parse().unwrap();
    agent.lock().spoke(now(), Caller::at(guest, 1), "n");
    assert_eq!(attached(agent.effects()), Some((Some("n".into()), Some(guest))));
    register(&agent, "1");
    assert_eq!(attached(agent.effects()), None);
}

#[test]
fn a_death_is_told_when_the_records_are_hidden_and_a_burial_forgets_them() {
    let agent = agent();
    let (b, c) = (owner("b", 1), owner("c", 1));
    for (peer, id) in [(&b, "1"), (&c, "2")] {
        hear(&agent, peer);
        say(&agent, peer, &[id], Status::Ready);
    }
    lose(&agent, &b);
    agent.handle(News::Buried { owner: b.clone() });
    assert_eq!(agent.resolve("t").len(), 2, "it may live: others cannot bury it for us");
    let told = |agent: &Agent| {
        agent.lock().due(now(), 0, |_| false);
        let lines = agent.effects().lines;
        let of = |line: &&Line| match line {
            Line::Died { records, .. } => *records == 1,
            line => matches!(line, Line::Buried { .. } | Line::Forgotten { .. }),
        };
        lines.iter().filter(of).count()
    };
    assert_eq!(told(&agent), 0);
    advance(LEASE_TTL);
    hear(&agent, &c);
    assert_eq!(told(&agent), 2, "dead, and then buried");
    assert_eq!(told(&agent), 0, "told once");
    agent.handle(News::Buried { owner: c.clone() });
    assert_eq!(agent.resolve("t").len(), 1, "whoever is heard stays");
    let members = agent.lock().view(now()).members;
    assert!(members.iter().all(|member| member.name != b.name));
    hear(&agent, &b);
    say(&agent, &b, &["1"], Status::Ready);
    assert_eq!(agent.resolve("t").len(), 2, "if it comes back, it is there");
}

#[test]
fn a_record_that_went_is_remembered_with_its_time_until_it_comes_back() {
    let agent = agent();
    register(&agent, "1");
    let past = |agent: &Agent| agent.lock().past(now(), "t");
    assert!(past(&agent).is_empty());
    deregister(&agent, "1");
    advance(Duration::from_secs(100));
    let gone = past(&agent);
    assert_eq!((gone.len(), gone[0].gone, gone[0].is_lapsed), (1, Duration::from_secs(100), false));
    register(&agent, "2");
    advance(LEASE_TTL);
    agent.lock().due(now(), 0, |_| false);
    let gone = past(&agent);
    assert_eq!((gone.len(), gone[0].is_lapsed), (2, true), "the last one first");
    assert!(renew(&agent, "2"));
    assert_eq!(past(&agent).len(), 1);
    advance(Duration::from_secs(3_600));
    assert!(past(&agent).is_empty(), "for an hour");
}

#[test]
fn the_driver_is_woken_for_what_is_due_before_it_looks_by_itself() {
    let agent = agent();
    let looks = || {
        let Due { next, tries, .. } = agent.lock().due(now(), MAX_DIALS, |_| false);
        agent.effects();
        for one in tries {
            agent.tried(&one.address, Tried::Works(Duration::ZERO));
        }
        next
    };
    let idle = looks();
    assert!(idle >= now() + LEASE_TTL, "nothing is due");
    say(&agent, &owner("b", 1), &["2"], Status::Ready);
    hear(&agent, &owner("b", 1));
    looks();
    ids(&agent);
    assert!(agent.effects().is_due, "the entrypoint of a peer that a visitor asks for is dialled");
    looks();
    assert!(agent.effects().is_due, "and again after a pause");
    assert!(looks() < idle);
    ids(&agent);
    assert!(!agent.effects().is_due, "of which the driver knows");
}

#[test]
fn only_a_peer_that_was_lost_is_alive_again() {
    let (agent, b) = (agent(), owner("b", 1));
    let is_again = |agent: &Agent| {
        let lines = agent.lock().take_effects().lines;
        lines.iter().any(|line| matches!(line, Line::HeardAgain { .. }))
    };
    agent.handle(News::Hearsay { owner: b.clone(), age: Duration::ZERO });
    agent.handle(News::Heard { owner: b.clone(), trip: None });
    assert!(!is_again(&agent), "others only told of it so far");
    agent.handle(News::Silent { owner: b.clone(), silence: Duration::from_secs(3) });
    agent.handle(News::Heard { owner: b, trip: None });
    assert!(is_again(&agent));
}

#[test]
fn a_host_with_another_address_gives_it_to_the_records_of_its_gosts_and_to_no_others() {
    use crate::entrypoints::Place;
    let agent = agent();
    let at = |id: &str, dial: &str| Holding { dial: dial.into(), ..holding(id) };
    for n in 0..2_500 {
        agent.register(HERE, at(&format!("here-{n}"), "127.0.0.1:80")).unwrap();
    }
    agent.register(HERE, at("elsewhere", "10.0.0.1:80")).unwrap();
    agent.collected();
    let moved = |place: &Place| {
        let to = Place { address: "10.0.0.9:80".into(), dial: place.dial.clone() };
        (place.dial == *"127.0.0.1:80").then_some(to)
    };
    let ids = agent.lock().own_ids();
    let bites: Vec<usize> =
        ids.chunks(BITE).map(|bite| agent.lock().readdress(now(), bite, &moved)).collect();
    assert_eq!((bites.len(), bites.iter().sum::<usize>()), (ids.len().div_ceil(BITE), 2_500));
    assert_eq!(agent.collected().len(), 2_500, "each is published once");
    let held: Vec<_> = agent.lock().all_kept(now()).words.into_values().collect();
    let at = |address: &str| {
        let is_there = |word: &&crate::lease::Word| matches!(word, crate::lease::Word::Held(holding) if holding.record.address == *address);
        held.iter().filter(is_there).count()
    };
    assert_eq!((at("10.0.0.9:80"), at("10.0.0.1:80")), (2_500, 1));
}
