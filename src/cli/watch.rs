//! `gossd watch`: what happens at an agent, as it happens. Events go to standard output, one a line; what there is
//! to say about the watching itself goes to standard error.

use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

use super::ask::AgentArgs;
use super::client::{self, Client, NoReport};
use super::complete;
use super::events::{Events, Message};
use super::table::{self, BAD, DIM, GOOD, USUAL, WARN, painted};
use super::words::plain;
use crate::ops::report::{EventReport, Explanation, ReachReport, RecordReport, StatusReport, TimedEvent};
use crate::wall_clock;

/// How long until an agent that is gone is asked again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only what happens to this tunnel, host name, agent, connector or entrypoint
    #[arg(value_name = "NAME", add = complete::watched())]
    what: Option<String>,
    #[command(flatten)]
    asked: AgentArgs,
}

pub(super) fn watch(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let runtime = client::runtime()?;
    let ended = runtime.block_on(async {
        let watch = Watch::new(args).await?;
        tokio::select! {
            ended = watch.follow() => ended,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for ctrl-c"),
            () = nobody_reads() => Ok(()),
        }
    });
    // A thread may be waiting for the end of standard output.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

async fn nobody_reads() {
    drop(tokio::task::spawn_blocking(|| table::is_left_within(None)).await);
}

/// One watching of one agent, over its restarts.
struct Watch {
    client: Client,
    json: bool,
    /// Events that do not have one of these texts are left out; none is, if there are no texts.
    only: Vec<String>,
}

impl Watch {
    async fn new(args: &WatchArgs) -> anyhow::Result<Self> {
        let client = args.asked.client().await?;
        let mut only: Vec<String> = args.what.iter().cloned().collect();
        if let Some(name) = &args.what {
            let path = client::path("/explain.json", &[("name", name)]);
            only.extend(client.get::<Explanation>(&path).await?.report.name);
        }
        Ok(Self { client, json: args.asked.json, only })
    }

    /// Whether an event is about what is watched.
    fn is_wanted(&self, data: &str) -> bool {
        let fields = serde_json::from_str(data).unwrap_or(Value::Null);
        // What was missed may have been about it.
        self.only.is_empty() || has(&fields, "missed") || self.only.iter().any(|name| has(&fields, name))
    }

    /// Prints events for ever. An agent that does not answer the first time, or is none, is an error.
    async fn follow(&self) -> anyhow::Result<()> {
        let mut status = self.status().await?;
        note(&format!("watching {} at {} until ctrl-c", status.name, self.client));
        let mut last = format!("{}-{}", status.generation, status.last_event);
        loop {
            let end = self.stream(&mut last).await?;
            note(&format!("{} is not heard any more ({end}); waiting for it", status.name));
            let generation = status.generation;
            status = self.returned().await?;
            let how = if status.generation == generation { "is heard again" } else { "was started again" };
            note(&format!("{} {how}", status.name));
        }
    }

    async fn status(&self) -> Result<StatusReport, NoReport> {
        Ok(self.client.get("/status.json").await?.report)
    }

    /// Asks until the agent answers, after a pause even if it would at once.
    async fn returned(&self) -> Result<StatusReport, NoReport> {
        loop {
            sleep(AGAIN).await;
            match self.status().await {
                Err(NoReport::Absent(..) | NoReport::Silent(..)) => {}
                other => return other,
            }
        }
    }

    /// Prints events until the stream ends; why it did.
    async fn stream(&self, last: &mut String) -> anyhow::Result<String> {
        let body = match self.client.open("/events", Some(last)).await {
            Ok(body) => body,
            Err(NoReport::Absent(_, error)) => return Ok(error.to_string()),
            Err(NoReport::Silent(_, why)) => return Ok(why),
            Err(error) => return Err(error.into()),
        };
        let mut events = Events::new(body);
        loop {
            match events.next().await {
                Ok(Message { id, data }) => {
                    let is_owners = self.is_of_an_owner(&data).await;
                    self.show(&data, is_owners).context("cannot print")?;
                    *last = id.unwrap_or_else(|| std::mem::take(last));
                }
                Err(end) => return Ok(end.to_string()),
            }
        }
    }

    /// Whether an event is about an agent that has a record of what is watched: with it, the record is hidden or listed last.
    async fn is_of_an_owner(&self, data: &str) -> bool {
        let Some(name) = self.only.first() else { return false };
        let Ok(TimedEvent { what, .. }) = serde_json::from_str(data) else { return false };
        let (EventReport::PeerUp(peer)
        | EventReport::PeerSuspect(peer)
        | EventReport::PeerDead(peer)
        | EventReport::PeerLeft(peer)
        | EventReport::PeerForgotten(peer)) = what
        else {
            return false;
        };
        let path = client::path("/explain.json", &[("name", name)]);
        let asked = self.client.get::<Explanation>(&path).await;
        asked.is_ok_and(|reply| reply.report.candidates.iter().any(|candidate| candidate.agent == peer.agent))
    }

    fn show(&self, data: &str, is_owners: bool) -> std::io::Result<()> {
        if !is_owners && !self.is_wanted(data) {
            return Ok(());
        }
        if self.json {
            return table::print(&format!("{}\n", data.replace('\n', " ")));
        }
        // An event of a later gossd is shown as it is.
        let line = serde_json::from_str(data).map_or_else(
            |_| plain(data),
            |TimedEvent { at, what }| format!("{} {}", painted(DIM, &plain(&at)), line(&what)),
        );
        table::print(&format!("{line}\n"))
    }
}

/// Whether a text is in a JSON value, as a whole.
fn has(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Array(list) => list.iter().any(|value| has(value, text)),
        Value::Object(fields) => fields.values().any(|value| has(value, text)),
        _ => false,
    }
}

fn note(text: &str) {
    let at = wall_clock::spell(wall_clock::now());
    anstream::eprintln!("{}", painted(DIM, &format!("{at} {}", plain(text))));
}

fn line(event: &EventReport) -> String {
    let (style, who) = told(event);
    painted(style, &format!("{:<14} {who}", event.tag()))
}

/// The style of an event, and the record or peer that it is about.
fn told(event: &EventReport) -> (Style, String) {
    let record = |RecordReport { name, address, agent, id: _ }: &RecordReport| {
        format!("{}  {}  at {}", plain(name), plain(address), plain(agent))
    };
    match event {
        EventReport::RecordUp(it) => (GOOD, record(it)),
        EventReport::RecordDown(it) => (WARN, record(it)),
        EventReport::PeerUp(it) => (GOOD, plain(&it.agent)),
        EventReport::PeerSuspect(it) => (WARN, plain(&it.agent)),
        EventReport::PeerDead(it) | EventReport::PeerForgotten(it) => (BAD, plain(&it.agent)),
        EventReport::PeerChanged(it) => (USUAL, format!("{} {}", plain(&it.agent), plain(&it.what))),
        EventReport::Unreached(ReachReport { agent, address, by }) => {
            let by: Vec<String> = by.iter().map(|name| plain(name)).collect();
            (WARN, format!("{}  of {}  by {}", plain(address), plain(agent), by.join(", ")))
        }
        EventReport::Reached(ReachReport { agent, address, by: _ }) => {
            (GOOD, format!("{}  of {}", plain(address), plain(agent)))
        }
        EventReport::PeerLeft(it) => (USUAL, plain(&it.agent)),
        EventReport::Missed => (BAD, "events are gone: `gossd status` tells how it is now".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::report::{PeerChangeReport, PeerReport};

    #[test]
    fn every_event_is_a_line_that_begins_with_its_tag() {
        let record = || RecordReport {
            name: "c9ef8f8c-d687-4dca-be7a-1467b6565404".into(),
            id: "c23d4f42-c892-42b3-8b74-88ab6455d33a".into(),
            address: "10.42.0.100:8420".into(),
            agent: "a".into(),
        };
        let peer = || PeerReport { agent: "b".into() };
        let reach = |by: &[&str]| ReachReport {
            agent: "a".into(),
            address: "10.42.0.100:8420".into(),
            by: by.iter().copied().map(str::to_owned).collect(),
        };
        let told = "c9ef8f8c-d687-4dca-be7a-1467b6565404  10.42.0.100:8420  at a";
        for (event, who) in [
            (EventReport::RecordUp(record()), told),
            (EventReport::RecordDown(record()), told),
            (EventReport::PeerUp(peer()), "b"),
            (EventReport::PeerSuspect(peer()), "b"),
            (EventReport::PeerDead(peer()), "b"),
            (
                EventReport::PeerChanged(PeerChangeReport {
                    agent: "b".into(),
                    what: "has other keys".into(),
                }),
                "b has other keys",
            ),
            (EventReport::PeerLeft(peer()), "b"),
            (EventReport::Unreached(reach(&["b", "c"])), "10.42.0.100:8420  of a  by b, c"),
            (EventReport::Reached(reach(&[])), "10.42.0.100:8420  of a"),
            (EventReport::PeerForgotten(peer()), "b"),
            (EventReport::Missed, "events are gone: `gossd status` tells how it is now"),
        ] {
            let tag = serde_json::to_value(&event).unwrap()["event"].as_str().unwrap().to_owned();
            let line = anstream::adapter::strip_str(&line(&event)).to_string();
            assert_eq!(line, format!("{tag:<14} {who}"));
            assert!(line.len() < 89, "it fits");
        }
    }
}
