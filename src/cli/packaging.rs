//! What a package installs beside the program, from the command line's own declaration: completions for shells, and
//! manual pages. Shows no flag that `--help` does not.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::Resettable;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_complete::env::{CompleteEnv, Shells};
use clap_mangen::Man;

use super::EXIT_CODES;

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

/// Where a shell says that it wants completions, and which shell it is.
const COMPLETE: &str = "GOSSD_COMPLETE";

/// Answers a shell that completes a command line, and ends the program; does nothing if no shell asks.
pub(super) fn complete(command: fn() -> Command) {
    CompleteEnv::with_factory(move || shown(&command())).var(COMPLETE).complete();
}

/// The script with which a shell asks this program.
pub(super) fn completions(command: &Command, args: &CompletionsArgs) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell.to_string()).context("no such shell")?;
    let (mut script, name) = (Vec::new(), command.get_name());
    shell.write_registration(COMPLETE, name, name, name, &mut script)?;
    print(&script)
}

pub(super) fn man(command: Command, args: &ManArgs) -> anyhow::Result<()> {
    if let Some(folder) = &args.dir {
        return pages(command, folder)
            .with_context(|| format!("cannot write manual pages into {}", folder.display()));
    }
    let mut text = Vec::new();
    page(&command.disable_help_subcommand(true), &mut text)?;
    print(&text)
}

/// A page for gossd, and one for each verb, as `git` has them: `gossd-keys-add.1`.
fn pages(command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_pages(&command, folder)
}

fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_pages(verb, folder)?;
    }
    let mut text = Vec::new();
    page(command, &mut text)?;
    std::fs::write(folder.join(format!("{}.1", title(command))), text)
}

/// `gossd-keys-add`, once the command is built.
fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// What clap knows, and behind it what it does not.
fn page(command: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    // Its last words are the exit codes, which have a section of their own.
    let man = Man::new(command.clone().after_help(Resettable::Reset));
    man.render(text)?;
    let name = title(command);
    let verb = name.strip_prefix("gossd-").unwrap_or_default();
    let variables = command.get_arguments().filter_map(|arg| Some((arg.get_env()?, arg.get_long()?)));
    let variables: Vec<_> = variables.map(|(variable, flag)| (variable.to_string_lossy(), flag)).collect();
    let mut roff = String::new();
    if !variables.is_empty() {
        roff +=
            ".SH ENVIRONMENT\nA flag wins over its variable, and a variable over the configuration file.\n";
        for (variable, flag) in variables {
            roff = roff + ".TP\n\\fB" + &escaped(&variable) + "\\fR\n\\fB\\-\\-" + &escaped(flag) + "\\fR\n";
        }
    }
    roff += ".SH \"EXIT STATUS\"\n";
    for (code, meaning) in EXIT_CODES.lines().skip(1).filter_map(|line| line.trim().split_once("  ")) {
        roff = roff + ".TP\n\\fB" + code + "\\fR\n" + &escaped(meaning) + "\n";
    }
    for (title, lines) in [("FILES", files(verb)), ("SIGNALS", signals(verb)), ("EXAMPLES", examples(verb))] {
        if !lines.is_empty() {
            roff = roff + ".SH " + title + "\n";
        }
        for (term, meaning) in lines {
            roff = roff + ".TP\n\\fB" + &escaped(term) + "\\fR\n" + &escaped(meaning) + "\n";
        }
    }
    let others = ["gossd(1)", "gossd-run(1)", "gossd-status(1)", "gossd-explain(1)", "gossd-check(1)"];
    let others: Vec<&str> = others.into_iter().filter(|other| *other != format!("{name}(1)")).collect();
    roff = roff + ".SH \"SEE ALSO\"\n" + &escaped(&others.join(", ")) + "\n";
    text.extend_from_slice(roff.as_bytes());
    Ok(())
}

/// What roff would take for something else.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn files(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "" | "run" | "check" => &[
            (
                "/etc/gossd/gossd.toml",
                "the configuration of the system's service: keys are the flags of gossd run",
            ),
            ("/etc/gossd/key", "the keys, by convention: readable by root and the group gossd"),
            (
                "/var/lib/gossd, ~/.local/state/gossd",
                "the journal, the agent's identity and the peers that it knew: --data-dir",
            ),
            ("/run/gossd/NAME.sock", "the control socket: --control"),
            (
                "/etc/gossd/INSTANCE.toml, /var/lib/gossd/INSTANCE, /run/gossd-INSTANCE",
                "the same of gossd@INSTANCE.service, one of several agents of a host",
            ),
        ],
        "migrate" => &[(
            "/var/lib/gossd/migrate-undo.json, ~/.local/state/gossd/migrate-undo.json",
            "gost's former plugins, for --undo: --undo-file",
        )],
        "join" => &[("/etc/gossd, ~/.config/gossd", "where the key and gossd.toml are written: --dir")],
        _ => &[],
    }
}

fn signals(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "" | "run" => &[
            (
                "SIGTERM, SIGINT",
                "stop: finish the calls in flight, write the journal, end within five seconds",
            ),
            (
                "SIGHUP",
                "read the configuration file, keys, tokens and certificates again; what cannot change while the agent runs is logged",
            ),
        ],
        "watch" | "demo" => &[("SIGINT", "end")],
        _ => &[],
    }
}

fn examples(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "" => &[
            ("gossd demo", "three agents with made-up tunnels, and their page"),
            ("gossd run", "an agent for the gost of this host"),
            ("gossd gost-config > gost.yml", "gost's configuration for it"),
            ("gossd explain shop.example.org", "where visitors of a host name are sent, and why"),
        ],
        "run" => &[
            ("gossd run --name a --key-file key --advertise-host 10.0.0.1", "the first of several hosts"),
            ("gossd run --name b --key-file key --join 10.0.0.1:8002", "another one"),
        ],
        "invite" | "join" => &[
            ("gossd invite", "on a host that is there"),
            ("gossd join --start", "on the next one; it reads the line from standard input"),
        ],
        "check" => &[("gossd check --config /etc/gossd/gossd.toml", "before the service is started")],
        "status" | "members" => &[
            ("gossd status -w", "again every second"),
            ("gossd members --name b", "of several agents on one host, b"),
        ],
        "watch" => &[("gossd watch shop.example.org", "only what happens to the tunnel of a host name")],
        "services" | "hosts" => &[
            ("gossd services --hidden", "tunnels whose visitors get 503"),
            ("gossd hosts example.org", "names with that in them"),
        ],
        "get" | "explain" => &[(
            "gossd explain 4d21094e-b74c-4916-86c1-d9fa36ea677b",
            "every record of a tunnel, and why it is listed where it is",
        )],
        "import" => &[
            ("gossd import redis://10.0.0.3:6379 --dry-run", "what would be taken"),
            (
                "gossd import rediss://reader@10.0.0.3/1 --password-file redis-password",
                "a database of a Redis with TLS and users",
            ),
        ],
        "migrate" => &[
            (
                "gossd migrate redis://10.0.0.3:6379 --gost-api http://127.0.0.1:18080",
                "on every host, within a minute",
            ),
            ("gossd migrate redis://10.0.0.3:6379 --gost-api http://127.0.0.1:18080 --undo", "and back"),
        ],
        "drain" => &[("gossd drain", "before work on this host"), ("gossd drain --undo", "after it")],
        "forget" => &[("gossd forget c", "the agent c is dead and will not come back")],
        "keys" | "keys-add" => &[("gossd keys add --generate", "the first step of a rotation")],
        "keys-use" => &[("gossd keys use 5d0c7a11", "the second step: from now on, it seals")],
        "keys-remove" => {
            &[("gossd keys remove 9f3a02c1", "the last step: the old key opens nothing any more")]
        }
        "keys-list" => &[("gossd keys list", "who has which keys, and whose key file has them")],
        "keygen" | "keys-generate" => &[("(umask 077; gossd keygen > key)", "a key file for all hosts")],
        "leave" => &[("gossd leave", "this host will not come back")],
        "healthcheck" => &[("gossd healthcheck", "in a container's health check")],
        "hold" => &[("gossd hold --name a", "in the container that owns the network of the agent a")],
        "gost-config" => &[("gossd gost-config > gost.yml", "with the flags of gossd run")],
        "matrix" => &[("gossd matrix", "which host cannot reach whose entrypoint")],
        "debug" => &[("gossd debug shop.example.org", "an archive, with why that host is answered as it is")],
        "demo" => &[("gossd demo", "until ctrl-c; nothing is written to disk")],
        "completions" => &[("source <(gossd completions bash)", "for this shell")],
        "man" => &[("gossd man --dir /usr/local/share/man/man1", "a page for each verb")],
        _ => &[],
    }
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
