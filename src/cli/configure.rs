//! Flags, variables and file of `gossd run`, as clap has read them, to a [`Config`].

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::blame::{self, WrongSettings};
use super::flags::{AdminAddr, RunArgs};
use super::{file, paths};
use crate::config::{
    Config, DEFAULT_ADMIN, DEFAULT_GOSSIP_KEYED, DEFAULT_GOSSIP_KEYED_IPV4, DEFAULT_GOSSIP_LOOPBACK,
};
use crate::memory::{MemoryLimit, Room};
use crate::net::keyfile;
use crate::net::transport::has_ipv6;
use crate::plugin::bounds::Bounds;
use crate::plugin::tls::TlsFiles;
use crate::plugin::{Names, token};
use crate::sentence::Sentence;
use gossd_core::hostname::{ClaimPolicy, Naming};
use gossd_core::link::keyring::Keyring;
use gossd_core::locality::Locality;
use gossd_core::quota::Quota;

/// The configuration, with the keys read from their file.
pub(super) fn config(args: RunArgs) -> anyhow::Result<Config> {
    let keyring = match &args.key_file {
        Some(path) => keyfile::read(path)?,
        None => Keyring::public(),
    };
    config_with(keyring, args)
}

/// What an agent may hold within the memory of this process.
struct Fitted {
    quota: Quota,
    others: Option<usize>,
    problem: Option<Sentence>,
}

impl Fitted {
    /// An error if there is no memory for any agent.
    fn new(asked: Quota, limit: Option<&MemoryLimit>) -> anyhow::Result<Self> {
        let Some(limit) = limit else { return Ok(Self { quota: asked, others: None, problem: None }) };
        let room = limit.room(&asked);
        let problem = limit.complaint(asked.bytes, &room);
        match room {
            Room::Enough(others) => Ok(Self { quota: asked, others: Some(others), problem }),
            Room::Less(bytes, others) => {
                Ok(Self { quota: Quota { bytes, ..asked }, others: Some(others), problem })
            }
            Room::None => anyhow::bail!(problem.unwrap_or_default()),
        }
    }
}

/// Longest claim policy.
const MAX_POLICY: u64 = 16 << 20;

fn claim_policy(path: &Path, naming: &Naming) -> anyhow::Result<ClaimPolicy> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        let read = std::fs::File::open(path)?.take(MAX_POLICY + 1).read_to_string(&mut text)?;
        if read as u64 > MAX_POLICY { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
    };
    let text = read().with_context(|| format!("--claim-policy: cannot read {}", path.display()))?;
    ClaimPolicy::parse(&text, naming).with_context(|| format!("--claim-policy {}", path.display()))
}

/// Whether these settings know of no file, key or peer.
pub(super) fn is_bare(args: &RunArgs) -> bool {
    args.config.is_none() && args.key_file.is_none() && args.join.is_empty()
}

/// A configuration file that this host has, of an agent with peers, if these settings know of no file, key or peer: who starts an
/// agent so has probably forgotten it.
pub(super) fn overlooked(args: &RunArgs) -> Option<PathBuf> {
    if !is_bare(args) {
        return None;
    }
    let folders = [Some(paths::ETC.into()), paths::config_dir()].into_iter().flatten();
    let files = folders.map(|folder: PathBuf| folder.join(paths::FILE));
    files.into_iter().find(|file| file::keys(file).contains("join"))
}

/// The configuration with these keys.
pub(super) fn config_with(keyring: Keyring, args: RunArgs) -> anyhow::Result<Config> {
    let gossip = match args.gossip {
        Some(addr) => addr,
        None if keyring.is_public() => DEFAULT_GOSSIP_LOOPBACK.parse()?,
        None if has_ipv6() => DEFAULT_GOSSIP_KEYED.parse()?,
        None => DEFAULT_GOSSIP_KEYED_IPV4.parse()?,
    };
    let name = paths::name(args.name)?;
    let data_dir = match args.data_dir {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(path),
        None => paths::data_dir(),
    };
    for (flag, names) in
        [("--ingress-domain", &args.ingress_domain), ("--ingress-reserved", &args.ingress_reserved)]
    {
        let is_wrong = |name: &&String| Naming::new(&[], 1, std::slice::from_ref(*name)).is_err();
        if let Some(name) = names.iter().find(is_wrong) {
            return Err(WrongSettings(format!("{flag} {name:?} is no host name")).into());
        }
    }
    let naming = Naming::new(&args.ingress_domain, args.ingress_min_label, &args.ingress_reserved);
    let naming = naming.context("--ingress-domain or --ingress-reserved").map_err(blame::settings)?;
    let rules = args.ingress_rule.iter().map(|(host, tunnel)| (&**host, &**tunnel));
    let mut names = Names::new(naming, rules).context("--ingress-rule").map_err(blame::settings)?;
    if let Some(path) = &args.claim_policy {
        let policy = claim_policy(path, &names.naming).map_err(blame::settings)?;
        let labels = match &args.token_file {
            Some(file) if policy.labels().next().is_some() => token::labels(file).context("--token-file")?,
            _ => BTreeSet::new(),
        };
        // Whoever has that line would get nothing, and nobody would say why.
        if let Some(label) = policy.labels().find(|label| !labels.contains(*label)) {
            let text = match &args.token_file {
                Some(file) => format!("no line of {} has label={label}", file.display()),
                None => "there is no --token-file".into(),
            };
            return Err(WrongSettings(format!("--claim-policy names token:{label}, but {text}")).into());
        }
        names.policy = Some(policy);
    }
    let asked = Quota { records: args.max_records, claims: args.max_rules, bytes: args.max_bytes };
    let Fitted { quota, others, problem } = Fitted::new(asked, MemoryLimit::of_this_process().as_ref())?;
    let control = match args.control {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(path),
        None => paths::control(&name, data_dir.as_ref()),
    };
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
    let admin = match args.admin {
        Some(AdminAddr(given)) => given,
        None => Some(DEFAULT_ADMIN.parse()?),
    };
    let mut config = Config {
        plugin: args.plugin,
        admin,
        admin_may_give_way: args.admin.is_none(),
        admin_token_file: args.admin_token_file,
        metrics: args.metrics,
        plugin_socket: args.plugin_socket,
        token_file: args.token_file,
        insecure_plugin: args.insecure_plugin,
        plugin_hosts: args.plugin_host,
        tls,
        bounds: Bounds { max_connections: args.max_connections, ..Bounds::default() },
        gossip,
        advertise: args.advertise_host,
        join: args.join,
        keyring,
        key_file: args.key_file,
        cluster: args.cluster,
        lease_ttl: Duration::from_secs(args.lease_ttl),
        order: args.order.into(),
        locality: Locality { zone: args.zone.into(), weight: args.weight },
        quota,
        others,
        memory_problem: problem,
        names,
        ingress_file: args.ingress_file,
        fallback: args.fallback_address,
        data_dir,
        control,
        hold: args.hold,
        leave_on_stop: args.leave_on_stop,
        ..Config::loopback(name)
    };
    if let Some(adjust) = super::ADJUST.get() {
        adjust(&mut config);
    }
    Ok(config)
}
