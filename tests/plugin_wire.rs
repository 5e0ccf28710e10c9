//! gRPC as gost's client puts it on the wire, written byte by byte: frames, header compression and messages. So the
//! result does not depend on a library that is at both ends.

use std::time::Duration;

use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::bounds::Bounds;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How grpc-go measures the bandwidth.
const BDP_PING: [u8; 8] = [2, 4, 16, 16, 9, 14, 7, 7];

/// A message of each call, in protobuf: tag, length, text. Register's and Renew's are one field, a connector.
mod messages {
    pub(super) const REGISTER: &[u8] =
        b"\x0a\x20\x0a\x02c1\x12\x03t-1\x1a\x03n-1\x22\x03tcp\x2a\x0b10.0.0.1:80";
    pub(super) const RENEW: &[u8] = b"\x0a\x0e\x0a\x02c1\x12\x03t-1\x1a\x03n-1";
    pub(super) const RENEW_UNKNOWN: &[u8] = b"\x0a\x0e\x0a\x02c2\x12\x03t-2\x1a\x03n-2";
    pub(super) const REGISTER_NOTHING: &[u8] = b"";
    pub(super) const GET: &[u8] = b"\x0a\x03t-1";
    pub(super) const GET_NO_TEXT: &[u8] = b"\x0a\x02\xff\xfe";
    pub(super) const GET_UNKNOWN_FIELD: &[u8] = b"\x0a\x03t-1\x98\x06\x07";
    /// `host` and `service`.
    pub(super) const GET_RULE: &[u8] = b"\x0a\x0da.example.org\x12\x09service-0";

    pub(super) const OK: &[u8] = b"\x08\x01";
    /// False is left out, like every zero in protobuf.
    pub(super) const NOT_OK: &[u8] = b"";
    pub(super) const LISTED: &[u8] = REGISTER;
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
}

/// A message in gRPC's framing: uncompressed, with its length.
fn message(protobuf: &[u8]) -> Vec<u8> {
    let len = u32::try_from(protobuf.len()).expect("short").to_be_bytes();
    [&[0], &len[..], protobuf].concat()
}

/// A text in a header block, not compressed.
fn text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("short");
    assert!(len < 127, "a longer one has a longer length");
    [&[len], text.as_bytes()].concat()
}

/// A call's head without compression, except for names and values of HTTP/2's static table.
fn plain_head(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    block.extend([&[0x04][..], &text(path)].concat());
    block.extend([&[0x01][..], &text("127.0.0.1:8000")].concat()); // :authority
    // From here on, a name's index above 14 does not fit into the first byte.
    block.extend([&[0x0f, 31 - 15][..], &text("application/grpc")].concat()); // content-type
    block.extend([&[0x0f, 58 - 15][..], &text("grpc-go/1.63.2")].concat()); // user-agent
    block.extend([&[0x00][..], &text("te"), &text("trailers")].concat());
    block.extend([&[0x10][..], &text("token"), &text("secret")].concat()); // never to be indexed
    block
}

/// The same head as grpc-go writes it: both sides store every field, and values are Huffman-coded.
fn indexing_head(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    block.extend([&[0x44][..], &text(path)].concat());
    block.extend([&[0x41][..], &text("127.0.0.1:8000")].concat());
    block.extend(b"\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64"); // content-type application/grpc
    block.extend([&[0x7a][..], &text("grpc-go/1.63.2")].concat());
    block.extend(b"\x40\x02te\x86\x4d\x83\x35\x05\xb1\x1f"); // te trailers
    block.extend([&[0x40][..], &text("token"), &text("secret")].concat());
    block
}

/// The head of every later call of the same path: all fields are stored, the newest as number 62.
const REMEMBERED_HEAD: [u8; 8] = [0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];

/// The answer on one stream.
#[derive(Debug, Default)]
struct Answer {
    head: Vec<(String, String)>,
    data: Vec<u8>,
    trailers: Vec<(String, String)>,
}

impl Answer {
    fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }
}

/// The client's end of a connection.
struct Client {
    _agent: Daemon,
    stream: TcpStream,
    fields: fluke_hpack::Decoder<'static>,
    last_stream: u32,
    /// Frames that arrived while others were waited for.
    settled: bool,
    pongs: Vec<Vec<u8>>,
}

impl Client {
    async fn connect() -> Self {
        Self::connect_to(Bounds::default()).await
    }

    /// As grpc-go begins: the preface, settings that change nothing, and no wait for the server's settings.
    async fn connect_to(bounds: Bounds) -> Self {
        let token_file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&token_file, "secret\n").expect("a file can be written");
        let mut config = Config::loopback("a".parse().expect("a name"));
        config.bounds = bounds;
        config.token_file = Some(token_file.path().into());
        let agent = Daemon::start(config).await.expect("the agent starts");
        let mut stream = TcpStream::connect(agent.plugin).await.expect("the agent listens");
        stream.set_nodelay(true).expect("a socket option");
        let hello = [PREFACE, &Frame::bytes(SETTINGS, 0, 0, b"")].concat();
        stream.write_all(&hello).await.expect("the agent reads");
        let fields = fluke_hpack::Decoder::new();
        Self { _agent: agent, stream, fields, last_stream: 0, settled: false, pongs: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the agent reads");
    }

    /// A call in one piece: its head, and its message with the end of the stream.
    async fn call(&mut self, head: &[u8], protobuf: &[u8]) -> Answer {
        let stream = self.open(head).await;
        self.send(&Frame::bytes(DATA, END_STREAM, stream, &message(protobuf))).await;
        self.answer(stream).await
    }

    async fn open(&mut self, head: &[u8]) -> u32 {
        self.last_stream = if self.last_stream == 0 { 1 } else { self.last_stream + 2 };
        self.send(&Frame::bytes(HEADERS, END_HEADERS, self.last_stream, head)).await;
        self.last_stream
    }

    /// Reads until the answer has ended; meanwhile does what a client has to do for the connection.
    async fn answer(&mut self, stream: u32) -> Answer {
        let mut answer = Answer::default();
        loop {
            let frame = self.frame().await;
            if self.is_the_connections(&frame).await {
                continue;
            }
            assert_eq!(frame.stream, stream, "a frame of kind {}", frame.kind);
            match frame.kind {
                DATA => {
                    assert_eq!(frame.flags, 0, "no padding, and trailers follow");
                    answer.data.extend(&frame.payload);
                    self.give_back(&frame).await;
                }
                HEADERS => {
                    assert_eq!(frame.flags & !END_STREAM, END_HEADERS, "no padding, no priority, one frame");
                    let fields = self.decode(&frame.payload);
                    if frame.flags & END_STREAM != 0 {
                        answer.trailers = fields;
                        return answer;
                    }
                    answer.head = fields;
                }
                WINDOW_UPDATE => {}
                other => panic!("a frame of kind {other}: {:?}", frame.payload),
            }
        }
    }

    /// Returns as much flow-control window as arrived, for the connection and for the stream.
    async fn give_back(&mut self, frame: &Frame) {
        let len = u32::try_from(frame.payload.len()).expect("short").to_be_bytes();
        self.send(&Frame::bytes(WINDOW_UPDATE, 0, 0, &len)).await;
        self.send(&Frame::bytes(WINDOW_UPDATE, 0, frame.stream, &len)).await;
    }

    async fn is_the_connections(&mut self, frame: &Frame) -> bool {
        match (frame.kind, frame.flags & ACK) {
            (SETTINGS, 0) => self.send(&Frame::bytes(SETTINGS, ACK, 0, b"")).await,
            (SETTINGS, _) => self.settled = true,
            (PING, 0) => self.send(&Frame::bytes(PING, ACK, 0, &frame.payload)).await,
            (PING, _) => self.pongs.push(frame.payload.clone()),
            (WINDOW_UPDATE, _) => return frame.stream == 0,
            (GOAWAY | RST_STREAM, _) => panic!("the agent gave up: {:?}", frame.payload),
            _ => return false,
        }
        assert_eq!(frame.stream, 0);
        true
    }

    async fn frame(&mut self) -> Frame {
        let patience = Duration::from_secs(10);
        timeout(patience, self.read_frame()).await.expect("an answer").expect("the agent stays")
    }

    async fn read_frame(&mut self) -> std::io::Result<Frame> {
        let len = self.stream.read_u8().await?;
        let len = u32::from(len) << 16 | u32::from(self.stream.read_u16().await?);
        let (kind, flags) = (self.stream.read_u8().await?, self.stream.read_u8().await?);
        let stream = self.stream.read_u32().await?;
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, stream, payload })
    }

    fn decode(&mut self, block: &[u8]) -> Vec<(String, String)> {
        let fields = self.fields.decode(block).expect("a header block").into_iter();
        let utf8 = |bytes| String::from_utf8(bytes).expect("text");
        fields.map(|(name, value)| (utf8(name), utf8(value))).collect()
    }
}

/// gost takes an answer as success only if all of this holds.
fn assert_answered(answer: &Answer, protobuf: &[u8]) {
    assert_eq!(answer.head[0], (":status".to_owned(), "200".to_owned()));
    let content_type = ("content-type".to_owned(), "application/grpc".to_owned());
    assert!(answer.head.contains(&content_type), "{answer:?}");
    assert_eq!(answer.data, message(protobuf));
    assert_eq!(answer.trailer("grpc-status"), Some("0"), "{answer:?}");
}

/// A refusal is one block of fields without a message; its text is percent-encoded.
fn assert_refused(answer: &Answer, code: &str, text: &str) {
    assert!(answer.head.is_empty() && answer.data.is_empty(), "{answer:?}");
    assert_eq!(answer.trailer(":status"), Some("200"));
    assert_eq!(answer.trailer("content-type"), Some("application/grpc"));
    assert_eq!(answer.trailer("grpc-status"), Some(code), "{answer:?}");
    let said = answer.trailer("grpc-message").unwrap_or_default();
    assert!(said.contains(text), "{text} is not in {said}");
}

#[tokio::test]
async fn a_connectors_life_on_the_wire() {
    let mut gost = Client::connect().await;
    let unknown = gost.call(&plain_head("/proto.SD/Renew"), messages::RENEW_UNKNOWN).await;
    assert_answered(&unknown, messages::NOT_OK);
    assert!(gost.settled, "the client's settings are acknowledged");
    assert_answered(&gost.call(&plain_head("/proto.SD/Register"), messages::REGISTER).await, messages::OK);
    assert_answered(&gost.call(&plain_head("/proto.SD/Get"), messages::GET).await, messages::LISTED);
    assert_answered(&gost.call(&plain_head("/proto.SD/Renew"), messages::RENEW).await, messages::OK);
    assert_answered(&gost.call(&plain_head("/proto.SD/Deregister"), messages::RENEW).await, messages::OK);
    assert_answered(&gost.call(&plain_head("/proto.SD/Get"), messages::GET).await, b"");
    assert_answered(&gost.call(&plain_head("/proto.Ingress/GetRule"), messages::GET_RULE).await, b"");
}

#[tokio::test]
async fn a_head_that_is_remembered_need_not_be_sent_again() {
    let mut gost = Client::connect().await;
    assert_answered(&gost.call(&indexing_head("/proto.SD/Register"), messages::REGISTER).await, messages::OK);
    for _ in 0..100 {
        assert_answered(&gost.call(&REMEMBERED_HEAD, messages::REGISTER).await, messages::OK);
    }
    assert_answered(&gost.call(&plain_head("/proto.SD/Get"), messages::GET).await, messages::LISTED);
}

#[tokio::test]
async fn pings_are_answered_between_the_frames_of_a_call() {
    let mut gost = Client::connect().await;
    let stream = gost.open(&plain_head("/proto.SD/Register")).await;
    gost.send(&Frame::bytes(PING, 0, 0, &BDP_PING)).await;
    gost.send(&Frame::bytes(WINDOW_UPDATE, 0, 0, &[0, 0, 0x40, 0])).await;
    let sent = message(messages::REGISTER);
    let (first, rest) = sent.split_at(3);
    gost.send(&Frame::bytes(DATA, 0, stream, first)).await;
    gost.send(&Frame::bytes(PING, 0, 0, b"keepaliv")).await;
    gost.send(&Frame::bytes(DATA, 0, stream, rest)).await;
    gost.send(&Frame::bytes(DATA, END_STREAM, stream, b"")).await;
    assert_answered(&gost.answer(stream).await, messages::OK);
    assert_eq!(gost.pongs, [BDP_PING.to_vec(), b"keepaliv".to_vec()]);
}

#[tokio::test]
async fn refusals_are_trailers_alone() {
    let mut gost = Client::connect().await;
    let register = plain_head("/proto.SD/Register");
    assert_refused(&gost.call(&register, messages::REGISTER_NOTHING).await, "3", "id%20is%20missing");
    let without_token = register[..register.len() - 1 - 6 - 7].to_vec();
    assert_refused(&gost.call(&without_token, messages::REGISTER).await, "16", "token");
    assert_refused(&gost.call(&plain_head("/proto.SD/List"), messages::GET).await, "12", "");
    assert_refused(
        &gost.call(&plain_head("/proto.Router/GetRoute"), messages::GET).await,
        "12",
        "not%20served",
    );
    assert_refused(&gost.call(&plain_head("/proto.SD/Get"), messages::GET_NO_TEXT).await, "13", "UTF-8");
    assert_answered(&gost.call(&plain_head("/proto.SD/Get"), messages::GET_UNKNOWN_FIELD).await, b"");
}

#[tokio::test]
async fn a_compressed_message_is_refused_with_what_would_be_understood() {
    let mut gost = Client::connect().await;
    let stream = gost.open(&plain_head("/proto.SD/Get")).await;
    let mut compressed = message(messages::GET);
    compressed[0] = 1;
    gost.send(&Frame::bytes(DATA, END_STREAM, stream, &compressed)).await;
    let answer = gost.answer(stream).await;
    assert_refused(&answer, "12", "compressed");
    assert_eq!(answer.trailer("grpc-accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_question_for_a_head_alone_gets_no_body() {
    let mut client = Client::connect().await;
    for (path, status) in [("/sd", "405"), ("/elsewhere", "404")] {
        let mut head = vec![0x02];
        head.extend(
            [&text("HEAD")[..], &[0x86, 0x04], &text(path), &[0x01], &text("127.0.0.1:8000")].concat(),
        );
        head.extend([&[0x0f, 23 - 15][..], &text("Bearer secret")].concat()); // authorization
        let stream = client.open(&head).await;
        client.send(&Frame::bytes(DATA, END_STREAM, stream, b"")).await;
        let answer = client.answer(stream).await;
        assert_eq!((answer.trailer(":status"), answer.data.len()), (Some(status), 0), "{answer:?}");
        let length = answer.trailer("content-length").and_then(|length| length.parse::<u64>().ok());
        assert!(length.is_some_and(|length| length > 0), "{answer:?}");
    }
}

#[tokio::test]
async fn a_message_that_does_not_arrive_is_refused_in_grpcs_way() {
    let patience = Duration::from_millis(300);
    let mut gost = Client::connect_to(Bounds { patience, ..Bounds::default() }).await;
    let stream = gost.open(&plain_head("/proto.SD/Register")).await;
    gost.send(&Frame::bytes(DATA, 0, stream, &message(messages::REGISTER)[..3])).await;
    assert_refused(&gost.answer(stream).await, "4", "in%20time");
}
