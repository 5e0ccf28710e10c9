//! Server-sent events out of an HTTP body: the part of the format that an agent uses. Knows nothing of what is in them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// An agent sends at least a comment every 15 seconds; one that does not is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Longest line and longest event. A record has at most three fields of 512 bytes and a name of 64.
const MAX_EVENT: usize = 64 << 10;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The `Last-Event-ID` that makes a new stream go on behind this event.
    pub(super) id: Option<String>,
    /// What happened.
    pub(super) data: String,
}

/// A stream of events.
pub(super) struct Events {
    body: Body,
    parser: Parser,
}

impl Events {
    /// The events of a body.
    pub(super) fn new(body: Body) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next one. An error is the end of the stream, whatever the reason.
    pub(super) async fn next(&mut self) -> anyhow::Result<Message> {
        loop {
            if let Some(message) = self.parser.next()? {
                return Ok(message);
            }
            let Ok(frame) = timeout(SILENCE, self.body.frame()).await else {
                bail!("nothing was heard for {SILENCE:?}")
            };
            let frame = frame.context("it ended the stream")?.context("the connection broke")?;
            self.parser.add(frame.into_data().unwrap_or_else(|_trailers| Bytes::new()).as_ref());
        }
    }
}

/// Bytes to events.
#[derive(Default)]
struct Parser {
    unread: Vec<u8>,
    id: Option<String>,
    data: String,
}

impl Parser {
    fn add(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    fn next(&mut self) -> anyhow::Result<Option<Message>> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(message) = self.take(line.trim_end_matches(['\r', '\n'])) {
                return Ok(Some(message));
            }
        }
        if self.unread.len() + self.data.len() > MAX_EVENT {
            bail!("an event is longer than {MAX_EVENT} bytes");
        }
        Ok(None)
    }

    fn take(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
            return (!data.is_empty()).then_some(Message { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.into()),
            "data" => {
                self.data.push_str(if self.data.is_empty() { "" } else { "\n" });
                self.data.push_str(value);
            }
            // The tag is in the data as well, a comment has no name, and when to come back is our own choice.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nid: 7\nevent: missed\ndata: {\"event\":\"missed\"}\n\nretry: 9\r\n\r\n\
                          id:8\r\ndata:{\r\ndata: }\r\n\r\ndata: cut";

    fn all(bytes: &[u8], at_a_time: usize) -> Vec<(Option<String>, String)> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for bytes in bytes.chunks(at_a_time) {
            parser.add(bytes);
            while let Some(Message { id, data }) = parser.next().unwrap() {
                found.push((id, data));
            }
        }
        found
    }

    #[test]
    fn events_are_the_same_however_they_arrive() {
        let want = [(Some("7".into()), "{\"event\":\"missed\"}".into()), (Some("8".into()), "{\n}".into())];
        for at_a_time in [1, 2, 7, STREAM.len()] {
            assert_eq!(all(STREAM.as_bytes(), at_a_time), want, "{at_a_time}");
        }
    }

    #[test]
    fn an_event_without_end_ends_the_stream() {
        for part in ["x".repeat(1_000), format!("data: {}\n", "x".repeat(1_000))] {
            let mut parser = Parser::default();
            let ended = (0..100).any(|_| {
                parser.add(part.as_bytes());
                parser.next().is_err()
            });
            assert!(ended, "{part:.9}");
            assert!(parser.unread.len() + parser.data.len() <= MAX_EVENT + 2_000);
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_says_so() {
        let mut events = Events::new(Body::from("id: 1\ndata: {}\n\n"));
        assert_eq!(events.next().await.unwrap(), Message { id: Some("1".into()), data: "{}".into() });
        assert_eq!(events.next().await.unwrap_err().to_string(), "it ended the stream");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_says_nothing_has_ended() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let error = Events::new(Body::from_stream(never)).next().await.unwrap_err();
        assert_eq!(error.to_string(), "nothing was heard for 45s");
    }
}
