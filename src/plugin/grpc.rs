//! gost's gRPC plugin calls, gost's default plugin type, with the same meanings as in [`super::http`]. Beside them are
//! the standard health service, and reflection for people with `grpcurl`.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, header};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::{Request, Response, Status};

use self::generated::ingress_server::{self, IngressServer};
use self::generated::sd_server::{self, SdServer};
use self::generated::{
    DeregisterReply, DeregisterRequest, GetRuleReply, GetRuleRequest, GetServiceReply, GetServiceRequest,
    RegisterReply, RegisterRequest, RenewReply, RenewRequest, Service, SetRuleReply, SetRuleRequest,
};
use super::adapter::{Adapter, Unserved};
use super::{CallError, Caller, Plugin, Program};
use gossd_core::record::{Draft, Record};

#[rustfmt::skip]
#[expect(clippy::pedantic, unused_qualifications, reason = "as a program wrote it")]
pub mod generated;

/// The descriptors from which `generated` was made, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!("grpc/plugin.bin");
/// The beginning of the user agent of Go's client, which gost leaves as it is. `grpcurl` puts its own name before it.
const GOST: &str = "grpc-go/";
/// The metadata key of a token; not `authorization`.
const TOKEN: &str = "token";
/// Longest message: as long as an HTTP body. tonic answers a longer message with `OUT_OF_RANGE`.
const MAX_MESSAGE: usize = 64 << 10;

/// The protocol.
pub(super) struct Grpc;

/// Marks a response about an unknown id, where the gRPC status is OK.
#[derive(Clone, Copy, Debug)]
struct Unknown;

#[tonic::async_trait]
impl Adapter for Grpc {
    fn word(&self) -> &'static str {
        "grpc"
    }

    fn takes(&self, headers: &HeaderMap) -> bool {
        let kind = headers.get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    /// Both plugins, health and reflection.
    async fn routes(&self, plugin: &Plugin) -> Router {
        let sd = SdServer::new(plugin.clone()).max_decoding_message_size(MAX_MESSAGE);
        let ingress = IngressServer::new(plugin.clone()).max_decoding_message_size(MAX_MESSAGE);
        let (sd, ingress) = (admitted(sd, plugin), admitted(ingress, plugin));
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<SdServer<Plugin>>().await;
        reporter.set_serving::<IngressServer<Plugin>>().await;
        // grpcurl asks by v1, older clients by v1alpha.
        let v1 = descriptors().build_v1().expect("descriptors that are compiled in are whole");
        let v1alpha = descriptors().build_v1alpha().expect("the same");
        let routes = Routes::new(sd).add_service(ingress).add_service(health);
        routes.add_service(v1).add_service(v1alpha).into_axum_router().reset_fallback()
    }

    fn verb(&self, _: &Method, path: &str) -> Option<&'static str> {
        Some(match path {
            "/proto.SD/Register" => "register",
            "/proto.SD/Renew" => "renew",
            "/proto.SD/Deregister" => "deregister",
            "/proto.SD/Get" => "get",
            "/proto.Ingress/GetRule" => "get_rule",
            "/proto.Ingress/SetRule" => "set_rule",
            _ => return None,
        })
    }

    /// A response without a message has its status in its headers.
    fn outcome(&self, response: &axum::http::Response<Body>) -> &'static str {
        match status_in_head(response) {
            _ if response.extensions().get::<Unknown>().is_some() => "unknown",
            None | Some("0") if response.status().is_success() => "ok",
            Some("5") => "unknown",
            Some("8") => "full",
            Some("16") => "unauthenticated",
            Some("4") => "slow",
            _ => "refused",
        }
    }

    fn is_served(&self, response: &axum::http::Response<Body>) -> bool {
        response.status().is_success() && matches!(status_in_head(response), None | Some("0"))
    }

    fn turn_away(&self, why: Unserved<'_>) -> axum::http::Response<Body> {
        let status = match why {
            Unserved::Starting => {
                Status::unavailable("this agent is starting and has not read its journal yet")
            }
            Unserved::TooSlow => Status::deadline_exceeded("the message did not arrive in time"),
            Unserved::Elsewhere(_) => {
                Status::unimplemented("this is not served: proto.SD and proto.Ingress are")
            }
            Unserved::WebPage(forged) => Status::permission_denied(forged.text()),
        };
        status.into_http()
    }
}

fn status_in_head(response: &axum::http::Response<Body>) -> Option<&str> {
    response.headers().get("grpc-status").map(|status| status.to_str().unwrap_or_default())
}

/// Lets a call through if its token is in force. Health and reflection need no token: they show no records, and
/// kubelet's probes can send no token.
fn admitted<S>(service: S, plugin: &Plugin) -> InterceptedService<S, impl Interceptor + Clone + use<S>> {
    let plugin = plugin.clone();
    InterceptedService::new(service, move |call: Request<()>| {
        plugin.admit(call.metadata().get(TOKEN).map(MetadataValue::as_bytes)).map_err(|e| refuse(&e))?;
        Ok(call)
    })
}

fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

#[tonic::async_trait]
impl sd_server::Sd for Plugin {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let service = request.get_ref().service.as_ref();
        let registered = self.sd.register(caller(&request)?, program(&request), draft(service));
        registered.map_err(|refusal| refuse(&refusal))?;
        Ok(Response::new(RegisterReply { ok: true }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterReply>, Status> {
        let service = request.get_ref().service.as_ref();
        self.sd.deregister(caller(&request)?, draft(service)).map_err(|refusal| refuse(&refusal))?;
        Ok(Response::new(DeregisterReply { ok: true }))
    }

    /// An unknown id is no error here but `ok: false`: the reply has a field for it.
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let service = request.get_ref().service.as_ref();
        match self.sd.renew(caller(&request)?, draft(service)) {
            Ok(()) => Ok(Response::new(RenewReply { ok: true })),
            Err(CallError::Unknown) => {
                let mut reply = Response::new(RenewReply { ok: false });
                reply.extensions_mut().insert(Unknown);
                Ok(reply)
            }
            Err(refusal) => Err(refuse(&refusal)),
        }
    }

    async fn get(&self, request: Request<GetServiceRequest>) -> Result<Response<GetServiceReply>, Status> {
        let records = self.lookup(caller(&request)?, program(&request), &request.get_ref().name).await;
        let records = records.map_err(|refusal| refuse(&refusal))?;
        let services = records.iter().map(|record| Service::from(&**record)).collect();
        Ok(Response::new(GetServiceReply { services }))
    }
}

#[tonic::async_trait]
impl ingress_server::Ingress for Plugin {
    async fn get_rule(&self, request: Request<GetRuleRequest>) -> Result<Response<GetRuleReply>, Status> {
        let endpoint = self.lookup_rule(caller(&request)?, program(&request), &request.get_ref().host).await;
        let endpoint = endpoint.map_err(|refusal| refuse(&refusal))?;
        Ok(Response::new(GetRuleReply { endpoint }))
    }

    async fn set_rule(&self, request: Request<SetRuleRequest>) -> Result<Response<SetRuleReply>, Status> {
        let SetRuleRequest { host, endpoint, service: _ } = request.get_ref();
        let token = request.metadata().get(TOKEN).map(MetadataValue::as_bytes);
        let ok = Plugin::set_rule(self, token, host, endpoint).map_err(|refusal| refuse(&refusal))?;
        Ok(Response::new(SetRuleReply { ok }))
    }
}

/// The server adds the caller to each request. Without it, the end of the caller's connection could not be noticed.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get().copied().ok_or_else(|| Status::internal("the connection is not known"))
}

fn program<T>(request: &Request<T>) -> Program {
    let user_agent = request.metadata().get(header::USER_AGENT.as_str());
    Program::of(user_agent.map(MetadataValue::as_bytes), GOST)
}

/// A missing connector is one whose fields are all empty, as everywhere in protobuf.
fn draft(service: Option<&Service>) -> Draft<'_> {
    let Some(Service { id, name, node, network, address }) = service else { return Draft::default() };
    Draft { id, name, node, network, address }
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
