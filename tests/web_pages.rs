//! Web pages that an operator, or gost's host, has open: what their browsers send is refused by the plugin and by the
//! operators' door, and what gost sends is not.

use std::path::Path;
use std::time::Duration;

use crate::common::eventually;
use crate::common::gost::{FakeGost, of_go};
use crate::common::http::{Answer, Connection, call, request};
use crate::common::process::{Process, gossd};
use crate::services::sd_client::SdClient;
use gossd::plugin::grpc::generated::GetServiceRequest;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;

const SOON: Duration = Duration::from_secs(10);
const TOKEN: &str = "0b7c1f0e5d7a4c9f8e21d3a6b5947c10";
const RECORD: &str = r#"{"id":"c1","name":"4d21094e-b74c-4916-86c1-d9fa36ea677b","node":"n","network":"tcp","address":"10.0.0.1:8420"}"#;

/// A request with other headers, for another host.
fn with(request: &str, host: &str, headers: &[&str]) -> String {
    let headers = headers.iter().fold(String::new(), |all, header| all + header + "\r\n");
    request.replacen("Host: 127.0.0.1:8000\r\n", &format!("Host: {host}\r\n{headers}"), 1)
}

/// The calls that change something.
fn changes() -> [String; 4] {
    let rule =
        r#"{"service":"s","host":"app.example.org","endpoint":"4d21094e-b74c-4916-86c1-d9fa36ea677b"}"#;
    [
        request("POST", "/sd", RECORD),
        request("PUT", "/sd", RECORD),
        request("DELETE", "/sd", RECORD),
        request("PUT", "/ingress", rule),
    ]
}

async fn metric(agent: &Process, line: &str) -> u64 {
    let text = call(agent.admin, &request("GET", "/metrics", "")).await.body;
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {line} in {text}"))
}

/// One line of JSON that says why.
fn assert_refused(answer: &Answer, part: &str) {
    assert_eq!(answer.status(), 403, "{answer:?}");
    let text = answer.json()["error"].as_str().expect("a text").to_owned();
    assert!(text.contains(part) && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_page_cannot_call_the_plugin_whatever_its_browser_sends() {
    let agent = Process::start("a", &[]);
    let own = agent.plugin.to_string();
    let browsers: [&[&str]; 7] = [
        // A form that is posted, as Chromium, Firefox and an older Safari send it.
        &["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
        &["Origin: null", "Content-Type: text/plain"],
        &["Origin: https://evil.example"],
        // A page that is rebound, and is of the same origin then.
        &["Sec-Fetch-Site: same-origin"],
        // An image; an address that somebody was made to paste.
        &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"],
        &["Sec-Fetch-Site: none"],
        &["sec-fetch-mode: no-cors"],
    ];
    for headers in browsers {
        for change in changes() {
            assert_refused(&call(agent.plugin, &with(&change, &own, headers)).await, "web pages are refused");
        }
        let get = with(&request("GET", "/sd?name=t", ""), &own, headers);
        assert_refused(&call(agent.plugin, &get).await, "web pages are refused");
    }
    let preflight = ["Origin: https://evil.example", "Access-Control-Request-Method: PUT"];
    let answer = call(agent.plugin, &with(&request("OPTIONS", "/sd", ""), &own, &preflight)).await;
    assert_refused(&answer, "web pages are refused");
    assert!(answer.header("access-control-allow-origin").is_none());

    assert!(agent.get("4d21094e-b74c-4916-86c1-d9fa36ea677b").await.is_empty(), "nothing was registered");
    assert_eq!(metric(&agent, "gossd_plugin_rejected_total{reason=\"web_page\"}").await, 36);
    eventually(SOON, "it is logged", || agent.said().contains("a web page tried to call the plugin")).await;
    assert_eq!(agent.said().matches("a web page tried").count(), 1, "once, with what can be done");
}

#[tokio::test]
async fn a_name_that_was_made_to_resolve_to_this_host_is_refused_and_gosts_names_are_not() {
    let agent = Process::start(
        "gost-1",
        &["--advertise-host", "gost-1.example.org", "--plugin-host", "gossd.example.net"],
    );
    let port = agent.plugin.port();
    for host in
        ["evil.example", "rebound.attacker.com", "127.0.0.1.nip.io", "gost-1.example.org.evil.example"]
    {
        for change in changes() {
            let answer = call(agent.plugin, &with(&change, &format!("{host}:{port}"), &[])).await;
            assert_refused(&answer, "--plugin-host");
        }
    }
    eventually(SOON, "it is logged", || agent.said().contains("set --plugin-host to that name")).await;
    assert_eq!(metric(&agent, "gossd_plugin_rejected_total{reason=\"host\"}").await, 16);
    // Also where a request line names the host, as proxies write it.
    let absolute = request("GET", "http://evil.example/sd?name=t", "");
    assert_refused(&call(agent.plugin, &absolute).await, "--plugin-host");

    for host in [
        "127.0.0.1",
        "[::1]",
        "192.0.2.7",
        "localhost",
        "gossd",
        "gossd-plugin",
        "gost-1.example.org",
        "gossd.example.net",
        "gossd.default.svc.cluster.local",
        "gossd.internal",
    ] {
        let get = with(&of_go("GET", "/sd?name=t", ""), &format!("{host}:{port}"), &[]);
        assert_eq!(call(agent.plugin, &get).await.status(), 200, "{host}");
    }
    // What Go sends for `http://:8000`.
    let nameless = with(&of_go("GET", "/sd?name=t", ""), &format!(":{port}"), &[]);
    assert_eq!(call(agent.plugin, &nameless).await.status(), 200);
    let mut gost = FakeGost::start("n", agent.plugin).await;
    gost.register("1", "t").await;
}

#[tokio::test]
async fn a_page_has_no_token_so_with_tokens_gost_may_use_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    crate::common::write_secret(&tokens, TOKEN);
    let agent = Process::start("a", &["--token-file", tokens.to_str().unwrap()]);
    let token = format!("Authorization: Bearer {TOKEN}");
    let get = |host: &str, headers: &[&str]| with(&of_go("GET", "/sd?name=t", ""), host, headers);
    assert_eq!(call(agent.plugin, &get("gossd.example.net:8000", &[&token])).await.status(), 200);
    assert_eq!(call(agent.plugin, &get("evil.example", &[])).await.status(), 401, "it asks for a token");
    let page = call(agent.plugin, &get("127.0.0.1", &[&token, "Origin: https://evil.example"])).await;
    assert_refused(&page, "web pages are refused");
}

#[tokio::test]
async fn grpc_calls_of_pages_and_for_foreign_names_are_refused_too() {
    let agent = Process::start("a", &[]);
    let client = async |host: &str| {
        let origin = format!("http://{host}:{}", agent.plugin.port()).parse().expect("a URI");
        let endpoint =
            Endpoint::from_shared(format!("http://{}", agent.plugin)).expect("an address").origin(origin);
        SdClient::new(endpoint.connect().await.expect("it listens"))
    };
    let get = || tonic::Request::new(GetServiceRequest { name: "t".into() });
    for host in ["127.0.0.1", "gossd", "localhost"] {
        assert!(client(host).await.get(get()).await.is_ok(), "{host}");
    }
    let status = client("evil.example").await.get(get()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("--plugin-host"), "{status}");
    let mut page = get();
    page.metadata_mut().insert("origin", MetadataValue::from_static("https://evil.example"));
    let status = client("127.0.0.1").await.get(page).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn the_operators_page_is_answered_and_pages_of_others_are_not() {
    let agent = Process::start("a", &[]);
    let own = agent.admin.to_string();
    let origin = format!("Origin: http://{own}");
    let own_page: [&[&str]; 4] = [
        &[],
        &["Sec-Fetch-Site: none"],
        &["Sec-Fetch-Site: same-origin"],
        &[&origin, "Sec-Fetch-Site: same-origin"],
    ];
    let others: [&[&str]; 5] = [
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
        &["Origin: https://evil.example"],
        &["Origin: null"],
        &["Origin: http://127.0.0.1:1"],
    ];
    for path in ["/", "/status.json", "/services.json", "/explain.json?name=t", "/matrix.json"] {
        let get = request("GET", path, "");
        for headers in own_page {
            assert_eq!(
                call(agent.admin, &with(&get, &own, headers)).await.status(),
                200,
                "{path} {headers:?}"
            );
        }
        for headers in others {
            assert_refused(&call(agent.admin, &with(&get, &own, headers)).await, "another site");
        }
        let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
        assert_eq!(call(agent.admin, &with(&get, &own, &link)).await.status(), 200, "a link leads to {path}");
    }
    assert_eq!(metric(&agent, "gossd_admin_rejected_total{reason=\"web_page\"}").await, 25);
    for path in ["/livez", "/readyz", "/metrics"] {
        let get = with(&request("GET", path, ""), "gossd.example.net", &[]);
        assert_eq!(call(agent.admin, &get).await.status(), 200, "{path} is for probes of any name");
    }
}

async fn by_socket(socket: &Path, request: &str) -> Answer {
    Connection::open_socket(socket).await.call(request).await
}

#[tokio::test]
async fn no_page_changes_the_agent_through_its_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::keeping("a", folder.path(), &[]);
    let socket = folder.path().join("a.sock");
    for path in ["/leave", "/drain", "/undrain", "/keys/add", "/take-over?name=a&version=0"] {
        for header in ["Origin: https://evil.example", "Sec-Fetch-Site: same-origin"] {
            let post = with(&request("POST", path, ""), "localhost", &[header]);
            assert_refused(&by_socket(&socket, &post).await, "verbs of gossd");
        }
    }
    let status = by_socket(&socket, &request("GET", "/status.json", "")).await;
    assert!(status.body.contains("\"state\":\"alive\""), "it goes on: {}", status.body);
    let left = gossd().args(["leave", "--control", socket.to_str().unwrap()]).status().unwrap();
    assert!(left.success() && agent.ended(SOON).0.success(), "the verb works");
}
