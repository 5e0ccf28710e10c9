//! The description of the operators' paths, as `OpenAPI` 3.1 with JSON Schemas that are made of the reports' own types: so it
//! says what an agent answers. `docs/openapi.json` is this; a test keeps it so, and holds a running agent's answers against it.

use gossd_core::link::keys::KeyReport;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::report::{
    ConfigReport, DoneReport, ErrorReport, Explanation, HistoryReport, HostsReport, ImportOrder,
    ImportReport, InviteReport, KeyChange, MatrixReport, StatusReport, TimedEvent, TunnelsReport,
};

/// What a path takes and answers.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Of the query, each with its type.
    parameters: &'static [(&'static str, &'static str)],
    /// What is posted, if it is JSON.
    body: Option<fn(&mut SchemaGenerator) -> Schema>,
    answer: Answer,
    /// Whether only the control socket has it.
    is_by_socket: bool,
}

enum Answer {
    Json(fn(&mut SchemaGenerator) -> Schema),
    Text(&'static str),
    /// A `text/event-stream` whose data are JSON.
    Events(fn(&mut SchemaGenerator) -> Schema),
}

fn of<T: JsonSchema>() -> Answer {
    Answer::Json(SchemaGenerator::subschema_for::<T>)
}

fn read(path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    Operation { method: "get", path, summary, parameters: &[], body: None, answer, is_by_socket: false }
}

fn change(path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    Operation { method: "post", is_by_socket: true, ..read(path, summary, answer) }
}

fn operations() -> Vec<Operation> {
    const SEARCH: &[(&str, &str)] = &[("search", "string"), ("limit", "integer")];
    const KEY: &[(&str, &str)] = &[("id", "string"), ("force", "boolean")];
    vec![
        read("/", "The page", Answer::Text("text/html")),
        read("/status.json", "The agent and its peers", of::<StatusReport>()),
        Operation {
            parameters: &[
                ("search", "string"),
                ("limit", "integer"),
                ("agent", "string"),
                ("hidden", "boolean"),
                ("private", "boolean"),
                ("sort", "string"),
            ],
            ..read("/services.json", "Tunnels that are attached anywhere", of::<TunnelsReport>())
        },
        read("/history.json", "The last ten minutes", of::<HistoryReport>()),
        Operation {
            parameters: SEARCH,
            ..read("/hosts.json", "Host names that lead to tunnels", of::<HostsReport>())
        },
        Operation {
            parameters: &[("name", "string")],
            ..read("/explain.json", "Why a Get answers as it does", of::<Explanation>())
        },
        read("/matrix.json", "Which host cannot reach whose entrypoint", of::<MatrixReport>()),
        Operation {
            parameters: &[("recent", "integer")],
            ..read(
                "/events",
                "What happens, as server-sent events; goes on behind the header Last-Event-ID",
                Answer::Events(SchemaGenerator::subschema_for::<TimedEvent>),
            )
        },
        read("/livez", "Whether the process runs", Answer::Text("text/plain")),
        read("/readyz", "Whether it serves: 503, with the reasons, if not", Answer::Text("text/plain")),
        read(
            "/metrics",
            "Metrics, as OpenMetrics or classic Prometheus text by Accept",
            Answer::Text("text/plain"),
        ),
        Operation { is_by_socket: true, ..read("/keys.json", "Who has which keys", of::<KeyReport>()) },
        Operation { parameters: &[], ..change("/keys/add", "Adds the key in the body", of::<KeyChange>()) },
        Operation { parameters: KEY, ..change("/keys/use", "Seals with a key", of::<KeyChange>()) },
        Operation { parameters: KEY, ..change("/keys/remove", "Removes a key", of::<KeyChange>()) },
        Operation { is_by_socket: true, ..read("/config.json", "The flags in force", of::<ConfigReport>()) },
        Operation {
            is_by_socket: true,
            ..read(
                "/log",
                "The newest lines of the log, a JSON object each",
                Answer::Text("application/x-ndjson"),
            )
        },
        change("/invite", "How another host joins: a secret", of::<InviteReport>()),
        Operation {
            body: Some(SchemaGenerator::subschema_for::<ImportOrder>),
            ..change("/import", "Takes what another store kept of this host's gosts", of::<ImportReport>())
        },
        Operation {
            parameters: &[("name", "string")],
            ..change("/forget", "Forgets a dead agent", of::<DoneReport>())
        },
        change("/leave", "Says goodbye and stops", of::<DoneReport>()),
        change("/drain", "Hides this agent's records at its peers", of::<DoneReport>()),
        change("/undrain", "Shows them again", of::<DoneReport>()),
        Operation {
            parameters: &[("name", "string"), ("version", "string")],
            ..change(
                "/take-over",
                "Hands everything over to a successor, in a protocol of gossd's own",
                Answer::Text("application/octet-stream"),
            )
        },
    ]
}

/// See the module.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let failure = json!({
        "description": "Why not, for people",
        "content": { "application/json": { "schema": schemas.subschema_for::<ErrorReport>() } },
    });
    let mut paths = Map::new();
    for operation in operations() {
        let content = match operation.answer {
            Answer::Json(schema) => json!({ "application/json": { "schema": schema(&mut schemas) } }),
            Answer::Text(kind) => json!({ kind: { "schema": { "type": "string" } } }),
            // OpenAPI 3.1 has no word for a stream: this is the schema of each event's data.
            Answer::Events(schema) => json!({ "text/event-stream": { "schema": schema(&mut schemas) } }),
        };
        let parameters: Vec<Value> = operation
            .parameters
            .iter()
            .map(|(name, kind)| json!({ "name": name, "in": "query", "schema": { "type": kind } }))
            .collect();
        let by = if operation.is_by_socket { "control socket" } else { "admin listener and control socket" };
        let mut described = json!({
            "summary": operation.summary,
            "tags": [by],
            "parameters": parameters,
            "responses": { "200": { "description": "Done", "content": content }, "default": failure },
        });
        if let Some(body) = operation.body {
            let content = json!({ "application/json": { "schema": body(&mut schemas) } });
            described["requestBody"] = json!({ "required": true, "content": content });
        }
        paths.insert(operation.path.into(), json!({ operation.method: described }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gossd's paths for operators",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The admin listener (--admin) reads; the control socket (--control) reads and changes. Within one \
                            version 0.x, fields are added and none is renamed or removed.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}
