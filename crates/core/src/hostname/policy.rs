//! Which host names a tunnel may claim, as an operator's file says: tunnels, or holders of a token, and the names that each may
//! have. Knows nothing of who has one.

use std::collections::HashMap;

use super::{HashHost, Naming, TunnelId};

/// Lines of a policy at most.
const MAX_LINES: usize = 100_000;
/// What a line begins with that is for all who come with a certain token.
const TOKEN: &str = "token:";

/// An operator's policy: whoever is not in it may claim nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimPolicy {
    anybody: Vec<Pattern>,
    by_tunnel: HashMap<TunnelId, Vec<Pattern>>,
    by_token: HashMap<Box<str>, Vec<Pattern>>,
}

/// Names, by their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`: every name.
    Every,
    /// One name.
    Name(String),
    /// `*.x`: every name below x, and that wildcard itself, which is its key.
    Below(String),
}

/// A line of a policy that says nothing sensible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Its first word is none of the three.
    #[error("line {0} begins with neither *, a tunnel id, nor token:LABEL")]
    Who(usize),
    /// A pattern is no host name.
    #[error("line {line}: {pattern:?} is neither a host name, *.NAME, nor *")]
    Pattern {
        /// Its number, from 1.
        line: usize,
        /// The word.
        pattern: String,
    },
    /// A line has one word.
    #[error("line {0} names nobody's host names: WHO NAME [NAME ...]")]
    Nothing(usize),
    /// More lines than any operator writes.
    #[error("has more than {MAX_LINES} lines")]
    TooLong,
}

impl ClaimPolicy {
    /// Reads lines `WHO NAME [NAME ...]`: WHO is `*`, a tunnel id, or `token:LABEL`; a NAME is a host name, `*.NAME` for all
    /// below one, or `*`. What follows a `#` is a comment.
    pub fn parse(text: &str, naming: &Naming) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if number > MAX_LINES {
                return Err(PolicyError::TooLong);
            }
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(who) = words.next() else { continue };
            let patterns = if who == "*" {
                &mut policy.anybody
            } else if let Some(label) = who.strip_prefix(TOKEN).filter(|label| !label.is_empty()) {
                policy.by_token.entry(label.into()).or_default()
            } else {
                let tunnel = TunnelId::parse(who).ok_or(PolicyError::Who(number))?;
                policy.by_tunnel.entry(tunnel).or_default()
            };
            let mut is_empty = true;
            for word in words {
                let pattern = Pattern::parse(word, naming);
                patterns.push(
                    pattern.ok_or_else(|| PolicyError::Pattern { line: number, pattern: word.into() })?,
                );
                is_empty = false;
            }
            if is_empty {
                return Err(PolicyError::Nothing(number));
            }
        }
        Ok(policy)
    }

    /// Whether a tunnel may claim a key, by a call with the token of this label, or without one.
    pub fn allows(&self, key: &str, tunnel: TunnelId, token: Option<&str>) -> bool {
        let of_token = token.and_then(|label| self.by_token.get(label));
        self.allows_whoever(key, tunnel) || of_token.is_some_and(|patterns| has(patterns, key))
    }

    /// Whether a claim may stand of which nobody knows any more by which token it came.
    pub fn may_stand(&self, key: &str, tunnel: TunnelId) -> bool {
        self.allows_whoever(key, tunnel) || self.by_token.values().any(|patterns| has(patterns, key))
    }

    /// Labels of tokens.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.by_token.keys().map(|label| &**label)
    }

    fn allows_whoever(&self, key: &str, tunnel: TunnelId) -> bool {
        // A hash host is its tunnel's, whoever says what.
        HashHost::parse(key) == Some(HashHost::of(tunnel))
            // Whoever had a wildcard would have what everybody else may claim below it.
            || !key.starts_with('.') && has(&self.anybody, key)
            || self.by_tunnel.get(&tunnel).is_some_and(|patterns| has(patterns, key))
    }
}

fn has(patterns: &[Pattern], key: &str) -> bool {
    patterns.iter().any(|pattern| pattern.has(key))
}

impl Pattern {
    fn parse(word: &str, naming: &Naming) -> Option<Self> {
        if word == "*" {
            return Some(Self::Every);
        }
        let key = naming.key(word).ok()?;
        Some(if key.starts_with('.') { Self::Below(key) } else { Self::Name(key) })
    }

    fn has(&self, key: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Name(name) => name == key,
            // What is below an ingress domain is a single label.
            Self::Below(suffix) if suffix == "." => key == "." || !key.contains(['.', ':']),
            Self::Below(suffix) => key.ends_with(&**suffix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";
    const TWO: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn tunnel(id: &str) -> TunnelId {
        TunnelId::parse(id).unwrap()
    }

    fn naming() -> Naming {
        Naming::new(&["gost.example".to_owned()], 1, &[]).unwrap()
    }

    fn policy(text: &str) -> Result<ClaimPolicy, PolicyError> {
        ClaimPolicy::parse(text, &naming())
    }

    #[test]
    fn each_has_the_names_of_its_lines_and_no_others() {
        let policy = policy(&format!(
            "# customers\n{ONE} app.example.org  *.one.example.org # both\n\n{ONE} short.gost.example\n* *.free.example.org\ntoken:office *\n"
        ))
        .unwrap();
        for (host, by, token, is_allowed) in [
            ("app.example.org", ONE, None, true),
            ("app.example.org", TWO, None, false),
            ("app.example.org", TWO, Some("office"), true),
            ("app.example.org", TWO, Some("home"), false),
            ("xapp.example.org", ONE, None, false),
            ("a.one.example.org", ONE, None, true),
            ("b.a.one.example.org", ONE, None, true),
            ("*.one.example.org", ONE, None, true),
            ("*.a.one.example.org", ONE, None, true),
            ("one.example.org", ONE, None, false),
            ("*.example.org", ONE, None, false),
            ("short", ONE, None, true),
            ("short.gost.example", ONE, None, true),
            ("short", TWO, None, false),
            ("x.free.example.org", TWO, None, true),
            ("*.free.example.org", TWO, None, false),
        ] {
            let key = naming().key(host).unwrap();
            assert_eq!(policy.allows(&key, tunnel(by), token), is_allowed, "{host} by {by}, {token:?}");
        }
        let stands = policy.may_stand("app.example.org", tunnel(TWO));
        assert!(stands, "it may have come with the token of the office");
        assert_eq!(policy.labels().collect::<Vec<_>>(), ["office"]);
    }

    #[test]
    fn an_empty_policy_leaves_hash_hosts_alone() {
        let policy = policy("# nobody\n").unwrap();
        let hash = HashHost::of(tunnel(ONE)).to_string();
        assert!(policy.allows(&hash, tunnel(ONE), None) && policy.may_stand(&hash, tunnel(ONE)));
        assert!(!policy.allows(&hash, tunnel(TWO), None), "another tunnel's");
        assert!(!policy.may_stand("app.example.org", tunnel(ONE)));
    }

    #[test]
    fn below_an_ingress_domain_are_single_labels() {
        let policy = policy(&format!("{ONE} *.gost.example")).unwrap();
        for (host, is_allowed) in [("app", true), ("app.gost.example", true), ("a.b.gost.example", false)] {
            let key = naming().key(host).unwrap();
            assert_eq!(policy.allows(&key, tunnel(ONE), None), is_allowed, "{host}");
        }
    }

    #[test]
    fn a_line_that_says_nothing_sensible_is_named() {
        let pattern = |pattern: &str| PolicyError::Pattern { line: 2, pattern: pattern.into() };
        for (text, error) in [
            ("\nnobody x", PolicyError::Who(2)),
            ("token: x", PolicyError::Who(1)),
            ("* x\n* a..b", pattern("a..b")),
            ("* x\n* *x", pattern("*x")),
            ("*", PolicyError::Nothing(1)),
        ] {
            assert_eq!(policy(text), Err(error), "{text:?}");
        }
    }
}
