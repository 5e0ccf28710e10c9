//! What happens to each packet of a bad link, drawn from a seed so that a failure can be reproduced. Knows nothing of
//! packets.

use std::time::Duration;

use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How much longer than others a reordered packet waits.
const OVERTAKEN: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Args)]
pub(crate) struct OddsArgs {
    /// Probability that a packet is lost
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    loss: f64,
    /// Every packet's delay
    #[arg(long, default_value_t = 0)]
    delay_ms: u32,
    /// A packet's own delay differs from that by up to so much, either way
    #[arg(long, default_value_t = 0)]
    jitter_ms: u32,
    /// Probability that a packet waits 20 ms longer, so that later ones overtake it
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    reorder: f64,
    /// Probability that a packet arrives twice, the copy after a delay of its own
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    duplicate: f64,
    /// With the same seed the n-th packet has the same fate
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn probability(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("not from 0 to 1".into()) }
}

impl OddsArgs {
    pub(crate) fn fates(&self) -> Fates {
        Fates { odds: self.clone(), rng: StdRng::seed_from_u64(self.seed) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketFate {
    pub(crate) lost: bool,
    pub(crate) delay: Duration,
    pub(crate) overtaken: bool,
    pub(crate) copy_after: Option<Duration>,
}

/// The fates of a link's packets, in their order.
pub(crate) struct Fates {
    odds: OddsArgs,
    rng: StdRng,
}

impl Fates {
    /// The fate of the next packet. Every packet draws all values, so that the fate of one does not shift that of
    /// another.
    pub(crate) fn next(&mut self) -> PacketFate {
        let [loss, delay, reorder, duplicate, copy]: [f64; 5] = self.rng.random();
        let overtaken = reorder < self.odds.reorder;
        PacketFate {
            lost: loss < self.odds.loss,
            delay: self.delay(delay) + if overtaken { OVERTAKEN } else { Duration::ZERO },
            overtaken,
            copy_after: (duplicate < self.odds.duplicate).then(|| self.delay(copy)),
        }
    }

    fn delay(&self, draw: f64) -> Duration {
        let jitter = f64::from(self.odds.jitter_ms) * (2.0 * draw - 1.0);
        let ms = (f64::from(self.odds.delay_ms) + jitter).max(0.0);
        Duration::from_secs_f64(ms / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODDS: OddsArgs =
        OddsArgs { loss: 0.2, delay_ms: 50, jitter_ms: 20, reorder: 0.05, duplicate: 0.02, seed: 7 };

    #[test]
    fn a_seed_gives_the_same_fates_again() {
        let fates = || {
            std::iter::repeat_with({
                let mut fates = ODDS.fates();
                move || fates.next()
            })
        };
        assert!(fates().take(1_000).eq(fates().take(1_000)));
    }

    #[test]
    fn fates_are_as_frequent_as_their_odds() {
        let mut fates = ODDS.fates();
        let drawn: Vec<_> = (0..10_000).map(|_| fates.next()).collect();
        let lost = drawn.iter().filter(|fate| fate.lost).count();
        let copied = drawn.iter().filter(|fate| fate.copy_after.is_some()).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        assert!((140..260).contains(&copied), "{copied}");
        assert!(drawn.iter().all(|fate| (30..=90).contains(&fate.delay.as_millis())));
    }
}
