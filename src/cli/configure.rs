//! Flags, variables and file of `gossd run`, as clap has read them, to a [`Config`].

use std::time::Duration;

use anyhow::Context as _;

use super::flags::{AdminAddr, RunArgs};
use super::paths;
use crate::config::{Config, DEFAULT_ADMIN, DEFAULT_GOSSIP_KEYED, DEFAULT_GOSSIP_LOOPBACK};
use crate::net::keyfile;
use crate::plugin::Names;
use crate::plugin::bounds::Bounds;
use crate::plugin::tls::TlsFiles;
use gossd_core::hostname::Naming;
use gossd_core::link::keyring::Keyring;
use gossd_core::quota::Quota;

/// The configuration, with the keys read from their file.
pub(super) fn config(args: RunArgs) -> anyhow::Result<Config> {
    let keyring = match &args.key_file {
        Some(path) => keyfile::read(path)?,
        None => Keyring::public(),
    };
    config_with(keyring, args)
}

/// The configuration with these keys.
pub(super) fn config_with(keyring: Keyring, args: RunArgs) -> anyhow::Result<Config> {
    let gossip = match args.gossip {
        Some(addr) => addr,
        None if keyring.is_public() => DEFAULT_GOSSIP_LOOPBACK.parse()?,
        None => DEFAULT_GOSSIP_KEYED.parse()?,
    };
    let name = paths::name(args.name)?;
    let data_dir = match args.data_dir {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(path),
        None => paths::data_dir(),
    };
    let naming = Naming::new(&args.ingress_domain, args.ingress_min_label, &args.ingress_reserved);
    let naming = naming.context("--ingress-domain or --ingress-reserved")?;
    let rules = args.ingress_rule.iter().map(|(host, tunnel)| (&**host, &**tunnel));
    let names = Names::new(naming, rules).context("--ingress-rule")?;
    let quota = Quota { records: args.max_records, claims: args.max_rules, bytes: args.max_bytes };
    let control = args.control.or_else(|| paths::control(&name, data_dir.as_ref()));
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
    let admin = match args.admin {
        Some(AdminAddr(given)) => given,
        None => Some(DEFAULT_ADMIN.parse()?),
    };
    let mut config = Config {
        plugin: args.plugin,
        admin,
        admin_may_give_way: args.admin.is_none(),
        plugin_socket: args.plugin_socket,
        token_file: args.token_file,
        insecure_plugin: args.insecure_plugin,
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
        quota,
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
