//! The configuration file: TOML whose keys are the flags of `gossd run`. Its settings are appended to the command line as
//! flags, unless a flag or a variable is set, so they mean the same as flags and are checked alike. A verb that has only
//! some of these flags gets only these.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Spanned, Value};

use super::blame;

/// The verb whose flags the keys are. Others take the same file.
const RUN: &str = "run";

/// The command line with what its configuration file adds, if it names one. A command line that is wrong ends
/// the program, as clap does.
pub(super) fn with_file(command: &Command, argv: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let matches =
        command.clone().try_get_matches_from(&argv).map_err(|error| blamed(command, &argv, error))?;
    let Some((verb, matches)) = matches.subcommand() else { return Ok(argv) };
    let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") else { return Ok(argv) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read --config {}", path.display()))?;
    let flags = flags(command, &text).with_context(|| path.display().to_string())?;
    let takes = |id: &str| {
        command.find_subcommand(verb).is_some_and(|verb| verb.get_arguments().any(|arg| arg.get_id() == id))
    };
    let unsaid = flags.into_iter().filter(|(id, _)| takes(id) && !is_said(matches, id));
    let unsaid = unsaid.flat_map(|(_, flags)| flags);
    Ok(argv.into_iter().chain(unsaid.map(OsString::from)).collect())
}

/// An error about a flag that was not typed but set by its variable names that: whoever reads it under a service manager
/// has typed nothing.
fn blamed(command: &Command, argv: &[OsString], error: clap::Error) -> clap::Error {
    let kind = error.kind();
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let long = flag.split_whitespace().next().unwrap_or_default().trim_start_matches('-');
    let verb = blame::verb_of(command, argv);
    let arg = verb.and_then(|verb| verb.get_arguments().find(|arg| arg.get_long() == Some(long)));
    let Some(variable) = arg.and_then(|arg| blame::variable(arg, argv)) else { return error };
    let first = blame::line(&error).replace(&format!("'{flag}'"), &format!("the variable {variable}"));
    clap::Error::raw(kind, format!("{first}{}\n", choices(&error)))
}

/// The values that would do, if they can be counted.
fn choices(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!(" (it may be {})", values.join(", "))
        }
        _ => String::new(),
    }
}

/// The configuration file of a command line, if it has one.
pub(super) fn path_of(command: &Command, argv: &[OsString]) -> Option<PathBuf> {
    let matches = command.clone().try_get_matches_from(argv).ok()?;
    let (_, matches) = matches.subcommand()?;
    matches.try_get_one::<PathBuf>("config").ok()?.cloned()
}

/// The keys that a configuration file has, as far as it can be read.
pub(super) fn keys(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    parse(&text).map(|keys| keys.into_keys().collect()).unwrap_or_default()
}

/// Whether a flag or its variable was given.
fn is_said(matches: &ArgMatches, id: &str) -> bool {
    matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// The argument of each key, and the flags that mean the same.
pub(super) fn flags(command: &Command, text: &str) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let keys = parse(text).map_err(|error| placed(text, error))?;
    let run = command.find_subcommand(RUN).context("no such verb")?;
    let mut all = Vec::new();
    for (key, value) in keys {
        let line = text[..value.span().start].lines().count().max(1);
        let at = || format!("line {line}: {key}");
        let known =
            run.get_arguments().find(|arg| arg.get_long() == Some(&key) && key != "config" && key != "help");
        let Some(arg) = known else {
            let hint = meant(run, &key).map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            bail!("{}: there is no such setting{hint}", at())
        };
        let flags = if matches!(arg.get_action(), ArgAction::SetTrue) {
            switch(&key, value.get_ref()).with_context(at)?
        } else {
            values(value.get_ref()).with_context(at)?.iter().map(|value| format!("--{key}={value}")).collect()
        };
        check(run, &flags).with_context(at)?;
        all.push((arg.get_id().to_string(), flags));
    }
    Ok(all)
}

/// The key that is most like one that does not exist.
fn meant(run: &Command, key: &str) -> Option<String> {
    /// Of two words that have little in common; from 0 to 1.
    const UNLIKE: f64 = 0.8;
    let key = key.replace('_', "-");
    let flags =
        run.get_arguments().filter_map(Arg::get_long).filter(|long| !["config", "help"].contains(long));
    let likeness = |long: &str| strsim::jaro_winkler(long, &key);
    let best = flags.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > UNLIKE).then(|| best.to_owned())
}

fn parse(text: &str) -> Result<BTreeMap<String, Spanned<Value>>, toml::de::Error> {
    toml::from_str(text)
}

/// The error with its line. The parser names none for what is nested too deeply: it is the first line with which the error
/// appears.
fn placed(text: &str, error: toml::de::Error) -> anyhow::Error {
    if error.span().is_some() {
        return error.into();
    }
    let mut ends = text.match_indices('\n').map(|(at, _)| at);
    let same = |end: usize| parse(&text[..end]).is_err_and(|other| other.message() == error.message());
    let before = ends.position(same).unwrap_or_else(|| text.matches('\n').count());
    anyhow!("line {}: {}", before + 1, error.message())
}

fn switch(key: &str, value: &Value) -> anyhow::Result<Vec<String>> {
    match value {
        Value::Boolean(true) => Ok(vec![format!("--{key}")]),
        Value::Boolean(false) => Ok(Vec::new()),
        _ => bail!("it is either true or false"),
    }
}

/// A value as flags write it; lists are repeated, tables are `NAME=VALUE`.
fn values(value: &Value) -> anyhow::Result<Vec<String>> {
    match value {
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Table(table) => {
            table.iter().map(|(name, value)| Ok(format!("{name}={}", plain(value)?))).collect()
        }
        other => Ok(vec![plain(other)?]),
    }
}

fn plain(value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(_) | Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            bail!("it is neither a text nor a number")
        }
    }
}

/// Whether the flags would be understood. What else they need may be another key, a flag or a variable.
fn check(run: &Command, flags: &[String]) -> anyhow::Result<()> {
    let Err(error) = run.clone().no_binary_name(true).try_get_matches_from(flags) else { return Ok(()) };
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return Ok(());
    }
    bail!("{}{}", blame::line(&error), choices(&error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    fn told(text: &str) -> Result<Vec<String>, String> {
        let flags = flags(&Cli::command(), text).map_err(|error| format!("{error:#}"))?;
        Ok(flags.into_iter().flat_map(|(_, flags)| flags).collect())
    }

    #[test]
    fn a_key_says_what_its_flag_says() {
        let text = "lease-ttl = 30\nleave-on-stop = true\njoin = [\"b:1\", \"c:2\"]\norder = \"nearest\"\n\
                    [ingress-rule]\n\"www.example.org\" = \"4d21094e-b74c-4916-86c1-d9fa36ea677b\"";
        let want = [
            "--ingress-rule=www.example.org=4d21094e-b74c-4916-86c1-d9fa36ea677b",
            "--join=b:1",
            "--join=c:2",
            "--lease-ttl=30",
            "--leave-on-stop",
            "--order=nearest",
        ];
        assert_eq!(told(text).unwrap(), want);
        assert_eq!(told("leave-on-stop = false"), Ok(vec![]));
        let two = ["--tls-cert=c", "--tls-key=k"];
        assert_eq!(told("tls-key = \"k\"\ntls-cert = \"c\"").unwrap(), two, "each needs the other");
    }

    #[test]
    fn what_makes_no_sense_is_pointed_at() {
        for (text, error) in [
            ("\nlease = 30", "line 2: lease: there is no such setting"),
            ("type = \"grpc\"", "line 1: type: there is no such setting"),
            ("max_records = 5", "line 1: max_records: there is no such setting; did you mean max-records?"),
            ("leese-ttl = 5", "line 1: leese-ttl: there is no such setting; did you mean lease-ttl?"),
            ("config = \"x\"", "line 1: config: there is no such setting"),
            ("a = 1\na = 2", "line 2, column 1"),
            ("join = [", "line 1, column"),
            ("\n\nlease-ttl = \"x\"", "line 3: lease-ttl: invalid value 'x'"),
            ("lease-ttl = 1.5", "line 1: lease-ttl: it is neither a text nor a number"),
            ("leave-on-stop = 1", "line 1: leave-on-stop: it is either true or false"),
            ("order = \"fastest\"", "line 1: order: invalid value 'fastest'"),
            ("[ingress-rule]\nx = \"t\"", "ingress-rule: invalid value"),
            (&format!("\n{}a = 1\n\n", "a.".repeat(100)), "line 2: recursion limit"),
            (&format!("{}a = 1", "a.".repeat(100)), "line 1: recursion limit"),
        ] {
            let told = told(text).unwrap_err();
            assert!(told.contains(error), "{told}");
        }
    }

    #[test]
    fn flags_and_variables_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gossd.toml");
        std::fs::write(&path, "lease-ttl = 30\norder = \"nearest\"").unwrap();
        let argv = |more: &[&str]| {
            let argv = [&["gossd", "run", "--config", path.to_str().unwrap()], more].concat();
            with_file(&Cli::command(), argv.iter().map(OsString::from).collect()).unwrap()
        };
        assert_eq!(argv(&["--lease-ttl", "20"])[4..], ["--lease-ttl", "20", "--order=nearest"]);
        assert_eq!(argv(&[])[4..], ["--lease-ttl=30", "--order=nearest"]);
    }

    #[test]
    fn a_verb_gets_the_flags_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gossd.toml");
        std::fs::write(&path, "lease-ttl = 30\nadmin = \"10.0.0.1:1\"").unwrap();
        let argv = ["gossd", "status", "--config", path.to_str().unwrap()].map(OsString::from);
        assert_eq!(with_file(&Cli::command(), argv.into()).unwrap()[4..], ["--admin=10.0.0.1:1"]);
    }
}
