//! The agent's metrics: records and their changes, peers and their state, and the journal.

use std::cmp::Reverse;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::Agent;
use crate::metrics::{Sheet, amount};
use gossd_core::agent::{HealedFrom, MemberView, View};
use gossd_core::complaint::Refusal;
use gossd_core::liveness::Standing;

/// So many peers have a series each: of a thousand agents, all pairs would be a million series.
const PAIRS: usize = 100;
/// Of more, so many have.
const FARTHEST: usize = 10;

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({})", self.owner())
    }
}

impl Collector for Agent {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (view, mut sheet) = (self.view(), Sheet::new(encoder));
        holdings(&view, &mut sheet)?;
        let healed = self.heals().into_iter().map(|(from, times)| ([("from", word(from))], times));
        sheet.counts("gossd_heals", "Renews of unknown ids, by where their record was found", healed)?;
        peers(&view, &mut sheet)?;
        levels(&view, &mut sheet)?;
        journal(&view, &mut sheet)
    }
}

fn holdings(view: &View, sheet: &mut Sheet<'_>) -> fmt::Result {
    let counts = view.counts;
    let records = [
        ([("owner", "self")], amount(counts.own_records)),
        ([("owner", "peers")], amount(counts.records.saturating_sub(counts.own_records))),
    ];
    sheet.levels("gossd_records", "Known live records, by owner", records)?;
    sheet.level(
        "gossd_records_max",
        "Most records that may be registered here",
        amount(view.quota.records),
    )?;
    sheet.level(
        "gossd_records_lapsed",
        "Own records that lapsed and can still be revived",
        amount(view.lapsed),
    )?;
    sheet.level("gossd_tunnels", "Tunnels with a record anywhere", amount(view.tunnels))?;
    sheet.level("gossd_rules", "Claims on host names that are known", amount(counts.claims))?;
    sheet.count("gossd_lapses", "Own records that lapsed", view.changes.lapsed)?;
    sheet.count(
        "gossd_lapses_by_get",
        "Own records that lapsed because their gost asked for them",
        view.changes.asked,
    )?;
    let dialled = ["answered", "refused", "mute", "silent"].map(|result| [("result", result)]);
    let dialled = dialled.into_iter().zip(view.changes.dialled);
    sheet.counts("gossd_gost_dials", "Dials of gosts that may be dead or frozen, by result", dialled)?;
    let tried = ["works", "refused", "silent"].map(|result| [("result", result)]);
    let tried = tried.into_iter().zip(view.changes.tried);
    sheet.counts(
        "gossd_entrypoint_dials",
        "Dials of entrypoints that visitors here want, by result",
        tried,
    )?;
    sheet.level(
        "gossd_entrypoints_unreached",
        "Entrypoints of peers that are dialled in vain from here, although visitors want them",
        amount(view.unreached.len()),
    )?;
    sheet.level(
        "gossd_own_entrypoints_unreached",
        "Entrypoints of this host's gosts that peers do not reach",
        amount(view.own_unreached.len()),
    )?;
    sheet.count(
        "gossd_detours",
        "Answers that began with another host's gost, because no record can be dialled from here",
        view.changes.detours,
    )?;
    sheet.count(
        "gossd_detour_offers_dropped",
        "Offers of peers that this agent had not asked for, or not any more",
        view.changes.offers_dropped,
    )?;
    let draining = f64::from(u8::from(view.draining));
    sheet.level("gossd_draining", "1 while this agent drains and peers do not list its records", draining)?;
    sheet.level("gossd_private_tunnels", "Tunnels that are private", amount(counts.private))?;
    sheet.count("gossd_revivals", "Own records that a late Renew revived", view.changes.revived)
}

fn peers(view: &View, sheet: &mut Sheet<'_>) -> fmt::Result {
    let peers = view.members.get(1..).unwrap_or_default();
    let of = |standing| peers.iter().filter(|peer: &&MemberView| peer.standing == standing).count();
    let standings = [
        (Standing::Live, "alive"),
        (Standing::Doubted, "doubted"),
        (Standing::Suspect, "suspect"),
        (Standing::Hidden, "dead"),
    ];
    let states = standings.map(|(standing, word)| ([("state", word)], amount(of(standing))));
    sheet.levels("gossd_peers", "Peers by their state", states)?;
    let trips = peers.iter().filter_map(|peer| Some((&peer.name, peer.trip?)));
    let mut trips: Vec<_> = trips.collect();
    if trips.len() > PAIRS {
        trips.sort_unstable_by_key(|(_, trip)| Reverse(*trip));
        trips.truncate(FARTHEST);
    }
    let trips =
        trips.into_iter().map(|(name, trip)| ([("peer", name.as_str().to_owned())], trip.as_secs_f64()));
    let help = "Smoothed round-trip time to a peer; of more than 100, to the ten farthest";
    sheet.levels("gossd_peer_rtt_seconds", help, trips)?;
    let refused = peers.iter().flat_map(|peer| {
        let counts = peer.complaint.map(|complaint| complaint.counts).into_iter();
        let counted = counts.flat_map(|counts| Refusal::ALL.into_iter().zip(counts));
        let counted = counted.filter(|(_, count)| *count > 0);
        counted.map(|((_, why), count)| {
            ([("peer", peer.name.as_str().to_owned()), ("reason", why.to_owned())], count)
        })
    });
    sheet.counts("gossd_peer_refused", "Messages from a peer that were rejected", refused)?;
    let doubts = f64::from(u8::from(view.doubts_itself));
    sheet.level(
        "gossd_doubts_itself",
        "1 if so many peers vanished together that the cause is probably this host",
        doubts,
    )
}

fn levels(view: &View, sheet: &mut Sheet<'_>) -> fmt::Result {
    let held = view.levels.iter().map(|level| ([("table", level.word)], amount(level.held)));
    sheet.levels("gossd_table_entries", "Entries of the agent's tables", held)?;
    let most = view.levels.iter().map(|level| ([("table", level.word)], amount(level.most)));
    sheet.levels("gossd_table_entries_max", "Most entries of each table", most)
}

fn journal(view: &View, sheet: &mut Sheet<'_>) -> fmt::Result {
    let failing = f64::from(u8::from(view.journal.problem.is_some()));
    sheet.level("gossd_journal_failing", "1 if the journal cannot be written", failing)?;
    sheet.level("gossd_journal_pending", "Changes that are not on disk yet", amount(view.journal.pending))?;
    let bytes = usize::try_from(view.journal.bytes).unwrap_or(usize::MAX);
    sheet.level("gossd_journal_bytes", "Bytes of the journal's file", amount(bytes))?;
    let commit = view.journal.commit.as_secs_f64();
    sheet.level(
        "gossd_journal_commit_seconds",
        "Duration of the commit under way so far, or else of the last one",
        commit,
    )?;
    sheet.count(
        "gossd_journal_late_commits",
        "Commits that took over half a second",
        view.changes.late_commits,
    )?;
    sheet.count(
        "gossd_journal_errors",
        "Batches that could not be written to the journal",
        view.changes.journal_errors,
    )
}

fn word(from: HealedFrom) -> &'static str {
    match from {
        HealedFrom::FormerSelf => "former_self",
        HealedFrom::OtherOwner => "other_owner",
        HealedFrom::Sibling => "sibling",
        HealedFrom::Fallback => "fallback",
        HealedFrom::RegisteredLast => "registered_last",
        HealedFrom::Nothing => "nothing",
    }
}
