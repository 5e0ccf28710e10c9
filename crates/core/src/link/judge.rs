//! One pass over all peers, in which each is judged: doubted, suspected, forgotten, pinged sooner. It is the only thing that
//! costs as much as there are peers and is done all the time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::look::{DOUBTED, SUSPECT};
use super::peers::{EXPECTED, KnownPeer, Peers};
use super::ping::{Nearness, Pings};
use super::plan::Plan;
use super::watch::{AGREE, Asked, MANY, QUESTIONABLE, Surroundings};
use crate::record::{AgentName, Owner};

/// What a pass found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Who is not in doubt any more, since its watchers vouch for it again.
    pub(super) recovered: Vec<Owner>,
    /// Who has just come in doubt.
    pub(super) doubted: Vec<Owner>,
    /// Who has just become suspect, and how long it has been silent. Their sessions are stale.
    pub(super) suspects: Vec<(Owner, Duration)>,
    /// Starts of agents whose records are not remembered any longer.
    pub(super) forgotten: Vec<Owner>,
    /// Where those are that are nearer, or farther, than when they were looked at last.
    pub(super) approached: Vec<(SocketAddr, Nearness)>,
    /// Whether there is something to tell of those whom we watch.
    pub(super) has_alarms: bool,
    /// Whether somebody is not even expected back any more.
    pub(super) are_fewer: bool,
    /// Whether the plan is another one: for whom others are near now.
    pub(super) is_replanned: bool,
}

/// How somebody is that was silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Unchanged,
    Doubted,
    Suspect(Duration),
}

impl Peers {
    /// See the module. The plan follows who is alive.
    pub(super) fn judge(&mut self, now: Instant, ran: Instant, pings: &Pings) -> Findings {
        let surroundings = self.plan.is_sparse().then(|| self.surroundings(ran));
        let mut findings = Findings::default();
        let (mut planned, mut is_plan_old, mut is_one_sparse, mut asked) = (0, false, false, 0);
        let how = (self.plan.is_sparse(), self.asks_many);
        let Self { table, sessions, addresses, own_former, grace, rows, own, plan, .. } = self;
        table.retain(|_, known| {
            if let Some(surroundings) = &surroundings {
                if known.vouch(ran, plan, surroundings) {
                    findings.recovered.push(known.peer.owner.clone());
                }
                asked += usize::from(known.is_asked());
                findings.has_alarms |=
                    !surroundings.are_gone && known.tell(now, ran, |addr| pings.trip(addr));
            }
            match known.verdict(ran) {
                Verdict::Unchanged => {}
                Verdict::Doubted => findings.doubted.push(known.peer.owner.clone()),
                Verdict::Suspect(silence) => findings.suspects.push((known.peer.owner.clone(), silence)),
            }
            if let Some(contact) = &mut known.contact
                && let Some((other, _)) = contact.other.take_if(|(_, until)| *until <= ran)
            {
                sessions.remove(&other);
            }
            if known.expire(ran, *grace, &mut findings.forgotten) {
                rows.change(known.row);
            }
            let near = known.nearness(ran, sessions, how);
            if std::mem::replace(&mut known.near, near) != near {
                findings.approached.push((known.peer.addr, near));
            }
            is_plan_old |= known.is_alive() != known.is_planned;
            is_one_sparse |=
                known.is_alive() && known.contact.as_ref().is_some_and(|contact| contact.is_sparse);
            planned += usize::from(known.is_planned);
            let stays = !known.is_forgotten || !known.left && !is_over(ran, known.sign, EXPECTED);
            if !stays {
                // If it is pinged all the same, because it is in `--join`.
                findings.approached.push((known.peer.addr, Nearness::Stranger));
                findings.are_fewer = true;
                known.drop_contact(sessions, addresses);
            }
            stays
        });
        let name = &own.peer.owner.name;
        own_former.retain(|generation, former| {
            let over = is_over(ran, former.since, *grace);
            if over {
                findings.forgotten.push(Owner { name: name.clone(), generation: *generation });
            }
            !over
        });
        self.asks_many = asked >= MANY;
        if is_plan_old || !self.plan.is_for(planned + 1, is_one_sparse) {
            self.replan(ran, is_one_sparse);
            findings.is_replanned = true;
        }
        findings
    }
}

fn is_over(ran: Instant, at: Instant, grace: Duration) -> bool {
    ran.saturating_duration_since(at) >= grace
}

impl KnownPeer {
    /// Whether it belongs into the plan.
    pub(super) fn is_alive(&self) -> bool {
        !self.left && self.contact.as_ref().is_some_and(|contact| !contact.is_stale)
    }

    /// Whether it is to give a sign of life that only its watchers expect.
    fn is_asked(&self) -> bool {
        let contact = self.contact.as_ref().filter(|contact| !contact.is_stale && !self.tie.watches);
        contact.is_some_and(|contact| contact.asked.is_some())
    }

    /// Judges it by what its watchers say, where not everybody watches it. Whether it is in doubt no more.
    fn vouch(&mut self, ran: Instant, plan: &Plan, surroundings: &Surroundings) -> bool {
        let silence = |since: Instant| ran.saturating_duration_since(since);
        self.alerts.retain(|alert| alert.until > ran);
        let Self { peer, contact, tie, alerts, sign: last_sign, left, .. } = self;
        let Some(contact) = contact.as_mut().filter(|contact| !contact.is_stale) else { return false };
        if *left {
            // Nobody has to vouch for it any more.
            contact.vouched = contact.vouched.min(contact.heard);
            return false;
        }
        let words = contact.words(alerts);
        let agreed = if words.is_empty() {
            None
        } else {
            let watchers: BTreeSet<&AgentName> = plan.watchers(&peer.owner.name).collect();
            words.get(watchers.len().clamp(1, AGREE) - 1).copied()
        };
        let last_word = words.last().copied();
        let is_questionable = words.first().is_some_and(|sign| silence(*sign) >= QUESTIONABLE);
        let missed = agreed.or(last_word.filter(|_| is_questionable)).or(surroundings.silent_since);
        if let Some(sign) = missed.filter(|_| !tie.watches) {
            contact.asked.get_or_insert(Asked { at: ran, sign: sign.max(contact.answered) });
        }
        contact.vouched = contact.vouched_until(ran, *tie, agreed, last_word, surroundings);
        let last = contact.sign(*tie);
        *last_sign = (*last_sign).max(last);
        let is_recovered = contact.is_doubted && silence(last) < DOUBTED;
        contact.is_doubted &= !is_recovered;
        is_recovered
    }

    /// Doubts or suspects it, once, if it has been silent for so long.
    fn verdict(&mut self, ran: Instant) -> Verdict {
        let tie = self.tie;
        let Some(contact) = self.contact.as_mut().filter(|contact| !contact.is_stale) else {
            return Verdict::Unchanged;
        };
        let silence = ran.saturating_duration_since(contact.sign(tie));
        if silence >= SUSPECT {
            contact.is_stale = true;
            Verdict::Suspect(silence)
        } else if silence >= DOUBTED && !std::mem::replace(&mut contact.is_doubted, true) {
            Verdict::Doubted
        } else {
            Verdict::Unchanged
        }
    }

    /// Forgets what is over. After the grace, the records of a silent agent: its starts go to the forgotten ones, and it is
    /// only expected back. Whether that is news.
    fn expire(&mut self, ran: Instant, grace: Duration, forgotten: &mut Vec<Owner>) -> bool {
        self.blocked = self.blocked.filter(|until| *until > ran);
        if let Some((generation, _)) = self.former.take_if(|(_, since)| is_over(ran, *since, grace)) {
            forgotten.push(Owner { name: self.peer.owner.name.clone(), generation });
        }
        let is_news = !self.is_forgotten && is_over(ran, self.sign, grace);
        if is_news {
            self.is_forgotten = true;
            forgotten.extend(self.starts());
            self.former = None;
        }
        is_news
    }
}
