//! What the agent hears from the cluster: words of owners, and signs of life.

use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;

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
        let state = self.lock();
        match (owner == self.owner(), owner.name == self.owner().name) {
            (true, _) => None,
            (_, true) => state.former.mark(owner),
            (_, false) => state.directory.mark(owner),
        }
    }

    fn part(&self, owner: &Owner, after: Mark, from: Slot) -> Option<Part> {
        self.lock().directory.part(owner, after, from)
    }
}

impl Agent {
    /// Hears from the cluster. Quick, and does not panic.
    pub fn handle(&self, event: Event) {
        let now = Instant::now().into_std();
        match event {
            // Nobody else can write our slots.
            Event::Changed { owner, .. } if owner == *self.owner() => {}
            Event::Changed { owner, changes, extent } if owner.name == self.owner().name => {
                self.handle_former_self(now, &owner, changes, &extent);
            }
            Event::Changed { owner, changes, extent } => self.handle_words(now, &owner, changes, &extent),
            Event::Heard { owner, trip } => self.handle_heard(now, &owner, trip),
            Event::Silent { .. } if self.shared.settings.broken.suspicion => {}
            Event::Silent { owner, silence } => {
                let mut state = self.lock();
                state.liveness.silent(now, &owner.name, silence);
                state.log.extend([Happened::Suspected(owner.name.clone())]);
                drop(state);
                self.revise();
                tracing::warn!(agent = %owner.name, "peer is silent; its records come last");
            }
            Event::Hearsay { owner } => self.lock().hear(now, &owner, Liveness::hearsay),
            Event::Forgotten { owner } => self.handle_forgotten(now, owner),
            Event::Refused { by, why, times } => self.lock().complain(now, &by.name, why, times.into()),
        }
    }

    fn handle_former_self(&self, now: StdInstant, owner: &Owner, mut changes: Vec<Change>, extent: &Extent) {
        let mut state = self.lock();
        changes.extend(state.former.emptied(owner, extent, &changes));
        for change in &changes {
            state.hear_former_self(now, owner, change);
        }
        state.former.note(owner, extent);
        state.former.reach(owner, extent.since, extent.until);
        // Nobody watches what it shows, and its claims are remembered already.
        state.drop_news_of_former();
    }

    fn handle_words(&self, now: StdInstant, owner: &Owner, mut changes: Vec<Change>, extent: &Extent) {
        let mut state = self.lock();
        let shown = state.directory.generation(&owner.name);
        changes.extend(state.directory.emptied(owner, extent, &changes));
        let mut refused = 0;
        for change in &changes {
            let applied = state.directory.apply(now, owner, change);
            let news = applied == Applied::New;
            refused += u64::from(applied == Applied::Refused);
            if news && change.cell.content == Content::Status(Status::Left) {
                state.liveness.forget(&owner.name);
                state.log.extend([Happened::Left(owner.name.clone())]);
                tracing::info!(agent = %owner.name, "peer left");
            }
            if let Content::Rule(rule) = &change.cell.content
                && news
            {
                self.give_way(&mut state, rule);
            }
        }
        if refused > 0 {
            state.complain(now, &owner.name, Refusal::TooMuch, refused);
        }
        state.directory.note(owner, extent);
        state.directory.reach(owner, extent.since, extent.until);
        if state.directory.generation(&owner.name) != shown {
            // What it claims was heard before it was shown, and perhaps before we claimed the same.
            for rule in state.directory.rules_of(owner) {
                self.give_way(&mut state, &rule);
            }
        }
        let yielded = state.note_news(now);
        // The driver has to know.
        let is_news = !yielded.is_empty() || state.connections.has_orphans();
        for change in yielded {
            state.tell(self.owner(), change);
        }
        let opens = state.closing.next_deadline();
        state.remember_orphans(now);
        state.note_closed(now, self.owner());
        // The driver opens it again, but has to know when.
        let is_due = is_news || opens != state.closing.next_deadline();
        if state.met.is_none() && state.directory.generation(&owner.name).is_some() {
            state.met = Some(now);
        }
        let touched = state.is_touched();
        drop(state);
        self.revise();
        if touched {
            self.note_touched();
        }
        if is_due {
            self.shared.changed.notify_one();
        }
    }

    fn give_way(&self, state: &mut State, rival: &Rule) {
        if let Some(change) = state.yield_to(rival) {
            state.tell(self.owner(), change);
            self.shared.changed.notify_one();
        }
    }

    fn handle_heard(&self, now: StdInstant, owner: &Owner, trip: Option<Duration>) {
        let mut state = self.lock();
        let before = state.liveness.standing(now, &owner.name);
        state.hear(now, owner, |liveness, now, name| liveness.heard(now, name, trip));
        state.postponed.remove(owner);
        let live = state.liveness.standing(now, &owner.name) == Standing::Live;
        let back = live && before == Standing::Suspect;
        if live && before != Standing::Live {
            state.log.extend([Happened::Heard(owner.name.clone())]);
        }
        drop(state);
        self.revise();
        if back {
            tracing::info!(agent = %owner.name, "peer is heard again");
        }
    }

    fn handle_forgotten(&self, now: StdInstant, owner: Owner) {
        let mut state = self.lock();
        if owner.name == self.owner().name {
            state.former.forget(&owner);
            state.drop_news_of_former();
        } else if state.is_gone(now, &owner.name)
            || state.directory.generation(&owner.name) != Some(owner.generation)
        {
            state.forget(now, &owner);
            state.note_closed(now, self.owner());
            state.log.extend([Happened::Forgotten(owner.name.clone())]);
            drop(state);
            self.revise();
            tracing::info!(agent = %owner, "forgot an agent that has been dead for long");
        } else {
            state.postponed.insert(owner);
            drop(state);
            // The driver looks at it again, but has to know that there is something to look at.
            self.shared.changed.notify_one();
        }
    }
}

impl State {
    /// Holds something against a peer.
    fn complain(&mut self, now: StdInstant, of: &AgentName, why: Refusal, times: u64) {
        if self.complaints.note(now, of, why, times) {
            let all = self.complaints.of(of).map_or(times, |complaint| complaint.total());
            tracing::warn!(agent = %of, refused = all, "what a peer says is refused: {}", why.text());
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
        self.note_events();
        self.remember_orphans(now);
        if self.directory.generation(&owner.name).is_none() {
            self.liveness.forget(&owner.name);
        }
    }
}
