//! gost's calls of its sd and ingress plugins, whichever type they have. Errors end here as they end in gost:
//! in its log. Knows nothing of tunnels.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plugin_grpc::GrpcPlugin;
use crate::plugin_http::HttpPlugin;

/// gost's name of its first service, which it tells the ingress plugin.
pub(crate) const SERVICE: &str = "service-0";

/// A connector as gost tells it: all five fields, always, in this order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) network: String,
    pub(crate) address: String,
}

/// A plugin type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Http,
    Grpc,
}

/// Both plugins of one gost.
pub(crate) enum Plugin {
    Http(HttpPlugin),
    Grpc(Box<GrpcPlugin>),
}

impl Plugin {
    pub(crate) fn new(kind: Kind, agent: &str, token: Option<&str>) -> anyhow::Result<Arc<Self>> {
        let plugin = match kind {
            Kind::Http => Self::Http(HttpPlugin::new(agent, token)),
            Kind::Grpc => Self::Grpc(Box::new(GrpcPlugin::new(agent, token)?)),
        };
        Ok(Arc::new(plugin))
    }

    pub(crate) async fn register(&self, service: &Service) {
        let done = match self {
            Self::Http(http) => http.write("POST", service).await,
            Self::Grpc(grpc) => grpc.register(service).await,
        };
        log("Register", &service.id, done);
    }

    /// gost drops the error; this says it, for whoever reads why a test failed.
    pub(crate) async fn renew(&self, service: &Service) {
        let done = match self {
            Self::Http(http) => http.write("PUT", service).await,
            Self::Grpc(grpc) => grpc.renew(service).await,
        };
        log("Renew", &service.id, done);
    }

    pub(crate) async fn deregister(&self, service: &Service) {
        let done = match self {
            Self::Http(http) => http.write("DELETE", service).await,
            Self::Grpc(grpc) => grpc.deregister(service).await,
        };
        log("Deregister", &service.id, done);
    }

    /// The records of a tunnel, in the agent's order. An error is an empty list.
    pub(crate) async fn get(&self, tunnel: &str) -> Vec<Service> {
        let got = match self {
            Self::Http(http) => http.get(tunnel).await,
            Self::Grpc(grpc) => grpc.get(tunnel).await,
        };
        log("Get", tunnel, got).unwrap_or_default()
    }

    /// The endpoint of a host; empty if it has none, or at an error.
    pub(crate) async fn get_rule(&self, host: &str) -> String {
        let got = match self {
            Self::Http(http) => http.get_rule(host).await,
            Self::Grpc(grpc) => grpc.get_rule(host).await,
        };
        log("GetRule", host, got).unwrap_or_default()
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) {
        let done = match self {
            Self::Http(http) => http.set_rule(host, endpoint).await,
            Self::Grpc(grpc) => grpc.set_rule(host, endpoint).await,
        };
        if log("SetRule", host, done) == Some(false) {
            eprintln!("SetRule {host}: not ok");
        }
    }
}

fn log<T>(call: &str, of: &str, done: anyhow::Result<T>) -> Option<T> {
    done.inspect_err(|error| eprintln!("{call} {of}: {error:#}")).ok()
}
