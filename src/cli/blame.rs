//! Who is to be told that a setting is wrong: not the flag, if nobody typed it.

use std::env;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, CommandFactory as _};

use super::{Cli, file};

/// Settings that no agent could start with, found by other means than clap's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WrongSettings(pub(super) String);

/// An error of whoever reads settings, unless it says already what it is.
pub(super) fn settings(error: anyhow::Error) -> anyhow::Error {
    if error.is::<clap::Error>() { error } else { WrongSettings(super::words::told(&error)).into() }
}

/// What clap says is wrong, in one line: a value that has line breaks is not to hide the reason, which comes behind it.
pub(super) fn line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if value.contains(['\n', '\r']) => {
            text.replace(value.as_str(), &value.escape_debug().to_string())
        }
        _ => text,
    };
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Where the flags that an error names come from, if nobody typed them; nothing if somebody did.
pub(super) fn origins(error: &anyhow::Error) -> String {
    let (line, command) = (env::args_os().collect::<Vec<_>>(), Cli::command());
    let text = super::words::told(error);
    let flags = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter_map(|word| word.strip_prefix("--"));
    // Whatever is wrong is named first; the rest may be what to do about it.
    let Some(flag) = flags.into_iter().next() else { return String::new() };
    match origin(&command, &line, flag, &text) {
        Some(origin) => format!(" (--{flag} is set by {origin})"),
        None => String::new(),
    }
}

/// Where a flag of a command line comes from that nobody typed.
fn origin(command: &Command, line: &[OsString], flag: &str, text: &str) -> Option<String> {
    let verb = verb_of(command, line)?;
    let arg = verb.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    if is_typed(line, flag) {
        return None;
    }
    let variable = arg.get_env().filter(|variable| env::var_os(variable).is_some());
    if let Some(variable) = variable {
        return Some(format!("the variable {}", variable.to_string_lossy()));
    }
    let path = file::path_of(command, line)?;
    let path_text = path.display().to_string();
    (file::keys(&path).contains(flag) && !text.contains(&path_text)).then_some(path_text)
}

/// The verb that a command line is for, however deep.
pub(super) fn verb_of<'a>(command: &'a Command, line: &[OsString]) -> Option<&'a Command> {
    let words = line.iter().skip(1).filter_map(|word| word.to_str());
    let mut verb = command;
    for word in words {
        let Some(deeper) = verb.find_subcommand(word) else { break };
        verb = deeper;
    }
    (verb.get_name() != command.get_name()).then_some(verb)
}

pub(super) fn is_typed(line: &[OsString], flag: &str) -> bool {
    let words = line.iter().filter_map(|word| word.to_str());
    words.filter_map(|word| word.strip_prefix("--")).any(|word| word.split('=').next() == Some(flag))
}

/// The variable of an argument that nobody typed, if it is set.
pub(super) fn variable(arg: &Arg, line: &[OsString]) -> Option<String> {
    let is_typed = arg.get_long().is_some_and(|flag| is_typed(line, flag));
    let variable = arg.get_env().filter(|name| !is_typed && env::var_os(name).is_some());
    variable.map(|name| name.to_string_lossy().into_owned())
}
