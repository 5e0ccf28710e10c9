//! Writes the list that the crate carries from the rules of the crate `psl`, and holds every answer against that crate's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use gossd_suffix::is_public;

const FILE: &str = "src/list.txt";

/// The rules of the crate `psl`, in ASCII.
fn rules() -> Vec<String> {
    // Of other systems, not every package has been downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let psl = packages.iter().find(|package| package["name"] == "psl").expect("psl is a dependency");
    let manifest = PathBuf::from(psl["manifest_path"].as_str().expect("a path"));
    let text = std::fs::read_to_string(manifest.with_file_name("data/rules.txt")).expect("psl has its rules");
    let rules: Vec<String> = text.lines().map(ascii).collect();
    assert!(rules.len() > 10_000, "{}", rules.len());
    rules
}

/// A rule with its international labels in Punycode; its `!` and `*` stay.
fn ascii(rule: &str) -> String {
    let (exception, name) = rule.strip_prefix('!').map_or(("", rule), |name| ("!", name));
    let label =
        |label: &str| if label == "*" { label.into() } else { idna::domain_to_ascii(label).expect(rule) };
    exception.to_owned() + &name.split('.').map(label).collect::<Vec<_>>().join(".")
}

/// The rules as the crate carries them.
fn written(rules: &[String]) -> String {
    let mut domains: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in rules {
        let (label, domain) = rule.split_once('.').unwrap_or((rule, ""));
        domains.entry(domain).or_default().insert(label);
    }
    let line = |(domain, labels): (&str, BTreeSet<&str>)| {
        format!("{domain}:{}\n", labels.into_iter().collect::<Vec<_>>().join(" "))
    };
    domains.into_iter().map(line).collect()
}

#[test]
fn the_list_is_that_of_psl() {
    let text = written(&rules());
    assert!(text.is_ascii());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("GOSSD_WRITE_SUFFIXES").is_some() {
        std::fs::write(&path, &text).expect("it is written");
    }
    let kept = std::fs::read_to_string(&path).expect("the file is there");
    assert!(
        kept == text,
        "{FILE} is old: GOSSD_WRITE_SUFFIXES=1 cargo test --package gossd-suffix --test list"
    );
}

/// The answer of `psl`.
fn is_public_to_psl(name: &str) -> bool {
    psl::suffix(name.as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name.as_bytes())
}

#[test]
fn every_answer_is_that_of_psl_but_where_it_forgets_a_wildcard() {
    let rules = rules();
    let all: BTreeSet<&str> = rules.iter().map(String::as_str).collect();
    let domains: BTreeSet<&str> = rules.iter().filter_map(|rule| Some(rule.split_once('.')?.1)).collect();
    // `*.futurecms.at` covers ex.futurecms.at. psl does not see this, because ex.futurecms.at has rules below it.
    let is_forgotten = |name: &str| {
        let wildcard = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        domains.contains(name) && wildcard.is_some_and(|wildcard| all.contains(&*wildcard))
    };
    let (mut public, mut forgotten) = (0, BTreeSet::new());
    for rule in &rules {
        let plain = rule.trim_start_matches('!').replace('*', "any");
        let above = plain.match_indices('.').map(|(at, _)| &plain[at + 1..]).chain([&*plain]);
        // The rule's name and each domain above it, with labels above and beside them that no rule has.
        let names = above
            .flat_map(|name| ["", "any.", "www.any.", "any-", "-"].map(|prefix| format!("{prefix}{name}")));
        for name in names.chain([format!("{plain}x"), plain[1..].to_owned()]) {
            let is_public = is_public(&name);
            public += usize::from(is_public);
            if is_public && is_forgotten(&name) {
                forgotten.insert(name);
            } else {
                assert_eq!(is_public, is_public_to_psl(&name), "{name}");
            }
        }
    }
    assert!(public > rules.len() && forgotten.contains("ex.futurecms.at"), "{public} {forgotten:?}");
}
