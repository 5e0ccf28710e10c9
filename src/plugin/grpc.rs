//! gost's gRPC plugin calls, gost's default plugin type, with the same meanings as in [`super::http`]. Beside them are
//! the standard health service, and reflection for people with `grpcurl`.
//!
//! gost's calls are one message each way, so they are read and written here: tonic's layers cost more than the calls.

use std::borrow::Cow;

use axum::Router;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use prost::Message;
use tonic::Status;
use tonic_health::ServingStatus;

use self::generated::{
    DeregisterRequest, GetRuleReply, GetRuleRequest, GetServiceReply, GetServiceRequest, RegisterReply,
    RegisterRequest, RenewRequest, Service, SetRuleReply, SetRuleRequest,
};
use super::adapter::{Adapter, Unserved};
use super::call::{Call, Connector, Outcome, Reply, Rule, Verb};
use super::content::{Answer, Content, MAX_MESSAGE};
use super::{CallError, Program};
use gossd_core::record::Record;

#[rustfmt::skip]
#[expect(clippy::pedantic, reason = "as a program wrote it")]
pub mod generated;

/// The descriptors from which `generated` was made, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!("grpc/plugin.bin");
/// The plugins' names, for health.
const SERVICES: [&str; 2] = ["proto.SD", "proto.Ingress"];
/// The beginning of the user agent of Go's client, which gost leaves as it is. `grpcurl` puts its own name before it.
const GOST: &str = "grpc-go/";
/// The metadata key of a token; not `authorization`.
const TOKEN: &str = "token";
/// What a message is sent behind: whether it is compressed, and its length.
const PREFIX: usize = 5;
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The protocol.
pub(super) struct Grpc;

impl Adapter for Grpc {
    fn word(&self) -> &'static str {
        "grpc"
    }

    fn takes(&self, headers: &HeaderMap) -> bool {
        let kind = headers.get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    fn max_body(&self) -> usize {
        PREFIX + MAX_MESSAGE
    }

    fn verb(&self, _: &Method, path: &str) -> Option<Verb> {
        Some(match path {
            "/proto.SD/Register" => Verb::Register,
            "/proto.SD/Renew" => Verb::Renew,
            "/proto.SD/Deregister" => Verb::Deregister,
            "/proto.SD/Get" => Verb::Get,
            "/proto.Ingress/GetRule" => Verb::GetRule,
            "/proto.Ingress/SetRule" => Verb::SetRule,
            _ => return None,
        })
    }

    fn token<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        headers.get(TOKEN).map(HeaderValue::as_bytes)
    }

    fn program(&self, headers: &HeaderMap) -> Program {
        Program::of(headers.get(header::USER_AGENT).map(HeaderValue::as_bytes), GOST)
    }

    /// A missing connector is one whose fields are all empty, as everywhere in protobuf.
    fn call<'a>(&self, verb: Verb, head: &'a Parts, body: &'a [u8]) -> Result<Call<'a>, Unserved> {
        Ok(match verb {
            Verb::Register => Call::Register(message::<RegisterRequest>(body)?.service.into()),
            Verb::Renew => Call::Renew(message::<RenewRequest>(body)?.service.into()),
            Verb::Deregister => Call::Deregister(message::<DeregisterRequest>(body)?.service.into()),
            Verb::Get => Call::Get(message::<GetServiceRequest>(body)?.name.into()),
            Verb::GetRule => Call::GetRule(message::<GetRuleRequest>(body)?.host.into()),
            Verb::SetRule => {
                let SetRuleRequest { host, endpoint, service: _ } = message(body)?;
                Call::SetRule(Rule { host: host.into(), endpoint: endpoint.into() })
            }
            Verb::Other => return Err(Unserved::Elsewhere(head.method.clone(), head.uri.clone())),
        })
    }

    /// The replies to all three writes are the same. An unknown id is no error here but `ok: false`: the reply has a field
    /// for it.
    fn answer(&self, answered: &Result<Reply, CallError>) -> Answer {
        match answered {
            Ok(Reply::Done) => reply(&RegisterReply { ok: true }),
            Err(CallError::Unknown) => reply(&RegisterReply { ok: false }),
            Ok(Reply::Records(records)) => {
                let services = records.iter().map(|record| Service::from(&**record)).collect();
                reply(&GetServiceReply { services })
            }
            Ok(Reply::Endpoint(endpoint)) => reply(&GetRuleReply { endpoint: endpoint.clone() }),
            Ok(Reply::IsSet(ok)) => reply(&SetRuleReply { ok: *ok }),
            Err(refusal) => refused(refuse(refusal)),
        }
    }

    fn turn_away(&self, why: Unserved) -> Answer {
        let status = match why {
            Unserved::Starting => Status::unavailable,
            Unserved::TooSlow => Status::deadline_exceeded,
            Unserved::TooLong => Status::out_of_range,
            Unserved::Broken | Unserved::Malformed(_) => Status::internal,
            Unserved::Elsewhere(..) | Unserved::Compressed => Status::unimplemented,
            Unserved::WebPage(_) => Status::permission_denied,
        };
        let is_compressed = matches!(why, Unserved::Compressed);
        let mut answer = refused(match why {
            Unserved::Elsewhere(..) => status("this is not served: proto.SD and proto.Ingress are".into()),
            why => status(why.text()),
        });
        if is_compressed {
            answer.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        }
        answer
    }

    /// An answer without a message has its status in its head.
    fn outcome(&self, response: &Answer) -> Outcome {
        match response.headers().get(STATUS).map(HeaderValue::as_bytes) {
            None | Some(b"0") if response.status().is_success() => Outcome::Done,
            Some(b"5") => Outcome::Unknown,
            _ => Outcome::Refused,
        }
    }
}

/// Health and reflection. They need no token: they show no records, and kubelet's probes can send no token.
pub(super) async fn others() -> Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in SERVICES {
        reporter.set_service_status(service, ServingStatus::Serving).await;
    }
    // grpcurl asks by v1, older clients by v1alpha.
    let v1 = descriptors().build_v1().expect("descriptors that are compiled in are whole");
    let v1alpha = descriptors().build_v1alpha().expect("the same");
    tonic::service::Routes::new(health)
        .add_service(v1)
        .add_service(v1alpha)
        .into_axum_router()
        .reset_fallback()
}

fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// The one message of a body.
fn message<M: Message + Default>(body: &[u8]) -> Result<M, Unserved> {
    let malformed = |why: &str| Unserved::Malformed(format!("the body is not one message: {why}"));
    let (prefix, message) =
        body.split_first_chunk::<PREFIX>().ok_or_else(|| malformed("it has no prefix"))?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Unserved::Compressed);
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(malformed("its length is another"));
    }
    M::decode(message).map_err(|error| malformed(&error.to_string()))
}

fn reply(message: &impl Message) -> Answer {
    let length = message.encoded_len();
    let mut body = Vec::with_capacity(PREFIX + length);
    body.push(0);
    body.extend(u32::try_from(length).expect("an answer is short").to_be_bytes());
    message.encode(&mut body).expect("a vector grows");
    let ok = || HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let mut answer = Answer::new(Content::with_trailers(body, ok));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// A status without a message has its place in the head.
fn refused(status: Status) -> Answer {
    status.into_http::<()>().map(|()| Content::default())
}

impl From<Option<Service>> for Connector<'static> {
    fn from(service: Option<Service>) -> Self {
        let Service { id, name, node, network, address } = service.unwrap_or_default();
        let [id, name, node, network, address] = [id, name, node, network, address].map(Cow::Owned);
        Self { id, name, node, network, address }
    }
}

impl From<&Record> for Service {
    fn from(record: &Record) -> Self {
        let Record { id, name, node, network, address } = record;
        let [id, name, node] = [id, name, node].map(|label| label.text().to_owned());
        Self { id, name, node, network: network.as_str().to_owned(), address: address.to_string() }
    }
}

/// The code is for programs. The text is the same as in the HTTP adapter.
fn refuse(refusal: &CallError) -> Status {
    let text = refusal.to_string();
    match refusal {
        CallError::Field(_) => Status::invalid_argument(text),
        CallError::Unknown => Status::not_found(text),
        CallError::Full(_) => Status::resource_exhausted(text),
        CallError::Unauthenticated(_) => Status::unauthenticated(text),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::plugin::Unauthenticated;
    use gossd_core::quota::Full;
    use gossd_core::record::check_name;

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_its_own_text() {
        for (refusal, code) in [
            (CallError::Field(check_name("").unwrap_err()), Code::InvalidArgument),
            (CallError::Unknown, Code::NotFound),
            (CallError::Full(Full::Records(7)), Code::ResourceExhausted),
            (CallError::Unauthenticated(Unauthenticated::Wrong), Code::Unauthenticated),
        ] {
            let status = refuse(&refusal);
            assert_eq!((status.code(), status.message()), (code, &*refusal.to_string()));
        }
    }

    #[test]
    fn a_call_is_grpc_by_its_content_type() {
        for (kind, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(Grpc.takes(&headers), grpc, "{kind}");
        }
    }
}
