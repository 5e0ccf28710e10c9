//! Flags that nobody is shown: with them, tests in containers break an agent on purpose, to see that they would
//! notice, and give it a clock or a patience of its own.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::agent::Broken;
use crate::config::Config;
use crate::gossip::wire::Kind;

#[derive(Clone, Debug, Args)]
pub(super) struct BrokenArgs {
    /// What does not work
    #[arg(
        id = "test_broken",
        long = "test-broken",
        env = "GOSSD_TEST_BROKEN",
        hide = true,
        value_delimiter = ','
    )]
    parts: Vec<Part>,
    /// By how many seconds the clock is ahead
    #[arg(
        long = "test-clock-ahead",
        id = "test_clock_ahead",
        env = "GOSSD_TEST_CLOCK_AHEAD",
        hide = true,
        default_value_t = 0
    )]
    clock_ahead: u64,
    /// After how many seconds dead agents are forgotten
    #[arg(long = "test-dead-grace", id = "test_dead_grace", env = "GOSSD_TEST_DEAD_GRACE", hide = true)]
    dead_grace: Option<u64>,
    /// How many times as fast as usual empty slots and lapsed records are forgotten
    #[arg(
        long = "test-hurry",
        id = "test_hurry",
        env = "GOSSD_TEST_HURRY",
        hide = true,
        default_value_t = 1
    )]
    hurry: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// No change is pushed.
    Push,
    /// No states are exchanged.
    AntiEntropy,
    /// No record lapses, whatever becomes of its gost.
    Leases,
    /// Peers are alive for ever.
    Suspicion,
    /// The host name of a tunnel that is attached here has no rule here.
    Rules,
    /// A gost that answers a dial loses its leases sooner.
    Dials,
}

impl BrokenArgs {
    pub(super) fn apply(&self, config: &mut Config) {
        let is = |what| self.parts.contains(&what);
        config.hurry = self.hurry;
        config.clock_ahead = Duration::from_secs(self.clock_ahead);
        if let Some(seconds) = self.dead_grace {
            config.dead_grace = Duration::from_secs(seconds);
        }
        config.broken = Broken {
            leases: is(Part::Leases),
            suspicion: is(Part::Suspicion),
            rules: is(Part::Rules),
            dials: is(Part::Dials),
        };
        let lost: Vec<Kind> = [(Part::Push, Kind::Push), (Part::AntiEntropy, Kind::Chitchat)]
            .into_iter()
            .filter_map(|(part, kind)| is(part).then_some(kind))
            .collect();
        if !lost.is_empty() {
            config.faults = Some(Arc::new(move |kind, _| lost.contains(&kind)));
        }
        if !self.parts.is_empty() {
            tracing::warn!(broken = ?self.parts, "broken on purpose");
        }
    }
}
