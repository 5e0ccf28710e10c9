//! What an agent keeps, as it lies in a journal's file: entries, key and value. A record and a claim are encoded as
//! in slots, so that what a later version appends to them, or to an entry, is no reason to skip it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use gossd_core::address::Address;
use gossd_core::agent::Batch;
use gossd_core::codec;
use gossd_core::entrypoints::{EntrypointKey, Place, Registered};
use gossd_core::hostname::{Claim, ClaimKey};
use gossd_core::label::Label;
use gossd_core::lease::{Holding, Word};
use gossd_core::slot::Content;
use gossd_core::tombstone::Release;

/// What entries are about. Their keys are bytes, not strings, so that a bad one costs one entry. A number is never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyspace {
    /// Id → [`KeptId`].
    Words = 0,
    /// Tunnel id and host → the claim, as slots hold it.
    Rules,
    /// Instance → its Renew period, in milliseconds.
    Periods,
    /// Handler and instance → [`KeptEntrypoint`].
    Entrypoints,
}

/// Key and value; none of what is not kept any more.
pub(super) type RowChange = (Vec<u8>, Option<Vec<u8>>);

/// The newest word on an id. A variant is never changed, only added.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeptId<'a> {
    #[serde(borrow)]
    Held(KeptHolding<'a>),
    /// A record was.
    Released,
    #[serde(borrow)]
    Lapsed(KeptHolding<'a>),
    /// Before it was registered.
    Unheard,
}

/// A holding. It ends a [`KeptId`]: fields are never changed, only appended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptHolding<'a> {
    /// As slots hold it.
    record: &'a [u8],
    dial: Address,
}

/// An entrypoint but for its key. Fields are never changed, only appended.
#[derive(Debug, Serialize, Deserialize)]
struct KeptEntrypoint {
    number: u64,
    home: Option<IpAddr>,
    address: Address,
    dial: Address,
}

/// In front of the instance's text: which handler's it is.
const TUNNELS: u8 = b't';
const ROUTERS: u8 = b'r';

impl Keyspace {
    pub(super) const ALL: [Self; 4] = [Self::Words, Self::Rules, Self::Periods, Self::Entrypoints];

    /// What a batch changes in it.
    pub(super) fn changes(self, batch: &Batch) -> Vec<RowChange> {
        let millis = |period: Duration| u64::try_from(period.as_millis()).ok();
        match self {
            Self::Words => {
                batch.words.iter().map(|(id, word)| (id.text().as_bytes().into(), write_word(word))).collect()
            }
            Self::Rules => {
                let claims = batch.claims.iter();
                let kept = |claim| encoded(&Content::Claim(claim));
                claims.map(|(key, claim)| (claim_key(key), claim.clone().map(kept))).collect()
            }
            Self::Periods => {
                let kept = |period: &Option<Duration>| Some(bytes(&millis((*period)?)?));
                let periods = batch.periods.iter();
                periods.map(|(node, period)| (node.text().as_bytes().into(), kept(period))).collect()
            }
            Self::Entrypoints => {
                let entrypoints = batch.entrypoints.iter();
                let change = |(key, registered): (_, &Option<_>)| {
                    (entrypoint_key(key), registered.as_ref().map(write_entrypoint))
                };
                entrypoints.map(change).collect()
            }
        }
    }
}

/// See [`KeptId`]. None of an id that is forgotten.
pub(super) fn write_word(word: &Word) -> Option<Vec<u8>> {
    let record = match word {
        Word::Held(holding) | Word::Lapsed(holding) => encoded(&holding.record.clone().into()),
        Word::Released(_) | Word::Forgotten => Vec::new(),
    };
    let kept = |holding: &Holding| KeptHolding { record: &record, dial: holding.dial.clone() };
    Some(bytes(&match word {
        Word::Held(holding) => KeptId::Held(kept(holding)),
        Word::Lapsed(holding) => KeptId::Lapsed(kept(holding)),
        Word::Released(Release::Held) => KeptId::Released,
        Word::Released(Release::Unheard) => KeptId::Unheard,
        Word::Forgotten => return None,
    }))
}

impl KeptHolding<'_> {
    /// The holding, if its record is one that can have been registered, with that id: a file is input like any other.
    pub(super) fn holding(self, id: &Label) -> Option<Holding> {
        let record = codec::decode(self.record)?.record()?.clone();
        let dial = if self.dial.is_entrypoint() { self.dial } else { Address::default() };
        (record.id == *id).then_some(Holding { record, dial })
    }
}

/// A claim, if it is one that could have been said.
pub(super) fn read_rule(key: &[u8], kept: &[u8]) -> Option<Claim> {
    let rule = codec::decode(kept)?.claim()?.clone();
    (claim_key(&rule.key()) == key).then(|| (*rule).clone())
}

/// A Renew period, if it is one that a lease could have learned.
pub(super) fn read_period(node: &[u8], kept: &[u8]) -> Option<(Label, Duration)> {
    let millis: NonZeroU32 = u32::try_from(read::<u64>(kept)?).ok()?.try_into().ok()?;
    Some((read_label(node)?, Duration::from_millis(millis.get().into())))
}

/// An entrypoint, if every field is what a Register could have said.
pub(super) fn read_entrypoint(key: &[u8], kept: &[u8]) -> Option<Registered> {
    let (handler, node) = key.split_first()?;
    let routers = match *handler {
        TUNNELS => false,
        ROUTERS => true,
        _ => return None,
    };
    let KeptEntrypoint { number, home, address, dial } = read(kept)?;
    let dial = if dial.is_entrypoint() { dial } else { Address::default() };
    let key = EntrypointKey { node: read_label(node)?, routers };
    // A number from a file that somebody made up must leave room for later ones.
    let number = number.min(u64::MAX / 2);
    address.is_entrypoint().then_some(Registered { key, home, place: Place { address, dial }, number })
}

fn write_entrypoint(registered: &Registered) -> Vec<u8> {
    let Registered { key: _, home, place: Place { address, dial }, number } = registered;
    let [address, dial] = [address, dial].map(Address::clone);
    bytes(&KeptEntrypoint { number: *number, home: *home, address, dial })
}

fn entrypoint_key(key: &EntrypointKey) -> Vec<u8> {
    let handler = if key.routers { ROUTERS } else { TUNNELS };
    [&[handler], key.node.text().as_bytes()].concat()
}

fn claim_key(key: &ClaimKey) -> Vec<u8> {
    [key.tunnel.as_bytes(), key.host.as_bytes()].concat()
}

/// A field that gost can have sent.
pub(super) fn read_label(bytes: &[u8]) -> Option<Label> {
    Some(Label::from(std::str::from_utf8(bytes).ok()?)).filter(Label::is_given)
}

fn encoded(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(content, &mut bytes);
    bytes
}

/// Memory takes everything.
pub(super) fn bytes(kept: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(kept).unwrap_or_default()
}

/// What a later version appended is left out.
pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().map(|(kept, _)| kept)
}
