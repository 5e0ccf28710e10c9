//! `/explain.json`: why a Get for a tunnel, or for a host's tunnel, is answered as it is. Each record with its place, or
//! with the reason why it is hidden.

use std::time::Duration;

use axum::extract;
use axum::http::StatusCode;
use serde::Deserialize;

use super::Ops;
use super::report::{self, AroundReport, Explanation, LeaseReport, MemberState, PastReport};
use super::routes::{Answered, Failure, Params, Shared, json};
use super::status::{millis, state};
use crate::sentence::{Sentence, sentence};
use crate::wall_clock;
use gossd_core::agent::{Around, Candidate, NoDetour, PastRecord, Tally};
use gossd_core::hostname::TunnelId;
use gossd_core::locality::MAX_WEIGHT;
use gossd_core::rank::{BEST, Hope, Judged, Order, Reach, Tier};
use gossd_core::record::Network;

/// Host names of a tunnel in one answer.
const NAMES: usize = 64;
/// Refused claims in one answer.
const REFUSED: usize = 16;

#[derive(Deserialize)]
pub(super) struct ExplainQuery {
    #[serde(default)]
    name: String,
}

pub(super) async fn explain_json(
    extract::State(ops): Shared,
    Params(ExplainQuery { name }): Params<ExplainQuery>,
) -> Answered {
    if name.is_empty() {
        let text = "which one? /explain.json?name=TUNNEL-OR-HOST";
        return Err(Failure(StatusCode::BAD_REQUEST, text.into()));
    }
    Ok(json(&ops.explain(&name)))
}

impl Ops {
    /// Where a tunnel, or the tunnel of a host name, is attached, and why Get answers as it does.
    fn explain(&self, asked: &str) -> Explanation {
        let mut found = self.agent.explain(asked);
        let (mut host, mut name) = (None, (!found.is_empty()).then(|| asked.to_owned()));
        if found.is_empty()
            && let Some((rule, tunnel)) = (self.outside.hosts.find)(asked)
        {
            found = self.agent.explain(&tunnel);
            (host, name) = (Some(rule), Some(tunnel));
        }
        let order = self.agent.view().order;
        let listed = found.iter().filter(|candidate| candidate.rank.is_some()).count();
        let Tally { known, mut eligible, .. } =
            name.as_deref().map(|name| self.agent.count_records(name)).unwrap_or_default();
        if known <= BEST {
            // Another record of the same connector is hidden.
            eligible = listed;
        }
        // What is not known may have been, until lately.
        let past = self.agent.past(name.as_deref().unwrap_or(asked));
        let verdict = match past.first() {
            Some(last) if known == 0 => gone(last),
            _ => verdict(host.is_some(), known, listed, eligible),
        };
        let past = past.iter().map(past_record).collect();
        let names = self.names();
        let hosts =
            name.as_deref().map(|name| names.of(name).take(NAMES).cloned().collect()).unwrap_or_default();
        let around = name.as_deref().and_then(|name| self.agent.around(name)).map(around);
        let candidates = found.iter().map(|candidate| self::candidate(candidate, order, listed)).collect();
        let tunnel = name.as_deref().and_then(TunnelId::parse);
        let private = tunnel.is_some_and(|tunnel| self.agent.is_private(tunnel));
        let refused = (self.outside.hosts.refused)(asked).into_iter().take(REFUSED).collect();
        let asked = asked.into();
        Explanation {
            asked,
            host,
            name,
            hosts,
            private,
            verdict,
            known,
            eligible,
            around,
            candidates,
            past,
            refused,
        }
    }
}

/// Why there is nothing although there was.
fn gone(last: &PastRecord) -> Sentence {
    let (agent, time, why) = (&last.owner.name, ago(last.gone), went(last));
    sentence!("no record is known any more: the last one, at {agent}, went {time} ago; {why}")
}

fn went(past: &PastRecord) -> Sentence {
    if past.is_lapsed {
        sentence!("its gost does not renew it, or does not answer; a Renew brings it back")
    } else {
        let agent = &past.owner.name;
        sentence!("{agent} let it go: gost deregistered it, or is gone, or the agent is forgotten")
    }
}

fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

fn past_record(past: &PastRecord) -> PastReport {
    PastReport {
        id: past.record.id.to_string(),
        address: past.record.address.to_string(),
        agent: past.owner.name.as_str().into(),
        at: wall_clock::ago(past.gone),
        gone_seconds: past.gone.as_secs_f64(),
        why: went(past),
    }
}

/// How visitors get to a tunnel of which no record can be dialled from here.
fn around(found: Around) -> AroundReport {
    match found {
        Around::Detour { agent, address, said } => AroundReport {
            why: sentence!(
                "no record can be dialled from here, so answers begin with the gost of {agent}, which said {seconds:.1} s ago \
                 that it gets there",
                seconds = said.as_secs_f64()
            ),
            agent: Some(agent.as_str().into()),
            address: Some(address.to_string()),
            said_seconds: Some(said.as_secs_f64()),
        },
        Around::Nothing(why) => {
            let why = no_detour(&why);
            let why = sentence!("no record can be dialled from here, and there is no way around: {why}");
            AroundReport { agent: None, address: None, said_seconds: None, why }
        }
    }
}

fn no_detour(why: &NoDetour) -> Sentence {
    match why {
        NoDetour::Private => {
            sentence!("the tunnel is private, and gost turns its visitors away at other hosts")
        }
        NoDetour::Unasked => sentence!("no visitor asked for it in the last 10 s, so no peer was asked"),
        NoDetour::Young => sentence!("it has been so for less than a second"),
        NoDetour::IsDetour => sentence!(
            "this host was itself the way around for another one in the last 5 s, or may have been, because it has just \
             started; a second step may lead back"
        ),
        NoDetour::Nobody => sentence!("no peer has said in the last 3 s that it gets there"),
        NoDetour::NoGost(agent) => sentence!(
            "{agent} gets there, but knows no entrypoint of a gost of its own that lives: has a client ever connected to it?"
        ),
        NoDetour::Unreached(agent, address) => sentence!(
            "{agent} gets there, but {address}, where its gost is, takes no connections from here, or was not dialled yet"
        ),
    }
}

fn verdict(by_host: bool, known: usize, listed: usize, eligible: usize) -> Sentence {
    let what = if by_host { sentence!("the host's tunnel") } else { sentence!("the tunnel") };
    match (known, listed) {
        (0, _) if by_host => sentence!(
            "{what} has no record at any agent that this one knows: its client is not connected, or lately was not"
        ),
        (0, _) => sentence!(
            "no tunnel and no host of that name is known here: is its client connected, and to a gost whose agent is one of \
             `gossd members`?"
        ),
        (_, 0) => sentence!("{what} is known, and every record of it is hidden: gost answers 503"),
        (_, 1) => sentence!("{what} has one record that is listed"),
        (_, _) if listed < eligible => sentence!(
            "{what} has {eligible} records that may be listed: each answer has {listed} of {eligible}"
        ),
        (_, _) => sentence!("{what} has {listed} records that are listed"),
    }
}

fn candidate(found: &Candidate, order: Order, listed: usize) -> report::CandidateReport {
    let record = &found.record;
    let lease = found.lease.map(|(remaining, period)| LeaseReport {
        remaining_seconds: remaining.as_secs_f64(),
        period_seconds: period.map(|period| period.as_secs_f64()),
    });
    report::CandidateReport {
        rank: found.rank.map(|rank| rank + 1),
        why: why(found, order, listed),
        dial: if lease.is_some() { "own".into() } else { dial(found.judged.reach) },
        dial_ms: match found.judged.reach {
            Reach::Works(trip) if lease.is_none() => Some(millis(trip)),
            _ => None,
        },
        id: record.id.to_string(),
        node: record.node.to_string(),
        network: match record.network {
            Network::Tcp => "tcp".into(),
            Network::Udp => "udp".into(),
        },
        address: record.address.to_string(),
        agent: found.owner.name.as_str().into(),
        state: state(&found.owner),
        rtt_ms: found.owner.trip.filter(|_| lease.is_none()).map(millis),
        known_seconds: found.known.as_secs_f64(),
        lease,
    }
}

fn why(found: &Candidate, order: Order, listed: usize) -> Sentence {
    let agent = found.owner.name.as_str();
    let silent = found.owner.silence.map(|silence| format!("{:.0} s", silence.as_secs_f64()));
    let silent = silent.unwrap_or_else(|| sentence!("a while").to_string());
    match (found.rank, state(&found.owner)) {
        (None, MemberState::Dead) if found.owner.silence.is_none() => {
            sentence!("hidden: {agent} was never heard by this agent; can its gossip be reached from here?")
        }
        (None, MemberState::Dead) => sentence!("hidden: {agent} has given no sign of life for {silent}"),
        (None, MemberState::Draining) => sentence!("hidden: {agent} is draining"),
        (None, MemberState::Left) => sentence!("hidden: {agent} has left"),
        (None, MemberState::Starting) => sentence!("hidden: {agent} has not sent all its records yet"),
        (None, MemberState::Alive | MemberState::Doubted | MemberState::Suspect) => {
            sentence!("hidden: another record of the same connector is listed")
        }
        (Some(_), _) => listed_why(found, order, listed, &silent),
    }
}

/// Why a listed record has its place.
fn listed_why(found: &Candidate, order: Order, listed: usize, silent: &str) -> Sentence {
    let tier = found.judged.tier();
    let reason = reason(found, tier, silent);
    if listed == 1 {
        return sentence!("the only one; {reason}");
    }
    match tier {
        Some(Tier::Suspect) => sentence!("last: {reason}"),
        Some(Tier::Survives | Tier::Unreached) => sentence!("almost last: {reason}"),
        Some(Tier::Usable(Hope::Untried) | Tier::Backup(Hope::Untried) | Tier::Doubted { .. }) => {
            let reason = turn(&site(reason, &found.judged), order);
            sentence!("behind what surely works, if anything does: {reason}")
        }
        _ => turn(&site(reason, &found.judged), order),
    }
}

/// What is known of a listed record.
fn reason(found: &Candidate, tier: Option<Tier>, silent: &str) -> Sentence {
    let (agent, dialled) = (found.owner.name.as_str(), dialled(found));
    match tier {
        Some(Tier::Suspect) => sentence!("{agent} has not been heard for {silent} and may be gone"),
        Some(Tier::Survives) => {
            sentence!("{agent} has given no sign of life for {silent}, but its gost answers dials from here")
        }
        Some(Tier::Unreached) => sentence!("{agent} is alive, but {dialled}"),
        Some(Tier::Doubted { .. }) if found.judged.is_frozen => {
            sentence!("{agent} says that its gost does not answer, or has not called it since it started")
        }
        Some(Tier::Doubted { .. }) => sentence!("{agent} has been silent for a moment"),
        _ => sentence!("{agent} is alive; {dialled}"),
    }
}

fn dialled(found: &Candidate) -> Sentence {
    match found.judged.reach {
        Reach::Works(_) if found.lease.is_some() => sentence!("registered here"),
        Reach::Works(trip) => {
            sentence!("its entrypoint takes connections from here, in {ms:.1} ms", ms = millis(trip))
        }
        Reach::Untried => sentence!("its entrypoint was not dialled from here lately"),
        Reach::Refused => sentence!("its entrypoint refuses connections from here"),
        Reach::Silent => sentence!("its entrypoint does not answer dials from here"),
    }
}

/// With what the operators of both hosts chose.
fn site(reason: Sentence, judged: &Judged) -> Sentence {
    let zoned =
        |reason| if judged.is_far { sentence!("{reason}; behind those of this zone") } else { reason };
    match judged.weight {
        0 => zoned(sentence!("{reason}; a backup (weight 0), behind all others that work")),
        MAX_WEIGHT => zoned(reason),
        weight => sentence!("{reason}; weight {weight}", reason = zoned(reason)),
    }
}

/// With the order among equals.
fn turn(reason: &Sentence, order: Order) -> Sentence {
    match order {
        Order::Random => sentence!("{reason}; equals take turns"),
        Order::Nearest => sentence!("{reason}; the nearest come first"),
    }
}

/// What dials of an entrypoint showed, in a word.
fn dial(reach: Reach) -> String {
    match reach {
        Reach::Works(_) => "works",
        Reach::Untried => "untried",
        Reach::Refused => "refused",
        Reach::Silent => "silent",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use gossd_core::agent::MemberView;
    use gossd_core::liveness::Standing;
    use gossd_core::locality::Locality;
    use gossd_core::record::Record;
    use gossd_core::slot::Status;

    const TRIP: Duration = Duration::from_micros(420);

    fn judged() -> Judged {
        Judged { standing: Standing::Live, reach: Reach::Works(TRIP), trip: Some(TRIP), ..Judged::default() }
    }

    /// A record of b that is listed first.
    fn listed(judged: Judged) -> Candidate {
        let [id, name, node] = ["1", "t", "n"].map(Into::into);
        let is_silent = !judged.standing.is_alive();
        Candidate {
            rank: Some(0),
            record: Arc::new(Record { id, name, node, network: Network::Tcp, address: "10.0.0.2:80".into() }),
            owner: MemberView {
                name: "b".parse().unwrap(),
                generation: Some(1),
                status: Some(Status::Ready),
                standing: judged.standing,
                locality: Locality { weight: judged.weight, ..Locality::default() },
                trip: judged.trip,
                silence: is_silent.then_some(Duration::from_secs(7)),
                records: 1,
                complaint: None,
            },
            judged,
            known: Duration::ZERO,
            lease: None,
        }
    }

    fn hidden(standing: Standing, status: Option<Status>) -> Sentence {
        let found = listed(Judged { standing, ..judged() });
        let owner = MemberView { status, ..found.owner };
        why(&Candidate { rank: None, owner, ..found }, Order::Random, 1)
    }

    #[test]
    fn every_place_in_an_answer_has_its_reason() {
        let of = |judged: Judged| why(&listed(judged), Order::Random, 2);
        let (suspect, hidden) = (Standing::Suspect, Standing::Hidden);
        for (judged, told) in [
            (
                judged(),
                "b is alive; its entrypoint takes connections from here, in 0.4 ms; equals take turns",
            ),
            (
                Judged { reach: Reach::Untried, ..judged() },
                "behind what surely works, if anything does: b is alive; its entrypoint was not dialled from here lately; equals take turns",
            ),
            (
                Judged { standing: Standing::Doubted, ..judged() },
                "behind what surely works, if anything does: b has been silent for a moment; equals take turns",
            ),
            (
                Judged { is_frozen: true, ..judged() },
                "behind what surely works, if anything does: b says that its gost does not answer, or has not called it since it started; equals take turns",
            ),
            (
                Judged { weight: 0, ..judged() },
                "b is alive; its entrypoint takes connections from here, in 0.4 ms; a backup (weight 0), behind all others that work; \
                 equals take turns",
            ),
            (
                Judged { is_far: true, weight: 50, ..judged() },
                "b is alive; its entrypoint takes connections from here, in 0.4 ms; behind those of this zone; weight 50; \
                 equals take turns",
            ),
            (
                Judged { reach: Reach::Refused, ..judged() },
                "almost last: b is alive, but its entrypoint refuses connections from here",
            ),
            (
                Judged { reach: Reach::Silent, is_far: true, ..judged() },
                "almost last: b is alive, but its entrypoint does not answer dials from here",
            ),
            (
                Judged { standing: suspect, reach: Reach::Silent, ..judged() },
                "last: b has not been heard for 7 s and may be gone",
            ),
            (
                Judged { standing: suspect, ..judged() },
                "almost last: b has given no sign of life for 7 s, but its gost answers dials from here",
            ),
            (
                Judged { standing: hidden, survives: true, ..judged() },
                "almost last: b has given no sign of life for 7 s, but its gost answers dials from here",
            ),
        ] {
            assert_eq!(of(judged), told);
            assert!(!told.contains('\n'));
        }
        assert_eq!(
            why(&listed(judged()), Order::Nearest, 2),
            "b is alive; its entrypoint takes connections from here, in 0.4 ms; the nearest come first"
        );
    }

    #[test]
    fn the_only_record_has_no_place_and_no_turn() {
        let of = |judged: Judged| why(&listed(judged), Order::Random, 1);
        let lease = Some((Duration::from_secs(60), None));
        let own = Judged { reach: Reach::Works(Duration::ZERO), ..judged() };
        let own = Candidate { lease, ..listed(own) };
        assert_eq!(why(&own, Order::Random, 1), "the only one; b is alive; registered here");
        assert_eq!(
            (candidate(&own, Order::Random, 1).dial, candidate(&own, Order::Random, 1).dial_ms),
            ("own".into(), None)
        );
        assert_eq!(
            of(Judged { reach: Reach::Untried, ..judged() }),
            "the only one; b is alive; its entrypoint was not dialled from here lately"
        );
        assert_eq!(
            of(Judged { reach: Reach::Silent, ..judged() }),
            "the only one; b is alive, but its entrypoint does not answer dials from here"
        );
        assert_eq!(
            of(Judged { standing: Standing::Suspect, reach: Reach::Untried, ..judged() }),
            "the only one; b has not been heard for 7 s and may be gone"
        );
    }

    #[test]
    fn whatever_is_hidden_has_its_reason() {
        let ready = Some(Status::Ready);
        for (standing, status, told) in [
            (Standing::Hidden, ready, "hidden: b has given no sign of life for 7 s"),
            (Standing::Live, Some(Status::Draining), "hidden: b is draining"),
            (Standing::Live, Some(Status::Left), "hidden: b has left"),
            (Standing::Live, None, "hidden: b has not sent all its records yet"),
            (Standing::Live, ready, "hidden: another record of the same connector is listed"),
        ] {
            assert_eq!(hidden(standing, status), told);
        }
        let found = listed(Judged { standing: Standing::Hidden, ..judged() });
        let owner = MemberView { silence: None, ..found.owner };
        let never = why(&Candidate { rank: None, owner, ..found }, Order::Random, 1);
        assert!(never.starts_with("hidden: b was never heard by this agent"), "{never}");
    }

    #[test]
    fn a_dial_is_a_word_and_its_time() {
        let of = |reach| {
            let report = candidate(&listed(Judged { reach, ..judged() }), Order::Random, 1);
            (report.dial, report.dial_ms)
        };
        assert_eq!(of(Reach::Works(TRIP)), ("works".into(), Some(0.42)));
        for (reach, word) in
            [(Reach::Untried, "untried"), (Reach::Refused, "refused"), (Reach::Silent, "silent")]
        {
            assert_eq!(of(reach), (word.into(), None));
        }
    }
}
