//! gost's HTTP plugin calls on `/sd`, to the letter of what its client does with the answers: success is
//! exactly 200, a write's answer is empty so that Go keeps the connection, and a list is never `null`.

use std::borrow::Cow;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Caller, Refusal, ServiceDiscovery};
use crate::domain::connection::ConnectionId;
use crate::domain::record::{Draft, Record};

/// Where the service discovery plugin is served.
pub const PATH: &str = "/sd";
/// Longest body: a hundred times gost's.
const MAX_BODY: usize = 64 << 10;
/// How long calls in flight may take to finish when the agent stops.
const DRAIN: Duration = Duration::from_millis(1_500);

/// Serves until `stop` resolves, then finishes what is in flight. No error of a connection ends it.
pub async fn serve(listener: TcpListener, sd: ServiceDiscovery, stop: impl Future<Output = ()>) {
    let app = Router::new().route(PATH, any(call)).fallback(unknown_path).with_state(sd.clone());
    let server = auto::Builder::new(TokioExecutor::new()).http1_only();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut last_connection: ConnectionId = 0;
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Out of file descriptors, mostly: it passes, but not at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        last_connection += 1;
        let caller = Caller::at(from.ip(), last_connection);
        let service = TowerToHyperService::new(app.clone().layer(Extension(caller)));
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        // Its errors are the peer's: a reset, a broken request. hyper has answered what could be answered.
        connections.spawn({
            let watched = graceful.watch(connection);
            let sd = sd.clone();
            async move {
                drop(watched.await);
                sd.connection_closed(caller.connection);
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

async fn call(
    State(sd): State<ServiceDiscovery>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    match head.method {
        Method::GET => get(&sd, head.uri.query().unwrap_or_default()),
        Method::POST => write(body, |draft| sd.register(caller, draft)).await,
        Method::PUT => write(body, |draft| sd.renew(caller, draft)).await,
        Method::DELETE => write(body, |draft| sd.deregister(caller, draft)).await,
        other => {
            let text = format!(
                "{other} means nothing here: POST registers, PUT renews, DELETE deregisters, GET asks"
            );
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, text);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, PUT, DELETE"));
            response
        }
    }
}

async fn unknown_path(request: Request) -> Response {
    error(
        StatusCode::NOT_FOUND,
        format!("nothing is served at {}: the plugin is at {PATH}", request.uri().path()),
    )
}

fn get(sd: &ServiceDiscovery, query: &str) -> Response {
    let name = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "name");
    match sd.get(&name.map_or(Cow::Borrowed(""), |(_, name)| name)) {
        Ok(records) => {
            let services = records.iter().map(|record| Service::from(&**record)).collect();
            json(StatusCode::OK, &Services { services })
        }
        Err(refusal) => refuse(&refusal),
    }
}

async fn write(body: Body, act: impl FnOnce(Draft<'_>) -> Result<(), Refusal>) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let fields = match parse(&body) {
        Ok(fields) => fields,
        Err(text) => return error(StatusCode::BAD_REQUEST, text),
    };
    match act(fields.draft()) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn read(body: Body) -> Result<Bytes, Response> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => {
            Err(error(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {MAX_BODY} bytes")))
        }
        Err(_) => Err(error(StatusCode::BAD_REQUEST, "the body ended early".into())),
    }
}

/// The body of a write call. gost sends all five; the documentation's examples leave some out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow)]
    network: Cow<'a, str>,
    #[serde(borrow)]
    address: Cow<'a, str>,
}

impl Fields<'_> {
    fn draft(&self) -> Draft<'_> {
        let Self { id, name, node, network, address } = self;
        Draft { id, name, node, network, address }
    }
}

fn parse(body: &[u8]) -> Result<Fields<'_>, String> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("the body is not a JSON object".into());
    }
    serde_json::from_slice(body).map_err(|e| {
        let hint = if offender(body, e.line(), e.column()) == Some(b'\\') {
            ": a stray backslash; inside single quotes the shell keeps it, so leave it out"
        } else {
            ""
        };
        format!("the body is not the expected JSON: {e}{hint}")
    })
}

/// The byte at a line and column as `serde_json` counts them: both from 1.
fn offender(body: &[u8], line: usize, column: usize) -> Option<u8> {
    let line = body.split(|b| *b == b'\n').nth(line.checked_sub(1)?)?;
    line.get(column.checked_sub(1)?).copied()
}

#[derive(Serialize)]
struct Services<'a> {
    services: Vec<Service<'a>>,
}

#[derive(Serialize)]
struct Service<'a> {
    id: &'a str,
    name: &'a str,
    node: &'a str,
    network: &'a str,
    address: &'a str,
}

impl<'a> From<&'a Record> for Service<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { id, name, node, network, address } = record;
        Self { id, name, node, network: network.as_str(), address }
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Field(_) => StatusCode::BAD_REQUEST,
        Refusal::Unknown => StatusCode::NOT_FOUND,
        Refusal::Full(_) => StatusCode::TOO_MANY_REQUESTS,
    };
    error(status, refusal.to_string())
}

fn error(status: StatusCode, error: String) -> Response {
    #[derive(Serialize)]
    struct Error {
        error: String,
    }
    json(status, &Error { error })
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // Strings and lists of strings always serialize.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
