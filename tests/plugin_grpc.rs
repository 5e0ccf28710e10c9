//! gost's gRPC plugin calls through a real client and real sockets: what the table in `plugin_table.rs` cannot show of
//! connections, codes, tokens, and the services beside gost's own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::http::{call, request};
use crate::common::{eventually, ids};
use crate::services::ingress_client::IngressClient;
use crate::services::sd_client::SdClient;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::grpc::generated::{
    DeregisterRequest, GetRuleRequest, GetServiceReply, GetServiceRequest, RegisterRequest, RenewRequest,
    Service, SetRuleRequest,
};
use gossd::plugin::tls::TlsFiles;
use gossd_core::rank::BEST;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::codec::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The longest message that is read.
const MAX_MESSAGE: usize = 64 << 10;

fn loopback() -> Config {
    Config::loopback("a".parse().expect("a name"))
}

async fn start(config: Config) -> Daemon {
    Daemon::start(config).await.expect("the agent starts")
}

async fn agent() -> Daemon {
    start(loopback()).await
}

fn endpoint(plugin: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{plugin}")).expect("an address")
}

async fn connect(plugin: SocketAddr) -> Channel {
    endpoint(plugin).connect().await.expect("the agent listens")
}

fn service(id: &str, name: &str, address: &str) -> Service {
    let [id, name, node, network, address] = [id, name, "n", "tcp", address].map(str::to_owned);
    Service { id, name, node, network, address }
}

fn register(id: &str) -> RegisterRequest {
    RegisterRequest { service: Some(service(id, "t", "10.0.0.1:80")) }
}

fn get(name: &str) -> GetServiceRequest {
    GetServiceRequest { name: name.into() }
}

/// Calls any path with a Get's messages.
async fn call_path(channel: Channel, path: &'static str) -> Result<GetServiceReply, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<GetServiceRequest, GetServiceReply>::default();
    let path = PathAndQuery::from_static(path);
    Ok(client.unary(Request::new(get("t")), path, codec).await?.into_inner())
}

#[tokio::test]
async fn one_connection_carries_many_calls_at_once() {
    let agent = agent().await;
    let client = SdClient::new(connect(agent.plugin).await);
    let mut calls = JoinSet::new();
    for n in 0..500 {
        let mut client = client.clone();
        calls.spawn(async move {
            let tunnel = format!("t{}", n % 50);
            let service = service(&n.to_string(), &tunnel, "10.0.0.1:80");
            let reply =
                client.register(RegisterRequest { service: Some(service) }).await.expect("it is taken");
            assert!(reply.into_inner().ok);
            let listed = client.get(get(&tunnel)).await.expect("it is answered").into_inner().services;
            assert!(listed.iter().any(|service| service.id == n.to_string()), "its own Register is seen");
        });
    }
    calls.join_all().await;
    assert_eq!(agent.counts().own_records, 500);
}

#[tokio::test]
async fn http_and_grpc_share_the_port_at_the_same_time() {
    let agent = agent().await;
    let plugin = agent.plugin;
    let mut calls = JoinSet::new();
    for n in 0..40 {
        calls.spawn(async move {
            if n % 2 == 0 {
                let mut client = SdClient::new(connect(plugin).await);
                client.register(register(&n.to_string())).await.expect("it is taken");
            } else {
                let body = format!(r#"{{"id":"{n}","name":"t","node":"n","address":"10.0.0.1:80"}}"#);
                assert_eq!(call(plugin, &request("POST", "/sd", &body)).await.status(), 200);
            }
        });
    }
    calls.join_all().await;
    let listed = SdClient::new(connect(plugin).await).get(get("t")).await.expect("it is answered");
    assert_eq!(listed.into_inner().services.len(), 40);
}

#[tokio::test]
async fn of_a_tunnel_with_many_connectors_an_answer_has_the_best_in_either_protocol() {
    let agent = agent().await;
    let mut client = SdClient::new(connect(agent.plugin).await);
    for n in 0..2 * BEST {
        client.register(register(&n.to_string())).await.expect("it is taken");
    }
    let listed = client.get(get("t")).await.expect("it is answered").into_inner().services;
    let by_http = call(agent.plugin, &request("GET", "/sd?name=t", "")).await.json();
    let by_http = by_http["services"].as_array().expect("a list");
    assert_eq!((listed.len(), by_http.len()), (BEST, BEST));
}

#[tokio::test]
async fn an_idle_connection_is_kept_and_its_pings_are_answered() {
    let agent = agent().await;
    let pings = endpoint(relayed_once(agent.plugin).await)
        .http2_keep_alive_interval(Duration::from_millis(100))
        .keep_alive_timeout(Duration::from_millis(500))
        .keep_alive_while_idle(true);
    let mut client = SdClient::new(pings.connect().await.expect("the agent listens"));
    client.register(register("i")).await.expect("it is taken");
    // The silence itself is tested.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let renew = RenewRequest { service: Some(service("i", "t", "")) };
    assert!(client.renew(renew).await.expect("the connection is there").into_inner().ok);
}

/// Forwards one connection to the agent, so that a channel cannot hide its end by reconnecting.
async fn relayed_once(plugin: SocketAddr) -> SocketAddr {
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = relay.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut client, _) = relay.accept().await.expect("a connection");
        drop(relay);
        let mut agent = TcpStream::connect(plugin).await.expect("the agent listens");
        tokio::io::copy_bidirectional(&mut client, &mut agent).await
    });
    addr
}

#[tokio::test]
async fn a_request_without_a_connector_is_one_without_an_id() {
    let agent = agent().await;
    let mut client = SdClient::new(connect(agent.plugin).await);
    let refusals = [
        client.register(RegisterRequest { service: None }).await.map(drop),
        client.renew(RenewRequest { service: None }).await.map(drop),
        client.deregister(DeregisterRequest { service: None }).await.map(drop),
    ];
    for refusal in refusals {
        let status = refusal.expect_err("there is no id");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "id is missing"));
    }
}

#[tokio::test]
async fn other_grpc_paths_are_unimplemented() {
    let agent = agent().await;
    let channel = connect(agent.plugin).await;
    for path in ["/proto.SD/Nothing", "/proto.Router/GetRoute", "/proto.SD", "/nothing", "/"] {
        let status = call_path(channel.clone(), path).await.expect_err("nothing is there");
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status}");
    }
    assert!(call_path(channel, "/proto.SD/Get").await.is_ok(), "and this is");
    let answer = call(agent.plugin, &request("GET", "/proto.Router/GetRoute", "")).await;
    assert_eq!(answer.status(), 404, "whoever speaks HTTP is answered in HTTP: {answer:?}");
}

#[tokio::test]
async fn a_message_may_have_64_kib_and_no_more() {
    let agent = agent().await;
    let mut client = SdClient::new(connect(agent.plugin).await);
    // A tag and a length of three bytes.
    let longest = get(&"x".repeat(MAX_MESSAGE - 4));
    let status = client.get(longest).await.expect_err("no name is that long");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "name is longer than 512 bytes"));
    for len in [MAX_MESSAGE - 3, 10 * MAX_MESSAGE] {
        let status = client.get(get(&"x".repeat(len))).await.expect_err("that is too long");
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
    }
    client.register(register("i")).await.expect("the connection goes on");
}

#[tokio::test]
async fn health_is_serving_for_both_plugins_and_for_all() {
    let agent = agent().await;
    let mut client = HealthClient::new(connect(agent.plugin).await);
    for service in ["", "proto.SD", "proto.Ingress"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = client.check(request.clone()).await.expect("it is known").into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
        let mut watch = client.watch(request).await.expect("it is known").into_inner();
        let first = watch.message().await.expect("an answer").expect("a status");
        assert_eq!(first.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: "proto.Router".into() };
    assert_eq!(client.check(request).await.expect_err("it is not").code(), Code::NotFound);
}

#[tokio::test]
async fn a_watcher_of_health_does_not_keep_the_agent_from_stopping() {
    let agent = agent().await;
    let mut client = HealthClient::new(connect(agent.plugin).await);
    let _watch: Streaming<_> = client.watch(HealthCheckRequest::default()).await.expect("known").into_inner();
    assert!(tokio::time::timeout(Duration::from_secs(4), agent.stop()).await.is_ok());
}

/// The questions of `grpcurl list` and `grpcurl describe`, in one version of the protocol.
macro_rules! reflected {
    ($version:ident, $plugin:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let ask = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol("proto.SD.Register".into()),
            MessageRequest::FileContainingSymbol("proto.SetRuleRequest".into()),
        ];
        let ask = ask.map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
        let mut client = ServerReflectionClient::new(connect($plugin).await);
        let replies = client.server_reflection_info(tokio_stream::iter(ask)).await.expect("it is served");
        let mut replies = replies.into_inner();
        let mut services = Vec::new();
        let mut files = 0;
        while let Some(reply) = replies.message().await.expect("a reply") {
            match reply.message_response.expect("an answer") {
                MessageResponse::ListServicesResponse(list) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                MessageResponse::FileDescriptorResponse(file) => files += file.file_descriptor_proto.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(files, 2, "one for each symbol");
        services
    }};
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_of_its_versions() {
    let agent = agent().await;
    for services in [reflected!(v1, agent.plugin), reflected!(v1alpha, agent.plugin)] {
        for service in ["proto.SD", "proto.Ingress", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|listed| listed == service), "{service}: {services:?}");
        }
    }
}

#[tokio::test]
async fn with_a_token_file_a_call_needs_a_token_and_health_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = folder.path().join("tokens");
    crate::common::write_secret(&token_file, "right\n");
    let agent = start(Config { token_file: Some(token_file), ..loopback() }).await;
    let channel = connect(agent.plugin).await;
    for (key, token, fine) in [
        ("token", "right", true),
        ("token", "wrong", false),
        ("token", "", false),
        ("other", "right", false),
        ("authorization", "Bearer right", false),
    ] {
        let tokened = move |mut call: Request<()>| {
            call.metadata_mut().insert(key, MetadataValue::from_static(token));
            Ok(call)
        };
        let mut sd = SdClient::with_interceptor(channel.clone(), tokened);
        let mut ingress = IngressClient::with_interceptor(channel.clone(), tokened);
        let results = [
            sd.register(register("i")).await.map(drop),
            sd.renew(RenewRequest { service: Some(service("i", "t", "")) }).await.map(drop),
            sd.get(get("t")).await.map(drop),
            sd.deregister(DeregisterRequest { service: Some(service("other", "t", "")) }).await.map(drop),
            ingress.get_rule(GetRuleRequest { host: "a.org".into(), ..Default::default() }).await.map(drop),
            ingress.set_rule(SetRuleRequest { host: "a.org".into(), ..Default::default() }).await.map(drop),
        ];
        for result in results {
            let refused = result.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated);
            assert_eq!(refused, !fine, "{key}: {token}: {result:?}");
        }
    }
    let status = SdClient::new(channel.clone()).get(get("")).await.expect_err("a token is missing");
    assert_eq!(status.code(), Code::Unauthenticated, "before the call is looked at");
    assert!(status.message().contains("token"), "{status}");
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert_eq!(health.expect("needs no token").into_inner().status(), ServingStatus::Serving);
    reflected!(v1, agent.plugin);
}

#[tokio::test]
async fn grpc_speaks_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["gossd.example".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("it can be written");
    crate::common::write_secret(&key, made.signing_key.serialize_pem());
    let agent = start(Config { tls: Some(TlsFiles { certificate, key }), ..loopback() }).await;
    let trust = Certificate::from_pem(made.cert.pem());
    let tls = ClientTlsConfig::new().ca_certificate(trust).domain_name("gossd.example");
    let endpoint = Endpoint::from_shared(format!("https://{}", agent.plugin)).expect("an address");
    let channel = endpoint.tls_config(tls).expect("a configuration").connect().await.expect("it is trusted");
    let mut client = SdClient::new(channel);
    client.register(register("i")).await.expect("it is taken");
    assert_eq!(ids(&agent, "t"), ["i"]);
}

#[tokio::test]
async fn a_gost_that_dies_is_noticed_by_the_end_of_its_channel() {
    let agent = agent().await;
    let entrypoint = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = entrypoint.local_addr().expect("an address").to_string();
    let channel = connect(agent.plugin).await;
    let mut client = SdClient::new(channel);
    client
        .register(RegisterRequest { service: Some(service("i", "t", &address)) })
        .await
        .expect("it is taken");
    assert_eq!(ids(&agent, "t"), ["i"]);

    drop((entrypoint, client));
    eventually(Duration::from_secs(5), "its record is gone", || ids(&agent, "t").is_empty()).await;
}

#[tokio::test]
async fn a_gost_that_only_drops_its_channel_loses_nothing() {
    let agent = agent().await;
    let entrypoint = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = entrypoint.local_addr().expect("an address").to_string();
    let mut client = SdClient::new(connect(agent.plugin).await);
    client
        .register(RegisterRequest { service: Some(service("i", "t", &address)) })
        .await
        .expect("it is taken");

    drop(client);
    // Longer than the agent waits before it dials a gost without connections.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ids(&agent, "t"), ["i"]);
}
