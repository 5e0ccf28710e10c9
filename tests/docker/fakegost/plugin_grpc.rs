//! gost's gRPC plugin client: its calls and its token, over channels that break and come back as grpc-go's do.

use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Request, Status};

use gossd::plugin::grpc::generated::ingress_client::IngressClient;
use gossd::plugin::grpc::generated::sd_client::SdClient;
use gossd::plugin::grpc::generated::{self, GetRuleRequest, GetServiceRequest, SetRuleRequest};
use gossd::plugin::grpc::generated::{DeregisterRequest, RegisterRequest, RenewRequest};

use crate::grpc_channel::Reconnecting;
use crate::plugin::{SERVICE, Service};

/// Both plugins; gost dials for each of them.
pub(crate) struct GrpcPlugin {
    sd: Reconnecting,
    ingress: Reconnecting,
    token: Token,
}

/// Puts the token where gost does: in the metadata `token`.
#[derive(Clone)]
struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

impl GrpcPlugin {
    pub(crate) fn new(agent: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let token = Token(token.map(str::parse).transpose()?);
        Ok(Self { sd: Reconnecting::new(agent)?, ingress: Reconnecting::new(agent)?, token })
    }

    pub(crate) async fn register(&self, service: &Service) -> anyhow::Result<()> {
        let request = RegisterRequest { service: Some(message(service)) };
        done(self.sd().await?.register(request).await?.get_ref().ok)
    }

    pub(crate) async fn renew(&self, service: &Service) -> anyhow::Result<()> {
        let request = RenewRequest { service: Some(message(service)) };
        done(self.sd().await?.renew(request).await?.get_ref().ok)
    }

    pub(crate) async fn deregister(&self, service: &Service) -> anyhow::Result<()> {
        let request = DeregisterRequest { service: Some(message(service)) };
        done(self.sd().await?.deregister(request).await?.get_ref().ok)
    }

    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<Vec<Service>> {
        let reply = self.sd().await?.get(GetServiceRequest { name: name.into() }).await?;
        Ok(reply.into_inner().services.into_iter().map(service).collect())
    }

    pub(crate) async fn get_rule(&self, host: &str) -> anyhow::Result<String> {
        let request = GetRuleRequest { host: host.into(), service: SERVICE.into() };
        Ok(self.ingress().await?.get_rule(request).await?.into_inner().endpoint)
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) -> anyhow::Result<bool> {
        let request =
            SetRuleRequest { host: host.into(), endpoint: endpoint.into(), service: SERVICE.into() };
        Ok(self.ingress().await?.set_rule(request).await?.get_ref().ok)
    }

    async fn sd(&self) -> anyhow::Result<SdClient<InterceptedService<Channel, Token>>> {
        Ok(SdClient::with_interceptor(self.sd.channel().await?, self.token.clone()))
    }

    async fn ingress(&self) -> anyhow::Result<IngressClient<InterceptedService<Channel, Token>>> {
        Ok(IngressClient::with_interceptor(self.ingress.channel().await?, self.token.clone()))
    }
}

fn done(ok: bool) -> anyhow::Result<()> {
    anyhow::ensure!(ok, "not ok");
    Ok(())
}

fn message(service: &Service) -> generated::Service {
    let Service { id, name, node, network, address } = service.clone();
    generated::Service { id, name, node, network, address }
}

fn service(message: generated::Service) -> Service {
    let generated::Service { id, name, node, network, address } = message;
    Service { id, name, node, network, address }
}
