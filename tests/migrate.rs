//! From gost's Redis plugins to an agent: a real redis-server, filled as those plugins fill it, and the part of gost's Web API
//! that a migration needs.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract;
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde_json::{Value, json};

use crate::common::gost::{FakeGost, hash_host};
use crate::common::process::{Process, gossd};
use crate::common::{eventually, nobody, write_secret};

const SOON: Duration = Duration::from_secs(20);
const ONE: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";
const TWO: &str = "550e8400-e29b-41d4-a716-446655440000";
const A: &str = "198.51.100.1";
const B: &str = "198.51.100.2";

/// A redis-server on a socket in a folder, without a port of its own; killed when dropped.
struct Redis {
    child: Child,
    socket: PathBuf,
    password: Option<String>,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    async fn start(folder: &Path, more: &[&str]) -> Self {
        let socket = folder.join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(folder)
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let password =
            more.iter().position(|flag| *flag == "--requirepass").map(|at| more[at + 1].to_owned());
        let redis = Self { child, socket, password };
        eventually(SOON, "Redis answers", || redis.try_cli(&["PING"]).as_deref() == Some("PONG")).await;
        redis
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn try_cli(&self, words: &[&str]) -> Option<String> {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(&self.socket);
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.args(words).output().expect("redis-cli is installed");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn cli(&self, words: &[&str]) -> String {
        self.try_cli(words).expect("it obeys")
    }

    /// As the plugin `sd` writes it.
    fn connector(&self, tunnel: &str, id: &str, node: &str, address: &str, age: u64) {
        let now: u64 = self.cli(&["TIME"]).lines().next().and_then(|now| now.parse().ok()).expect("seconds");
        let value =
            format!(r#"{{"Node":"{node}","Network":"tcp","Address":"{address}","Renew":{}}}"#, now - age);
        self.cli(&["HSET", tunnel, id, &value]);
        self.cli(&["EXPIRE", tunnel, &60_u64.saturating_sub(age).max(1).to_string()]);
    }

    /// As the plugin `ingress` writes it.
    fn host(&self, host: &str, endpoint: &str) {
        self.cli(&["SET", host, endpoint, "EX", "3600", "NX"]);
    }

    /// Two tunnels of two hosts, and what else is in such a database.
    fn fill(&self) {
        self.connector(ONE, "old", "gone", &format!("{A}:8420"), 200);
        self.connector(ONE, "one", "node-a", &format!("{A}:8420"), 3);
        self.connector(TWO, "two", "node-b", &format!("{B}:8420"), 3);
        self.host(&hash_host(ONE), ONE);
        self.host("shop.example.org", ONE);
        self.host("blog.example.org", TWO);
        self.host("bad.example.org", "nonsense");
        self.cli(&["SET", "session:1", "x"]);
        self.cli(&["RPUSH", "queue", "x"]);
    }
}

fn agent(folder: &Path, name: &str, host: &str, more: &[&str]) -> Process {
    Process::keeping(name, folder, &[&["--advertise-host", host][..], more].concat())
}

fn verb(folder: &Path, name: &str, words: &[&str]) -> Output {
    let control = folder.join(format!("{name}.sock"));
    gossd().args(words).arg("--control").arg(control).output().expect("gossd runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

fn states(report: &Value, of: &str) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let mut states: Vec<_> = report[of]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (word(&one["what"]), word(&one["state"])))
        .collect();
    states.sort();
    states
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    pairs.sort();
    pairs
}

#[tokio::test]
async fn what_redis_keeps_of_this_hosts_gosts_is_imported_and_all_else_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), &[]).await;
    redis.fill();
    let a = agent(folder.path(), "a", A, &[]);
    let mut gost = FakeGost::start("node-a", a.plugin).await;
    let import = |more: &[&str]| {
        let url = redis.url();
        verb(folder.path(), "a", &[&["import", &url][..], more].concat())
    };
    let dry = import(&["--dry-run", "--json"]);
    let would = report(&dry);
    assert_eq!(states(&would, "records"), pairs(&[("one", "taken"), ("two", "elsewhere")]), "{would:#}");
    assert_eq!(
        states(&would, "hosts"),
        pairs(&[("shop.example.org", "taken"), ("blog.example.org", "elsewhere"), (&hash_host(ONE), "held")])
    );
    // Whole seconds of two clocks.
    let expiry = would["expiry_seconds"].as_u64().expect("a number");
    assert!((58..=61).contains(&expiry) && would["other_keys"] == 2, "{would:#}");
    let bad: Vec<&str> = would["bad"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|bad| bad["key"].as_str().expect("text"))
        .collect();
    assert_eq!(bad, [&*format!("{ONE} old"), "bad.example.org"]);
    assert_eq!(a.get(ONE).await, Vec::<String>::new(), "nothing was taken");
    let done = text(&import(&[]));
    assert!(done.contains("1 record taken, 1 of other hosts\n1 host name taken"), "{done}");
    // Not as its gost, which asks for what it has lost.
    assert_eq!(a.get(ONE).await, [format!("{A}:8420")]);
    assert_eq!(gost.get_rule("shop.example.org").await, ONE);
    assert_eq!(states(&report(&import(&["--json"])), "records")[0].1, "held", "a second time, it is known");
    assert_eq!(gost.renew("one", ONE).await, 200);
    assert_eq!(states(&report(&import(&["--json"])), "records")[0].1, "renewed");
    // A loopback address may be any host's.
    redis.connector(ONE, "local", "node-a", "127.0.0.1:8420", 0);
    let local = |more: &[&str]| {
        let imported = report(&import(&[&["--json"][..], more].concat()));
        states(&imported, "records").into_iter().find(|(what, _)| what == "local").expect("it is there").1
    };
    assert_eq!(local(&[]), "elsewhere");
    assert_eq!(local(&["--address", "127.0.0.1:8420"]), "taken");
    let left = a.said();
    assert!(left.contains("told to import"), "{left}");
}

#[tokio::test]
async fn a_password_comes_from_a_file_or_a_variable_and_a_wrong_one_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), &["--requirepass", "open-sesame"]).await;
    redis.fill();
    let _a = agent(folder.path(), "a", A, &[]);
    let file = folder.path().join("password");
    write_secret(&file, "open-sesame\n");
    let url = redis.url();
    let import =
        |more: &[&str]| verb(folder.path(), "a", &[&["import", &url, "--dry-run"][..], more].concat());
    let with_file = import(&["--password-file", file.to_str().expect("text")]);
    assert!(with_file.status.success(), "{}", text(&with_file));
    let without = import(&[]);
    assert_eq!(without.status.code(), Some(1));
    assert!(
        text(&without).contains("cannot ask Redis") || text(&without).contains("Authentication required"),
        "{}",
        text(&without)
    );
    write_secret(&file, "wrong\n");
    let wrong = text(&import(&["--password-file", file.to_str().expect("text")]));
    assert!(wrong.contains("cannot ask Redis") && !wrong.contains("wrong-pass"), "{wrong}");
    let variable = gossd()
        .args(["import", &url, "--dry-run", "--control"])
        .arg(folder.path().join("a.sock"))
        .env("GOSSD_REDIS_PASSWORD", "open-sesame")
        .output()
        .expect("gossd runs");
    assert!(variable.status.success(), "{}", text(&variable));
}

#[tokio::test]
async fn redis_is_asked_over_tls_whose_certificate_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert"), folder.path().join("tls-key"));
    fs::write(&cert, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let [cert, key] = [&cert, &key].map(|path| path.to_str().expect("text"));
    let port = nobody().port();
    let tls = [
        "--tls-port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
    ];
    let redis = Redis::start(folder.path(), &[&tls[..], &["--tls-auth-clients", "no"]].concat()).await;
    redis.fill();
    let _a = agent(folder.path(), "a", A, &[]);
    let url = format!("rediss://localhost:{port}/0");
    let trusting = verb(folder.path(), "a", &["import", &url, "--ca-file", cert]);
    assert!(text(&trusting).contains("1 record taken"), "{}", text(&trusting));
    let unknown = verb(folder.path(), "a", &["import", &url]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("cannot ask Redis"), "{}", text(&unknown));
}

#[tokio::test]
async fn gosts_own_redis_source_of_host_names_is_read_as_gost_reads_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), &[]).await;
    redis.connector(ONE, "one", "node-a", &format!("{A}:8420"), 3);
    redis.cli(&["HSET", "gost", "own.example.org", ONE, "*.wild.example.org", ONE, "x", "no tunnel"]);
    redis.cli(&["SADD", "lines", &format!("set.example.org {ONE} # x"), "half", "# comment"]);
    let _a = agent(folder.path(), "a", A, &[]);
    for (key, rules) in
        [("gost", &["*.wild.example.org", "own.example.org"][..]), ("lines", &["set.example.org"])]
    {
        let imported = verb(folder.path(), "a", &["import", &redis.url(), "--rules-key", key, "--json"]);
        let found = report(&imported);
        let mut hosts: Vec<&str> = found["rules"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|rule| rule["host"].as_str().expect("text"))
            .collect();
        hosts.sort_unstable();
        assert_eq!(hosts, rules);
        assert_eq!(found["hosts"], json!([]), "an operator's rule is no client's claim");
    }
    let told = text(&verb(folder.path(), "a", &["import", &redis.url(), "--rules-key", "gost"]));
    assert!(told.contains(&format!("--ingress-rule 'own.example.org={ONE}'")), "{told}");
    let missing = verb(folder.path(), "a", &["import", &redis.url(), "--rules-key", "none"]);
    assert!(text(&missing).contains("there is no key \"none\""), "{}", text(&missing));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_gone_at_the_switch_is_named_and_nothing_is_switched() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), &[]).await;
    redis.connector(ONE, "one", "node-a", &format!("{A}:8420"), 3);
    redis.cli(&["HSET", "gost", "own.example.org", ONE]);
    let (api, at) = Api::start().await;
    let _a = agent(folder.path(), "a", A, &[]);
    let (url, gost_api) = (redis.url(), format!("http://{at}"));
    let migrate = |more: &[&str]| {
        let words = [&["migrate", &url, "--gost-api", &gost_api][..], more].concat();
        tokio::task::block_in_place(|| text(&verb(folder.path(), "a", &words)))
    };
    let rules = migrate(&["--rules-key", "gost"]);
    assert!(rules.contains("without an --ingress-rule here: rules: own.example.org"), "{rules}");
    let plugin = api.plugin("sds");
    api.0.lock().expect("a lock")["deaf"] = true.into();
    let deaf = migrate(&[]);
    assert!(deaf.contains("and does not have it") && deaf.contains("could not be switched"), "{deaf}");
    api.0.lock().expect("a lock")["deaf"] = false.into();
    // Redis is not asked any more whether gost renews here: it forgets.
    let unrenewed = migrate(&["--wait", "1"]);
    assert!(unrenewed.contains("not renewed here within 1 s: connectors: one"), "{unrenewed}");
    redis.cli(&["FLUSHALL"]);
    let back = migrate(&["--undo"]);
    assert!(back.contains("sd-0 calls 10.0.0.9:8000 again"), "{back}");
    assert_eq!(api.plugin("sds"), plugin);
    api.0.lock().expect("a lock")["ingresses"][0] =
        json!({"name": "ingress-0", "rules": [{"hostname": "x", "endpoint": ONE}]});
    let fixed = migrate(&[]);
    assert!(fixed.contains("would be gone: ingress-0") && fixed.contains("--ingress-rule"), "{fixed}");
    assert_eq!(api.plugin("sds"), plugin, "nothing was switched");
}

#[tokio::test]
async fn what_is_private_in_redis_is_private_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), &[]).await;
    redis.connector(ONE, "one", "node-a", &format!("{A}:8420"), 3);
    redis.host(&hash_host(ONE), &format!("${ONE}"));
    redis.connector(TWO, "huge", "node", &"x".repeat(5_000), 3);
    redis.cli(&[
        "HSET",
        TWO,
        "odd",
        r#"{"Node":"n","Network":"tcp","Address":"a:1","Renew":-9223372036854775808}"#,
    ]);
    let a = agent(folder.path(), "a", A, &[]);
    let imported = report(&verb(folder.path(), "a", &["import", &redis.url(), "--json"]));
    assert_eq!(states(&imported, "hosts"), pairs(&[(&hash_host(ONE), "taken")]), "{imported:#}");
    assert!(imported["bad"].to_string().contains("longer than what the plugin writes"), "{imported:#}");
    let mut gost = FakeGost::start("node-a", a.plugin).await;
    assert_eq!(gost.get_rule(&hash_host(ONE)).await, format!("${ONE}"));
}

/// The configuration that a gost's Web API tells and changes.
#[derive(Clone)]
struct Api(Arc<Mutex<Value>>);

/// A PUT of an entry.
async fn change(
    extract::State(api): extract::State<Api>,
    extract::Path((list, name)): extract::Path<(String, String)>,
    Json(entry): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut config = api.0.lock().expect("a lock");
    // As gost does with what it does not understand.
    if config["deaf"] == true {
        return (StatusCode::OK, Json(json!({"msg": "OK"})));
    }
    let entries = config[&*list].as_array_mut().expect("a list");
    match entries.iter_mut().find(|entry| entry["name"] == *name) {
        Some(found) => {
            *found = entry;
            (StatusCode::OK, Json(json!({"msg": "OK"})))
        }
        None => (StatusCode::BAD_REQUEST, Json(json!({"code": 40004, "msg": "object not found"}))),
    }
}

impl Api {
    async fn start() -> (Self, SocketAddr) {
        let plugin =
            |kind: &str| json!({"type": "grpc", "addr": format!("10.0.0.9:{kind}"), "token": "secret"});
        let metadata = json!({"sd": "sd-0", "ingress": "ingress-0", "entrypoint": ":8420"});
        let api = Self(Arc::new(Mutex::new(json!({
            "services": [{"name": "tunnel", "handler": {"type": "tunnel", "metadata": metadata}}],
            "sds": [{"name": "sd-0", "plugin": plugin("8000")}],
            "ingresses": [{"name": "ingress-0", "plugin": plugin("8001")}],
        }))));
        let told = get(async |extract::State(Api(config)): extract::State<Self>| {
            Json(config.lock().expect("a lock").clone())
        });
        let routes = Router::new()
            .route("/config", told)
            .route("/config/{list}/{name}", put(change))
            .with_state(api.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (api, at)
    }

    fn plugin(&self, list: &str) -> Value {
        self.0.lock().expect("a lock")[list][0]["plugin"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gost_is_switched_when_both_sides_agree_and_back_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), &[]).await;
    redis.fill();
    let (api, at) = Api::start().await;
    let (before_sd, before_ingress) = (api.plugin("sds"), api.plugin("ingresses"));
    let a = agent(folder.path(), "a", A, &[]);
    let b = agent(folder.path(), "b", B, &["--join", &a.gossip.to_string()]);
    let (url, gost_api) = (redis.url(), format!("http://{at}"));
    let migrate = |more: &[&str]| {
        verb(folder.path(), "a", &[&["migrate", &url, "--gost-api", &gost_api][..], more].concat())
    };
    let early = migrate(&[]);
    assert_eq!(early.status.code(), Some(1), "{}", text(&early));
    assert!(
        text(&early).contains(&format!("`gossd import` has to run at their hosts: tunnels: {TWO}")),
        "{}",
        text(&early)
    );
    assert_eq!(api.plugin("sds"), before_sd, "nothing was switched");
    let imported = verb(folder.path(), "b", &["import", &url]);
    assert!(imported.status.success(), "{}", text(&imported));
    let mut gost = FakeGost::start("node-a", a.plugin).await;
    eventually(SOON, "a knows b's tunnel", || {
        let told = verb(folder.path(), "a", &["get", TWO]);
        told.status.success()
    })
    .await;
    // This gost renews as soon as it calls the agent.
    let switched = api.clone();
    let renewing = tokio::spawn(async move {
        eventually(SOON, "gost is switched", || switched.plugin("ingresses")["type"] == "http").await;
        assert_eq!(gost.renew("one", ONE).await, 200);
        gost
    });
    let done = tokio::task::block_in_place(|| migrate(&[]));
    assert!(done.status.success(), "{}", text(&done));
    let said = text(&done);
    for part in [
        "sd-0 of service tunnel calls 10.0.0.9:8000",
        "agree: 2 tunnels",
        "have to follow within",
        "is renewed here: 1",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(api.plugin("sds"), json!({"type": "http", "addr": format!("http://{}/sd", a.plugin)}));
    assert_eq!(
        api.plugin("ingresses"),
        json!({"type": "http", "addr": format!("http://{}/ingress", a.plugin)})
    );
    let again = migrate(&[]);
    assert!(text(&again).contains("gost calls this agent already"), "{}", text(&again));
    let _gost = renewing.await.expect("gost lives");
    let undo = folder.path().join(format!("migrate-undo-{}.json", at.to_string().replace(':', "-")));
    let kept = fs::metadata(&undo).expect("it is kept");
    assert_eq!(kept.permissions().mode() & 0o777, 0o600, "it has the token of the former plugins");
    // Meanwhile, Redis has forgotten everything.
    redis.cli(&["FLUSHALL"]);
    let undone = migrate(&["--undo"]);
    assert!(undone.status.success(), "{}", text(&undone));
    assert_eq!((api.plugin("sds"), api.plugin("ingresses")), (before_sd, before_ingress));
    let value: Value = serde_json::from_str(&redis.cli(&["HGET", ONE, "one"])).expect("JSON");
    assert_eq!((&value["Node"], &value["Address"]), (&json!("node-a"), &json!(format!("{A}:8420"))));
    for (host, tunnel) in [("shop.example.org", ONE), (&*hash_host(ONE), ONE), ("blog.example.org", TWO)] {
        assert_eq!(redis.cli(&["GET", host]), tunnel, "{host}, of whatever host");
    }
    assert!(redis.cli(&["HGET", TWO, "two"]).contains(&format!("{B}:8420")), "for visitors of this host");
    let twice = migrate(&["--undo"]);
    assert!(text(&twice).contains("nothing to undo"), "{}", text(&twice));
    drop(b);
}
