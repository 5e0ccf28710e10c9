//! A minimal agent for gost that records every call. Over HTTP it keeps the bytes.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::services::ingress_server::{Ingress, IngressServer};
use crate::services::sd_server::{Sd, SdServer};
use gossd::plugin::grpc::generated::{
    DeregisterReply, DeregisterRequest, GetRuleReply, GetRuleRequest, GetServiceReply, GetServiceRequest,
    RegisterReply, RegisterRequest, RenewReply, RenewRequest, Service, SetRuleReply, SetRuleRequest,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Request, Response, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    Grpc,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Kind::Http { "http" } else { "grpc" })
    }
}

/// One recorded call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The agent that was called.
    pub(crate) agent: &'static str,
    /// `Register`, `Renew`, `Deregister`, `Get`, `GetRule`, `SetRule`.
    pub(crate) method: &'static str,
    /// The caller's address, one per connection.
    pub(crate) peer: SocketAddr,
    pub(crate) text: String,
}

/// What all agents of a story know.
#[derive(Clone, Default)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    records: Vec<Service>,
    rules: HashMap<String, String>,
    calls: Vec<Call>,
    /// If set, agent A lists only the first record of a tunnel, and B only the others.
    alternate: bool,
}

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic holds it")
    }

    /// From now on agent A lists only the first record of a tunnel, and B only the others.
    pub(crate) fn alternate(&self) {
        self.state().alternate = true;
    }

    pub(crate) fn rule(&self, host: &str, endpoint: &str) {
        self.state().rules.insert(host.into(), endpoint.into());
    }

    /// Adds a record at the end of the list.
    pub(crate) fn record(&self, name: &str, node: &str, network: &str, address: &str) {
        let [id, name, node, network, address] = [node, name, node, network, address].map(str::to_owned);
        self.state().records.push(Service { id, name, node, network, address });
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn heard(&self, call: Call) {
        self.state().calls.push(call);
    }

    fn register(&self, service: Service) {
        self.state().records.push(service);
    }

    fn deregister(&self, id: &str) {
        self.state().records.retain(|service| service.id != id);
    }

    fn get(&self, agent: &str, name: &str) -> Vec<Service> {
        let state = self.state();
        let all = state.records.iter().filter(|service| service.name == name).enumerate();
        let listed = all.filter(|(at, _)| !state.alternate || (*at == 0) == (agent == "A"));
        listed.map(|(_, service)| service.clone()).collect()
    }

    fn get_rule(&self, host: &str) -> String {
        let host = host.split(':').next().unwrap_or_default();
        self.state().rules.get(host).cloned().unwrap_or_default()
    }

    /// A name belongs to the first tunnel that asked for it.
    fn set_rule(&self, host: &str, endpoint: &str) -> bool {
        let mut state = self.state();
        state.rules.entry(host.into()).or_insert_with(|| endpoint.into()) == endpoint
    }

    /// Starts an agent that answers for ever.
    pub(crate) async fn serve(&self, agent: &'static str, kind: Kind) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cluster = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (cluster, heard) = (cluster.clone(), Heard { agent, peer });
                tokio::spawn(async move {
                    match kind {
                        Kind::Http => drop(serve_http(stream, &cluster, heard).await),
                        Kind::Grpc => serve_grpc(stream, cluster, heard).await,
                    }
                });
            }
        });
        address
    }
}

/// The context of a call.
#[derive(Clone, Copy)]
struct Heard {
    agent: &'static str,
    peer: SocketAddr,
}

impl Heard {
    fn call(self, method: &'static str, text: String) -> Call {
        let Self { agent, peer } = self;
        Call { agent, method, peer, text }
    }
}

async fn serve_http(mut stream: TcpStream, cluster: &Cluster, from: Heard) -> std::io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&unread[..head_end]).into_owned();
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        let end = head_end + length.unwrap_or_default();
        while unread.len() < end {
            stream.read_buf(&mut unread).await?;
        }
        let body = String::from_utf8_lossy(&unread[head_end..end]).into_owned();
        unread.drain(..end);
        let (method, answer) = answer_http(cluster, from.agent, &head, &body);
        cluster.heard(from.call(method, (head + &body).replace('\r', "").trim_end().to_owned()));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn answer_http(cluster: &Cluster, agent: &str, head: &str, body: &str) -> (&'static str, String) {
    let mut words = head.split(' ');
    let (verb, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    match (path, verb) {
        ("/ingress", "GET") => {
            ("GetRule", json!({ "endpoint": cluster.get_rule(&query["host"]) }).to_string())
        }
        ("/ingress", _) => {
            ("SetRule", json!({ "ok": cluster.set_rule(&text("host"), &text("endpoint")) }).to_string())
        }
        (_, "POST") => {
            let [id, name, node, network, address] = ["id", "name", "node", "network", "address"].map(text);
            cluster.register(Service { id, name, node, network, address });
            ("Register", String::new())
        }
        (_, "PUT") => ("Renew", String::new()),
        (_, "DELETE") => {
            cluster.deregister(&text("id"));
            ("Deregister", String::new())
        }
        _ => {
            let services: Vec<Value> = cluster.get(agent, &query["name"]).into_iter().map(as_json).collect();
            ("Get", json!({ "services": services }).to_string())
        }
    }
}

fn as_json(service: Service) -> Value {
    let Service { id, name, node, network, address } = service;
    json!({ "id": id, "name": name, "node": node, "network": network, "address": address })
}

async fn serve_grpc(stream: TcpStream, cluster: Cluster, heard: Heard) {
    let agent = Scripted { cluster, heard };
    let routes =
        tonic::service::Routes::new(SdServer::new(agent.clone())).add_service(IngressServer::new(agent));
    let service = TowerToHyperService::new(routes.prepare());
    let server = auto::Builder::new(TokioExecutor::new()).http2_only();
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Clone)]
struct Scripted {
    cluster: Cluster,
    heard: Heard,
}

impl Scripted {
    /// The path, the metadata that gost sets, and the message.
    fn heard<T>(&self, method: &'static str, path: &str, request: &Request<T>, fields: &Value) {
        let metadata = ["user-agent", "token", "authorization"].into_iter().filter_map(|key| {
            let value = request.metadata().get(key)?.to_str().ok()?.to_owned();
            Some(format!("{key}: {}\n", value.split_once('.').map_or(&*value, |(program, _)| program)))
        });
        let metadata: String = metadata.collect();
        self.cluster.heard(self.heard.call(method, format!("{path}\n{metadata}{fields}")));
    }
}

#[tonic::async_trait]
impl Sd for Scripted {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let service = request.get_ref().service.clone().unwrap_or_default();
        self.heard("Register", "/proto.SD/Register", &request, &as_json(service.clone()));
        self.cluster.register(service);
        Ok(Response::new(RegisterReply { ok: true }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterReply>, Status> {
        let service = request.get_ref().service.clone().unwrap_or_default();
        self.heard("Deregister", "/proto.SD/Deregister", &request, &as_json(service.clone()));
        self.cluster.deregister(&service.id);
        Ok(Response::new(DeregisterReply { ok: true }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let service = request.get_ref().service.clone().unwrap_or_default();
        self.heard("Renew", "/proto.SD/Renew", &request, &as_json(service));
        Ok(Response::new(RenewReply { ok: true }))
    }

    async fn get(&self, request: Request<GetServiceRequest>) -> Result<Response<GetServiceReply>, Status> {
        let name = request.get_ref().name.clone();
        self.heard("Get", "/proto.SD/Get", &request, &json!({ "name": name }));
        Ok(Response::new(GetServiceReply { services: self.cluster.get(self.heard.agent, &name) }))
    }
}

#[tonic::async_trait]
impl Ingress for Scripted {
    async fn get_rule(&self, request: Request<GetRuleRequest>) -> Result<Response<GetRuleReply>, Status> {
        let GetRuleRequest { host, service } = request.get_ref().clone();
        self.heard(
            "GetRule",
            "/proto.Ingress/GetRule",
            &request,
            &json!({ "host": host, "service": service }),
        );
        Ok(Response::new(GetRuleReply { endpoint: self.cluster.get_rule(&host) }))
    }

    async fn set_rule(&self, request: Request<SetRuleRequest>) -> Result<Response<SetRuleReply>, Status> {
        let SetRuleRequest { host, endpoint, service } = request.get_ref().clone();
        let fields = json!({ "host": host, "endpoint": endpoint, "service": service });
        self.heard("SetRule", "/proto.Ingress/SetRule", &request, &fields);
        Ok(Response::new(SetRuleReply { ok: self.cluster.set_rule(&host, &endpoint) }))
    }
}
