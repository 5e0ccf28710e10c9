//! How full the agent's tables are, and how full each may be: whatever comes and goes for years, each has a bound.

use super::State;
use super::frozen::MAX_FROZEN;
use super::holes::{MAX_HOLES, MAX_OFFERS};
use super::offers::MAX_OFFERED;
use super::reach::MAX_ENTRYPOINTS;
use super::unreached::MOST_LOGGED;
use crate::connection::MAX_INSTANCES;
use crate::entrypoints::MAX_REGISTERED;
use crate::event::MAX_EVENTS;
use crate::hostname::MAX_REMEMBERED;
use crate::instance::MAX_IDLE;
use crate::liveness::MAX_PEERS;
use crate::replicas::{MAX_AGENTS, MAX_GENERATIONS};
use crate::slot::{MAX_EACH, MAX_SLOT};
use crate::tombstone::MAX_TOMBSTONES;

/// How full a table is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The table's name in metrics.
    pub word: &'static str,
    /// Its entries.
    pub held: usize,
    /// How many they may be, as things are.
    pub most: usize,
}

impl State {
    pub(super) fn levels(&self) -> Vec<Level> {
        let Self { leases, directory, former, quota, .. } = self;
        let records = leases.live() + leases.lapsed();
        let generations = directory.replicas.generations();
        let (spoken, instances) = self.connections.len();
        let all = [
            ("released", leases.released(), MAX_TOMBSTONES),
            // What lives may lapse at once, and gives way bit by bit.
            ("lapsed", leases.lapsed(), 2 * quota.records),
            ("deadlines", leases.deadlines(), leases.deadlines_max()),
            ("entrypoints", leases.entrypoints(), records),
            ("instances", leases.instances(), records + MAX_IDLE),
            ("registered_entrypoints", self.entrypoints.len(), MAX_REGISTERED),
            ("slot_gaps", leases.slot_gaps(), MAX_EACH as usize),
            ("slot_places", directory.replicas.places(), generations * (MAX_SLOT as usize + 16)),
            ("claims", directory.claims.checked(), quota.claims + MAX_REMEMBERED),
            ("outbox", self.outbox.len(), MAX_SLOT as usize + 1),
            ("agents", directory.replicas.agents().count(), MAX_AGENTS),
            ("generations", generations, MAX_AGENTS * MAX_GENERATIONS),
            ("former_generations", former.replicas.generations(), MAX_GENERATIONS),
            ("peers", self.liveness.peers().count(), MAX_PEERS),
            ("silent_gosts", self.silence.len(), MAX_FROZEN),
            ("dialled_entrypoints", self.reaches.len(), MAX_ENTRYPOINTS),
            ("logged_entrypoints", self.logged.len(), MOST_LOGGED),
            ("holes", self.holes.len(), MAX_HOLES),
            ("detours", self.holes.offers(), MAX_HOLES * MAX_OFFERS),
            ("detours_offered", self.offers.len(), MAX_OFFERED),
            ("postponed", directory.replicas.postponed().count(), MAX_AGENTS),
            ("connection_instances", instances, spoken * MAX_INSTANCES),
            ("events", self.log.len(), MAX_EVENTS),
        ];
        all.map(|(word, held, most)| Level { word, held, most }).to_vec()
    }
}
