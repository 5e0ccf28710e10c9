//! The default places of an agent's journal and control socket. The verbs that ask an agent look where `gossd run` puts
//! them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use gossd_core::record::{AgentName, MAX_AGENT_NAME};

/// The folder of the service's configuration.
pub(super) const ETC: &str = "/etc/gossd";
/// The name of a configuration file, by convention.
pub(super) const FILE: &str = "gossd.toml";

/// The runtime folder of the system's service, `examples/systemd/gossd.service`.
const SERVICE: &str = "/run/gossd";
/// Before the instance's name, the runtime folder of `examples/systemd/gossd@.service`.
const INSTANCE: &str = "/run/gossd-";
const SUFFIX: &str = ".sock";

/// The journal's folder: systemd's state directory, else the user's.
pub(super) fn data_dir() -> Option<PathBuf> {
    first("STATE_DIRECTORY")
        .or_else(|| Some(first("XDG_STATE_HOME")?.join("gossd")))
        .or_else(|| Some(first("HOME")?.join(".local/state/gossd")))
}

/// The user's folder of gossd's configuration.
pub(super) fn config_dir() -> Option<PathBuf> {
    let folder = first("XDG_CONFIG_HOME").or_else(|| Some(first("HOME")?.join(".config")))?;
    Some(folder.join("gossd"))
}

/// The control socket: in systemd's runtime directory, else the user's, else beside the journal.
pub(super) fn control(name: &AgentName, data_dir: Option<&PathBuf>) -> Option<PathBuf> {
    let folder = first("RUNTIME_DIRECTORY")
        .or_else(|| Some(first("XDG_RUNTIME_DIR")?.join("gossd")))
        .or_else(|| data_dir.cloned())?;
    Some(folder.join(socket(name)))
}

/// The control socket of an agent that runs: where this user's is, else where the system's service has it.
pub(super) fn running(name: &AgentName) -> Option<PathBuf> {
    let paths = folders().into_iter().map(|folder| folder.join(socket(name)));
    paths.into_iter().find(|path| path.exists()).or_else(|| control(name, data_dir().as_ref()))
}

/// The control sockets on this host that this user can see, each with the name of its agent, by name.
pub(super) fn sockets() -> Vec<(AgentName, PathBuf)> {
    let entries = folders().into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let named = paths.filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()?;
        Some((name, path))
    });
    let mut sockets: Vec<(AgentName, PathBuf)> = named.collect();
    sockets.sort();
    sockets.dedup();
    sockets
}

/// Where control sockets may be, the likeliest first.
fn folders() -> Vec<PathBuf> {
    let runtime = first("XDG_RUNTIME_DIR").map(|folder| folder.join("gossd"));
    let own = [first("RUNTIME_DIRECTORY"), runtime, data_dir(), Some(SERVICE.into())];
    own.into_iter().flatten().chain(instances()).collect()
}

/// The runtime folders of all instances of the system's service, by name.
fn instances() -> Vec<PathBuf> {
    let entries = Path::new(SERVICE).parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut folders: Vec<PathBuf> = paths.filter(|path| is_instances(path)).collect();
    folders.sort();
    folders
}

fn is_instances(folder: &Path) -> bool {
    folder.to_str().is_some_and(|path| path.starts_with(INSTANCE))
}

/// Whether systemd removes a folder when the service stops.
pub(super) fn is_for_one_run(folder: &Path) -> bool {
    folder.starts_with(SERVICE)
        || is_instances(folder)
        || first("RUNTIME_DIRECTORY").is_some_and(|runtime| folder.starts_with(runtime))
}

fn socket(name: &AgentName) -> String {
    format!("{name}{SUFFIX}")
}

/// The name that was given, else the host's.
pub(super) fn name(given: Option<AgentName>) -> anyhow::Result<AgentName> {
    given.or_else(host_name).context("this host has no name; set --name")
}

/// The host name, with what an agent's name cannot have replaced by `-`.
fn host_name() -> Option<AgentName> {
    let host = gethostname::gethostname();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '-' };
    let name: String = host.to_string_lossy().chars().map(plain).take(MAX_AGENT_NAME).collect();
    name.parse().ok()
}

/// A variable's first path: systemd separates several by colons.
fn first(variable: &str) -> Option<PathBuf> {
    let paths = env::var_os(variable)?;
    env::split_paths(&paths).next().filter(|path| path.is_absolute())
}
