//! What the agent hears from the cluster: words of owners, and signs of life.

use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;

use super::{Agent, State};
use crate::domain::directory::Applied;
use crate::domain::event::Event as Happened;
use crate::domain::liveness::{Liveness, Standing};
use crate::domain::record::{AgentName, Owner};
use crate::domain::slot::{Change, Content, FIRST_RULE, Status};
use crate::gossip::Event;

impl Agent {
    /// Hears from the cluster. Quick, and does not panic.
    pub fn handle(&self, event: Event) {
        let now = Instant::now().into_std();
        let name = &self.owner().name;
        match event {
            Event::Changed { owner, changes } if owner == *self.owner() => self.correct(&changes),
            Event::Changed { owner, changes } if owner.name == *name => {
                let mut state = self.lock();
                for change in &changes {
                    state.hear_former_self(now, &owner, change);
                }
            }
            Event::Changed { owner, changes } => {
                let mut state = self.lock();
                let shown = state.directory.generation(&owner.name);
                for change in &changes {
                    let news = state.directory.apply(now, &owner, change) == Applied::New;
                    if news && change.cell.content == Content::Status(Status::Left) {
                        state.liveness.forget(&owner.name);
                        state.log.extend([Happened::Left(owner.name.clone())]);
                        tracing::info!(agent = %owner.name, "peer left");
                    }
                    if let Content::Rule(rule) = &change.cell.content
                        && news
                        && let Some(change) = state.yield_to(rule)
                    {
                        state.tell(self.owner(), change);
                        self.shared.changed.notify_one();
                    }
                }
                if state.directory.generation(&owner.name) != shown {
                    // What it claims was heard before it was shown, and perhaps before we claimed the same.
                    for rule in state.directory.rules_of(&owner) {
                        if let Some(change) = state.yield_to(&rule) {
                            state.tell(self.owner(), change);
                            self.shared.changed.notify_one();
                        }
                    }
                }
                state.note_events();
                state.remember_orphans();
                if state.met.is_none() && state.directory.generation(&owner.name).is_some() {
                    state.met = Some(now);
                }
                drop(state);
                self.revise();
            }
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
            state.former.take_orphans();
            state.former.take_events();
        } else if state.liveness.standing(now, &owner.name) == Standing::Hidden
            || state.directory.generation(&owner.name) != Some(owner.generation)
        {
            state.forget(&owner);
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

    /// Somebody else wrote our slots: say again what is true.
    fn correct(&self, changes: &[Change]) {
        let mut state = self.lock();
        for told in changes {
            let corrected = match told.slot {
                ..FIRST_RULE => state.leases.correct(told.slot, &told.cell),
                FIRST_RULE.. => state.claims.correct(told.slot, &told.cell),
            };
            if let Some(change) = corrected {
                tracing::warn!(
                    slot = told.slot,
                    "a peer told us something else of what is ours; said it again"
                );
                state.tell(self.owner(), change);
                self.shared.changed.notify_one();
            }
        }
    }
}

impl State {
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

    pub(super) fn forget(&mut self, owner: &Owner) {
        self.directory.forget(owner);
        self.note_events();
        self.remember_orphans();
        if self.directory.generation(&owner.name).is_none() {
            self.liveness.forget(&owner.name);
        }
    }
}
