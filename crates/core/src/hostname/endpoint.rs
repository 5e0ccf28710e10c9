//! Where a host name leads: a tunnel, by its id, and the host name that every tunnel has by itself.

use std::fmt;

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::label::Label;

/// A tunnel's id: 16 arbitrary bytes, spelled as a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TunnelId(#[serde(with = "uuid::serde::compact")] Uuid);

impl TunnelId {
    /// Parses 8-4-4-4-12 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        // The crate knows more spellings than gost does.
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return None;
        }
        Uuid::try_parse(text).ok().map(Self)
    }

    /// The tunnel whose records have this name: one in another spelling is another name.
    pub fn of_name(name: &Label) -> Option<Self> {
        if let Some(random) = name.random() {
            return Some(Self(random));
        }
        let name = name.text();
        Self::parse(&name).filter(|tunnel| tunnel.spell(&mut [0; 36]) == &*name)
    }

    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Lower case, as gost spells it and as its records are named.
    pub fn spell(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A tunnel's hash host: the host name that every tunnel has without asking, 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashHost([u8; 8]);

impl HashHost {
    /// Of a tunnel, as gost computes it: from the spelling of its id.
    pub fn of(tunnel: TunnelId) -> Self {
        let digest = Md5::digest(tunnel.spell(&mut [0; 36]).as_bytes());
        let mut start = [0; 8];
        start.copy_from_slice(&digest[..8]);
        Self(start)
    }

    /// Of the tunnel with this name, if it is a tunnel's id.
    pub fn of_name(name: &Label) -> Option<Self> {
        TunnelId::of_name(name).map(Self::of)
    }

    /// The hash host that a lower-case name is, if it is one.
    pub fn parse(host: &str) -> Option<Self> {
        let plain = host.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = (host.len() == 16 && plain).then(|| u64::from_str_radix(host, 16))?;
        number.ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for HashHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Where a rule leads. A part of how a rule is encoded, so that no field is ever changed or added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// Whether the tunnel is closed to the public entrypoint; gost marks that with a `$`.
    pub private: bool,
}

impl Endpoint {
    /// Parses `[$]UUID`.
    pub fn parse(text: &str) -> Option<Self> {
        let id = text.strip_prefix('$');
        Some(Self { tunnel: TunnelId::parse(id.unwrap_or(text))?, private: id.is_some() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.private { "$" } else { "" }, self.tunnel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_uuid_as_gost_spells_it_perhaps_with_a_dollar() {
        for (text, want) in [
            ("4d21094e-b74c-4916-86c1-d9fa36ea677b", Some("4d21094e-b74c-4916-86c1-d9fa36ea677b")),
            ("$4d21094e-b74c-4916-86c1-d9fa36ea677b", Some("$4d21094e-b74c-4916-86c1-d9fa36ea677b")),
            ("4D21094E-B74C-4916-86C1-D9FA36EA677B", Some("4d21094e-b74c-4916-86c1-d9fa36ea677b")),
            ("00000000-0000-0000-0000-000000000000", Some("00000000-0000-0000-0000-000000000000")),
            ("4d21094eb74c491686c1d9fa36ea677b", None),
            ("{4d21094e-b74c-4916-86c1-d9fa36ea677b}", None),
            ("$$4d21094e-b74c-4916-86c1-d9fa36ea677", None),
            ("example.org", None),
            ("", None),
            ("$", None),
        ] {
            assert_eq!(Endpoint::parse(text).map(|e| e.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn the_hash_host_is_gosts() {
        // Made with `printf %s UUID | md5sum`.
        let tunnel = TunnelId::parse("4d21094e-b74c-4916-86c1-d9fa36ea677b").unwrap();
        assert_eq!(HashHost::parse(HASH), Some(HashHost::of(tunnel)));
        for other in
            ["", "1234", "0123456789abcdeg", "0123456789ABCDEF", "0123456789abcdef0", "+123456789abcdef"]
        {
            assert_eq!(HashHost::parse(other), None, "{other}");
        }
    }

    const HASH: &str = "a6265c6d9847a4be";
}
