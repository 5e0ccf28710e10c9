//! Test switches of an agent, set by variables: some parts do not work, so that a test has to notice; the clock is
//! wrong; or the agent forgets sooner. `gossd` itself has none of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gossd::config::Config;
use gossd_core::agent::Broken;
use gossd_core::link::wire::Kind;

/// Parts that do not work, separated by commas: see [`broken`].
pub(crate) const BROKEN: &str = "GOSSD_TEST_BROKEN";
/// How many seconds the clock is ahead.
const CLOCK_AHEAD: &str = "GOSSD_TEST_CLOCK_AHEAD";
/// After how many seconds dead agents are forgotten.
pub(crate) const DEAD_GRACE: &str = "GOSSD_TEST_DEAD_GRACE";
/// Above how many agents not everybody watches everybody.
pub(crate) const MESH: &str = "GOSSD_TEST_MESH";
/// How many times faster than usual empty slots and lapsed records are forgotten.
pub(crate) const HURRY: &str = "GOSSD_TEST_HURRY";

/// Applies the variables. An invalid one ends the process, because a test without its sabotage proves nothing.
pub(crate) fn apply(config: &mut Config) {
    if let Err(error) = try_apply(config, |name| std::env::var(name).ok()) {
        eprintln!("{error:#}");
        std::process::exit(2);
    }
}

fn try_apply(config: &mut Config, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let number = |name: &str| {
        let text = variable(name);
        text.map(|text| text.parse::<u32>().with_context(|| format!("{name}={text}"))).transpose()
    };
    if let Some(times) = number(HURRY)? {
        config.hurry = times;
    }
    if let Some(seconds) = number(CLOCK_AHEAD)? {
        config.clock_ahead = Duration::from_secs(seconds.into());
    }
    if let Some(seconds) = number(DEAD_GRACE)? {
        config.dead_grace = Duration::from_secs(seconds.into());
    }
    if let Some(agents) = number(MESH)? {
        config.mesh = agents.try_into()?;
    }
    for part in variable(BROKEN).iter().flat_map(|parts| parts.split(',')) {
        broken(config, part)?;
    }
    Ok(())
}

fn broken(config: &mut Config, part: &str) -> anyhow::Result<()> {
    let Broken { leases, suspicion, names, dials } = &mut config.broken;
    match part {
        "leases" => *leases = true,
        "suspicion" => *suspicion = true,
        "rules" => *names = true,
        "dials" => *dials = true,
        "push" => lose(config, Kind::Push),
        "repair" => lose(config, Kind::Question),
        _ => bail!("{BROKEN}: there is no {part:?}"),
    }
    Ok(())
}

/// Loses every frame of a kind.
fn lose(config: &mut Config, lost: Kind) {
    let others = config.faults.take();
    config.faults =
        Some(Arc::new(move |kind, to| kind == lost || others.as_ref().is_some_and(|lost| lost(kind, to))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switched(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let mut config = Config::loopback("a".parse()?);
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        try_apply(&mut config, value)?;
        Ok(config)
    }

    #[test]
    fn every_variable_switches_what_it_says_and_what_is_not_understood_is_an_error() {
        let config =
            switched(&[(HURRY, "7"), (CLOCK_AHEAD, "3600"), (DEAD_GRACE, "8"), (MESH, "4")]).unwrap();
        assert_eq!(config.mesh, 4);
        assert_eq!((config.hurry, config.clock_ahead.as_secs(), config.dead_grace.as_secs()), (7, 3_600, 8));
        assert!(config.faults.is_none() && config.broken == Broken::default());
        let config = switched(&[(BROKEN, "push,leases,repair")]).unwrap();
        assert_eq!(config.broken, Broken { leases: true, ..Broken::default() });
        let lost = config.faults.unwrap();
        let to = ([127, 0, 0, 1], 1).into();
        assert_eq!([Kind::Push, Kind::Question, Kind::Ping].map(|kind| lost(kind, to)), [true, true, false]);
        for wrong in [(BROKEN, "lease"), (BROKEN, ""), (HURRY, "fast")] {
            assert!(switched(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
