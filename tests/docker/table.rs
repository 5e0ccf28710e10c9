//! The outcomes, a line each.

use std::fmt;
use std::time::Duration;

use crate::scenarios::{Measured, Scenario};

/// What a scenario came to, over all its runs. None is left out.
pub(crate) struct Outcome {
    scenario: &'static Scenario,
    runs: Vec<anyhow::Result<Measured>>,
    took: Duration,
}

impl Outcome {
    pub(crate) fn of(scenario: &'static Scenario) -> Self {
        Self { scenario, runs: Vec::new(), took: Duration::ZERO }
    }

    pub(crate) fn add(&mut self, run: anyhow::Result<Measured>, took: Duration) {
        self.runs.push(run);
        self.took += took;
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.runs.iter().all(Result::is_ok)
    }

    /// The same without words.
    fn short(&self) -> String {
        let runs = self.runs.iter().map(|run| match run {
            Ok(Measured { felt, failed, of, .. }) => format!("{:.2} s, {failed}/{of}", felt.as_secs_f64()),
            Err(error) => format!("FAILED: {error:#}"),
        });
        runs.collect::<Vec<_>>().join("; ")
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
        let Scenario { name, fault, promise, .. } = self.scenario;
        write!(
            f,
            "{verdict} {name} ({fault}): promised: {promise}; measured: {} ({seconds} s)",
            self.measured()
        )
    }
}

/// The table as the README has it.
pub(crate) fn markdown(outcomes: &[Outcome]) -> String {
    let row = |outcome: &Outcome| {
        let Scenario { name, fault, promise, .. } = outcome.scenario;
        format!("| `{name}` | {fault} | {promise} | {} |\n", outcome.short())
    };
    let rows: String = outcomes.iter().map(row).collect();
    format!(
        "| scenario | what happens | promised | felt, and requests that failed, in each run |\n|---|---|---|---|\n{rows}"
    )
}
