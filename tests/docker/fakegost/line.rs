//! The lines that visitors, gosts and clients of this program say to each other. It stands for gost's relay
//! protocol, which no agent sees, so it is as small as a test needs.
//!
//! ```text
//! client  → gost     BIND tunnel wanted-host     gost → client   BOUND connector given-host
//! gost    → client   REQ n, PING                 client → gost   RES n text, PONG
//! visitor → gost     GET host                    gost → visitor  200 text | 404 | 503
//! gost    → gost     VIA tunnel                                  the same
//! ```

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Longest line, its end included.
const MAX_LINE: u64 = 4096;

/// The next line without its end; `None` when the other side is done.
pub(crate) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line that does not end"));
    }
    let text = String::from_utf8(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some(text))
}

/// What a gost or a visitor asks an entrypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Get { host: String },
    Via { tunnel: String },
}

impl Ask {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("GET", host) => Some(Self::Get { host: host.into() }),
            ("VIA", tunnel) => Some(Self::Via { tunnel: tunnel.into() }),
            _ => None,
        }
    }
}

/// An entrypoint's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Served(String),
    NoRule,
    NotReached,
}

impl Answer {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match (line, line.split_once(' ')) {
            ("404", _) => Some(Self::NoRule),
            ("503", _) => Some(Self::NotReached),
            (_, Some(("200", text))) => Some(Self::Served(text.into())),
            _ => None,
        }
    }

    pub(crate) fn line(&self) -> String {
        match self {
            Self::Served(text) => format!("200 {text}\n"),
            Self::NoRule => "404\n".into(),
            Self::NotReached => "503\n".into(),
        }
    }
}

/// What a client asks first: its tunnel, and the host name that it would like (may be empty).
pub(crate) fn parse_bind(line: &str) -> Option<(String, String)> {
    let (tunnel, wanted) = line.strip_prefix("BIND ")?.split_once(' ')?;
    Some((tunnel.to_ascii_lowercase(), wanted.into()))
}

/// The answer to it: the connector's id and the host name that the tunnel has.
pub(crate) fn parse_bound(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("BOUND ")?.split_once(' ')
}

/// A client's answer to a request: which, and what.
pub(crate) fn parse_response(line: &str) -> Option<(u64, &str)> {
    let (number, text) = line.strip_prefix("RES ")?.split_once(' ')?;
    Some((number.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_as_they_were_said() {
        for answer in [Answer::Served("a b".into()), Answer::NoRule, Answer::NotReached] {
            assert_eq!(Answer::parse(answer.line().trim_end()), Some(answer));
        }
    }

    #[test]
    fn what_is_no_line_of_ours_is_nothing() {
        assert_eq!(Ask::parse("POST x"), None);
        assert_eq!(Answer::parse("500 x"), None);
        assert_eq!(parse_bind("BIND tunnel"), None);
        assert_eq!(parse_response("RES x text"), None);
    }

    #[test]
    fn a_wish_for_no_host_is_a_bind() {
        assert_eq!(parse_bind("BIND AB "), Some(("ab".into(), String::new())));
    }

    #[tokio::test]
    async fn lines_are_read_one_by_one_and_never_longer_than_the_bound() {
        let mut reader: &[u8] = b"one\ntwo\n";
        assert_eq!(read_line(&mut reader).await.unwrap().as_deref(), Some("one"));
        assert_eq!(read_line(&mut reader).await.unwrap().as_deref(), Some("two"));
        assert_eq!(read_line(&mut reader).await.unwrap(), None);
        let long = [b'x'; 5000];
        assert!(read_line(&mut &long[..]).await.is_err());
        assert!(read_line(&mut &b"half"[..]).await.is_err());
    }
}
