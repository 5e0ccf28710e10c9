//! gost's calls of its sd and ingress plugins, whichever type they have. Errors end here as they end in gost:
//! in its log. Knows nothing of tunnels.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::plugin_grpc::GrpcPlugin;
use crate::plugin_http::HttpPlugin;
use crate::rule_file::RuleFile;

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

/// What gost is told of its plugins.
#[derive(Clone, Debug, Args)]
pub(crate) struct PluginArgs {
    /// The plugin type
    #[arg(long, value_enum)]
    plugin: Kind,
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

/// How an agent is reached, and under which name.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) agent: String,
    pub(crate) token: Option<String>,
    pub(crate) service: String,
}

/// Both plugins of one gost.
pub(crate) struct Plugin {
    calls: Calls,
    /// In place of the ingress plugin.
    rules: Option<RuleFile>,
}

enum Calls {
    Http(HttpPlugin),
    Grpc(GrpcPlugin),
}

impl Plugin {
    pub(crate) fn new(args: &PluginArgs) -> anyhow::Result<Arc<Self>> {
        let PluginArgs { plugin, agent, token, service, ingress_file } = args.clone();
        let reach = Reach { agent, token, service };
        let calls = match plugin {
            Kind::Http => Calls::Http(HttpPlugin::new(&reach)),
            Kind::Grpc => Calls::Grpc(GrpcPlugin::new(&reach)?),
        };
        Ok(Arc::new(Self { calls, rules: ingress_file.map(RuleFile::watch) }))
    }

    pub(crate) async fn register(&self, service: &Service) {
        let done = match &self.calls {
            Calls::Http(http) => http.write("POST", service).await,
            Calls::Grpc(grpc) => grpc.register(service).await,
        };
        log("Register", &service.id, done);
    }

    /// gost drops the error; this says it, for whoever reads why a test failed.
    pub(crate) async fn renew(&self, service: &Service) {
        let done = match &self.calls {
            Calls::Http(http) => http.write("PUT", service).await,
            Calls::Grpc(grpc) => grpc.renew(service).await,
        };
        log("Renew", &service.id, done);
    }

    pub(crate) async fn deregister(&self, service: &Service) {
        let done = match &self.calls {
            Calls::Http(http) => http.write("DELETE", service).await,
            Calls::Grpc(grpc) => grpc.deregister(service).await,
        };
        log("Deregister", &service.id, done);
    }

    /// The records of a tunnel, in the agent's order. An error is an empty list.
    pub(crate) async fn get(&self, tunnel: &str) -> Vec<Service> {
        let got = match &self.calls {
            Calls::Http(http) => http.get(tunnel).await,
            Calls::Grpc(grpc) => grpc.get(tunnel).await,
        };
        log("Get", tunnel, got).unwrap_or_default()
    }

    /// The endpoint of a host, as it is written; `None` if it has none, or at an error.
    pub(crate) async fn get_rule(&self, host: &str) -> Option<String> {
        if let Some(rules) = &self.rules {
            return rules.get(host);
        }
        let got = match &self.calls {
            Calls::Http(http) => http.get_rule(host).await,
            Calls::Grpc(grpc) => grpc.get_rule(host).await,
        };
        log("GetRule", host, got).filter(|endpoint| !endpoint.is_empty())
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) {
        if self.rules.is_some() {
            return;
        }
        let done = match &self.calls {
            Calls::Http(http) => http.set_rule(host, endpoint).await,
            Calls::Grpc(grpc) => grpc.set_rule(host, endpoint).await,
        };
        if log("SetRule", host, done) == Some(false) {
            eprintln!("SetRule {host}: not ok");
        }
    }
}

fn log<T>(call: &str, of: &str, done: anyhow::Result<T>) -> Option<T> {
    done.inspect_err(|error| eprintln!("{call} {of}: {error:#}")).ok()
}

/// The plugins in use: everybody asks for them by name, so that a reload replaces them under tunnels that are ending.
pub(crate) struct Registry {
    current: Mutex<Arc<Plugin>>,
    /// gost does not close the connections of an HTTP plugin that was replaced.
    leaked: Mutex<Vec<Arc<Plugin>>>,
}

impl Registry {
    pub(crate) fn new(plugin: Arc<Plugin>) -> Arc<Self> {
        Arc::new(Self { current: Mutex::new(plugin), leaked: Mutex::default() })
    }

    pub(crate) fn current(&self) -> Arc<Plugin> {
        self.current.lock().expect("no panic holds it").clone()
    }

    pub(crate) fn replace(&self, plugin: Arc<Plugin>) {
        let former = std::mem::replace(&mut *self.current.lock().expect("no panic holds it"), plugin);
        if matches!(former.calls, Calls::Http(_)) {
            self.leaked.lock().expect("no panic holds it").push(former);
        }
    }
}
