//! Host names: who may visit a tunnel under which name.

use anyhow::ensure;

use super::{ALL, BOTH, Scenario, pass};
use crate::measured::{Measured, Promise};
use crate::visits::{UnixMillis, now};
use crate::world::{HOST, Plan, TUNNEL, World, hash_host};

/// The name of a rule that makes the tunnel private.
const PRIVATE: &str = "priv.example.test";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "private-tunnel",
        "a configured rule makes a tunnel private; visitors ask by its hash host and by a name that its client asked for",
        "no visitor is let in at any host; no client that names the tunnel is turned away",
        |world| Box::pin(private(world)),
    )
    .with(private_rule)
    .short(BOTH),
];

fn private_rule() -> Plan {
    let rule = format!("{PRIVATE}=${TUNNEL}");
    Plan { flags: vec!["--ingress-rule".into(), rule], ..Plan::default() }
}

/// Here, a web visitor that is let in counts as failed.
async fn private(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    let since = now();
    for name in [&hash_host(TUNNEL), HOST, PRIVATE] {
        world.start_visitors(&ALL, name).await?;
    }
    pass(4).await;
    let visits = world.visits.between(since, UnixMillis::MAX, &ALL);
    let let_in = visits.iter().filter(|visit| visit.ok).count();
    ensure!(let_in == 0, "{let_in} of {} visitors of a private tunnel were let in", visits.len());
    // They also get gost's answer instead of silence.
    let refused = visits.iter().filter(|visit| visit.answer == "502").count();
    ensure!(
        refused == visits.len() && refused > 600,
        "only {refused} of {} visitors were refused",
        visits.len()
    );
    if world.has_members() {
        let since = now();
        world.members(&ALL, PRIVATE).await?;
        pass(3).await;
        let members = world.visits.members_between(since);
        let served = members.iter().filter(|visit| visit.ok).count();
        ensure!(served == members.len() && served > 100, "{served} of {} members were served", members.len());
    }
    let [felt, longest] = [std::time::Duration::ZERO; 2];
    Ok(Measured { felt, longest, failed: let_in, of: visits.len(), promised: Promise::NoneFails })
}
