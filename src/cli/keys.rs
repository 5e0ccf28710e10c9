//! `gossd keys`: the requests about a running agent's keys, and how its answers are printed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use clap::{ArgGroup, Args, Subcommand};
use zeroize::Zeroizing;

use super::ask::{self, AgentArgs, show};
use super::client::{self, Reply};
use super::table::{TextTable, USUAL};
use super::words::plain;
use super::{NOT_EVERYWHERE, complete};
use crate::net::keyfile;
use crate::ops::report::KeyChange;
use crate::secret_file;
use gossd_core::link::keyring::{Key, KeyId, Keyring};
use gossd_core::link::keys::{AgentKeys, KeyReport, Lack, Span};

#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// Print which keys there are, which one seals, and which agents have them
    List(AgentArgs),
    /// Print a new key, a line for a --key-file
    Generate,
    /// Let one more key open, at every agent: the first step of a rotation
    Add(AddArgs),
    /// Seal with a key that every agent has, at every agent: the second step
    Use(ChangeArgs),
    /// Take a key away that no agent seals with any more, at every agent: the last step
    Remove(ChangeArgs),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("key").required(true)))]
pub(super) struct AddArgs {
    /// File with the key, as `gossd keys generate` prints it; - is standard input
    #[arg(group = "key")]
    file: Option<PathBuf>,
    /// Make a new key
    #[arg(long, group = "key")]
    generate: bool,
    #[command(flatten)]
    asked: AgentArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// The key's name, as `gossd keys list` prints it
    #[arg(add = complete::keys())]
    id: KeyId,
    /// Do it although some agent is not ready for it, which may cut that agent off
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asked: AgentArgs,
}

pub(super) fn keys(verb: KeysVerb) -> anyhow::Result<ExitCode> {
    match verb {
        KeysVerb::List(asked) => list(&asked),
        KeysVerb::Generate => {
            generate()?;
            Ok(ExitCode::SUCCESS)
        }
        KeysVerb::Add(args) => {
            let key = args.file.as_deref().map_or_else(|| Ok(keyfile::generate()), read_key)?;
            // The line is wiped when the request is sent.
            change(&args.asked, "/keys/add", Bytes::from_owner(key.line()))
        }
        KeysVerb::Use(args) => args.change("/keys/use"),
        KeysVerb::Remove(args) => args.change("/keys/remove"),
    }
}

impl ChangeArgs {
    fn change(&self, path: &str) -> anyhow::Result<ExitCode> {
        let query = [("id", &*self.id.to_string()), ("force", if self.force { "true" } else { "false" })];
        change(&self.asked, &client::path(path, &query), Bytes::new())
    }
}

/// Prints a new key, but not into a file that others can read.
pub(super) fn generate() -> anyhow::Result<()> {
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned().context("cannot print")?);
    let umask = "others can read the file that this goes to, and it cannot be closed to them: `(umask 077; gossd keygen > FILE)`";
    secret_file::close(&stdout).context(umask)?;
    let mut line = keyfile::generate().line();
    line.push('\n');
    stdout.write_all(line.as_bytes()).context("cannot print")
}

fn list(asked: &AgentArgs) -> anyhow::Result<ExitCode> {
    let reply = ask::get(asked, "/keys.json")?;
    show(asked.json, &reply, |report| {
        format!("{}\n{}", key_table(report).text(), agent_table(report).text())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Asks for a change, with the key that is added or with a query that names one.
fn change(asked: &AgentArgs, path: &str, key: Bytes) -> anyhow::Result<ExitCode> {
    let reply: Reply<KeyChange> = ask::post(asked, path, key)?;
    show(asked.json, &reply, result)?;
    Ok(if reply.report.lacking.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_EVERYWHERE) })
}

fn read_key(path: &Path) -> anyhow::Result<Key> {
    let text = if path.as_os_str() == "-" {
        let mut text = Zeroizing::new(Vec::with_capacity(4_096));
        let mut stdin = io::stdin().lock().take(secret_file::MAX_LEN);
        stdin.read_to_end(&mut text).context("cannot read the key from standard input")?;
        text
    } else {
        secret_file::read(path).with_context(|| path.display().to_string())?
    };
    let keyring = Keyring::read(&text).with_context(|| path.display().to_string())?;
    let Some(key) = keyring.single() else { bail!("{} has several keys: add one at a time", path.display()) };
    Ok(key.clone())
}

/// What was changed, which agents have the change, and why others do not.
fn result(KeyChange { text, report, lacking }: &KeyChange) -> String {
    let lacks = |agent: &&AgentKeys| lacking.iter().any(|lack| lack.agent == agent.name);
    let names: Vec<&str> =
        report.agents.iter().filter(|agent| !lacks(agent)).map(|agent| &*agent.name).collect();
    let count = match (names.len(), report.agents.len()) {
        (has, all) if has == all => format!("in force and saved at all {all} known agents"),
        (has, all) => format!("in force and saved at {has} of {all} known agents"),
    };
    let colon = if names.is_empty() { "" } else { ": " };
    let others = lacking.iter().map(|Lack { agent, why, .. }| format!("not at {agent}: {}\n", plain(why)));
    format!("{}\n{count}{colon}{}\n{}", plain(text), names.join(", "), others.collect::<String>())
}

fn key_table(report: &KeyReport) -> TextTable {
    let mut table = TextTable::new(&["KEY", "SEALS", "AGENTS"]);
    for id in &report.keys {
        let has = |agent: &&AgentKeys| agent.keys.as_ref().is_some_and(|keys| keys.contains(id));
        let (with, without): (Vec<_>, Vec<_>) = report.agents.iter().partition(has);
        let mut agents = format!("{} of {}", with.len(), report.agents.len());
        for (nth, agent) in without.iter().enumerate() {
            agents.push_str(if nth == 0 { "; not " } else { ", " });
            agents.push_str(&agent.name);
        }
        let seals = if *id == report.seals { "yes" } else { "" };
        table.row(USUAL, &[&id.to_string(), seals, &agents]);
    }
    table
}

fn agent_table(report: &KeyReport) -> TextTable {
    let mut table = TextTable::new(&["AGENT", "HEARD", "SEALS WITH", "KEYS", "KEYRING", "KEY FILE"]);
    for agent in &report.agents {
        let heard = match agent.silent_seconds {
            _ if agent.asked => "is asked".to_owned(),
            Some(seconds) => format!("{} ago", Span(seconds)),
            None => "yes".to_owned(),
        };
        let seals = agent.seals.map_or("not known".into(), |id| id.to_string());
        let keys = agent.keys.as_ref().map_or("not known".into(), |keys| keys.len().to_string());
        let keyring = match agent.keys {
            _ if agent.newest => "newest",
            Some(_) => "behind",
            None => "not known",
        };
        table.row(USUAL, &[&agent.name, &heard, &seals, &keys, keyring, &agent.where_it_is()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;
    use gossd_core::link::keys::{Filed, Need};

    fn report() -> KeyReport {
        let [one, two] = ["5d0c7a11", "9f3a02c1"].map(|id| id.parse::<KeyId>().unwrap());
        let agent = |name: &str| AgentKeys {
            name: name.into(),
            asked: false,
            silent_seconds: None,
            keys: Some(vec![one, two]),
            seals: Some(one),
            newest: true,
            file: Some(Filed::Written),
            problem: None,
        };
        let behind = AgentKeys {
            silent_seconds: Some(180),
            keys: Some(vec![two]),
            seals: Some(two),
            newest: false,
            ..agent("c")
        };
        let older = AgentKeys { keys: None, seals: None, newest: false, file: None, ..agent("d") };
        let why = Some("cannot write /key: Permission denied".into());
        let locked = AgentKeys { asked: true, file: Some(Filed::MemoryOnly), problem: why, ..agent("a") };
        KeyReport { keys: vec![one, two], seals: one, agents: vec![locked, agent("b"), behind, older] }
    }

    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_list_says_who_has_which_key_and_who_is_behind() {
        let keys = "\
KEY       SEALS  AGENTS
5d0c7a11  yes    2 of 4; not c, d
9f3a02c1         3 of 4; not d
";
        assert_eq!(bare(&key_table(&report()).text()), keys);
        let agents = "\
AGENT  HEARD      SEALS WITH  KEYS       KEYRING    KEY FILE
a      is asked   5d0c7a11    2          newest     in memory only: cannot write /key: Permission denied
b      yes        5d0c7a11    2          newest     written
c      3 min ago  9f3a02c1    1          behind     written
d      yes        not known   not known  not known  not known
";
        assert_eq!(bare(&agent_table(&report()).text()), agents);
    }

    #[test]
    fn the_list_is_json_too() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["keys"], serde_json::json!(["5d0c7a11", "9f3a02c1"]));
        assert_eq!((&json["seals"], &json["agents"][0]["file"]), (&"5d0c7a11".into(), &"memory-only".into()));
        assert_eq!(
            (&json["agents"][0]["this"], &json["agents"][2]["silent_seconds"]),
            (&true.into(), &180.into())
        );
        assert_eq!(serde_json::from_value::<KeyReport>(json).unwrap(), report());
    }

    #[test]
    fn a_change_says_who_has_it_and_why_others_do_not() {
        let mut report = report();
        let lacking = report.lacking(Need::Key(report.seals));
        let change = |report: &KeyReport, lacking: &[Lack]| {
            let text = "the key 5d0c7a11 opens".into();
            result(&KeyChange { text, report: report.clone(), lacking: lacking.into() })
        };
        let printed = "\
the key 5d0c7a11 opens
in force and saved at 1 of 4 known agents: b
not at a: in memory only: cannot write /key: Permission denied
not at c: silent for 3 min; does not have the key 5d0c7a11
not at d: has not told what keys it has: is it an older gossd?
";
        assert_eq!(change(&report, &lacking), printed);
        report.agents.truncate(2);
        assert_eq!(
            change(&report, &[]),
            "the key 5d0c7a11 opens\nin force and saved at all 2 known agents: a, b\n"
        );
    }

    #[test]
    fn a_key_is_given_or_made_and_named_by_its_id() {
        let parse = |line: &str| Cli::command().try_get_matches_from(line.split(' ')).map(drop);
        for good in
            ["gossd keys add -", "gossd keys add --generate --name a", "gossd keys use 5d0c7a11 --force"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["gossd keys", "gossd keys add", "gossd keys add key --generate", "gossd keys remove 5d0c"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("gossd keys use x").unwrap_err().to_string().contains("gossd keys list"));
    }
}
