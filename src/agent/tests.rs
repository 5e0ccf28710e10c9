//! The agent as the program uses it: which call waits for what, in paused time.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use gossd_core::agent::Batch;
use gossd_core::label::Label;
use gossd_core::record::Network;

use tokio::sync::oneshot;

use super::*;
use crate::journal::WriteError;
use crate::journal::thread::{Job, JournalThread, Written};

const HERE: Caller = Caller { remote: None, connection: 1 };

fn agent() -> Agent {
    let owner = Owner { name: "a".parse().unwrap(), generation: 5 };
    Agent::new(Settings::of(owner), Restored::default())
}

fn register(agent: &Agent, id: &str) {
    let [id, name, node] = [id, "t", "n"].map(Label::from);
    let record = Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() };
    agent.register(HERE, Holding { record: Arc::new(record), dial: "".into() }).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_confirmed_when_the_journal_has_it() {
    let agent = agent();
    agent.use_journal();
    let status = agent.shared.status_published.clone();
    status.send_replace(Version::MAX);
    let mut saying = std::pin::pin!(agent.say(Status::Draining));
    let early = tokio::time::timeout(Duration::from_millis(10), &mut saying).await;
    assert!(early.is_err(), "not before");
    assert_eq!(agent.take_batch().draining, Some(true));
    agent.written();
    tokio::time::timeout(Duration::from_millis(10), saying).await.expect("then at once");

    let without = self::agent();
    without.shared.status_published.send_replace(Version::MAX);
    let at_once = tokio::time::timeout(Duration::from_millis(10), without.say(Status::Draining)).await;
    at_once.expect("there is nothing to wait for");
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

/// An agent that keeps a journal, whose disk the test is.
fn keeping() -> (Agent, mpsc::Receiver<Job>, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let (agent, (thread, asked)) = (agent(), JournalThread::without_journal());
    agent.use_journal();
    let keeper = tokio::spawn(agent.clone().keep(thread));
    (agent, asked, keeper)
}

/// The next write that the disk is asked for.
async fn write(asked: &mpsc::Receiver<Job>) -> (Batch, oneshot::Sender<Written>) {
    loop {
        match asked.try_recv() {
            Ok(Job::Write(batch, done)) => return (batch, done),
            Ok(Job::Look(done)) => done.send(Ok(())).unwrap(),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn done(batch: Batch, result: Result<(), WriteError>) -> Written {
    Written { batch, result, bytes: 4_096 }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_a_problem_after_two_seconds_and_none_when_it_returns() {
    let (agent, asked, _keeper) = keeping();
    register(&agent, "1");
    let (batch, answer) = write(&asked).await;
    tokio::time::sleep(Duration::from_millis(1_990)).await;
    assert_eq!(agent.journal_problem(), None);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(agent.journal_problem().is_some());
    register(&agent, "2");
    assert_eq!(agent.resolve("t").len(), 2, "it goes on in memory");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(agent.view().journal.commit >= Duration::from_secs(60));
    answer.send(done(batch, Ok(()))).unwrap();
    let (batch, answer) = write(&asked).await;
    assert_eq!(batch.words.len(), 1, "what changed meanwhile");
    answer.send(done(batch, Ok(()))).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((agent.journal_problem(), agent.view().changes.late_commits), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_no_more_than_two_commits_and_the_time_that_they_share() {
    const COMMIT: Duration = Duration::from_millis(200);
    let (agent, asked, _keeper) = keeping();
    register(&agent, "0");
    let (batch, answer) = write(&asked).await;
    // Just after the batch was taken: the worst moment.
    register(&agent, "1");
    let registered = Instant::now();
    tokio::time::sleep(COMMIT).await;
    answer.send(done(batch, Ok(()))).unwrap();
    let (batch, answer) = write(&asked).await;
    assert!(batch.words.contains_key(&"1".into()));
    tokio::time::sleep(COMMIT).await;
    answer.send(done(batch, Ok(()))).unwrap();
    assert_eq!(agent.flush(keeper::FLUSH).await, 0);
    let most = 2 * COMMIT + Duration::from_millis(35);
    assert!(
        (most..most + Duration::from_millis(5)).contains(&registered.elapsed()),
        "{:?}",
        registered.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_is_noticed_within_two_seconds_without_a_change_and_everything_is_written_anew() {
    let (agent, asked, _keeper) = keeping();
    for id in ["1", "2"] {
        register(&agent, id);
    }
    let (batch, answer) = write(&asked).await;
    answer.send(done(batch, Ok(()))).unwrap();
    let begun = Instant::now();
    let look = loop {
        match asked.try_recv() {
            Ok(Job::Look(look)) => break look,
            Ok(Job::Write(..)) => panic!("there is nothing to write"),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert!(begun.elapsed() <= Duration::from_secs(2));
    look.send(Err(WriteError::StartedAfresh { path: "a.journal".into(), set_aside: None })).unwrap();
    let (batch, answer) = write(&asked).await;
    assert!(agent.journal_problem().is_some(), "until it has everything");
    assert_eq!(batch.words.len(), 2);
    answer.send(done(batch, Ok(()))).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(agent.journal_problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_tried_again_every_second_and_then_gets_everything() {
    let (agent, asked, _keeper) = keeping();
    register(&agent, "1");
    let (batch, answer) = write(&asked).await;
    answer.send(done(batch, Ok(()))).unwrap();
    register(&agent, "2");
    for _ in 0..5 {
        let (batch, answer) = write(&asked).await;
        let failed =
            WriteError::Failed { path: "a.journal".into(), source: io::ErrorKind::StorageFull.into() };
        let begun = Instant::now();
        answer.send(done(batch, Err(failed))).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(agent.journal_problem().is_some());
        assert!(asked.try_recv().is_err(), "not at once");
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    let (batch, answer) = write(&asked).await;
    assert_eq!(batch.words.len(), 2, "also what it had before");
    answer.send(done(batch, Ok(()))).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(agent.journal_problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_disk_for_a_limited_time_and_without_a_journal_not_at_all() {
    let (agent, asked, _keeper) = keeping();
    register(&agent, "1");
    let (batch, answer) = write(&asked).await;
    register(&agent, "2");
    let begun = Instant::now();
    assert_eq!(agent.flush(keeper::FLUSH).await, 2, "one of them on its way");
    assert!(begun.elapsed() < keeper::FLUSH + Duration::from_millis(10));
    answer.send(done(batch, Ok(()))).unwrap();
    let (batch, answer) = write(&asked).await;
    answer.send(done(batch, Ok(()))).unwrap();
    assert_eq!(agent.flush(keeper::FLUSH).await, 0);

    let (without, begun) = (self::agent(), Instant::now());
    register(&without, "1");
    assert_eq!((without.flush(keeper::FLUSH).await, begun.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn no_peer_can_end_the_replication_of_claims() {
    use gossd_core::codec::{decode_cell, encode_cell};
    use gossd_core::hostname::Claim;
    use gossd_core::replica::Extent;
    use gossd_core::slot::{Cell, Change, Content, FIRST_CLAIM, STATUS_SLOT};
    let (agent, b) = (agent(), Owner { name: "b".parse().unwrap(), generation: 1 });
    let endpoint = |n: u128| Endpoint { tunnel: TunnelId::from_bytes(n.to_be_bytes()), private: false };
    let latest = Claim { host: "y".into(), endpoint: endpoint(0), clock: 1 << 53 };
    let change = |slot, content| Change { slot, cell: Cell { version: 1, content } };
    let changes = vec![
        change(FIRST_CLAIM, Content::Claim(Arc::new(latest))),
        change(STATUS_SLOT, Content::Status(Status::Ready)),
    ];
    let extent = Extent { until: 1, ..Extent::default() };
    agent.clone().apply(Instant::now().into_std(), News::Changed { owner: b, changes, extent });
    assert_eq!(agent.claim("x", endpoint(1), |_| true), Ok(true));
    let changes = agent.collected();
    let claims: Vec<_> = changes.iter().filter(|change| change.slot >= FIRST_CLAIM).collect();
    assert!(!claims.is_empty());
    for change in claims {
        let mut bytes = Vec::new();
        encode_cell(&change.cell, &mut bytes);
        assert!(decode_cell(change.slot, &bytes).is_some(), "{bytes:?}");
    }
}
