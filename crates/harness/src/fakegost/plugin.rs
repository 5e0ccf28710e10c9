//! The calls of gost's sd and ingress plugins, whichever their type. Errors end in the log, as in gost. Knows nothing
//! of tunnels.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::plugin_grpc::GrpcPlugin;
use crate::plugin_http::HttpPlugin;
use crate::rule_file::RuleFile;

/// A connector as gost sends it: always all five fields, in this order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ServiceFields {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) network: String,
    pub(crate) address: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PluginProtocol {
    Http,
    Grpc,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PluginArgs {
    /// The plugin type
    #[arg(long, value_enum)]
    plugin: PluginProtocol,
    /// Where the agent's plugin is; all addresses of a name are tried in order. Over HTTP a `?QUERY` may follow
    #[arg(long, default_value = "127.0.0.1:8000")]
    agent: String,
    /// The plugin's token
    #[arg(long)]
    token: Option<String>,
    /// gost's name of the service, which it tells the ingress plugin
    #[arg(long, default_value = "tunnel")]
    service: String,
    /// Rules are in this file and asked of nobody
    #[arg(long)]
    ingress_file: Option<PathBuf>,
}

/// How to reach an agent, and with which service name.
#[derive(Clone, Debug)]
pub(crate) struct AgentAddress {
    pub(crate) agent: String,
    pub(crate) token: Option<String>,
    pub(crate) service: String,
}

/// Both plugins of one gost.
pub(crate) struct Plugins {
    calls: PluginClient,
    /// Rules from a file, instead of the ingress plugin.
    rules: Option<RuleFile>,
}

enum PluginClient {
    Http(HttpPlugin),
    Grpc(GrpcPlugin),
}

impl Plugins {
    pub(crate) fn new(args: &PluginArgs) -> anyhow::Result<Arc<Self>> {
        let PluginArgs { plugin, agent, token, service, ingress_file } = args.clone();
        let reach = AgentAddress { agent, token, service };
        let calls = match plugin {
            PluginProtocol::Http => PluginClient::Http(HttpPlugin::new(&reach)),
            PluginProtocol::Grpc => PluginClient::Grpc(GrpcPlugin::new(&reach)?),
        };
        Ok(Arc::new(Self { calls, rules: ingress_file.map(RuleFile::watch) }))
    }

    pub(crate) async fn register(&self, service: &ServiceFields) {
        let done = match &self.calls {
            PluginClient::Http(http) => http.write("POST", service).await,
            PluginClient::Grpc(grpc) => grpc.register(service).await,
        };
        log("Register", &service.id, done);
    }

    /// gost drops the error. Here it is printed, to show why a test failed.
    pub(crate) async fn renew(&self, service: &ServiceFields) {
        let done = match &self.calls {
            PluginClient::Http(http) => http.write("PUT", service).await,
            PluginClient::Grpc(grpc) => grpc.renew(service).await,
        };
        log("Renew", &service.id, done);
    }

    pub(crate) async fn deregister(&self, service: &ServiceFields) {
        let done = match &self.calls {
            PluginClient::Http(http) => http.write("DELETE", service).await,
            PluginClient::Grpc(grpc) => grpc.deregister(service).await,
        };
        log("Deregister", &service.id, done);
    }

    /// The records of a tunnel, in the agent's order. An error counts as an empty list.
    pub(crate) async fn get(&self, tunnel: &str) -> Vec<ServiceFields> {
        let got = match &self.calls {
            PluginClient::Http(http) => http.get(tunnel).await,
            PluginClient::Grpc(grpc) => grpc.get(tunnel).await,
        };
        log("Get", tunnel, got).unwrap_or_default()
    }

    /// The endpoint of a host name; `None` if there is none, or at an error.
    pub(crate) async fn get_rule(&self, host: &str) -> Option<String> {
        if let Some(rules) = &self.rules {
            return rules.get(host);
        }
        let got = match &self.calls {
            PluginClient::Http(http) => http.get_rule(host).await,
            PluginClient::Grpc(grpc) => grpc.get_rule(host).await,
        };
        log("GetRule", host, got).filter(|endpoint| !endpoint.is_empty())
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) {
        if self.rules.is_some() {
            return;
        }
        let done = match &self.calls {
            PluginClient::Http(http) => http.set_rule(host, endpoint).await,
            PluginClient::Grpc(grpc) => grpc.set_rule(host, endpoint).await,
        };
        if log("SetRule", host, done) == Some(false) {
            eprintln!("SetRule {host}: not ok");
        }
    }
}

fn log<T>(call: &str, of: &str, done: anyhow::Result<T>) -> Option<T> {
    done.inspect_err(|error| eprintln!("{call} {of}: {error:#}")).ok()
}

/// The current plugins. Each user gets them by name, so that a reload replaces them even under tunnels that are ending.
pub(crate) struct Registry {
    current: Mutex<Arc<Plugins>>,
    /// gost does not close the connections of an HTTP plugin that was replaced.
    leaked: Mutex<Vec<Arc<Plugins>>>,
}

impl Registry {
    pub(crate) fn new(plugin: Arc<Plugins>) -> Arc<Self> {
        Arc::new(Self { current: Mutex::new(plugin), leaked: Mutex::default() })
    }

    pub(crate) fn current(&self) -> Arc<Plugins> {
        self.current.lock().expect("no panic holds it").clone()
    }

    pub(crate) fn replace(&self, plugin: Arc<Plugins>) {
        let former = std::mem::replace(&mut *self.current.lock().expect("no panic holds it"), plugin);
        if matches!(former.calls, PluginClient::Http(_)) {
            self.leaked.lock().expect("no panic holds it").push(former);
        }
    }
}
