//! `gossd import`: what gost's Redis plugins keep of the gosts of this host, to the agent that runs here.

pub(super) mod store;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use axum::http::Method;
use clap::Args;
use serde::{Deserialize, Serialize};

use self::store::{BadKey, Found, Place};
use super::ask::{self, AgentArgs};
use super::client::Client;
use super::table::{self, BAD, DIM, GOOD, TextTable, USUAL, WARN};
use super::words::{count, plain};
use super::{NOTHING_FOUND, blame};
use crate::ops::report::{ImportHost, ImportOrder, ImportRecord, ImportReport, ImportState, ImportedOne};

/// Records or host names in one request: a few hundred kilobytes.
const BATCH: usize = 1_000;
/// Lines of each table that are printed.
const SHOWN: usize = 100;

/// Which store, and how to read it.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// redis://HOST:PORT[/DB], or rediss:// with TLS
    url: String,
    /// File with the password, on one line [default: the variable `GOSSD_REDIS_PASSWORD`]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File of certificates that rediss:// trusts [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// An address of this host's gost that does not look so, such as 127.0.0.1:8420
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// Also the rules of gost's own redis source, as flags: its key, a hash or a set
    #[arg(long, value_name = "KEY")]
    rules_key: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Tell what would be taken, and take nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asked: AgentArgs,
}

/// What an import did, or would do.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Whether nothing was taken.
    dry_run: bool,
    /// How long the store keeps a tunnel that is not renewed, in seconds.
    pub(super) expiry_seconds: Option<u64>,
    /// What became of everything that was read.
    #[serde(flatten)]
    pub(super) report: ImportReport,
    /// The operator's rules of gost's own source: flags of the agents, and no client's claims.
    pub(super) rules: Vec<ImportHost>,
    /// Keys that could not be read.
    bad: Vec<BadKey>,
    /// Keys that are of something else.
    other_keys: usize,
}

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let place = args.store.place()?;
    let outcome = ask::wait(async {
        let client = args.asked.changer().await?;
        Ok(args.store.bring(&place, &client, args.dry_run).await?.0)
    })?;
    let text = if args.asked.json { serde_json::to_string(&outcome)? + "\n" } else { outcome.page() };
    table::print(&text).context("cannot print")?;
    Ok(if outcome.is_empty() { NOTHING_FOUND.into() } else { ExitCode::SUCCESS })
}

impl StoreArgs {
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        Place::new(&self.url, self.password_file.as_deref(), self.ca_file.as_deref())
            .with_context(|| {
                let place = self.url.split('@').next_back().unwrap_or_default();
                plain(place.split('?').next().unwrap_or_default())
            })
            .map_err(blame::settings)
    }

    /// Reads the store, and gives it to an agent. What was read is returned as well.
    pub(super) async fn bring(
        &self,
        place: &Place,
        client: &Client,
        dry_run: bool,
    ) -> anyhow::Result<(Outcome, Found)> {
        let (place, rules) = (place.clone(), self.rules_key.clone());
        let read = tokio::task::spawn_blocking(move || place.open()?.read(rules.as_deref()));
        let mut found = read.await??;
        let empty = ImportOrder { dry_run, address: self.address.clone(), ..ImportOrder::default() };
        // Records first: host names go with the tunnels that are attached here.
        let records = self.give(client, dry_run, &found.records).await?;
        let mut report = ImportReport { records, hosts: Vec::new() };
        let here = report.records.iter().filter(|one| is_here(one)).map(|one| one.tunnel.clone());
        let here: BTreeSet<String> = here.collect();
        for hosts in found.hosts.chunks(BATCH) {
            let of = |host: &ImportHost| host.endpoint.trim_start_matches('$').to_owned();
            let attached = hosts.iter().map(of).filter(|tunnel| here.contains(tunnel)).collect();
            let order = ImportOrder { hosts: hosts.to_vec(), attached, ..empty.clone() };
            report.hosts.extend(order_of(client, &order).await?.hosts);
        }
        let bad = std::mem::take(&mut found.bad);
        let expiry_seconds = found.expiry.map(|expiry| expiry.as_secs());
        let (rules, other_keys) = (found.rules.clone(), found.others);
        Ok((Outcome { dry_run, expiry_seconds, report, rules, bad, other_keys }, found))
    }

    /// Gives records to an agent, or asks what it would do with them. What became of each.
    pub(super) async fn give(
        &self,
        client: &Client,
        dry_run: bool,
        records: &[ImportRecord],
    ) -> anyhow::Result<Vec<ImportedOne>> {
        let mut became = Vec::new();
        for records in records.chunks(BATCH) {
            let (address, records) = (self.address.clone(), records.to_vec());
            let order = ImportOrder { dry_run, address, records, ..ImportOrder::default() };
            became.extend(order_of(client, &order).await?.records);
        }
        Ok(became)
    }

    /// Puts back what plugins need: records of these gosts, and host names.
    pub(super) async fn put_back(
        place: Place,
        records: Vec<ImportRecord>,
        hosts: Vec<ImportHost>,
        expiry: std::time::Duration,
    ) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || place.open()?.put_back(&records, &hosts, expiry)).await?
    }
}

async fn order_of(client: &Client, order: &ImportOrder) -> anyhow::Result<ImportReport> {
    let body = serde_json::to_vec(order)?.into();
    Ok(client.report(Method::POST, "/import", body).await?.report)
}

/// Whether something is of this host, and the agent has it or would.
pub(super) fn is_here(one: &ImportedOne) -> bool {
    matches!(one.state, ImportState::Taken | ImportState::Held | ImportState::Renewed)
}

impl Outcome {
    /// Whether the store had nothing of this host.
    fn is_empty(&self) -> bool {
        !self.report.records.iter().chain(&self.report.hosts).any(is_here)
    }

    /// What keeps a switch from being safe: what the agent does not take of this host.
    pub(super) fn refused(&self) -> impl Iterator<Item = &ImportedOne> {
        let all = self.report.records.iter().chain(&self.report.hosts);
        all.filter(|one| one.state == ImportState::Refused)
    }

    fn page(&self) -> String {
        let ImportReport { records, hosts } = &self.report;
        let mut text = format!("{}\n{}\n", self.sum(records, "record"), self.sum(hosts, "host name"));
        if self.dry_run {
            text += "nothing was taken: --dry-run\n";
        }
        if self.is_empty() {
            text += "nothing there is of a gost of this host\n";
        }
        text += &list("RECORD", records, |one| one.address.as_deref().unwrap_or("-"));
        text += &list("HOST NAME", hosts, |_| "-");
        if !self.rules.is_empty() {
            text += "\nrules of gost's own source, for every agent:\n";
            let rules = self.rules.iter().take(SHOWN);
            text.extend(
                rules.map(|rule| {
                    format!("  --ingress-rule '{}={}'\n", plain(&rule.host), plain(&rule.endpoint))
                }),
            );
            text += &more(self.rules.len());
        }
        if !self.bad.is_empty() {
            let mut table = TextTable::new(&["SKIPPED", "WHY"]);
            for BadKey { key, why } in self.bad.iter().take(SHOWN) {
                table.row(BAD, &[key, why]);
            }
            text = text + "\n" + &table.text() + &more(self.bad.len());
        }
        if self.other_keys > 0 {
            text = text + "\n" + &count(self.other_keys, "key") + " of something else\n";
        }
        text
    }

    /// `2 records taken, 1 known already, 3 of other hosts`.
    fn sum(&self, all: &[ImportedOne], what: &str) -> String {
        let of = |states: &[ImportState]| all.iter().filter(|one| states.contains(&one.state)).count();
        let taken = if self.dry_run { "to take" } else { "taken" };
        let parts = [
            (of(&[ImportState::Held, ImportState::Renewed]), "known already"),
            (of(&[ImportState::Elsewhere]), "of other hosts"),
            (of(&[ImportState::Refused]), "refused"),
        ];
        let parts = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
        format!("{} {taken}{}", count(of(&[ImportState::Taken]), what), parts.collect::<String>())
    }
}

/// A table of them, those first that are refused.
fn list(title: &'static str, all: &[ImportedOne], at: impl Fn(&ImportedOne) -> &str) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&ImportedOne> = all.iter().collect();
    sorted.sort_by_key(|one| urgency(one.state));
    let mut table = TextTable::new(&[title, "TUNNEL", "ADDRESS", "RESULT", "WHY"]);
    for one in sorted.iter().take(SHOWN) {
        let (style, state) = match one.state {
            ImportState::Taken => (GOOD, "taken"),
            ImportState::Held => (USUAL, "known"),
            ImportState::Renewed => (USUAL, "renewed"),
            ImportState::Elsewhere => (DIM, "elsewhere"),
            ImportState::Refused => (WARN, "refused"),
        };
        table.row(style, &[&one.what, &one.tunnel, at(one), state, one.why.as_deref().unwrap_or("-")]);
    }
    format!("\n{}{}", table.text(), more(all.len()))
}

/// What somebody has to look at first, from 0; what is another host's business comes last.
fn urgency(state: ImportState) -> u8 {
    match state {
        ImportState::Refused => 0,
        ImportState::Taken => 1,
        ImportState::Held => 2,
        ImportState::Renewed => 3,
        ImportState::Elsewhere => 4,
    }
}

fn more(all: usize) -> String {
    if all > SHOWN { format!("{} more: --json has all\n", all - SHOWN) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(what: &str, state: ImportState, why: Option<&str>) -> ImportedOne {
        let (what, why) = (what.into(), why.map(str::to_owned));
        ImportedOne { what, tunnel: "t".into(), address: Some("10.0.0.1:8420".into()), state, why }
    }

    #[test]
    fn what_is_refused_comes_first_and_what_is_of_others_last() {
        let records = vec![
            one("3", ImportState::Refused, Some("no room")),
            one("1", ImportState::Taken, None),
            one("2", ImportState::Elsewhere, Some("its address is of another host")),
        ];
        let hosts = vec![one("app.example.org", ImportState::Taken, None)];
        let bad = vec![BadKey { key: "x".into(), why: "no".into() }];
        let outcome = Outcome {
            dry_run: true,
            report: ImportReport { records, hosts },
            bad,
            other_keys: 2,
            ..Outcome::default()
        };
        let want = "\
1 record to take, 1 of other hosts, 1 refused
1 host name to take
nothing was taken: --dry-run

RECORD  TUNNEL  ADDRESS        RESULT     WHY
3       t       10.0.0.1:8420  refused    no room
1       t       10.0.0.1:8420  taken      -
2       t       10.0.0.1:8420  elsewhere  its address is of another host

HOST NAME        TUNNEL  ADDRESS  RESULT  WHY
app.example.org  t       -        taken   -

SKIPPED  WHY
x        no

2 keys of something else
";
        assert_eq!(anstream::adapter::strip_str(&outcome.page()).to_string(), want);
        assert_eq!(outcome.refused().map(|one| &*one.what).collect::<Vec<_>>(), ["3"]);
    }
}
