//! The tunnels of a gost instance: the connectors of each, and the ticker that renews them. Like gost's, the ticker
//! holds, while it renews, the lock that a visitor's request needs. Knows neither listeners nor lookups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use tokio::sync::RwLock;
use tokio::time::{MissedTickBehavior, interval};

use crate::connector::ClientConnection;
use crate::plugin::{Registry, ServiceFields};

/// One tunnel of one instance. An empty tunnel stays: gost removes it only after a quarter of an hour.
pub(crate) struct GostTunnel {
    name: String,
    node: String,
    plugins: Arc<Registry>,
    /// Includes dead connectors until the next tick.
    connectors: RwLock<Vec<Arc<ClientConnection>>>,
}

impl GostTunnel {
    /// A live connector. If there is only one, it is taken whatever its network; among several, one of the wanted
    /// network. Waits while a renewal runs.
    pub(crate) async fn connector(&self, network: &str) -> Option<Arc<ClientConnection>> {
        let connectors = self.connectors.read().await;
        if let [only] = &connectors[..] {
            return only.is_live().then(|| only.clone());
        }
        let fits = |connector: &&Arc<ClientConnection>| connector.is_live() && connector.network == network;
        let fitting: Vec<_> = connectors.iter().filter(fits).collect();
        fitting.choose(&mut rand::rng()).map(|connector| Arc::clone(connector))
    }

    async fn renew_for_ever(&self, ttl: Duration) {
        let mut ticks = interval(ttl);
        // A Go ticker drops ticks that come while its reader is busy.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let mut connectors = self.connectors.write().await;
            connectors.retain(|connector| connector.is_live());
            for connector in &*connectors {
                self.plugins.current().renew(&self.record(connector, "", "")).await;
            }
        }
    }

    /// A connector as a call sends it; only Register has a network and an address.
    pub(crate) fn record(&self, connector: &ClientConnection, network: &str, address: &str) -> ServiceFields {
        let [id, name, node] = [&connector.id, &self.name, &self.node].map(Clone::clone);
        ServiceFields { id, name, node, network: network.into(), address: address.into() }
    }
}

/// The tunnels of one instance.
pub(crate) struct GostTunnels {
    node: String,
    ttl: Duration,
    plugins: Arc<Registry>,
    by_name: StdMutex<HashMap<String, Arc<GostTunnel>>>,
}

impl GostTunnels {
    pub(crate) fn new(node: String, ttl: Duration, plugins: Arc<Registry>) -> Self {
        Self { node, ttl, plugins, by_name: StdMutex::default() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<GostTunnel>> {
        self.by_name.lock().expect("no panic holds it").get(name).cloned()
    }

    /// Adds a connector, so that visitors find it.
    pub(crate) async fn add(&self, name: &str, connector: &Arc<ClientConnection>) -> Arc<GostTunnel> {
        let tunnel = self.get_or_open(name);
        tunnel.connectors.write().await.push(connector.clone());
        tunnel
    }

    fn get_or_open(&self, name: &str) -> Arc<GostTunnel> {
        let mut by_name = self.by_name.lock().expect("no panic holds it");
        let open = || {
            let tunnel = Arc::new(GostTunnel {
                name: name.into(),
                node: self.node.clone(),
                plugins: self.plugins.clone(),
                connectors: RwLock::default(),
            });
            let (renewed, ttl) = (tunnel.clone(), self.ttl);
            tokio::spawn(async move { renewed.renew_for_ever(ttl).await });
            tunnel
        };
        by_name.entry(name.into()).or_insert_with(open).clone()
    }

    /// Closes every client's connection, as gost does when it ends or reloads.
    pub(crate) async fn close(&self) {
        let tunnels: Vec<_> = self.by_name.lock().expect("no panic holds it").values().cloned().collect();
        for tunnel in tunnels {
            tunnel.connectors.read().await.iter().for_each(|connector| connector.close());
        }
    }
}
