//! What the admin listener shows beside the agent's own state.

use std::net::SocketAddr;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::admin::{Outside, report};
use crate::gossip::Cluster;
use crate::ingress_file;
use crate::metrics::Runtime;
use crate::plugin::{By, Ingress, Meter};

/// What the admin listener shows of the configuration.
pub(super) struct About {
    pub(super) cluster: String,
    pub(super) address: SocketAddr,
    pub(super) joins: bool,
    pub(super) dropped_log_lines: Counter,
}

pub(super) fn outside(
    cluster: &Cluster,
    ingress: &Ingress,
    meter: &Meter,
    ingress_file: ingress_file::FileHealth,
    about: About,
) -> Outside {
    let mut metrics = Registry::default();
    metrics.register_collector(Box::new(ingress.agent().clone()));
    metrics.register_collector(Box::new(cluster.clone()));
    metrics.register_collector(Box::new(meter.clone()));
    metrics.register_collector(Box::new(ingress_file.clone()));
    metrics.register_collector(Box::new(Runtime::current()));
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    metrics.register("gossd_build", "Version of this program", build);
    let (peers, ingress) = (cluster.clone(), ingress.clone());
    let About { cluster, address, joins, dropped_log_lines } = about;
    let dropped = "Log lines dropped because standard error did not accept them";
    metrics.register("gossd_log_lines_dropped", dropped, dropped_log_lines);
    let by_name = move || peers.peers_now().into_iter().map(|peer| (peer.owner.name, peer.addr)).collect();
    Outside {
        cluster,
        address,
        joins,
        peers: Box::new(by_name),
        host: Box::new(move |host| explain_host(&ingress, host)),
        ingress_file: Box::new(move || ingress_file.report()),
        metrics,
    }
}

fn explain_host(ingress: &Ingress, host: &str) -> Option<(report::Host, String)> {
    let found = ingress.explain(host)?;
    let by = match found.by {
        By::Configured => "configured",
        By::Claimed => "claimed",
        By::Hash => "hash",
    };
    let host = report::Host { rule: found.rule, by: by.into(), private: found.endpoint.private };
    Some((host, found.endpoint.tunnel.to_string()))
}
