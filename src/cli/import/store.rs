//! What gost's Redis plugins keep: a hash per tunnel with a field per connector, and a string per host name; and gost's own
//! `redis` source of host names. Reads them, and puts them back for `gossd migrate --undo`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use redis::{Client, Connection, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates, cmd, pipe};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ops::report::{ImportHost, ImportRecord};
use crate::secret_file;
use gossd_core::hostname::{Endpoint, TunnelId};

/// How long a connection, or an answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys in one question.
const BATCH: usize = 500;
/// Keys of a database at most: a hundred thousand tunnels, their host names, and as much of others.
const MAX_KEYS: usize = 1_000_000;
/// Connectors of one tunnel, or rules in one key, at most.
const MAX_FIELDS: usize = 100_000;
/// Longest value of a connector: an address has 512 bytes at most.
const MAX_SERVICE: usize = 1_024;
/// Longest value of a host name: `$` and a UUID, and some room to see what else it is.
const MAX_VALUE: usize = 128;
/// A gost that was replaced renews nothing from then on: its last Renew is so many seconds older than that of the other one.
/// gost renews every 15 s, if it is not told otherwise.
const REPLACED: i64 = 20;
/// Bad keys that are named.
pub(super) const NAMED: usize = 1_000;

/// Where the store is, and who may read it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Place(ConnectionInfo);

/// What was found.
#[derive(Debug, Default)]
pub(in crate::cli) struct Found {
    /// By connector.
    pub(in crate::cli) records: Vec<ImportRecord>,
    /// When each gost handler at an address last renewed anything: a gost that is started anew is another one.
    renewed: BTreeMap<(String, String), i64>,
    /// The host names of clients.
    pub(in crate::cli) hosts: Vec<ImportHost>,
    /// The operator's rules of gost's own source: no client claims them.
    pub(in crate::cli) rules: Vec<ImportHost>,
    /// What looked like something, and was not.
    pub(super) bad: Vec<BadKey>,
    /// How many keys are of nothing that gost keeps.
    pub(super) others: usize,
    /// How long the store keeps a tunnel that is not renewed, by what its keys have left: the shortest.
    pub(super) expiry: Option<Duration>,
}

/// A key, or a part of one, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BadKey {
    /// The key; with a field of it, if the others are good.
    pub(super) key: String,
    /// What is wrong.
    pub(super) why: String,
}

/// A connector as the plugin writes it: Go's spelling of its fields.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    node: String,
    #[serde(default)]
    network: String,
    #[serde(default)]
    address: String,
    /// Seconds since 1970.
    #[serde(default)]
    renew: i64,
}

impl Place {
    /// Of a URL without a password, which comes from a file or a variable.
    pub(super) fn new(url: &str, password: Option<&Path>, roots: Option<&Path>) -> anyhow::Result<Self> {
        let is_known = ["redis://", "rediss://", "unix://", "redis+unix://"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        ensure!(is_known, "it is no redis://HOST:PORT[/DB] and no rediss:// (TLS)");
        let mut info =
            url.into_connection_info().map_err(|_| anyhow::anyhow!("it is no redis://HOST:PORT[/DB]"))?;
        ensure!(
            info.redis_settings().password().is_none(),
            "every user of this host can see a password in a command: use --password-file or the variable GOSSD_REDIS_PASSWORD"
        );
        let password = match password {
            Some(file) => Some(password_of(file).context("--password-file")?),
            None => std::env::var("GOSSD_REDIS_PASSWORD").ok().map(Zeroizing::new),
        };
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = &password {
            settings = settings.set_password(&**password);
        }
        info = info.set_redis_settings(settings);
        if let Some(roots) = roots {
            ensure!(url.starts_with("rediss:"), "--ca-file is for rediss://");
            let pem = std::fs::read(roots)
                .with_context(|| format!("--ca-file: cannot read {}", roots.display()))?;
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
            let client = Client::build_with_tls(info, certificates).context("--ca-file")?;
            return Ok(Self(client.get_connection_info().clone()));
        }
        Ok(Self(info))
    }

    pub(super) fn open(&self) -> anyhow::Result<Store> {
        let why = || format!("cannot ask Redis at {}", self.0.addr());
        let client = Client::open(self.0.clone()).with_context(why)?;
        let connection = client.get_connection_with_timeout(PATIENCE).with_context(why)?;
        connection
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| connection.set_write_timeout(Some(PATIENCE)))?;
        Ok(Store(connection))
    }
}

/// A connection to the store.
pub(super) struct Store(Connection);

impl Store {
    /// Everything that gost keeps there; `rules` is the key of gost's own source of host names, if it has one.
    pub(super) fn read(&mut self, rules: Option<&str>) -> anyhow::Result<Found> {
        let now = self.now()?;
        let mut found = Found::default();
        let mut keys = self.keys()?;
        if let Some(key) = rules {
            keys.remove(key.as_bytes());
            self.rules(key, &mut found)?;
        }
        let keys: Vec<Vec<u8>> = keys.into_iter().collect();
        for batch in keys.chunks(BATCH) {
            self.batch(batch, now, &mut found)?;
        }
        found.drop_replaced();
        Ok(found)
    }

    /// Seconds since 1970, as the store has them.
    fn now(&mut self) -> anyhow::Result<i64> {
        let (now, _): (i64, i64) = cmd("TIME").query(&mut self.0).context("cannot ask Redis for its time")?;
        Ok(now)
    }

    fn keys(&mut self) -> anyhow::Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let (next, some): (u64, Vec<Vec<u8>>) = cmd("SCAN")
                .arg(cursor)
                .arg("COUNT")
                .arg(BATCH)
                .query(&mut self.0)
                .context("Redis does not list its keys")?;
            keys.extend(some);
            ensure!(
                keys.len() <= MAX_KEYS,
                "this database has more than {MAX_KEYS} keys: it is not gost's alone"
            );
            cursor = next;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }

    fn batch(&mut self, keys: &[Vec<u8>], now: i64, found: &mut Found) -> anyhow::Result<()> {
        let mut ask = pipe();
        for key in keys {
            ask.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
        }
        let kinds: Vec<(String, i64)> = ask.query(&mut self.0).context("Redis does not tell of its keys")?;
        let (mut hashes, mut names) = (Vec::new(), Vec::new());
        for (key, (kind, left)) in keys.iter().zip(kinds) {
            match (&*kind, str::from_utf8(key)) {
                ("hash", Ok(text)) => hashes.push((text, left)),
                ("string", Ok(text)) => names.push(text),
                // It went meanwhile.
                ("none", _) => {}
                _ => found.others += 1,
            }
        }
        self.tunnels(&hashes, now, found)?;
        self.host_names(&names, found)
    }

    fn tunnels(&mut self, hashes: &[(&str, i64)], now: i64, found: &mut Found) -> anyhow::Result<()> {
        let mut ask = pipe();
        for (key, _) in hashes {
            ask.cmd("HLEN").arg(key);
        }
        let sizes: Vec<usize> = if hashes.is_empty() { Vec::new() } else { ask.query(&mut self.0)? };
        for ((key, left), size) in hashes.iter().zip(sizes) {
            if !is_tunnel(key) {
                found.others += 1;
                continue;
            }
            if size > MAX_FIELDS {
                found.bad(key, format!("it has {size} connectors"));
                continue;
            }
            let fields: BTreeMap<String, Vec<u8>> = match cmd("HGETALL").arg(key).query(&mut self.0) {
                Ok(fields) => fields,
                Err(error) => {
                    found.bad(key, error.to_string());
                    continue;
                }
            };
            found.tunnel(key, &fields, *left, now);
        }
        Ok(())
    }

    fn host_names(&mut self, names: &[&str], found: &mut Found) -> anyhow::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let mut ask = pipe();
        for key in names {
            ask.cmd("GETRANGE").arg(key).arg(0).arg(MAX_VALUE);
        }
        let values: Vec<Vec<u8>> =
            ask.query(&mut self.0).context("Redis does not tell the values of its keys")?;
        for (key, value) in names.iter().zip(values) {
            found.host(key, &String::from_utf8_lossy(&value));
        }
        Ok(())
    }

    /// gost's own source: a hash of names, or a set of lines.
    fn rules(&mut self, key: &str, found: &mut Found) -> anyhow::Result<()> {
        let kind: String = cmd("TYPE").arg(key).query(&mut self.0)?;
        let size = match &*kind {
            "hash" => "HLEN",
            "set" => "SCARD",
            "none" => bail!("there is no key {key:?}"),
            other => bail!("the key {key:?} is a {other}, of which gost reads nothing"),
        };
        let size: usize = cmd(size).arg(key).query(&mut self.0)?;
        ensure!(size <= MAX_FIELDS, "the key {key:?} has {size} rules");
        let lines: Vec<Vec<u8>> = if kind == "hash" {
            let rules: BTreeMap<Vec<u8>, Vec<u8>> = cmd("HGETALL").arg(key).query(&mut self.0)?;
            rules.into_iter().map(|(host, endpoint)| [host, b" ".to_vec(), endpoint].concat()).collect()
        } else {
            cmd("SMEMBERS").arg(key).query(&mut self.0)?
        };
        for line in lines.iter().map(|line| String::from_utf8_lossy(line)) {
            // As gost's loader reads it.
            let text = line.split('#').next().unwrap_or_default();
            let mut words = text.split_whitespace();
            match (words.next(), words.next()) {
                (Some(host), Some(endpoint)) if Endpoint::parse(endpoint).is_some() => {
                    found.rules.push(ImportHost { host: host.into(), endpoint: endpoint.into() });
                }
                (Some(host), Some(_)) => found.bad(&format!("{key} {host}"), "it leads to no tunnel id"),
                (None, _) => {}
                (Some(_), None) => found.bad(&format!("{key} {line}"), "it is no HOST TUNNEL"),
            }
        }
        Ok(())
    }

    /// Writes records and host names as the plugins do, for so long. Of what is there, nothing is overwritten but the records.
    pub(super) fn put_back(
        &mut self,
        records: &[ImportRecord],
        hosts: &[ImportHost],
        expiry: Duration,
    ) -> anyhow::Result<()> {
        /// What the plugins keep a host name for, by default.
        const HOST: Duration = Duration::from_secs(3_600);
        let now = self.now()?;
        for batch in records.chunks(BATCH) {
            let mut write = pipe();
            for ImportRecord { id, name, node, network, address } in batch {
                let [node, network, address] = [node, network, address].map(Clone::clone);
                let value = serde_json::to_string(&Service { node, network, address, renew: now })?;
                write.cmd("HSET").arg(name).arg(id).arg(value).ignore();
                write.cmd("EXPIRE").arg(name).arg(expiry.as_secs()).ignore();
            }
            write.query::<()>(&mut self.0).context("Redis does not take the records")?;
        }
        for batch in hosts.chunks(BATCH) {
            let mut write = pipe();
            for ImportHost { host, endpoint } in batch {
                write.cmd("SET").arg(host).arg(endpoint).arg("EX").arg(HOST.as_secs()).arg("NX").ignore();
            }
            write.query::<()>(&mut self.0).context("Redis does not take the host names")?;
        }
        Ok(())
    }
}

/// The first line of a file, whatever is in it.
pub(in crate::cli) fn password_of(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = secret_file::read(file)?;
    let text = str::from_utf8(&bytes).context("it is no text")?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// Whether gost can have given a key its name: a tunnel's id, or a router's `host@UUID`.
fn is_tunnel(key: &str) -> bool {
    TunnelId::parse(key.rsplit_once('@').map_or(key, |(_, router)| router)).is_some()
}

impl Found {
    fn bad(&mut self, key: &str, why: impl Into<String>) {
        if self.bad.len() < NAMED {
            self.bad.push(BadKey { key: key.into(), why: why.into() });
        }
    }

    /// The connectors of a tunnel whose key has so many milliseconds left.
    fn tunnel(&mut self, name: &str, fields: &BTreeMap<String, Vec<u8>>, left: i64, now: i64) {
        let mut services = Vec::new();
        for (id, value) in fields {
            if value.len() > MAX_SERVICE || id.len() > MAX_SERVICE {
                self.bad(
                    &format!("{name} {}", id.get(..64).unwrap_or("?")),
                    "it is longer than what the plugin writes",
                );
                continue;
            }
            match serde_json::from_slice::<Service>(value) {
                Ok(service) => services.push((id, service)),
                Err(error) => {
                    self.bad(&format!("{name} {id}"), format!("it is not what the plugin writes: {error}"));
                }
            }
        }
        // The plugin starts a key's time anew with each Renew of any connector.
        let newest = services.iter().map(|(_, service)| service.renew).max().filter(|newest| *newest > 0);
        let keeps = newest
            .filter(|_| left > 0)
            .map(|newest| (left / 1_000).saturating_add(now.saturating_sub(newest).max(0)));
        if let Some(keeps) = keeps.and_then(|keeps| u64::try_from(keeps).ok()).map(Duration::from_secs) {
            self.expiry = Some(self.expiry.map_or(keeps, |shortest| shortest.min(keeps)));
        }
        for (id, Service { node, network, address, renew }) in services {
            let age = now.saturating_sub(renew);
            if renew > 0 && keeps.is_some_and(|keeps| age > keeps.saturating_add(1)) {
                self.bad(&format!("{name} {id}"), format!("gost has not renewed it for {age} s"));
                continue;
            }
            let last = self.renewed.entry((address.clone(), node.clone())).or_default();
            *last = renew.max(*last);
            self.records.push(ImportRecord { id: id.clone(), name: name.into(), node, network, address });
        }
    }

    /// Drops what a gost left behind that another one at its address has replaced: Redis keeps such a connector for as long as
    /// any of its tunnel is renewed.
    fn drop_replaced(&mut self) {
        let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
        for ((address, _), renewed) in &self.renewed {
            let last = newest.entry(address).or_default();
            *last = (*renewed).max(*last);
        }
        let is_replaced = |record: &ImportRecord| {
            let of = (record.address.clone(), record.node.clone());
            let renewed = self.renewed.get(&of).copied().unwrap_or_default();
            // Every gost renews all that it has within a minute.
            newest.get(&*record.address).is_some_and(|newest| newest.saturating_sub(renewed) > REPLACED)
        };
        let (replaced, records) = std::mem::take(&mut self.records).into_iter().partition(is_replaced);
        self.records = records;
        for ImportRecord { id, name, address, .. } in Vec::<ImportRecord>::into_iter(replaced) {
            self.bad(&format!("{name} {id}"), format!("another gost is at {address} by now"));
        }
    }

    fn host(&mut self, host: &str, endpoint: &str) {
        if Endpoint::parse(endpoint).is_some() {
            self.hosts.push(ImportHost { host: host.into(), endpoint: endpoint.into() });
        } else if host.contains('.') || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            self.bad(host, "its value is no tunnel id, nor one behind a $");
        } else {
            self.others += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";

    fn fields(all: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        all.iter().map(|(id, value)| ((*id).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_tunnels_hash_has_a_record_for_each_connector_that_is_renewed() {
        let mut found = Found::default();
        let fields = fields(&[
            ("one", r#"{"Node":"n","Network":"tcp","Address":"10.0.0.1:8420","Renew":1000}"#),
            ("old", r#"{"Node":"n","Network":"tcp","Address":"10.0.0.2:8420","Renew":900}"#),
            ("damaged", "{"),
        ]);
        found.tunnel(TUNNEL, &fields, 50_000, 1_010);
        assert_eq!(found.expiry, Some(Duration::from_secs(60)), "50 s are left after 10 s");
        let [record] = &found.records[..] else { panic!("{:?}", found.records) };
        let told = [&record.id, &record.name, &record.node, &record.network, &record.address];
        assert_eq!(told, ["one", TUNNEL, "n", "tcp", "10.0.0.1:8420"]);
        let bad: Vec<_> = found.bad.iter().map(|bad| (&*bad.key, &bad.why[..12])).collect();
        let keys = [format!("{TUNNEL} damaged"), format!("{TUNNEL} old")];
        assert_eq!(bad, [(&*keys[0], "it is not wh"), (&*keys[1], "gost has not")]);
    }

    #[test]
    fn a_gost_that_another_one_replaced_has_no_records() {
        let mut found = Found::default();
        let service = |node: &str, renew: i64| {
            format!(r#"{{"Node":"{node}","Network":"tcp","Address":"10.0.0.1:8420","Renew":{renew}}}"#)
        };
        let (former, next) = (service("former", 1_000), service("next", 1_025));
        found.tunnel(TUNNEL, &fields(&[("1", &former), ("2", &next)]), 55_000, 1_030);
        found.drop_replaced();
        assert_eq!(found.records.iter().map(|one| &*one.id).collect::<Vec<_>>(), ["2"]);
        assert_eq!(found.bad[0].why, "another gost is at 10.0.0.1:8420 by now");
    }

    #[test]
    fn what_is_not_gosts_is_counted_and_what_looks_so_is_named() {
        let mut found = Found::default();
        found.host("app.example.org", TUNNEL);
        found.host("private", &format!("${TUNNEL}"));
        found.host("app2.example.org", "nonsense");
        found.host("session:17", "x");
        assert_eq!((found.hosts.len(), found.bad.len(), found.others), (2, 1, 1));
        assert!(is_tunnel(TUNNEL) && is_tunnel(&format!("host@{TUNNEL}")) && !is_tunnel("cache"));
    }

    #[test]
    fn a_password_is_never_an_argument() {
        for (url, why) in [
            ("redis://:secret@127.0.0.1/0", "--password-file"),
            ("http://127.0.0.1:6379", "redis://HOST"),
            ("127.0.0.1:6379", "redis://HOST"),
        ] {
            let error = Place::new(url, None, None).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        assert!(Place::new("redis://reader@127.0.0.1:6379/3", None, None).is_ok());
        assert!(Place::new("redis://127.0.0.1", None, Some(Path::new("/x"))).is_err(), "roots are for TLS");
    }
}
