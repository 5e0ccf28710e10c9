//! `gossd migrate`: a running gost calls this agent instead of its Redis plugins, and no client notices. Before, everything that
//! Redis has must be known here; afterwards, gost's Renews have to arrive. `--undo` goes back the same way.

mod gost_api;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::gost_api::{GostApi, Kind, Used, is_same, used};
use super::ask::{self, AgentArgs};
use super::client::{self, Client};
use super::import::store::Place;
use super::import::{Outcome, StoreArgs, is_here};
use super::words::{count, plain};
use super::{Cli, Verb, blame, gost_config, paths, table};
use crate::ops::MAX_LIMIT;
use crate::ops::report::{
    ConfigReport, Explanation, HostsReport, ImportHost, ImportRecord, ImportState, MemberState, StatusReport,
    TunnelsReport,
};
use gossd_core::hostname::{Endpoint, HashHost, TunnelId};

/// How often it is looked whether gost's Renews have come.
const LOOK: Duration = Duration::from_millis(500);
/// What is named of many, in one line.
const NAMED: usize = 10;

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// http://HOST:PORT of the Web API of the gost beside this agent
    #[arg(long, value_name = "URL")]
    gost_api: String,
    /// The user of gost's Web API, if it has one
    #[arg(long, value_name = "USER")]
    gost_api_user: Option<String>,
    /// File with that user's password, on one line [default: the variable `GOSSD_GOST_API_PASSWORD`]
    #[arg(long, value_name = "FILE")]
    gost_api_password_file: Option<PathBuf>,
    /// Put back the plugins that gost had, and what they need into Redis
    #[arg(long)]
    undo: bool,
    /// Where the former plugins are kept for --undo [default: in --data-dir of the agent, else in this user's state folder]
    #[arg(long, value_name = "FILE")]
    undo_file: Option<PathBuf>,
    /// Seconds to wait for gost's Renews: three times its tunnel.ttl, with some to spare
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    wait: u64,
    /// Switch although something that Redis has is not known here
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asked: AgentArgs,
}

/// What `--undo` needs.
#[derive(Debug, Serialize, Deserialize)]
struct Former {
    /// gost's Web API.
    gost: String,
    /// The entries as they were.
    plugins: Vec<FormerPlugin>,
    /// How long Redis kept a tunnel that is not renewed.
    expiry_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct FormerPlugin {
    kind: Kind,
    name: String,
    entry: Value,
}

pub(super) fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let place = args.store.place()?;
    let api =
        GostApi::new(&args.gost_api, args.gost_api_user.as_deref(), args.gost_api_password_file.as_deref());
    let api = api.context("--gost-api").map_err(blame::settings)?;
    ask::wait(async {
        let client = args.asked.changer().await?;
        let switch = Switch { args, place, api, client };
        if args.undo { switch.undo().await } else { switch.go().await }
    })
}

struct Switch<'a> {
    args: &'a MigrateArgs,
    place: Place,
    api: GostApi,
    client: Client,
}

impl Switch<'_> {
    async fn go(&self) -> anyhow::Result<()> {
        let status: StatusReport = self.client.get("/status.json").await?.report;
        ensure!(status.ready, "the agent is not ready: {}", first(&status));
        let (flags, sections) = self.sections(&status).await?;
        let all = used(&self.api.config().await?)?;
        let is_done = |one: &Used| is_same(&one.entry, one.kind.of(&sections));
        let (done, to_do): (Vec<Used>, Vec<Used>) = all.into_iter().partition(is_done);
        if to_do.is_empty() {
            ensure!(!done.is_empty(), "no service of gost at {} uses an sd or an ingress", self.api);
            self.say("gost calls this agent already")?;
            let (outcome, found) = self.args.store.bring(&self.place, &self.client, true).await?;
            return self.confirm(&outcome, found.records).await;
        }
        let fixed = to_do.iter().filter(|one| one.addr().is_none()).map(|one| one.name.clone());
        let fixed: Vec<String> = fixed.collect();
        if let Some(fixed) = named("they have rules or a source of their own, which would be gone", &fixed) {
            ensure!(
                self.args.force,
                "nothing was switched: these of gost's ingresses and sds are no plugins. Give the agents their rules with \
                 --ingress-rule, and switch with --force. {fixed}"
            );
        }
        for one in &to_do {
            let addr = one.addr().map_or_else(|| "no plugin".to_owned(), plain);
            self.say(&format!("{} of service {} calls {addr}", plain(&one.name), plain(&one.service)))?;
        }
        let (outcome, found) = self.args.store.bring(&self.place, &self.client, false).await?;
        self.agree(&status, &outcome, &found.records, &found.hosts).await?;
        let file = self.undo_file(&flags)?;
        let expiry_seconds = outcome.expiry_seconds.unwrap_or(60);
        keep(&file, &self.api, &to_do, expiry_seconds)?;
        for one in &to_do {
            let mut entry = one.kind.of(&sections).clone();
            entry["name"] = one.name.clone().into();
            if let Err(error) = self.api.put(one.kind, &one.name, &entry).await {
                let undone = self.put_back(&to_do).await;
                let after = if undone.is_ok() { "nothing has changed" } else { "try --undo" };
                return Err(error.context(format!("{} could not be switched: {after}", one.name)));
            }
        }
        self.say(&format!(
            "gost calls this agent now. The other hosts have to follow within {expiry_seconds} s: Redis forgets what this gost \
             does not renew there. `--undo` goes back; what it needs is in {}",
            file.display()
        ))?;
        // Clients that came between the reading and the switch.
        let (outcome, found) = self.args.store.bring(&self.place, &self.client, false).await?;
        self.confirm(&outcome, found.records).await?;
        self.say("now put the same into gost's configuration file, for its next start: `gossd gost-config` prints it")
    }

    /// Refuses to go on if visitors would miss anything.
    async fn agree(
        &self,
        status: &StatusReport,
        outcome: &Outcome,
        records: &[ImportRecord],
        hosts: &[ImportHost],
    ) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        let refused: Vec<String> = outcome
            .refused()
            .map(|one| format!("{} ({})", one.what, one.why.as_deref().unwrap_or("?")))
            .collect();
        wrong.extend(named("not taken", &refused));
        let away = status.members.iter().filter(|member| !member.this && member.state != MemberState::Left);
        let away = away.filter(|member| !matches!(member.state, MemberState::Alive | MemberState::Doubted));
        let away: Vec<String> = away.map(|member| member.name.clone()).collect();
        wrong.extend(named("not heard or not ready: agents", &away));
        let tunnels: BTreeSet<&str> = records.iter().map(|record| &*record.name).collect();
        let unknown = self.unknown_tunnels(&tunnels).await?;
        let hint = "not known here, so `gossd import` has to run at their hosts: tunnels";
        wrong.extend(named(hint, &unknown));
        let mut rules = Vec::new();
        for ImportHost { host, endpoint } in &outcome.rules {
            let named = self.explain(host.trim_start_matches(['*', '.'])).await?;
            let is_fixed = named.host.is_some_and(|found| found.by == "configured");
            if !is_fixed || named.name.as_deref() != Some(endpoint.trim_start_matches('$')) {
                rules.push(host.clone());
            }
        }
        wrong.extend(named("without an --ingress-rule here: rules", &rules));
        wrong.extend(named(
            "leading elsewhere here: host names",
            &self.strays(hosts, &tunnels, &unknown).await?,
        ));
        if wrong.is_empty() {
            let text = format!(
                "Redis and this agent agree: {}, {}",
                count(tunnels.len(), "tunnel"),
                count(hosts.len(), "host name")
            );
            return self.say(&text);
        }
        let wrong = wrong.join("\n  ");
        ensure!(
            self.args.force,
            "nothing was switched, because visitors would miss something (--force switches anyway):\n  {wrong}"
        );
        self.say(&format!("switching anyway:\n  {wrong}"))
    }

    /// Of these tunnels, those without a record that is listed here.
    async fn unknown_tunnels(&self, tunnels: &BTreeSet<&str>) -> anyhow::Result<Vec<String>> {
        let path = client::path("/services.json", &[("limit", &MAX_LIMIT.to_string())]);
        let list: TunnelsReport = self.client.get(&path).await?.report;
        let listed: BTreeSet<&str> =
            list.services.iter().filter(|one| one.listed > 0).map(|one| &*one.name).collect();
        let mut unknown = Vec::new();
        for tunnel in tunnels.iter().filter(|tunnel| !listed.contains(**tunnel)) {
            if list.total <= list.services.len() || self.explain(tunnel).await?.eligible == 0 {
                unknown.push((*tunnel).to_owned());
            }
        }
        Ok(unknown)
    }

    /// Host names of tunnels that are attached somewhere, and that lead to another tunnel here, or nowhere.
    async fn strays(
        &self,
        hosts: &[ImportHost],
        attached: &BTreeSet<&str>,
        unknown: &[String],
    ) -> anyhow::Result<Vec<String>> {
        let mut strays = Vec::new();
        for ImportHost { host, endpoint } in hosts {
            let Some(parsed) = Endpoint::parse(endpoint) else { continue };
            let tunnel = parsed.tunnel.to_string();
            let is_hash = HashHost::parse(host) == Some(HashHost::of(parsed.tunnel));
            if is_hash
                || !attached.contains(&*tunnel)
                || unknown.contains(&tunnel)
                || host.starts_with(['.', '*'])
            {
                continue;
            }
            if self.explain(host).await?.name.as_ref() != Some(&tunnel) {
                strays.push(host.clone());
            }
        }
        Ok(strays)
    }

    async fn explain(&self, what: &str) -> anyhow::Result<Explanation> {
        Ok(self.client.get(&client::path("/explain.json", &[("name", what)])).await?.report)
    }

    /// Waits until gost has renewed here what was read of this host. What Redis has later says nothing: it forgets what a switched
    /// gost does not renew there.
    async fn confirm(&self, outcome: &Outcome, records: Vec<ImportRecord>) -> anyhow::Result<()> {
        let here = outcome.report.records.iter().filter(|one| is_here(one)).map(|one| &*one.what);
        let here: BTreeSet<&str> = here.collect();
        let records: Vec<ImportRecord> =
            records.into_iter().filter(|record| here.contains(&*record.id)).collect();
        if records.is_empty() {
            return self.say("no connector of this host was in Redis, so there is no Renew to wait for");
        }
        let (started, mut told) = (Instant::now(), None);
        loop {
            let now = self.args.store.give(&self.client, true, &records).await?;
            let waiting = now.iter().filter(|one| is_here(one) && one.state != ImportState::Renewed);
            let waiting: Vec<String> = waiting.map(|one| one.what.clone()).collect();
            if waiting.is_empty() {
                let renewed = now.iter().filter(|one| one.state == ImportState::Renewed).count();
                return self.say(&format!("every connector of this host is renewed here: {renewed}"));
            }
            if told != Some(waiting.len()) {
                let all = count(records.len(), "connector");
                self.say(&format!("waiting for the Renews of {} of {all}", waiting.len()))?;
                told = Some(waiting.len());
            }
            if started.elapsed() > Duration::from_secs(self.args.wait) {
                let named = named("connectors", &waiting).unwrap_or_default();
                bail!(
                    "not renewed here within {} s: {named}. Their clients may have gone meanwhile, and then the records lapse by \
                     themselves; or gost does not reach this agent: look at its log, or go back with --undo",
                    self.args.wait
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn undo(&self) -> anyhow::Result<()> {
        let config: ConfigReport = self.client.get("/config.json").await?.report;
        let file = self.undo_file(&config)?;
        let text = fs::read_to_string(&file)
            .with_context(|| format!("there is nothing to undo: cannot read {}", file.display()))?;
        let former = Former::read(&text, &file, &self.api)?;
        let (records, hosts) = self.known().await?;
        let numbers = (records.len(), hosts.len());
        let expiry = Duration::from_secs(former.expiry_seconds.max(60));
        // Redis has forgotten them, and its plugin renews only what it knows. Those of other hosts are for the visitors of this
        // one, until their gosts have gone back as well and renew them.
        StoreArgs::put_back(self.place.clone(), records, hosts, expiry).await?;
        self.say(&format!(
            "Redis has again, for {} s: {}, {}",
            expiry.as_secs(),
            count(numbers.0, "record"),
            count(numbers.1, "host name")
        ))?;
        for FormerPlugin { kind, name, entry } in &former.plugins {
            self.api.put(*kind, name, entry).await?;
            let addr = entry["plugin"]["addr"].as_str().unwrap_or("no plugin");
            self.say(&format!("{} calls {} again", plain(name), plain(addr)))?;
        }
        // Clients that came meanwhile.
        let (records, hosts) = self.known().await?;
        StoreArgs::put_back(self.place.clone(), records, hosts, expiry).await?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }

    async fn put_back(&self, plugins: &[Used]) -> anyhow::Result<()> {
        for one in plugins {
            self.api.put(one.kind, &one.name, &one.entry).await?;
        }
        Ok(())
    }

    /// The records that are listed here, of all hosts, and the host names of their tunnels.
    async fn known(&self) -> anyhow::Result<(Vec<ImportRecord>, Vec<ImportHost>)> {
        let limit = MAX_LIMIT.to_string();
        let path = client::path("/services.json", &[("limit", &limit)]);
        let list: TunnelsReport = self.client.get(&path).await?.report;
        ensure!(list.total <= list.services.len(), "there are more than {MAX_LIMIT} tunnels");
        let (mut records, mut tunnels) = (Vec::new(), BTreeMap::new());
        for tunnel in list.services {
            let listed = self.explain(&tunnel.name).await?.candidates.into_iter();
            let listed = listed.filter(|one| one.rank.is_some());
            records.extend(listed.map(|one| ImportRecord {
                id: one.id,
                name: tunnel.name.clone(),
                node: one.node,
                network: one.network,
                address: one.address,
            }));
            tunnels.insert(tunnel.name, tunnel.private);
        }
        let hosts: HostsReport =
            self.client.get(&client::path("/hosts.json", &[("limit", &limit)])).await?.report;
        ensure!(hosts.total <= hosts.hosts.len(), "there are more than {MAX_LIMIT} host names");
        let hosts =
            hosts.hosts.into_iter().filter(|host| host.by == "claimed" && tunnels.contains_key(&host.tunnel));
        let hosts = hosts.map(|host| ImportHost {
            host: host.host,
            endpoint: format!("{}{}", if host.private { "$" } else { "" }, host.tunnel),
        });
        let ids = tunnels.iter().filter_map(|(name, private)| Some((TunnelId::parse(name)?, *private)));
        let hashes = ids.map(|(id, private)| ImportHost {
            host: HashHost::of(id).to_string(),
            endpoint: format!("{}{id}", if private { "$" } else { "" }),
        });
        Ok((records, hosts.chain(hashes).collect()))
    }

    /// The flags of the agent, and what gost's configuration is to have for it.
    async fn sections(&self, status: &StatusReport) -> anyhow::Result<(ConfigReport, [Value; 2])> {
        let config: ConfigReport = self.client.get("/config.json").await?.report;
        let own = |flag: &str| config.flags.iter().find(|one| one.flag == flag && !one.is_default);
        let mut line = vec!["gossd".to_owned(), "gost-config".to_owned()];
        // Where it listens, and not where it was told to, which may have been any port.
        let tcp = status.plugins.iter().filter_map(|url| url.split_once("://"));
        let tcp = tcp.filter(|(scheme, _)| *scheme != "unix");
        line.extend(tcp.map(|(_, rest)| format!("--plugin={}", rest.split('/').next().unwrap_or_default())));
        for flag in ["--token-file", "--tls-cert", "--tls-key", "--advertise-host"] {
            line.extend(own(flag).and_then(|one| one.values.first()).map(|value| format!("{flag}={value}")));
        }
        line.extend(own("--insecure-plugin").map(|one| one.flag.clone()));
        let Verb::GostConfig(args) = Cli::try_parse_from(line)?.verb else { bail!("that is another verb") };
        Ok((config, gost_config::sections(&args)?))
    }

    fn undo_file(&self, config: &ConfigReport) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.args.undo_file {
            return Ok(file.clone());
        }
        let value = |flag: &str| {
            let one = config.flags.iter().find(|one| one.flag == flag && !one.is_default)?;
            one.values.first().cloned()
        };
        let folder = match value("--data-dir") {
            Some(folder) if folder != "none" => Some(folder.into()),
            Some(_) => None,
            None => paths::data_dir(),
        };
        let folder: PathBuf = folder.context("the agent has no data folder: say --undo-file")?;
        Ok(folder.join(format!("migrate-undo-{}.json", self.api.file_name())))
    }

    /// A line for people, or an object with it.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        let line = if self.args.asked.json { json!({ "text": text }).to_string() } else { text.to_owned() };
        table::print(&(line + "\n")).context("cannot print")
    }
}

/// Keeps what `--undo` needs: tokens may be in it. What is kept already was first, and stays.
fn keep(file: &Path, api: &GostApi, plugins: &[Used], expiry_seconds: u64) -> anyhow::Result<()> {
    let fresh = Former { gost: api.to_string(), plugins: Vec::new(), expiry_seconds };
    let mut former = match fs::read_to_string(file) {
        Ok(text) => Former::read(&text, file, api)?,
        Err(error) if error.kind() == ErrorKind::NotFound => fresh,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    for Used { kind, name, entry, .. } in plugins {
        if !former.plugins.iter().any(|kept| kept.kind == *kind && kept.name == *name) {
            former.plugins.push(FormerPlugin { kind: *kind, name: name.clone(), entry: entry.clone() });
        }
    }
    let draft = file.with_extension("new");
    let write = || {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        out.write_all(&serde_json::to_vec_pretty(&former)?)?;
        out.sync_all()?;
        fs::rename(&draft, file)
    };
    write().with_context(|| format!("nothing was switched: cannot write {}; say --undo-file", file.display()))
}

impl Former {
    /// Of a file's text, which has to be about this gost.
    fn read(text: &str, file: &Path, api: &GostApi) -> anyhow::Result<Self> {
        let former: Self =
            serde_json::from_str(text).with_context(|| format!("{} is damaged", file.display()))?;
        let (file, gost) = (file.display(), plain(&former.gost));
        ensure!(former.gost == api.to_string(), "{file} is of the gost at {gost}: say --undo-file");
        Ok(former)
    }
}

/// `WHAT: a, b and 7 more`; none of none.
fn named(what: &str, all: &[String]) -> Option<String> {
    let shown: Vec<String> = all.iter().take(NAMED).map(|one| plain(one)).collect();
    let rest = all.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!all.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
}

fn first(status: &StatusReport) -> String {
    status.problems.first().map(|problem| plain(&problem.text)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_named_by_some() {
        let all: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(named("x", &all[..2]).as_deref(), Some("x: 0, 1"));
        assert_eq!(named("x", &all).as_deref(), Some("x: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"));
        assert_eq!(named("x", &[]), None);
    }
}
