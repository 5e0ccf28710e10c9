//! Who gets what from the operators' door: probes everything that they need, whatever else happens; other hosts nothing
//! that names a tunnel, unless they have a token.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::common::browser::Browser;
use crate::common::eventually;
use crate::common::http::{Answer, Connection, call, request};
use crate::common::process::{Process, gossd};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
const TOKENS: [&str; 2] = ["0b7c1f0e5d7a4c9f8e21d3a6b5947c10", "5f1c9be07d91ad44c2e807e3b2aa6131"];
/// What names tunnels, or hosts of the cluster.
const NAMED: [&str; 6] =
    ["/", "/status.json", "/services.json", "/explain.json?name=t", "/matrix.json", "/events"];
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Where a listener on all addresses is reached.
fn here(admin: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], admin.port()))
}

fn with(path: &str, authorization: &str) -> String {
    request("GET", path, "").replacen("\r\n\r\n", &format!("\r\nAuthorization: {authorization}\r\n\r\n"), 1)
}

/// The head of a stream is enough: it has no end.
async fn head(admin: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut bytes = vec![0; 4096];
    let read = timeout(SOON, stream.read(&mut bytes)).await.expect("an answer").expect("no reset");
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// The output of a verb, and whether it was done.
fn verb(args: &[&str], admin: SocketAddr) -> (String, bool) {
    let output = gossd().args(args).args(["--admin", &admin.to_string()]).output().expect("gossd runs");
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).expect("text"), output.status.success())
}

#[tokio::test]
async fn other_hosts_get_the_probes_alone_without_tokens_and_the_answer_names_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Process::keeping("a", folder.path(), &["--admin", "0.0.0.0:0"]);
    let admin = here(agent.admin);
    for path in NAMED {
        let answer = call(admin, &request("GET", path, "")).await;
        assert_eq!(answer.status(), 403, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("--admin-token-file"), "{answer:?}");
    }
    assert_eq!(call(admin, &with("/status.json", "Bearer any")).await.status(), 403, "there is no token");
    for path in PROBES {
        assert_eq!(call(admin, &request("GET", path, "")).await.status(), 200, "{path}");
    }
    eventually(SOON, "it warns at the start", || agent.said().contains("add `--admin-token-file FILE`"))
        .await;
    let (told, done) = verb(&["status"], admin);
    assert!(!done && told.contains("--admin-token-file") && told.contains("--control PATH"), "{told}");
    let socket = folder.path().join("a.sock");
    let (told, done) = verb(&["status", "--control", socket.to_str().unwrap()], admin);
    assert!(done && told.contains("other hosts reach --admin"), "the status tells it: {told}");
}

fn tokens(folder: &Path) -> String {
    let file = folder.join("admin-tokens");
    crate::common::write_secret(&file, TOKENS.join("\n"));
    file.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn with_tokens_whoever_has_one_gets_everything_by_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = tokens(folder.path());
    let agent = Process::start("a", &["--admin", "0.0.0.0:0", "--admin-token-file", &file]);
    let admin = here(agent.admin);
    let basic = |pair: String| format!("Basic {}", BASE64_STANDARD.encode(pair));
    for path in NAMED {
        for wrong in
            ["Bearer wrong", "Bearer ", &basic("gossd:wrong".into()), &basic(TOKENS[0].into()), "Digest x"]
        {
            assert_eq!(call(admin, &with(path, wrong)).await.status(), 401, "{path} {wrong}");
        }
        let answer = call(admin, &request("GET", path, "")).await;
        assert_eq!(answer.status(), 401, "{path}");
        assert!(
            answer.header("www-authenticate").unwrap().starts_with("Basic "),
            "so that browsers ask: {answer:?}"
        );
        assert!(answer.json()["error"].as_str().unwrap().contains("--admin-token-file"), "{answer:?}");
        for token in TOKENS {
            for right in
                [format!("Bearer {token}"), basic(format!("gossd:{token}")), basic(format!(":{token}"))]
            {
                let named = with(path, &right).replacen("127.0.0.1:8000", "gossd.example.net", 1);
                assert!(head(admin, &named).await.starts_with("HTTP/1.1 200"), "{path} {right}");
            }
        }
    }
    for path in PROBES {
        assert_eq!(call(admin, &request("GET", path, "")).await.status(), 200, "{path}");
    }
    assert!(!agent.said().contains("other hosts reach --admin"));
}

#[tokio::test]
async fn a_loopback_listener_with_tokens_wants_one_and_reads_new_ones_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = tokens(folder.path());
    let agent = Process::start("a", &["--admin-token-file", &file]);
    assert_eq!(call(agent.admin, &request("GET", "/status.json", "")).await.status(), 401);
    let renewed = "a91be07d5fc44c2e891ad07e3b2aa613";
    crate::common::write_secret(Path::new(&file), renewed);
    eventually(SOON, "it reads the file", || agent.said().contains("read again")).await;
    assert_eq!(call(agent.admin, &with("/status.json", &format!("Bearer {renewed}"))).await.status(), 200);
    assert_eq!(
        call(agent.admin, &with("/status.json", &format!("Bearer {}", TOKENS[0]))).await.status(),
        401
    );
}

#[tokio::test]
async fn the_verbs_send_the_token_of_their_flag_variable_or_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = tokens(folder.path());
    let agent = Process::start("a", &["--admin-token-file", &file]);
    let admin = agent.admin.to_string();
    for name in ["status", "members", "services"] {
        let (told, done) = verb(&[name], agent.admin);
        assert!(!done && told.contains("requires a token: --admin-token-file"), "{told}");
        // Nothing is attached, so services finds nothing.
        let (told, _) = verb(&[name, "--admin-token-file", &file], agent.admin);
        assert!(!told.contains("token"), "{told}");
    }
    let by_variable =
        gossd().args(["status", "--admin", &admin]).env("GOSSD_ADMIN_TOKEN_FILE", &file).status();
    assert!(by_variable.unwrap().success());
    let config = folder.path().join("gossd.toml");
    fs::write(&config, format!("admin = \"{admin}\"\nadmin-token-file = \"{file}\"\n")).unwrap();
    let by_file = gossd().args(["status", "--config", config.to_str().unwrap()]).status();
    assert!(by_file.unwrap().success());
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let (told, done) = verb(&["status", "--admin-token-file", &file], agent.admin);
    assert!(!done && told.contains("chmod 600"), "a token that others can read is not sent: {told}");
}

#[test]
fn check_warns_of_an_open_listener_and_reads_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = tokens(folder.path());
    let check = |flags: &[&str]| {
        let ports = [
            "--plugin",
            "127.0.0.1:0",
            "--gossip",
            "127.0.0.1:0",
            "--admin",
            "0.0.0.0:0",
            "--data-dir",
            "none",
        ];
        let output = gossd().args(["check", "--name", "a"]).args(ports).args(flags).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let open = check(&[]);
    assert!(open.contains("warn  admin") && open.contains("`--admin-token-file FILE`"), "{open}");
    let closed = check(&["--admin-token-file", &file]);
    assert!(closed.contains("ok    admin tokens") && !closed.contains("warn  admin"), "{closed}");
    let missing = check(&["--admin-token-file", "/nonexistent"]);
    assert!(missing.contains("FAIL  admin tokens   /nonexistent"), "{missing}");
}

#[tokio::test]
async fn a_browser_opens_the_page_with_the_token_as_its_password() {
    if std::env::var_os("GOSSD_SKIP_BROWSER").is_some_and(|skip| skip == "1") {
        return;
    }
    let mut browser = Browser::start().expect("a browser, or GOSSD_SKIP_BROWSER=1");
    let folder = tempfile::tempdir().unwrap();
    let file = tokens(folder.path());
    let agent = Process::start("a", &["--admin-token-file", &file]);
    let page = format!("http://{}/", agent.admin);
    browser.open(&page);
    browser.until(SOON, "document.body.innerText.includes('the password that a browser asks for')");
    // As after it was typed: the browser sends it with all that the page asks for.
    browser.give_password("gossd", TOKENS[0]);
    browser.open(&format!("http://{}/", agent.admin));
    browser.until(SOON, "document.body.innerText.includes('ready')");
}

/// Opens an event stream, and waits until it is one or is refused.
async fn stream(admin: SocketAddr) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(admin).await.expect("it listens");
    stream.write_all(request("GET", "/events", "").as_bytes()).await.expect("it reads");
    let mut head = [0; 16];
    timeout(SOON, stream.read_exact(&mut head)).await.expect("an answer").expect("no reset");
    (stream, head.starts_with(b"HTTP/1.1 200"))
}

async fn everything_is_answered(agent: &Process, socket: &Path) {
    for path in ["/livez", "/readyz", "/metrics", "/status.json", "/services.json"] {
        let answer = call(agent.admin, &request("GET", path, "")).await;
        assert_eq!(answer.status(), 200, "{path}");
    }
    let mut control = Connection::open_socket(socket).await;
    assert_eq!(control.call(&request("GET", "/status.json", "")).await.status(), 200);
}

#[tokio::test]
async fn readers_of_events_shut_nobody_out_and_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Process::keeping("a", folder.path(), &[]);
    let socket = folder.path().join("a.sock");
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(stream(agent.admin).await);
    }
    let (open, refused): (Vec<_>, Vec<_>) = streams.into_iter().partition(|(_, is_open)| *is_open);
    assert_eq!((open.len(), refused.len()), (32, 68));
    everything_is_answered(&agent, &socket).await;
    let answer: Answer = call(agent.admin, &request("GET", "/events", "")).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.json()["error"].as_str().unwrap().contains("32 event streams are open"), "{answer:?}");
    drop(open);
    let start = std::time::Instant::now();
    while !stream(agent.admin).await.1 {
        assert!(start.elapsed() < SOON, "there is room again");
    }
    everything_is_answered(&agent, &socket).await;
}

#[tokio::test]
async fn connections_that_say_nothing_or_read_nothing_shut_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Process::keeping("a", folder.path(), &[]);
    let socket = folder.path().join("a.sock");
    let begun = "GET /status.json HTTP/1.1\r\nHost: 127";
    let asked = request("GET", "/status.json", "");
    let (mut by_tcp, mut by_socket) = (Vec::new(), Vec::new());
    for first in ["", begun, &asked].repeat(50) {
        let mut stream = TcpStream::connect(agent.admin).await.expect("it listens");
        stream.write_all(first.as_bytes()).await.expect("it reads");
        by_tcp.push(stream);
        let mut stream = UnixStream::connect(&socket).await.expect("it listens");
        // It may be closed already, for one that came later.
        let _ = stream.write_all(first.as_bytes()).await;
        by_socket.push(stream);
    }
    everything_is_answered(&agent, &socket).await;
    let (told, done) = verb(&["status"], agent.admin);
    assert!(done, "{told}");
    drop((by_tcp, by_socket));
}
