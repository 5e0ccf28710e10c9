//! The admin listener of real agents: status, readiness, metrics, explanations and events.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::gost::{FakeGost, hash_host};
use crate::common::http::{Answer, Connection, call, request};
use crate::common::process::{Process, gossd};
use crate::common::{client, nobody};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

async fn ask(agent: &Process, path: &str) -> (u16, String) {
    let client = client().build().expect("a client");
    let answer = client.get(format!("http://{}{path}", agent.admin)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

async fn told(agent: &Process, path: &str) -> Value {
    let (status, text) = ask(agent, path).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Asks until the answer holds.
async fn until(agent: &Process, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let answer = told(agent, path).await;
        if holds(&answer) {
            return answer;
        }
        assert!(start.elapsed() < SOON, "{what}: {answer:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn states(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    status["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| (text(&m["name"]), text(&m["state"])))
        .collect()
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}

#[tokio::test]
async fn the_status_shows_the_agent_and_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let a = Process::keeping("a", folder.path(), &[]);
    let mut b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "t").await;
    let all = |s: &Value| {
        let alive = states(s).iter().filter(|(_, state)| state == "alive").count();
        s["holds"]["records"] == 1 && alive == 2
    };
    let kept = |s: &Value| all(s) && s["journal"]["state"] == "kept";
    let status = until(&a, "/status.json", "both are alive", kept).await;
    assert_eq!(states(&status), [pair("a", "alive"), pair("b", "alive")]);
    assert_eq!(
        (&status["name"], &status["ready"], &status["problems"]),
        (&json!("a"), &json!(true), &json!([]))
    );
    assert_eq!(status["members"][1]["address"], b.gossip.to_string());
    assert!(status["members"][1]["rtt_ms"].as_f64().unwrap() > 0.0);
    let seen = until(&b, "/status.json", "it is known there", all).await;
    assert_eq!((&seen["holds"]["own_records"], &seen["members"][1]["records"]), (&json!(0), &json!(1)));
    assert_eq!(seen["journal"]["state"], "none");

    b.kill();
    let suspect = |s: &Value| states(s).contains(&pair("b", "suspect"));
    let status = until(&a, "/status.json", "the dead one is suspect", suspect).await;
    assert!(status["members"][1]["silent_seconds"].as_f64().unwrap() >= 2.0);
}

#[tokio::test]
async fn an_agent_is_ready_once_it_has_reached_a_peer_and_says_why_not() {
    let place = nobody();
    let a = Process::start("a", &["--join", &place.to_string()]);
    assert_eq!(ask(&a, "/livez").await, (200, "ok\n".into()));
    assert_eq!(ask(&a, "/readyz").await, (503, "no peer of --join is reached yet\n".into()));
    assert_eq!(told(&a, "/status.json").await["ready"], false);
    assert!(a.get("t").await.is_empty(), "plugin calls are answered meanwhile");
    let _b = Process::start("b", &["--gossip", &place.to_string()]);
    until(&a, "/status.json", "it is ready", |status| status["ready"] == true).await;
    assert_eq!(ask(&a, "/readyz").await.0, 200);
}

#[tokio::test]
async fn an_agent_without_the_journal_that_it_should_have_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let a = Process::start("a", &["--data-dir", file.join("sub").to_str().unwrap()]);
    let (status, text) = ask(&a, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.starts_with("the journal: "), "{text}");
    assert_eq!(told(&a, "/status.json").await["journal"]["state"], "failing");
}

#[tokio::test]
async fn a_tunnel_is_explained_record_by_record() {
    let folder = tempfile::tempdir().unwrap();
    let a = Process::keeping("a", folder.path(), &["--lease-ttl", "6"]);
    let join = a.gossip.to_string();
    let mut b = Process::start("b", &["--join", &join, "--lease-ttl", "6"]);
    let (mut here, mut there) =
        (FakeGost::start("na", a.plugin).await, FakeGost::start("nb", b.plugin).await);
    here.register("1", TUNNEL).await;
    there.register("2", TUNNEL).await;
    let path = format!("/explain.json?name={TUNNEL}");
    let ranks = |e: &Value| -> Vec<(String, Value)> {
        let all = e["candidates"].as_array().unwrap();
        all.iter().map(|c| (c["agent"].as_str().unwrap().to_owned(), c["rank"].clone())).collect()
    };
    let both = until(&a, &path, "both are listed", |e| ranks(e).len() == 2 && ranks(e)[1].1 == 2).await;
    assert_eq!(both["verdict"], "the tunnel has 2 records that are listed");
    let own = both["candidates"].as_array().unwrap().iter().find(|c| c["agent"] == "a").unwrap();
    assert_eq!((&own["id"], &own["node"], &own["network"]), (&json!("1"), &json!("na"), &json!("tcp")));
    assert!(own["lease"]["remaining_seconds"].as_f64().unwrap() <= 6.0);
    assert!(own["known_seconds"].as_f64().unwrap() >= 0.0);

    b.kill();
    let last = |e: &Value| e["candidates"][1]["state"] == "suspect";
    let explained = until(&a, &path, "the dead agent's record is last", last).await;
    assert_eq!(ranks(&explained)[1], ("b".into(), json!(2)));
    assert!(
        explained["candidates"][1]["why"].as_str().unwrap().starts_with("last: b has not been heard for")
    );
    here.renew("1", TUNNEL).await;
    let hidden = |e: &Value| e["candidates"][1]["rank"].is_null();
    let explained = until(&a, &path, "and hidden at the TTL", hidden).await;
    assert!(
        explained["candidates"][1]["why"]
            .as_str()
            .unwrap()
            .starts_with("hidden: b has given no sign of life")
    );
}

#[tokio::test]
async fn a_host_is_explained_by_the_rule_that_leads_to_its_tunnel() {
    let fixed = format!("fixed.example.com={TUNNEL}");
    let a = Process::start("a", &["--ingress-rule", &fixed]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.bind("1", TUNNEL, "shop.example.com").await;
    gost.register("1", TUNNEL).await;
    for (host, by) in [
        ("shop.example.com:443", "claimed"),
        ("fixed.example.com", "configured"),
        (&hash_host(TUNNEL), "hash"),
    ] {
        let explained = told(&a, &format!("/explain.json?name={host}")).await;
        assert_eq!(
            (&explained["host"]["by"], &explained["name"]),
            (&json!(by), &json!(TUNNEL)),
            "{explained:#}"
        );
        assert_eq!(explained["candidates"].as_array().unwrap().len(), 1);
    }
    let nothing = told(&a, "/explain.json?name=nobody.example.com").await;
    assert!(
        nothing["verdict"].as_str().unwrap().starts_with("no tunnel and no host of that name"),
        "{nothing:#}"
    );
    assert_eq!(ask(&a, "/explain.json").await.0, 400);
}

#[tokio::test]
async fn tunnels_are_found_by_a_part_of_their_id_and_counted_beyond_the_limit() {
    let a = Process::start("a", &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    for n in 0..5 {
        gost.register(&format!("{n}"), &format!("blue-{n}")).await;
    }
    gost.register("9", "red").await;
    let found = told(&a, "/services.json?search=blue&limit=2").await;
    assert_eq!(found["total"], 5);
    let line = json!({
        "name": "blue-0", "listed": 1, "eligible": 1, "hidden": 0, "agents": ["a"], "hosts": [], "names": 0, "private": false
    });
    assert_eq!((found["services"].as_array().unwrap().len(), &found["services"][0]), (2, &line));
    assert_eq!(told(&a, "/services.json").await["total"], 6);
}

/// An open event stream, line by line.
struct Stream {
    response: reqwest::Response,
    rest: String,
}

impl Stream {
    async fn open(admin: SocketAddr, last: Option<&str>) -> Self {
        let mut request = client().build().expect("a client").get(format!("http://{admin}/events"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        Self { response: request.send().await.expect("an answer"), rest: String::new() }
    }

    /// Its next event: id, name and data.
    async fn next(&mut self) -> (String, String, Value) {
        loop {
            if let Some((event, rest)) = self.rest.clone().split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = [field("id:"), field("event:"), field("data:")];
                let found = found.map(|field| field.map(str::to_owned));
                rest.clone_into(&mut self.rest);
                if let [Some(id), Some(name), Some(data)] = found {
                    return (id, name, serde_json::from_str(&data).expect("JSON"));
                }
                continue;
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk()).await.expect("an event in time");
            self.rest +=
                std::str::from_utf8(&chunk.expect("no error").expect("the stream goes on")).expect("text");
        }
    }
}

#[tokio::test]
async fn events_are_told_as_they_happen_and_again_to_whoever_was_away() {
    let a = Process::start("a", &[]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    let mut stream = Stream::open(a.admin, None).await;
    gost.register("1", "t").await;
    let (first, name, data) = stream.next().await;
    let record = json!({"event": "record-up", "name": "t", "id": "1", "address": gost.entrypoint.to_string(), "agent": "a"});
    let mut untimed = data.clone();
    let at = untimed.as_object_mut().and_then(|fields| fields.remove("at"));
    assert!(
        at.is_some_and(|at| at.as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z'))),
        "{data}"
    );
    assert_eq!((&*name, untimed), ("record-up", record));
    drop(stream);
    gost.deregister("1", "t").await;
    let mut b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let mut stream = Stream::open(a.admin, Some(&first)).await;
    assert_eq!(stream.next().await.1, "record-down");
    let (_, name, data) = stream.next().await;
    assert_eq!((&*name, &data["agent"]), ("peer-up", &json!("b")));
    b.kill();
    assert_eq!(stream.next().await.1, "peer-suspect");
    let mut stranger = Stream::open(a.admin, Some("1-7")).await;
    assert_eq!(stranger.next().await.1, "missed", "an id of another start");
}

/// The value of a metric's line.
fn value(text: &str, line: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test]
async fn metrics_count_calls_and_tell_how_late_changes_come() {
    let a = Process::start("a", &[]);
    let b = Process::start("b", &["--join", &a.gossip.to_string()]);
    until(&b, "/status.json", "they have met", |s| states(s).contains(&pair("a", "alive"))).await;
    until(&a, "/status.json", "they have met", |s| states(s).contains(&pair("b", "alive"))).await;
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "t").await;
    assert_eq!(gost.renew("1", "t").await, 200);
    assert_eq!(gost.renew("never", "t").await, 200, "healed from its sibling");
    until(&b, "/status.json", "it is known there", |s| s["holds"]["records"] == 2).await;
    let (_, text) = ask(&a, "/metrics").await;
    let calls = |verb: &str| {
        value(
            &text,
            &format!("gossd_plugin_call_seconds_count{{verb=\"{verb}\",protocol=\"http\",result=\"ok\"}}"),
        )
    };
    assert_eq!((calls("register"), calls("renew")), (Some(1.0), Some(2.0)), "{text}");
    assert_eq!(value(&text, "gossd_records{owner=\"self\"}"), Some(2.0));
    assert_eq!(value(&text, "gossd_heals_total{from=\"sibling\"}"), Some(1.0));
    assert_eq!(value(&text, "gossd_peers{state=\"alive\"}"), Some(1.0));
    assert!(text.contains("gossd_build_info{version=\""), "{text}");
    let (_, text) = ask(&b, "/metrics").await;
    assert_eq!(value(&text, "gossd_records{owner=\"peers\"}"), Some(2.0));
    assert!(value(&text, "gossd_propagation_seconds_count") >= Some(1.0), "{text}");
    let within = value(&text, "gossd_propagation_seconds_sum").unwrap();
    assert!(within > 0.0 && within < 5.0, "{within} s");
}

#[tokio::test]
async fn a_page_elsewhere_cannot_read_what_names_tunnels() {
    let a = Process::start("a", &[]);
    let by_name = async |path: &str| {
        let request = client().build().unwrap().get(format!("http://{}{path}", a.admin));
        request.header("Host", "rebound.example").send().await.unwrap().status().as_u16()
    };
    for path in ["/", "/status.json", "/services.json", "/explain.json?name=t", "/matrix.json", "/events"] {
        assert_eq!(by_name(path).await, 421, "{path}");
    }
    assert_eq!((by_name("/livez").await, by_name("/metrics").await), (200, 200), "probes ask by any name");
    assert_eq!(ask(&a, "/sd").await.0, 404);
}

async fn by_socket(socket: &Path, method: &str, path: &str) -> Answer {
    Connection::open_socket(socket).await.call(&request(method, path, "")).await
}

/// What only the control socket answers.
const BY_SOCKET: [(&str, &str); 8] = [
    ("GET", "/keys.json"),
    ("POST", "/keys/add"),
    ("POST", "/keys/use?id=01234567"),
    ("POST", "/keys/remove?id=01234567"),
    ("POST", "/leave"),
    ("POST", "/drain"),
    ("POST", "/undrain"),
    ("POST", "/take-over?name=a&version=0"),
];

#[tokio::test]
async fn the_control_socket_tells_all_that_the_listener_tells_and_alone_changes_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Process::keeping("a", folder.path(), &[]);
    let socket = folder.path().join("a.sock");
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("1", "t").await;
    for path in ["/", "/services.json", "/explain.json?name=t&limit=1", "/matrix.json", "/livez", "/readyz"] {
        let ask = request("GET", path, "");
        let both = [call(a.admin, &ask).await, by_socket(&socket, "GET", path).await];
        assert!(both.iter().all(|answer| answer.status() == 200), "{path}: {both:?}");
        if !path.starts_with("/explain") {
            assert_eq!(both[0].body, both[1].body, "{path}");
        }
    }
    assert_eq!(by_socket(&socket, "GET", "/status.json").await.json()["holds"]["records"], 1);
    assert!(by_socket(&socket, "GET", "/metrics").await.body.contains("gossd_build_info{version=\""));

    for (method, path) in BY_SOCKET {
        let answer = call(a.admin, &request(method, path, "")).await;
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status() == 403 && error.contains("control socket"), "{path}: {answer:?}");
    }
    let problems = |status: &Value| status["problems"].as_array().unwrap().len();
    assert_eq!(problems(&told(&a, "/status.json").await), 0, "and nothing was done");
    let answer = by_socket(&socket, "POST", "/drain").await.json();
    assert_eq!(answer["done"], true);
    assert!(answer["text"].as_str().unwrap().starts_with("draining:"), "{answer}");
    assert!(
        answer["text"].as_str().unwrap().ends_with("(no peer is heard that could acknowledge it)"),
        "{answer}"
    );
    assert_eq!(problems(&told(&a, "/status.json").await), 1);
    assert_eq!(by_socket(&socket, "POST", "/undrain").await.json()["done"], true);
    assert_eq!(by_socket(&socket, "POST", "/leave").await.json()["done"], true, "answered before the end");
    assert!(a.ended(SOON).0.success());
}

#[tokio::test]
async fn every_error_is_json_of_one_shape() {
    let folder = tempfile::tempdir().unwrap();
    let a = Process::keeping("a", folder.path(), &[]);
    let socket = folder.path().join("a.sock");
    let rebound = "GET /status.json HTTP/1.1\r\nHost: rebound.example\r\n\r\n";
    let mut answers = vec![(421, call(a.admin, rebound).await)];
    for (status, method, path) in [
        (404, "GET", "/sd"),
        (400, "GET", "/explain.json"),
        (400, "GET", "/services.json?limit=x"),
        (405, "POST", "/status.json"),
        (403, "POST", "/drain"),
    ] {
        answers.push((status, call(a.admin, &request(method, path, "")).await));
    }
    for (status, method, path) in [
        (404, "GET", "/sd"),
        (405, "GET", "/leave"),
        (400, "POST", "/keys/use"),
        (400, "POST", "/keys/use?id=x"),
        (409, "POST", "/keys/add"),
        (409, "GET", "/keys.json"),
        (409, "POST", "/take-over?name=b&version=0"),
        (426, "POST", "/take-over?name=a&version=0"),
    ] {
        answers.push((status, by_socket(&socket, method, path).await));
    }
    for (status, answer) in answers {
        assert_eq!(answer.status(), status, "{answer:?}");
        let error = answer.json();
        assert_eq!(error.as_object().unwrap().len(), 1, "{error}");
        assert!(!error["error"].as_str().unwrap().is_empty(), "{error}");
    }
    assert_eq!(told(&a, "/status.json").await["ready"], true, "the agent goes on");
}

#[tokio::test]
async fn an_admin_address_that_is_taken_ends_the_start_only_if_it_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().to_string();
    let flags = [
        "run",
        "--plugin",
        "127.0.0.1:0",
        "--gossip",
        "127.0.0.1:0",
        "--data-dir",
        "none",
        "--admin",
        &place,
    ];
    let ended = gossd().args(flags).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains(&format!("cannot serve --admin on {place}")), "{said}");
}
