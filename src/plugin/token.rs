//! The tokens that admit calls. Knows no protocol: an adapter finds the token in a call, [`Tokens`] checks it.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::reload::{self, Files, Latest, Unusable};

/// Longest token; longer than any that a program generates.
const MAX_TOKEN: usize = 512;

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

    /// Whether a call with this token, or without one, is admitted.
    pub fn admit(&self, given: Option<&[u8]>) -> Result<(), Unauthenticated> {
        let Some(latest) = &self.0 else { return Ok(()) };
        let given = given.ok_or(Unauthenticated::Missing)?;
        if latest.get().has(given) { Ok(()) } else { Err(Unauthenticated::Wrong) }
    }
}

/// The tokens of a file as hashes: a comparison takes the same time for any length, and nothing can be printed.
pub struct TokenHashes(Vec<[u8; 32]>);

impl TokenHashes {
    fn load(paths: &[PathBuf]) -> Result<Self, Unusable> {
        let [path] = paths else { unreachable!("there is one token file") };
        let text = reload::read_secret(path)?;
        Self::parse(&text).map_err(|why| Unusable::new(path, why))
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        Ok(Self(lines(text)?.into_iter().map(|token| Sha256::digest(token).into()).collect()))
    }

    /// Compares with every token, so that the time reveals nothing.
    fn has(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given)).into()
    }
}

/// The first token of a file: the one to give to a gost.
pub(crate) fn first(path: &Path) -> Result<Zeroizing<String>, Unusable> {
    let text = reload::read_secret(path)?;
    let tokens = lines(&text).map_err(|why| Unusable::new(path, why))?;
    let first = tokens.first().copied().unwrap_or_default();
    Ok(Zeroizing::new(String::from_utf8_lossy(first).into_owned()))
}

/// The tokens of a file, at least one: one per line; blank lines and `#` comments are skipped. Errors never quote the
/// text.
fn lines(text: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut tokens = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if !line.iter().all(u8::is_ascii_graphic) {
            return Err(format!("line {} is not a token: printable ASCII without blanks", at + 1));
        }
        if line.len() > MAX_TOKEN {
            return Err(format!("line {} is longer than {MAX_TOKEN} bytes", at + 1));
        }
        tokens.push(line);
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
