//! The promise that names rest on: whatever was claimed where, and heard when, all agents come to one answer.

use proptest::prelude::*;

use super::super::tests::{Agent, advance, hear, now, tell, with_settings};
use super::super::{LEASE_TTL, Restored};
use super::tests::{attach, detach, leads_to, tunnel};
use super::*;
use crate::quota::Quota;

/// What happens to three agents, some of whose changes are held back as by a partition.
#[derive(Clone, Debug)]
enum ClaimStep {
    Claim {
        at: usize,
        host: u8,
        tunnel: usize,
    },
    /// One agent hears what another has said since it last heard of it.
    Hear {
        from: usize,
        to: usize,
    },
    /// One agent takes another for dead, until it hears of it again.
    Forget {
        whom: usize,
        at: usize,
    },
    Attach {
        at: usize,
        tunnel: usize,
    },
    Detach {
        at: usize,
        tunnel: usize,
    },
    Look {
        at: usize,
    },
    Wait,
}

fn step() -> impl Strategy<Value = ClaimStep> {
    prop_oneof![
        3 => (0..3_usize, 0..3_u8, 0..3_usize).prop_map(|(at, host, tunnel)| ClaimStep::Claim { at, host, tunnel }),
        3 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| ClaimStep::Hear { from, to }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(whom, at)| ClaimStep::Forget { whom, at }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(at, tunnel)| ClaimStep::Attach { at, tunnel }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(at, tunnel)| ClaimStep::Detach { at, tunnel }),
        1 => (0..3_usize).prop_map(|at| ClaimStep::Look { at }),
        1 => Just(ClaimStep::Wait),
    ]
}

/// Three agents, each with a gost that every tunnel is attached to, and what each has said.
struct Three {
    agents: Vec<Agent>,
    said: Vec<Vec<Change>>,
    heard: [[usize; 3]; 3],
    /// Connectors that are attached, and how many ever were: ids are not reused.
    attached: Vec<(usize, usize, String)>,
    connectors: usize,
}

impl Three {
    fn new() -> Self {
        // Long leases: what is attached stays so.
        let start = |name| with_settings(name, 1, LEASE_TTL * 60, Quota::default(), Restored::default());
        let agents = ["a", "b", "c"].map(start);
        Self {
            agents: agents.into(),
            said: vec![Vec::new(); 3],
            heard: [[0; 3]; 3],
            attached: Vec::new(),
            connectors: 0,
        }
    }

    fn attach(&mut self, at: usize, number: usize) {
        self.connectors += 1;
        let id = self.connectors.to_string();
        attach(&self.agents[at], &id, number);
        self.attached.push((at, number, id));
    }

    fn detach(&mut self, at: usize, number: usize) {
        if let Some(n) = self.attached.iter().position(|(a, t, _)| (*a, *t) == (at, number)) {
            detach(&self.agents[at], &self.attached.remove(n).2);
        }
    }

    fn forget(&mut self, whom: usize, at: usize) {
        if whom != at {
            let owner = self.agents[whom].owner().clone();
            self.agents[at].lock().forget(now(), &owner);
            self.heard[at][whom] = 0;
        }
    }

    fn look(&mut self, at: usize) {
        self.agents[at].lock().next_check = None;
        self.hear(at, at);
    }

    fn hear(&mut self, from: usize, to: usize) {
        self.said[from].extend(self.agents[from].collected());
        if from != to {
            let news = std::mem::replace(&mut self.heard[to][from], self.said[from].len());
            let (owner, changes) = (self.agents[from].owner().clone(), self.said[from][news..].to_vec());
            hear(&self.agents[to], &owner);
            tell(&self.agents[to], &owner, changes);
        }
    }

    /// Until nobody has anything to add.
    fn all_hear_all(&mut self) {
        for _ in 0..4 {
            for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
                self.hear(from, to);
            }
        }
    }

    fn answers(&self, host: &str) -> Vec<Option<usize>> {
        self.agents.iter().map(|agent| leads_to(agent, host)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_was_claimed_where_and_heard_when_all_come_to_one_answer(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut three = Three::new();
        for step in steps {
            match step {
                ClaimStep::Claim { at, host, tunnel: number } => {
                    let host = format!("host-{host}");
                    let ours = three.agents[at].claim(&host, tunnel(number)).unwrap();
                    prop_assert_eq!(ours, leads_to(&three.agents[at], &host) == Some(number));
                }
                ClaimStep::Hear { from, to } => three.hear(from, to),
                ClaimStep::Forget { whom, at } => three.forget(whom, at),
                ClaimStep::Attach { at, tunnel } => three.attach(at, tunnel),
                ClaimStep::Detach { at, tunnel } => three.detach(at, tunnel),
                ClaimStep::Look { at } => three.look(at),
                ClaimStep::Wait => advance(LAP * 2 / 3),
            }
        }
        // What one still remembers, and another does not or as something later, is said when its turn to be looked at has
        // come: after as many looks as there are claims.
        for _ in 0..9 {
            three.all_hear_all();
            (0..3).for_each(|at| three.look(at));
        }
        three.all_hear_all();
        for host in ["host-0", "host-1", "host-2"] {
            let answers = three.answers(host);
            prop_assert!(answers.iter().all(|answer| *answer == answers[0]), "{host}: {answers:?}");
        }
    }
}
