//! How many instructions a call costs, which does not move with the machine: counted by callgrind (Debian: valgrind), for an agent and
//! for a handler on the same libraries that returns the same bytes and does nothing else.
//!
//! Each server is a process of its own. What it does for itself counts once in a short run and once in a long one, and so not at all.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::connection::Caller;

use crate::calls::load::{LoadCall, repeat};
use crate::calls::{bare, calls, recorded};
use crate::cluster::holding;
use gossd_lab::table::{Column, Out};

#[derive(clap::Args)]
pub(crate) struct InstructionsArgs {
    /// Calls of a long run; a short one has a third of them
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(3..))]
    calls: u64,
    /// Serve, until the standard input ends
    #[arg(long, hide = true)]
    serve: Option<Server>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Server {
    Bare,
    Gossd,
}

pub(crate) fn run(args: &InstructionsArgs, out: Out) -> anyhow::Result<()> {
    if let Some(server) = args.serve {
        return serve(server);
    }
    let table = out.table([
        Column::Text("call", 10),
        Column::Number("bare_instructions", 0),
        Column::Number("gossd_instructions", 0),
        Column::Number("more", 0),
    ]);
    for (name, call) in calls() {
        let (bare, gossd) = std::thread::scope(|scope| {
            let bare = scope.spawn(|| each(Server::Bare, &call, args.calls));
            let gossd = each(Server::Gossd, &call, args.calls);
            (bare.join(), gossd)
        });
        let (bare, gossd) = (bare.map_err(|_| anyhow::anyhow!("a thread ended"))??, gossd?);
        table.row([name.into(), bare.into(), gossd.into(), gossd.saturating_sub(bare).into()]);
    }
    Ok(())
}

/// Instructions of one call.
fn each(server: Server, call: &LoadCall, long: u64) -> anyhow::Result<u64> {
    let short = long / 3;
    let [few, many] = [counted(server, call, short)?, counted(server, call, long)?];
    Ok(many.saturating_sub(few) / (long - short))
}

/// Instructions of a server's process that answered so many calls.
fn counted(server: Server, call: &LoadCall, count: u64) -> anyhow::Result<u64> {
    let server = match server {
        Server::Bare => "bare",
        Server::Gossd => "gossd",
    };
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    command.args(["instructions", "--serve", server]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().context("valgrind (Debian: apt-get install valgrind)")?;
    let mut authority = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut authority)?;
    let repeated = repeat(authority.trim(), call, count);
    drop(child.stdin.take());
    let said = child.wait_with_output()?.stderr;
    let said = String::from_utf8_lossy(&said);
    repeated.with_context(|| said.clone().into_owned())?;
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.with_context(|| format!("valgrind counted nothing: {said}"))
}

fn serve(server: Server) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let agent = Daemon::start(Config::loopback("a".parse()?)).await?;
        agent.agent().register(Caller::local(1), holding(7))?;
        let mut addr = agent.plugin;
        let mut agent = Some(agent);
        if matches!(server, Server::Bare) {
            addr = bare::serve_recorded(recorded(addr).await?).await?;
            agent = None;
        }
        println!("{addr}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        drop(agent);
        Ok(())
    })
}
