//! `gossd check`: whether `gossd run` with the same flags could start here and do its work. Starts nothing, and leaves
//! everything as it was. Each finding is a line, with what to do.

mod clock;
mod files;
mod gost;
mod ingress_file;
mod network;
pub(super) mod peers;
mod ports;
mod second;

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::Style;
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::flags::RunArgs;
use super::table::{self, BAD, GOOD, WARN, painted};
use super::words::{plain, told};
use super::{ask, client, configure};
use crate::config::{Config, FlagValue, is_loopback, what_an_open_admin_means};
use crate::ops::report::ConfigReport;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also try the second address of `gossd gost-config --second`: the IP address of the peer's host
    #[arg(long, value_name = "IP")]
    second: Option<IpAddr>,
    /// gost's configuration: whether its plugins lead to this agent with a token that it takes, and whether the way in which it
    /// finds host names fits --ingress-file
    #[arg(long, value_name = "FILE")]
    gost_config: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Flags of gossd run")]
    agent: RunArgs,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    verdict: Severity,
    /// What is so, and what to do about it.
    pub(super) text: String,
}

/// How bad it is: the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// The agent would not start, or not do what its flags ask for.
    Fail,
    /// It may be meant so.
    Warn,
    Ok,
}

/// All of it, the worst first.
#[derive(Serialize)]
pub(super) struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

pub(super) fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let runtime = client::runtime()?;
    let report = runtime.block_on(report(args.agent, args.second, args.gost_config.as_deref()));
    // A resolver that does not answer must not hold the end up.
    runtime.shutdown_background();
    let text = match (args.json, table::is_watched()) {
        (true, true) => serde_json::to_string_pretty(&report)? + "\n",
        (true, false) => serde_json::to_string(&report)? + "\n",
        (false, _) => report.checks.iter().map(line).collect(),
    };
    table::print(&text).context("cannot print")?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is found with these flags.
pub(super) async fn report(args: RunArgs, second: Option<IpAddr>, gost: Option<&Path>) -> Report {
    let mut checks = examine(args, second, gost).await;
    checks.sort_by_key(|finding| finding.verdict);
    Report { ok: checks.iter().all(|finding| finding.verdict != Severity::Fail), checks }
}

async fn examine(args: RunArgs, second: Option<IpAddr>, gost: Option<&Path>) -> Vec<Finding> {
    let file = args.config.clone();
    let bare = bare(&args).await;
    let (keyring, key) = files::keys(args.key_file.as_deref());
    let mut found: Vec<Finding> = bare.into_iter().chain(key).collect();
    let is_usable = found.iter().all(|finding| finding.verdict != Severity::Fail);
    match configure::config_with(keyring, args) {
        Err(error) => found.push(Finding::fail("settings", told(&error))),
        Ok(config) => {
            found.push(settings(&config, file.as_deref()));
            found.extend(open_admin(&config));
            found.extend(config.memory_problem.as_ref().map(|problem| Finding::warn("memory", problem)));
            found.extend(unusual_names(&config));
            found.extend(files::examine(&config));
            found.extend(ingress_file::examine(config.ingress_file.as_deref(), gost));
            found.extend(gost.map(|gost| gost::examine(&config, gost)).into_iter().flatten());
            found.extend(ports::examine(&config).await);
            found.extend(network::examine(&config).await);
            // With another key than the agent's own, a peer would be accused of what is wrong here.
            if is_usable && config.validate().is_ok() {
                found.extend(peers::examine(&config).await);
            } else if !is_usable && !config.join.is_empty() {
                let text = "the agents of --join were not asked: there is no key to ask them with";
                found.push(Finding::warn("peer", text));
            }
            if let Some(second) = second {
                found.extend(second::examine(&config, second).await);
            }
            found.push(clock::examine(config.data_dir.as_deref()));
        }
    }
    found
}

fn settings(config: &Config, file: Option<&Path>) -> Finding {
    if let Err(error) = config.validate() {
        return Finding::fail("settings", error);
    }
    let from = file.map(|file| format!(", from {}", file.display())).unwrap_or_default();
    Finding::ok("settings", format!("agent {} of cluster {}{from}", config.name, config.cluster))
}

/// Whether something here has settings of its own, if these are none.
async fn bare(args: &RunArgs) -> Option<Finding> {
    if let Some(file) = configure::overlooked(args) {
        let file = file.display();
        return Some(Finding::warn(
            "settings",
            format!("{file} is not examined: give check --config {file}"),
        ));
    }
    let running = if configure::is_bare(args) { ask::running().await } else { Vec::new() };
    let (name, client) = running.first()?;
    let config: ConfigReport = client.get("/config.json").await.ok()?.report;
    let text = format!(
        "{name} runs here with {}, which is not examined: give check the flags of its gossd run, or its --config",
        given(&config.flags)?
    );
    Some(Finding::warn("settings", text))
}

/// The flags that somebody gave; none if nobody gave any.
fn given(flags: &[FlagValue]) -> Option<String> {
    let given: Vec<&str> = flags.iter().filter(|one| !one.is_default).map(|one| &*one.flag).collect();
    (!given.is_empty()).then(|| given.join(" "))
}

fn open_admin(config: &Config) -> Option<Finding> {
    let open = config.admin.filter(|admin| !is_loopback(admin.ip()) && config.admin_token_file.is_none());
    open.map(|admin| Finding::warn("admin", format!("{admin}: {}", what_an_open_admin_means())))
}

fn unusual_names(config: &Config) -> Vec<Finding> {
    let unusual = config.names.unusual().into_iter();
    let text = |(name, why)| {
        format!("{name} is {why}: an --ingress-rule or --ingress-domain has it, if it is meant so")
    };
    unusual.map(|unusual| Finding::warn("host names", text(unusual))).collect()
}

fn line(finding: &Finding) -> String {
    let Finding { check, verdict, text } = finding;
    let (style, word): (Style, _) = match verdict {
        Severity::Fail => (BAD, "FAIL"),
        Severity::Warn => (WARN, "warn"),
        Severity::Ok => (GOOD, "ok"),
    };
    format!("{}  {check:<14} {}\n", painted(style, &format!("{word:<4}")), plain(text))
}

impl Finding {
    fn ok(check: &'static str, text: impl Display) -> Self {
        Self { check, verdict: Severity::Ok, text: text.to_string() }
    }

    fn warn(check: &'static str, text: impl Display) -> Self {
        Self { check, verdict: Severity::Warn, text: text.to_string() }
    }

    fn fail(check: &'static str, text: impl Display) -> Self {
        Self { check, verdict: Severity::Fail, text: text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_runs_without_flags_has_no_settings_to_miss() {
        let flag = |flag: &str, is_default| FlagValue { flag: flag.into(), values: Vec::new(), is_default };
        assert_eq!(given(&[flag("--plugin", true), flag("--name", true)]), None);
        let some = [flag("--key-file", false), flag("--plugin", true), flag("--join", false)];
        assert_eq!(given(&some).as_deref(), Some("--key-file --join"));
    }

    #[test]
    fn a_finding_is_a_line() {
        let lines = [
            (Finding::fail("plugin", "taken"), "FAIL  plugin         taken\n"),
            (Finding::warn("token file", "a\nb"), "warn  token file     a\u{fffd}b\n"),
            (Finding::ok("clock", "fine"), "ok    clock          fine\n"),
        ];
        for (finding, want) in lines {
            assert_eq!(anstream::adapter::strip_str(&line(&finding)).to_string(), want);
        }
    }
}
