//! gost's gRPC plugin client: its calls and its token, over channels that fail and recover like grpc-go's.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};

use crate::services::ingress_client::IngressClient;
use crate::services::sd_client::SdClient;
use gossd::plugin::grpc::generated::{self, GetRuleRequest, GetServiceRequest, SetRuleRequest};
use gossd::plugin::grpc::generated::{DeregisterRequest, RegisterRequest, RenewRequest};

use crate::grpc_channel::GrpcChannel;
use crate::plugin::{AgentAddress, ServiceFields};

/// Both plugins; gost has one channel for each.
pub(crate) struct GrpcPlugin {
    sd: GrpcChannel,
    ingress: GrpcChannel,
    token: Option<MetadataValue<Ascii>>,
    service: String,
}

impl GrpcPlugin {
    pub(crate) fn new(reach: &AgentAddress) -> anyhow::Result<Self> {
        let AgentAddress { agent, token, service } = reach.clone();
        let token = token.map(|token| token.parse()).transpose()?;
        Ok(Self { sd: GrpcChannel::new(&agent), ingress: GrpcChannel::new(&agent), token, service })
    }

    pub(crate) async fn register(&self, service: &ServiceFields) -> anyhow::Result<()> {
        let request = RegisterRequest { service: Some(message(service)) };
        ignored(self.sd().register(self.with_token(request)).await)
    }

    pub(crate) async fn renew(&self, service: &ServiceFields) -> anyhow::Result<()> {
        let request = RenewRequest { service: Some(message(service)) };
        ignored(self.sd().renew(self.with_token(request)).await)
    }

    pub(crate) async fn deregister(&self, service: &ServiceFields) -> anyhow::Result<()> {
        let request = DeregisterRequest { service: Some(message(service)) };
        ignored(self.sd().deregister(self.with_token(request)).await)
    }

    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<Vec<ServiceFields>> {
        let reply = self.sd().get(self.with_token(GetServiceRequest { name: name.into() })).await?;
        Ok(reply.into_inner().services.into_iter().map(service).collect())
    }

    pub(crate) async fn get_rule(&self, host: &str) -> anyhow::Result<String> {
        let request = GetRuleRequest { host: host.into(), service: self.service.clone() };
        Ok(self.ingress().get_rule(self.with_token(request)).await?.into_inner().endpoint)
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) -> anyhow::Result<bool> {
        let request =
            SetRuleRequest { host: host.into(), endpoint: endpoint.into(), service: self.service.clone() };
        Ok(self.ingress().set_rule(self.with_token(request)).await?.get_ref().ok)
    }

    fn sd(&self) -> SdClient<GrpcChannel> {
        SdClient::new(self.sd.clone())
    }

    fn ingress(&self) -> IngressClient<GrpcChannel> {
        IngressClient::new(self.ingress.clone())
    }

    /// Puts the token where gost puts it: in the metadata `token`.
    fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// gost looks only at the error of a write, not at its `ok`.
fn ignored<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<()> {
    answer.map(drop).map_err(Into::into)
}

fn message(service: &ServiceFields) -> generated::Service {
    let ServiceFields { id, name, node, network, address } = service.clone();
    generated::Service { id, name, node, network, address }
}

fn service(message: generated::Service) -> ServiceFields {
    let generated::Service { id, name, node, network, address } = message;
    ServiceFields { id, name, node, network, address }
}
