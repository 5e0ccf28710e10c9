//! Claims on host names that were refused lately: gost's client gets its hash host instead and says nothing, so that its owner
//! asks an operator.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gossd_core::hostname::{TunnelId, Unclaimable};

/// Refusals that are remembered. A client claims each time that it binds.
const KEPT: usize = 1_024;

/// Why a tunnel does not get a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimRefused {
    /// A rule of the operator gives it to another tunnel.
    #[error("an --ingress-rule gives it to another tunnel")]
    Configured,
    /// No tunnel can have it.
    #[error("no tunnel can claim it: it is {0}")]
    Unclaimable(Unclaimable),
    /// It is reserved, or an ingress domain, or too short, or another tunnel's hash host.
    #[error(
        "no tunnel gets it: it is in --ingress-reserved, an --ingress-domain, shorter than --ingress-min-label, or another \
         tunnel's hash host"
    )]
    Operators,
    /// The policy does not give it to this tunnel, nor to the token that it came with.
    #[error("the --claim-policy does not let this tunnel have it")]
    Policy,
    /// Another tunnel has it.
    #[error("another tunnel has it")]
    Taken,
}

/// Refusals of one tunnel that are remembered, so that no client pushes out those of others.
const KEPT_OF_ONE: usize = 16;
/// At most this often, one is logged: a client may ask for ever new names.
const PACE: Duration = Duration::from_secs(60);

/// The latest of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    latest: VecDeque<Refusal>,
    logged: Option<Instant>,
    /// How many were not logged since.
    unlogged: u64,
}

#[derive(Debug)]
struct Refusal {
    key: Box<str>,
    tunnel: TunnelId,
    why: ClaimRefused,
    at: Instant,
}

impl Refusals {
    /// Remembers one, and logs it unless it is remembered already, or another one was logged just now.
    pub(super) fn note(&self, key: &str, tunnel: TunnelId, why: &ClaimRefused) {
        let at = tokio::time::Instant::now().into_std();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = &mut kept.latest;
        let same = |one: &Refusal| &*one.key == key && one.tunnel == tunnel && one.why == *why;
        let is_known = latest.iter().position(same).and_then(|known| latest.remove(known)).is_some();
        let of_one = latest.iter().enumerate().filter(|(_, one)| one.tunnel == tunnel);
        if let Some((oldest, _)) = of_one.skip(KEPT_OF_ONE - 1).last() {
            latest.remove(oldest);
        }
        latest.push_front(Refusal { key: key.into(), tunnel, why: why.clone(), at });
        latest.truncate(KEPT);
        if is_known {
            return;
        }
        if kept.logged.is_some_and(|logged| at.saturating_duration_since(logged) < PACE) {
            kept.unlogged += 1;
            return;
        }
        let others = std::mem::take(&mut kept.unlogged);
        kept.logged = Some(at);
        drop(kept);
        tracing::warn!(host = key, %tunnel, others, "a client does not get the host name that it asks for: {why}");
    }

    /// Those of a key, the latest first.
    pub(super) fn of(&self, key: &str) -> Vec<(TunnelId, ClaimRefused, Duration)> {
        let now = tokio::time::Instant::now().into_std();
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let these = kept.latest.iter().filter(|one| &*one.key == key);
        these.map(|one| (one.tunnel, one.why.clone(), now.saturating_duration_since(one.at))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_latest_refusals_of_a_name_are_told_and_old_ones_make_room() {
        let refusals = Refusals::default();
        let tunnel = |n: u8| TunnelId::from_bytes([n; 16]);
        refusals.note("app", tunnel(1), &ClaimRefused::Taken);
        refusals.note("app", tunnel(2), &ClaimRefused::Policy);
        tokio::time::advance(Duration::from_secs(7)).await;
        refusals.note("app", tunnel(1), &ClaimRefused::Taken);
        let secs = Duration::from_secs;
        let want =
            vec![(tunnel(1), ClaimRefused::Taken, secs(0)), (tunnel(2), ClaimRefused::Policy, secs(7))];
        assert_eq!(refusals.of("app"), want);
        for n in 0..KEPT {
            refusals.note(&n.to_string(), tunnel(1), &ClaimRefused::Taken);
        }
        let left: Vec<_> = refusals.of("app").into_iter().map(|(tunnel, ..)| tunnel).collect();
        assert_eq!(left, [tunnel(2)], "one client pushes out its own only");
        assert_eq!(refusals.of(&(KEPT - 1).to_string()).len(), 1);
        assert_eq!(refusals.0.lock().unwrap().latest.len(), KEPT_OF_ONE + 1);
    }
}
