//! Journals as a start reads them: what is taken could have been registered, is written as it was read, and is what the
//! agent then answers and tells. A file that is damaged is noticed, and ends nothing.

use std::cell::{Cell as Flag, OnceCell};
use std::collections::BTreeMap;
use std::panic;
use std::sync::{Arc, Once};

use gossd::agent::{Agent, Broken, LEASE_TTL, Restored as Held, Settings};
use gossd::domain::address::{Address, Entrypoint};
use gossd::domain::lease::{Holding, Word};
use gossd::domain::quota::Quota;
use gossd::domain::rank::Order;
use gossd::domain::record::{Network, Owner, Record, check_field};
use gossd::domain::rule::{Endpoint, Rule, TunnelId};
use gossd::domain::slot::{Cell, Content, FIRST_RULE, Slot};
use gossd::gossip::slots;
use gossd::journal::entries::{read, read_file, write_file, write_rule, write_word};
use gossd::journal::{Batch, Restored};

use super::input::Input;

/// One input in so many may be a whole file, chosen by what is in it: files are a hundred times slower.
const FILES: u64 = 1_024;

/// Entries, or changes to a good file.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() == 0xff {
        if hash(data).is_multiple_of(FILES) {
            damaged(input);
        }
        return;
    }
    let (mut words, mut rules) = (BTreeMap::new(), BTreeMap::new());
    while !input.is_empty() {
        let kind = input.byte();
        let (key, value) = (input.counted(), input.counted());
        if kind.is_multiple_of(2) {
            words.insert(key, value)
        } else {
            rules.insert(key, value)
        };
    }
    let [words, rules] = [words, rules].map(|entries| entries.into_iter().collect::<Vec<_>>());
    let restored = read(&words, &rules);
    let taken = restored.held.len() + restored.lapsed.len() + restored.released.len();
    assert!(taken <= words.len() && restored.rules.len() <= rules.len());
    check(&restored);
    starts(restored);
}

fn hash(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        >> 20
}

fn check(restored: &Restored) {
    let held = restored.held.iter().map(|holding| (holding, Word::Held(holding.clone())));
    let lapsed = restored.lapsed.iter().map(|holding| (holding, Word::Lapsed(holding.clone())));
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
        let found = if matches!(word, Word::Held(_)) { &again.held } else { &again.lapsed };
        assert_eq!(found, std::slice::from_ref(holding), "written as it was read");
        told(1, Content::Record(holding.record.clone()));
    }
    for id in &restored.released {
        let kept = write_word(&Word::Released, 7).expect("it is kept");
        assert_eq!(read(&[(id.text().as_bytes(), &kept)], &[]).released, std::slice::from_ref(id));
    }
    for rule in &restored.rules {
        assert!(rule.is_plausible());
        let (key, kept) = write_rule(rule);
        assert_eq!(read(&[], &[(&key, &kept)]).rules, std::slice::from_ref(rule));
        told(FIRST_RULE, Content::Rule(Arc::new(rule.clone())));
    }
}

/// What an agent says of it, its peers understand.
fn told(slot: Slot, content: Content) {
    let cell = Cell { seq: 1, content };
    assert_eq!(slots::parse_value(slot, &slots::value(&cell)), Some(cell));
}

fn starts(restored: Restored) {
    let Restored { held, lapsed, released, rules, .. } = restored;
    let owner = Owner { name: "a".parse().expect("a name"), generation: 5 };
    let (order, quota, broken) = (Order::Random, Quota::default(), Broken::default());
    let settings = Settings { owner, lease_ttl: LEASE_TTL, order, quota, broken, hurry: 1 };
    let kept = Held { held: held.clone(), lapsed: lapsed.clone(), released: released.clone(), rules };
    let agent = Agent::new(settings, kept);
    let counts = agent.counts();
    assert!(counts.own_records <= held.len() && counts.agents == 1);
    for holding in held.iter().chain(&lapsed) {
        for record in agent.resolve(&holding.record.name.text()) {
            assert!(held.iter().any(|held| held.record == record), "only what was live is live");
            assert!(!released.contains(&record.id), "released for ever");
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
    let rule = Rule { host: "x.example.org".into(), endpoint, clock: 3 };
    let mut batch = Batch::default();
    batch.words.insert("held".into(), Word::Held(holding("held")));
    batch.words.insert("lapsed".into(), Word::Lapsed(holding("lapsed")));
    batch.words.insert("released".into(), Word::Released);
    batch.rules.insert(rule.key(), Some(Arc::new(rule)));
    let file = write_file(&batch);
    let restored = read_file(file.clone()).expect("a good file");
    assert_eq!((restored.held.len(), restored.lapsed.len(), restored.released.len()), (1, 1, 1));
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
