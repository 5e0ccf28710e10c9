//! gost's HTTP plugin calls. The answers are exactly what gost's client needs: only 200 is success, the answer to a
//! write on `/sd` is empty so that Go reuses the connection, and a list or an endpoint is never `null`.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};

use super::adapter::{Adapter, Unserved};
use super::call::{Call, Outcome, Reply, Verb};
use super::content::{Answer, Content, MAX_MESSAGE};
use super::{CallError, Program};
use gossd_core::record::Record;

/// Where the service discovery plugin is served.
pub const PATH: &str = "/sd";
/// Where the ingress plugin is served.
pub const INGRESS_PATH: &str = "/ingress";
/// The beginning of the `User-Agent` of Go's client, which gost leaves as it is.
const GOST: &str = "Go-http-client/";
/// The scheme before a token.
const SCHEME: &[u8] = b"Bearer ";

/// The protocol.
pub(super) struct Http;

impl Adapter for Http {
    fn word(&self) -> &'static str {
        "http"
    }

    /// Every call: no other protocol has taken it.
    fn takes(&self, _: &HeaderMap) -> bool {
        true
    }

    fn max_body(&self) -> usize {
        MAX_MESSAGE
    }

    fn verb(&self, method: &Method, path: &str) -> Option<Verb> {
        Some(match (method.as_str(), path) {
            ("POST", PATH) => Verb::Register,
            ("PUT", PATH) => Verb::Renew,
            ("DELETE", PATH) => Verb::Deregister,
            ("GET", PATH) => Verb::Get,
            ("GET", INGRESS_PATH) => Verb::GetRule,
            ("PUT", INGRESS_PATH) => Verb::SetRule,
            (_, PATH | INGRESS_PATH) => Verb::Other,
            _ => return None,
        })
    }

    /// `Authorization: Bearer TOKEN`.
    fn token<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
    }

    fn program(&self, headers: &HeaderMap) -> Program {
        Program::of(headers.get(header::USER_AGENT).map(HeaderValue::as_bytes), GOST)
    }

    fn call<'a>(&self, verb: Verb, head: &'a Parts, body: &'a [u8]) -> Result<Call<'a>, Unserved> {
        let query = head.uri.query().unwrap_or_default();
        Ok(match verb {
            Verb::Register => Call::Register(parse(body)?),
            Verb::Renew => Call::Renew(parse(body)?),
            Verb::Deregister => Call::Deregister(parse(body)?),
            Verb::Get => Call::Get(parameter(query, "name")?),
            Verb::GetRule => Call::GetRule(parameter(query, "host")?),
            Verb::SetRule => Call::SetRule(parse(body)?),
            Verb::Other => return Err(Unserved::Elsewhere(head.method.clone(), head.uri.clone())),
        })
    }

    /// Unlike that to another write, the answer to a `SetRule` has a body, which gost reads.
    fn answer(&self, answered: &Result<Reply, CallError>) -> Answer {
        #[derive(Serialize)]
        struct EndpointJson<'a> {
            endpoint: &'a str,
        }
        #[derive(Serialize)]
        struct Set {
            ok: bool,
        }
        match answered {
            Ok(Reply::Done) => Answer::default(),
            Ok(Reply::Records(records)) => written(StatusCode::OK, services(records)),
            Ok(Reply::Endpoint(endpoint)) => json(StatusCode::OK, &EndpointJson { endpoint }),
            Ok(Reply::IsSet(ok)) => json(StatusCode::OK, &Set { ok: *ok }),
            Err(refusal) => refuse(refusal),
        }
    }

    fn outcome(&self, response: &Answer) -> Outcome {
        match response.status() {
            status if status.is_success() => Outcome::Done,
            StatusCode::NOT_FOUND => Outcome::Unknown,
            _ => Outcome::Refused,
        }
    }

    fn turn_away(&self, why: Unserved) -> Answer {
        let status = match &why {
            Unserved::Starting => StatusCode::SERVICE_UNAVAILABLE,
            Unserved::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Unserved::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Unserved::Compressed => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Unserved::Broken | Unserved::Malformed(_) => StatusCode::BAD_REQUEST,
            Unserved::Elsewhere(method, uri) => return elsewhere(&why, method, uri),
            Unserved::WebPage(_) => StatusCode::FORBIDDEN,
        };
        let mut response = error(status, why.text());
        // Closes the connection, so that the rest of the body is not waited for.
        if matches!(why, Unserved::TooSlow | Unserved::WebPage(_)) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn elsewhere(why: &Unserved, method: &Method, uri: &Uri) -> Answer {
    let (allowed, meanings) = match uri.path() {
        PATH => ("GET, POST, PUT, DELETE", "POST registers, PUT renews, DELETE deregisters, GET asks"),
        INGRESS_PATH => ("GET, PUT", "PUT sets a rule, GET asks for one"),
        _ => {
            let text = format!("{}: the plugins are at {PATH} and {INGRESS_PATH}", why.text());
            return error(StatusCode::NOT_FOUND, text);
        }
    };
    let text = format!("{method} means nothing here: {meanings}");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A parameter of the query. gost never leaves it out: a call without it is for another path.
fn parameter<'a>(query: &'a str, key: &str) -> Result<Cow<'a, str>, Unserved> {
    // gost sends it alone, and most values are spelled as they are.
    let is_plain = !query.bytes().any(|byte| matches!(byte, b'%' | b'+' | b'&'));
    if is_plain && let Some(value) = query.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
        return Ok(Cow::Borrowed(value));
    }
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let found = parameters.find(|(name, _)| name == key).map(|(_, value)| value);
    found.ok_or_else(|| Unserved::Malformed(format!("{key} is missing: the query has no {key}=")))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unserved> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Unserved::Malformed("the body is not a JSON object".into()));
    }
    serde_json::from_slice(body).map_err(|e| {
        let hint = if offender(body, e.line(), e.column()) == Some(b'\\') {
            ": a stray backslash; inside single quotes the shell keeps it, so leave it out"
        } else {
            ""
        };
        Unserved::Malformed(format!("the body is not the expected JSON: {e}{hint}"))
    })
}

/// The byte at a line and column of a `serde_json` error, both counted from 1.
fn offender(body: &[u8], line: usize, column: usize) -> Option<u8> {
    let line = body.split(|b| *b == b'\n').nth(line.checked_sub(1)?)?;
    line.get(column.checked_sub(1)?).copied()
}

/// As serde would write it, which looks through every byte, one after the other, for what JSON escapes.
fn services(records: &[Arc<Record>]) -> Vec<u8> {
    // Two thirds of it are the three ids of a record.
    let mut out = Vec::with_capacity(32 + 256 * records.len());
    out.extend_from_slice(b"{\"services\":[");
    for (at, record) in records.iter().enumerate() {
        let Record { id, name, node, network, address } = &**record;
        let comma: &[u8] = if at == 0 { b"{\"id\":" } else { b",{\"id\":" };
        let mut field = |before: &[u8], text: &str| {
            out.extend_from_slice(before);
            quote(text, &mut out);
        };
        field(comma, &id.text());
        field(b",\"name\":", &name.text());
        field(b",\"node\":", &node.text());
        field(b",\"network\":", network.as_str());
        field(b",\"address\":", &address.to_string());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// Writes a text as JSON.
fn quote(text: &str, out: &mut Vec<u8>) {
    // Without an early end, so that it takes many bytes at once.
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        serde_json::to_writer(out, text).expect("a vector takes any text");
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn refuse(refusal: &CallError) -> Answer {
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

fn error(status: StatusCode, error: String) -> Answer {
    #[derive(Serialize)]
    struct Error {
        error: String,
    }
    json(status, &Error { error })
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    written(status, serde_json::to_vec(body).expect("strings and booleans always serialize"))
}

fn written(status: StatusCode, json: Vec<u8>) -> Answer {
    let mut answer = Answer::new(Content::whole(json));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use gossd_core::record::Network;
    use serde_json::{Value, json};

    #[test]
    fn records_are_written_as_serde_would_write_them() {
        let odd: String = (' '..='~').chain("äπ中\u{7f}\u{2028}".chars()).collect();
        let record = |id: &str, name: &str| {
            let network = Network::Udp;
            Arc::new(Record {
                id: id.into(),
                name: name.into(),
                node: "n".into(),
                network,
                address: "[::1]:80".into(),
            })
        };
        for records in [vec![], vec![record("1", "t")], vec![record(&odd, "\"\\"), record("2", &odd)]] {
            let said: Value = serde_json::from_slice(&services(&records)).expect("JSON");
            let fields = |record: &Arc<Record>| {
                let [id, name] = [&record.id, &record.name].map(|label| label.text().to_string());
                json!({"id": id, "name": name, "node": "n", "network": "udp", "address": "[::1]:80"})
            };
            assert_eq!(said, json!({"services": records.iter().map(fields).collect::<Vec<_>>()}));
        }
        for text in ["", "plain", &odd, "\"", "\\", "\u{1}\n"] {
            let mut quoted = Vec::new();
            quote(text, &mut quoted);
            assert_eq!(quoted, serde_json::to_vec(text).expect("a text"));
        }
    }

    #[test]
    fn a_parameter_is_read_however_it_is_spelled() {
        for (query, value) in [
            ("name=t", "t"),
            ("name=a%40b", "a@b"),
            ("name=a+b", "a b"),
            ("x=1&name=t", "t"),
            ("name=a=b", "a=b"),
            ("name=", ""),
            ("name", ""),
        ] {
            assert_eq!(parameter(query, "name").unwrap(), value, "{query}");
        }
        for query in ["names=t", ""] {
            assert!(parameter(query, "name").is_err(), "{query}");
        }
    }
}
