//! What a package installs beside the program, from the command line's own declaration: completions for shells, and
//! manual pages. Shows no flag that `--help` does not.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell's
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write gossd.1 and a page for each verb into this folder instead
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(command: &Command, args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(command), command.get_name(), &mut script);
    print(&script)
}

pub(super) fn man(command: Command, args: &ManArgs) -> anyhow::Result<()> {
    if let Some(folder) = &args.dir {
        return pages(command, folder)
            .with_context(|| format!("cannot write manual pages into {}", folder.display()));
    }
    let mut page = Vec::new();
    Man::new(command.disable_help_subcommand(true)).render(&mut page)?;
    print(&page)
}

fn pages(command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

/// The same command line without its hidden parts, which completions would show.
fn shown(command: &Command) -> Command {
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(shown);
    let shown = Command::new(command.get_name().to_owned()).args(args).subcommands(verbs);
    match command.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    }
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    io::stdout().write_all(text).context("cannot print")
}
