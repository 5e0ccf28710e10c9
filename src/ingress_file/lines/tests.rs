//! The lines as gost reads them, compared with the answers of `GetRule`.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::agent::Agent;
use crate::plugin::reload::Latest;
use gossd_core::agent::{Restored, Settings};
use gossd_core::connection::Caller;
use gossd_core::hostname::Naming;
use gossd_core::hostname::TunnelId;
use gossd_core::lease::Holding;
use gossd_core::record::{Network, Owner, Record};

pub(in crate::ingress_file) const ONE: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
/// The hash host of [`ONE`].
pub(in crate::ingress_file) const HASH_OF_ONE: &str = "a6265c6d9847a4be";

/// gost's loader and lookup, word for word: x v0.15.5, `ingress/ingress.go`.
struct Gost(HashMap<String, String>);

impl Gost {
    /// Panics where gost does.
    fn load(text: &str) -> Self {
        let mut rules = HashMap::new();
        // gost's scanner ends at the last line's end, so an empty rest is no line.
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n').filter(|_| !text.is_empty()) {
            let line = line.replace('\t', " ");
            let line = line.trim();
            let line = line.find('#').map_or(line, |at| &line[..at]);
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            let [host, endpoint, ..] = words[..] else { panic!("nil pointer dereference: {line:?}") };
            rules.insert(host.strip_prefix('*').unwrap_or(host).to_owned(), endpoint.to_owned());
        }
        Self(rules)
    }

    /// The endpoint; empty where gost takes the word for no tunnel.
    fn get_rule(&self, host: &str) -> &str {
        let found = self.0.get(host).or_else(|| self.0.get(&format!(".{host}"))).or_else(|| {
            let mut rest = host;
            loop {
                let at = rest.find('.').filter(|at| *at > 0)?;
                if let Some(found) = self.0.get(&rest[at..]) {
                    return Some(found);
                }
                rest = &rest[at + 1..];
            }
        });
        let endpoint = found.map_or("", String::as_str);
        if endpoint.trim_start_matches('$').len() == 36 { endpoint } else { "" }
    }
}

/// An agent without callers, and its operator's settings for host names.
pub(in crate::ingress_file) struct World {
    pub(in crate::ingress_file) agent: Agent,
    pub(in crate::ingress_file) ingress: Ingress,
    pub(in crate::ingress_file) names: Latest<Names>,
    pub(in crate::ingress_file) latest: tokio::sync::watch::Sender<Arc<Names>>,
}

impl World {
    pub(in crate::ingress_file) fn new(names: Names) -> Self {
        let owner = Owner { name: "a".parse().unwrap(), generation: 1 };
        let settings = Settings { private: names.private(), ..Settings::of(owner) };
        let agent = Agent::new(settings, Restored::default());
        let (latest, names) = Latest::of(names);
        let ingress = Ingress::new(agent.clone(), names.clone());
        Self { agent, ingress, names, latest }
    }

    pub(in crate::ingress_file) fn attach(&self, tunnel: &str) {
        let [id, name, node] = [tunnel, tunnel, "n"].map(Into::into);
        let record = Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() };
        self.agent.register(Caller::local(1), Holding { record: Arc::new(record), dial: "".into() }).unwrap();
    }

    fn lister(&self, bounds: FileLimits) -> Lister {
        Lister::new(self.ingress.clone(), bounds)
    }

    fn listed(&self) -> Listing {
        self.lister(FileLimits::USUAL).list(&self.names.get(), &mut Lines::new())
    }
}

fn names(domains: &[&str], min_label: usize, reserved: &[&str], fixed: &[(&str, &str)]) -> Names {
    let [domains, reserved] = [domains, reserved].map(|names| names.iter().map(|name| (*name).to_owned()));
    let naming = Naming::new(&domains.collect::<Vec<_>>(), min_label, &reserved.collect::<Vec<_>>());
    Names::new(naming.unwrap(), fixed.iter().copied()).unwrap()
}

fn tunnel(n: u8) -> String {
    TunnelId::from_bytes([n; 16]).to_string()
}

#[test]
fn every_name_has_a_line_of_two_words_and_nothing_else_is_there() {
    let private = format!("${ONE}");
    let two = tunnel(2);
    let fixed = [("www.example.org", &*private), ("*.shop.example.org", ONE), ("2001:db8::1", &*two)];
    let world = World::new(names(&["example.com"], 1, &[], &fixed));
    assert_eq!(world.listed().text.lines().count(), 4, "an address has two spellings");
    world.attach(ONE);
    for host in ["claimed", "Claimed.Example.Org:443", "*.example.org"] {
        assert_eq!(world.ingress.set_rule(host, &two, None), Ok(true));
    }
    let want = format!(
        "*.example.org {two}\n*.shop.example.org {private}\n2001:db8::1 {two}\n[2001:db8::1] {two}\n\
         {HASH_OF_ONE} {private}\n{HASH_OF_ONE}.example.com {private}\nclaimed {two}\nclaimed.example.com {two}\n\
         claimed.example.org {two}\nwww.example.org {private}\n"
    );
    let listing = world.listed();
    assert_eq!(listing.text, want, "what one rule makes private is private under all its names");
    assert_eq!((listing.lines, listing.left_out), (10, 0));
    assert_eq!(world.listed(), listing, "it is always the same");
    Gost::load(&listing.text);
    assert_eq!(World::new(Names::default()).listed(), Listing::default(), "an empty file is fine with gost");
}

#[test]
#[should_panic(expected = "nil pointer dereference")]
fn gost_ends_at_an_empty_line() {
    Gost::load("a b\n\n");
}

#[test]
#[should_panic(expected = "nil pointer dereference")]
fn gost_ends_at_a_comment() {
    Gost::load("# a b\n");
}

#[test]
fn no_text_of_a_peer_can_make_a_line() {
    let world = World::new(Names::default());
    let endpoint = Endpoint::parse(ONE).unwrap();
    for host in ["a b", "a\nb c", "#", "", " ", "a\tb", "*.x.org", "A.org", "a..b", ".", "ü.org", "*"] {
        assert_eq!(world.agent.claim(host, endpoint, |_| true), Ok(true), "as if a peer had said it");
    }
    assert_eq!(world.listed(), Listing::default());
}

#[test]
fn a_reserved_name_below_a_claimed_wildcard_leads_nowhere() {
    let fixed = [("admin.example.org", ONE)];
    let reserved = ["shop.example.org", "admin.example.org", "deep.below.example.org", "other.example.net"];
    let world = World::new(names(&[], 1, &reserved, &fixed));
    assert_eq!(world.ingress.set_rule("*.example.org", &tunnel(2), None), Ok(true));
    let gost = Gost::load(&world.listed().text);
    for (host, endpoint) in [
        ("a.example.org", &*tunnel(2)),
        ("shop.example.org", ""),
        ("a.shop.example.org", &tunnel(2)),
        ("admin.example.org", ONE),
        ("deep.below.example.org", ""),
        ("other.example.net", ""),
    ] {
        assert_eq!(gost.get_rule(host), endpoint, "{host}");
        assert_eq!(world.ingress.get_rule(host).unwrap(), endpoint, "{host}");
    }
    let nowhere = world.listed().text.lines().filter(|line| line.ends_with(" -")).count();
    assert_eq!(nowhere, 2, "only where it is needed");
}

#[test]
fn names_that_do_not_fit_are_counted_and_lead_to_no_other_tunnel() {
    let fixed = [("*.example.org", ONE), ("fixed.example.net", ONE)];
    let world = World::new(names(&[], 1, &[], &fixed));
    world.attach(ONE);
    for n in 0..10 {
        assert_eq!(world.ingress.set_rule(&format!("{n}.example.org"), &tunnel(2), None), Ok(true));
    }
    let full = world.listed();
    let bytes = full.text.len();
    for (lines, bytes, lines_kept) in
        [(13, bytes, 13), (12, bytes, 12), (13, bytes - 1, 12), (5, bytes, 4), (0, 0, 0)]
    {
        let listing = world.lister(FileLimits { lines, bytes }).list(&world.names.get(), &mut Lines::new());
        assert_eq!((listing.lines, listing.lines + listing.left_out), (lines_kept, 13), "{listing:?}");
        assert!(listing.text.len() <= bytes);
        let gost = Gost::load(&listing.text);
        for n in 0..10 {
            let host = format!("{n}.example.org");
            assert!([&*tunnel(2), ""].contains(&gost.get_rule(&host)), "not the wildcard's: {listing:?}");
        }
        assert_eq!(
            gost.get_rule("fixed.example.net"),
            if lines == 0 { "" } else { ONE },
            "what was said comes first"
        );
    }
}

#[test]
fn a_former_starts_lines_stay_while_nothing_is_known_of_their_names() {
    let world = World::new(names(&[], 1, &["www"], &[("mine", &format!("${ONE}"))]));
    let former = format!(
        "# a comment\n\nold {}\nmine {ONE}\n{HASH_OF_ONE} {ONE}\nwww {ONE}\nnowhere -\nno tunnel\n*.old.org {ONE}\n",
        tunnel(3)
    );
    let mut former = parse(&former);
    assert_eq!(former.len(), 5, "{former:?}");
    let lister = world.lister(FileLimits::USUAL);
    let text = |former: &mut Lines| lister.list(&world.names.get(), former).text;
    let private = format!("*.old.org ${ONE}\n{HASH_OF_ONE} ${ONE}\nmine ${ONE}\nold {}\nwww -\n", tunnel(3));
    assert_eq!(text(&mut former), private, "what the operator says now holds for them");
    assert_eq!(world.ingress.set_rule("old", &tunnel(4), None), Ok(true));
    assert!(text(&mut former).contains(&format!("\nold {}\n", tunnel(4))));
    let key = gossd_core::hostname::ClaimKey { host: "old".into(), tunnel: TunnelId::from_bytes([4; 16]) };
    assert!(!former.contains_key(&*key.host), "what was known once is never a former start's again");
}

const LABELS: [&str; 6] = ["a", "bc", "www", "shop", "example", HASH_OF_ONE];
const SUFFIXES: [&str; 7] =
    ["", ".example.com", ".t.example.com", ".example.org", ".b.example.org", ".com", ".www"];

fn host() -> impl Strategy<Value = String> {
    let label = prop::sample::select(&LABELS[..]);
    let suffix = prop::sample::select(&SUFFIXES[..]);
    (label, suffix).prop_map(|(label, suffix)| format!("{label}{suffix}"))
}

fn rule() -> impl Strategy<Value = (String, String)> {
    let wildcard = prop::sample::select(&["", "", "*."][..]);
    let endpoint = (prop::bool::ANY, 0..4_u8);
    (wildcard, host(), endpoint).prop_map(|(wildcard, host, (private, n))| {
        (format!("{wildcard}{host}"), format!("{}{}", if private { "$" } else { "" }, tunnel(n)))
    })
}

proptest! {
    #[test]
    fn gost_finds_in_the_file_what_get_rule_answers(
        domains in prop::sample::subsequence(vec!["example.com", "t.example.com", "www"], 0..=3),
        reserved in prop::collection::vec(host(), 0..4),
        min_label in 1..4_usize,
        fixed in prop::collection::vec(rule(), 0..4),
        claims in prop::collection::vec(rule(), 0..10),
        strange in prop::collection::vec(rule(), 0..3),
        attached in prop::collection::vec(0..4_u8, 0..4),
        room in 0..30_usize,
    ) {
        let reserved: Vec<&str> = reserved.iter().map(String::as_str).collect();
        let fixed: Vec<_> = fixed.iter().map(|(host, endpoint)| (&**host, &**endpoint)).collect();
        let world = World::new(names(&domains, min_label, &reserved, &fixed));
        for n in attached {
            world.attach(&tunnel(n));
        }
        world.attach(ONE);
        for (host, endpoint) in &claims {
            world.ingress.set_rule(host, endpoint, None).unwrap();
        }
        // Agents with other domains and reserved names accept claims that this one would refuse.
        for (host, endpoint) in &strange {
            let key = Naming::default().key(host).unwrap();
            world.agent.claim(&key, Endpoint::parse(endpoint).unwrap(), |_| true).unwrap();
        }
        let below = |host: &String| ["", "x.", "a.", "shop.b."].map(|label| format!("{label}{host}"));
        let hosts = LABELS.iter().flat_map(|label| SUFFIXES.map(|suffix| format!("{label}{suffix}")));
        let domains = ["example.com", "t.example.com"].map(str::to_owned);
        let hosts: Vec<String> = hosts.chain(domains).flat_map(|host| below(&host)).collect();
        for bounds in [FileLimits::USUAL, FileLimits { lines: room, ..FileLimits::USUAL }] {
            let listing = world.lister(bounds).list(&world.names.get(), &mut Lines::new());
            let gost = Gost::load(&listing.text);
            for host in &hosts {
                let (found, answered) = (gost.get_rule(host), world.ingress.get_rule(host).unwrap());
                let left_out = listing.left_out > 0 && found.is_empty();
                prop_assert!(found == answered || left_out, "{}: {:?}, not {:?} in {}", host, found, answered, listing.text);
            }
            // And in the other direction: every line equals an answer.
            for line in listing.text.lines() {
                let (host, endpoint) = line.split_once(' ').unwrap();
                if let Some(suffix) = host.strip_prefix("*.") {
                    let found = world.ingress.explain(&format!("nobody-has-this-label.{suffix}"));
                    prop_assert_eq!(found.map(|found| found.endpoint.to_string()), Some(endpoint.to_owned()), "{}", line);
                } else if endpoint == NOWHERE {
                    prop_assert_eq!(world.ingress.get_rule(host).unwrap(), "", "{}", line);
                } else {
                    prop_assert_eq!(world.ingress.get_rule(host).unwrap(), endpoint, "{}", line);
                }
            }
        }
    }
}
