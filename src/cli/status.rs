//! `gossd status`, `gossd members` and `gossd healthcheck`: views of the status of an agent and its peers.

use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use clap::Args;

use super::ask::{self, AgentArgs, show};
use super::client::Reply;
use super::table::{self, BAD, DIM, GOOD, TITLE, TextTable, USUAL, WARN, painted};
use super::words::{count, plain, plain_lines, round_trip, time, told};
use crate::ops::report::{
    Holds, IngressFileReport, JournalReport, Member, MemberState, MembersReport, Severity, StatusReport,
};
use gossd_core::locality::MAX_WEIGHT;

const PATH: &str = "/status.json";

/// Between two readings of `-w`.
const PACE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print it again every second, until ctrl-c
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    asked: AgentArgs,
}

pub(super) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    args.show(|reply| show(args.asked.json, reply, screen))
}

pub(super) fn members(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    args.show(|reply| {
        let members = reply.as_part(|status| MembersReport { members: status.members.clone() })?;
        show(args.asked.json, &members, |report| members_table(&report.members))
    })
}

impl StatusArgs {
    /// Shows the status, once or again and again. A terminal shows the last reading only.
    fn show(&self, show: impl Fn(&Reply<StatusReport>) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
        show(&ask::get(&self.asked, PATH)?)?;
        if !self.watch {
            return Ok(ExitCode::SUCCESS);
        }
        while !table::is_left_within(Some(PACE)) {
            let reading = ask::get(&self.asked, PATH);
            if table::is_watched() && !self.asked.json {
                table::clear()?;
            }
            match reading {
                Ok(reply) => show(&reply)?,
                // It may be restarted meanwhile.
                Err(error) => anstream::eprintln!("{}", painted(BAD, &plain_lines(&told(&error)))),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The status in a line, for a container's health check.
pub(super) fn health(status: &StatusReport) -> String {
    let StatusReport { holds, members, journal, .. } = status;
    let heard = |member: &&Member| {
        !member.this
            && matches!(
                member.state,
                MemberState::Alive | MemberState::Doubted | MemberState::Draining | MemberState::Starting
            )
    };
    let peers = match members.iter().filter(heard).count() {
        1 => "1 peer is".to_owned(),
        several => format!("{several} peers are"),
    };
    let problem = journal.problem.as_ref().map(|why| format!("; the journal: {}", plain(why)));
    let (records, own) = (count(holds.records, "record"), holds.own_records);
    format!("serving {records}, {own} of them registered here; {peers} heard{}", problem.unwrap_or_default())
}

/// A state as it is printed.
pub(super) fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Doubted => "doubted",
        MemberState::Suspect => "suspect",
        MemberState::Dead => "dead",
        MemberState::Draining => "draining",
        MemberState::Left => "left",
        MemberState::Starting => "starting",
    }
}

/// How urgent a state is, from 0, and its style.
fn urgency(state: MemberState) -> (u8, Style) {
    match state {
        MemberState::Dead => (0, BAD),
        MemberState::Suspect => (1, WARN),
        MemberState::Doubted => (2, WARN),
        MemberState::Starting => (3, WARN),
        MemberState::Draining => (4, WARN),
        MemberState::Alive => (5, USUAL),
        MemberState::Left => (6, DIM),
    }
}

/// The style of a row about an agent in that state.
pub(super) fn style(state: MemberState) -> Style {
    urgency(state).1
}

fn screen(status: &StatusReport) -> String {
    let StatusReport { name, version, cluster, address, generation, order, .. } = status;
    let ready = match (status.ready, status.draining) {
        (true, false) => painted(GOOD, "ready"),
        (true, true) => painted(WARN, "ready, draining"),
        (false, false) => painted(BAD, "not ready"),
        (false, true) => painted(BAD, "not ready, draining"),
    };
    let up = time(status.uptime_seconds);
    let at = painted(DIM, &plain(&status.at));
    let mut text =
        format!("{}  gossd {}  up {up}  {ready}  {at}\n", painted(TITLE, &plain(name)), plain(version));
    for problem in &status.problems {
        let style = if problem.severity == Severity::Warn { WARN } else { BAD };
        text = text + &painted(style, &plain(&problem.text)) + "\n";
    }
    text.push('\n');
    let zone = status.members.first().filter(|own| has_place(own)).map(|own| ("zone", place(own)));
    let rows = [
        ("peers", peers(&status.members)),
        ("records", records(&status.holds)),
        ("tunnels", status.holds.tunnels.to_string()),
        ("hosts", hosts(&status.holds)),
        ("journal", journal(&status.journal)),
        ("order", plain(order)),
        ("cluster", plain(cluster)),
        ("gossip", format!("{}, generation {generation}", plain(address))),
    ];
    let file = status.ingress_file.as_ref().map(|file| ("file", ingress_file(file)));
    let rows = rows.into_iter().chain(zone).chain(file);
    text + &rows.map(|(title, value)| format!("{title:<9}{value}\n")).collect::<Vec<_>>().concat()
}

fn peers(members: &[Member]) -> String {
    let mut states: Vec<MemberState> =
        members.iter().filter(|member| !member.this).map(|peer| peer.state).collect();
    if states.is_empty() {
        return "none".into();
    }
    states.sort_by_key(|state| urgency(*state).0);
    let each = states.chunk_by(|a, b| a == b).filter_map(|same| Some((same.len(), *same.first()?)));
    let each = each.map(|(n, of)| painted(style(of), &format!("{n} {}", state(of))));
    each.collect::<Vec<_>>().join(", ")
}

fn records(holds: &Holds) -> String {
    let Holds { records, own_records, max_records, lapsed_records, .. } = holds;
    let lapsed = if *lapsed_records > 0 { format!("; {lapsed_records} more lapsed") } else { String::new() };
    format!("{records}, {own_records} of them registered here (at most {max_records}){lapsed}")
}

fn hosts(holds: &Holds) -> String {
    let private = match holds.private_tunnels {
        0 => String::new(),
        some => format!("; {}", count(some, "private tunnel")),
    };
    format!("{}, {} of them made here{private}", count(holds.rules, "claim"), holds.own_rules)
}

fn journal(journal: &JournalReport) -> String {
    let JournalReport { state, problem, pending, errors } = journal;
    let why = problem.as_ref().map(|problem| plain(problem));
    let behind = (*pending > 0).then(|| format!("{} not on disk yet", count(*pending, "change")));
    let failed = (*errors > 0).then(|| format!("failed writes since the start: {errors}"));
    let state_told = if state == "kept" { "all on disk".into() } else { plain(state) };
    let all: Vec<String> = [Some(state_told), why, behind, failed].into_iter().flatten().collect();
    let style = match &**state {
        _ if problem.is_some() => BAD,
        "failing" => BAD,
        "behind" => WARN,
        _ => USUAL,
    };
    painted(style, &all.join("; "))
}

fn ingress_file(file: &IngressFileReport) -> String {
    let IngressFileReport { path, lines, left_out, former, writes: _, failures, problem } = file;
    let earlier = (*former > 0).then(|| format!("{former} of them from an earlier start"));
    let left = (*left_out > 0).then(|| format!("{} left out", count(*left_out, "host name")));
    let failed = (*failures > 0).then(|| format!("failed writes since the start: {failures}"));
    let why = problem.as_ref().map(|why| plain(why));
    let what = format!("{}, {}", plain(path), count(*lines, "line"));
    let all: Vec<String> = [Some(what), earlier, left, why, failed].into_iter().flatten().collect();
    let style = if problem.is_some() || *left_out > 0 { BAD } else { USUAL };
    painted(style, &all.join("; "))
}

/// Whether an agent's operator set its zone or its weight.
fn has_place(member: &Member) -> bool {
    !member.zone.is_empty() || member.weight != MAX_WEIGHT
}

fn place(member: &Member) -> String {
    let zone = if member.zone.is_empty() { "none".into() } else { plain(&member.zone) };
    let backup = if member.weight == 0 { ", a backup" } else { "" };
    format!("{zone}; weight {}{backup}", member.weight)
}

fn members_table(members: &[Member]) -> String {
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by_key(|member| urgency(member.state).0);
    // Only where there is something to be seen.
    let has_places = members.iter().any(|member| has_place(member));
    let refuses = members.iter().any(|member| member.refused.is_some());
    let has_keys = members.iter().any(|member| member.key.is_some());
    let mut titles = vec!["NAME", "STATE", "RTT", "SILENT", "RECORDS", "ADDRESS", "VERSION"];
    titles.extend(
        [("KEY", has_keys), ("ZONE", has_places), ("WEIGHT", has_places), ("REFUSED", refuses)]
            .iter()
            .filter_map(|(title, is_shown)| is_shown.then_some(*title)),
    );
    let mut table = TextTable::new(&titles).with_numbers(&[2, 3, 4]);
    for member in members {
        let mark = if member.this { " (this)" } else { "" };
        let mut row = vec![
            format!("{}{mark}", member.name),
            state(member.state).into(),
            round_trip(member.rtt_ms),
            member.silent_seconds.map_or_else(|| "-".into(), time),
            member.records.to_string(),
            member.address.clone().unwrap_or_else(|| "-".into()),
            member.version.clone().unwrap_or_else(|| "-".into()),
        ];
        if has_keys {
            row.push(member.key.clone().unwrap_or_else(|| "-".into()));
        }
        if has_places {
            let zone = if member.zone.is_empty() { "-".into() } else { member.zone.clone() };
            row.extend([zone, member.weight.to_string()]);
        }
        if refuses {
            let count = member.refused.as_ref().map(|refused| refused.count.to_string());
            row.push(count.unwrap_or_else(|| "-".into()));
        }
        table.row(style(member.state), &row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    table.text()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::report::{Problem, ProblemKind, Refused};

    fn member(name: &str, state: MemberState) -> Member {
        Member {
            name: name.into(),
            this: false,
            generation: Some(1),
            address: Some("10.0.0.2:8002".into()),
            version: Some("0.1.0".into()),
            key: None,
            state,
            zone: String::new(),
            weight: MAX_WEIGHT,
            rtt_ms: Some(0.4),
            silent_seconds: None,
            records: 7,
            refused: None,
        }
    }

    fn made_up() -> StatusReport {
        let silent = Member {
            silent_seconds: Some(71.3),
            rtt_ms: None,
            key: Some("94582df7".into()),
            ..member("c", MemberState::Dead)
        };
        let this = Member { this: true, rtt_ms: None, ..member("a", MemberState::Alive) };
        StatusReport {
            version: "0.1.0".into(),
            at: "2026-11-29T11:10:06.123Z".into(),
            name: "a".into(),
            generation: 1_764_000_000_000,
            cluster: "default".into(),
            address: "10.0.0.1:8002".into(),
            uptime_seconds: 300.0,
            ready: true,
            draining: false,
            problems: Vec::new(),
            order: "random".into(),
            plugins: Vec::new(),
            token: false,
            holds: Holds {
                own_records: 7,
                records: 21,
                lapsed_records: 0,
                max_records: 100_000,
                tunnels: 20,
                own_rules: 1,
                rules: 1,
                private_tunnels: 0,
            },
            members: vec![this, member("b", MemberState::Alive), silent, member("d", MemberState::Suspect)],
            journal: JournalReport { state: "kept".into(), problem: None, pending: 0, errors: 0 },
            ingress_file: None,
            last_event: 9,
        }
    }

    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_status_is_one_screen() {
        let want = "\
a  gossd 0.1.0  up 5 min  ready  2026-11-29T11:10:06.123Z

peers    1 dead, 1 suspect, 1 alive
records  21, 7 of them registered here (at most 100000)
tunnels  20
hosts    1 claim, 1 of them made here
journal  all on disk
order    random
cluster  default
gossip   10.0.0.1:8002, generation 1764000000000
";
        assert_eq!(bare(&screen(&made_up())), want);
    }

    #[test]
    fn what_is_wrong_comes_first_each_on_a_line() {
        let problems = vec![
            Problem::bad(ProblemKind::Journal, "the journal: no space".into()),
            Problem::warn(ProblemKind::Isolated, "more than half of the peers are gone".into()),
        ];
        let journal = JournalReport {
            state: "failing".into(),
            problem: Some("no space".into()),
            pending: 1,
            errors: 2,
        };
        let status = StatusReport { ready: false, problems, journal, members: Vec::new(), ..made_up() };
        let text = screen(&status);
        assert!(
            text.contains(&painted(BAD, "not ready"))
                && text.contains(&painted(BAD, "the journal: no space"))
        );
        let bare = bare(&text);
        let first: Vec<&str> = bare.lines().take(3).collect();
        let want = "a  gossd 0.1.0  up 5 min  not ready  2026-11-29T11:10:06.123Z";
        assert_eq!(first, [want, "the journal: no space", "more than half of the peers are gone"]);
        assert!(bare.contains("peers    none\n"));
        let journal =
            "journal  failing; no space; 1 change not on disk yet; failed writes since the start: 2\n";
        assert!(bare.contains(journal), "{bare}");
    }

    #[test]
    fn members_who_need_a_look_come_first_and_this_one_is_marked() {
        let text = members_table(&made_up().members);
        let want = "\
NAME      STATE        RTT  SILENT  RECORDS  ADDRESS        VERSION  KEY
c         dead           -    71 s        7  10.0.0.2:8002  0.1.0    94582df7
d         suspect  0.40 ms       -        7  10.0.0.2:8002  0.1.0    -
a (this)  alive          -       -        7  10.0.0.2:8002  0.1.0    -
b         alive    0.40 ms       -        7  10.0.0.2:8002  0.1.0    -
";
        assert_eq!(bare(&text), want);
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with(&BAD.to_string())), "{text:?}");
        let refused = Some(Refused { count: 12, last: "slots that cannot be".into() });
        let text = bare(&members_table(&[Member { refused, ..member("e", MemberState::Alive) }]));
        let cells: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(cells, ["REFUSED", "12"]);
    }

    #[test]
    fn zones_and_weights_are_shown_if_any_agent_has_one() {
        let near = Member { zone: "eu-1".into(), ..member("b", MemberState::Doubted) };
        let backup = Member { weight: 0, this: true, ..member("a", MemberState::Alive) };
        let want = "\
NAME      STATE        RTT  SILENT  RECORDS  ADDRESS        VERSION  ZONE  WEIGHT
b         doubted  0.40 ms       -        7  10.0.0.2:8002  0.1.0    eu-1  100
a (this)  alive    0.40 ms       -        7  10.0.0.2:8002  0.1.0    -     0
";
        let members = [backup, near];
        assert_eq!(bare(&members_table(&members)), want);
        let status = StatusReport { members: members.into(), ..made_up() };
        assert!(bare(&screen(&status)).contains("zone     none; weight 0, a backup\n"));
        assert!(bare(&screen(&status)).contains("peers    1 doubted\n"));
    }
}
