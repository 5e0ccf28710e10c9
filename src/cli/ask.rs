//! The verbs that speak to a running agent through its control socket.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{paths, table};
use crate::control::{self, Answer, Request};
use gossd_core::record::AgentName;

/// Which agent.
#[derive(Debug, Args)]
pub(super) struct Whom {
    /// The agent's name, if several run on this host [default: the host name]
    #[arg(long, env = "GOSSD_NAME")]
    name: Option<AgentName>,
    /// The agent's control socket [default: where `gossd run` or the system's service puts it]
    #[arg(long, env = "GOSSD_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Show the records again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    whom: Whom,
}

pub(super) fn leave(whom: Whom) -> anyhow::Result<()> {
    ask(whom, Request::Leave)
}

pub(super) fn drain(args: DrainArgs) -> anyhow::Result<()> {
    ask(args.whom, if args.undo { Request::Undrain } else { Request::Drain })
}

pub(super) fn health(whom: Whom) -> anyhow::Result<()> {
    ask(whom, Request::Health)
}

fn ask(whom: Whom, request: Request) -> anyhow::Result<()> {
    let json = whom.json;
    let answer = answer(whom, request)?;
    let text = if json { serde_json::to_string(&answer)? } else { answer.text };
    table::print(&format!("{text}\n")).context("cannot print")
}

/// What the agent answers; an error if it does not do what it is asked.
pub(super) fn answer(whom: Whom, request: Request) -> anyhow::Result<Answer> {
    let path = whom.path().context("cannot tell where the agent's control socket is; set --control")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(control::ask(&path, request)).with_context(|| {
        format!(
            "no agent answers at {}: is `gossd run` running, as this user, with this --name?",
            path.display()
        )
    })?;
    if !answer.done {
        bail!(answer.text);
    }
    Ok(answer)
}

impl Whom {
    fn path(self) -> Option<PathBuf> {
        if self.control.is_some() {
            return self.control;
        }
        paths::running(&self.name.or_else(paths::host_name)?)
    }
}
