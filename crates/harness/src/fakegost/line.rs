//! The lines between gosts and clients of this program. They stand for gost's relay protocol, which no agent sees, so
//! they are as few as tests need. Visitors use HTTP instead.
//!
//! ```text
//! client  → gost     BIND tunnel network host    gost → client   BOUND connector host
//! gost    → client   REQ n, PING                 client → gost   RES n text, END n, PONG
//! member  → gost     RELAY tunnel host           gost → member   OK text, REFUSED
//! gost    → gost     RELAY tunnel host                           the same
//! ```
//!
//! A member is a client that visits: it names the tunnel, as private tunnels require.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Longest line, its end included.
const MAX_LINE: u64 = 4096;

/// The next line without its end; `None` at the end of the stream.
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

/// The first line of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    Bind(Bind),
    Relay(RelayRequest),
}

/// A client that attaches a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) tunnel: String,
    /// `tcp` or `udp`.
    pub(crate) network: String,
    /// The host name that the client wants; may be empty.
    pub(crate) wanted: String,
}

/// A visitor that names the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelayRequest {
    pub(crate) tunnel: String,
    pub(crate) host: String,
}

impl Hello {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (verb, rest) = line.split_once(' ')?;
        let (tunnel, rest) = rest.split_once(' ')?;
        let tunnel = tunnel.to_ascii_lowercase();
        match verb {
            "BIND" => {
                let (network, wanted) = rest.split_once(' ')?;
                Some(Self::Bind(Bind { tunnel, network: network.into(), wanted: wanted.into() }))
            }
            "RELAY" => Some(Self::Relay(RelayRequest { tunnel, host: rest.into() })),
            _ => None,
        }
    }
}

impl RelayRequest {
    pub(crate) fn line(&self) -> String {
        format!("RELAY {} {}\n", self.tunnel, self.host)
    }
}

/// The answer to a bind: the connector's id, and the tunnel's host name.
pub(crate) fn parse_bound(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("BOUND ")?.split_once(' ')
}

/// A client's answer to a request: its number and text; `None` if the target has no answer.
pub(crate) fn parse_response(line: &str) -> Option<(u64, Option<&str>)> {
    if let Some(number) = line.strip_prefix("END ") {
        return Some((number.parse().ok()?, None));
    }
    let (number, text) = line.strip_prefix("RES ")?.split_once(' ')?;
    Some((number.parse().ok()?, Some(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_line_of_ours_is_nothing() {
        for line in ["POST x y", "BIND tunnel", "BIND tunnel tcp", "RELAY tunnel", ""] {
            assert_eq!(Hello::parse(line), None, "{line:?}");
        }
        assert_eq!(parse_response("RES x text"), None);
    }

    #[test]
    fn a_wish_for_no_host_is_a_bind() {
        let bind = Bind { tunnel: "ab".into(), network: "tcp".into(), wanted: String::new() };
        assert_eq!(Hello::parse("BIND AB tcp "), Some(Hello::Bind(bind)));
    }

    #[test]
    fn a_visitor_comes_back_as_it_was_said() {
        let relay = RelayRequest { tunnel: "ab".into(), host: "a.test".into() };
        assert_eq!(Hello::parse(relay.line().trim_end()), Some(Hello::Relay(relay)));
    }

    #[test]
    fn a_target_may_have_no_answer() {
        assert_eq!(parse_response("RES 7 a b"), Some((7, Some("a b"))));
        assert_eq!(parse_response("END 7"), Some((7, None)));
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
