//! gost's own ingress with a file. The rules are read again periodically, and no agent is asked. A client's wish for a
//! name is refused, and a line that is no rule ends the process, as in x v0.15.5. Knows nothing of agents.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

/// `reload: 1s`, which is also gost's minimum.
const RELOAD: Duration = Duration::from_secs(1);

/// The rules of a file: host name to endpoint.
#[derive(Clone, Default)]
pub(crate) struct RuleFile(Arc<Mutex<HashMap<String, String>>>);

impl RuleFile {
    /// Reads a file now and every second. While it cannot be read there are no rules, as in gost.
    pub(crate) fn watch(path: PathBuf) -> Self {
        let rules = Self::default();
        rules.read(&path);
        let again = rules.clone();
        tokio::spawn(async move {
            loop {
                sleep(RELOAD).await;
                again.read(&path);
            }
        });
        rules
    }

    fn read(&self, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
            eprintln!("{}: {error}", path.display());
            String::new()
        });
        let Some(rules) = parse(&text) else {
            eprintln!("panic: nil pointer: {} has a line that is no rule", path.display());
            std::process::exit(2);
        };
        *self.0.lock().expect("no panic holds it") = rules;
    }

    /// The endpoint of a host, with or without a port: by its own rule, then by a wildcard of the host itself, then by
    /// wildcards of its parents.
    pub(crate) fn get(&self, host: &str) -> Option<String> {
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let rules = self.0.lock().expect("no panic holds it");
        let below = host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| host[at..].to_owned());
        let mut names = [host.to_owned(), format!(".{host}")].into_iter().chain(below);
        names.find_map(|name| rules.get(&name).cloned())
    }
}

/// Parses `HOST ENDPOINT` lines; `*.` counts as `.`. `None` if gost would crash: an empty line and a comment alone are
/// rules without an endpoint.
fn parse(text: &str) -> Option<HashMap<String, String>> {
    let rule = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (host, endpoint) = (words.next()?, words.next()?);
        Some((host.strip_prefix('*').unwrap_or(host).to_owned(), endpoint.to_owned()))
    };
    text.lines().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_name_goes_before_wildcards_upwards() {
        let text = "shop.example.test one # its own\n*.example.test\ttwo\n.test $three\n";
        let rules = RuleFile(Arc::new(Mutex::new(parse(text).unwrap())));
        let found = |host| rules.get(host);
        assert_eq!(found("shop.example.test:80").as_deref(), Some("one"));
        assert_eq!(found("other.example.test:8420").as_deref(), Some("two"));
        assert_eq!(found("a.b.example.test").as_deref(), Some("two"));
        assert_eq!(found("example.test").as_deref(), Some("two"));
        assert_eq!(found("else.test").as_deref(), Some("$three"));
        assert_eq!(found("nobody"), None);
    }

    #[test]
    fn a_line_that_is_no_rule_is_the_end() {
        for text in ["# names\n", "a one\n\nb two\n", "half\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(""), Some(HashMap::new()));
    }
}
