//! Host names as ingress rules are kept and asked for: one spelling per name, and which names a tunnel may have.
//! Knows nothing of who has one.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use super::{HashHost, TunnelId, Unclaimable};
use crate::record::{FieldError, FieldProblem};

/// Longest name, in bytes: DNS's.
const MAX_NAME: usize = 253;
/// Longest part between dots, in bytes: DNS's.
const MAX_LABEL: usize = 63;

/// How the operator wants names understood, the same at every agent.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// Longest first.
    domains: Vec<String>,
    min_label: usize,
    reserved: HashSet<String>,
}

impl Naming {
    /// `x.D` means `x` for each domain D; no tunnel gets a single label under `min_label` bytes, nor a reserved
    /// name.
    pub fn new(domains: &[String], min_label: usize, reserved: &[String]) -> Result<Self, FieldError> {
        let domains = domains.iter().map(|domain| spell(domain).filter(|name| !name.starts_with('.')));
        let mut domains: Vec<String> = domains.collect::<Option<_>>().ok_or_else(not_a_name)?;
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        let naming = Self { domains, min_label, reserved: HashSet::new() };
        let reserved = reserved.iter().map(|name| naming.key(name)).collect::<Result<_, _>>()?;
        Ok(Self { reserved, ..naming })
    }

    /// The key under which a rule on this host is kept: lower case, without a port, short under an ingress
    /// domain, and with a leading dot for a wildcard.
    pub fn key(&self, host: &str) -> Result<String, FieldError> {
        if host.is_empty() {
            return Err(FieldError { field: "host", problem: FieldProblem::Missing });
        }
        let name = spell(host).ok_or_else(not_a_name)?;
        Ok(self.shorten(&name).to_owned())
    }

    /// The keys that can answer for a host as a visitor wrote it, best first: its own, then wildcards from the
    /// longest to the shortest. None for what no rule can be kept for.
    pub fn candidates(&self, host: &str) -> impl Iterator<Item = String> {
        let name = spell(host).filter(|name| !name.starts_with('.'));
        let dotted = name.as_ref().map(|name| format!(".{name}")).unwrap_or_default();
        let starts: Vec<usize> = dotted.match_indices('.').map(|(at, _)| at).collect();
        let wildcards = starts.into_iter().map(move |at| self.shorten(&dotted[at..]).to_owned());
        let own = name.map(|name| self.shorten(&name).to_owned());
        own.into_iter().chain(wildcards)
    }

    /// Every name, in lower case, that means a key; a wildcard as `*.`. None for what no visitor's host leads to here.
    pub fn spellings(&self, key: &str) -> Vec<String> {
        if let Some(suffix) = key.strip_prefix('.') {
            let below = |name: &str| self.candidates(name).any(|candidate| candidate == key);
            let names = std::iter::once(suffix).filter(|_| key != ".");
            let names = names.chain(self.domains.iter().map(|domain| &**domain).filter(|_| key == "."));
            return names.filter(|name| below(name)).map(|name| format!("*.{name}")).collect();
        }
        let is_label = !key.contains(['.', ':']);
        let domains = self.domains.iter().filter(|_| is_label);
        let bracketed = key.contains(':').then(|| format!("[{key}]"));
        let names = domains.map(|domain| format!("{key}.{domain}")).chain(bracketed);
        let is_meant = |name: &String| self.candidates(name).next().is_some_and(|own| own == key);
        std::iter::once(key.to_owned()).chain(names).filter(is_meant).collect()
    }

    /// The ingress domains.
    pub fn domains(&self) -> impl Iterator<Item = &String> {
        self.domains.iter()
    }

    /// Names that no tunnel gets, as visitors write them: a claimed wildcard above one does not count for it.
    pub fn withheld(&self) -> impl Iterator<Item = String> {
        let reserved = self.reserved.iter().filter(|key| !key.starts_with('.'));
        reserved.flat_map(|key| self.spellings(key)).chain(self.domains.iter().cloned())
    }

    /// Why no tunnel can have a key, nor a claim on it lead anywhere, whoever states it: see [`Unclaimable`]. A single
    /// label is a name below an ingress domain, if there is one; a hash host is none of these.
    pub fn unclaimable(&self, key: &str) -> Option<Unclaimable> {
        let is_label = !key.contains(['.', ':']);
        let is_shared = key == "." || is_label && !self.domains.is_empty() && key != "localhost";
        if is_shared || HashHost::parse(key).is_some() { None } else { Unclaimable::of(key) }
    }

    /// Whether a tunnel may claim a key. Hash hosts are their tunnel's alone; a wildcard has to leave the
    /// registry's part of a domain name alone; an ingress domain itself is the operator's.
    pub fn allows(&self, key: &str, tunnel: TunnelId) -> bool {
        if self.unclaimable(key).is_some() {
            return false;
        }
        let Some(suffix) = key.strip_prefix('.') else {
            return self.is_for_tunnels(key) && is_own_or_no_hash(key, tunnel);
        };
        let name = self.shorten(suffix);
        let covers_a_domain = self.domains.iter().any(|domain| is_below(domain, suffix));
        suffix.contains('.')
            && !covers_a_domain
            && self.is_for_tunnels(name)
            && is_own_or_no_hash(name, tunnel)
    }

    /// Whether any tunnel may have a name, by a claim on it or on a wildcard above: the operator's names, reserved
    /// ones, and short ones among those that all tunnels share are for fixed rules.
    pub fn is_for_tunnels(&self, key: &str) -> bool {
        let is_operators = self.reserved.contains(key) || self.domains.iter().any(|domain| domain == key);
        !is_operators && (key.contains(['.', ':']) || key.len() >= self.min_label)
    }

    /// `x` for `x.D` and `.` for `.D`, but not `x.y` for `x.y.D`, which is another domain's name.
    fn shorten<'a>(&self, name: &'a str) -> &'a str {
        let under = |domain: &String| name.strip_suffix(&**domain)?.strip_suffix('.');
        match self.domains.iter().find_map(under) {
            Some("") => ".",
            Some(label) if !label.contains('.') => label,
            Some(_) | None => name,
        }
    }
}

/// Whether a key is no hash host, or this tunnel's.
fn is_own_or_no_hash(key: &str, tunnel: TunnelId) -> bool {
    HashHost::parse(key).is_none_or(|hash| hash == HashHost::of(tunnel))
}

/// Whether a name is a suffix's, or one below it.
fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn not_a_name() -> FieldError {
    FieldError { field: "host", problem: FieldProblem::Host }
}

/// One spelling: lower case, no port, no final dot, `*.` as `.`.
fn spell(host: &str) -> Option<String> {
    let host = without_port(host);
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        return Some(ip.to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let (wildcard, name) = match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
        Some(name) => (".", name),
        None => ("", host),
    };
    let plain = |label: &str| {
        let fits = (1..=MAX_LABEL).contains(&label.len());
        fits && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let is_name = name.len() <= MAX_NAME && name.split('.').all(plain);
    is_name.then(|| format!("{wildcard}{}", name.to_ascii_lowercase()))
}

/// `host` of `host:port` and `[v6]:port`; anything else as it is.
fn without_port(text: &str) -> &str {
    if let Some((ip, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && (rest.is_empty() || is_port(rest))
        && ip.parse::<Ipv6Addr>().is_ok()
    {
        return ip;
    }
    match text.find(':') {
        Some(at) if is_port(&text[at..]) => &text[..at],
        Some(_) | None => text,
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tunnel;
    use super::*;

    fn naming() -> Naming {
        let domains = ["example.com", "Tunnels.Example.Com."].map(str::to_owned);
        Naming::new(&domains, 3, &["www".into(), "api.example.com".into(), "shop.example.org".into()])
            .unwrap()
    }

    #[test]
    fn a_name_has_one_spelling() {
        for (host, key) in [
            ("x", "x"),
            ("X.Example.com:443", "x"),
            ("x.example.com.", "x"),
            ("x.tunnels.example.com", "x"),
            ("x.example.org", "x.example.org"),
            ("x.y.example.com", "x.y.example.com"),
            ("example.com", "example.com"),
            ("*.example.com", "."),
            ("*.y.example.com", ".y.example.com"),
            ("*.Example.org", ".example.org"),
            (".example.org", ".example.org"),
            ("notexample.com", "notexample.com"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[2001:DB8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8:0::1", "2001:db8::1"),
            ("a_b-c.example.org:", "a_b-c.example.org"),
        ] {
            assert_eq!(naming().key(host).as_deref(), Ok(key), "{host}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_and_has_no_candidates() {
        let long = format!("{}.org", "x".repeat(64));
        let longer = vec!["x".repeat(60); 5].join(".");
        for host in [
            ".",
            "*",
            "*.",
            "a..b",
            "-:80:80",
            "a b",
            "ü.example.org",
            "*.*.org",
            "a/b",
            "[x]:80",
            &long,
            &longer,
        ] {
            assert_eq!(naming().key(host).unwrap_err().to_string(), "host is not a host name", "{host}");
            assert_eq!(naming().candidates(host).count(), 0, "{host}");
        }
        assert_eq!(naming().key("").unwrap_err().to_string(), "host is missing");
        assert_eq!(naming().candidates("").count(), 0);
        assert_eq!(naming().candidates("*.example.org").count(), 0, "a visitor has no wildcard");
    }

    #[test]
    fn the_own_name_comes_first_then_wildcards_from_the_longest() {
        for (host, keys) in [
            ("x", &["x", ".x"][..]),
            (
                "a.b.example.org:80",
                &["a.b.example.org", ".a.b.example.org", ".b.example.org", ".example.org", ".org"],
            ),
            ("x.example.com", &["x", ".x.example.com", ".", ".com"]),
            ("x.y.example.com", &["x.y.example.com", ".x.y.example.com", ".y.example.com", ".", ".com"]),
            ("example.com", &["example.com", ".", ".com"]),
        ] {
            let found: Vec<_> = naming().candidates(host).collect();
            let want: Vec<_> = keys.iter().map(ToString::to_string).collect();
            assert_eq!(found, want, "{host}");
        }
    }

    #[test]
    fn a_key_has_a_spelling_below_every_domain_and_each_leads_back_to_it() {
        let all = naming();
        for (key, spellings) in [
            ("abc", &["abc", "abc.tunnels.example.com", "abc.example.com"][..]),
            ("shop.example.org", &["shop.example.org"]),
            ("x.y.example.com", &["x.y.example.com"]),
            ("2001:db8::1", &["2001:db8::1", "[2001:db8::1]"]),
            (".", &["*.tunnels.example.com", "*.example.com"]),
            (".example.org", &["*.example.org"]),
            (".abc", &["*.abc"]),
        ] {
            assert_eq!(all.spellings(key), spellings, "{key}");
            let name = |spelling: &String| spelling.replacen('*', "any", 1);
            let leads = |spelling| all.candidates(&name(spelling)).any(|candidate| candidate == key);
            assert!(all.spellings(key).iter().all(leads), "{key}");
        }
        for key in ["abc.example.com", ".example.com", "ABC", "a b", "a\nb", "#", "", "..", "*.example.org"] {
            assert_eq!(all.spellings(key), [""; 0], "{key:?} is no key here");
        }
        assert_eq!(Naming::default().spellings("."), [""; 0], "without a domain");
        let mut withheld: Vec<String> = all.withheld().collect();
        withheld.sort();
        let domains = ["example.com", "tunnels.example.com"];
        let www = ["www", "www.example.com", "www.tunnels.example.com"];
        let api = ["api", "api.example.com", "api.tunnels.example.com"];
        let mut want = [&domains[..], &www, &api, &["shop.example.org"]].concat();
        want.sort_unstable();
        assert_eq!(withheld, want);
    }

    #[test]
    fn some_names_are_not_for_tunnels() {
        let allows = |host: &str| naming().allows(&naming().key(host).unwrap(), tunnel(1));
        for host in [
            "abc",
            "abc.example.com",
            "a.example.org",
            "a.b.example.com",
            "*.example.org",
            "app.internal",
            "x.test",
        ] {
            assert!(allows(host), "{host}");
        }
        for host in [
            "ab",
            "ab.example.com",
            "www",
            "WWW.example.com:80",
            "api",
            "shop.example.org",
            "example.com",
            "*.example.com",
            "*.tunnels.example.com",
            "*.org",
            "*.www.example.com",
            "*.ab.example.com",
            "*.shop.example.org",
            "*.0123456789abcdef.example.com",
            "10.0.0.1",
            "[2001:db8::1]:443",
            "127.1",
            "localhost",
            "LOCALHOST:8420",
            "app.localhost.",
            "CO.UK",
            "*.co.uk",
            "github.io:443",
            "*.github.io",
            "*.internal",
        ] {
            assert!(!allows(host), "{host}");
        }
    }

    #[test]
    fn a_name_without_a_dot_is_no_top_level_domain_and_below_an_ingress_domain_no_number() {
        for name in ["app", "dev", "shop", "12345"] {
            let name = format!("{name}.example.com");
            assert!(naming().allows(&naming().key(&name).unwrap(), tunnel(1)), "{name}");
        }
        let bare = Naming::default();
        for (name, fine) in [("intranet", true), ("app", true), ("12345", false), ("localhost", false)] {
            assert_eq!(bare.allows(name, tunnel(1)), fine, "{name} without an ingress domain");
        }
        assert_eq!(naming().unclaimable("localhost"), Some(Unclaimable::Localhost));
        assert_eq!(naming().unclaimable("."), None);
        assert_eq!(bare.unclaimable("1234567890123456"), None, "it may be a hash host");
    }

    #[test]
    fn a_hash_host_is_its_tunnels_alone() {
        let hash = |n| md5(tunnel(n)).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert!(naming().allows(&hash(1), tunnel(1)));
        assert!(!naming().allows(&hash(2), tunnel(1)));
        assert!(!naming().allows("deadbeefdeadbeef", tunnel(1)), "nobody's yet");
    }

    fn md5(tunnel: TunnelId) -> [u8; 8] {
        use md5::{Digest as _, Md5};
        Md5::digest(tunnel.to_string())[..8].try_into().unwrap()
    }

    proptest! {
        #[test]
        fn no_text_can_make_it_panic_and_a_key_is_its_own_key(host in "[.*:a-zA-Z0-9\\[\\]ü-]{0,40}") {
            let naming = naming();
            naming.candidates(&host).for_each(drop);
            if let Ok(key) = naming.key(&host) && key != "." {
                prop_assert_eq!(naming.key(&key), Ok(key));
            }
        }
    }
}
