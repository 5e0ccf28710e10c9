//! The verbs that ask a running agent: their output for people and for programs, their exit codes, and their errors
//! when no agent answers.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::gost::FakeGost;
use crate::common::nobody;
use crate::common::process::{Process, gossd};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const CONNECTOR: &str = "c23d4f42-c892-42b3-8b74-88ab6455d33a";
/// Every verb that asks the admin listener.
const VERBS: [&[&str]; 6] =
    [&["status"], &["members"], &["services"], &["get", TUNNEL], &["explain", TUNNEL], &["watch"]];

/// A verb that asks the agent at an address.
fn asking(admin: SocketAddr, words: &[&str]) -> Command {
    let mut command = gossd();
    command.args(words).args(["--admin", &admin.to_string()]);
    command
}

/// The output of a verb, and its exit code.
fn ended(command: &mut Command) -> (String, String, i32) {
    let Output { stdout, stderr, status } = command.output().expect("gossd runs");
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).expect("text"));
    (stdout, stderr, status.code().expect("it ended by itself"))
}

/// The output of a verb, which must not complain.
fn printed(agent: &Process, words: &[&str]) -> String {
    let (stdout, stderr, code) = ended(&mut asking(agent.admin, words));
    assert_eq!((&*stderr, code), ("", 0), "{words:?}: {stdout}");
    stdout
}

fn json(agent: &Process, words: &[&str]) -> Value {
    let text = printed(agent, &[words, &["--json"]].concat());
    assert_eq!(text.lines().count(), 1, "one line for programs: {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Asks until the table contains a text.
async fn until(agent: &Process, words: &[&str], text: &str) -> String {
    let start = Instant::now();
    loop {
        let table = printed(agent, words);
        if table.contains(text) {
            return table;
        }
        assert!(start.elapsed() < SOON, "{words:?} never tells {text:?}: {table}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An agent with one tunnel that is attached there, and one more agent.
async fn two_agents() -> (Process, Process, FakeGost) {
    let a = Process::start("a", &["--ingress-rule", &format!("www.example.org={TUNNEL}")]);
    let b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register(CONNECTOR, TUNNEL).await;
    until(&b, &["status"], "records  1, 0 of them").await;
    until(&a, &["status"], "peers    1 alive").await;
    (a, b, gost)
}

#[tokio::test]
async fn a_status_and_the_members_are_printed_for_people_and_for_programs() {
    let (a, b, _gost) = two_agents().await;
    let screen = printed(&a, &["status"]);
    let first = screen.lines().next().unwrap();
    assert!(first.starts_with(&format!("a  gossd {}  up ", env!("CARGO_PKG_VERSION"))), "{screen}");
    assert!(first.contains("  ready  20"), "{screen}");
    assert!(screen.contains("records  1, 1 of them registered here (at most 100000)\n"), "{screen}");
    let status = json(&a, &["status"]);
    assert_eq!((&status["name"], &status["holds"]["records"]), (&"a".into(), &1.into()));

    let members = printed(&b, &["members"]);
    let rows: Vec<Vec<&str>> = members.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "STATE", "RTT", "SILENT", "RECORDS", "ADDRESS", "VERSION"]);
    let (own, peer) = (b.gossip.to_string(), a.gossip.to_string());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(rows[1], ["b", "(this)", "alive", "-", "-", "0", &own, version]);
    assert_eq!(rows[2][..2], ["a", "alive"]);
    assert_eq!(rows[2][rows[2].len() - 3..], ["1", &*peer, version]);
    let members = json(&b, &["members"]);
    assert_eq!((members["members"][1]["name"].as_str(), members.get("journal")), (Some("a"), None));
}

#[tokio::test]
async fn verbs_that_read_can_ask_the_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let a = Process::keeping("a", folder.path(), &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register(CONNECTOR, TUNNEL).await;
    let socket = folder.path().join("a.sock");
    let nobody = nobody();
    let by_socket = |words: &[&str]| ended(asking(nobody, words).arg("--control").arg(&socket));
    for (words, text) in [
        (&["status"][..], "a  gossd "),
        (&["members"], "a (this)"),
        (&["services"], TUNNEL),
        (&["get", TUNNEL], CONNECTOR),
        (&["explain", TUNNEL], "the only one; a is alive; registered here"),
        (&["matrix"], "nobody reports an entrypoint that it cannot reach"),
    ] {
        let (stdout, stderr, code) = by_socket(words);
        assert!(code == 0 && stdout.contains(text), "{words:?}: {stdout}{stderr}");
    }
    drop(a);
    let (_, stderr, code) = by_socket(&["status"]);
    assert!(code == 1 && stderr.contains(&format!("no agent answers at {}", socket.display())), "{stderr}");
}

#[tokio::test]
async fn tunnels_are_listed_up_to_a_limit_and_searched() {
    let (a, _b, mut gost) = two_agents().await;
    gost.register("2", "other").await;
    let all = printed(&a, &["services"]);
    assert!(all.contains(&format!("{TUNNEL}       1       0  a       www.example.org\n")), "{all}");
    assert!(printed(&a, &["services", "--agent", "a"]).contains("other"));
    let (stdout, _, code) = ended(&mut asking(a.admin, &["services", "--hidden"]));
    assert_eq!((&*stdout, code), ("no tunnel is like that\n", 3));
    assert!(printed(&a, &["services", "www.ex"]).contains(TUNNEL), "by a part of a host name");
    let hosts = printed(&a, &["hosts", "example"]);
    let row: Vec<&str> = hosts.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["www.example.org", TUNNEL, "configured", "1", "a"]);
    let found = printed(&a, &["services", "4d21"]);
    assert!(found.contains(TUNNEL) && !found.contains("other"), "{found}");
    assert!(printed(&a, &["services", "--limit", "1"]).ends_with("\n1 more: --limit 2\n"));
    assert_eq!(json(&a, &["services", "--limit", "1"])["total"], 2);
    let (stdout, _, code) = ended(&mut asking(a.admin, &["services", "nobody"]));
    assert_eq!((&*stdout, code), ("no tunnel is like that\n", 3));
    let (_, stderr, code) = ended(&mut asking(a.admin, &["services", "--limit", "0"]));
    assert!(code == 2 && stderr.contains("from 1 to 10000"), "{stderr}");
}

#[tokio::test]
async fn a_tunnel_is_found_and_explained_by_its_id_and_by_its_host() {
    let (a, b, gost) = two_agents().await;
    let entrypoint = gost.entrypoint.to_string();
    for name in [TUNNEL, "www.example.org"] {
        let table = printed(&a, &["get", name]);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, [&*entrypoint, "tcp", "a", CONNECTOR], "{name}");
    }
    assert_eq!(json(&b, &["get", TUNNEL])["candidates"][0]["address"], *entrypoint);

    let explained = printed(&a, &["explain", "www.example.org"]);
    let lines: Vec<&str> = explained.lines().collect();
    assert_eq!(lines[0], "the host's tunnel has one record that is listed");
    assert_eq!(lines[1], "host    www.example.org: www.example.org is configured (--ingress-rule)");
    assert_eq!(lines[2], format!("tunnel  {TUNNEL}"));
    assert!(lines[5].starts_with("1     ") && lines[5].contains(&entrypoint) && lines[5].contains(" left"));
    assert_eq!(lines[6], "        the only one; a is alive; registered here");
    assert!(lines.iter().all(|line| line.len() <= 100), "{explained}");
    let explained = json(&a, &["explain", TUNNEL]);
    assert_eq!((&explained["name"], &explained["candidates"][0]["rtt_ms"]), (&TUNNEL.into(), &Value::Null));
}

#[tokio::test]
async fn a_tunnel_that_is_not_there_ends_with_three() {
    let a = Process::start("a", &[]);
    for verb in ["get", "explain"] {
        let (stdout, stderr, code) = ended(&mut asking(a.admin, &[verb, "nobody.example.org"]));
        // A program that reads the answer of get reads an address, or nothing.
        let (told, silent) = if verb == "get" { (stderr, stdout) } else { (stdout, stderr) };
        assert_eq!((&*silent, code), ("", 3));
        assert!(told.starts_with("no tunnel and no host of that name"), "{told}");
        let (stdout, _, code) = ended(&mut asking(a.admin, &[verb, "x&y= z", "--json"]));
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&answer["asked"], code), (&"x&y= z".into(), 3));
    }
    let (_, stderr, code) = ended(&mut asking(a.admin, &["explain", ""]));
    assert!(code == 1 && stderr.contains("says: which one?") && stderr.lines().count() == 1, "{stderr}");
}

/// What `gossd watch` says of its watching, behind the time.
fn note(notes: &Receiver<String>) -> String {
    let line = notes.recv_timeout(SOON).expect("a note");
    let (at, text) = line.split_once(' ').expect("a time");
    assert!(at.starts_with("20") && at.ends_with('Z'), "{line}");
    text.to_owned()
}

/// `gossd watch`, line by line.
struct Watch {
    child: Child,
    events: Receiver<String>,
    notes: Receiver<String>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (told, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
    });
    lines
}

impl Watch {
    fn start(admin: SocketAddr, flags: &[&str]) -> Self {
        let mut command = asking(admin, &[&["watch"], flags].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("gossd runs");
        let events = lines(child.stdout.take().expect("piped"));
        let notes = lines(child.stderr.take().expect("piped"));
        Self { child, events, notes }
    }

    fn event(&self) -> String {
        self.events.recv_timeout(SOON).expect("an event in time")
    }

    fn note(&self) -> String {
        note(&self.notes)
    }

    async fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(start.elapsed() < SOON, "it goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn events_are_printed_over_a_restart_until_ctrl_c() {
    let mut a = Process::start("a", &[]);
    let (mut people, programs) = (Watch::start(a.admin, &[]), Watch::start(a.admin, &["--json"]));
    let begin = format!("watching a at {} until ctrl-c", a.admin);
    assert_eq!([people.note(), programs.note()], [&*begin, &begin]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register(CONNECTOR, TUNNEL).await;
    let line = people.event();
    let told = format!("record-up      {TUNNEL}  {}  at a", gost.entrypoint);
    assert!(line.starts_with("20") && line.ends_with(&told), "{line}");
    let event: Value = serde_json::from_str(&programs.event()).unwrap();
    assert_eq!((&event["event"], &event["id"]), (&"record-up".into(), &CONNECTOR.into()));

    a.kill_and_restart();
    gost.reconnect_to(a.plugin);
    let gone = people.note();
    assert!(gone.starts_with("a is not heard any more (") && gone.ends_with("; waiting for it"), "{gone}");
    assert_eq!(people.note(), "a was started again");
    assert!(people.event().contains("missed"), "what the end of the agent changed, nobody told");
    gost.register("2", TUNNEL).await;
    assert!(people.event().ends_with(&told));

    let pid = people.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(people.ended().await, Some(0));
}

#[tokio::test]
async fn watching_ends_when_nobody_reads_any_more() {
    let a = Process::start("a", &[]);
    let mut command = asking(a.admin, &["watch"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let notes = lines(child.stderr.take().unwrap());
    assert!(note(&notes).starts_with("watching a"));
    drop(stdout);
    let mut watch = Watch { child, events: channel().1, notes };
    assert_eq!(watch.ended().await, Some(0), "without an event to print");
    assert!(watch.notes.recv().is_err(), "and without a word");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let a = Process::start("a", &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    // More than a pipe holds.
    for n in 0..1_000 {
        gost.register(&n.to_string(), &format!("{n:0>36}")).await;
    }
    for words in [&["services", "--limit", "1000"][..], &["services", "--limit", "1000", "--json"]] {
        let mut child = asking(a.admin, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "{words:?}");
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let a = Process::start("a", &[]);
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = asking(a.admin, &["status"]);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        ended(command.envs(variables.iter().copied())).0.contains('\u{1b}')
    };
    assert!(!coloured(&[]), "a pipe is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn without_an_agent_one_line_says_so_and_what_to_do() {
    let nobody = nobody();
    for words in VERBS {
        let (stdout, stderr, code) = ended(&mut asking(nobody, words));
        assert_eq!((&*stdout, code), ("", 1));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for text in [&*nobody.to_string(), "refused", "`systemctl status gossd`", "--admin"] {
            assert!(stderr.contains(text), "{words:?} tells {text}: {stderr}");
        }
    }
}

/// A server that gives everybody the same answer; also the first request that it gets.
fn stranger(answer: Vec<u8>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4_096];
            let len = stream.read(&mut request).expect("a request");
            let _ = told.send(String::from_utf8_lossy(&request[..len]).into_owned());
            let _ = stream.write_all(&answer);
        }
    });
    (address, requests)
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn a_stranger_is_recognized_in_one_line() {
    let agent = Process::start("a", &[]);
    let plugin = |words: &[&str]| ended(&mut asking(agent.plugin, words));
    for words in VERBS {
        let (stdout, stderr, code) = plugin(words);
        assert_eq!((&*stdout, code, stderr.lines().count()), ("", 1, 1), "{stderr}");
        assert!(stderr.contains("is not the admin listener") && stderr.contains("404"), "{stderr}");
    }
    let endless = [ok(&"x".repeat(65 << 20)), Vec::new()].concat();
    for (answer, why) in [
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "invalid HTTP"),
        (Vec::new(), "connection closed"),
        (ok("<html>"), "expected value at line 1"),
        (ok("{}"), "missing field `version`"),
        (
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "302 Found",
        ),
        (endless, "length limit exceeded"),
    ] {
        let (stdout, stderr, code) = ended(&mut asking(stranger(answer).0, &["status"]));
        assert_eq!((&*stdout, code, stderr.lines().count()), ("", 1, 1), "{stderr}");
        assert!(stderr.contains(why) && stderr.contains("--admin"), "{why}: {stderr}");
    }
}

#[test]
fn an_agent_is_asked_by_a_name_that_it_answers_to_and_through_no_proxy() {
    let (address, requests) = stranger(ok("{}"));
    let mut command = gossd();
    command.args(["status", "--admin", &format!("LOCALHOST:{}", address.port())]);
    command.env("http_proxy", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    ended(&mut command);
    let request = requests.recv_timeout(SOON).expect("a request").to_ascii_lowercase();
    assert!(request.starts_with("get /status.json http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: localhost\r\n"), "{request}");
}

#[test]
fn where_the_agent_is_may_be_a_variable_or_in_its_configuration_file() {
    let a = Process::start("a", &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gossd.toml");
    let status = |admin: &str| {
        std::fs::write(&file, format!("name = \"other\"\nlease-ttl = 30\nadmin = \"{admin}\"\n")).unwrap();
        let (stdout, stderr, code) = ended(gossd().arg("status").arg("--config").arg(&file));
        (stdout + &stderr, code)
    };
    let (text, code) = status(&a.admin.to_string());
    assert!(code == 0 && text.starts_with("a  gossd"), "{text}");
    let (text, code) = status(&format!("0.0.0.0:{}", a.admin.port()));
    assert!(code == 0 && text.starts_with("a  gossd"), "{text}");
    let (text, code) = status("none");
    assert!(code == 1 && text.contains("other.sock") && text.contains("with this --name"), "{text}");
    let (stdout, _, code) = ended(gossd().arg("status").env("GOSSD_ADMIN", a.admin.to_string()));
    assert!(code == 0 && stdout.starts_with("a  gossd"), "{stdout}");
    let (_, stderr, code) = ended(gossd().args(["status", "--admin", "nowhere"]));
    assert!(code == 2 && stderr.contains("host:port"), "{stderr}");
}

#[tokio::test]
async fn health_counts_one_record_as_one_and_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let a = Process::keeping("a", folder.path(), &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "t").await;
    let health = |flags: &[&str]| {
        let socket = folder.path().join("a.sock");
        ended(gossd().arg("healthcheck").arg("--control").arg(socket).args(flags)).0
    };
    let text = "serving 1 record, 1 of them registered here; 0 peers are heard";
    assert_eq!(health(&[]), format!("{text}\n"));
    let answer: Value = serde_json::from_str(&health(&["--json"])).unwrap();
    assert_eq!((&answer["done"], &answer["text"]), (&true.into(), &text.into()));
}

#[test]
fn what_changes_an_agent_can_be_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Process::keeping("a", folder.path(), &[]);
    let says = |words: &[&str]| {
        let mut command = gossd();
        command.args(words).arg("--control").arg(folder.path().join("a.sock"));
        let (stdout, stderr, code) = ended(&mut command);
        assert_eq!((&*stderr, code), ("", 0), "{words:?}");
        let done: Option<Value> = serde_json::from_str(&stdout).ok();
        (stdout, done.is_some_and(|answer| answer["done"] == true))
    };
    for words in [&["drain"][..], &["drain", "--undo"]] {
        let (text, json) = says(words);
        assert!(!json && text.lines().count() == 1, "{text}");
        assert!(says(&[words, &["--json"]].concat()).1);
    }
    assert!(says(&["leave", "--json"]).1);
    assert!(a.ended(SOON).0.success());
}

/// Where agents of this folder put their control sockets, as a user's runtime folder.
fn at_home<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    for variable in ["RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_STATE_HOME"] {
        command.env_remove(variable);
    }
    command.env("XDG_RUNTIME_DIR", folder).env("HOME", folder)
}

#[test]
fn the_only_agent_of_a_host_is_found_and_of_several_one_has_to_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = folder.path().join("gossd");
    std::fs::create_dir(&sockets).unwrap();
    let status = |words: &[&str]| ended(at_home(&mut gossd(), folder.path()).args(words));
    let a = Process::keeping("a", &sockets, &[]);
    let (stdout, stderr, code) = status(&["status"]);
    assert!(code == 0 && stdout.starts_with("a  gossd"), "{stdout}{stderr}");
    let mut b = Process::keeping("b", &sockets, &[]);
    for verb in [&["status"][..], &["drain"], &["keys", "list"], &["watch"]] {
        let (_, stderr, code) = status(verb);
        assert!(code == 1 && stderr.contains("the agents a, b run here: say which with --name"), "{stderr}");
    }
    let (stdout, stderr, code) = status(&["members", "--name", "b"]);
    assert!(code == 0 && stdout.contains("b (this)"), "{stdout}{stderr}");
    let (stdout, stderr, code) = status(&["drain", "--admin", &format!("http://{}/", a.admin)]);
    assert!(code == 0 && stdout.starts_with("draining"), "{stdout}{stderr}");
    let (stdout, ..) = status(&["status", "--name", "a"]);
    assert!(stdout.lines().next().unwrap().contains("  ready, draining  20"), "{stdout}");
    b.kill();
    let (stdout, stderr, code) = status(&["drain", "--undo"]);
    assert!(code == 0 && stdout.contains("not draining"), "what is left of b is no agent: {stdout}{stderr}");
}

#[test]
fn errors_are_json_for_programs_too() {
    let nobody = nobody();
    for (words, code) in [(&["status", "--json"][..], 1), (&["status", "--json", "--colour"], 2)] {
        let (stdout, stderr, ended) = ended(&mut asking(nobody, words));
        let error: Value = serde_json::from_str(&stderr).unwrap_or_else(|_| panic!("{stderr}"));
        assert!(stdout.is_empty() && ended == code && error["error"].is_string(), "{stderr}");
    }
    let (_, stderr, _) = ended(gossd().arg("run").env("GOSSD_MAX_RECORDS", "abc"));
    assert!(
        stderr.contains("the variable GOSSD_MAX_RECORDS") && !stderr.contains("--max-records"),
        "{stderr}"
    );
}

#[tokio::test]
async fn only_what_happens_to_one_thing_is_watched() {
    let a = Process::start("a", &["--ingress-rule", &format!("www.example.org={TUNNEL}")]);
    let watch = Watch::start(a.admin, &["www.example.org"]);
    watch.note();
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "other").await;
    gost.register("2", TUNNEL).await;
    assert!(watch.event().contains(TUNNEL));
}

#[tokio::test]
async fn what_went_within_the_hour_is_explained() {
    let a = Process::start("a", &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register(CONNECTOR, TUNNEL).await;
    gost.deregister(CONNECTOR, TUNNEL).await;
    let (stdout, _, code) = ended(&mut asking(a.admin, &["explain", TUNNEL]));
    assert!(
        code == 3 && stdout.starts_with("no record is known any more: the last one, at a, went 0 s ago"),
        "{stdout}"
    );
    assert!(stdout.contains(CONNECTOR) && stdout.contains("a let it go"), "{stdout}");
}

#[tokio::test]
async fn a_dead_agent_is_told_and_forgotten_everywhere_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, gossd().arg("keygen").output().unwrap().stdout).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let flags = ["--key-file", key.to_str().unwrap(), "--lease-ttl", "5"];
    let a = Process::keeping("a", folder.path(), &flags);
    let join = a.gossip.to_string();
    let joining = [&flags[..], &["--join", &join]].concat();
    let (mut b, c) =
        (Process::keeping("b", folder.path(), &joining), Process::keeping("c", folder.path(), &joining));
    let mut gost = FakeGost::start("n", b.plugin).await;
    gost.register(CONNECTOR, TUNNEL).await;
    for agent in [&a, &c] {
        until(agent, &["status"], "peers    2 alive").await;
        until(agent, &["status"], "records  1, 0 of them").await;
    }
    let control = folder.path().join("a.sock");
    let forget = || ended(gossd().args(["forget", "b"]).arg("--control").arg(&control));
    let (_, stderr, code) = forget();
    assert!(code == 1 && stderr.contains("b: it is heard"), "{stderr}");
    let watch = Watch::start(c.admin, &["b"]);
    watch.note();
    // The gost with it, or it would survive its agent.
    drop(gost);
    b.kill();
    until(&c, &["status"], "b is dead: 1 record is hidden").await;
    let members = printed(&c, &["members"]);
    assert!(
        members.lines().nth(1).unwrap().contains(&b.gossip.to_string()),
        "its address is known: {members}"
    );
    assert!(watch.event().contains("peer-suspect") && watch.event().contains("peer-dead"));
    let (stdout, stderr, code) = forget();
    assert!(code == 0 && stdout.starts_with("b is forgotten"), "{stdout}{stderr}");
    for agent in [&a, &c] {
        until(agent, &["status"], "records  0, 0 of them").await;
        until(agent, &["status"], "peers    1 alive").await;
    }
    let (keys, ..) = ended(gossd().args(["keys", "list"]).arg("--control").arg(&control));
    assert!(!keys.lines().any(|line| line.starts_with("b ")), "{keys}");
    assert!(c.said().contains("peer is dead"), "{}", c.said());
    b.restart();
    until(&a, &["status"], "peers    2 alive").await;
}

#[test]
fn another_host_joins_with_one_line_and_what_does_not_fit_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, gossd().arg("keygen").output().unwrap().stdout).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let a = Process::keeping("a", folder.path(), &["--key-file", key.to_str().unwrap(), "--cluster", "x"]);
    let control = folder.path().join("a.sock");
    let (line, stderr, code) = ended(gossd().arg("invite").arg("--control").arg(&control));
    assert!(code == 0 && line.starts_with("gossd-invite-1.") && line.lines().count() == 1, "{stderr}");
    assert!(stderr.contains("of this host only") && !a.said().contains(line.trim()), "{stderr}");
    let join = |name: &str, line: &str, to: &Path| {
        let file = folder.path().join("line");
        std::fs::write(&file, line).unwrap();
        ended(gossd().args(["join", "--name", name, "--dir"]).arg(to).arg(&file))
    };
    let (good, none) = (folder.path().join("good"), folder.path().join("none"));
    for (bad, why) in [
        ("", "there is nothing in it"),
        (&line[..line.len() - 9], "it was cut off or changed"),
        ("gossd-invite-9.AAAA", "another version of gossd"),
        ("s3cret", "it is no invite"),
    ] {
        let (stdout, stderr, code) = join("b", bad, &none);
        assert!(code == 1 && stdout.is_empty() && stderr.contains(why) && !none.exists(), "{stderr}");
        assert!(bad.is_empty() || !stderr.contains(bad), "a secret is never printed: {stderr}");
    }
    let (stdout, stderr, code) = ended(gossd().args(["join", "--dir"]).arg(&none).arg(line.trim()));
    assert!(code == 1 && stdout.is_empty() && stderr.contains("standard input"), "{stderr}");
    assert!(!stderr.contains(line.trim()), "a secret is never printed: {stderr}");
    let (stdout, stderr, code) = join("b", &line, &good);
    assert!(code == 0 && stderr.contains("the same key and cluster"), "{stdout}{stderr}");
    let toml = good.join("gossd.toml");
    assert!(stdout.ends_with(&format!("now:  gossd run --config {}\n", toml.display())), "{stdout}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&good.join("key")), std::fs::read(good.join("key")).unwrap().is_empty()),
        (0o600, false)
    );
    let before = std::fs::read_to_string(&toml).unwrap();
    let (_, stderr, code) = join("c", &line, &good);
    assert!(code == 1 && stderr.contains("this host is configured"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&toml).unwrap(), before);
    let socket = good.join("b.sock");
    let b = Process::start("b", &["--config", toml.to_str().unwrap(), "--control", socket.to_str().unwrap()]);
    let met = Instant::now();
    while !printed(&b, &["status"]).contains("peers    1 alive") {
        assert!(met.elapsed() < SOON, "{}", printed(&b, &["status"]));
    }
    drop(a);
    let (_, stderr, code) = join("d", &line, &none);
    assert!(code == 1 && stderr.contains("nothing has changed") && !none.exists(), "{stderr}");
}

#[test]
fn the_help_has_the_exit_codes() {
    let (help, _, _) = ended(gossd().arg("--help"));
    for told in [
        "0  done; of gossd check",
        "1  failed\n",
        "2  the command line, a variable or the configuration file is wrong\n",
        "3  nothing was found",
    ] {
        assert!(help.contains(told), "{help}");
    }
}

#[tokio::test]
async fn what_is_watched_is_printed_again_until_nobody_reads_it() {
    let agent = Process::start("a", &[]);
    for verb in ["status", "members"] {
        let mut child = gossd()
            .args([verb, "-w", "--json", "--admin", &agent.admin.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("gossd runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for _ in 0..3 {
            let line = lines.next().expect("one more").expect("text");
            assert!(line.starts_with('{') && line.contains(r#""name":"a""#), "{verb}: {line}");
        }
        drop(lines);
        let start = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "{verb} goes on although nobody reads it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
