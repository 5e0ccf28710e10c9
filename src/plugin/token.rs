//! The tokens that admit calls. Knows no protocol: an adapter finds the token in a call, [`Tokens`] checks it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::reload::{self, Files, Latest, Unusable};

/// Longest token; longer than any that a program generates.
const MAX_TOKEN: usize = 512;
/// What a label begins with.
const LABEL: &[u8] = b"label=";
/// Longest label.
const MAX_LABEL: usize = 64;

/// A call without a token that is in force. Nothing else of the call was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// gost has no token, or is too old to send one.
    #[error(
        "this agent requires a token: set `token` in gost's plugin section; over HTTP, gost 3.2.6 and older send none"
    )]
    Missing,
    /// The token is not in the file.
    #[error("this token is not in the agent's --token-file")]
    Wrong,
}

/// The tokens in force; every clone sees the newest. Without a token file, every call is admitted.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Option<Latest<TokenHashes>>);

impl Tokens {
    /// Reads a token file; the other value reads it again later.
    pub fn open(path: &Path) -> Result<(Self, Files<TokenHashes>), Unusable> {
        let (files, latest) = Files::open(vec![path.into()], TokenHashes::load)?;
        Ok((Self(Some(latest)), files))
    }

    /// The label of a token that is in force, if its line has one.
    pub fn label(&self, given: Option<&[u8]>) -> Option<Arc<str>> {
        self.0.as_ref()?.get().label(given?)
    }

    /// Whether a call with this token, or without one, is admitted.
    pub fn admit(&self, given: Option<&[u8]>) -> Result<(), Unauthenticated> {
        let Some(latest) = &self.0 else { return Ok(()) };
        let given = given.ok_or(Unauthenticated::Missing)?;
        if latest.get().has(given) { Ok(()) } else { Err(Unauthenticated::Wrong) }
    }
}

/// The tokens of a file as hashes: a comparison takes the same time for any length, and nothing can be printed.
pub struct TokenHashes(Vec<([u8; 32], Option<Arc<str>>)>);

impl TokenHashes {
    fn load(paths: &[PathBuf]) -> Result<Self, Unusable> {
        let [path] = paths else { unreachable!("there is one token file") };
        let text = reload::read_secret(path)?;
        Self::parse(&text).map_err(|why| Unusable::new(path, why))
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let hashed =
            |(token, label): (&[u8], Option<&str>)| (Sha256::digest(token).into(), label.map(Arc::from));
        Ok(Self(lines(text)?.into_iter().map(hashed).collect()))
    }

    /// Compares with every token, so that the time reveals nothing.
    fn has(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.iter().fold(Choice::from(0), |found, (known, _)| found | known.ct_eq(&given)).into()
    }

    /// Who has a token knows its label.
    fn label(&self, given: &[u8]) -> Option<Arc<str>> {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.iter().find(|(known, _)| known.ct_eq(&given).into()).and_then(|(_, label)| label.clone())
    }
}

/// The first token of a file: the one to give to a gost.
pub(crate) fn first(path: &Path) -> Result<Zeroizing<String>, Unusable> {
    let text = reload::read_secret(path)?;
    let tokens = lines(&text).map_err(|why| Unusable::new(path, why))?;
    let first = tokens.first().map(|(token, _)| *token).unwrap_or_default();
    Ok(Zeroizing::new(String::from_utf8_lossy(first).into_owned()))
}

/// The labels in a file.
pub(crate) fn labels(path: &Path) -> Result<BTreeSet<String>, Unusable> {
    let text = reload::read_secret(path)?;
    let tokens = lines(&text).map_err(|why| Unusable::new(path, why))?;
    Ok(tokens.iter().filter_map(|(_, label)| label.map(str::to_owned)).collect())
}

/// A token, and the label under which a claim policy names it.
type Line<'a> = (&'a [u8], Option<&'a str>);

/// The tokens of a file, at least one: one per line, perhaps with a label behind it; blank lines and `#` comments are skipped.
/// Errors never quote the text.
fn lines(text: &[u8]) -> Result<Vec<Line<'_>>, String> {
    let mut tokens = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (token, rest) = match line.iter().position(u8::is_ascii_whitespace) {
            Some(end) => (&line[..end], line[end..].trim_ascii()),
            None => (line, &line[..0]),
        };
        let label = rest.strip_prefix(LABEL).and_then(|label| str::from_utf8(label).ok());
        let is_label = |label: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_plain)
        };
        if !token.iter().all(u8::is_ascii_graphic) || !rest.is_empty() && !label.is_some_and(is_label) {
            return Err(format!(
                "line {} is not a token: printable ASCII without blanks; a blank and label=NAME may follow",
                at + 1
            ));
        }
        if token.len() > MAX_TOKEN {
            return Err(format!("line {} is longer than {MAX_TOKEN} bytes", at + 1));
        }
        tokens.push((token, label));
    }
    if tokens.is_empty() {
        return Err("has no token; `openssl rand -hex 32` makes one".into());
    }
    Ok(tokens)
}

impl fmt::Debug for TokenHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_token_file_is_in_force() {
        let known = TokenHashes::parse(b"# old\nold-token\n\n  new-token \r\n").unwrap();
        for (token, fine) in
            [("old-token", true), ("new-token", true), ("new-toke", false), ("", false), ("# old", false)]
        {
            assert_eq!(known.has(token.as_bytes()), fine, "{token}");
        }
        assert_eq!(format!("{known:?}"), "2 tokens", "none is printed");
    }

    #[test]
    fn a_label_names_a_token_to_a_claim_policy() {
        let known = TokenHashes::parse(b"one label=office\ntwo\t label=a.b-c_1\r\nthree\n").unwrap();
        let label = |token: &str| known.label(token.as_bytes());
        assert_eq!((label("one").as_deref(), label("two").as_deref()), (Some("office"), Some("a.b-c_1")));
        assert_eq!((label("three"), label("four")), (None, None));
        assert!(known.has(b"one") && !known.has(b"one label=office"));
        for bad in ["one office", "one label=", "one label=a b", "one label=\u{e9}"] {
            assert!(TokenHashes::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_line_that_is_a_token_is_the_one_to_give_to_a_gost() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# new\n\n  new-token \r\nold-token").unwrap();
        assert_eq!(&**first(file.path()).unwrap(), "new-token");
        std::fs::write(&file, "# new").unwrap();
        assert!(first(file.path()).unwrap_err().to_string().contains("no token"));
    }

    #[test]
    fn an_invalid_token_file_is_refused_without_quoting_it() {
        let long = "x".repeat(MAX_TOKEN + 1);
        for (text, want) in [
            ("", "no token"),
            ("# only\n\n", "no token"),
            ("good\nse cret", "line 2"),
            ("se\tcret", "line 1"),
            ("se\0cret", "line 1"),
            ("sécret", "line 1"),
            (&*long, "longer than 512"),
        ] {
            let why = TokenHashes::parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(want) && !why.contains("cret"), "{text:?}: {why}");
        }
        assert!(TokenHashes::parse("x".repeat(MAX_TOKEN).as_bytes()).is_ok());
    }

    #[test]
    fn without_a_file_everybody_is_admitted() {
        assert_eq!(Tokens::default().admit(None), Ok(()));
        assert_eq!(Tokens::default().admit(Some(b"any")), Ok(()));
    }
}
