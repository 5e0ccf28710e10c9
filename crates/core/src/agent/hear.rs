//! What the agent hears from the cluster: words of owners, and signs of life.

use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use super::offers::Offer;
use crate::complaint::Refusal;
use crate::event::{Event as Happened, PeerChange};
use crate::hostname::{Claim, TunnelId};
use crate::link::ReplicaStore;
use crate::liveness::{Liveness, Standing};
use crate::record::{AgentName, Owner};
use crate::reindex::BITE;
use crate::replica::{Extent, Part};
use crate::replicas::Applied;
use crate::slot::{Change, Slot, Status, Version};

/// What an agent hears from its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An owner changed slots; perhaps known already, perhaps overtaken. The owner may be a former start of ourselves.
    Changed {
        /// Whose slots.
        owner: Owner,
        /// Which, and how.
        changes: Vec<Change>,
        /// How much of what it said that is.
        extent: Extent,
    },
    /// A peer is heard: for the first time, again, or with a round trip measured.
    Heard {
        /// Who.
        owner: Owner,
        /// The round-trip time, smoothed.
        trip: Option<Duration>,
    },
    /// A peer has been silent for a moment.
    Doubted {
        /// Who.
        owner: Owner,
    },
    /// A peer has become suspect.
    Silent {
        /// Who.
        owner: Owner,
        /// How long it has not been heard.
        silence: Duration,
    },
    /// Somebody else heard a peer of late.
    Hearsay {
        /// Who was heard.
        owner: Owner,
        /// How long ago.
        age: Duration,
    },
    /// A peer is not what it was.
    Differs {
        /// Which.
        owner: Owner,
        /// In what.
        change: PeerChange,
    },
    /// A peer said what was refused.
    Refused {
        /// Who.
        by: Owner,
        /// Why.
        why: Refusal,
        /// How often.
        times: u32,
    },
    /// A peer answered a [`Seek`].
    ///
    /// [`Seek`]: super::Seek
    Offered {
        /// Who.
        by: Owner,
        /// Which question.
        id: u64,
        /// What.
        offer: Offer,
    },
    /// An operator said that a silent peer will not come back: here, or at another host.
    Buried {
        /// Which.
        owner: Owner,
    },
    /// An owner has been dead for long enough to be forgotten.
    Forgotten {
        /// Who.
        owner: Owner,
    },
}

impl ReplicaStore for State {
    fn apply(&mut self, now: Instant, news: News) {
        self.handle(now, news);
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        match (*owner == self.owner, owner.name == self.owner.name) {
            (true, _) => None,
            (_, true) => self.former.replicas.version(owner),
            (_, false) if self.is_outlived(owner) => None,
            (_, false) => self.directory.replicas.version(owner),
        }
    }

    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        let mut part = self.directory.replicas.part(owner, after, from)?;
        if *owner == self.owner {
            part.changes.retain(|change| !self.is_withheld(change.slot));
        }
        Some(part)
    }

    fn offer(&mut self, now: Instant, by: &Owner, tunnel: TunnelId) -> Offer {
        self.offer_to(now, by, tunnel)
    }
}

impl State {
    /// Hears from the cluster.
    pub fn handle(&mut self, now: Instant, news: News) {
        match news {
            // Nobody else can write our slots.
            News::Changed { owner, .. } if owner == self.owner => {}
            News::Changed { owner, changes, extent } if owner.name == self.owner.name => {
                self.handle_former_self(now, &owner, changes, &extent);
            }
            News::Changed { owner, .. } if self.is_outlived(&owner) => {}
            News::Changed { owner, changes, extent } => self.handle_words(now, &owner, changes, &extent),
            News::Heard { owner, trip } => self.handle_heard(now, &owner, trip),
            News::Doubted { .. } | News::Silent { .. } if self.broken.suspicion => {}
            News::Doubted { owner } => {
                self.liveness.doubt(&owner.name);
                self.effects.is_revised = true;
            }
            News::Silent { owner, silence } => {
                self.liveness.silent(now, &owner.name, silence);
                self.log.extend(now, [Happened::Suspected(owner.name.clone())]);
                (self.effects.is_due, self.effects.is_revised) = (true, true);
                self.effects.lines.push(Line::Silent { agent: owner.name });
            }
            News::Hearsay { owner, age } => {
                self.hear(now, &owner, |liveness, now, name| liveness.hearsay(now, name, age));
            }
            News::Differs { owner, change } => {
                self.log.extend(now, [Happened::Changed(owner.name.clone(), change.clone())]);
                self.effects.lines.push(Line::Differs { agent: owner.name, change });
            }
            News::Forgotten { owner } => self.handle_forgotten(now, owner),
            News::Buried { owner } => self.bury(now, &owner),
            News::Offered { by, id, offer } => self.take_offer(now, &by, id, offer),
            News::Refused { by, why, times } => self.complain(now, &by.name, why, times.into()),
        }
    }

    fn handle_former_self(&mut self, now: Instant, owner: &Owner, mut changes: Vec<Change>, extent: &Extent) {
        changes.extend(self.former.replicas.emptied(owner, extent, &changes));
        for change in &changes {
            self.hear_former_self(now, owner, change);
        }
        self.former.reach(owner, extent);
        self.effects.is_due |= self.former.work(now);
        self.reconcile(now, owner);
    }

    /// Whether others tell of a start that has ended: its agent was heard as a newer one, and it was not shown here before.
    fn is_outlived(&self, owner: &Owner) -> bool {
        self.heard.get(&owner.name).is_some_and(|heard| owner.generation < *heard)
            && self.directory.replicas.generation(&owner.name) != Some(owner.generation)
    }

    /// Notes which start of a peer was heard. If it is the first one that is heard here at all, what others told of a
    /// start before it is not listed any more. A peer that restarts while it is known stays listed until its new start has told
    /// all its records.
    fn note_start(&mut self, now: Instant, owner: &Owner) {
        let Some(heard) = self.heard.get_mut(&owner.name) else {
            self.heard.insert(owner.name.clone(), owner.generation);
            self.last_met = Some((now, owner.name.clone()));
            let shown = self.directory.replicas.generation(&owner.name);
            if let Some(generation) = shown.filter(|shown| *shown < owner.generation) {
                self.forget(now, &Owner { name: owner.name.clone(), generation });
            }
            self.await_memories(now, &owner.name);
            self.effects.is_due = true;
            return;
        };
        *heard = owner.generation.max(*heard);
    }

    fn handle_words(&mut self, now: Instant, owner: &Owner, mut changes: Vec<Change>, extent: &Extent) {
        changes.extend(self.directory.replicas.emptied(owner, extent, &changes));
        let (mut events, mut refused) = (Vec::new(), 0);
        for change in &changes {
            let applied = self.directory.apply(now, owner, change, &mut events);
            let news = applied == Applied::New;
            refused += u64::from(applied == Applied::Refused);
            if news && change.cell.content.status() == Some(Status::Left) {
                self.liveness.forget(&owner.name);
                self.log.extend(now, [Happened::Left(owner.name.clone())]);
                self.effects.lines.push(Line::Left { agent: owner.name.clone() });
            }
            if news {
                self.note_unreached(now, change.slot);
            }
            if let Some(claim) = change.cell.content.claim().filter(|_| news) {
                self.give_way(now, claim);
            }
        }
        if refused > 0 {
            self.complain(now, &owner.name, Refusal::TooMuch, refused);
        }
        self.directory.reach(now, owner, extent, &mut events);
        // What a peer says now is worth more than silence until all that it said before has come.
        if self.heard.get(&owner.name) == Some(&owner.generation) {
            self.directory.show_part(now, owner, &mut events);
        }
        self.follow(now, events);
        if self.met.is_none() && self.directory.replicas.is_complete(&owner.name) {
            self.met = Some(now);
        }
        self.effects.is_revised = true;
    }

    /// Goes on bringing the indexes in step.
    pub(super) fn reindex(&mut self, now: Instant) {
        let mut events = Vec::new();
        self.directory.work(now, BITE, &mut events);
        self.follow(now, events);
        self.effects.is_revised = true;
    }

    /// What follows from what is known of other owners from now on.
    fn follow(&mut self, now: Instant, events: Vec<Happened>) {
        // What an owner claims was heard before it was shown, and perhaps before we claimed the same.
        for claim in self.directory.take_learned() {
            self.give_way(now, &claim);
        }
        // They may decide about a connector that is held here as well.
        let yielded = self.compare_with(now, &events);
        self.log.extend(now, events);
        self.tell_all(now, yielded);
        // The driver dials, and goes on with what is left.
        self.effects.is_due |= self.connections.has_orphans() || self.directory.has_work();
    }

    fn give_way(&mut self, now: Instant, rival: &Claim) {
        let change = self.yield_to(rival);
        self.tell_all(now, change);
    }

    fn handle_heard(&mut self, now: Instant, owner: &Owner, trip: Option<Duration>) {
        self.note_start(now, owner);
        let (before, was_lost) =
            (self.liveness.standing(now, &owner.name), self.liveness.is_lost(&owner.name));
        self.hear(now, owner, |liveness, now, name| liveness.heard(now, name, trip));
        self.directory.replicas.postpone(owner, false);
        let live = self.liveness.standing(now, &owner.name).is_alive();
        if live && !before.is_alive() {
            self.log.extend(now, [Happened::Heard(owner.name.clone())]);
        }
        if live && was_lost {
            self.effects.lines.push(Line::HeardAgain { agent: owner.name.clone() });
            if self.reaches.met_again(now, &owner.name) {
                self.effects.is_due = true;
                self.state_faults(now);
            }
        }
        self.effects.is_revised = true;
    }

    fn handle_forgotten(&mut self, now: Instant, owner: Owner) {
        if owner.name == self.owner.name {
            self.former.forget(&owner);
        } else if self.is_gone(now, &owner.name)
            || self.directory.replicas.generation(&owner.name) != Some(owner.generation)
        {
            let is_back = self.heard.get(&owner.name).is_some_and(|heard| *heard > owner.generation);
            self.forget(now, &owner);
            self.effects.is_revised = true;
            // Of an agent that has been heard as a newer start, only what is left of the former one goes.
            if !is_back {
                self.log.extend(now, [Happened::Forgotten(owner.name.clone())]);
                self.effects.lines.push(Line::Forgotten { agent: owner });
            }
        } else {
            self.directory.replicas.postpone(&owner, true);
            // The driver looks at it again, but has to know that there is something to look at.
            self.effects.is_due = true;
        }
    }

    /// Forgets a peer that will not come back, as soon as it is dead from here: an operator elsewhere may be cut off from it,
    /// and we not. One that left said what is to become of its records itself.
    fn bury(&mut self, now: Instant, owner: &Owner) {
        let is_known = self.directory.replicas.generation(&owner.name) == Some(owner.generation);
        if !is_known || self.directory.replicas.status(&owner.name) == Some(Status::Left) {
            return;
        }
        if self.liveness.standing(now, &owner.name) != Standing::Hidden {
            self.directory.replicas.postpone(owner, true);
            self.effects.is_due = true;
            return;
        }
        self.forget(now, owner);
        self.liveness.forget(&owner.name);
        self.log.extend(now, [Happened::Forgotten(owner.name.clone())]);
        self.effects.lines.push(Line::Buried { agent: owner.name.clone() });
    }

    /// Holds something against a peer.
    fn complain(&mut self, now: Instant, of: &AgentName, why: Refusal, times: u64) {
        if self.complaints.note(now, of, why, times) {
            let times = self.complaints.of(now, of).map_or(times, |complaint| complaint.recent);
            self.effects.lines.push(Line::Refused { agent: of.clone(), times, why });
        }
    }

    /// Notes a sign of life, unless it is of one who said goodbye: its last frames are still under way.
    fn hear(&mut self, now: Instant, owner: &Owner, note: impl FnOnce(&mut Liveness, Instant, &AgentName)) {
        let shown = self.directory.replicas.generation(&owner.name) == Some(owner.generation);
        if !(shown && self.directory.replicas.status(&owner.name) == Some(Status::Left)) {
            note(&mut self.liveness, now, &owner.name);
        }
    }

    pub(super) fn forget(&mut self, now: Instant, owner: &Owner) {
        let mut events = Vec::new();
        self.directory.forget(now, owner, &mut events);
        self.log.extend(now, events);
        self.effects.is_due |= self.directory.has_work();
        self.effects.is_revised = true;
        if self.directory.replicas.generation(&owner.name).is_none() {
            self.liveness.forget(&owner.name);
        }
    }
}
