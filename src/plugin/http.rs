//! gost's HTTP plugin calls. The answers are exactly what gost's client needs: only 200 is success, the answer to a
//! write on `/sd` is empty so that Go reuses the connection, and a list or an endpoint is never `null`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, Serialize, Serializer};

use super::adapter::{Adapter, Unserved};
use super::{CallError, Caller, Plugin, Program};
use gossd_core::address::Address;
use gossd_core::label::Label;
use gossd_core::record::{Draft, Record};

/// Where the service discovery plugin is served.
pub const PATH: &str = "/sd";
/// Where the ingress plugin is served.
pub const INGRESS_PATH: &str = "/ingress";
/// Longest body: a hundred times gost's.
const MAX_BODY: usize = 64 << 10;
/// The beginning of the `User-Agent` of Go's client, which gost leaves as it is.
const GOST: &str = "Go-http-client/";
/// The scheme before a token.
const SCHEME: &[u8] = b"Bearer ";

/// The routes: calls on [`PATH`] and [`INGRESS_PATH`].
pub fn routes(plugin: Arc<Plugin>) -> Router {
    Router::new().route(PATH, any(sd)).route(INGRESS_PATH, any(ingress)).with_state(plugin)
}

/// The protocol.
pub(super) struct Http;

#[async_trait]
impl Adapter for Http {
    fn word(&self) -> &'static str {
        "http"
    }

    /// Every call: no other protocol has taken it.
    fn takes(&self, _: &HeaderMap) -> bool {
        true
    }

    async fn routes(&self, plugin: &Plugin) -> Router {
        routes(Arc::new(plugin.clone()))
    }

    fn verb(&self, method: &Method, path: &str) -> Option<&'static str> {
        Some(match (method.as_str(), path) {
            ("POST", PATH) => "register",
            ("PUT", PATH) => "renew",
            ("DELETE", PATH) => "deregister",
            ("GET", PATH) => "get",
            ("GET", INGRESS_PATH) => "get_rule",
            ("PUT", INGRESS_PATH) => "set_rule",
            _ => return None,
        })
    }

    fn outcome(&self, response: &Response) -> &'static str {
        match response.status() {
            status if status.is_success() => "ok",
            StatusCode::NOT_FOUND => "unknown",
            StatusCode::TOO_MANY_REQUESTS => "full",
            StatusCode::UNAUTHORIZED => "unauthenticated",
            StatusCode::REQUEST_TIMEOUT => "slow",
            _ => "refused",
        }
    }

    fn is_served(&self, response: &Response) -> bool {
        response.status().is_success()
    }

    fn turn_away(&self, why: Unserved<'_>) -> Response {
        match why {
            Unserved::Starting => {
                let text = "this agent is starting and has not read its journal yet";
                error(StatusCode::SERVICE_UNAVAILABLE, text.into())
            }
            // Closes the connection, so that the rest of the body is not waited for.
            Unserved::TooSlow => {
                let mut response =
                    error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".into());
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                response
            }
            Unserved::Elsewhere(uri) => {
                let path = uri.path();
                let text =
                    format!("nothing is served at {path}: the plugins are at {PATH} and {INGRESS_PATH}");
                error(StatusCode::NOT_FOUND, text)
            }
            // Closes the connection, so that the rest of the body is not waited for.
            Unserved::WebPage(forged) => {
                let mut response = error(StatusCode::FORBIDDEN, forged.text().into());
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                response
            }
        }
    }
}

/// Takes a request apart if its token is in force: `Authorization: Bearer TOKEN`. Otherwise returns the answer.
async fn admitted(plugin: &Plugin, request: Request) -> Result<(Parts, Body), Response> {
    let (head, body) = request.into_parts();
    match plugin.admit(bearer(&head.headers)) {
        Ok(()) => Ok((head, body)),
        Err(refusal) => {
            // Reads the body and drops it, so that gost can reuse its connection.
            drop(read(body).await);
            Err(refuse(&refusal))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

async fn sd(
    State(plugin): State<Arc<Plugin>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (head, body) = match admitted(&plugin, request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let sd = &plugin.sd;
    let by = Program::of(head.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes), GOST);
    match head.method {
        Method::GET => get(&plugin, caller, by, head.uri.query().unwrap_or_default()).await,
        Method::POST => write(body, |draft| sd.register(caller, by, draft)).await,
        Method::PUT => write(body, |draft| sd.renew(caller, draft)).await,
        Method::DELETE => write(body, |draft| sd.deregister(caller, draft)).await,
        other => {
            let meanings = "POST registers, PUT renews, DELETE deregisters, GET asks";
            not_allowed(&other, "GET, POST, PUT, DELETE", meanings)
        }
    }
}

async fn ingress(
    State(plugin): State<Arc<Plugin>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (head, body) = match admitted(&plugin, request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    match head.method {
        Method::GET => {
            let by = Program::of(head.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes), GOST);
            get_rule(&plugin, caller, by, head.uri.query().unwrap_or_default()).await
        }
        Method::PUT => set_rule(&plugin, bearer(&head.headers), body).await,
        other => not_allowed(&other, "GET, PUT", "PUT sets a rule, GET asks for one"),
    }
}

fn not_allowed(method: &Method, allowed: &'static str, meanings: &str) -> Response {
    let text = format!("{method} means nothing here: {meanings}");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A parameter of the query; a missing one is empty.
fn parameter<'a>(query: &'a str, key: &str) -> Cow<'a, str> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    parameters.find(|(name, _)| name == key).map_or(Cow::Borrowed(""), |(_, value)| value)
}

async fn get(plugin: &Plugin, caller: Caller, by: Program, query: &str) -> Response {
    match plugin.lookup(caller, by, &parameter(query, "name")).await {
        Ok(records) => {
            let services = records.iter().map(|record| ServiceJson::from(&**record)).collect();
            json(StatusCode::OK, &ServicesJson { services })
        }
        Err(refusal) => refuse(&refusal),
    }
}

async fn write(body: Body, act: impl FnOnce(Draft<'_>) -> Result<(), CallError>) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let fields: Fields<'_> = match parse(&body) {
        Ok(fields) => fields,
        Err(text) => return error(StatusCode::BAD_REQUEST, text),
    };
    match act(fields.draft()) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn get_rule(plugin: &Plugin, caller: Caller, by: Program, query: &str) -> Response {
    #[derive(Serialize)]
    struct EndpointJson {
        endpoint: String,
    }
    match plugin.lookup_rule(caller, by, &parameter(query, "host")).await {
        Ok(endpoint) => json(StatusCode::OK, &EndpointJson { endpoint }),
        Err(refusal) => refuse(&refusal),
    }
}

/// Unlike a write on [`PATH`], its answer has a body, which gost reads.
async fn set_rule(plugin: &Plugin, token: Option<&[u8]>, body: Body) -> Response {
    #[derive(Serialize)]
    struct Set {
        ok: bool,
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let rule: RuleFields<'_> = match parse(&body) {
        Ok(rule) => rule,
        Err(text) => return error(StatusCode::BAD_REQUEST, text),
    };
    match plugin.set_rule(token, &rule.host, &rule.endpoint) {
        Ok(ok) => json(StatusCode::OK, &Set { ok }),
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

/// The body of a write call. gost sends all five fields; the examples in its documentation leave some out.
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

/// The body of a `SetRule`, without the name of gost's service, which means nothing here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RuleFields<'a> {
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
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

/// The byte at a line and column of a `serde_json` error, both counted from 1.
fn offender(body: &[u8], line: usize, column: usize) -> Option<u8> {
    let line = body.split(|b| *b == b'\n').nth(line.checked_sub(1)?)?;
    line.get(column.checked_sub(1)?).copied()
}

#[derive(Serialize)]
struct ServicesJson<'a> {
    services: Vec<ServiceJson<'a>>,
}

#[derive(Serialize)]
struct ServiceJson<'a> {
    #[serde(serialize_with = "spelled")]
    id: &'a Label,
    #[serde(serialize_with = "spelled")]
    name: &'a Label,
    #[serde(serialize_with = "spelled")]
    node: &'a Label,
    network: &'a str,
    #[serde(serialize_with = "displayed")]
    address: &'a Address,
}

impl<'a> From<&'a Record> for ServiceJson<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { id, name, node, network, address } = record;
        Self { id, name, node, network: network.as_str(), address }
    }
}

/// As a whole: a formatter would give it in pieces, each looked through for what JSON escapes.
fn spelled<S: Serializer>(label: &Label, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&label.text())
}

fn displayed<S: Serializer>(text: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(text)
}

fn refuse(refusal: &CallError) -> Response {
    let status = match refusal {
        CallError::Field(_) => StatusCode::BAD_REQUEST,
        CallError::Unknown => StatusCode::NOT_FOUND,
        CallError::Full(_) => StatusCode::TOO_MANY_REQUESTS,
        CallError::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
    };
    let mut response = error(status, refusal.to_string());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
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
