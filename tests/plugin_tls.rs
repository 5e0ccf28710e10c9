//! The plugin over TLS: for clients that check the certificate and for those that do not, in both versions of HTTP,
//! while the certificate is replaced, and beside callers that send something else or nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::process::gossd;
use crate::common::{client, eventually, frames};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::bounds::{Bounds, Closed};
use gossd::plugin::tls::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3_600);
const QUICK: Duration = Duration::from_millis(20);
const NAME: &str = "agent.test";
const NONE: &str = r#"{"services":[]}"#;

/// A certificate authority, and the files of an agent with a certificate of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer, folder: tempfile::tempdir().expect("a folder") }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.path("cert.pem"), key: self.path("key.pem") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate and its key to the agent's files. Returns the certificate's bytes.
    fn issue(&self) -> Vec<u8> {
        let (certificate, key, der) = self.make();
        self.write("cert.pem", &certificate);
        self.write("key.pem", &key);
        der
    }

    fn make(&self) -> (String, String, Vec<u8>) {
        let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem(), certificate.der().to_vec())
    }

    fn write(&self, name: &str, text: &str) {
        crate::common::write_secret(&self.path(name), text);
    }

    fn config(&self, reload_interval: Duration) -> Config {
        let config = Config::loopback("a".parse().expect("a name"));
        Config { tls: Some(self.files()), reload_interval, ..config }
    }

    async fn start(&self) -> Daemon {
        Daemon::start(self.config(QUICK)).await.expect("it starts")
    }

    fn client(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes()).expect("PEM");
        client().add_root_certificate(root)
    }

    async fn connect(&self, addr: SocketAddr, alpn: &[&str]) -> TlsStream<TcpStream> {
        self.connect_with(addr, alpn, &[&version::TLS13, &version::TLS12]).await
    }

    async fn connect_with(
        &self,
        addr: SocketAddr,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(addr).await.expect("the agent listens");
        let name = ServerName::try_from(NAME).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
    }

    /// The certificate that new connections get.
    async fn seen(&self, agent: &Daemon) -> Vec<u8> {
        shown(&self.connect(agent.plugin, &[]).await)
    }

    async fn eventually_seen(&self, agent: &Daemon, certificate: &[u8]) {
        let start = Instant::now();
        while self.seen(agent).await != certificate {
            assert!(start.elapsed() < SOON, "newcomers never see it");
            sleep(QUICK).await;
        }
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].to_vec()
}

/// A GET on a kept-alive connection.
async fn get(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /sd?name=t HTTP/1.1\r\nHost: agent.test\r\n\r\n").await.expect("it is open");
    let mut answer = String::new();
    while !answer.ends_with(NONE) {
        let mut bytes = [0; 1_024];
        let len = timeout(SOON, stream.read(&mut bytes)).await.expect("an answer").expect("it is open");
        assert!(len > 0, "closed after {answer:?}");
        answer += &String::from_utf8_lossy(&bytes[..len]);
    }
    answer
}

async fn refusal_to_start(config: Config) -> String {
    let Err(error) = Daemon::start(config).await else { panic!("it started") };
    format!("{error:#}")
}

#[tokio::test]
async fn a_client_that_checks_the_name_takes_the_right_one_only() {
    let authority = Authority::new();
    authority.issue();
    let agent = authority.start().await;
    for (name, fine) in [(NAME, true), ("other.test", false)] {
        let client = authority.client().resolve(name, agent.plugin).build().expect("a client");
        let url = format!("https://{name}:{}/sd?name=t", agent.plugin.port());
        let answer = client.get(url).send().await;
        assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), fine, "{name}");
    }
    let stranger = Authority::new();
    let client = stranger.client().resolve(NAME, agent.plugin).build().expect("a client");
    let url = format!("https://{NAME}:{}/sd?name=t", agent.plugin.port());
    assert!(client.get(url).send().await.is_err(), "another authority vouches for nobody here");
}

#[tokio::test]
async fn a_client_that_does_not_check_works_as_gost_does_by_default() {
    let authority = Authority::new();
    authority.issue();
    let agent = authority.start().await;
    let client = client().danger_accept_invalid_certs(true).build().expect("a client");
    let url = format!("https://{}/sd?name=t", agent.plugin);
    let answer = client.get(&url).send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), NONE);
    let body = r#"{"id":"i","name":"t","node":"n","network":"tcp","address":"10.0.0.1:80"}"#;
    let answer = client.post(&url).body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(agent.counts().own_records, 1);
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let authority = Authority::new();
    authority.issue();
    let agent = authority.start().await;
    for tls in [&version::TLS12, &version::TLS13] {
        for offered in [&["http/1.1"][..], &[], &["h2", "http/1.1"], &["h2"]] {
            let mut stream = authority.connect_with(agent.plugin, offered, &[tls]).await;
            let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(agreed.as_deref(), offered.first().map(|first| first.as_bytes()));
            if offered.first() == Some(&"h2") {
                let calls = [frames::hello(), frames::get(1, "/sd?name=t")].concat();
                stream.write_all(&calls).await.expect("it is open");
                let body = frames::receive_kind(&mut stream, frames::DATA, 0).await;
                assert_eq!(body, NONE.as_bytes());
            } else {
                get(&mut stream).await;
            }
        }
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_for_newcomers_and_old_connections_go_on() {
    let authority = Authority::new();
    let old = authority.issue();
    let agent = authority.start().await;
    let mut kept = authority.connect(agent.plugin, &[]).await;
    get(&mut kept).await;
    assert_eq!(shown(&kept), old);
    let new = authority.issue();
    assert_ne!(new, old);
    authority.eventually_seen(&agent, &new).await;
    get(&mut kept).await;
    assert_eq!(shown(&kept), old);
    assert_eq!(agent.plugin_closed().closed(Closed::Evicted), 0);
}

#[tokio::test]
async fn the_certificate_is_read_again_on_a_reload() {
    let authority = Authority::new();
    let old = authority.issue();
    let agent = Daemon::start(authority.config(NEVER)).await.expect("it starts");
    let new = authority.issue();
    assert_eq!(authority.seen(&agent).await, old);
    agent.reload();
    authority.eventually_seen(&agent, &new).await;
}

#[tokio::test]
async fn an_unusable_replacement_keeps_the_old_certificate() {
    let authority = Authority::new();
    let old = authority.issue();
    let agent = authority.start().await;
    let (_, other_key, _) = authority.make();
    for (file, text) in [("cert.pem", "no certificate"), ("key.pem", "no key"), ("key.pem", &other_key)] {
        authority.write(file, text);
        // Long enough for several checks; the usable files at the end show that they took place.
        sleep(QUICK * 10).await;
        assert_eq!(authority.seen(&agent).await, old, "{file}: {text:.20}");
    }
    let new = authority.issue();
    authority.eventually_seen(&agent, &new).await;
}

#[tokio::test]
async fn unusable_files_end_the_start_and_are_named() {
    let authority = Authority::new();
    let (certificate, key, _) = authority.make();
    let (_, other_key, _) = authority.make();
    for (written, file, why) in [
        (["", ""], "cert.pem", "has no certificate"),
        (["no PEM", &key], "cert.pem", "has no certificate"),
        ([&*key, &key], "cert.pem", "has no certificate"),
        (["-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", &key], "cert.pem", "PEM"),
        ([&*certificate, "no PEM"], "key.pem", "private key"),
        ([&*certificate, &certificate], "key.pem", "private key"),
        ([&*certificate, &other_key], "key.pem", "does not go with the certificate"),
    ] {
        authority.write("cert.pem", written[0]);
        authority.write("key.pem", written[1]);
        let error = refusal_to_start(authority.config(NEVER)).await;
        let path = authority.path(file);
        assert!(error.contains(&*path.to_string_lossy()) && error.contains(why), "{written:.20?}: {error}");
    }
    fs::remove_file(authority.path("key.pem")).expect("it is there");
    let error = refusal_to_start(authority.config(NEVER)).await;
    assert!(error.contains("key.pem: cannot be read"), "{error}");
}

#[tokio::test]
async fn who_speaks_plain_text_or_nothing_harms_nobody() {
    let authority = Authority::new();
    authority.issue();
    let patience = Duration::from_millis(300);
    let bounds = Bounds { patience, ..Bounds::default() };
    let config = Config { bounds, ..authority.config(NEVER) };
    let agent = Daemon::start(config).await.expect("it starts");
    let mut kept = authority.connect(agent.plugin, &[]).await;
    get(&mut kept).await;

    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(agent.plugin).await.expect("it listens"));
    }
    let mut plain = TcpStream::connect(agent.plugin).await.expect("it listens");
    plain.write_all(b"GET /sd?name=t HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let mut answer = Vec::new();
    let _end_or_reset = timeout(SOON, plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    get(&mut kept).await;
    get(&mut authority.connect(agent.plugin, &[]).await).await;

    let closed = || agent.plugin_closed().closed(Closed::SlowHandshake);
    eventually(SOON, "the silent ones are closed", || closed() == 20).await;
    for stream in &mut silent {
        assert!(matches!(timeout(SOON, stream.read(&mut [0])).await, Ok(Ok(0) | Err(_))));
    }
    sleep(patience * 4).await;
    get(&mut kept).await;
    assert_eq!(closed(), 20, "an idle connection is not closed for TLS either");
}

#[tokio::test]
async fn a_silent_handshake_does_not_keep_the_agent_from_stopping() {
    let authority = Authority::new();
    authority.issue();
    let agent = authority.start().await;
    let _silent = TcpStream::connect(agent.plugin).await.expect("it listens");
    // This connection was served after the silent one, so the silent one has been accepted.
    get(&mut authority.connect(agent.plugin, &[]).await).await;
    let begun = Instant::now();
    agent.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}

#[test]
fn the_program_says_where_it_is_found_and_takes_no_broken_files() {
    let authority = Authority::new();
    authority.issue();
    let socket = authority.path("gossd.sock");
    let run = || {
        let mut command = gossd();
        command.args(["run", "--plugin", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data-dir", "none"]);
        for (flag, file) in [("--tls-cert", "cert.pem"), ("--tls-key", "key.pem")] {
            command.arg(flag).arg(authority.path(file));
        }
        command.args(["--admin", "127.0.0.1:0"]);
        command.arg("--plugin-socket").arg(&socket);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("gossd starts")
    };
    let mut child = run();
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().take(4);
    let lines: Vec<_> = lines.map(|line| line.expect("text")).collect();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(lines[0].starts_with("plugin https://127.0.0.1:") && lines[0].ends_with("/sd"), "{lines:?}");
    assert!(lines[1].starts_with("gossip 127.0.0.1:"), "{lines:?}");
    assert!(lines[2].starts_with("admin http://127.0.0.1:"), "{lines:?}");
    assert_eq!(lines[3], format!("plugin unix://{}", socket.display()));

    authority.write("key.pem", "no key");
    let output = run().wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("key.pem"), "{error}");
}
