//! The flags that choose which agent a verb asks, and how its answer is printed; and the verbs that are one request:
//! leave, drain, healthcheck.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use axum::http::Method;
use clap::Args;

use super::client::{self, AdminAddress, Client, Reply, parse_admin, runtime};
use super::complete;
use super::status::health;
use super::{paths, table};
use crate::config::DEFAULT_ADMIN;
use crate::ops::report::{DoneReport, StatusReport};
use gossd_core::record::AgentName;

/// Which agent a verb asks. None of the flags is needed where one agent runs: it is found by its control socket.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// The agent's name, if several run on this host [default: the one that runs]
    #[arg(long, env = "GOSSD_NAME", add = complete::agents())]
    name: Option<AgentName>,
    /// The agent's admin listener, also of another host [default: its control socket is asked]
    #[arg(long, env = "GOSSD_ADMIN", value_name = "ADDR", value_parser = parse_admin)]
    admin: Option<AdminAddress>,
    /// The file of the admin listener's tokens, if it requires one: the first of them is sent
    #[arg(long, env = "GOSSD_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The agent's control socket, if it is not where `gossd run` or the system's service puts it
    #[arg(long, env = "GOSSD_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// The agent's configuration file, for its `name`, `admin` and `control`
    #[arg(long, env = "GOSSD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
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
    asked: AgentArgs,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The name of the agent that is dead
    #[arg(value_name = "NAME", add = complete::dead())]
    dead: AgentName,
    #[command(flatten)]
    asked: AgentArgs,
}

impl AgentArgs {
    /// Of the agent that is meant, for a question.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        if let Some(path) = self.control() {
            return Ok(Client::Control(path.clone()));
        }
        if let Some(admin) = self.admin()? {
            return Ok(admin);
        }
        if let Some(name) = &self.name {
            return there(name).await;
        }
        match found().await? {
            Some(client) => Ok(client),
            // Nobody runs as this user; but every user of this host may ask the admin listener.
            None => self.listener(DEFAULT_ADMIN),
        }
    }

    /// The same, for a change: only the control socket takes one.
    pub(super) async fn changer(&self) -> anyhow::Result<Client> {
        if let Some(path) = self.control() {
            return Ok(Client::Control(path.clone()));
        }
        if let Some(name) = &self.name {
            return there(name).await;
        }
        if let Some(admin) = self.admin()? {
            return beside(&admin).await;
        }
        match found().await? {
            Some(client) => Ok(client),
            None => of_name(&paths::name(None)?),
        }
    }

    fn control(&self) -> Option<&PathBuf> {
        self.control.as_ref().filter(|path| *path != Path::new("none"))
    }

    fn admin(&self) -> anyhow::Result<Option<Client>> {
        match &self.admin {
            Some(AdminAddress::At(place)) => Ok(Some(self.listener(place)?)),
            Some(AdminAddress::None) | None => Ok(None),
        }
    }

    fn listener(&self, place: &str) -> anyhow::Result<Client> {
        Client::Admin(place.into(), None).with_token_of(self.admin_token_file.as_deref())
    }
}

/// The control socket of the agent with that name on this host.
fn of_name(name: &AgentName) -> anyhow::Result<Client> {
    let path = paths::running(name);
    path.map(Client::Control).context("cannot tell where the agent's control socket is; set --control")
}

/// The same, if it takes connections, or if no other agent runs here that may be meant.
async fn there(name: &AgentName) -> anyhow::Result<Client> {
    let client = of_name(name)?;
    let running = running().await;
    if !client.is_there().await && !running.is_empty() {
        let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
        bail!("no agent {name} answers here as this user; those that do: {}", names.join(", "));
    }
    Ok(client)
}

/// The only agent that runs on this host, as this user or as the system's service; none if none does.
async fn found() -> anyhow::Result<Option<Client>> {
    let mut running = running().await;
    if running.len() > 1 {
        let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
        bail!("the agents {} run here: say which with --name", names.join(", "));
    }
    Ok(running.pop().map(|(_, client)| client))
}

/// The agents that run on this host, as this user or as the system's service, by name.
pub(super) async fn running() -> Vec<(AgentName, Client)> {
    let mut running = Vec::new();
    for (name, path) in paths::sockets() {
        let client = Client::Control(path);
        if client.is_there().await {
            running.push((name, client));
        }
    }
    running
}

/// The control socket of the agent that has an admin listener, if it runs on this host.
async fn beside(admin: &Client) -> anyhow::Result<Client> {
    let asked: StatusReport = admin.get("/status.json").await?.report;
    let elsewhere = || {
        format!(
            "the agent {} at {admin} takes changes at its control socket only, and that is not on this host, or not this user's: \
             type this there, as its user",
            asked.name
        )
    };
    let client = of_name(&asked.name.parse()?)?;
    let same: Reply<StatusReport> = client.get("/status.json").await.with_context(elsewhere)?;
    if same.report.generation != asked.generation {
        bail!(elsewhere());
    }
    Ok(client)
}

pub(super) fn leave(asked: &AgentArgs) -> anyhow::Result<()> {
    change(asked, "/leave")
}

pub(super) fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    change(&args.asked, if args.undo { "/undrain" } else { "/drain" })
}

pub(super) fn forget(args: &ForgetArgs) -> anyhow::Result<()> {
    change(&args.asked, &client::path("/forget", &[("name", args.dead.as_str())]))
}

fn change(asked: &AgentArgs, path: &str) -> anyhow::Result<()> {
    let reply = post(asked, path, Bytes::new())?;
    show(asked.json, &reply, |done: &DoneReport| format!("{}\n", done.text))
}

pub(super) fn healthcheck(asked: &AgentArgs) -> anyhow::Result<()> {
    let reply: Reply<StatusReport> = get(asked, "/status.json")?;
    let text = health(&reply.report);
    let text = if asked.json { serde_json::to_string(&DoneReport { done: true, text })? } else { text };
    table::print(&format!("{text}\n")).context("cannot print")
}

/// Asks the agent that is meant for a report.
pub(super) fn get<T: serde::de::DeserializeOwned>(asked: &AgentArgs, path: &str) -> anyhow::Result<Reply<T>> {
    wait(async { Ok(asked.client().await?.get(path).await?) })
}

/// Asks the agent that is meant for a change.
pub(super) fn post<T: serde::de::DeserializeOwned>(
    asked: &AgentArgs,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Reply<T>> {
    wait(async { Ok(asked.changer().await?.report(Method::POST, path, body).await?) })
}

pub(super) fn wait<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let reply = runtime.block_on(asked);
    // A resolver that does not answer must not hold the end up.
    runtime.shutdown_background();
    reply
}

/// Prints a report: for people, or as JSON.
pub(super) fn show<T>(json: bool, reply: &Reply<T>, page: impl Fn(&T) -> String) -> anyhow::Result<()> {
    let text = if json { reply.json(table::is_watched()) } else { page(&reply.report) };
    table::print(&text).context("cannot print")
}
