//! Secrets stay where they belong. No key, token or private key is in anything that an agent prints, answers or leaves
//! behind, even at the highest log level; and no secret file that others can read is accepted.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::eventually;
use crate::common::http::{call, request};
use crate::common::process::{Process, gossd};
use crate::services::sd_client::SdClient;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use gossd::plugin::grpc::generated::GetServiceRequest;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

const SOON: Duration = Duration::from_secs(10);
/// The key in key files of these tests.
const KEY: [u8; 32] = *b"a key for the tests of its file.";
const TOKENS: [&str; 2] = ["first-token-5f1c9be07d", "second-token-91ad44c2e8"];
/// A caller's token that is not ours: perhaps an old one, or a neighbour's.
const WRONG: &str = "wrong-token-07e3b2aa61";

/// Every form in which bytes are likely to be printed.
fn spellings(secret: &[u8]) -> Vec<String> {
    let base64 = |text: String| text.trim_end_matches('=').to_owned();
    let hex = secret.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("text");
        hex
    });
    let list = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let mut all = vec![base64(STANDARD.encode(secret)), base64(URL_SAFE.encode(secret)), list(&secret[..8])];
    all.extend([hex.to_uppercase(), hex]);
    all.extend(std::str::from_utf8(secret).map(str::to_owned));
    all
}

fn find(text: &str, secrets: &[(&str, Vec<u8>)]) -> Option<String> {
    let spelled = |(name, secret): &(&str, Vec<u8>)| {
        let found = spellings(secret).into_iter().find(|spelling| text.contains(spelling));
        found.map(|found| format!("{name} as {found}"))
    };
    secrets.iter().find_map(spelled)
}

/// No text contains a secret.
fn assert_silent(texts: &[(String, String)], secrets: &[(&str, Vec<u8>)]) {
    for (source, text) in texts {
        assert!(!text.is_empty(), "{source} says nothing at all");
        if let Some(found) = find(text, secrets) {
            panic!("{source} tells the {found}");
        }
    }
}

/// What a verb prints, on both streams.
fn said(args: &[&str], input: &str) -> String {
    let mut command = gossd();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("gossd runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
}

async fn by_grpc(plugin: std::net::SocketAddr, root: &str, token: &'static str) -> bool {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{plugin}")).expect("an address");
    let channel = endpoint.tls_config(tls).expect("TLS").connect().await.expect("it listens");
    let mut get = Request::new(GetServiceRequest { name: "t".into() });
    get.metadata_mut().insert("token", MetadataValue::from_static(token));
    SdClient::new(channel).get(get).await.is_ok()
}

#[test]
fn the_search_finds_what_is_there() {
    let secret = [("key", vec![0xfb; 32])];
    for spelling in spellings(&secret[0].1) {
        assert!(find(&format!("a line with {spelling}."), &secret).is_some(), "{spelling}");
    }
    assert!(find("nothing", &secret).is_none());
}

/// What the admin listener answers.
const PAGES: [&str; 7] =
    ["/", "/status.json", "/services.json", "/explain.json?name=t", "/matrix.json", "/readyz", "/metrics"];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_agent_says_tells_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let keys: [[u8; 32]; 3] = [1_u8, 2, 3]
        .map(|n| std::array::from_fn(|at| u8::try_from(at).unwrap_or(0).wrapping_mul(37) ^ (n * 61)));
    let lines = keys.map(|key| STANDARD.encode(key) + "\n");
    for agent in ["a", "b"] {
        crate::common::write_secret(Path::new(&path(agent)), lines[..2].concat());
    }
    crate::common::write_secret(Path::new(&path("tokens")), TOKENS.join("\n"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(path("cert.pem"), made.cert.pem()).expect("a file");
    crate::common::write_secret(Path::new(&path("key.pem")), made.signing_key.serialize_pem());
    let private = made.signing_key.serialize_der();
    let secrets = [
        ("sealing key", keys[0].to_vec()),
        ("second key", keys[1].to_vec()),
        ("added key", keys[2].to_vec()),
        ("first token", TOKENS[0].into()),
        ("second token", TOKENS[1].into()),
        ("wrong token", WRONG.into()),
        // PKCS#8 of P-256: the secret number comes after 36 bytes.
        ("private key", private[36..68].to_vec()),
    ];

    let (control, data) = (path("control.sock"), path("data"));
    let [key_a, key_b, tokens, cert, key] = ["a", "b", "tokens", "cert.pem", "key.pem"].map(path);
    let flags =
        [["--token-file", &*tokens], ["--tls-cert", &cert], ["--tls-key", &key], ["--log-level", "trace"]]
            .concat();
    let a = [&flags[..], &["--key-file", &key_a, "--control", &control, "--data-dir", &data]].concat();
    let a = Process::start("a", &a);
    let gossip = a.gossip.to_string();
    let b = [&flags[..], &["--key-file", &key_b, "--join", &gossip, "--log-format", "json"]].concat();
    let b = Process::start("b", &b);
    let admin = a.admin.to_string();
    let mut texts = Vec::new();
    let mut collect = |what: &str, text: String| texts.push((what.to_owned(), text));

    let root = made.cert.pem();
    assert!(by_grpc(a.plugin, &root, TOKENS[0]).await && by_grpc(b.plugin, &root, TOKENS[1]).await);
    assert!(!by_grpc(a.plugin, &root, WRONG).await);
    let https = crate::common::client()
        .add_root_certificate(reqwest::Certificate::from_pem(root.as_bytes()).expect("PEM"));
    let https = https.build().expect("a client");
    for (token, status) in [(TOKENS[0], 200), (WRONG, 401)] {
        let url = format!("https://localhost:{}/sd?name=t", a.plugin.port());
        let answer = https.get(url).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(answer.status(), status);
        collect("the plugin's answer", answer.text().await.expect("text"));
    }
    collect("keys add", said(&["keys", "add", "-", "--control", &control], &lines[2]));
    eventually(SOON, "the key is given to the other agent, and filed", || {
        fs::read_to_string(&key_b).expect("a file").contains(lines[2].trim())
    })
    .await;
    let list = said(&["keys", "list", "--json", "--control", &control], "");
    let added = serde_json::from_str::<serde_json::Value>(&list).expect("JSON")["keys"][1]
        .as_str()
        .expect("an id")
        .to_owned();
    collect("keys use", said(&["keys", "use", &added, "--control", &control], ""));
    collect("keys list --json", list);
    collect("keys list", said(&["keys", "list", "--control", &control], ""));
    // Unusable files of three kinds must not be quoted either.
    for (file, text) in [
        (&tokens, "töken ".to_owned() + TOKENS[0]),
        (&key, lines[0].clone()),
        (&key_a, "x".to_owned() + &lines[1]),
    ] {
        crate::common::write_secret(Path::new(file), &text);
    }
    a.signal("-HUP");
    eventually(SOON, "all three are refused", || a.said().matches("not usable").count() >= 3).await;
    collect(
        "check of them",
        said(
            &["check", "--token-file", &tokens, "--tls-cert", &cert, "--tls-key", &key, "--key-file", &key_a],
            "",
        ),
    );

    for verb in ["status", "members", "services"] {
        collect(verb, said(&[verb, "--admin", &admin], ""));
        collect("its JSON", said(&[verb, "--json", "--admin", &admin], ""));
    }
    for page in PAGES {
        collect(page, call(a.admin, &request("GET", page, "")).await.body);
    }
    collect(
        "the line of its command",
        fs::read_to_string(format!("/proc/{}/cmdline", a.pid())).expect("it runs"),
    );
    collect("the log as text", a.log());
    collect("the log as JSON", b.log());
    let journal = fs::read(Path::new(&data).join("a.journal")).expect("a journal");
    collect("the journal", journal.iter().map(|byte| char::from(*byte)).collect());
    assert!(
        texts.iter().any(|(source, text)| source.contains("log") && text.contains("TRACE")),
        "every word is in it"
    );
    assert_silent(&texts, &secrets);
}

#[test]
fn a_file_that_every_user_can_read_ends_the_start_and_says_how_to_close_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let cert = folder.path().join("cert.pem");
    fs::write(&cert, made.cert.pem()).expect("a file");
    let (secret, cert) = (path.to_str().expect("text"), cert.to_str().expect("text"));
    let key = STANDARD.encode(KEY);
    for (flags, text) in [
        (&["--key-file", secret][..], &*key),
        (&["--token-file", secret], TOKENS[0]),
        (&["--tls-cert", cert, "--tls-key", secret], &made.signing_key.serialize_pem()),
    ] {
        crate::common::write_secret(&path, text);
        let ports =
            ["--plugin", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--admin", "none", "--data-dir", "none"];
        for (mode, fine) in [(0o644, false), (0o640, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
            for verb in ["run", "check"] {
                let args = [&[verb, "--name", "a"], &ports[..], flags].concat();
                if fine && verb == "run" {
                    continue; // It would go on for ever; `check` reads with the same code.
                }
                let said = said(&args, "");
                let told = format!("(mode 0{mode:o}): `chmod 600 {secret}`");
                assert_eq!(said.contains(&told), !fine, "{args:?}: {said}");
                assert!(find(&said, &[("secret", text.into())]).is_none(), "{said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_opened_to_others_while_it_is_in_use_is_not_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (tokens, key) = (folder.path().join("tokens"), folder.path().join("key"));
    crate::common::write_secret(&tokens, TOKENS[0]);
    crate::common::write_secret(&key, STANDARD.encode(KEY));
    let flags = ["--token-file", tokens.to_str().expect("text"), "--key-file", key.to_str().expect("text")];
    let agent = Process::start("a", &flags);
    for file in [&tokens, &key] {
        fs::set_permissions(file, Permissions::from_mode(0o604)).expect("ours");
    }
    // It notices the token file by itself.
    eventually(SOON, "it tells of the tokens", || agent.said().contains("`chmod 600 ")).await;
    agent.signal("-HUP");
    eventually(SOON, "it tells of the key", || {
        agent.said().contains(&format!("`chmod 600 {}`", key.display()))
    })
    .await;
    let get = request("GET", "/sd?name=t", "").replacen(
        "\r\n\r\n",
        &format!("\r\nAuthorization: Bearer {}\r\n\r\n", TOKENS[0]),
        1,
    );
    assert_eq!(call(agent.plugin, &get).await.status(), 200, "what it knew is in force");
    fs::set_permissions(&tokens, Permissions::from_mode(0o600)).expect("ours");
    eventually(SOON, "it reads them", || agent.said().contains("read again")).await;
}

#[test]
fn keygen_closes_the_file_that_a_shell_made_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for (umask, verb, mode) in [
        ("022", "keygen", 0o600),
        ("000", "keys generate", 0o600),
        ("027", "keygen", 0o640),
        ("077", "keygen", 0o600),
    ] {
        let line = format!("umask {umask}; exec \"$0\" {verb} > {umask}");
        let status =
            Command::new("sh").args(["-c", &line, env!("CARGO_BIN_EXE_gossd")]).current_dir(&folder).status();
        assert!(status.expect("sh runs").success());
        let path = folder.path().join(umask);
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, mode, "umask {umask}");
        assert_eq!(
            STANDARD.decode(fs::read_to_string(&path).expect("text").trim()).expect("base64").len(),
            32
        );
    }
}

/// A program that may leave core files of any size, in its folder.
fn dumping(program: &str, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\"", program]).args(args).current_dir(folder);
    command
}

#[test]
fn an_agent_that_crashes_leaves_no_core_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let control = dumping("bash", folder.path(), &["-c", "kill -ABRT $$"]).status().expect("bash runs");
    if !control.core_dumped() {
        println!(
            "SKIPPED in part: this machine makes no core files, so nothing has shown that gossd prevents them"
        );
    }
    let args = [
        "run",
        "--name",
        "a",
        "--plugin",
        "127.0.0.1:0",
        "--gossip",
        "127.0.0.1:0",
        "--admin",
        "none",
        "--data-dir",
        "none",
    ];
    let mut child = dumping(env!("CARGO_BIN_EXE_gossd"), folder.path(), &args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("bash runs");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("it starts");
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("it runs");
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit").to_owned();
    let sent = Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().expect("kill runs");
    let ended = child.wait().expect("it ends");
    assert!(line.starts_with("plugin ") && sent.success(), "{line}");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}
