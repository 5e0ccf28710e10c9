//! What is known of gosts, as it lies in a journal's file.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kept::{is_address, read_id};
use gossd_core::entrypoints::{EntrypointKey, Place, Registered};
use gossd_core::label::Label;

/// An entrypoint but for its key, as it lies in the file. Fields are never changed, only appended.
#[derive(Debug, Serialize, Deserialize)]
struct KeptEntrypoint<'a> {
    number: u64,
    home: Option<IpAddr>,
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(borrow)]
    dial: Cow<'a, str>,
}

/// In front of the instance's text: which handler's it is.
const TUNNELS: u8 = b't';
const ROUTERS: u8 = b'r';

/// A Renew period, if it is one that a lease could have learned.
pub(super) fn read_period(node: &[u8], millis: u64) -> Option<(Label, Duration)> {
    let millis = NonZeroU32::new(u32::try_from(millis).ok()?)?;
    Some((read_id(node)?.into(), Duration::from_millis(millis.get().into())))
}

/// See [`KeptEntrypoint`].
pub(super) fn spell_entrypoint(registered: &Registered) -> (Vec<u8>, Vec<u8>) {
    let Registered { key, home, place: Place { address, dial }, number } = registered;
    let [address, dial] = [address, dial].map(|address| Cow::Owned(address.to_string()));
    let kept = KeptEntrypoint { number: *number, home: *home, address, dial };
    // Memory takes everything.
    (spell_key(key), postcard::to_stdvec(&kept).unwrap_or_default())
}

pub(super) fn spell_key(key: &EntrypointKey) -> Vec<u8> {
    let handler = if key.routers { ROUTERS } else { TUNNELS };
    [&[handler], key.node.text().as_bytes()].concat()
}

/// An entrypoint, if every field is what a Register could have said.
pub(super) fn read_entrypoint(key: &[u8], kept: &[u8]) -> Option<Registered> {
    let (handler, node) = key.split_first()?;
    let routers = match *handler {
        TUNNELS => false,
        ROUTERS => true,
        _ => return None,
    };
    let (KeptEntrypoint { number, home, address, dial }, _) = postcard::take_from_bytes(kept).ok()?;
    let dial = if is_address(&dial) { &*dial } else { "" };
    let key = EntrypointKey { node: read_id(node)?.into(), routers };
    let place = Place { address: (&*address).into(), dial: dial.into() };
    // A number from a file that somebody made up must leave room for later ones.
    let number = number.min(u64::MAX / 2);
    is_address(&address).then_some(Registered { key, home, place, number })
}
