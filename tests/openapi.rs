//! `docs/openapi.json`: it is what the program's own types say, and what a running agent answers.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::http::{call, request};
use crate::common::process::{Process, gossd, new_key};

const FILE: &str = "docs/openapi.json";

/// The schema of an answer, with all that it refers to; whatever it does not name is an error.
fn schema(openapi: &Value, schema: &Value) -> jsonschema::Validator {
    let mut whole = schema.clone();
    whole["components"] = openapi["components"].clone();
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    whole["unevaluatedProperties"] = json!(false);
    jsonschema::validator_for(&whole).expect("a schema")
}

fn answer<'a>(openapi: &'a Value, path: &str, method: &str, kind: &str) -> &'a Value {
    let found = &openapi["paths"][path][method]["responses"]["200"]["content"][kind]["schema"];
    assert!(found.is_object(), "{method} {path} is described");
    found
}

fn assert_valid(validator: &jsonschema::Validator, answer: &Value, what: &str) {
    let errors: Vec<String> =
        validator.iter_errors(answer).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {answer:#}");
}

#[test]
fn the_file_is_what_the_types_say() {
    let text = format!("{:#}\n", gossd::openapi());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("GOSSD_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &text).expect("it is written");
    }
    let kept = std::fs::read_to_string(&path).expect("the file is there");
    assert!(
        kept == text,
        "{FILE} is old: GOSSD_WRITE_OPENAPI=1 cargo test --features fuzz,schema --test it openapi"
    );
}

#[tokio::test]
async fn a_running_agent_answers_as_the_file_says() {
    let openapi = gossd::openapi();
    let a = Process::start("a", &[]);
    let b = Process::start("b", &["--join", &a.gossip.to_string()]);
    let tunnel = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    let record = json!({ "id": "c23d4f42-c892-42b3-8b74-88ab6455d33a", "name": tunnel, "node": "n", "network": "tcp", "address": ":8420" });
    let registered = call(a.plugin, &request("POST", "/sd", &record.to_string())).await;
    assert_eq!(registered.status(), 200);
    let rule = json!({ "host": "shop.example.org", "endpoint": tunnel });
    assert_eq!(call(a.plugin, &request("PUT", "/ingress", &rule.to_string())).await.status(), 200);
    let mut described = BTreeSet::new();
    for (path, item) in openapi["paths"].as_object().expect("paths") {
        described.insert(path.clone());
        let get = &item["get"];
        if get["tags"] != json!(["admin listener and control socket"]) {
            continue;
        }
        let Some(wanted) = get["responses"]["200"]["content"].get("application/json") else { continue };
        let queries: &[&str] = match &**path {
            "/explain.json" => &["?name=shop.example.org", "?name=nowhere.example.org"],
            "/services.json" => &["", "?search=shop&limit=1"],
            _ => &[""],
        };
        for query in queries {
            let asked = format!("{path}{query}");
            let answered = call(b.admin, &request("GET", &asked, "")).await;
            assert_eq!(answered.status(), 200, "{asked}");
            assert_valid(&schema(&openapi, &wanted["schema"]), &answered.json(), &asked);
        }
    }
    let nowhere = call(a.admin, &request("GET", "/nowhere", "")).await;
    let failure = &openapi["paths"]["/status.json"]["get"]["responses"]["default"]["content"]["application/json"]
        ["schema"];
    assert_valid(&schema(&openapi, failure), &nowhere.json(), "an error");
    let text = nowhere.json()["error"].as_str().expect("a text").to_owned();
    let (_, paths) = text.split_once("there are ").expect("it lists them");
    let (paths, _) = paths.split_once(';').expect("and ends");
    let served: BTreeSet<String> = paths.split(", ").map(str::to_owned).collect();
    assert_eq!(described, served, "each path is described");
}

/// What the verbs print with `--json`, of what the control socket alone answers.
#[tokio::test]
async fn verbs_print_the_same_json() {
    let openapi = gossd::openapi();
    let folder = tempfile::tempdir().expect("a folder");
    let _a = Process::keeping("a", folder.path(), &["--key-file", &new_key(folder.path())]);
    let control = folder.path().join("a.sock");
    for (verb, path, method) in [
        (&["status"][..], "/status.json", "get"),
        (&["services"], "/services.json", "get"),
        (&["hosts"], "/hosts.json", "get"),
        (&["matrix"], "/matrix.json", "get"),
        (&["keys", "list"], "/keys.json", "get"),
        (&["drain"], "/drain", "post"),
        (&["drain", "--undo"], "/undrain", "post"),
    ] {
        let output =
            gossd().args(verb).args(["--json", "--control"]).arg(&control).output().expect("gossd runs");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(said.ends_with('\n') && said.lines().count() == 1, "{verb:?} prints one line: {said}");
        let printed: Value = serde_json::from_str(&said).expect("JSON");
        assert_valid(
            &schema(&openapi, answer(&openapi, path, method, "application/json")),
            &printed,
            &format!("{verb:?}"),
        );
    }
}

#[test]
fn what_is_not_described_is_noticed() {
    let openapi = gossd::openapi();
    let validator = schema(&openapi, answer(&openapi, "/matrix.json", "get", "application/json"));
    let fine = json!({ "verdict": "x", "total": 0, "unreached": [] });
    assert!(validator.is_valid(&fine));
    for wrong in [
        json!({ "verdict": "x", "total": 0 }),
        json!({ "verdict": "x", "total": "0", "unreached": [] }),
        json!({ "verdict": "x", "total": 0, "unreached": [], "more": 1 }),
        json!({ "verdict": "x", "total": 1, "unreached": [{ "agent": "a" }] }),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}
