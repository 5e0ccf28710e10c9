//! `/events`: changes of records and peers, as server-sent events. A reader that was away goes on behind `Last-Event-ID`;
//! if too much happened meanwhile, it gets `missed`, and has to read the status again.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::watch;

use super::connections::{MAX_STREAMS, Streams};
use super::report;
use super::routes::{Failure, Params, Shared};
use crate::agent::{Agent, changed};
use crate::rejected::Reason;
use crate::wall_clock;
use gossd_core::address::Address;
use gossd_core::event::{Event as Happened, Logged};
use gossd_core::record::{AgentName, Owner, Record};

/// Events copied under one lock.
const BATCH: usize = 256;
/// Of the events so far, those that a new stream may begin with: fewer than are kept.
const MOST_RECENT: u64 = 1_000;
/// How often a silent stream sends a comment, so that proxies and readers know that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many of the events so far a new stream begins with.
#[derive(Deserialize)]
pub(super) struct Recent {
    #[serde(default)]
    recent: u64,
}

pub(super) async fn events(
    State(ops): Shared,
    Extension(streams): Extension<Streams>,
    Params(Recent { recent }): Params<Recent>,
    headers: HeaderMap,
) -> Response {
    if !streams.open() {
        let text = format!("{MAX_STREAMS} event streams are open already: close a page or a `gossd watch`");
        ops.rejected().count(Reason::Streams, || tracing::warn!("no more event streams: {text}"));
        return Failure(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let agent = ops.agent.clone();
    let generation = agent.owner().generation;
    let resumed =
        headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(|id| number(id, generation));
    let after =
        resumed.unwrap_or_else(|| Some(agent.view().last_event.saturating_sub(recent.min(MOST_RECENT))));
    let reader = Reader { changed: agent.watch(), agent, after, waiting: Vec::new() };
    Sse::new(reader.stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// The number in an id, which is `GENERATION-NUMBER`. None of another start: its numbers mean nothing here.
fn number(id: &str, generation: u64) -> Option<u64> {
    let (start, number) = id.split_once('-')?;
    (start.parse() == Ok(generation)).then(|| number.parse().ok())?
}

struct Reader {
    agent: Agent,
    changed: watch::Receiver<u64>,
    /// The last event that the reader has; none if its number is not known here.
    after: Option<u64>,
    /// The next ones, last first.
    waiting: Vec<Event>,
}

impl Reader {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut reader| async move {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Some(event);
            }
            self.changed.mark_unchanged();
            let generation = self.agent.owner().generation;
            let happened = self.after.and_then(|after| self.agent.events(after, BATCH));
            let Some(happened) = happened else {
                let last = self.agent.view().last_event;
                self.after = Some(last);
                return event(generation, last, wall_clock::now(), report::EventReport::Missed);
            };
            if let Some(last) = happened.last() {
                self.after = Some(last.number);
                // Later first, and times that a clock which is set meanwhile cannot mix up.
                let (now, clock) = (Instant::now(), wall_clock::now());
                let at = |logged: &Logged| clock.checked_sub(now.saturating_duration_since(logged.at));
                let events =
                    happened.iter().rev().map(|logged| (logged.number, at(logged), reported(&logged.event)));
                let events =
                    events.filter_map(|(n, at, report)| event(generation, n, at.unwrap_or(clock), report));
                self.waiting = events.collect();
            } else if self.changed.changed().await.is_err() {
                return None;
            }
        }
    }
}

fn event(generation: u64, number: u64, at: SystemTime, what: report::EventReport) -> Option<Event> {
    let event = Event::default().id(format!("{generation}-{number}")).event(what.tag());
    event.json_data(report::TimedEvent { at: wall_clock::spell(at), what }).ok()
}

fn reported(event: &Happened) -> report::EventReport {
    let peer = |name: &AgentName| report::PeerReport { agent: name.as_str().to_owned() };
    match event {
        Happened::Up(owner, record) => report::EventReport::RecordUp(of(owner, record)),
        Happened::Down(owner, record) => report::EventReport::RecordDown(of(owner, record)),
        Happened::Heard(agent) => report::EventReport::PeerUp(peer(agent)),
        Happened::Suspected(agent) => report::EventReport::PeerSuspect(peer(agent)),
        Happened::Died(agent) => report::EventReport::PeerDead(peer(agent)),
        Happened::Changed(agent, change) => report::EventReport::PeerChanged(report::PeerChangeReport {
            agent: agent.as_str().to_owned(),
            what: changed(change),
        }),
        Happened::Left(agent) => report::EventReport::PeerLeft(peer(agent)),
        Happened::Forgotten(agent) => report::EventReport::PeerForgotten(peer(agent)),
        Happened::Unreached(owner, entrypoint, by) => {
            report::EventReport::Unreached(reach(owner, entrypoint, by))
        }
        Happened::Reached(owner, entrypoint) => report::EventReport::Reached(reach(owner, entrypoint, &[])),
    }
}

fn reach(owner: &AgentName, entrypoint: &Address, by: &[AgentName]) -> report::ReachReport {
    let by = by.iter().map(|name| name.as_str().into()).collect();
    report::ReachReport { agent: owner.as_str().into(), address: entrypoint.to_string(), by }
}

fn of(owner: &Owner, record: &Record) -> report::RecordReport {
    let [name, id] = [&record.name, &record.id].map(ToString::to_string);
    report::RecordReport { name, id, address: record.address.to_string(), agent: owner.name.as_str().into() }
}
