//! Whether a request has begun and is incomplete, by the bytes that arrived. HTTP/2 is followed only from frame to
//! frame, because its pings and window updates come at any time and begin no request.

use std::time::Instant;

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What is known of the bytes of one connection.
#[derive(Debug)]
pub(super) struct Arriving {
    protocol: Protocol,
    unfinished: Option<Instant>,
}

#[derive(Debug)]
enum Protocol {
    /// The first bytes of [`PREFACE`], this many, and nothing else.
    Unknown(usize),
    Http1,
    Http2(Frames),
}

/// The position in a sequence of frames.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; FRAME_HEAD],
    /// Bytes of the frame's head received so far.
    have: usize,
    /// Bytes of the payload still to be read.
    left: usize,
    /// Whether a block of header frames has begun and its last frame is missing.
    open: bool,
}

impl Arriving {
    pub(super) fn new() -> Self {
        Self { protocol: Protocol::Unknown(0), unfinished: None }
    }

    /// Since when a request is incomplete.
    pub(super) fn unfinished(&self) -> Option<Instant> {
        self.unfinished
    }

    /// Takes the bytes that arrived. In HTTP/1, bodies arrive during a call, and heads between calls.
    pub(super) fn read(&mut self, now: Instant, bytes: &[u8], in_call: bool) {
        match &mut self.protocol {
            Protocol::Http2(frames) => {
                let passed = frames.follow(bytes);
                if frames.is_between() {
                    self.unfinished = None;
                } else if passed || self.unfinished.is_none() {
                    self.unfinished = Some(now);
                }
            }
            Protocol::Http1 => {
                if !in_call && self.unfinished.is_none() {
                    self.unfinished = Some(now);
                }
            }
            Protocol::Unknown(matched) => {
                let rest = &PREFACE[*matched..];
                let len = rest.len().min(bytes.len());
                if bytes[..len] != rest[..len] {
                    self.protocol = Protocol::Http1;
                    return self.read(now, bytes, in_call);
                }
                *matched += len;
                if *matched == PREFACE.len() {
                    self.unfinished = None;
                    self.protocol = Protocol::Http2(Frames::default());
                    return self.read(now, &bytes[len..], in_call);
                }
                self.unfinished.get_or_insert(now);
            }
        }
    }

    /// A request's head is complete, and its call begins. HTTP/2 needs no such note: its frames show it.
    pub(super) fn called(&mut self) {
        if !matches!(self.protocol, Protocol::Http2(_)) {
            self.unfinished = None;
        }
    }
}

impl Frames {
    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.open
    }

    /// Whether these bytes completed a frame, or a block of header frames.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut passed = false;
        while !bytes.is_empty() {
            let len = if self.left > 0 { self.skip(bytes) } else { self.read_head(bytes) };
            bytes = &bytes[len..];
            passed |= self.is_between();
        }
        passed
    }

    fn skip(&mut self, payload: &[u8]) -> usize {
        let len = self.left.min(payload.len());
        self.left -= len;
        len
    }

    fn read_head(&mut self, bytes: &[u8]) -> usize {
        let len = (FRAME_HEAD - self.have).min(bytes.len());
        self.head[self.have..self.have + len].copy_from_slice(&bytes[..len]);
        self.have += len;
        if self.have == FRAME_HEAD {
            let [a, b, c, kind, flags, ..] = self.head;
            self.have = 0;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.open = flags & END_HEADERS == 0;
            }
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD + usize::from(len), 0);
        frame
    }

    #[test]
    fn an_http_1_head_is_unfinished_from_its_first_byte_to_its_call() {
        let (mut arriving, now) = (Arriving::new(), Instant::now());
        assert_eq!(arriving.unfinished(), None, "an idle connection has begun nothing");
        for first in ["P", "PR", "GET / HT"] {
            arriving.read(now, first.as_bytes(), false);
            assert_eq!(arriving.unfinished(), Some(now), "{first}");
        }
        arriving.called();
        arriving.read(now, b"a body", true);
        assert_eq!(arriving.unfinished(), None);
    }

    #[test]
    fn http_2_is_unfinished_within_a_frame_or_a_head_only() {
        let now = Instant::now();
        let head = [frame(HEADERS, 0, 5), frame(CONTINUATION, END_HEADERS, 3)].concat();
        let ping = frame(6, 0, 8);
        let mut bytes = PREFACE.to_vec();
        let mut whole = vec![0, PREFACE.len()];
        for part in [&frame(4, 0, 0), &ping, &head, &frame(0, 1, 200), &ping] {
            bytes.extend(part);
            whole.push(bytes.len());
        }
        for step in [1, 2, 7, 64, 1_000] {
            let mut arriving = Arriving::new();
            let mut at = 0;
            for piece in bytes.chunks(step) {
                arriving.read(now, piece, false);
                at += piece.len();
                assert_eq!(arriving.unfinished().is_none(), whole.contains(&at), "{at} in steps of {step}");
            }
        }
    }

    #[test]
    fn every_frame_has_its_own_time() {
        let (mut arriving, now) = (Arriving::new(), Instant::now());
        let later = now + std::time::Duration::from_secs(1);
        let ping = frame(6, 0, 8);
        arriving.read(now, &[PREFACE, &ping[..4]].concat(), false);
        assert_eq!(arriving.unfinished(), Some(now));
        arriving.read(later, &ping[4..9], false);
        assert_eq!(arriving.unfinished(), Some(now), "some progress is not enough");
        arriving.read(later, &[&ping[9..], &ping[..4]].concat(), false);
        assert_eq!(arriving.unfinished(), Some(later), "the next one has begun");
    }
}
