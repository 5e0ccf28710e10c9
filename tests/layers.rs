//! Keeps the layers, by reading the source: who may name whom, what the domain must not touch, and what every
//! file looks like. Every rule is shown to catch a violation, so that it cannot pass by finding nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// `main → cli → daemon → ingress_file → {plugin, admin, control} → agent → {gossip, journal} → domain`: what each module may name
/// besides itself. `config` is for `cli` and `daemon`; `plugin` and `admin` do not reach past `agent` but for
/// the domain's words.
const LAYERS: [(&str, &[&str]); 17] = [
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "config",
            "daemon",
            "ingress_file",
            "plugin",
            "admin",
            "control",
            "listeners",
            "secret_file",
            "agent",
            "gossip",
            "journal",
            "domain",
        ],
    ),
    (
        "daemon",
        &[
            "config",
            "ingress_file",
            "plugin",
            "admin",
            "control",
            "listeners",
            "unix_socket",
            "agent",
            "gossip",
            "journal",
            "metrics",
            "domain",
        ],
    ),
    ("listeners", &["config", "unix_socket", "gossip", "domain"]),
    ("config", &["plugin", "admin", "agent", "gossip", "journal", "domain"]),
    ("ingress_file", &["plugin", "admin", "agent", "metrics", "domain"]),
    ("plugin", &["agent", "metrics", "secret_file", "domain"]),
    ("admin", &["agent", "domain"]),
    ("control", &["listeners", "agent", "gossip", "domain"]),
    ("secret_file", &[]),
    ("unix_socket", &[]),
    ("agent", &["gossip", "journal", "metrics", "domain"]),
    ("gossip", &["metrics", "secret_file", "domain"]),
    ("journal", &["domain"]),
    ("metrics", &[]),
    ("domain", &[]),
];
/// Clocks, sockets, files and random sources: what the domain gets as arguments or not at all.
const OUTSIDE: [&str; 9] = [
    "tokio",
    "rand",
    "getrandom",
    "socket2",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
];
/// The same, by any path.
const OUTSIDE_WORDS: [&str; 6] =
    ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs", "SystemTime", "elapsed"];
/// Adapters of one meaning to two protocols.
const ADAPTERS: [&str; 2] = ["plugin::http", "plugin::grpc"];
const MAX_LINES: usize = 500;
/// Written by a program, from a file that people write: as long as it comes.
const WRITTEN: [&str; 1] = ["plugin/grpc/generated.rs"];

/// A file under `src/`.
struct Source {
    /// From `src/`: `plugin/http.rs`.
    path: String,
    text: String,
}

/// What a source file is without comments, the insides of literals, and tests.
struct Code {
    product: String,
    /// The items that only tests have.
    tests: Vec<String>,
}

/// A violation, or none. Each is one line for whoever broke the rule.
type Rule = fn(&Source) -> Vec<String>;

// The rules.

fn layers(source: &Source) -> Vec<String> {
    let layer = source.layer();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{layer} is in no layer: give it a row in the table")];
    };
    let named = source.own_paths();
    let layers = named.iter().map(|path| path.split("::").next().unwrap_or_default());
    let wrong = layers.filter(|named| *named != layer && !allowed.contains(named));
    wrong.map(|named| format!("{layer} names crate::{named}")).collect()
}

fn adapters(source: &Source) -> Vec<String> {
    let module = source.module().join("::");
    let Some(own) = ADAPTERS.iter().find(|adapter| is_within(&module, adapter)) else { return Vec::new() };
    let others = || ADAPTERS.iter().filter(|other| *other != own);
    let named = source.own_paths();
    let wrong = named.iter().filter(|path| others().any(|other| is_within(path, other)));
    wrong.map(|path| format!("{own} names {path}")).collect()
}

fn pure_domain(source: &Source) -> Vec<String> {
    if source.layer() != "domain" {
        return Vec::new();
    }
    let code = Code::of(&source.text).product;
    let tokens = tokens(&code);
    let now = tokens.windows(2).filter(|two| **two == ["::", "now"]).map(|_| "::now".to_owned());
    let words = tokens.iter().filter(|token| OUTSIDE_WORDS.contains(token)).map(|word| (*word).to_owned());
    let paths = paths(&tokens).into_iter().filter(|path| OUTSIDE.iter().any(|out| is_within(path, out)));
    now.chain(words).chain(paths).map(|what| format!("the domain names {what}")).collect()
}

fn chitchat_in_gossip(source: &Source) -> Vec<String> {
    if source.layer() == "gossip" {
        return Vec::new();
    }
    let code = Code::of(&source.text).product;
    let named = paths(&tokens(&code));
    named.into_iter().filter(|path| is_within(path, "chitchat")).map(|path| format!("names {path}")).collect()
}

fn introduced(source: &Source) -> Vec<String> {
    let words = source.text.strip_prefix("//! ").unwrap_or_default();
    if words.is_empty() { vec!["does not begin with //! and what it is for".into()] } else { Vec::new() }
}

fn short(source: &Source) -> Vec<String> {
    let lines = Code::of(&source.text).product.trim_end().lines().count();
    if lines > MAX_LINES && !WRITTEN.contains(&&*source.path) {
        vec![format!("has {lines} lines without its tests")]
    } else {
        Vec::new()
    }
}

// Reading.

impl Source {
    fn made_up(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// `plugin/http.rs` is `[plugin, http]`, `plugin/mod.rs` is `[plugin]`, `lib.rs` is the root.
    fn module(&self) -> Vec<&str> {
        let mut module: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        if matches!(module[..], [.., "mod"] | ["lib" | "main"]) {
            module.pop();
        }
        module
    }

    fn layer(&self) -> &str {
        let top = self.path.split('/').next().unwrap_or_default();
        top.trim_end_matches(".rs")
    }

    /// Every path into this crate, from its root.
    fn own_paths(&self) -> Vec<String> {
        let code = Code::of(&self.text).product;
        paths(&tokens(&code)).iter().filter_map(|path| self.resolve(path)).collect()
    }

    fn resolve(&self, path: &str) -> Option<String> {
        let mut from = match path.split("::").next()? {
            "crate" | "gossd" => Vec::new(),
            "self" | "super" => self.module(),
            _ => return None,
        };
        for segment in path.split("::") {
            match segment {
                "crate" | "gossd" | "self" => {}
                "super" => drop(from.pop()),
                name => from.push(name),
            }
        }
        Some(from.join("::"))
    }

    /// Modules of their own file that only tests have: `#[cfg(test)] mod name;`.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let own: Vec<String> = self.module().into_iter().map(str::to_owned).collect();
        let items = Code::of(&self.text).tests;
        let names = items.iter().filter_map(|item| match tokens(item)[..] {
            [.., "mod", name, ";"] => Some(name.to_owned()),
            _ => None,
        });
        names.map(|name| [own.clone(), vec![name]].concat()).collect()
    }
}

impl Code {
    fn of(text: &str) -> Self {
        const TEST: &str = "#[cfg(test)]";
        let blanked = blanked(text);
        let mut rest = &*blanked;
        let mut code = Self { product: String::new(), tests: Vec::new() };
        while let Some(at) = rest.find(TEST) {
            let end = at + TEST.len() + item_len(&rest[at + TEST.len()..]);
            code.product.push_str(&rest[..at]);
            code.tests.push(rest[at..end].into());
            rest = &rest[end..];
        }
        code.product.push_str(rest);
        code
    }
}

/// The bytes up to the end of an item: its `;` or its last `}`.
fn item_len(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return at + 1;
        }
    }
    text.len()
}

/// The text with comments and literals as blanks, lines where they were.
fn blanked(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let in_word = blanked.chars().next_back().is_some_and(is_word);
        let opaque = opaque_len(rest, in_word);
        if opaque == 0 {
            blanked.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            blanked.extend(rest[..opaque].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[opaque..];
        }
    }
    blanked
}

/// The length of the comment or literal that begins here; 0 if none does.
fn opaque_len(text: &str, in_word: bool) -> usize {
    let to = |end: &str| text.find(end).map_or(text.len(), |at| at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return to("*/");
    }
    match text.as_bytes() {
        [b'"', ..] => 1 + quoted_len(&text[1..], '"'),
        [b'\'', b'\\', ..] => 1 + quoted_len(&text[1..], '\''),
        [b'\'', ..] if text.chars().nth(2) == Some('\'') => text.chars().take(3).map(char::len_utf8).sum(),
        [b'r', b'"' | b'#', ..] | [b'b' | b'c', b'r', b'"' | b'#', ..] if !in_word => raw_len(text),
        _ => 0,
    }
}

/// The rest of a literal, its closing quote included.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// A raw string; 0 for a raw identifier.
fn raw_len(text: &str) -> usize {
    let Some((open, inside)) = text.split_once('"') else { return 0 };
    let hashes = open.trim_start_matches(['b', 'c', 'r']);
    if !hashes.bytes().all(|b| b == b'#') {
        return 0;
    }
    let close = format!("\"{hashes}");
    inside.find(&close).map_or(text.len(), |at| open.len() + 1 + at + close.len())
}

/// Words, `::`, and every other character that is no blank.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let len = match c {
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// Every path, groups spelled out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tokens: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if begins_path(tokens, at) { follow(tokens, at, "", &mut found) } else { at + 1 };
    }
    found
}

fn begins_path(tokens: &[&str], at: usize) -> bool {
    let before = |n: usize| at.checked_sub(n).map_or("", |at| tokens[at]);
    let after_type = before(2) == ">" && !matches!(before(3), "-" | "=");
    let goes_on = before(1) == "::" && (is_word_token(before(2)) || after_type);
    let is_longer = tokens.get(at + 1) == Some(&"::");
    is_word_token(tokens[at]) && !goes_on && (is_longer || matches!(before(1), "use" | "crate"))
}

/// Takes the path, or group of paths, at `at`; returns what comes after it.
fn follow(tokens: &[&str], mut at: usize, before: &str, found: &mut Vec<String>) -> usize {
    let mut path = before.to_owned();
    loop {
        match tokens.get(at) {
            Some(&"{") => return follow_group(tokens, at + 1, &path, found),
            Some(segment) if is_word_token(segment) || *segment == "*" => {
                path = if path.is_empty() { (*segment).into() } else { format!("{path}::{segment}") };
                at += 1;
            }
            _ => break,
        }
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    found.push(path);
    if tokens.get(at) == Some(&"as") { at + 2 } else { at }
}

fn follow_group(tokens: &[&str], mut at: usize, before: &str, found: &mut Vec<String>) -> usize {
    while let Some(token) = tokens.get(at) {
        match *token {
            "}" => return at + 1,
            token if is_word_token(token) || token == "{" || token == "*" => {
                at = follow(tokens, at, before, found);
            }
            _ => at += 1,
        }
    }
    at
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word_token(token: &str) -> bool {
    token.starts_with(is_word)
}

fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

// The sources.

/// All of `src/`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).expect("it is below").to_string_lossy().replace('\\', "/");
        Source { path, text: fs::read_to_string(file).expect("a source file is text") }
    };
    files.iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Without the files that only tests have.
fn products(sources: Vec<Source>) -> Vec<Source> {
    let tests: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |source: &Source| {
        let module = source.module();
        tests.iter().any(|test| module.len() >= test.len() && module.iter().zip(test).all(|(a, b)| a == b))
    };
    sources.into_iter().filter(|source| !is_test(source)).collect()
}

fn assert_kept(rule: Rule, sources: &[Source]) {
    assert!(sources.len() >= 20, "found {} files", sources.len());
    let broken: Vec<String> = sources
        .iter()
        .flat_map(|source| rule(source).into_iter().map(|what| format!("src/{}: {what}", source.path)))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn assert_catches(rule: Rule, path: &str, text: &str) {
    assert!(!rule(&Source::made_up(path, text)).is_empty(), "not caught in {path}: {text:.200}");
}

fn assert_allows(rule: Rule, path: &str, text: &str) {
    assert_eq!(rule(&Source::made_up(path, text)), [""; 0], "caught in {path}: {text:.200}");
}

// The tests.

#[test]
fn no_layer_names_one_above_it() {
    assert_kept(layers, &products(sources()));
    for (path, text) in [
        ("domain/lease.rs", "use crate::agent::Agent;"),
        ("domain/lease.rs", "use crate::{agent::Agent, domain::slot};"),
        ("domain/lease.rs", "use super::super::gossip;"),
        ("domain/mod.rs", "use super::gossip;"),
        ("domain/lease.rs", "fn f() { crate::config::f() }"),
        ("domain/lease.rs", "#[cfg(test)]\nmod tests { use super::*; }\nuse crate::config::Config;"),
        ("domain/lease.rs", "const C: char = '\"'; use crate::agent; const D: char = '\"';"),
        ("gossip/mod.rs", "use crate::{domain::{record::Record, slot}, agent};"),
        ("gossip/link.rs", "pub(in crate::journal) fn f() {}"),
        ("agent.rs", "use crate::plugin::Caller;"),
        ("agent.rs", "use super::config;"),
        ("plugin/mod.rs", "use crate::gossip::Cluster;"),
        ("plugin/http.rs", "use super::super::journal::Journal;"),
        ("plugin/http.rs", "use crate::admin;"),
        ("admin/mod.rs", "use crate::{\n    agent::Agent,\n    gossip::{self, counters::Counters},\n};"),
        ("admin/page.rs", "type C = crate :: config :: Config;"),
        ("daemon/mod.rs", "use crate::cli;"),
        ("cli/mod.rs", "use crate::*;"),
        ("main.rs", "fn main() { gossd::daemon::main() }"),
        ("helpers.rs", ""),
    ] {
        assert_catches(layers, path, text);
    }
}

#[test]
fn every_layer_may_name_those_below_it() {
    for (path, text) in [
        ("main.rs", "fn main() -> ExitCode { gossd::cli::main() }"),
        ("cli/run.rs", "use crate::{config::Config, daemon::Daemon, plugin::http};\nuse super::Verb;"),
        (
            "plugin/http.rs",
            "use super::Caller;\nuse crate::agent::Agent;\nuse crate::domain::{record, slot};",
        ),
        ("domain/lease.rs", "use super::record::Record;\nuse std::fmt::{self, Display as Show};"),
        (
            "domain/lease.rs",
            "//! See [`crate::agent`].\n/* crate::agent */ const A: &str = \"crate::agent\";",
        ),
        (
            "domain/lease.rs",
            "const A: &str = r#\"\" use crate::agent;\"#; fn f<'a>(_: &'a str) -> char { '\\'' }",
        ),
        ("domain/lease.rs", "#[cfg(test)]\nmod tests {\n    use crate::agent::Agent;\n}\n"),
        ("domain/lease.rs", "impl A {\n    #[cfg(test)]\n    fn f(a: [u8; 4]) { crate::agent::f() }\n}"),
    ] {
        assert_allows(layers, path, text);
    }
}

#[test]
fn what_the_sources_name_is_found() {
    let sources = products(sources());
    let daemon = sources.iter().find(|source| source.path == "daemon/mod.rs").expect("there is a daemon");
    let named = daemon.own_paths();
    for layer in ["config", "plugin", "agent", "gossip", "domain"] {
        assert!(named.iter().any(|path| is_within(path, layer)), "the daemon names {layer}: {named:?}");
    }
}

#[test]
fn the_adapters_do_not_know_each_other() {
    assert_kept(adapters, &products(sources()));
    for (path, text) in [
        ("plugin/http.rs", "use super::grpc;"),
        ("plugin/http.rs", "use crate::{agent::Agent, plugin::{grpc::Proto, Caller}};"),
        ("plugin/grpc.rs", "use super::{Caller, http};"),
        ("plugin/grpc/ingress.rs", "use super::super::http::PATH;"),
    ] {
        assert_catches(adapters, path, text);
    }
    assert_allows(adapters, "plugin/grpc.rs", "use super::Caller; use http::HeaderValue; use axum::http;");
    assert_allows(adapters, "daemon/mod.rs", "use crate::plugin::{grpc, http};");
}

#[test]
fn the_domain_reads_no_clock_socket_file_or_random_source() {
    assert_kept(pure_domain, &products(sources()));
    for text in [
        "fn f() { let now = Instant::now(); }",
        "const CLOCK: fn() -> Instant = Instant::now;",
        "fn f(t: Instant) -> Duration { t.elapsed() }",
        "use std::time::SystemTime;",
        "use std::net::{IpAddr, TcpStream};",
        "fn f() { std::net::UdpSocket::bind(a) }",
        "use std::net::TcpListener as L;",
        "use std::{fs, net::IpAddr};",
        "fn f() { ::std::fs::read(p) }",
        "use tokio::time::Instant;",
        "use rand;",
        "fn f() -> u64 { rand::random() }",
    ] {
        assert_catches(pure_domain, "domain/lease.rs", text);
        assert_allows(pure_domain, "agent.rs", text);
    }
    let innocent = "use std::net::IpAddr;\nfn f(now: Instant, operand: u8) -> Instant { now + TTL }";
    assert_allows(pure_domain, "domain/lease.rs", innocent);
}

#[test]
fn only_the_gossip_names_chitchat() {
    assert_kept(chitchat_in_gossip, &products(sources()));
    for text in [
        "use chitchat::Chitchat;",
        "use {chitchat::ChitchatId, std::fmt};",
        "use chitchat as gossip;",
        "fn f() -> ::chitchat::ChitchatId {}",
        "extern crate chitchat;",
    ] {
        assert_catches(chitchat_in_gossip, "agent.rs", text);
        assert_allows(chitchat_in_gossip, "gossip/antientropy.rs", text);
    }
    let innocent =
        "//! chitchat::Chitchat\nfn f(chitchat: u8) { log(\"chitchat::x\"); super::chitchat::f() }";
    assert_allows(chitchat_in_gossip, "agent.rs", innocent);
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_kept(introduced, &sources());
    for text in ["", "//!\n", "// A file.\n", "use std::fmt;\n//! Late.\n", "/// An item.\n"] {
        assert_catches(introduced, "agent.rs", text);
    }
}

#[test]
fn no_file_has_more_than_500_lines_without_its_tests() {
    assert_kept(short, &products(sources()));
    let line = "const A: &str = \"}\"; // {\n";
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(900));
    assert_catches(short, "agent.rs", &line.repeat(MAX_LINES + 1));
    assert_catches(short, "agent.rs", &(tests.clone() + &line.repeat(MAX_LINES + 1)));
    assert_allows(short, "agent.rs", &(line.repeat(MAX_LINES) + &tests));
    assert_allows(short, WRITTEN[0], &line.repeat(MAX_LINES + 1));
}

#[test]
fn files_that_only_tests_have_are_left_out() {
    let files = [
        ("domain/mod.rs", "#[cfg(test)]\nmod convergence;\n#[cfg(test)]\nmod inline {}\nmod lease;"),
        ("domain/convergence.rs", ""),
        ("domain/convergence/calls.rs", ""),
        ("domain/inline.rs", ""),
        ("domain/lease.rs", "#[cfg(test)]\npub(super) mod tests;"),
        ("domain/lease/tests.rs", ""),
        ("gossip/convergence.rs", ""),
    ];
    let kept = products(files.map(|(path, text)| Source::made_up(path, text)).into());
    let kept: Vec<&str> = kept.iter().map(|source| &*source.path).collect();
    assert_eq!(kept, ["domain/mod.rs", "domain/inline.rs", "domain/lease.rs", "gossip/convergence.rs"]);
}
