//! What operators give to Prometheus and Grafana: every query names a metric that an agent has, and the rules are ones that
//! Prometheus takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::Process;

const RULES: &str = include_str!("../examples/prometheus/gossd.rules.yml");
const DASHBOARD: &str = include_str!("../examples/grafana/gossd.json");

/// The names in a query that are metrics of an agent or of its process.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("gossd_") || word.starts_with("process_"))
}

/// Every text in a JSON value under a key.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| texts(value, key, found));
        }
        _ => {}
    }
}

/// The names of an agent's samples, and those that the documentation has for what comes only later.
async fn samples() -> BTreeSet<String> {
    let a = Process::start("a", &[]);
    let b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let mut gost = FakeGost::start("n", b.plugin).await;
    for n in 0..50 {
        gost.register(&format!("{n}"), &format!("t{n}")).await;
    }
    gost.get("t0").await;
    let mut found = BTreeSet::new();
    for _ in 0..200 {
        for agent in [&a, &b] {
            let text = call(agent.admin, &request("GET", "/metrics", "")).await.body;
            let names = text.lines().filter(|line| !line.starts_with('#'));
            found.extend(names.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned));
        }
        if found.contains("gossd_propagation_seconds_bucket") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    found
}

#[tokio::test]
async fn every_query_names_a_metric_that_an_agent_has() {
    let samples = samples().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let (mut queries, mut sources) = (Vec::new(), Vec::new());
    texts(&dashboard, "expr", &mut queries);
    texts(&dashboard, "query", &mut sources);
    queries.extend(sources.iter().filter(|query| query.contains("label_values")));
    let rules = RULES.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let all: Vec<&str> = queries.into_iter().chain(rules).collect();
    assert!(all.len() >= 20, "{all:?}");
    for query in all {
        for name in metrics(query) {
            assert!(samples.contains(name), "{name} in {query} is no metric of {samples:?}");
        }
    }
}

/// Every page of the manual, in either language, but for changes of the past.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.to_owned(), root.join("docs"), root.join("docs/zh-CN")];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder")).flatten();
    let pages =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    let pages = pages.filter(|path| !path.ends_with("CHANGELOG.md"));
    pages.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).expect("a page"))).collect()
}

#[tokio::test]
async fn every_metric_in_the_manual_is_one_that_a_scrape_has() {
    let a = Process::start("a", &[]);
    let text = call(a.admin, &request("GET", "/metrics", "")).await.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let known: BTreeSet<&str> = types.collect();
    let mut found = BTreeSet::new();
    let pages = pages();
    for (page, text) in &pages {
        // A crate of this project, and no metric.
        for name in metrics(text).filter(|name| *name != "gossd_core" && !name.ends_with('_')) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            assert!(
                known.contains(name) || base.is_some_and(|base| known.contains(base)),
                "{name} in {page}"
            );
            found.insert(name);
        }
    }
    assert!(found.len() > 40, "{found:?}");
}

#[tokio::test]
async fn a_reader_gets_the_format_that_it_takes() {
    let a = Process::start("a", &[]);
    let get = request("GET", "/metrics", "");
    let classic = call(a.admin, &get).await;
    assert!(classic.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    assert!(classic.body.contains("# TYPE gossd_lapses_total counter\n") && !classic.body.contains("# EOF"));
    assert!(
        classic.body.contains("process_resident_memory_bytes ")
            && classic.body.contains("process_cpu_seconds_total ")
    );
    let open = get.replacen("\r\nHost", "\r\nAccept: application/openmetrics-text; version=1.0.0\r\nHost", 1);
    let open = call(a.admin, &open).await;
    assert!(open.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(open.body.contains("# TYPE gossd_lapses counter\n") && open.body.ends_with("# EOF\n"));
}

/// Prometheus' own tool, from Debian's package prometheus, if it is there.
#[test]
fn prometheus_takes_the_rules() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus/gossd.rules.yml");
    match Command::new("promtool").args(["check", "rules"]).arg(&rules).output() {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr)),
        Err(_) => assert!(RULES.matches("runbook: ").count() == RULES.matches("- alert: ").count()),
    }
}

/// A scraper on another host gets the metrics without a token, and nothing that names a tunnel.
#[tokio::test]
async fn metrics_may_have_an_address_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let a = Process::keeping("a", folder.path(), &["--metrics", "127.0.0.1:0"]);
    let metrics = a.metrics.expect("it says where");
    assert_ne!(metrics, a.admin);
    assert!(call(metrics, &request("GET", "/metrics", "")).await.body.contains("\ngossd_records{"));
    for probe in ["/readyz", "/livez"] {
        assert_eq!(call(metrics, &request("GET", probe, "")).await.status(), 200, "{probe}");
    }
    for path in [
        "/",
        "/status.json",
        "/services.json",
        "/events",
        "/explain.json?name=x",
        "/keys.json",
        "/log",
        "/nothing",
    ] {
        let answer = call(metrics, &request("GET", path, "")).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert!(answer.body.contains("there are /livez, /readyz, /metrics; "), "{path}: {}", answer.body);
    }
    assert_eq!(call(metrics, &request("POST", "/leave", "")).await.status(), 404);
    // Whatever takes over from the agent has the listener.
    let b = a.successor(&[("--metrics", &metrics.to_string())]);
    assert_eq!(b.metrics, Some(metrics));
    assert!(call(metrics, &request("GET", "/metrics", "")).await.body.contains("gossd_build_info"));
}
