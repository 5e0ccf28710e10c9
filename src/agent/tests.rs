//! The agent as the program uses it: which call waits for what, in paused time.

use std::time::Duration;

use gossd_core::agent::LEASE_TTL;
use gossd_core::label::Label;
use gossd_core::record::Network;

use super::*;

const HERE: Caller = Caller { remote: None, connection: 1 };

fn agent() -> Agent {
    let owner = Owner { name: "a".parse().unwrap(), generation: 5 };
    let settings = Settings {
        owner,
        lease_ttl: LEASE_TTL,
        order: Order::Random,
        quota: Quota::default(),
        private: BTreeSet::new(),
        broken: gossd_core::agent::Broken::default(),
        hurry: 1,
    };
    Agent::new(settings, Restored::default())
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
    assert_eq!(agent.claim("x", endpoint(1)), Ok(true));
    let changes = agent.collected();
    let claims: Vec<_> = changes.iter().filter(|change| change.slot >= FIRST_CLAIM).collect();
    assert!(!claims.is_empty());
    for change in claims {
        let mut bytes = Vec::new();
        encode_cell(&change.cell, &mut bytes);
        assert!(decode_cell(change.slot, &bytes).is_some(), "{bytes:?}");
    }
}
