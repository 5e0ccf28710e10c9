//! gost's HTTP plugin calls on real sockets, as its client and the documentation's curl write them, and what either
//! would do with the answers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::common::http::{Answer, Connection, call, request};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::record::MAX_FIELD;
use serde_json::json;
use tokio::time::{sleep, timeout};

/// The longest body that is read.
const MAX_BODY: usize = 64 << 10;

/// gost's own calls, recorded: a bind, a Renew, a visitor at the other node, the client's end, a new bind.
/// Lines end in LF here; see [`on_the_wire`].
mod recorded {
    pub(super) const REGISTER: &str = r#"POST /sd HTTP/1.1
Host: 127.0.0.1:9301
User-Agent: Go-http-client/1.1
Content-Length: 181
Content-Type: application/json
Accept-Encoding: gzip

{"id":"3fc2da72-cc2a-400d-89f0-d7a000007f58","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"tcp","address":"127.0.0.11:8420"}"#;

    pub(super) const RENEW: &str = r#"PUT /sd HTTP/1.1
Host: 127.0.0.1:9301
User-Agent: Go-http-client/1.1
Content-Length: 163
Content-Type: application/json
Accept-Encoding: gzip

{"id":"3fc2da72-cc2a-400d-89f0-d7a000007f58","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"","address":""}"#;

    pub(super) const GET: &str = "GET /sd?name=4d21094e-b74c-4916-86c1-d9fa36ea677b&zone=b HTTP/1.1
Host: 127.0.0.1:9301
User-Agent: Go-http-client/1.1
Content-Type: application/json
Accept-Encoding: gzip

";

    pub(super) const DEREGISTER: &str = r#"DELETE /sd HTTP/1.1
Host: 127.0.0.1:9301
User-Agent: Go-http-client/1.1
Content-Length: 163
Content-Type: application/json
Accept-Encoding: gzip

{"id":"3fc2da72-cc2a-400d-89f0-d7a000007f58","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"","address":""}"#;

    pub(super) const REGISTER_AGAIN: &str = r#"POST /sd HTTP/1.1
Host: 127.0.0.1:9301
User-Agent: Go-http-client/1.1
Content-Length: 181
Content-Type: application/json
Accept-Encoding: gzip

{"id":"654f7e58-9abb-4915-a86a-d42d9a017c29","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"tcp","address":"127.0.0.11:8420"}"#;

    pub(super) const LISTED: &str = r#"{"services":[{"id":"3fc2da72-cc2a-400d-89f0-d7a000007f58","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"tcp","address":"127.0.0.1:8420"}]}"#;

    pub(super) const LISTED_AGAIN: &str = r#"{"services":[{"id":"654f7e58-9abb-4915-a86a-d42d9a017c29","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"e1342e00-b1d2-4ae1-ba9c-b026c0540cff","network":"tcp","address":"127.0.0.1:8420"}]}"#;
}

/// The documentation's examples, with line breaks inside the single quotes.
mod documented {
    pub(super) const REGISTER: &str = r#"{"id":"c23d4f42-c892-42b3-8b74-88ab6455d33a", 
"name":"c9ef8f8c-d687-4dca-be7a-1467b6565404", 
"node":"db670b91-61a5-4f7c-8014-3bbe994446ea",
"network":"tcp", 
"address":"10.42.0.100:80"}"#;

    /// Renew and Deregister.
    pub(super) const IDENTIFY: &str = r#"{"id":"c23d4f42-c892-42b3-8b74-88ab6455d33a", 
"name":"c9ef8f8c-d687-4dca-be7a-1467b6565404", 
"node":"db670b91-61a5-4f7c-8014-3bbe994446ea"}"#;

    pub(super) const TUNNEL: &str = "/sd?name=c9ef8f8c-d687-4dca-be7a-1467b6565404";

    pub(super) const LISTED: &str = r#"{"services":[{"id":"c23d4f42-c892-42b3-8b74-88ab6455d33a","name":"c9ef8f8c-d687-4dca-be7a-1467b6565404","node":"db670b91-61a5-4f7c-8014-3bbe994446ea","network":"tcp","address":"10.42.0.100:80"}]}"#;
}

const NONE: &str = r#"{"services":[]}"#;
/// A record that must be unchanged after each refused call.
const KEPT: &str = r#"{"id":"kept","name":"t","node":"n","network":"udp","address":"10.0.0.1:80"}"#;

fn loopback() -> Config {
    Config::loopback("a".parse().expect("a name"))
}

async fn agent() -> Daemon {
    start(loopback()).await
}

async fn start(config: Config) -> Daemon {
    Daemon::start(config).await.expect("the agent starts")
}

/// An agent that holds [`KEPT`] and nothing else.
async fn agent_with_a_record() -> Daemon {
    let agent = agent().await;
    assert_written(&call(agent.plugin, &request("POST", "/sd", KEPT)).await);
    agent
}

/// A recording as it was sent: the lines of the head end in CRLF.
fn on_the_wire(recording: &str) -> String {
    let (head, body) = recording.split_once("\n\n").expect("a head and a body");
    format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n"))
}

/// `curl -X METHOD -d BODY`, or without a body a plain `curl`.
fn curl(method: &str, target: &str, body: &str) -> String {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
    );
    if body.is_empty() {
        return head + "\r\n";
    }
    let len = body.len();
    format!("{head}Content-Length: {len}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{body}")
}

fn register(id: &str, name: &str, address: &str) -> String {
    let body = json!({"id": id, "name": name, "node": "n", "network": "tcp", "address": address});
    request("POST", "/sd", &body.to_string())
}

/// For gost only 200 is success, and it reuses its connection only if there is no body to read.
fn assert_written(answer: &Answer) {
    assert_eq!(answer.status_line, "HTTP/1.1 200 OK", "{answer:?}");
    assert_eq!(answer.header("content-length"), Some("0"));
    assert_stays_open(answer);
}

fn assert_listed(answer: &Answer, body: &str) {
    assert_eq!(answer.status_line, "HTTP/1.1 200 OK", "{answer:?}");
    assert_eq!(answer.body, body);
    assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_stays_open(answer);
}

fn assert_stays_open(answer: &Answer) {
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("connection"), None);
}

fn assert_refused(answer: &Answer, status: u16, texts: &[&str]) {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    let error = json["error"].as_str().unwrap_or_default();
    for text in texts {
        assert!(error.contains(text), "{text:?} is not in {error:?}");
    }
}

async fn assert_unchanged(agent: &Daemon, after: &str) {
    let answer = call(agent.plugin, &request("GET", "/sd?name=t", "")).await;
    assert_listed(&answer, &format!(r#"{{"services":[{KEPT}]}}"#));
    assert_eq!(agent.counts().records, 1, "after {after}");
    assert_eq!(agent.counts().own_records, 1, "after {after}");
}

async fn addresses(agent: &Daemon, name: &str) -> Vec<String> {
    let answer = call(agent.plugin, &request("GET", &format!("/sd?name={name}"), "")).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let services = answer.json()["services"].as_array().cloned().unwrap_or_default();
    services.iter().filter_map(|service| Some(service["address"].as_str()?.to_owned())).collect()
}

/// Registers an entrypoint. Returns the address that peers will dial.
async fn completed(agent: &Daemon, entrypoint: &str) -> String {
    // Nothing listens there, so the record is removed when its connection closes.
    let mut gost = Connection::open(agent.plugin).await;
    assert_written(&gost.call(&register(entrypoint, "t", entrypoint)).await);
    let listed = addresses(agent, "t").await.join(" ");
    let deregister = register(entrypoint, "t", "").replacen("POST", "DELETE", 1);
    assert_written(&gost.call(&deregister).await);
    listed
}

#[tokio::test]
async fn gosts_recorded_calls_are_answered_to_the_letter() {
    let agent = agent().await;
    let mut first = Connection::open(agent.plugin).await;
    assert_written(&first.call(&on_the_wire(recorded::REGISTER)).await);
    assert_written(&first.call(&on_the_wire(recorded::RENEW)).await);

    let get = on_the_wire(recorded::GET);
    let mut second = Connection::open(agent.plugin).await;
    assert_listed(&second.call(&get).await, recorded::LISTED);

    assert_written(&first.call(&on_the_wire(recorded::RENEW)).await);
    assert_listed(&second.call(&get).await, recorded::LISTED);
    assert_written(&first.call(&on_the_wire(recorded::DEREGISTER)).await);
    assert_listed(&second.call(&get).await, NONE);
    assert_written(&first.call(&on_the_wire(recorded::REGISTER_AGAIN)).await);
    assert_listed(&second.call(&get).await, recorded::LISTED_AGAIN);

    drop(first);
    assert_listed(&second.call(&get).await, recorded::LISTED_AGAIN);
}

#[tokio::test]
async fn an_unknown_tunnel_is_an_empty_list_and_never_null() {
    let agent = agent().await;
    assert_listed(&call(agent.plugin, &request("GET", "/sd?name=t", "")).await, NONE);
}

#[tokio::test]
async fn an_idle_connection_is_not_closed() {
    let agent = agent().await;
    let mut connection = Connection::open(agent.plugin).await;
    assert_written(&connection.call(&on_the_wire(recorded::REGISTER)).await);
    // The silence itself is tested: gost never repeats a write that went to a closed connection.
    sleep(Duration::from_secs(2)).await;
    assert_written(&connection.call(&on_the_wire(recorded::RENEW)).await);
    assert_eq!(agent.counts().own_records, 1);
}

#[tokio::test]
async fn a_deregister_that_overtakes_its_register_wins() {
    let agent = agent().await;
    assert_written(&call(agent.plugin, &on_the_wire(recorded::DEREGISTER)).await);
    assert_written(&call(agent.plugin, &on_the_wire(recorded::REGISTER)).await);
    assert_listed(&call(agent.plugin, &on_the_wire(recorded::GET)).await, NONE);
    assert_written(&call(agent.plugin, &on_the_wire(recorded::RENEW)).await);
    assert_listed(&call(agent.plugin, &on_the_wire(recorded::GET)).await, NONE);
}

#[tokio::test]
async fn the_documentations_curl_calls_work() {
    let agent = agent().await;
    let get = curl("GET", documented::TUNNEL, "");
    assert_written(&call(agent.plugin, &curl("POST", "/sd", documented::REGISTER)).await);
    assert_listed(&call(agent.plugin, &get).await, documented::LISTED);
    assert_written(&call(agent.plugin, &curl("PUT", "/sd", documented::IDENTIFY)).await);
    assert_listed(&call(agent.plugin, &get).await, documented::LISTED);
    assert_written(&call(agent.plugin, &curl("DELETE", "/sd", documented::IDENTIFY)).await);
    assert_listed(&call(agent.plugin, &get).await, NONE);
}

#[tokio::test]
async fn the_documentations_stray_backslashes_are_pointed_at() {
    let agent = agent().await;
    let get = curl("GET", documented::TUNNEL, "");
    let broken = |body: &str| body.replace(", \n", ", \\\n").replace(",\n", ", \\\n");
    let texts = ["line 1", "column 47", "backslash"];
    let answer = call(agent.plugin, &curl("POST", "/sd", &broken(documented::REGISTER))).await;
    assert_refused(&answer, 400, &texts);
    assert_listed(&call(agent.plugin, &get).await, NONE);

    assert_written(&call(agent.plugin, &curl("POST", "/sd", documented::REGISTER)).await);
    for method in ["PUT", "DELETE"] {
        let answer = call(agent.plugin, &curl(method, "/sd", &broken(documented::IDENTIFY))).await;
        assert_refused(&answer, 400, &texts);
        assert_listed(&call(agent.plugin, &get).await, documented::LISTED);
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_expected_json_changes_nothing() {
    let agent = agent_with_a_record().await;
    for (body, text) in [
        ("", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[]", "not a JSON object"),
        (r#"["i","t","n","tcp","10.0.0.2:80"]"#, "not a JSON object"),
        ("id=i&name=t&node=n", "not a JSON object"),
        ("{", "line 1"),
        (r#"{"id":"i","name":"t","node":"n","#, "line 1"),
        (r#"{"id":"i" "name":"t","node":"n"}"#, "column 11"),
        (r#"{"id":"i","name":"t","node":"n"} {}"#, "trailing"),
        (r#"{"id":7,"name":"t","node":"n"}"#, "string"),
        (r#"{"id":null,"name":"t","node":"n"}"#, "string"),
        (r#"{"id":"i","id":"kept","name":"t","node":"n"}"#, "duplicate"),
        (r#"{"id":"\ud800","name":"t","node":"n"}"#, "column"),
    ] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = call(agent.plugin, &request(method, "/sd", body)).await;
            assert_refused(&answer, 400, &[text]);
            assert_unchanged(&agent, body).await;
        }
    }
}

#[tokio::test]
async fn a_connector_without_id_name_or_node_changes_nothing() {
    let agent = agent_with_a_record().await;
    for (body, text) in [
        ("{}", "id is missing"),
        (r#"{"name":"t","node":"n","network":"tcp","address":":80"}"#, "id is missing"),
        (r#"{"id":"","name":"t","node":"n","network":"tcp","address":":80"}"#, "id is missing"),
        (r#"{"id":"kept","node":"n","network":"tcp","address":":80"}"#, "name is missing"),
        (r#"{"id":"kept","name":"","node":"n","network":"tcp","address":":80"}"#, "name is missing"),
        (r#"{"id":"kept","name":"t","network":"tcp","address":":80"}"#, "node is missing"),
        (r#"{"id":"kept","name":"t","node":"","network":"tcp","address":":80"}"#, "node is missing"),
    ] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = call(agent.plugin, &request(method, "/sd", body)).await;
            assert_refused(&answer, 400, &[text]);
            assert_unchanged(&agent, body).await;
        }
    }
}

#[tokio::test]
async fn a_register_that_nobody_could_dial_changes_nothing() {
    let agent = agent_with_a_record().await;
    for (network, address, text) in [
        ("sctp", "10.0.0.2:80", "network is neither tcp nor udp"),
        ("TCP", "10.0.0.2:80", "network is neither tcp nor udp"),
        ("tcp", "", "entrypoint"),
        ("tcp", "10.0.0.2", "address is not host:port"),
        ("tcp", "fd00::2:80", "brackets"),
        ("tcp", "10.0.0.2:", "address has a port"),
        ("tcp", "10.0.0.2:0", "port 0"),
        ("tcp", ":0", "port 0"),
        ("tcp", "10.0.0.2:70000", "from 1 to 65535"),
        ("tcp", "10.0.0.2:http", "from 1 to 65535"),
        ("tcp", "ho st:80", "address has a host"),
    ] {
        let body = json!({"id": "kept", "name": "t", "node": "n", "network": network, "address": address});
        let answer = call(agent.plugin, &request("POST", "/sd", &body.to_string())).await;
        assert_refused(&answer, 400, &[text]);
        assert_unchanged(&agent, address).await;
    }
}

#[tokio::test]
async fn a_field_that_is_too_long_or_has_control_characters_changes_nothing() {
    let agent = agent_with_a_record().await;
    let long = "x".repeat(MAX_FIELD + 1);
    for (value, text) in [
        (&*long, "is longer than 512 bytes"),
        ("a\0b", "contains a control character"),
        ("a\nb", "contains a control character"),
        ("a\u{85}b", "contains a control character"),
    ] {
        for field in ["id", "name", "node", "network", "address"] {
            let mut body: serde_json::Value = serde_json::from_str(KEPT).unwrap();
            body[field] = value.into();
            for method in ["POST", "PUT", "DELETE"] {
                let answer = call(agent.plugin, &request(method, "/sd", &body.to_string())).await;
                assert_refused(&answer, 400, &[field, text]);
                assert_unchanged(&agent, text).await;
            }
        }
    }
}

#[tokio::test]
async fn a_field_may_have_512_bytes() {
    let agent = agent().await;
    let id = "i".repeat(MAX_FIELD);
    let name = "ü".repeat(MAX_FIELD / 2);
    assert_written(&call(agent.plugin, &register(&id, &name, "10.0.0.2:80")).await);
    assert_eq!(addresses(&agent, &"%C3%BC".repeat(MAX_FIELD / 2)).await, ["10.0.0.2:80"]);
}

#[tokio::test]
async fn a_body_may_have_64_kib_and_no_more() {
    let agent = agent_with_a_record().await;
    let identify = r#"{"id":"new","name":"t","node":"n","network":"tcp","address":":80"}"#;
    let padded =
        |len: usize| request("POST", "/sd", &(identify.to_owned() + &" ".repeat(len - identify.len())));
    for len in [MAX_BODY + 1, 3 * MAX_BODY] {
        assert_refused(&call(agent.plugin, &padded(len)).await, 413, &["65536 bytes"]);
        assert_unchanged(&agent, "a body that is too long").await;
    }
    assert_written(&call(agent.plugin, &padded(MAX_BODY)).await);
    assert_eq!(agent.counts().records, 2);
}

#[tokio::test]
async fn a_chunked_body_is_bounded_as_well() {
    let agent = agent_with_a_record().await;
    let chunk = format!("{:x}\r\n{}\r\n", MAX_BODY, " ".repeat(MAX_BODY));
    let head = "POST /sd HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = call(agent.plugin, &format!("{head}{chunk}1\r\n \r\n0\r\n\r\n")).await;
    assert_refused(&answer, 413, &["65536 bytes"]);
    assert_unchanged(&agent, "a chunked body that is too long").await;
}

#[tokio::test]
async fn other_methods_are_told_which_ones_work() {
    let agent = agent_with_a_record().await;
    for method in ["PATCH", "OPTIONS", "TRACE", "get"] {
        let answer = call(agent.plugin, &request(method, "/sd", KEPT)).await;
        assert_refused(&answer, 405, &[method, "POST registers"]);
        assert_eq!(answer.header("allow"), Some("GET, POST, PUT, DELETE"));
        assert_unchanged(&agent, method).await;
    }
    let answer = call(agent.plugin, &request("HEAD", "/sd?name=t", "")).await;
    assert_eq!((answer.status(), answer.header("allow")), (405, Some("GET, POST, PUT, DELETE")));
    assert_unchanged(&agent, "HEAD").await;
}

#[tokio::test]
async fn other_paths_answer_where_the_plugin_is() {
    let agent = agent_with_a_record().await;
    let elsewhere = KEPT.replace("kept", "new");
    for path in ["/", "/sd/", "/sd/x", "//sd", "/SD", "/services?name=t", "/ingress/", "/Ingress"] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let answer = call(agent.plugin, &request(method, path, &elsewhere)).await;
            assert_refused(&answer, 404, &["the plugins are at /sd and /ingress"]);
            assert_unchanged(&agent, path).await;
        }
    }
}

#[tokio::test]
async fn a_host_without_a_rule_has_an_empty_endpoint_and_never_null() {
    let agent = agent().await;
    for target in [
        "/ingress?host=a.example.org&service=service-0",
        "/ingress?host=a.example.org%3A80&service=service-0",
        "/ingress?service=service-0&host=a.example.org",
    ] {
        let answer = call(agent.plugin, &request("GET", target, "")).await;
        assert_listed(&answer, r#"{"endpoint":""}"#);
    }
}

#[tokio::test]
async fn the_answer_to_a_rule_that_is_set_has_a_body() {
    let agent = agent().await;
    let body = r#"{"service":"service-0","host":"a.example.org","endpoint":"$4d21094e-b74c-4916-86c1-d9fa36ea677b"}"#;
    let answer = call(agent.plugin, &request("PUT", "/ingress", body)).await;
    let ok = answer.json()["ok"].as_bool();
    assert_listed(&answer, &format!(r#"{{"ok":{}}}"#, ok.expect("true or false")));
}

#[tokio::test]
async fn a_rule_that_is_no_json_is_refused_as_a_connector_is() {
    let agent = agent().await;
    for (body, text) in [
        ("", "not a JSON object"),
        ("null", "not a JSON object"),
        (r#"{"host":"a","#, "line 1"),
        (r#"{"host":7,"endpoint":""}"#, "string"),
        (r#"{"host":"a","endpoint":null}"#, "string"),
    ] {
        let answer = call(agent.plugin, &request("PUT", "/ingress", body)).await;
        assert_refused(&answer, 400, &[text]);
    }
    let long = " ".repeat(MAX_BODY + 1);
    assert_refused(&call(agent.plugin, &request("PUT", "/ingress", &long)).await, 413, &["65536 bytes"]);
    for method in ["POST", "DELETE", "PATCH"] {
        let answer = call(agent.plugin, &request(method, "/ingress", "")).await;
        assert_refused(&answer, 405, &[method, "PUT sets a rule"]);
        assert_eq!(answer.header("allow"), Some("GET, PUT"));
    }
}

#[tokio::test]
async fn a_renew_of_an_unknown_id_is_not_found() {
    let agent = agent_with_a_record().await;
    let unknown = KEPT.replace("kept", "new").replace(r#""node":"n""#, r#""node":"another""#);
    let answer = call(agent.plugin, &request("PUT", "/sd", &unknown)).await;
    assert_refused(&answer, 404, &["not registered"]);
    assert_unchanged(&agent, "a Renew").await;
}

#[tokio::test]
async fn a_get_needs_a_name_within_bounds() {
    let agent = agent_with_a_record().await;
    let long = format!("/sd?name={}", "x".repeat(MAX_FIELD + 1));
    for (target, text) in [
        ("/sd", "name is missing"),
        ("/sd?", "name is missing"),
        ("/sd?name", "name is missing"),
        ("/sd?name=", "name is missing"),
        ("/sd?Name=t&zone=b", "name is missing"),
        ("/sd?name=a%00b", "name contains a control character"),
        ("/sd?name=a%0Ab", "name contains a control character"),
        (&*long, "name is longer than 512 bytes"),
    ] {
        assert_refused(&call(agent.plugin, &request("GET", target, "")).await, 400, &[text]);
        assert_unchanged(&agent, target).await;
    }
}

#[tokio::test]
async fn a_router_hosts_name_survives_both_of_gosts_encodings() {
    let agent = agent().await;
    let router = "@b0e4f6f0-5ed7-4f9c-8d2f-0a4a1e6f8f11";
    for (n, (in_json, in_query)) in [
        ("", ""),
        ("host", "host"),
        ("two words", "two+words"),
        ("two words", "two%20words"),
        ("a+b", "a%2Bb"),
        ("a@b", "a%40b"),
        ("50%", "50%25"),
        (r"\u003ca\u0026b=\u003e#?/", "%3Ca%26b%3D%3E%23%3F%2F"),
        (r#"\"\\'"#, "%22%5C%27"),
        ("schöne Grüße", "sch%C3%B6ne+Gr%C3%BC%C3%9Fe"),
        ("雪😀", "%E9%9B%AA%F0%9F%98%80"),
        (r"\ud83d\ude00\u2028", "%F0%9F%98%80%E2%80%A8"),
        (r"\ufffd", "%FF"),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("10.0.0.2:{}", n + 1);
        let body = format!(
            r#"{{"id":"{n}","name":"{in_json}{router}","node":"n","network":"udp","address":"{address}"}}"#
        );
        assert_written(&call(agent.plugin, &request("POST", "/sd", &body)).await);
        let listed = addresses(&agent, &format!("{in_query}{}", router.replace('@', "%40"))).await;
        assert!(listed.contains(&address), "{in_query}: {listed:?}");
        assert_written(&call(agent.plugin, &request("DELETE", "/sd", &body)).await);
    }
}

#[tokio::test]
async fn an_address_nobody_else_can_dial_gets_the_advertised_host() {
    for (host, want) in
        [("10.9.8.7", "10.9.8.7"), ("2001:db8::7", "[2001:db8::7]"), ("localhost", "localhost")]
    {
        let advertise = Some(host.parse().unwrap());
        let agent = start(Config { advertise, ..loopback() }).await;
        for (entrypoint, port) in [
            (":8420", 8420),
            ("0.0.0.0:80", 80),
            ("[::]:80", 80),
            ("127.0.0.1:80", 80),
            ("[::1]:80", 80),
            ("localhost:80", 80),
        ] {
            assert_eq!(completed(&agent, entrypoint).await, format!("{want}:{port}"), "{entrypoint}");
        }
    }
}

#[tokio::test]
async fn without_an_advertised_host_the_gossips_address_is_used() {
    let agent = agent().await;
    for entrypoint in [":80", "0.0.0.0:80", "[::]:80", "127.0.0.1:80", "[::1]:80"] {
        assert_eq!(completed(&agent, entrypoint).await, "127.0.0.1:80", "{entrypoint}");
    }
}

#[tokio::test]
async fn an_address_that_others_can_dial_is_kept() {
    let advertise = Some("10.9.8.7".parse().unwrap());
    let agent = start(Config { advertise, ..loopback() }).await;
    for kept in ["gost-1.example.org:80", "gost_1:8420", "192.168.7.1:80", "[2001:db8::9]:80"] {
        assert_eq!(completed(&agent, kept).await, kept);
    }
}

#[tokio::test]
async fn a_caller_on_another_host_is_dialled_where_it_called_from() {
    let Some(ip) = own_address() else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let advertise = Some("10.9.8.7".parse().unwrap());
    let plugin = SocketAddr::new(ip, 0);
    let agent = start(Config { advertise, plugin: vec![plugin], insecure_plugin: true, ..loopback() }).await;
    assert_eq!(completed(&agent, ":8420").await, SocketAddr::new(ip, 8420).to_string());
    assert_eq!(completed(&agent, "gost-1.example.org:80").await, "gost-1.example.org:80");
}

/// An address of this machine that is not loopback. Connecting a UDP socket sends nothing.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn the_plugin_listens_on_ipv6_as_well() {
    let plugin: SocketAddr = "[::1]:0".parse().unwrap();
    if UdpSocket::bind(plugin).is_err() {
        eprintln!("SKIPPED: this machine has no IPv6 loopback");
        return;
    }
    let agent = start(Config { plugin: vec![plugin], ..loopback() }).await;
    assert!(agent.plugin.is_ipv6());
    let mut connection = Connection::open(agent.plugin).await;
    assert_written(&connection.call(&on_the_wire(recorded::REGISTER)).await);
    assert_listed(&connection.call(&on_the_wire(recorded::GET)).await, recorded::LISTED);
}

#[tokio::test]
async fn two_thousand_pipelined_gets_are_all_answered() {
    let agent = agent_with_a_record().await;
    let want = format!(r#"{{"services":[{KEPT}]}}"#);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        clients.spawn(pipelined(agent.plugin, 100));
    }
    let answers: Vec<Answer> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(answers.len(), 2_000);
    for answer in &answers {
        assert_listed(answer, &want);
    }
}

async fn pipelined(plugin: SocketAddr, calls: usize) -> Vec<Answer> {
    let mut connection = Connection::open(plugin).await;
    connection.send(&request("GET", "/sd?name=t", "").repeat(calls)).await;
    let mut answers = Vec::with_capacity(calls);
    for _ in 0..calls {
        answers.push(connection.receive().await);
    }
    answers
}

#[tokio::test]
async fn half_a_request_disturbs_nobody() {
    let agent = agent_with_a_record().await;
    let whole = on_the_wire(recorded::REGISTER);
    let mut halves = Vec::new();
    for len in [1, 40, whole.len() - 1].repeat(20) {
        let mut half = Connection::open(agent.plugin).await;
        half.send(&whole[..len]).await;
        halves.push((half, len));
    }
    assert_unchanged(&agent, "half a request").await;

    let (mut half, len) = halves.pop().unwrap();
    half.send(&whole[len..]).await;
    assert_written(&half.receive().await);
    assert_listed(&call(agent.plugin, &on_the_wire(recorded::GET)).await, recorded::LISTED);

    drop(halves);
    assert_listed(&call(agent.plugin, &on_the_wire(recorded::GET)).await, recorded::LISTED);
    assert_eq!(agent.counts().own_records, 2, "a request cut off changes nothing");
}

#[tokio::test]
async fn half_a_request_does_not_keep_the_agent_from_stopping() {
    let agent = agent().await;
    let mut half = Connection::open(agent.plugin).await;
    half.send("POST /sd HTTP/1.1\r\nContent-Le").await;
    assert!(timeout(Duration::from_secs(4), agent.stop()).await.is_ok());
}
