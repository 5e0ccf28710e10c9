//! Words and claims as they lie in a journal's file.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::store::Fault;
use gossd_core::address::Entrypoint;
use gossd_core::hostname::{Claim, Clock, Endpoint, TunnelId};
use gossd_core::label::Label;
use gossd_core::lease::{Holding, Word};
use gossd_core::record::{Network, Record, check_field};
use gossd_core::tombstone::Release;

/// A claim, as it lies in the file. Fields are never changed, only appended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptRule {
    clock: Clock,
    private: bool,
}

/// The newest word on an id, as it lies in the file. A variant is never changed, only added.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kept<'a> {
    #[serde(borrow)]
    Held(KeptHolding<'a>),
    /// A record was; where among the releases.
    Released(u64),
    #[serde(borrow)]
    Lapsed(KeptHolding<'a>),
    /// Before it was registered; where among the releases.
    Unheard(u64),
}

/// A holding but for its record's id.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptHolding<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    udp: bool,
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(borrow)]
    dial: Cow<'a, str>,
}

/// See [`Kept`].
pub(super) fn spell_word(word: &Word, number: u64) -> Option<Vec<u8>> {
    let kept = match word {
        Word::Held(holding) => Kept::Held(KeptHolding::of(holding)),
        Word::Lapsed(holding) => Kept::Lapsed(KeptHolding::of(holding)),
        Word::Released(release) => Kept::released(*release, number),
        Word::Forgotten => return None,
    };
    kept.bytes().ok()
}

/// See [`KeptRule`].
pub(super) fn spell_rule(rule: &Claim) -> (Vec<u8>, Vec<u8>) {
    let at = [rule.endpoint.tunnel.as_bytes(), rule.host.as_bytes()].concat();
    (at, KeptRule::bytes(rule).unwrap_or_default())
}

/// A claim, if it is one that could have been said.
pub(super) fn read_rule(key: &[u8], kept: &[u8]) -> Option<Claim> {
    let (tunnel, host) = key.split_first_chunk::<16>()?;
    let (KeptRule { clock, private }, _) = postcard::take_from_bytes(kept).ok()?;
    let endpoint = Endpoint { tunnel: TunnelId::from_bytes(*tunnel), private };
    Some(Claim { host: read_id(host)?.into(), endpoint, clock }).filter(Claim::is_plausible)
}

impl KeptRule {
    pub(super) fn bytes(rule: &Claim) -> Result<Vec<u8>, Fault> {
        let kept = Self { clock: rule.clock, private: rule.endpoint.private };
        postcard::to_stdvec(&kept).map_err(|error| Fault::Io(io::Error::other(error)))
    }
}

impl<'a> Kept<'a> {
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Fault> {
        postcard::to_stdvec(self).map_err(|error| Fault::Io(io::Error::other(error)))
    }

    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (kept, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(kept)
    }

    pub(super) fn released(release: Release, number: u64) -> Self {
        match release {
            Release::Held => Self::Released(number),
            Release::Unheard => Self::Unheard(number),
        }
    }

    /// How it was released, and where among the releases that stands.
    pub(super) fn release(&self) -> Option<(u64, Release)> {
        match self {
            Self::Released(number) => Some((*number, Release::Held)),
            Self::Unheard(number) => Some((*number, Release::Unheard)),
            Self::Held(_) | Self::Lapsed(_) => None,
        }
    }

    pub(super) fn number(bytes: &'a [u8]) -> Option<u64> {
        Self::read(bytes)?.release().map(|(number, _)| number)
    }

    pub(super) fn holding(self, id: &str) -> Option<Holding> {
        match self {
            Self::Held(holding) | Self::Lapsed(holding) => holding.read(id),
            Self::Released(_) | Self::Unheard(_) => None,
        }
    }
}

impl KeptHolding<'_> {
    pub(super) fn of(holding: &Holding) -> Self {
        let Record { id: _, name, node, network, address } = &*holding.record;
        let [name, node] = [name, node].map(|field| Cow::Owned(field.to_string()));
        let [address, dial] = [address, &holding.dial].map(|address| Cow::Owned(address.to_string()));
        Self { name, node, udp: *network == Network::Udp, address, dial }
    }

    /// The record, if every field is what a Register could have said: a file is input like any other.
    pub(super) fn read(self, id: &str) -> Option<Holding> {
        let Self { name, node, udp, address, dial } = self;
        let network = if udp { Network::Udp } else { Network::Tcp };
        let given = [&name, &node].iter().all(|field| !field.is_empty() && check_field("", field).is_ok());
        if !given || !is_address(&address) {
            return None;
        }
        let dial = if is_address(&dial) { &*dial } else { "" };
        let [id, name, node] = [id, &name, &node].map(Label::from);
        let record = Record { id, name, node, network, address: (&*address).into() };
        Some(Holding { record: Arc::new(record), dial: dial.into() })
    }
}

pub(super) fn read_id(bytes: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(bytes).ok()?;
    (!id.is_empty() && check_field("", id).is_ok()).then_some(id)
}

pub(super) fn is_address(text: &str) -> bool {
    check_field("", text).is_ok() && Entrypoint::parse(text).is_ok()
}
