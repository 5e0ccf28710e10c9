//! The outcomes, a line for each scenario and plugin type.

use std::fmt;
use std::time::Duration;

use crate::measured::Measured;
use crate::scenarios::Scenario;
use crate::world::PluginType;

/// What a scenario came to, over all its runs. None is left out.
pub(crate) struct Outcome {
    scenario: &'static Scenario,
    plugin: PluginType,
    runs: Vec<anyhow::Result<Measured>>,
    took: Duration,
    /// Why it was not run at all.
    skipped: Option<&'static str>,
}

impl Outcome {
    pub(crate) fn of(scenario: &'static Scenario, plugin: PluginType) -> Self {
        Self { scenario, plugin, runs: Vec::new(), took: Duration::ZERO, skipped: None }
    }

    pub(crate) fn skipped(scenario: &'static Scenario, plugin: PluginType, why: &'static str) -> Self {
        Self { skipped: Some(why), ..Self::of(scenario, plugin) }
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.skipped.is_some()
    }

    pub(crate) fn add(&mut self, run: anyhow::Result<Measured>, took: Duration) {
        self.runs.push(run);
        self.took += took;
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.runs.iter().all(Result::is_ok)
    }

    fn measured(&self, told: impl Fn(&Measured) -> String) -> String {
        if let Some(why) = self.skipped {
            return format!("not run with a real gost: {why}");
        }
        let runs = self.runs.iter().map(|run| match run {
            Ok(measured) => told(measured),
            Err(error) => format!("FAILED: {error:#}"),
        });
        runs.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.skipped, self.is_kept()) {
            (Some(_), _) => "--  ",
            (None, true) => "ok  ",
            (None, false) => "FAIL",
        };
        let seconds = self.took.as_secs();
        let Scenario { name, fault, promise, .. } = self.scenario;
        let measured = self.measured(ToString::to_string);
        write!(
            f,
            "{verdict} {name}/{} ({fault}): promised: {promise}; felt: {measured} ({seconds} s)",
            self.plugin
        )
    }
}

/// The table as the README has it. Its head says which gost it was.
pub(crate) fn markdown(outcomes: &[Outcome], gost: &str) -> String {
    let row = |outcome: &Outcome| {
        let Scenario { name, fault, promise, .. } = outcome.scenario;
        let measured = outcome.measured(Measured::short);
        format!("| `{name}` | {} | {fault} | {promise} | {measured} |\n", outcome.plugin)
    };
    let rows: String = outcomes.iter().map(row).collect();
    format!(
        "| scenario, {gost} | plugin | what happens | promised | felt, and requests that failed, in each run |\n\
         |---|---|---|---|---|\n{rows}"
    )
}
