//! SIGHUP: reads the configuration file again, and logs what changed and what of it needs a restart. A file that is no
//! good changes nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;

use anyhow::Context as _;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches as _, ValueHint};

use super::file;
use super::flags::RunArgs;
use crate::config::FlagValue;

/// What takes effect while the agent runs. The contents of token, certificate and key files do so by themselves.
const ADJUSTABLE: [&str; 12] = [
    "join",
    "order",
    "zone",
    "weight",
    "max_records",
    "max_rules",
    "max_bytes",
    "ingress_domain",
    "ingress_rule",
    "ingress_reserved",
    "ingress_min_label",
    "claim_policy",
];
/// The one more that the log itself takes.
const LOG_LEVEL: &str = "log_level";

/// Where an agent's configuration came from, and how it was last.
pub(super) struct Source {
    command: Command,
    argv: Vec<OsString>,
    /// At the start.
    first: ArgMatches,
    /// The last one of which all that can change while the agent runs is in force.
    last: ArgMatches,
}

/// A configuration that was read again.
pub(super) struct Again {
    pub(super) args: RunArgs,
    /// Flags that changed and are in force once the caller has applied `args`.
    pub(super) changed: Vec<Changed>,
    /// Flags that changed and need a restart.
    pub(super) fixed: Vec<Changed>,
    /// For [`Source::apply`].
    pub(super) matches: ArgMatches,
}

/// A flag that changed. No flag has a secret for its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    flag: String,
    from: Vec<String>,
    to: Vec<String>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |values: &[String]| if values.is_empty() { "nothing".into() } else { values.join(", ") };
        write!(f, "{} from {} to {}", self.flag, told(&self.from), told(&self.to))
    }
}

impl Source {
    /// Of this command line, as it was read at the start.
    pub(super) fn new(command: Command, argv: Vec<OsString>) -> anyhow::Result<Self> {
        let last = read(&command, &argv)?;
        Ok(Self { command, argv, first: last.clone(), last })
    }

    /// Reads the file again. Nothing of it is in force before [`Self::apply`].
    pub(super) fn again(&self) -> anyhow::Result<Again> {
        let read = read(&self.command, &self.argv)?;
        let args = RunArgs::from_arg_matches(&read)?;
        let (mut changed, mut fixed) = (Vec::new(), Vec::new());
        for id in read.ids().chain(self.last.ids()).map(clap::Id::as_str) {
            let (flag, from, to) = (flag(id), values(&self.last, id), values(&read, id));
            let is_told = |list: &[Changed]| list.iter().any(|changed| changed.flag == flag);
            if from == to || is_told(&changed) || is_told(&fixed) {
                continue;
            }
            let list = if is_adjustable(id) { &mut changed } else { &mut fixed };
            list.push(Changed { flag, from, to });
        }
        Ok(Again { args, changed, fixed, matches: read })
    }

    /// What can change while the agent runs is in force now.
    pub(super) fn apply(&mut self, matches: ArgMatches) {
        self.last = matches;
    }

    /// The flags that are in force, by their names; paths as another process finds them.
    pub(super) fn flags(&self) -> Vec<FlagValue> {
        let ids: BTreeSet<&str> = self.first.ids().chain(self.last.ids()).map(clap::Id::as_str).collect();
        let of = |id| if is_adjustable(id) { &self.last } else { &self.first };
        let flags = ids.into_iter().map(|id| FlagValue {
            flag: flag(id),
            values: self.placed(id, values(of(id), id)),
            is_default: of(id).value_source(id) == Some(ValueSource::DefaultValue),
        });
        flags.filter(|flag| !flag.values.is_empty()).collect()
    }
}

impl Source {
    /// Values that are paths do not depend on where this process runs.
    fn placed(&self, id: &str, values: Vec<String>) -> Vec<String> {
        let run = self.command.find_subcommand("run");
        let arg = run.and_then(|run| run.get_arguments().find(|arg| arg.get_id() == id));
        let is_path = arg.is_some_and(|arg| arg.get_value_hint() == ValueHint::AnyPath);
        let place = |value: String| match std::path::absolute(&value) {
            Ok(path) if is_path && value != "none" => path.display().to_string(),
            Ok(_) | Err(_) => value,
        };
        values.into_iter().map(place).collect()
    }
}

fn is_adjustable(id: &str) -> bool {
    ADJUSTABLE.contains(&id) || id == LOG_LEVEL
}

fn flag(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

/// The matches of the verb `run`. Unlike at the start, nothing ends the program.
fn read(command: &Command, argv: &[OsString]) -> anyhow::Result<ArgMatches> {
    let line = file::with_file(command, argv.to_vec())?;
    let mut matches = command.clone().try_get_matches_from(line)?;
    let (_, run) = matches.remove_subcommand().context("no verb")?;
    Ok(run)
}

fn values(matches: &ArgMatches, id: &str) -> Vec<String> {
    let raw = matches.try_get_raw(id).ok().flatten();
    raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    fn source(file: &std::path::Path, text: &str) -> Source {
        std::fs::write(file, text).unwrap();
        let argv = ["gossd".into(), "run".into(), "--config".into(), file.as_os_str().to_owned()];
        Source::new(Cli::command(), argv.into()).unwrap()
    }

    #[test]
    fn what_changed_is_told_apart_from_what_needs_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gossd.toml");
        let mut source = source(&file, "name = \"a\"\norder = \"random\"\nmax-records = 5");
        let again = source.again().unwrap();
        assert_eq!((again.changed.len(), again.fixed.len()), (0, 0), "the same");
        let text = "name = \"b\"\norder = \"nearest\"\njoin = [\"x:1\"]\nlog-level = \"debug\"";
        std::fs::write(&file, text).unwrap();
        let again = source.again().unwrap();
        let told = |changes: &[Changed]| {
            let mut told: Vec<String> = changes.iter().map(ToString::to_string).collect();
            told.sort();
            told
        };
        let [join, level, records, order] = &told(&again.changed)[..] else { panic!("{:?}", again.changed) };
        assert_eq!(join, "--join from nothing to x:1");
        assert!(level.starts_with("--log-level from ") && level.ends_with(" to debug"), "{level}");
        assert!(records.starts_with("--max-records from 5 to "), "{records}");
        assert_eq!(order, "--order from random to nearest");
        assert_eq!(told(&again.fixed), ["--name from a to b"]);
        let flag = |source: &Source, flag: &str| {
            let found = source.flags().into_iter().find(|found| found.flag == flag);
            found.map(|found| (found.values.join(" "), found.is_default))
        };
        assert_eq!(flag(&source, "--order"), Some(("random".into(), false)), "nothing is in force yet");
        source.apply(again.matches);
        assert!(source.again().unwrap().changed.is_empty(), "told once");
        assert_eq!(flag(&source, "--order"), Some(("nearest".into(), false)));
        assert_eq!(flag(&source, "--name"), Some(("a".into(), false)), "until a restart");
        assert_eq!(flag(&source, "--cluster"), Some(("default".into(), true)));
        assert_eq!(flag(&source, "--tls-cert"), None);
    }

    #[test]
    fn a_file_that_is_no_good_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gossd.toml");
        let source = source(&file, "order = \"random\"");
        std::fs::write(&file, "order = \"random\"\nordre = 3").unwrap();
        let error = format!("{:#}", source.again().err().unwrap());
        assert!(error.contains("line 2: ordre: there is no such setting"), "{error}");
        std::fs::write(&file, "order = \"nearest\"").unwrap();
        assert_eq!(source.again().unwrap().changed[0].to_string(), "--order from random to nearest");
    }
}
