//! A gost instance's tunnels: the connectors of each, and the ticker that renews them *while it holds the lock that a
//! visitor's request needs*, as gost's does. Knows neither listeners nor lookups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use tokio::sync::RwLock;
use tokio::time::{MissedTickBehavior, interval};

use crate::connector::Connector;
use crate::plugin::{Registry, Service};

/// One tunnel of one instance. It stays when it is empty: gost removes it after a quarter of an hour.
pub(crate) struct Tunnel {
    name: String,
    node: String,
    plugins: Arc<Registry>,
    /// The dead are among them until the next tick.
    connectors: RwLock<Vec<Arc<Connector>>>,
}

impl Tunnel {
    /// A live connector. The only one is taken whatever its network is, which may be the wrong one; of several, one of
    /// the wanted network. Waits while a renewal runs.
    pub(crate) async fn connector(&self, network: &str) -> Option<Arc<Connector>> {
        let connectors = self.connectors.read().await;
        if let [only] = &connectors[..] {
            return only.is_live().then(|| only.clone());
        }
        let fits = |connector: &&Arc<Connector>| connector.is_live() && connector.network == network;
        let fitting: Vec<_> = connectors.iter().filter(fits).collect();
        fitting.choose(&mut rand::rng()).map(|connector| Arc::clone(connector))
    }

    async fn renew_for_ever(&self, ttl: Duration) {
        let mut ticks = interval(ttl);
        // A Go ticker drops what its reader is too slow for.
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

    /// A connector as a call tells it; only Register has a network and an address.
    pub(crate) fn record(&self, connector: &Connector, network: &str, address: &str) -> Service {
        let [id, name, node] = [&connector.id, &self.name, &self.node].map(Clone::clone);
        Service { id, name, node, network: network.into(), address: address.into() }
    }
}

/// The tunnels of one instance.
pub(crate) struct Tunnels {
    node: String,
    ttl: Duration,
    plugins: Arc<Registry>,
    by_name: StdMutex<HashMap<String, Arc<Tunnel>>>,
}

impl Tunnels {
    pub(crate) fn new(node: String, ttl: Duration, plugins: Arc<Registry>) -> Self {
        Self { node, ttl, plugins, by_name: StdMutex::default() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Tunnel>> {
        self.by_name.lock().expect("no panic holds it").get(name).cloned()
    }

    /// Puts a connector where visitors find it.
    pub(crate) async fn add(&self, name: &str, connector: &Arc<Connector>) -> Arc<Tunnel> {
        let tunnel = self.get_or_open(name);
        tunnel.connectors.write().await.push(connector.clone());
        tunnel
    }

    fn get_or_open(&self, name: &str) -> Arc<Tunnel> {
        let mut by_name = self.by_name.lock().expect("no panic holds it");
        let open = || {
            let tunnel = Arc::new(Tunnel {
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

    /// Ends every connection of a client, as gost does when it ends or is reloaded.
    pub(crate) async fn close(&self) {
        let tunnels: Vec<_> = self.by_name.lock().expect("no panic holds it").values().cloned().collect();
        for tunnel in tunnels {
            tunnel.connectors.read().await.iter().for_each(|connector| connector.close());
        }
    }
}
