//! The status of the agent, and whether it drains: over restarts, until an operator undoes it.

use std::time::Instant;

use super::State;
use crate::slot::{Status, Version, Write};

/// Whether the agent drains, and whether the journal has that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drain {
    pub(super) on: bool,
    /// To be kept.
    touched: bool,
}

impl Drain {
    /// As the journal has it.
    pub(super) fn of(on: bool) -> Self {
        Self { on, touched: false }
    }

    fn set(&mut self, on: bool) {
        self.touched |= self.on != on;
        self.on = on;
    }

    /// What the journal has to keep, since it was asked for.
    pub(super) fn take_touched(&mut self) -> Option<bool> {
        std::mem::take(&mut self.touched).then_some(self.on)
    }

    pub(super) fn is_touched(self) -> bool {
        self.touched
    }

    /// Counts it as changed: it could not be written.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }
}

impl State {
    /// Publishes the status of this agent: the version of that change.
    pub fn say(&mut self, now: Instant, status: Status) -> Version {
        match status {
            Status::Ready => self.drain.set(false),
            Status::Draining => self.drain.set(true),
            // Whoever leaves for good, and does return, drains on.
            Status::Left => {}
        }
        self.end_withholding();
        self.tell(now, Write::status(status))
    }

    /// Whether peers hide our records because an operator had this agent drain.
    pub fn is_draining(&self) -> bool {
        self.drain.on
    }
}
