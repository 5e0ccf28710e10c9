//! Each promise of the pages has what holds it, and each page says what it is held to: docs/promises.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// A text with one blank between words, and without the bars that a table needs to be quoted.
fn words(text: &str) -> String {
    text.replace("\\|", "|").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The promises of each page, with what holds each.
fn promises() -> BTreeMap<String, Vec<(String, Vec<String>)>> {
    let text = read("docs/promises.md").expect("the page");
    let mut pages = BTreeMap::<_, Vec<_>>::new();
    let mut page = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            page = name.into();
        }
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let (promise, holders) = row.rsplit_once(" | ").expect("two columns");
        if promise == "promise" {
            continue;
        }
        let holders = holders.split(", ").map(|holder| holder.trim_matches('`').to_owned()).collect();
        pages.entry(page.clone()).or_default().push((words(promise), holders));
    }
    pages
}

/// Headings as links to them are written.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    headings.map(|heading| heading.to_lowercase().replace(' ', "-")).collect()
}

/// Whether what holds a promise is there.
fn is_there(holder: &str) -> bool {
    if let Some(scenario) = holder.strip_prefix("scenario ") {
        return read("docs/scenarios.md").is_some_and(|page| page.contains(&format!("| `{scenario}` |")));
    }
    if let Some(target) = holder.strip_prefix("fuzz ") {
        return read(&format!("fuzz/fuzz_targets/{target}.rs")).is_some();
    }
    if let Some(section) = holder.strip_prefix("figures ") {
        return read("docs/figures.md").is_some_and(|page| anchors(&page).contains(section));
    }
    match holder.split_once("::") {
        Some((file, test)) => read(file).is_some_and(|text| text.contains(&format!("fn {test}("))),
        None => holder.starts_with("scripts/") && read(holder).is_some(),
    }
}

/// The rows of a page's first table under a heading, and the points of its lists.
fn rows_and_points(page: &str, heading: &str) -> Vec<String> {
    let section = page.split_once(heading).expect("the heading").1;
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.take_while(|line| line.starts_with('|')).map(words).collect()
}

fn points(page: &str) -> Vec<String> {
    let lists = page.split("\n- ").skip(1);
    lists.map(|point| words(point.split("\n\n").next().unwrap_or_default())).collect()
}

/// What of a page has to have a promise.
fn parts(name: &str, page: &str) -> Vec<String> {
    match name {
        "README.md" => rows_and_points(page, "## What happens when something breaks"),
        "docs/faults.md" => [rows_and_points(page, "# When something breaks"), points(page)].concat(),
        "SECURITY.md" => {
            let protected = page.split_once("## What is protected").expect("it").1;
            let protected = protected.split_once("\n## ").expect("what is not").0;
            protected.split("\n\n").filter(|paragraph| paragraph.starts_with("**")).map(words).collect()
        }
        _ => panic!("{name} is not looked at"),
    }
}

#[test]
fn every_promise_is_made_word_for_word_and_has_what_holds_it() {
    let mut number = 0;
    for (page, promises) in promises() {
        let text = words(&read(&page).expect("a page"));
        for (promise, holders) in promises {
            number += 1;
            assert!(text.contains(&promise), "{page} does not say: {promise}");
            assert!(!holders.is_empty(), "nothing holds: {promise}");
            for holder in holders {
                assert!(is_there(&holder), "{holder} is gone, which held: {promise}");
            }
        }
    }
    assert!(number > 80, "{number}");
}

#[test]
fn whatever_a_page_promises_is_held() {
    let promises = promises();
    let mut number = 0;
    for page in ["README.md", "docs/faults.md", "SECURITY.md"] {
        let of_page = promises.get(page).expect("its promises");
        for part in parts(page, &read(page).expect("the page")) {
            number += 1;
            assert!(
                of_page.iter().any(|(promise, _)| part.contains(promise)),
                "nothing holds, of {page}: {part}"
            );
        }
    }
    assert!(number > 50, "{number}");
}

#[test]
fn what_is_gone_is_noticed() {
    for gone in [
        "tests/faults.rs::no_such_test",
        "scenario no-such",
        "fuzz no_such",
        "figures no-such",
        "scripts/no-such.sh",
    ] {
        assert!(!is_there(gone), "{gone}");
    }
}
