//! The results, one line for each scenario and plugin type.

use std::fmt;
use std::time::Duration;

use crate::measured::Measured;
use crate::scenarios::Scenario;
use crate::world::PluginKind;

/// The result of a scenario over all its runs; none is left out.
pub(crate) struct ScenarioResult {
    scenario: &'static Scenario,
    plugin: PluginKind,
    runs: Vec<anyhow::Result<Measured>>,
    took: Duration,
    skipped: Option<&'static str>,
}

impl ScenarioResult {
    pub(crate) fn of(scenario: &'static Scenario, plugin: PluginKind) -> Self {
        Self { scenario, plugin, runs: Vec::new(), took: Duration::ZERO, skipped: None }
    }

    pub(crate) fn skipped(scenario: &'static Scenario, plugin: PluginKind, why: &'static str) -> Self {
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

    /// Whether this is the result of that scenario and plugin type, was run, and kept its promise.
    pub(crate) fn is_kept_by(&self, scenario: &str, plugin: PluginKind) -> bool {
        self.scenario.name == scenario && self.plugin == plugin && !self.runs.is_empty() && self.is_kept()
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

impl fmt::Display for ScenarioResult {
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

/// The table of `docs/scenarios.md`, one row per scenario. Its head names the gost.
pub(crate) fn markdown(outcomes: &[ScenarioResult], gost: &str) -> String {
    let cell = |of: &ScenarioResult, plugin| {
        let same =
            |outcome: &&ScenarioResult| outcome.scenario.name == of.scenario.name && outcome.plugin == plugin;
        outcomes.iter().find(same).map_or("-".into(), |outcome| outcome.measured(Measured::short))
    };
    let row = |outcome: &ScenarioResult| {
        let Scenario { name, fault, promise, .. } = outcome.scenario;
        let [grpc, http] = [PluginKind::Grpc, PluginKind::Http].map(|plugin| cell(outcome, plugin));
        format!("| `{name}` | {fault} | {promise} | {grpc} | {http} |\n")
    };
    let mut outcomes_once: Vec<&ScenarioResult> = outcomes.iter().collect();
    outcomes_once.dedup_by_key(|outcome| outcome.scenario.name);
    let rows: String = outcomes_once.into_iter().map(row).collect();
    format!(
        "| scenario, {gost} | what happens | promised | gRPC: felt, and requests that failed, in each run | HTTP |\n\
         |---|---|---|---|---|\n{rows}"
    )
}
