//! Names that no tunnel can have a right to, whoever asks: under which strangers register names of their own, which every
//! host gives to itself, and addresses. The list of the first is `gossd_suffix`. Knows nothing of the operator's settings.

use std::net::{Ipv4Addr, Ipv6Addr};

use gossd_suffix::is_public;

/// The name that every host gives to itself, and the domain in which glibc and systemd spell it.
const LOCALHOST: &str = "localhost";
const LOCALDOMAIN: &str = "localdomain";
/// A label that no rule of the list has: it shows whether the list has a rule for all names below a domain.
const PROBE: &str = "gossd-any-name";

/// Why no tunnel can claim a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclaimable {
    /// An IP address, in any form that a browser or a resolver takes for one.
    #[error("an IP address")]
    Address,
    /// `localhost`, or a name below it.
    #[error("a name of every host itself")]
    Localhost,
    /// A registry's: others register names below it, as below `co.uk` or `github.io`.
    #[error("a public suffix, below which strangers have their domains")]
    PublicSuffix,
}

impl Unclaimable {
    /// What a name is, in lower case, without a port and a dot at its end; a wildcard begins with a dot. A name without a dot
    /// is one of the operator's network, though many, such as `app` and `shop`, are top-level domains, too: nobody visits a
    /// top-level domain itself.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (is_wildcard, domain) = match name.strip_prefix('.') {
            Some(domain) => (true, domain),
            None => (false, name),
        };
        if is_address(domain) {
            return Some(Self::Address);
        }
        if is_localhost(domain) {
            return Some(Self::Localhost);
        }
        let covers_suffixes = || is_wildcard && is_public(&format!("{PROBE}.{domain}"));
        let is_suffix = is_wildcard || domain.contains('.');
        (is_suffix && (is_public(domain) || covers_suffixes())).then_some(Self::PublicSuffix)
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix(LOCALDOMAIN).and_then(|name| name.strip_suffix('.')).unwrap_or(name);
    name == LOCALHOST || name.strip_suffix(LOCALHOST).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a name is an address, or would be taken for one: its last label is a number, as in `127.1` and `0x7f000001`.
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = last.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    name.parse::<Ipv6Addr>().is_ok()
        || name.parse::<Ipv4Addr>().is_ok()
        || digits.is_some()
        || last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_everybodys_or_no_name_at_all_cannot_be_claimed() {
        use Unclaimable::{Address, Localhost, PublicSuffix};
        for (name, why) in [
            ("co.uk", PublicSuffix),
            (".co.uk", PublicSuffix),
            (".com", PublicSuffix),
            (".uk", PublicSuffix),
            ("github.io", PublicSuffix),
            (".github.io", PublicSuffix),
            ("s3.amazonaws.com", PublicSuffix),
            ("anything.ck", PublicSuffix),
            (".anything.ck", PublicSuffix),
            (".ck", PublicSuffix),
            (".kawasaki.jp", PublicSuffix),
            ("foo.kawasaki.jp", PublicSuffix),
            (".xn--p1ai", PublicSuffix),
            ("xn--55qx5d.cn", PublicSuffix),
            (".xn--55qx5d.cn", PublicSuffix),
            ("127.0.0.1", Address),
            ("10.0.0.1", Address),
            (".0.0.1", Address),
            ("127.1", Address),
            ("0x7f.1", Address),
            ("0x7f000001", Address),
            ("2130706433", Address),
            ("0177.0.0.01", Address),
            ("a.b.c.1", Address),
            ("2001:db8::1", Address),
            ("::1", Address),
            ("localhost", Localhost),
            ("app.localhost", Localhost),
            (".localhost", Localhost),
            (".app.localhost", Localhost),
            ("localhost.localdomain", Localhost),
        ] {
            assert_eq!(Unclaimable::of(name), Some(why), "{name}");
        }
        for name in [
            "example.com",
            "www.example.com",
            ".example.com",
            ".shop.example.co.uk",
            "foo.github.io",
            ".foo.github.io",
            "www.ck",
            "amazonaws.com",
            "city.kawasaki.jp",
            "app.internal",
            ".app.internal",
            "x.test",
            "intranet",
            "app",
            "shop",
            "app.example",
            "mylocalhost",
            "localhost.example.com",
            "1.example.com",
            "0x.example.com",
            "a6265c6d9847a4be",
        ] {
            assert_eq!(Unclaimable::of(name), None, "{name}");
        }
    }
}
