//! HTTP/2 frame by frame: as little of it as tests of a server's behaviour need. Knows nothing of service discovery.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes of a client.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
/// The flag of an answer to a ping.
pub(crate) const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;

/// A frame as it is sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface and no settings.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A GET: `:method`, `:scheme`, `:path` and `:authority` from the static table (RFC 7541, appendix A).
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let text = |name: u8, value: &str| {
        let len = u8::try_from(value.len()).expect("a short text");
        [&[0x40 | name, len], value.as_bytes()].concat()
    };
    let head = [&[0x82, 0x87][..], &text(4, path), &text(1, "agent.test")].concat();
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &head)
}

/// The next frame's kind, flags and payload.
pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    let [a, b, c, kind, flags, ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.expect("its payload");
    (kind, flags, payload)
}

/// The payload of the next frame of a kind and flags.
pub(crate) async fn receive_kind(stream: &mut (impl AsyncRead + Unpin), kind: u8, flags: u8) -> Vec<u8> {
    loop {
        let frame = receive(stream).await;
        if frame.0 == kind && frame.1 & flags == flags {
            return frame.2;
        }
    }
}
