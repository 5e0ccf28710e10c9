//! The gossip's figures: frames and bytes by kind, what was dropped and why, and how late changes arrive.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::Cluster;
use gossd_core::link::counters::Dropped;
use gossd_core::link::gauges::Gauge;
use gossd_core::link::wire::Kind;

use crate::metrics::{Sheet, amount};

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Collector for Cluster {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut sheet, counters) = (Sheet::new(encoder), self.counters());
        let of = |count: &dyn Fn(Kind) -> u64| Kind::ALL.map(|kind| ([("kind", kind.word())], count(kind)));
        let sent = of(&|kind| counters.sent_of(kind));
        sheet.counts("gossd_frames_sent", "Gossip frames sent", sent)?;
        let bytes = of(&|kind| counters.sent_bytes_of(kind));
        sheet.counts("gossd_frame_bytes_sent", "Bytes of them, without IP's and UDP's", bytes)?;
        let received = of(&|kind| counters.received_of(kind));
        sheet.counts("gossd_frames_received", "Gossip frames taken", received)?;
        let dropped = Dropped::ALL.map(|(why, word)| ([("reason", word)], counters.dropped(why)));
        sheet.counts("gossd_dropped", "Frames and messages dropped", dropped)?;
        sheet.count(
            "gossd_pushes_given_up",
            "Pushes left to repair, once for each peer",
            counters.pushes_given_up(),
        )?;
        sheet.count("gossd_doubts", "How often a peer was silent for a moment", counters.doubts())?;
        sheet.count("gossd_suspicions", "How often a peer became suspect", counters.suspicions())?;
        let help = "Time from a peer's publishing a change to our taking it, by push: its own delay and half a round trip";
        sheet.histogram("gossd_propagation_seconds", help, &self.lags)?;
        let tables =
            Gauge::ALL.map(|(gauge, word, _)| ([("table", word)], amount(counters.gauges.get(gauge))));
        sheet.levels("gossd_gossip_entries", "Entries of the gossip's tables", tables)?;
        let bounds = Gauge::ALL.map(|(_, word, most)| ([("table", word)], amount(most)));
        sheet.levels("gossd_gossip_entries_max", "Entries that each may have", bounds)
    }
}
