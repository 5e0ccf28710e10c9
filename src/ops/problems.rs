//! What is wrong with an agent, its host and its peers: the one list that `/status.json`, `/readyz`, the page and the command
//! line tell.

use gossd_core::agent::{MemberView, View};

use super::Ops;
use super::matrix;
use super::report::{IngressFileReport, MemberState, Problem, ProblemKind, Refused, Severity};
use super::status::{refused, state};
use crate::agent::{few, what_draining_means};
use crate::host::OwnHost;
use crate::rejected::Reason;
use crate::sentence::{Sentence, sentence};

impl Problem {
    /// Visitors are turned away for it, or the agent does not do its job.
    pub(crate) fn bad(kind: ProblemKind, text: Sentence) -> Self {
        Self { kind, severity: Severity::Bad, text }
    }

    /// It may become bad, or is meant so.
    pub(crate) fn warn(kind: ProblemKind, text: Sentence) -> Self {
        Self { kind, severity: Severity::Warn, text }
    }
}

/// All of it. What keeps the agent from being ready comes first.
pub(super) fn problems(
    ops: &Ops,
    unready: Vec<Problem>,
    view: &View,
    own: &OwnHost,
    file: Option<&IngressFileReport>,
) -> Vec<Problem> {
    let mut all = unready;
    all.extend(unanswered(ops));
    all.extend(ops.outside.standing.iter().cloned());
    all.extend(own.problem(ops.outside.about.gossip).map(|text| Problem::bad(ProblemKind::Address, text)));
    all.extend(calls_refused(ops));
    all.extend(draining(view));
    if view.doubts_itself {
        let text = sentence!(
            "more than half of the peers vanished together: it was probably this host or its network, so their records \
             stay, last, for an hour"
        );
        all.push(Problem::bad(ProblemKind::Isolated, text));
    }
    all.extend(matrix::problems(view));
    all.extend(view.journal.late.map(|took| {
        let text = sentence!(
            "a commit of the journal took {seconds:.1} s: a kill loses the changes of the last 35 ms and of two commits; a \
             faster disk for --data-dir, or less load on this one, helps",
            seconds = took.as_secs_f64()
        );
        Problem::warn(ProblemKind::JournalSlow, text)
    }));
    all.extend(file.filter(|file| file.left_out > 0).map(|file| {
        let (names, path) = (file.left_out, &file.path);
        let text =
            sentence!("{names} host names are left out of {path}: a gost that reads it has no rule for them");
        Problem::bad(ProblemKind::IngressFileFull, text)
    }));
    all.extend(view.members.iter().filter_map(|member| {
        let (name, Refused { count, last }) = (&member.name, refused(member)?);
        let text = sentence!(
            "{count} messages from {name} were rejected, the last ones {last}: it is broken, or somebody else has its key"
        );
        Some(Problem::bad(ProblemKind::Rejected, text))
    }));
    all.extend(dead(view));
    all.extend(silent(view));
    all
}

/// The addresses to join at that have not answered.
pub(super) fn unanswered(ops: &Ops) -> impl Iterator<Item = Problem> + use<> {
    ops.cluster.unanswered().into_iter().map(|text| Problem::bad(ProblemKind::Join, text))
}

/// What gost itself hardly says: its visitors get an error, and what registers is lost.
fn calls_refused(ops: &Ops) -> impl Iterator<Item = Problem> + use<> {
    let texts = [
        (
            Reason::Token,
            sentence!(
                "calls of a gost are refused: they have no token, or none of --token-file. Set `token` in gost's plugin \
                 sections; over HTTP, gost 3.2.6 and older send none"
            ),
        ),
        (
            Reason::Path,
            sentence!(
                "calls come to an address where nothing of that kind is served; the log has one of them. Is `plugin.addr` in \
                 gost's configuration what `gossd gost-config` prints?"
            ),
        ),
    ];
    let counts = ops.outside.calls_rejected.clone();
    let found = texts.into_iter().filter(move |(why, _)| counts.goes_on(*why));
    found.map(|(_, text)| Problem::bad(ProblemKind::CallsRefused, text))
}

pub(super) fn draining(view: &View) -> Option<Problem> {
    view.draining.then(|| {
        Problem::warn(ProblemKind::Draining, sentence!("draining: {what}", what = what_draining_means()))
    })
}

fn dead(view: &View) -> Option<Problem> {
    let (names, hidden) = peers(view, MemberState::Dead)?;
    let so = sentence!(
        "tunnels that are attached nowhere else are answered with 503, unless their gost takes connections from here"
    );
    let what = match hidden {
        0 => sentence!("no record is hidden for that"),
        1 => sentence!("1 record is hidden, so {so}"),
        more => sentence!("{more} records are hidden, so {so}"),
    };
    let text = sentence!(
        "{who} dead: {what}. Start gossd there; if it runs, `gossd check --join ADDRESS` tells what is in the way; `gossd \
         forget` what will not come back",
        who = are(&names)
    );
    Some(Problem::bad(ProblemKind::PeersDead, text))
}

fn silent(view: &View) -> Option<Problem> {
    let (names, last) = peers(view, MemberState::Suspect)?;
    let who = are(&names);
    let text = match last {
        0 => sentence!("{who} silent"),
        1 => sentence!("{who} silent: 1 record is listed last"),
        _ => sentence!("{who} silent: {last} records are listed last"),
    };
    Some(Problem::warn(ProblemKind::PeersSilent, text))
}

/// The peers of a state and how many records they have; none, if there is no such peer.
fn peers(view: &View, wanted: MemberState) -> Option<(Vec<&str>, usize)> {
    let these: Vec<&MemberView> =
        view.members.iter().skip(1).filter(|member| state(member) == wanted).collect();
    let names = these.iter().map(|member| member.name.as_str()).collect();
    let records = these.iter().map(|member| member.records).sum();
    (!these.is_empty()).then_some((names, records))
}

/// `a is`, `a, b and c are`; of many, some.
fn are(names: &[&str]) -> Sentence {
    let who = few(names);
    if names.len() == 1 { sentence!("{who} is") } else { sentence!("{who} are") }
}
