//! What a host needs to join a cluster, as one line of text: where agents are, the cluster's id, and its keys. Whoever has
//! it can do all that an agent can, so it is handled as a key: never an argument, never logged.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::net::JoinPoint;
use gossd_core::link::keyring::Keyring;

/// With what an invite begins. Another format has another number.
const MARK: &str = "gossd-invite-1.";
/// The same, without the number.
pub(crate) const ANY_MARK: &str = "gossd-invite-";
/// Bytes of the check that finds a line which was cut or mistyped.
const CHECK: usize = 4;
/// Addresses in one invite: one is enough, and others are for when that one is away.
const MOST: usize = 5;

/// See the module.
pub(crate) struct Invite {
    /// Where agents are.
    pub addresses: Vec<JoinPoint>,
    /// The cluster's id.
    pub cluster: String,
    /// Its keys.
    pub keyring: Keyring,
}

/// What stands in the line.
#[derive(Serialize, Deserialize)]
struct Body {
    addresses: Vec<String>,
    cluster: String,
    keys: String,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

/// Why a text is no invite. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoInvite {
    /// Nothing was read.
    #[error("there is nothing in it: an invite is the line that `gossd invite` prints on another host")]
    Empty,
    /// It begins otherwise.
    #[error("it is no invite: that begins with {ANY_MARK}, as `gossd invite` prints it on another host")]
    Other,
    /// Its number is another.
    #[error(
        "it was made by another version of gossd: make a new one there with `gossd invite`, and run the same version here"
    )]
    Version,
    /// Its check does not fit.
    #[error("it was cut off or changed on the way: copy the whole line, from {ANY_MARK} to its end")]
    Damaged,
    /// It is whole, and makes no sense.
    #[error("it has no address to join at, or no key: make a new one with `gossd invite`")]
    Useless,
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an invite to {} at {:?}", self.cluster, self.addresses)
    }
}

impl Invite {
    /// The line.
    pub(crate) fn line(&self) -> Zeroizing<String> {
        let addresses = self.addresses.iter().take(MOST).map(ToString::to_string).collect();
        let body = Body { addresses, cluster: self.cluster.clone(), keys: self.keyring.text().to_string() };
        // Plain data: it can always be written.
        let mut bytes = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        Zeroizing::new(format!("{MARK}{}", *Zeroizing::new(BASE64.encode(&*bytes))))
    }

    /// Reads a line, with or without blanks around it.
    pub(crate) fn parse(text: &str) -> Result<Self, NoInvite> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NoInvite::Empty);
        }
        let Some(encoded) = text.strip_prefix(MARK) else {
            let is_other = text.strip_prefix(ANY_MARK).is_some_and(|rest| rest.contains('.'));
            return Err(if is_other { NoInvite::Version } else { NoInvite::Other });
        };
        let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| NoInvite::Damaged)?);
        let (body, told) = bytes.split_last_chunk::<CHECK>().ok_or(NoInvite::Damaged)?;
        if check(body) != *told {
            return Err(NoInvite::Damaged);
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| NoInvite::Useless)?;
        let addresses: Vec<JoinPoint> = body.addresses.iter().filter_map(|text| text.parse().ok()).collect();
        let keyring = Keyring::parse(&body.keys).map_err(|_| NoInvite::Useless)?;
        if addresses.is_empty() || body.cluster.is_empty() {
            return Err(NoInvite::Useless);
        }
        Ok(Self { addresses, cluster: body.cluster.clone(), keyring })
    }
}

/// No secret: it only finds mistakes.
fn check(bytes: &[u8]) -> [u8; CHECK] {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keyfile;

    fn invite() -> Invite {
        Invite {
            addresses: vec!["10.0.0.1:8002".parse().unwrap(), "b.example.org:8002".parse().unwrap()],
            cluster: "default".into(),
            keyring: Keyring::parse(&keyfile::generate().line()).unwrap(),
        }
    }

    #[test]
    fn a_line_has_all_that_a_host_needs() {
        let invite = invite();
        let line = invite.line();
        let read = Invite::parse(&format!("  {}\n", *line)).unwrap();
        assert_eq!((&read.addresses, &read.cluster), (&invite.addresses, &invite.cluster));
        assert_eq!(read.keyring.fingerprint(), invite.keyring.fingerprint());
        assert!(!format!("{read:?}").contains(invite.keyring.text().trim()), "it can be logged by mistake");
        assert_eq!(line.split_whitespace().count(), 1, "it is copied with one double click");
    }

    #[test]
    fn a_line_that_is_cut_changed_or_another_is_told_as_what_it_is() {
        let line = invite().line();
        for end in MARK.len()..line.len() {
            assert_eq!(Invite::parse(&line[..end]).unwrap_err(), NoInvite::Damaged, "{end}");
        }
        let changed = line.replace(&line[40..44], "AAAA");
        assert_eq!(Invite::parse(&changed).unwrap_err(), NoInvite::Damaged);
        for (text, error) in [
            ("", NoInvite::Empty),
            (" \n", NoInvite::Empty),
            ("gossd-invite-2.AAAA", NoInvite::Version),
            ("gossd-inv", NoInvite::Other),
            ("key", NoInvite::Other),
        ] {
            assert_eq!(Invite::parse(text).unwrap_err(), error, "{text:?}");
        }
    }
}
