//! Journals as a start reads them: what is taken could have been registered, is written as it was read, and is what the
//! agent then answers and tells. A file that is damaged is noticed, and ends nothing.

use std::cell::{Cell as Flag, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic;
use std::sync::{Arc, Once};
use std::time::Duration;

use gossd::agent::Agent;
use gossd::gossip::slots;
use gossd::journal::Restored;
use gossd::journal::entries::{
    read, read_file, read_gosts, write_entrypoint, write_file, write_rule, write_word,
};
use gossd_core::address::{Address, Entrypoint};
use gossd_core::agent::Batch;
use gossd_core::agent::{Broken, LEASE_TTL, Restored as Held, Settings};
use gossd_core::entrypoints::{EntrypointKey, Place, Registered};
use gossd_core::hostname::{Claim, Endpoint, TunnelId};
use gossd_core::lease::{Holding, Kept, Word};
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::{Network, Owner, Record, check_field};
use gossd_core::slot::{Cell, Content, FIRST_CLAIM, Slot};
use gossd_core::tombstone::Release;

use super::input::Input;

/// One input in so many may be a whole file, chosen by what is in it: files are a hundred times slower.
const FILES: u64 = 1_024;

/// What an entry is that is neither a word nor a rule.
const ENTRYPOINT: u8 = 0xfe;
const PERIOD: u8 = 0xfd;

/// Entries, or changes to a good file.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() == 0xff {
        if hash(data).is_multiple_of(FILES) {
            damaged(input);
        }
        return;
    }
    let [mut words, mut rules, mut entrypoints] = [const { BTreeMap::new() }; 3];
    let mut periods = BTreeMap::new();
    while !input.is_empty() {
        let kind = input.byte();
        let (key, value) = (input.counted(), input.counted());
        match kind {
            ENTRYPOINT => drop(entrypoints.insert(key, value)),
            PERIOD => drop(periods.insert(key, hash(value))),
            _ if kind.is_multiple_of(2) => drop(words.insert(key, value)),
            _ => drop(rules.insert(key, value)),
        }
    }
    let [words, rules, entrypoints] =
        [words, rules, entrypoints].map(|entries| entries.into_iter().collect::<Vec<_>>());
    let periods: Vec<_> = periods.into_iter().collect();
    let gosts = read_gosts(&periods, &entrypoints);
    assert!(gosts.leases.periods.len() <= periods.len() && gosts.entrypoints.len() <= entrypoints.len());
    let mut restored = read(&words, &rules);
    let Kept { held, lapsed, released, .. } = &restored.leases;
    let taken = held.len() + lapsed.len() + released.len();
    assert!(taken <= words.len() && restored.rules.len() <= rules.len());
    (restored.leases.periods, restored.entrypoints) = (gosts.leases.periods, gosts.entrypoints);
    check(&restored);
    starts(restored);
}

fn hash(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        >> 20
}

fn check(restored: &Restored) {
    let Kept { held, lapsed, released, periods } = &restored.leases;
    let held = held.iter().map(|holding| (holding, Word::Held(holding.clone())));
    let lapsed = lapsed.iter().map(|holding| (holding, Word::Lapsed(holding.clone())));
    for (holding, word) in held.chain(lapsed) {
        let Record { id, name, node, address, .. } = &*holding.record;
        for field in [id, name, node] {
            assert!(!field.text().is_empty() && check_field("", &field.text()).is_ok(), "{field:?}");
        }
        assert!(Entrypoint::parse(&address.to_string()).is_ok(), "{address}");
        assert!(holding.dial.is_empty() || Entrypoint::parse(&holding.dial.to_string()).is_ok());
        let kept = write_word(&word, 0).expect("it is kept");
        let id = id.text();
        let again = read(&[(id.as_bytes(), &kept)], &[]);
        let again = again.leases;
        let found = if matches!(word, Word::Held(_)) { &again.held } else { &again.lapsed };
        assert_eq!(found, std::slice::from_ref(holding), "written as it was read");
        told(1, Content::Record(holding.record.clone()));
    }
    for (id, release) in released {
        let kept = write_word(&Word::Released(*release), 7).expect("it is kept");
        let again = read(&[(id.text().as_bytes(), &kept)], &[]).leases.released;
        assert_eq!(again, [(id.clone(), *release)]);
    }
    assert!(periods.iter().all(|(node, period)| !node.text().is_empty() && !period.is_zero()));
    for registered in &restored.entrypoints {
        let Place { address, dial } = &registered.place;
        assert!(Entrypoint::parse(&address.to_string()).is_ok(), "{address}");
        assert!(dial.is_empty() || Entrypoint::parse(&dial.to_string()).is_ok());
        let (key, kept) = write_entrypoint(registered);
        assert_eq!(read_gosts(&[], &[(&key, &kept)]).entrypoints, std::slice::from_ref(registered));
    }
    for rule in &restored.rules {
        assert!(rule.is_plausible());
        let (key, kept) = write_rule(rule);
        assert_eq!(read(&[], &[(&key, &kept)]).rules, std::slice::from_ref(rule));
        told(FIRST_CLAIM, Content::Claim(Arc::new(rule.clone())));
    }
}

/// What an agent says of it, its peers understand.
fn told(slot: Slot, content: Content) {
    let cell = Cell { version: 1, content };
    assert_eq!(slots::parse_value(slot, &slots::value(&cell)), Some(cell));
}

fn starts(restored: Restored) {
    let Restored { leases, entrypoints, rules, draining, .. } = restored;
    let Kept { held, lapsed, released, .. } = leases.clone();
    let owner = Owner { name: "a".parse().expect("a name"), generation: 5 };
    let (order, quota, broken) = (Order::Random, Quota::default(), Broken::default());
    let private = BTreeSet::new();
    let settings = Settings { owner, lease_ttl: LEASE_TTL, order, quota, private, broken, hurry: 1 };
    let kept = Held { leases, entrypoints, claims: rules, draining };
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
    /// redb may panic over a damaged file, which is caught.
    static TOLERANT: Flag<bool> = const { Flag::new(false) };
}

/// Writes over some bytes of a good file, or cuts it.
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
    tolerate();
    TOLERANT.set(true);
    let restored = read_file(file);
    TOLERANT.set(false);
    restored.iter().for_each(check);
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
    let file = write_file(&batch);
    let restored = read_file(file.clone()).expect("a good file");
    let Kept { held, lapsed, released, periods } = &restored.leases;
    assert_eq!([held.len(), lapsed.len(), released.len(), periods.len()], [1; 4]);
    assert!(restored.draining && restored.entrypoints.len() == 1);
    file
}

/// libFuzzer's hook would end the process before the panic is caught.
fn tolerate() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !TOLERANT.get() {
                before(info);
            }
        }));
    });
}
