//! All that an agent would keep, as one piece of bytes: what a process hands to the one that takes over from it, with or
//! without a journal. The entries are a journal's own, so that both read and bound them with the same code.

use serde::{Deserialize, Serialize};

use super::RestoredJournal;
use super::kept::{bytes, read as read_kept};
use super::log::{Commit, Stamp, changes};
use gossd_core::agent::{Batch, Unreconciled};
use gossd_core::label::Label;
use gossd_core::record::Generation;
use gossd_core::slot::Version;

/// Fields are never changed, only appended.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot<'a> {
    generation: Generation,
    /// An encoded [`Commit`], which a later version may have appended to.
    #[serde(borrow)]
    all: &'a [u8],
    /// See [`Unreconciled`]: generation, version and ids.
    unreconciled: Option<(Generation, Version, Vec<String>)>,
}

/// The bytes of everything that a process of that generation holds.
pub(crate) fn write(generation: Generation, all: &Batch, unreconciled: Option<Unreconciled>) -> Vec<u8> {
    let unreconciled = unreconciled.map(|Unreconciled { told: (of, version), ids }| {
        (of, version, ids.iter().map(ToString::to_string).collect())
    });
    let all = bytes(&Commit::of(Stamp::first(generation), all, &changes(all)));
    bytes(&Snapshot { generation, all: &all, unreconciled })
}

/// What a process has to start with that comes after the one that wrote this; none of what it cannot have written. What
/// a later version appended is left out.
pub(crate) fn read(bytes: &[u8]) -> Option<RestoredJournal> {
    let Snapshot { generation, all, unreconciled } = read_kept(bytes)?;
    let mut restored = Commit::read_alone(all)?.restored(generation.checked_add(1)?, None);
    let (told, ids) =
        unreconciled.map_or((None, Vec::new()), |(of, version, ids)| (Some((of, version)), ids));
    restored.told = told;
    restored.leases.unconfirmed = Some(ids.iter().map(|id| Label::from(id.as_str())).collect());
    Some(restored)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::journal::tests::{WHY, hex, unhex};
    use gossd_core::entrypoints::{EntrypointKey, Place, Registered};
    use gossd_core::hostname::{Claim, Endpoint, TunnelId};
    use gossd_core::lease::{Holding, Word};
    use gossd_core::record::{Network, Record};
    use gossd_core::tombstone::Release;

    /// A snapshot of the first version, in hexadecimal digits. Never changed.
    const FROZEN: &str = include_str!("../../tests/frozen/0.1/snapshot.txt");

    fn holding(id: &str) -> Holding {
        let [id, name, node] = [id, "t", "n"].map(Into::into);
        let record = Record { id, name, node, network: Network::Udp, address: "10.0.0.1:80".into() };
        Holding { record: Arc::new(record), dial: "127.0.0.1:80".into() }
    }

    /// One of everything.
    fn all() -> (Batch, Claim, Registered, Unreconciled) {
        let tunnel = TunnelId::from_bytes([7; 16]);
        let rule = Claim { host: "x.example".into(), endpoint: Endpoint { tunnel, private: true }, clock: 5 };
        let key = EntrypointKey { node: "n".into(), routers: false };
        let place = Place { address: "10.0.0.1:80".into(), dial: "127.0.0.1:80".into() };
        let registered = Registered { key: key.clone(), home: None, place, number: 3 };
        let mut all = Batch { draining: Some(true), ..Batch::default() };
        all.words.insert("1".into(), Word::Held(holding("1")));
        all.words.insert("2".into(), Word::Lapsed(holding("2")));
        all.words.insert("3".into(), Word::Released(Release::Held));
        all.words.insert("4".into(), Word::Forgotten);
        all.claims.insert(rule.key(), Some(Arc::new(rule.clone())));
        all.periods.insert("n".into(), Some(Duration::from_secs(15)));
        all.entrypoints.insert(key, Some(registered.clone()));
        (all, rule, registered, Unreconciled { told: (40, 7), ids: vec!["1".into()] })
    }

    #[test]
    fn everything_arrives_under_a_higher_generation() {
        let (all, rule, registered, unreconciled) = all();
        let bytes = write(41, &all, Some(unreconciled));
        let read = read(&bytes).unwrap();
        assert_eq!((read.generation, read.draining, read.told), (42, true, Some((40, 7))));
        assert_eq!(read.leases.unconfirmed, Some(["1".into()].into()));
        assert_eq!((read.leases.held, read.leases.lapsed), (vec![holding("1")], vec![holding("2")]));
        assert_eq!(read.leases.released, [("3".into(), Release::Held)]);
        assert_eq!(read.leases.periods, [("n".into(), Duration::from_secs(15))]);
        assert_eq!((read.rules, read.entrypoints), (vec![rule], vec![registered]));
        assert!(super::read(&bytes[..bytes.len() / 2]).is_none(), "cut");
    }

    #[test]
    fn processes_of_the_first_version_and_of_this_one_take_over_from_each_other() {
        let (all, rule, registered, unreconciled) = all();
        let written = hex(&write(41, &all, Some(unreconciled)));
        assert!(written.starts_with(FROZEN.trim()), "{written}. {WHY}");
        let former = unhex(FROZEN);
        let read = read(&former).expect(WHY);
        assert_eq!((read.generation, read.draining, read.told), (42, true, Some((40, 7))), "{WHY}");
        assert_eq!((read.rules, read.entrypoints), (vec![rule], vec![registered]), "{WHY}");
        let later = [&former[..], b"what a later version appends"].concat();
        assert_eq!(super::read(&later).expect("it is skipped").leases.held, vec![holding("1")]);
        let Snapshot { generation, all, unreconciled } = read_kept(&former).unwrap();
        let all = [all, b"what it appends to a commit"].concat();
        let later =
            super::read(&bytes(&Snapshot { generation, all: &all, unreconciled })).expect("it is skipped");
        assert_eq!((later.leases.held, later.told), (vec![holding("1")], Some((40, 7))));
    }
}
