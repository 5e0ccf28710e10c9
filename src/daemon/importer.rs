//! What an operator moves here from another store: records of this host's gosts, and host names of their tunnels. They go the
//! way of gost's own calls, but for who comes first.

use std::sync::Arc;

use crate::ops::report::{ImportHost, ImportOrder, ImportRecord, ImportReport, ImportState, ImportedOne};
use crate::plugin::{Caller, Ingress, Reach};
use gossd_core::address::{Address, Entrypoint, Host};
use gossd_core::hostname::{Endpoint, HashHost};
use gossd_core::lease::{Holding, Imported};
use gossd_core::record::{Draft, Record};

/// No plugin connection has this number.
const NOBODY: Caller = Caller { remote: None, connection: u64::MAX };

/// Imports into one agent.
#[derive(Clone)]
pub(super) struct Importer {
    ingress: Ingress,
    reach: Arc<Reach>,
}

impl Importer {
    pub(super) fn new(ingress: Ingress, reach: Arc<Reach>) -> Self {
        Self { ingress, reach }
    }

    /// The host names.
    pub(super) fn ingress(&self) -> &Ingress {
        &self.ingress
    }

    /// Takes what can be taken; or, if it is not to be done, tells what would be.
    pub(super) fn import(&self, order: &ImportOrder) -> ImportReport {
        let records = order.records.iter().map(|record| self.record(order, record)).collect();
        let hosts = order.hosts.iter().map(|host| self.host(order, host)).collect();
        ImportReport { records, hosts }
    }

    fn record(&self, order: &ImportOrder, record: &ImportRecord) -> ImportedOne {
        let ImportRecord { id, name, node, network, address } = record;
        let told = |state, why: String| ImportedOne {
            what: id.clone(),
            tunnel: name.clone(),
            address: Some(address.clone()),
            state,
            why: Some(why).filter(|why| !why.is_empty()),
        };
        let draft = Draft { id, name, node, network, address };
        let entry = match draft.register(&self.reach.host(NOBODY)) {
            Ok(entry) => entry,
            Err(error) => return told(ImportState::Refused, error.to_string()),
        };
        if let Err(why) = self.is_here(address, order.address.as_deref()) {
            return told(ImportState::Elsewhere, why);
        }
        match self.take(order.dry_run, entry, address) {
            Ok(state) => told(state, String::new()),
            Err(why) => told(ImportState::Refused, why),
        }
    }

    fn take(&self, dry_run: bool, record: Record, address: &str) -> Result<ImportState, String> {
        let (agent, id) = (self.ingress.agent(), record.id.clone());
        let dial = Address::from(self.reach.dial(NOBODY, address));
        let found = if dry_run {
            agent.import_finds(&id)
        } else {
            let holding = Holding { record: Arc::new(record), dial };
            Some(agent.import(NOBODY, holding).map_err(|full| full.to_string())?)
        };
        Ok(match found {
            None | Some(Imported::Taken(_)) => ImportState::Taken,
            Some(Imported::Held { is_confirmed: true }) => ImportState::Renewed,
            Some(Imported::Held { is_confirmed: false }) => ImportState::Held,
            Some(Imported::Released) => return Err("gost has just deregistered it here".into()),
        })
    }

    /// Whether an address is one of a gost of this host, or else why not.
    fn is_here(&self, address: &str, given: Option<&str>) -> Result<(), String> {
        if given == Some(address) {
            return Ok(());
        }
        let entrypoint = Entrypoint::parse(address).map_err(|error| error.to_string())?;
        match entrypoint.host() {
            Host::Unusable => Err(format!(
                "{address} may be of any host: if it is of this one's gost, and of no other's, say --address {address}"
            )),
            host if self.reach.is_own(host) => Ok(()),
            _ => {
                Err("its address is of another host: import it there, or say --address if it is of this one"
                    .into())
            }
        }
    }

    fn host(&self, order: &ImportOrder, ImportHost { host, endpoint }: &ImportHost) -> ImportedOne {
        let told = |state, why: Option<String>| ImportedOne {
            what: host.clone(),
            tunnel: endpoint.clone(),
            address: None,
            state,
            why,
        };
        let Some(parsed) = Endpoint::parse(endpoint) else {
            return told(ImportState::Refused, Some("its value is no tunnel id, nor one behind a $".into()));
        };
        // A value that makes its tunnel private is a claim in any case.
        let is_private = !parsed.private || self.ingress.agent().is_private(parsed.tunnel);
        if is_private && HashHost::parse(host) == Some(HashHost::of(parsed.tunnel)) {
            return told(ImportState::Held, Some("a hash host: it needs no claim".into()));
        }
        if let Some(found) = self.ingress.explain(host)
            && found.endpoint.tunnel == parsed.tunnel
            && is_private
        {
            return told(ImportState::Held, None);
        }
        let tunnel = parsed.tunnel.to_string();
        if !self.ingress.agent().has_own(&tunnel) && !order.attached.contains(&tunnel) {
            let why = "its tunnel is not attached at this host: import it where it is; a client that connects claims it anew";
            return told(ImportState::Elsewhere, Some(why.into()));
        }
        match self.ingress.take_rule(host, parsed, order.dry_run) {
            Ok(()) => told(ImportState::Taken, None),
            Err(why) => told(ImportState::Refused, Some(why)),
        }
    }
}
