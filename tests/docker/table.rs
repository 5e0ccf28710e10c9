//! The outcomes, a line each.

use std::fmt;
use std::time::Duration;

use crate::scenarios::{Measured, Scenario};

/// What a scenario came to, over all its runs. None is left out.
pub(crate) struct Outcome {
    name: &'static str,
    promise: &'static str,
    runs: Vec<anyhow::Result<Measured>>,
    took: Duration,
}

impl Outcome {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self { name: scenario.name, promise: scenario.promise, runs: Vec::new(), took: Duration::ZERO }
    }

    pub(crate) fn add(&mut self, run: anyhow::Result<Measured>, took: Duration) {
        self.runs.push(run);
        self.took += took;
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.runs.iter().all(Result::is_ok)
    }

    fn measured(&self) -> String {
        let runs = self.runs.iter().map(|run| match run {
            Ok(measured) => measured.to_string(),
            Err(error) => format!("FAILED: {error:#}"),
        });
        runs.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_kept() { "ok  " } else { "FAIL" };
        let seconds = self.took.as_secs();
        write!(f, "{verdict} {:<28} {:<50} {} ({seconds} s)", self.name, self.promise, self.measured())
    }
}

/// The table as the README has it.
pub(crate) fn markdown(outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|o| format!("| {} | {} | {} |\n", o.name, o.promise, o.measured()));
    format!("| scenario | promised | measured, each run |\n|---|---|---|\n{}", rows.collect::<String>())
}
