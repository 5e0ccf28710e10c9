//! What people and programs call gossd by, and read from it: what a version had is there in the next. The bytes that agents
//! send and keep are frozen beside the code that reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::process::gossd;

const WHY: &str = include_str!("frozen/README.md");
const REFERENCE: &str = include_str!("../docs/reference.md");

/// What a folder has: what `agents` of a version send each other and keep, and the names in [`names`].
const FILES: [&str; 6] = ["frames.txt", "identity", "journal.txt", "names.txt", "peers", "snapshot.txt"];

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen")
}

/// Major and minor number.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("one"), numbers.next().expect("two"))
}

fn this_version() -> (u32, u32) {
    version(env!("CARGO_PKG_VERSION"))
}

/// The versions that have a folder.
fn kept() -> BTreeSet<(u32, u32)> {
    let entries = fs::read_dir(frozen()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let folders = entries.filter(|path| path.is_dir());
    folders.map(|path| version(path.file_name().expect("a name").to_str().expect("text"))).collect()
}

/// The variables and keys of an answer, with the names of what they are in; types are told by the last word.
fn json(openapi: &Value, schema: &Value, at: &str, seen: &mut Vec<String>, names: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().expect("a name").to_owned();
        if seen.contains(&name) {
            return;
        }
        seen.push(name.clone());
        json(openapi, &openapi["components"]["schemas"][&name], at, seen, names);
        seen.pop();
        return;
    }
    for several in ["allOf", "anyOf", "oneOf"] {
        for one in schema[several].as_array().into_iter().flatten() {
            json(openapi, one, at, seen, names);
        }
    }
    for value in schema["enum"].as_array().into_iter().flatten().chain(schema.get("const")) {
        names.insert(format!("{at} = {value}"));
    }
    if let Some(kind) = schema["type"].as_str() {
        names.insert(format!("{at} {kind}"));
    }
    for kind in schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        names.insert(format!("{at} {kind}"));
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        json(openapi, value, &format!("{at}.{key}"), seen, names);
    }
    if schema["items"].is_object() {
        json(openapi, &schema["items"], &format!("{at}[]"), seen, names);
    }
    if schema["additionalProperties"].is_object() {
        json(openapi, &schema["additionalProperties"], &format!("{at}.*"), seen, names);
    }
}

fn help(verb: &[&str]) -> String {
    let output = gossd().args(verb).arg("--help").output().expect("gossd runs");
    String::from_utf8(output.stdout).expect("text")
}

/// The words in backquotes in the first column of a table of the reference.
fn documented(header: &str) -> impl Iterator<Item = &'static str> {
    let table = REFERENCE.split_once(header).expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|line| line.split('|').nth(1)?.split('`').nth(1))
}

/// Everything that has a name from outside: verbs and their flags, which are also variables and keys of the configuration
/// file; metrics; and the keys of answers in JSON.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let list = help(&[]);
    let list = list.split_once("Commands:\n").expect("a list").1;
    let verbs = list.lines().take_while(|line| line.starts_with("  "));
    let verbs =
        verbs.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    for verb in verbs.filter(|verb| *verb != "help") {
        names.insert(format!("verb {verb}"));
        let help = help(&[verb]);
        let flags = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let flags = flags.filter_map(|line| line.split([' ', ',', '=']).find(|word| word.starts_with("--")));
        names.extend(flags.map(|flag| format!("flag {verb} {flag}")));
    }
    names.extend(documented("| metric | what |").map(|metric| format!("metric {metric}")));
    let openapi = gossd::openapi();
    for (path, item) in openapi["paths"].as_object().expect("paths") {
        for (method, described) in item.as_object().expect("methods") {
            let Some(kinds) = described["responses"]["200"]["content"].as_object() else { continue };
            for (kind, answer) in kinds {
                let at = format!("answer {method} {path} {kind} $");
                json(&openapi, &answer["schema"], &at, &mut Vec::new(), &mut names);
            }
        }
    }
    names
}

#[test]
fn what_the_former_and_this_version_are_called_by_is_there() {
    let now = names();
    assert!(now.len() >= 300, "{}", now.len());
    for (major, minor) in kept() {
        let path = frozen().join(format!("{major}.{minor}/names.txt"));
        if (major, minor) == this_version() && std::env::var_os("GOSSD_FREEZE").is_some() {
            // Only what is new; nothing is forgotten.
            let mut all = fs::read_to_string(&path).unwrap_or_default();
            let kept: BTreeSet<String> = all.lines().map(str::to_owned).collect();
            now.difference(&kept).for_each(|name| all.extend([name.as_str(), "\n"]));
            fs::write(&path, all).expect("it is written");
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let then: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let gone: Vec<_> = then.difference(&now).collect();
        assert!(gone.is_empty(), "gossd {major}.{minor} has {gone:#?}. {WHY}");
        if (major, minor) == this_version() {
            let new: Vec<_> = now.difference(&then).collect();
            assert!(
                new.is_empty(),
                "{new:#?} is new, and from now on it stays: \
                 GOSSD_FREEZE=1 cargo test --features fuzz,schema --test it versions"
            );
        }
    }
}

#[test]
fn this_version_and_the_former_have_their_frozen_files() {
    let (major, minor) = this_version();
    let kept = kept();
    assert!(kept.contains(&(major, minor)), "{major}.{minor} has no folder in tests/frozen. {WHY}");
    assert!(
        minor == 0 || minor == 1 && major == 0 || kept.contains(&(major, minor - 1)),
        "one step back is promised, and {major}.{} has no folder in tests/frozen. {WHY}",
        minor.saturating_sub(1)
    );
    let files: BTreeMap<_, BTreeSet<String>> = kept
        .into_iter()
        .map(|(major, minor)| {
            let entries = fs::read_dir(frozen().join(format!("{major}.{minor}"))).expect("a folder");
            let names =
                entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
            ((major, minor), names.collect())
        })
        .collect();
    for (version, files) in files {
        assert_eq!(files, FILES.map(str::to_owned).into(), "{version:?}. {WHY}");
    }
}
