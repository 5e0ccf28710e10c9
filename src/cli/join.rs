//! `gossd invite` and `gossd join`: a second host in one step. What an invite says is tried first: an agent has to answer with the
//! same key. Until then nothing is written, and nothing that is there is ever overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use axum::body::Bytes;
use clap::Args;
use rustix::process::geteuid;
use toml::{Table, Value};
use zeroize::Zeroizing;

use super::ask::{self, AgentArgs};
use super::check::peers;
use super::client::{self, Reply};
use super::{paths, table};
use crate::config::{Config, DEFAULT_CLUSTER, DEFAULT_GOSSIP_KEYED};
use crate::host::Advertise;
use crate::invite::{ANY_MARK, Invite};
use crate::ops::report::InviteReport;
use crate::secret_file;
use gossd_core::address::AddressError;
use gossd_core::record::AgentName;

/// Longest invite.
const MAX_LEN: u64 = 64 << 10;

pub(super) fn invite(asked: &AgentArgs) -> anyhow::Result<()> {
    let reply: Reply<InviteReport> = ask::post(asked, "/invite", Bytes::new())?;
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().context("cannot print")?);
    secret_file::close(&stdout)
        .context("others can read the file that this goes to, and it cannot be closed to them")?;
    ask::show(asked.json, &reply, |report| format!("{}\n", report.invite))?;
    if reply.report.is_local {
        eprintln!(
            "its address is of this host only: for another host, start this agent with --advertise-host"
        );
    }
    if !asked.json {
        eprintln!(
            "On the other host: `gossd join` reads this line. Whoever has it has the keys of the cluster: hand it over as you would a \
             password"
        );
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// File with the line that `gossd invite` printed [default: standard input]
    file: Option<PathBuf>,
    /// Folder for gossd.toml and the key [default: /etc/gossd for root, else gossd in the user's configuration]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// This agent's name, unique in the cluster [default: the host name]
    #[arg(long)]
    name: Option<AgentName>,
    /// Under which host other hosts reach this one [default: found by the interface that reaches the others]
    #[arg(long, value_name = "HOST[:PORT]", value_parser = advertised)]
    advertise_host: Option<String>,
    /// Run the agent at once, in this process
    #[arg(long)]
    start: bool,
}

/// The text, if it is one that `gossd run` takes.
fn advertised(text: &str) -> Result<String, AddressError> {
    text.parse::<Advertise>().map(|_| text.to_owned())
}

pub(super) fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let text = read(args.file.as_deref())?;
    let invite = Invite::parse(&text)?;
    drop(text);
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        None if geteuid().is_root() => paths::ETC.into(),
        None => paths::config_dir().context("cannot tell where your configuration is: set --dir")?,
    };
    let (toml, key) = (folder.join(paths::FILE), folder.join("key"));
    let former = settings(&toml)?;
    is_free(&key, &invite)?;
    try_it(args, &invite)?;
    write(&folder, &toml, &key, &former, &toml_of(args, &invite, &key))
        .and_then(|()| write_key(&key, &invite))
        .inspect_err(|_| {
            // Half of it would be worse than nothing.
            let _ = if former.is_empty() { fs::remove_file(&toml) } else { fs::write(&toml, &former) };
        })
        .with_context(|| format!("cannot write into {}: nothing has changed", folder.display()))?;
    let run = format!("gossd run --config {}", toml.display());
    table::print(&format!("wrote {} and {}\n", toml.display(), key.display()))?;
    if args.start {
        table::print(&format!("next time:  {run}\n"))?;
        let error = Command::new(std::env::current_exe()?).args(["run", "--config"]).arg(&toml).exec();
        return Err(error).context(run);
    }
    let service =
        Path::new("/run/systemd/system").exists() && Path::new("/lib/systemd/system/gossd.service").exists();
    let next =
        if service && folder == Path::new(paths::ETC) { "systemctl restart gossd".into() } else { run };
    table::print(&format!("now:  {next}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(4 << 10));
    match file.filter(|path| path.as_os_str() != "-") {
        Some(path) if path.as_os_str().as_encoded_bytes().starts_with(ANY_MARK.as_bytes()) => {
            anyhow::bail!(
                "an invite is no argument, which other users could read: give it on standard input, or in a file"
            )
        }
        Some(path) => {
            let file = secret_file::open(path).with_context(|| path.display().to_string())?;
            file.take(MAX_LEN).read_to_string(&mut text).with_context(|| path.display().to_string())?;
        }
        None => {
            if io::stdin().is_terminal() {
                eprintln!("paste the line that `gossd invite` printed on another host, then Enter");
                io::stdin().read_line(&mut text)?;
            } else {
                io::stdin().lock().take(MAX_LEN).read_to_string(&mut text).context("standard input")?;
            }
        }
    }
    Ok(text)
}

/// What the configuration file has already: empty if there is none.
fn settings(toml: &Path) -> anyhow::Result<String> {
    let text = match fs::read_to_string(toml) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(|| toml.display().to_string()),
    };
    let keys: Table = toml::from_str(&text).with_context(|| toml.display().to_string())?;
    for key in ["join", "cluster", "key-file", "name", "advertise-host"] {
        ensure!(
            !keys.contains_key(key),
            "{} has `{key}` already: this host is configured. Take it out, or use another --dir. Nothing has changed",
            toml.display()
        );
    }
    Ok(text)
}

fn is_free(key: &Path, invite: &Invite) -> anyhow::Result<()> {
    if !key.exists() {
        return Ok(());
    }
    let same =
        crate::net::keyfile::read(key).is_ok_and(|there| there.fingerprint() == invite.keyring.fingerprint());
    ensure!(
        same,
        "{} is there already, with other keys: move it away, or use another --dir. Nothing has changed",
        key.display()
    );
    Ok(())
}

/// Asks the agents of the invite. One has to answer.
fn try_it(args: &JoinArgs, invite: &Invite) -> anyhow::Result<()> {
    let config = Config {
        keyring: invite.keyring.clone(),
        cluster: invite.cluster.clone(),
        join: invite.addresses.clone(),
        gossip: DEFAULT_GOSSIP_KEYED.parse()?,
        ..Config::loopback(paths::name(args.name.clone())?)
    };
    let runtime = client::runtime()?;
    let found = runtime.block_on(peers::ask_all(&config));
    runtime.shutdown_background();
    for (finding, _) in &found {
        eprintln!("{}", finding.text);
    }
    ensure!(
        found.iter().any(|(_, is_met)| *is_met),
        "no other agent of the invite answers with its key: nothing has changed"
    );
    Ok(())
}

fn toml_of(args: &JoinArgs, invite: &Invite, key: &Path) -> String {
    let text = |text: String| Value::String(text);
    let mut table = Table::new();
    let join = invite.addresses.iter().map(|address| text(address.to_string())).collect();
    table.insert("join".into(), Value::Array(join));
    if invite.cluster != DEFAULT_CLUSTER {
        table.insert("cluster".into(), text(invite.cluster.clone()));
    }
    table.insert("key-file".into(), text(key.display().to_string()));
    if let Some(name) = &args.name {
        table.insert("name".into(), text(name.to_string()));
    }
    if let Some(host) = &args.advertise_host {
        table.insert("advertise-host".into(), text(host.clone()));
    }
    format!("# By gossd join. `gossd run --help` has all settings.\n{table}")
}

/// What was there stays, behind the new settings: it may end with tables, behind which no setting can stand.
fn write(folder: &Path, toml: &Path, key: &Path, former: &str, settings: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    ensure!(key.is_absolute() || folder.is_relative(), "the folder has no path");
    let text = if former.is_empty() { settings.to_owned() } else { format!("{settings}\n{former}") };
    Ok(fs::write(toml, text)?)
}

/// Closed to others from its first moment. The service reads it through its group.
fn write_key(path: &Path, invite: &Invite) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(invite.keyring.text().as_bytes())?;
    file.sync_all()?;
    if let Some(group) = service_group().filter(|_| path.starts_with(paths::ETC) && geteuid().is_root()) {
        std::os::unix::fs::fchown(&file, None, Some(group))?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
    }
    Ok(())
}

/// The group of the service's user, if the package made one.
fn service_group() -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.starts_with("gossd:"))?;
    line.split(':').nth(2)?.parse().ok()
}
