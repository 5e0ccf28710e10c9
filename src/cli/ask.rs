//! The flags that choose which agent a verb asks, and how its answer is printed; and the verbs that are one request:
//! leave, drain, healthcheck.

use std::path::PathBuf;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use clap::Args;

use super::client::{Client, NoReport, Reply, parse_admin, runtime};
use super::status::health;
use super::{paths, table};
use crate::config::DEFAULT_ADMIN;
use crate::ops::report::{DoneReport, StatusReport};
use gossd_core::record::AgentName;

/// Which agent is asked for a report.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// The agent's admin listener
    #[arg(long, env = "GOSSD_ADMIN", value_name = "ADDR", default_value = DEFAULT_ADMIN, value_parser = parse_admin)]
    admin: String,
    /// The file of the admin listener's tokens, if it requires one: the first of them is sent
    #[arg(long, env = "GOSSD_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The agent's control socket, to be asked instead of its admin listener
    // Its own id keeps the configuration file's `control` away: the file is read for `admin`.
    #[arg(id = "socket", long = "control", value_name = "PATH")]
    control: Option<PathBuf>,
    /// The agent's configuration file, for its `admin`
    #[arg(long, env = "GOSSD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, as the agent sends it
    #[arg(long)]
    pub(super) json: bool,
}

/// Which agent is asked for a change.
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

impl AgentArgs {
    /// Of the agent that is meant.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        match &self.control {
            Some(path) => Ok(Client::Control(path.clone())),
            None => Client::Admin(self.admin.clone(), None).with_token_of(self.admin_token_file.as_deref()),
        }
    }
}

impl Whom {
    /// Of the agent that is meant.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        if let Some(path) = &self.control {
            return Ok(Client::Control(path.clone()));
        }
        let path = paths::running(&paths::name(self.name.clone())?);
        path.map(Client::Control).context("cannot tell where the agent's control socket is; set --control")
    }
}

pub(super) fn leave(whom: &Whom) -> anyhow::Result<()> {
    change(whom, "/leave")
}

pub(super) fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    change(&args.whom, if args.undo { "/undrain" } else { "/drain" })
}

fn change(whom: &Whom, path: &str) -> anyhow::Result<()> {
    let reply = wait(whom.client()?.report(Method::POST, path, Bytes::new()))?;
    show(whom.json, &reply, |done: &DoneReport| format!("{}\n", done.text))
}

pub(super) fn healthcheck(whom: &Whom) -> anyhow::Result<()> {
    let reply: Reply<StatusReport> = wait(whom.client()?.get("/status.json"))?;
    let text = health(&reply.report);
    let text = if whom.json { serde_json::to_string(&DoneReport { done: true, text })? } else { text };
    table::print(&format!("{text}\n")).context("cannot print")
}

/// Waits for one answer.
pub(super) fn wait<T>(asked: impl Future<Output = Result<Reply<T>, NoReport>>) -> anyhow::Result<Reply<T>> {
    let runtime = runtime()?;
    let reply = runtime.block_on(asked);
    // A resolver that does not answer must not hold the end up.
    runtime.shutdown_background();
    Ok(reply?)
}

/// Prints a report: for people, or as JSON.
pub(super) fn show<T>(json: bool, reply: &Reply<T>, page: impl Fn(&T) -> String) -> anyhow::Result<()> {
    let text = if json { reply.json(table::is_watched()) } else { page(&reply.report) };
    table::print(&text).context("cannot print")
}
