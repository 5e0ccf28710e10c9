//! All that an agent would keep, as one piece of bytes: what a process hands to the one that takes over from it, with or
//! without a journal. The entries are a journal's own, so that both read and bound them with the same code.

use serde::{Deserialize, Serialize};

use super::kept::{spell_rule, spell_word};
use super::store::Contents;
use super::{Batch, Restored};
use crate::domain::record::Generation;

/// Key and value.
type Entry = (Vec<u8>, Vec<u8>);

/// Fields are never changed, only appended.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    generation: Generation,
    words: Vec<Entry>,
    rules: Vec<Entry>,
}

/// The bytes of everything that a process of that generation holds.
pub fn write(generation: Generation, all: &Batch) -> Vec<u8> {
    let numbered = all.words.iter().zip(0..);
    let words =
        numbered.filter_map(|((id, word), n)| Some((id.text().as_bytes().into(), spell_word(word, n)?)));
    let rules = all.rules.values().flatten().map(|rule| spell_rule(rule));
    let snapshot = Snapshot { generation, words: words.collect(), rules: rules.collect() };
    // Numbers and lists of bytes always serialize.
    postcard::to_stdvec(&snapshot).unwrap_or_default()
}

/// What a process has to start with that comes after the one that wrote this; none of what it cannot have written. What
/// a later version appended is left out.
pub fn read(bytes: &[u8]) -> Option<Restored> {
    let (Snapshot { generation, words, rules }, _) = postcard::take_from_bytes(bytes).ok()?;
    let generation = generation.checked_add(1)?;
    let Contents { held, lapsed, released, rules, .. } = Contents::of(&borrowed(&words), &borrowed(&rules));
    Some(Restored { generation, held, lapsed, released, rules, set_aside: None })
}

fn borrowed(entries: &[Entry]) -> Vec<(&[u8], &[u8])> {
    entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::lease::{Holding, Word};
    use crate::domain::record::{Network, Record};
    use crate::domain::rule::{Endpoint, Rule, TunnelId};

    #[test]
    fn everything_arrives_under_a_higher_generation() {
        let holding = |id: &str| {
            let [id, name, node] = [id, "t", "n"].map(Into::into);
            let record = Record { id, name, node, network: Network::Udp, address: "10.0.0.1:80".into() };
            Holding { record: Arc::new(record), dial: "127.0.0.1:80".into() }
        };
        let tunnel = TunnelId::from_bytes([7; 16]);
        let rule = Rule { host: "x.example".into(), endpoint: Endpoint { tunnel, private: true }, clock: 5 };
        let mut all = Batch::default();
        all.words.insert("1".into(), Word::Held(holding("1")));
        all.words.insert("2".into(), Word::Lapsed(holding("2")));
        all.words.insert("3".into(), Word::Released);
        all.words.insert("4".into(), Word::Forgotten);
        all.rules.insert(rule.key(), Some(Arc::new(rule.clone())));
        let bytes = write(41, &all);
        let read = read(&bytes).unwrap();
        assert_eq!((read.generation, read.held, read.lapsed), (42, vec![holding("1")], vec![holding("2")]));
        assert_eq!((read.released, read.rules), (vec!["3".into()], vec![rule]));
        assert!(super::read(&bytes[..bytes.len() / 2]).is_none(), "cut");
    }
}
