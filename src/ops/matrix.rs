//! `/matrix.json`: which host cannot reach whose entrypoint; and the part of it that has its cause or its effect on this host, as
//! problems of this agent.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract;
use axum::response::Response;
use gossd_core::address::Address;
use gossd_core::agent::{Tried, UnreachedView, View};
use gossd_core::rank::Reach;

use super::Ops;
use super::report::{MatrixReport, Problem, ProblemKind, UnreachedReport};
use super::routes::{Shared, json};
use crate::agent::{frozen, own_unreached, unreached};
use crate::sentence::{Sentence, sentence};

/// Entrypoints of one kind that have a sentence each. The matrix has the rest.
const MOST: usize = 8;

pub(super) async fn matrix_json(extract::State(ops): Shared) -> Response {
    json(&matrix(&ops))
}

fn matrix(ops: &Ops) -> MatrixReport {
    let members = ops.agent.view().members;
    let heard = members.iter().filter(|member| member.standing.is_alive()).count();
    let (total, found) = ops.agent.unreached();
    let entrypoints: BTreeSet<Address> = found.iter().map(|one| one.entrypoint.clone()).collect();
    let owners = ops.agent.owners_of(entrypoints);
    let report = |one: &UnreachedView| UnreachedReport {
        agent: one.by.as_str().into(),
        owner: owners.get(&one.entrypoint).map(|owner| owner.as_str().into()),
        address: one.entrypoint.to_string(),
        dial: match owners.get(&one.entrypoint) {
            Some(owner) if *owner == one.by && one.is_silent => "frozen",
            Some(owner) if *owner == one.by => "uncalled",
            _ if one.is_silent => "silent",
            _ => "refused",
        }
        .into(),
        seconds: one.since.as_secs_f64(),
    };
    let unreached = found.iter().map(report).collect();
    MatrixReport { verdict: verdict(heard, members.len(), total), total, unreached }
}

fn verdict(heard: usize, known: usize, total: usize) -> Sentence {
    let found = match total {
        0 => sentence!("nobody reports an entrypoint that it cannot reach"),
        1 => sentence!("one host reports an entrypoint that it cannot reach"),
        more => sentence!("{more} times, a host reports an entrypoint that it cannot reach"),
    };
    if heard < known { sentence!("{heard} of {known} agents are heard; {found}") } else { found }
}

/// A gost calls sooner after its agent's start: it renews every 15 s, by default.
const FIRST_CALL: Duration = Duration::from_secs(20);

/// What of it has its cause or its effect on this host, a sentence each.
pub(super) fn problems(view: &View) -> Vec<Problem> {
    let tried = |reach| if reach == Reach::Refused { Tried::Refused } else { Tried::Silent };
    let here = view.unreached.iter().take(MOST);
    let here =
        here.map(|entrypoint| unreached(&entrypoint.owner, &entrypoint.address, tried(entrypoint.reach)));
    let here = here.map(|text| Problem::warn(ProblemKind::Unreached, text));
    let there = view.own_unreached.iter().take(MOST).map(own_unreached);
    let there = there.map(|text| Problem::warn(ProblemKind::OwnUnreached, text));
    let rest = [&view.unreached.len(), &view.own_unreached.len()].map(|len| len.saturating_sub(MOST));
    let rest = rest.into_iter().sum::<usize>();
    let more = (rest > 0).then(|| {
        let text = sentence!("{rest} more entrypoints are not reached: `gossd matrix` lists them");
        Problem::warn(ProblemKind::Unreached, text)
    });
    let frozen = view.frozen.iter().take(MOST).map(frozen);
    let frozen = frozen.map(|text| Problem::bad(ProblemKind::GostFrozen, text));
    let uncalled = view.uncalled.iter().filter(|_| view.uptime >= FIRST_CALL).take(MOST).map(|entrypoint| {
        let text = sentence!(
            "the gost at {entrypoint} has not called since this agent started, so its records come behind others: over gRPC, gost may \
             take two minutes to notice that its agent is back. If it goes on, look at its `plugin.addr`"
        );
        Problem::warn(ProblemKind::GostUncalled, text)
    });
    frozen.chain(uncalled).chain(here).chain(there).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_in_order_is_one_line_and_who_is_not_heard_is_counted() {
        assert_eq!(verdict(3, 3, 0), "nobody reports an entrypoint that it cannot reach");
        assert_eq!(
            verdict(2, 3, 0),
            "2 of 3 agents are heard; nobody reports an entrypoint that it cannot reach"
        );
        assert_eq!(verdict(3, 3, 1), "one host reports an entrypoint that it cannot reach");
        assert!(verdict(3, 3, 7).starts_with("7 times, a host reports"));
    }
}
