//! What operators may ask of an agent and its own modules do not know: see [`Outside`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::importer::Importer;
use crate::ingress_file;
use crate::metrics::{ProcessMetrics, Sheet};
use crate::net::Cluster;
use crate::ops::{About, HostNames, Outside, report};
use crate::own_log::OwnLog;
use crate::plugin::{By, ClaimRefused, Found, Ingress, Meter};
use crate::rejected::{Reason, RejectedCounts};
use crate::wall_clock;
use gossd_core::hostname::TunnelId;

pub(super) fn outside(
    cluster: &Cluster,
    meter: &Meter,
    ingress_file: ingress_file::FileHealth,
    log: OwnLog,
    importer: Importer,
    standing: Vec<report::Problem>,
    about: About,
) -> Outside {
    let ingress = importer.ingress().clone();
    let mut metrics = Registry::default();
    metrics.register_collector(Box::new(ingress.agent().clone()));
    metrics.register_collector(Box::new(cluster.clone()));
    metrics.register_collector(Box::new(meter.clone()));
    metrics.register_collector(Box::new(ingress_file.clone()));
    metrics.register_collector(Box::new(ProcessMetrics::of_this_one()));
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    metrics.register("gossd_build", "Version of this program", build);
    let calls = meter.clone();
    let rejected = Arc::<RejectedCounts>::default();
    metrics.register_collector(Box::new(AdminRejected(rejected.clone())));
    let dropped = "Log lines dropped because standard error did not accept them";
    metrics.register("gossd_log_lines_dropped", dropped, log.dropped);
    Outside {
        about,
        hosts: host_names(ingress),
        import: Box::new(move |order| importer.import(order)),
        ingress_file: Box::new(move || ingress_file.report()),
        calls: Box::new(move || calls.counts()),
        metrics,
        rejected,
        calls_rejected: meter.rejected.clone(),
        standing,
        log: log.recent,
    }
}

/// The metric of requests that the operators' door turned away.
#[derive(Debug)]
struct AdminRejected(Arc<RejectedCounts>);

impl Collector for AdminRejected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests to the admin listener and the control socket that were turned away";
        Sheet::new(encoder).counts("gossd_admin_rejected", help, self.0.labelled(|why| why != Reason::Path))
    }
}

fn host_names(ingress: Ingress) -> HostNames {
    let (every, changes, refusing) = (ingress.clone(), ingress.clone(), ingress.clone());
    HostNames {
        find: Box::new(move |host| ingress.explain(host).map(reported)),
        all: Box::new(move || every.rules().into_iter().map(reported).collect()),
        refused: Box::new(move |host| refusing.refused(host).into_iter().map(refused).collect()),
        revision: Box::new(move || changes.revision()),
    }
}

fn refused((tunnel, why, ago): (TunnelId, ClaimRefused, Duration)) -> report::RefusedClaim {
    report::RefusedClaim { tunnel: tunnel.to_string(), at: wall_clock::ago(ago), why: why.to_string() }
}

fn reported(found: Found) -> (report::HostReport, String) {
    let by = match found.by {
        By::Configured => "configured",
        By::Claimed => "claimed",
        By::Hash => "hash",
    };
    let host = report::HostReport { rule: found.rule, by: by.into(), private: found.endpoint.private };
    (host, found.endpoint.tunnel.to_string())
}
