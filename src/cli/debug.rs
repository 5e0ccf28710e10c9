//! `gossd debug`: one archive with what an agent tells of itself, for whoever is to find a fault later or elsewhere. What
//! cannot be had is named in it; nothing keeps the rest from being there. Tunnel ids, which are secrets of their clients,
//! are replaced by their hash names.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser as _};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::{sleep, timeout};

use super::ask::AgentArgs;
use super::client::{self, Client};
use super::events::Events;
use super::flags::RunArgs;
use super::{Cli, Verb, check, complete, table};
use crate::config::FlagValue;
use crate::ops::report::{ConfigReport, DoneReport, StatusReport};
use crate::wall_clock;
use gossd_core::hostname::{HashHost, TunnelId};

/// Between the two looks at the metrics, whose counters tell little alone.
const APART: Duration = Duration::from_secs(5);
/// Events of the past: the agent tells no more.
const RECENT: &str = "/events?recent=1000";
/// After the last of them, the stream waits for the next one.
const NO_MORE: Duration = Duration::from_millis(500);
/// Paths that are asked, and the files that their answers go to.
const REPORTS: [(&str, &str); 7] = [
    ("/status.json", "status.json"),
    ("/matrix.json", "matrix.json"),
    ("/services.json?limit=1000", "services.json"),
    ("/history.json", "history.json"),
    ("/keys.json", "keys.json"),
    ("/config.json", "config.json"),
    ("/log", "log.jsonl"),
];

#[derive(Debug, clap::Args)]
pub(super) struct DebugArgs {
    /// A tunnel or a host name that is to be explained in it
    #[arg(value_name = "NAME", add = complete::tunnels())]
    what: Option<String>,
    /// The archive, which is not there yet [default: gossd-debug-AGENT-TIME.tar.gz in this folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    asked: AgentArgs,
}

/// What is found, by its file; and what is not.
#[derive(Default)]
struct Findings {
    files: Vec<(&'static str, String)>,
    lacking: Vec<String>,
}

pub(super) fn debug(args: &DebugArgs) -> anyhow::Result<()> {
    let runtime = client::runtime()?;
    let found = runtime.block_on(async {
        let client = args.asked.client().await?;
        // An agent that does not answer at all is an error, and not an empty archive.
        let status: StatusReport = client.get("/status.json").await?.report;
        Ok::<_, anyhow::Error>((status, Findings::of(&client, args.what.as_deref()).await))
    });
    runtime.shutdown_background();
    let (status, found) = found?;
    let time: String = status.at.chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    let folder = format!("gossd-debug-{}-{time}", status.name);
    let path = args.output.clone().unwrap_or_else(|| format!("{folder}.tar.gz").into());
    let (files, lacking) = (found.files.len(), found.lacking.len());
    write(&path, &found.archive(&folder)?)?;
    let rest = if lacking == 0 {
        String::new()
    } else {
        format!(", and lacking.txt names {lacking} that could not be had")
    };
    let text = format!(
        "wrote {}: {files} files{rest}. Tunnel ids are replaced by their hash names; agents' addresses, host names and paths are \
         in it",
        path.display()
    );
    let text = if args.asked.json { serde_json::to_string(&DoneReport { done: true, text })? } else { text };
    table::print(&format!("{text}\n")).context("cannot print")
}

impl Findings {
    async fn of(client: &Client, name: Option<&str>) -> Self {
        let mut found = Self::default();
        found.take("metrics-1.txt", client.text("/metrics").await);
        let first = sleep(APART);
        for (path, file) in REPORTS {
            found.take(file, client.text(path).await);
        }
        if let Some(name) = name {
            let path = client::path("/explain.json", &[("name", name)]);
            found.take("explain.json", client.text(&path).await);
        }
        found.take("events.jsonl", events(client).await);
        found.take("check.json", checked(client).await);
        found.files.push(("about.txt", about()));
        first.await;
        found.take("metrics-2.txt", client.text("/metrics").await);
        found
    }

    fn take<E: std::fmt::Display>(&mut self, file: &'static str, text: Result<String, E>) {
        match text {
            Ok(text) => self.files.push((file, without_ids(&text))),
            Err(error) => self.lacking.push(without_ids(&format!("{file}: {error:#}"))),
        }
    }

    fn archive(mut self, folder: &str) -> std::io::Result<Vec<u8>> {
        if !self.lacking.is_empty() {
            self.files.push(("lacking.txt", self.lacking.join("\n") + "\n"));
        }
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (file, text) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(wall_clock::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
            archive.append_data(&mut header, Path::new(folder).join(file), text.as_bytes())?;
        }
        archive.into_inner()?.finish()
    }
}

/// The newest events, one a line.
async fn events(client: &Client) -> anyhow::Result<String> {
    let mut events = Events::new(client.open(RECENT, None).await?);
    let mut text = String::new();
    while let Ok(event) = timeout(NO_MORE, events.next()).await {
        text += &event?.data.replace('\n', " ");
        text.push('\n');
    }
    Ok(text)
}

/// What `gossd check` finds with the agent's own flags.
async fn checked(client: &Client) -> anyhow::Result<String> {
    let ConfigReport { flags } = client.get("/config.json").await?.report;
    Ok(serde_json::to_string(&check::report(run_args(&flags)?, None, None).await)?)
}

/// The program that asks; the agent's version is in its status.
fn about() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (version, at) = (env!("CARGO_PKG_VERSION"), wall_clock::spell(wall_clock::now()));
    format!("gossd debug {version}, {at}, Linux {}, {}\n", kernel.trim(), std::env::consts::ARCH)
}

/// The command line that means these flags.
fn run_args(flags: &[FlagValue]) -> anyhow::Result<RunArgs> {
    let command = Cli::command();
    let run = command.find_subcommand("run").context("no such verb")?;
    let mut line = vec!["gossd".to_owned(), "run".to_owned()];
    for FlagValue { flag, values, .. } in flags.iter().filter(|flag| !flag.is_default) {
        let arg = run.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--"));
        let takes_value = arg.is_some_and(|arg| arg.get_action().takes_values());
        let words = values.iter().filter(|value| takes_value || *value == "true");
        line.extend(words.map(|value| if takes_value { format!("{flag}={value}") } else { flag.clone() }));
    }
    match Cli::try_parse_from(line)?.verb {
        Verb::Run(args) => Ok(*args),
        _ => bail!("no such verb"),
    }
}

/// A text in which every id of a tunnel or a connector is replaced by its hash name, which tells nobody the id: whoever has
/// that may attach.
fn without_ids(text: &str) -> String {
    const LEN: usize = 36;
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let id = rest.get(..LEN).filter(|id| id.as_bytes()[8] == b'-').and_then(TunnelId::parse);
        let len = if let Some(id) = id {
            shown += &HashHost::of(id).to_string();
            LEN
        } else {
            shown.push(first);
            first.len_utf8()
        };
        rest = &rest[len..];
    }
    shown
}

/// Overwrites nothing, and lets no other user read it.
fn write(path: &Path, archive: &[u8]) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(archive));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";

    #[test]
    fn no_id_is_in_a_text_and_all_else_is() {
        let hash = HashHost::of(TunnelId::parse(ID).unwrap()).to_string();
        let text = format!("{ID} \"{}\" ü{ID}{ID}\n{}", ID.to_uppercase(), &ID[1..]);
        let shown = without_ids(&text);
        assert_eq!(shown, format!("{hash} \"{hash}\" ü{hash}{hash}\n{}", &ID[1..]));
        assert_eq!(without_ids(""), "");
    }

    #[test]
    fn flags_as_reported_are_the_same_command_line() {
        let flag = |flag: &str, values: &[&str], is_default| FlagValue {
            flag: flag.into(),
            values: values.iter().map(|value| (*value).into()).collect(),
            is_default,
        };
        let args = run_args(&[
            flag("--name", &["a"], false),
            flag("--join", &["x:1", "y:2"], false),
            flag("--leave-on-stop", &["true"], false),
            flag("--hold", &["false"], false),
            flag("--weight", &["100"], true),
        ]);
        let args = args.unwrap();
        assert_eq!((args.name.unwrap().as_str(), args.join.len()), ("a", 2));
        assert!(args.leave_on_stop && !args.hold);
    }
}
