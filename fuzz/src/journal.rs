//! Journals as a start reads them. An accepted entry could have been registered, is written the same way again, and is
//! what the agent then answers and sends. A damaged file is noticed, and ends nothing.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gossd::agent::Agent;
use gossd::journal::RestoredJournal;
use gossd::journal::entries::{made_up, read_file, write_commit, write_file};
use gossd_core::address::{Address, Entrypoint};
use gossd_core::agent::Batch;
use gossd_core::agent::{Restored as Held, Settings};
use gossd_core::codec::{decode_cell, encode_cell};
use gossd_core::entrypoints::{EntrypointKey, Place, Registered};
use gossd_core::hostname::{Claim, Endpoint, TunnelId};
use gossd_core::lease::{Holding, KeptLeases, Word};
use gossd_core::record::{Network, Owner, Record, check_field};
use gossd_core::slot::{Cell, Content, FIRST_CLAIM, Slot};
use gossd_core::tombstone::Release;

use super::input::Input;

/// Entries; or the bytes of commits; or changes to a good file.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() {
        0xff => damaged(input),
        0xfe => commits(input),
        _ => entries(input),
    }
}

fn entries(mut input: Input<'_>) {
    let mut entries = BTreeMap::new();
    while !input.is_empty() {
        let keyspace = input.byte() % 5;
        let (key, kept) = (input.counted(), input.counted());
        entries.insert((keyspace, key), kept);
    }
    let count = |of: u8| entries.keys().filter(|(keyspace, _)| *keyspace == of).count();
    let [words, rules, periods, entrypoints] = [0, 1, 2, 3].map(count);
    let entries: Vec<_> = entries.into_iter().map(|((keyspace, key), kept)| (keyspace, key, kept)).collect();
    let restored = read_file(&write_file(&[made_up(1, &entries)])).expect("a good file");
    let KeptLeases { held, unconfirmed: _, lapsed, released, periods: learned } = &restored.leases;
    assert!(held.len() + lapsed.len() + released.len() <= words && restored.rules.len() <= rules);
    assert!(learned.len() <= periods && restored.entrypoints.len() <= entrypoints);
    check(&restored);
    starts(restored);
}

/// Commits that some gossd, or nobody, may have encoded, with right checksums.
fn commits(mut input: Input<'_>) {
    let mut commits = vec![write_commit(1, &Batch::default())];
    while !input.is_empty() {
        commits.push(input.counted().to_vec());
    }
    read_file(&write_file(&commits)).iter().for_each(check);
}

fn check(restored: &RestoredJournal) {
    let KeptLeases { held, unconfirmed: _, lapsed, released, periods } = &restored.leases;
    let held = held.iter().map(|holding| (holding, Word::Held(holding.clone())));
    let lapsed = lapsed.iter().map(|holding| (holding, Word::Lapsed(holding.clone())));
    for (holding, word) in held.chain(lapsed) {
        let Record { id, name, node, address, .. } = &*holding.record;
        for field in [id, name, node] {
            assert!(!field.text().is_empty() && check_field("", &field.text()).is_ok(), "{field:?}");
        }
        assert!(Entrypoint::parse(&address.to_string()).is_ok(), "{address}");
        assert!(holding.dial.is_empty() || Entrypoint::parse(&holding.dial.to_string()).is_ok());
        let again = kept(|batch| batch.words.extend([(id.clone(), word.clone())])).leases;
        let found = if matches!(word, Word::Held(_)) { &again.held } else { &again.lapsed };
        assert_eq!(found, std::slice::from_ref(holding), "written as it was read");
        told(1, Content::Record(holding.record.clone()));
    }
    for (id, release) in released {
        let again = kept(|batch| batch.words.extend([(id.clone(), Word::Released(*release))]));
        assert_eq!(again.leases.released, [(id.clone(), *release)]);
    }
    for (node, period) in periods {
        assert!(!node.text().is_empty() && !period.is_zero());
        let again = kept(|batch| batch.periods.extend([(node.clone(), Some(*period))]));
        assert_eq!(again.leases.periods, [(node.clone(), *period)]);
    }
    for registered in &restored.entrypoints {
        let Place { address, dial } = &registered.place;
        assert!(Entrypoint::parse(&address.to_string()).is_ok(), "{address}");
        assert!(dial.is_empty() || Entrypoint::parse(&dial.to_string()).is_ok());
        let key = registered.key.clone();
        let again = kept(|batch| batch.entrypoints.extend([(key, Some(registered.clone()))]));
        assert_eq!(again.entrypoints, std::slice::from_ref(registered));
    }
    for rule in &restored.rules {
        assert!(rule.is_plausible());
        let again = kept(|batch| batch.claims.extend([(rule.key(), Some(Arc::new(rule.clone())))]));
        assert_eq!(again.rules, std::slice::from_ref(rule));
        told(FIRST_CLAIM, Content::Claim(Arc::new(rule.clone())));
    }
}

/// What a start makes of a batch of one.
fn kept(note: impl FnOnce(&mut Batch)) -> RestoredJournal {
    let mut batch = Batch::default();
    note(&mut batch);
    read_file(&write_file(&[write_commit(1, &batch)])).expect("a good file")
}

/// What an agent sends of it, its peers accept.
fn told(slot: Slot, content: Content) {
    let (cell, mut bytes) = (Cell { version: 1, content }, Vec::new());
    encode_cell(&cell, &mut bytes);
    assert_eq!(decode_cell(slot, &bytes), Some(cell));
}

fn starts(restored: RestoredJournal) {
    let RestoredJournal { leases, entrypoints, rules, draining, told, .. } = restored;
    let KeptLeases { held, lapsed, released, .. } = leases.clone();
    let owner = Owner { name: "a".parse().expect("a name"), generation: 5 };
    let settings = Settings::of(owner);
    let kept = Held { leases, entrypoints, claims: rules, draining, told };
    let agent = Agent::new(settings, kept);
    let counts = agent.counts();
    assert!(counts.own_records <= held.len() && counts.agents == 1);
    for holding in held.iter().chain(&lapsed) {
        for record in agent.resolve(&holding.record.name.text()) {
            assert!(held.iter().any(|held| held.record == record), "only what was live is live");
            assert!(released.iter().all(|(id, _)| *id != record.id), "it was released");
        }
    }
}

thread_local! {
    static FILE: OnceCell<Vec<u8>> = const { OnceCell::new() };
}

/// Overwrites some bytes of a good file, or truncates it.
fn damaged(mut input: Input<'_>) {
    let mut file = FILE.with(|file| file.get_or_init(good).clone());
    while !input.is_empty() {
        let at = usize::from(input.number()) << (input.byte() % 8);
        let bytes = input.counted();
        match file.get_mut(at..at + bytes.len()) {
            Some(place) => place.copy_from_slice(bytes),
            None => file.truncate(at),
        }
    }
    read_file(&file).iter().for_each(check);
}

fn good() -> Vec<u8> {
    let holding = |id: &str| {
        let [id, name, node] = [id, "t", "n"].map(Into::into);
        let record = Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() };
        Holding { record: Arc::new(record), dial: Address::from("127.0.0.1:80") }
    };
    let endpoint = Endpoint { tunnel: TunnelId::from_bytes([7; 16]), private: false };
    let rule = Claim { host: "x.example.org".into(), endpoint, clock: 3 };
    let mut batch = Batch::default();
    batch.words.insert("held".into(), Word::Held(holding("held")));
    batch.words.insert("lapsed".into(), Word::Lapsed(holding("lapsed")));
    batch.words.insert("released".into(), Word::Released(Release::Held));
    let key = EntrypointKey { node: "n".into(), routers: false };
    let place = Place { address: "10.0.0.1:80".into(), dial: "127.0.0.1:80".into() };
    let registered = Registered { key: key.clone(), home: None, place, number: 3 };
    batch.entrypoints.insert(key, Some(registered));
    batch.periods.insert("n".into(), Some(Duration::from_secs(15)));
    batch.draining = Some(true);
    batch.claims.insert(rule.key(), Some(Arc::new(rule)));
    let commits = [(1, Batch::default()), (2, batch), (3, Batch::default())];
    let file = write_file(&commits.map(|(count, batch)| write_commit(count, &batch)));
    let restored = read_file(&file).expect("a good file");
    let KeptLeases { held, unconfirmed: _, lapsed, released, periods } = &restored.leases;
    assert_eq!([held.len(), lapsed.len(), released.len(), periods.len()], [1; 4]);
    assert!(restored.draining && restored.entrypoints.len() == 1);
    file
}
