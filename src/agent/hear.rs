//! What the agent hears from the cluster: words of owners, and signs of life.

use std::time::{Duration, Instant as StdInstant};

use super::effects::Line;
use super::{Agent, State};
use crate::gossip::{Event, Hearer};
use gossd_core::complaint::Refusal;
use gossd_core::directory::Applied;
use gossd_core::event::Event as Happened;
use gossd_core::liveness::{Liveness, Standing};
use gossd_core::record::{AgentName, Owner};
use gossd_core::replica::{Extent, Part};
use gossd_core::rule::Rule;
use gossd_core::slot::{Change, Content, Mark, Slot, Status};

impl Hearer for Agent {
    fn hear(&self, event: Event) {
        self.handle(event);
    }

    fn mark(&self, owner: &Owner) -> Option<Mark> {
        self.lock().mark(owner)
    }

    fn part(&self, owner: &Owner, after: Mark, from: Slot) -> Option<Part> {
        self.lock().directory.part(owner, after, from)
    }
}

impl Agent {
    /// Hears from the cluster. Quick, and does not panic.
    pub fn handle(&self, event: Event) {
        self.with(|state, now| state.handle(now, event));
    }
}

impl State {
    fn mark(&self, owner: &Owner) -> Option<Mark> {
        match (*owner == self.owner, owner.name == self.owner.name) {
            (true, _) => None,
            (_, true) => self.former.mark(owner),
            (_, false) => self.directory.mark(owner),
        }
    }

    fn handle(&mut self, now: StdInstant, event: Event) {
        match event {
            // Nobody else can write our slots.
            Event::Changed { owner, .. } if owner == self.owner => {}
            Event::Changed { owner, changes, extent } if owner.name == self.owner.name => {
                self.handle_former_self(now, &owner, changes, &extent);
            }
            Event::Changed { owner, changes, extent } => self.handle_words(now, &owner, changes, &extent),
            Event::Heard { owner, trip } => self.handle_heard(now, &owner, trip),
            Event::Silent { .. } if self.broken.suspicion => {}
            Event::Silent { owner, silence } => {
                self.liveness.silent(now, &owner.name, silence);
                self.log.extend([Happened::Suspected(owner.name.clone())]);
                self.effects.is_revised = true;
                self.effects.lines.push(Line::Silent { agent: owner.name });
            }
            Event::Hearsay { owner } => self.hear(now, &owner, Liveness::hearsay),
            Event::Forgotten { owner } => self.handle_forgotten(now, owner),
            Event::Refused { by, why, times } => self.complain(now, &by.name, why, times.into()),
        }
    }

    fn handle_former_self(
        &mut self,
        now: StdInstant,
        owner: &Owner,
        mut changes: Vec<Change>,
        extent: &Extent,
    ) {
        changes.extend(self.former.emptied(owner, extent, &changes));
        for change in &changes {
            self.hear_former_self(now, owner, change);
        }
        self.former.note(owner, extent);
        self.former.reach(owner, extent.since, extent.until);
        // Nobody watches what it shows, and its claims are remembered already.
        self.drop_news_of_former();
    }

    fn handle_words(&mut self, now: StdInstant, owner: &Owner, mut changes: Vec<Change>, extent: &Extent) {
        let shown = self.directory.generation(&owner.name);
        changes.extend(self.directory.emptied(owner, extent, &changes));
        let mut refused = 0;
        for change in &changes {
            let applied = self.directory.apply(now, owner, change);
            let news = applied == Applied::New;
            refused += u64::from(applied == Applied::Refused);
            if news && change.cell.content == Content::Status(Status::Left) {
                self.liveness.forget(&owner.name);
                self.log.extend([Happened::Left(owner.name.clone())]);
                self.effects.lines.push(Line::Left { agent: owner.name.clone() });
            }
            if let Content::Rule(rule) = &change.cell.content
                && news
            {
                self.give_way(now, rule);
            }
        }
        if refused > 0 {
            self.complain(now, &owner.name, Refusal::TooMuch, refused);
        }
        self.directory.note(owner, extent);
        self.directory.reach(owner, extent.since, extent.until);
        if self.directory.generation(&owner.name) != shown {
            // What it claims was heard before it was shown, and perhaps before we claimed the same.
            for rule in self.directory.rules_of(owner) {
                self.give_way(now, &rule);
            }
        }
        let yielded = self.note_news(now);
        self.tell_all(now, yielded);
        // The driver dials.
        self.effects.is_due |= self.connections.has_orphans();
        self.remember_orphans(now);
        self.note_closed(now);
        if self.met.is_none() && self.directory.generation(&owner.name).is_some() {
            self.met = Some(now);
        }
        self.effects.is_revised = true;
    }

    fn give_way(&mut self, now: StdInstant, rival: &Rule) {
        let change = self.yield_to(rival);
        self.tell_all(now, change);
    }

    fn handle_heard(&mut self, now: StdInstant, owner: &Owner, trip: Option<Duration>) {
        let before = self.liveness.standing(now, &owner.name);
        self.hear(now, owner, |liveness, now, name| liveness.heard(now, name, trip));
        self.postponed.remove(owner);
        let live = self.liveness.standing(now, &owner.name) == Standing::Live;
        if live && before != Standing::Live {
            self.log.extend([Happened::Heard(owner.name.clone())]);
        }
        if live && before == Standing::Suspect {
            self.effects.lines.push(Line::HeardAgain { agent: owner.name.clone() });
        }
        self.effects.is_revised = true;
    }

    fn handle_forgotten(&mut self, now: StdInstant, owner: Owner) {
        if owner.name == self.owner.name {
            self.former.forget(&owner);
            self.drop_news_of_former();
        } else if self.is_gone(now, &owner.name)
            || self.directory.generation(&owner.name) != Some(owner.generation)
        {
            self.forget(now, &owner);
            self.note_closed(now);
            self.log.extend([Happened::Forgotten(owner.name.clone())]);
            self.effects.is_revised = true;
            self.effects.lines.push(Line::Forgotten { agent: owner });
        } else {
            self.postponed.insert(owner);
            // The driver looks at it again, but has to know that there is something to look at.
            self.effects.is_due = true;
        }
    }

    /// Holds something against a peer.
    fn complain(&mut self, now: StdInstant, of: &AgentName, why: Refusal, times: u64) {
        if self.complaints.note(now, of, why, times) {
            let times = self.complaints.of(of).map_or(times, |complaint| complaint.total());
            self.effects.lines.push(Line::Refused { agent: of.clone(), times, why });
        }
    }

    /// Notes a sign of life, unless it is of one who said goodbye: its last frames are still under way.
    fn hear(
        &mut self,
        now: StdInstant,
        owner: &Owner,
        note: impl FnOnce(&mut Liveness, StdInstant, &AgentName),
    ) {
        let shown = self.directory.generation(&owner.name) == Some(owner.generation);
        if !(shown && self.directory.status(&owner.name) == Some(Status::Left)) {
            note(&mut self.liveness, now, &owner.name);
        }
    }

    fn drop_news_of_former(&mut self) {
        self.former.take_events();
        self.former.take_orphans();
        self.former.hosts_mut().take_changed();
    }

    pub(super) fn forget(&mut self, now: StdInstant, owner: &Owner) {
        self.directory.forget(owner);
        self.effects.is_revised = true;
        self.note_events();
        self.remember_orphans(now);
        if self.directory.generation(&owner.name).is_none() {
            self.liveness.forget(&owner.name);
        }
    }
}
