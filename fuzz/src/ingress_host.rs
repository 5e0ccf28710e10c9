//! Host names as visitors and tunnels write them: each has one key, and no tunnel gets a name that is not for it.

use std::str;
use std::sync::Arc;

use gossd_core::codec::{decode_cell, encode_cell};
use gossd_core::hostname::Naming;
use gossd_core::hostname::{Claim, Endpoint, HashHost, TunnelId};
use gossd_core::record::MAX_FIELD;
use gossd_core::slot::{Cell, Content, FIRST_CLAIM};

use super::input::Input;

thread_local! {
    static NAMINGS: [Naming; 3] = [
        Naming::default(),
        naming(&["example.com", "Tunnels.Example.Com."], 3, &["www", "api.example.com", "*.shop.example.org"]),
        naming(&["com", "a.b", "b"], 2, &["x"]),
    ];
}

fn naming(domains: &[&str], min_label: usize, reserved: &[&str]) -> Naming {
    let owned = |texts: &[&str]| texts.iter().copied().map(str::to_owned).collect::<Vec<_>>();
    Naming::new(&owned(domains), min_label, &owned(reserved)).expect("these are names")
}

/// A host name after a byte that selects the operator's settings: one of some fixed ones, or those in the lines after
/// the host name.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let Ok(text) = str::from_utf8(input.0) else { return };
    match how % 4 {
        3 => {
            let mut lines = text.split('\n');
            let host = lines.next().unwrap_or_default();
            let domain = lines.next().map(str::to_owned);
            let reserved: Vec<String> = lines.map(str::to_owned).take(4).collect();
            let domains: Vec<String> = domain.into_iter().collect();
            if let Ok(naming) = Naming::new(&domains, usize::from(how / 64), &reserved) {
                check(&naming, host);
            }
        }
        known => NAMINGS.with(|namings| check(&namings[usize::from(known)], text)),
    }
}

fn check(naming: &Naming, host: &str) {
    let candidates: Vec<String> = naming.candidates(host).collect();
    assert!(candidates.len() <= 1 + 127, "{} candidates", candidates.len());
    let Ok(key) = naming.key(host) else {
        assert!(candidates.is_empty(), "{host:?} has no key and {candidates:?}");
        return;
    };
    assert!(key.is_ascii() && !key.bytes().any(|b| b.is_ascii_uppercase()), "{key:?}");
    assert!(!key.is_empty() && key.len() <= 254 && key.len() <= MAX_FIELD);
    spellings(naming, host, &key);
    looked_up(naming, &key, &candidates);
    claimed(naming, &key);
}

/// However a name is spelled, its key is the same.
fn spellings(naming: &Naming, host: &str, key: &str) {
    if key != "." {
        assert_eq!(naming.key(key).as_deref(), Ok(key), "a key is its own key");
    }
    assert_eq!(naming.key(&host.to_ascii_uppercase()).as_deref(), Ok(key));
    if !host.contains([':', '[']) {
        assert_eq!(naming.key(&format!("{host}:443")).as_deref(), Ok(key));
        if !host.ends_with('.') {
            assert_eq!(naming.key(&format!("{host}.")).as_deref(), Ok(key));
        }
    }
}

/// A name is looked up under its own key first, then under wildcards for which a rule could exist.
fn looked_up(naming: &Naming, key: &str, candidates: &[String]) {
    if key.starts_with('.') {
        assert!(candidates.is_empty(), "a visitor has no wildcard");
        return;
    }
    assert_eq!(candidates[0], key);
    for wildcard in &candidates[1..] {
        assert!(wildcard.starts_with('.'), "{wildcard:?}");
        // No rule can exist above an IPv6 address.
        if wildcard != "." && !key.contains(':') {
            assert_eq!(naming.key(&format!("*{wildcard}")).as_ref(), Ok(wildcard));
        }
    }
}

/// A name that a tunnel may have is plausible to every peer, and arrives unchanged.
fn claimed(naming: &Naming, key: &str) {
    let tunnel = TunnelId::from_bytes([7; 16]);
    let name = key.strip_prefix('.').unwrap_or(key);
    let hash = HashHost::parse(name);
    if !naming.allows(key, tunnel) {
        return;
    }
    assert!(hash.is_none_or(|hash| hash == HashHost::of(tunnel)), "another tunnel's hash host");
    assert!(key.starts_with('.') || naming.is_for_tunnels(key));
    let endpoint = Endpoint { tunnel, private: false };
    let rule = Claim { host: key.into(), endpoint, clock: 1 };
    assert!(rule.is_plausible());
    let (cell, mut bytes) = (Cell { version: 1, content: Content::Claim(Arc::new(rule)) }, Vec::new());
    encode_cell(&cell, &mut bytes);
    assert_eq!(decode_cell(FIRST_CLAIM, &bytes), Some(cell));
}
