//! The agent in scenarios, without a socket, in paused time.

use super::*;
use crate::gossip::{Event, Hearer as _};
use crate::journal::Batch;
use gossd_core::record::{Generation, Network};
use gossd_core::replica::{EMPTY_KEPT, Extent};
use gossd_core::slot::{Content, STATUS_SLOT};
use gossd_core::tombstone::Release;

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
    let (owner, order, broken) = (owner(name, generation), Order::Random, Broken::default());
    let private = BTreeSet::new();
    Agent::new(Settings { owner, lease_ttl, order, quota, private, broken, hurry: 1 }, restored)
}

/// What a journal kept of leases, and nothing else.
fn holds(leases: Kept) -> Restored {
    Restored { leases, ..Restored::default() }
}

fn record(id: &str) -> Record {
    let [id, name, node] = [id, "t", "n"].map(Label::from);
    Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() }
}

fn holding(id: &str) -> Holding {
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

fn renew(agent: &Agent, id: &str) -> bool {
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
        extent.until.include(change.slot, change.cell.seq);
    }
    agent.handle(Event::Changed { owner: owner.clone(), changes, extent });
}

pub(super) fn change(slot: Slot, seq: u32, content: Content) -> Change {
    Change { slot, cell: Cell { seq: u64::from(seq), content } }
}

pub(super) fn hear(agent: &Agent, owner: &Owner) {
    agent.handle(Event::Heard { owner: owner.clone(), trip: None });
}

pub(super) fn lose(agent: &Agent, owner: &Owner) {
    agent.handle(Event::Silent { owner: owner.clone(), silence: Duration::from_millis(2_500) });
}

pub(super) fn ids(agent: &Agent) -> Vec<String> {
    agent.resolve("t").iter().map(|record| record.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_record_is_readable_when_register_returns() {
    let agent = agent();
    register(&agent, "1");
    assert_eq!(ids(&agent), ["1"]);
    assert!(renew(&agent, "1"));
    deregister(&agent, "1");
    assert!(ids(&agent).is_empty());
    assert!(renew(&agent, "1"), "a released id is answered OK");
}

#[tokio::test(start_paused = true)]
async fn renewals_leave_nothing_to_tell() {
    let agent = agent();
    register(&agent, "1");
    assert_eq!(agent.collect_changes(), 2, "the record, and that we are ready");
    for _ in 0..3 {
        renew(&agent, "1");
        register(&agent, "1");
    }
    assert_eq!(agent.collect_changes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_renews_lapses() {
    let agent = agent();
    register(&agent, "1");
    agent.collect_changes();
    tokio::time::advance(LEASE_TTL).await;
    assert_eq!(agent.collect_changes(), 1);
    assert!(ids(&agent).is_empty());
    assert!(renew(&agent, "1"), "and a late Renew revives it");
    assert_eq!(ids(&agent), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_else_can_write_our_records() {
    let agent = agent();
    register(&agent, "1");
    agent.collect_changes();
    tell(&agent, &agent.owner().clone(), vec![change(1, 90, Content::Empty)]);
    assert_eq!((ids(&agent), agent.collect_changes()), (vec!["1".to_owned()], 0));
    assert_eq!(agent.mark(agent.owner()), None, "nor tell us anything");
    deregister(&agent, "1");
    assert!(ids(&agent).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_journal_kept_is_answered_from_the_first_moment() {
    let released = vec![("2".into(), Release::Held), ("3".into(), Release::Unheard)];
    let agent = with(holds(Kept { held: vec![holding("1")], released, ..Kept::default() }));
    assert_eq!(ids(&agent), ["1"]);
    assert!(renew(&agent, "1"), "healed from the journal");
    assert!(renew(&agent, "2"), "it may have been in flight beside its Deregister");
    register(&agent, "3");
    assert_eq!(ids(&agent), ["1"], "and that one, too");
    register(&agent, "2");
    assert_eq!(agent.resolve("t").len(), 2, "gost registers an id once, so that is a new record");
}

#[tokio::test(start_paused = true)]
async fn our_former_self_heals_a_renew() {
    let agent = agent();
    say(&agent, &owner("a", 4), &["1", "2"], Status::Ready);
    assert!(ids(&agent).is_empty(), "what it said is not shown");
    assert!(renew(&agent, "2"));
    assert_eq!(ids(&agent), ["2"]);
    assert_eq!(agent.heals()[HealedFrom::FormerSelf as usize].1, 1);
    let dial = agent.lock().leases.sibling(&"n".into(), false).unwrap().dial.clone();
    assert_eq!(dial, *"dial 10.0.0.1:80");
}

#[tokio::test(start_paused = true)]
async fn another_owners_record_heals_a_renew() {
    let agent = agent();
    say(&agent, &owner("b", 1), &["1"], Status::Ready);
    assert!(renew(&agent, "1"));
    assert_eq!(ids(&agent), ["1"], "ours, for b was never heard");
    assert_eq!(agent.heals()[HealedFrom::OtherOwner as usize].1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sibling_heals_a_renew() {
    let agent = agent();
    register(&agent, "1");
    assert!(renew(&agent, "2"));
    assert_eq!(agent.resolve("t").len(), 2);
    assert_eq!(agent.heals()[HealedFrom::Sibling as usize].1, 1);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_address_heals_a_renew_and_without_it_nothing_does() {
    let agent = agent();
    assert!(!renew(&agent, "1"));
    assert!(ids(&agent).is_empty());
    assert!(renew_with(&agent, "1", Some("10.9.9.9:8420")));
    assert_eq!(agent.resolve("t")[0].address, *"10.9.9.9:8420");
    assert_eq!(agent.heals().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 0, 0, 1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_sources_are_tried_in_order() {
    let agent = agent();
    register(&agent, "sibling");
    say(&agent, &owner("b", 1), &["1"], Status::Ready);
    say(&agent, &owner("a", 4), &["1"], Status::Ready);
    for _ in 0..2 {
        assert!(renew_with(&agent, "1", Some("10.9.9.9:1")));
    }
    assert_eq!(agent.heals().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 0, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_comes_last_is_hidden_at_the_ttl_and_is_back_at_once() {
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
    tokio::time::advance(LEASE_TTL).await;
    assert_eq!(ids(&agent), ["c"]);
    hear(&agent, &b);
    assert_eq!(agent.resolve("t").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_left_is_hidden_at_once_and_its_last_frames_do_not_bring_it_back() {
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

#[tokio::test(start_paused = true)]
async fn a_draining_agents_records_are_hidden_elsewhere_and_used_here() {
    let agent = agent();
    let b = owner("b", 1);
    say(&agent, &b, &["b"], Status::Draining);
    hear(&agent, &b);
    register(&agent, "a");
    for status in [Status::Draining, Status::Ready] {
        // Nobody takes it to the cluster here.
        let _ = tokio::time::timeout(LEASE_TTL / 2, agent.say(status)).await;
        assert_eq!(ids(&agent), ["a"]);
        assert_eq!(agent.collected()[0].cell.content, Content::Status(status), "of slot 0");
    }
}

/// What a journal has of draining, if that changed.
fn kept_draining(agent: &Agent) -> Option<bool> {
    agent.take_batch().draining
}

#[tokio::test(start_paused = true)]
async fn draining_is_in_the_journal_and_only_undoing_it_ends_it() {
    let agent = agent();
    agent.use_journal();
    let say = async |agent: &Agent, status| {
        // Nobody takes it to the cluster here, nor to the disk.
        let _ = tokio::time::timeout(LEASE_TTL / 2, agent.say(status)).await;
    };
    say(&agent, Status::Draining).await;
    assert_eq!(kept_draining(&agent), Some(true));
    say(&agent, Status::Left).await;
    assert_eq!(kept_draining(&agent), None, "whoever comes back drains on");

    let after = with(Restored { draining: true, ..Restored::default() });
    after.use_journal();
    assert!(after.is_draining() && after.view().draining);
    let told: Vec<_> = after.collected().into_iter().map(|change| change.cell.content).collect();
    assert_eq!(told, [Content::Status(Status::Draining)], "peers never hear that it is ready");
    assert_eq!(kept_draining(&after), None);
    say(&after, Status::Ready).await;
    assert_eq!((kept_draining(&after), after.is_draining()), (Some(false), false));
}

#[tokio::test(start_paused = true)]
async fn who_drains_is_told_when_the_journal_has_it() {
    let agent = agent();
    agent.use_journal();
    let status = agent.shared.status_told.clone();
    status.send_replace(Seq::MAX);
    let mut saying = std::pin::pin!(agent.say(Status::Draining));
    let early = tokio::time::timeout(Duration::from_millis(10), &mut saying).await;
    assert!(early.is_err(), "not before");
    assert_eq!(agent.take_batch().draining, Some(true));
    agent.written();
    tokio::time::timeout(Duration::from_millis(10), saying).await.expect("then at once");

    let without = with(Restored::default());
    without.shared.status_told.send_replace(Seq::MAX);
    let at_once = tokio::time::timeout(Duration::from_millis(10), without.say(Status::Draining)).await;
    at_once.expect("there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_agent_is_gone_unless_we_doubt_ourselves() {
    let agent = agent();
    let peers = ["b", "c", "d"].map(|name| owner(name, 1));
    for peer in &peers {
        say(&agent, peer, &[peer.name.as_str()], Status::Ready);
        hear(&agent, peer);
    }
    for peer in &peers {
        lose(&agent, peer);
    }
    tokio::time::advance(LEASE_TTL * 2).await;
    assert!(agent.doubts_itself());
    agent.handle(Event::Forgotten { owner: peers[0].clone() });
    assert_eq!(agent.resolve("t").len(), 3, "all vanished together: it was probably us");
    tokio::time::advance(gossd_core::liveness::PRESERVE).await;
    agent.collect_changes();
    assert!(ids(&agent).is_empty());
    assert_eq!(agent.counts().records, 2, "and what chitchat forgot is forgotten");
    agent.handle(Event::Forgotten { owner: peers[1].clone() });
    assert_eq!(agent.counts().records, 1);
}

#[tokio::test(start_paused = true)]
async fn the_journal_gets_the_newest_word_on_each_id_and_everything_again_if_it_started_afresh() {
    use crate::journal::WriteError;
    use gossd_core::lease::Word;
    let agent = agent();
    agent.use_journal();
    register(&agent, "1");
    register(&agent, "2");
    deregister(&agent, "2");
    let batch = agent.take_batch();
    assert!(matches!(batch.words[&"1".into()], Word::Held(_)));
    assert_eq!(batch.words[&"2".into()], Word::Released(Release::Held));
    assert!(agent.take_batch().is_empty());
    let afresh = WriteError::StartedAfresh { path: "a.journal".into(), set_aside: None };
    agent.not_written(Batch::default(), &afresh);
    assert!(agent.journal_problem().is_some());
    assert_eq!(agent.take_batch().words.len(), 2);
    agent.written();
    assert_eq!(agent.journal_problem(), None);
}

#[tokio::test(start_paused = true)]
async fn the_room_of_a_peak_is_given_back() {
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
        (state.leases.room(), state.directory.places())
    };
    assert!(room().0 >= 5_000 && room().1 >= 5_000);
    tokio::time::advance(EMPTY_KEPT.max(LEASE_TTL)).await;
    agent.collect_changes();
    agent.collect_changes();
    assert!(room().0 < 600 && room().1 == 16, "{:?}", room());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_pending_until_it_is_on_disk() {
    let agent = agent();
    agent.use_journal();
    let pending = || agent.view().journal.pending;
    register(&agent, "1");
    assert_eq!(pending(), 1);
    let batch = agent.take_batch();
    register(&agent, "2");
    assert_eq!(pending(), 2, "one of them in a commit");
    agent.not_written(
        batch,
        &crate::journal::WriteError::Failed { path: "a".into(), source: std::io::Error::other("full") },
    );
    assert_eq!(pending(), 2, "again");
    let _batch = agent.take_batch();
    agent.written();
    assert_eq!(pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_changes_shares_commits_and_none_waits_long_for_its_own() {
    let agent = agent();
    agent.use_journal();
    let begun = Instant::now();
    let changing = async {
        for n in 0..200 {
            register(&agent, &n.to_string());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let keeping = async {
        let (mut batches, mut kept) = (0, 0);
        while kept < 200 {
            let batch = agent.next_batch().await;
            for id in batch.words.keys() {
                let registered = Duration::from_millis(10) * id.text().parse().unwrap();
                assert!(begun.elapsed() < registered + Duration::from_millis(40), "{id:?} waited");
            }
            (batches, kept) = (batches + 1, kept + batch.words.len());
            agent.written();
        }
        batches
    };
    let (batches, ()) = tokio::join!(keeping, changing);
    assert!((40..=60).contains(&batches), "{batches} for 200 changes in 2 s");
}
