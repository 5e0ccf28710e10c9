//! Tunnels that are closed to the public: under every name, at every agent, for as long as anybody says so.

use std::collections::BTreeSet;

use super::*;
use crate::agent::Adjusted;
use crate::hostname::{CLOSED_FOR, HashHost};
use crate::lease::KeptLeases;

/// Tunnel 1's hash host.
fn hash() -> String {
    use md5::{Digest as _, Md5};
    let start = &Md5::digest(TUNNELS[1])[..8];
    let hash = start.iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
    assert_eq!(HashHost::parse(&hash), Some(HashHost::of(tunnel(1).tunnel)));
    hash
}

/// Whether tunnel 1 is closed under its hash host and under names that it and another agent claimed; the same under all.
fn is_closed(agent: &Agent) -> bool {
    let names = ["mine", ".wild.org", "theirs", &hash()];
    let closed = names.map(|name| agent.endpoint(name).expect("it leads somewhere").private);
    assert!(closed.iter().all(|one| *one == closed[0]), "{closed:?}");
    assert_eq!(agent.is_private(tunnel(1).tunnel), closed[0]);
    assert_eq!(agent.counts().private, usize::from(closed[0]));
    closed[0]
}

fn with_names(restored: Restored) -> (Agent, Owner) {
    let (agent, b) = (with_quota(Quota::default(), restored), owner("b", 1));
    attach(&agent, "1", 1);
    for name in ["mine", ".wild.org"] {
        assert_eq!(agent.claim(name, tunnel(1)), Ok(true));
    }
    say(&agent, &b, &[], &[claim("theirs", 1, 1)]);
    (agent, b)
}

fn closing() -> Claim {
    Claim::closing(tunnel(1).tunnel)
}

/// What a new start of b says.
fn again(generation: u64) -> Owner {
    owner("b", generation)
}

#[test]
fn what_a_peers_rule_closes_is_closed_here_under_every_name_until_it_says_no_more() {
    let (agent, b) = with_names(Restored::default());
    assert!(!is_closed(&agent));
    overhear(&agent, &b, change(FIRST_CLAIM + 7, 150, Content::Claim(Arc::new(closing()))));
    assert!(is_closed(&agent));
    assert_eq!((agent.counts().claims, agent.counts().own_claims), (3, 2), "it is no claim");
    unsay(&agent, &b, FIRST_CLAIM + 7);
    assert!(!is_closed(&agent), "at once");
}

#[test]
fn what_our_own_claims_close_is_told_and_taken_back_at_a_reload() {
    let (agent, _) = with_names(Restored::default());
    agent.collect_changes();
    let closed = [tunnel(1).tunnel].into();
    let close = |private: &BTreeSet<TunnelId>| {
        let Settings { order, quota, locality, .. } = Settings::of(owner("a", 5));
        agent.adjust(Adjusted { order, quota, locality: &locality, private });
    };
    close(&closed);
    assert!(is_closed(&agent));
    let told = agent.collected();
    assert_eq!(told[0].cell.content, Content::Claim(Arc::new(closing())));
    close(&closed);
    assert_eq!(agent.collect_changes(), 0, "once");
    close(&[].into());
    assert!(!is_closed(&agent));
    assert_eq!(agent.collected()[0].cell.content, Content::Empty);
}

#[test]
fn what_our_rules_close_is_told_before_we_say_that_we_are_ready() {
    let settings = Settings { private: [tunnel(1).tunnel].into(), ..Settings::of(owner("a", 5)) };
    let agent = Agent::new(&settings, Restored::default());
    attach(&agent, "1", 1);
    assert!(agent.endpoint(&hash()).unwrap().private);
    let told: Vec<_> = agent.collected().into_iter().map(|change| change.cell.content).collect();
    assert!(told.contains(&Content::Claim(Arc::new(closing()))));
}

#[test]
fn a_claim_with_a_dollar_closes_every_name_of_its_tunnel() {
    let (agent, b) = with_names(Restored::default());
    let private = Endpoint { private: true, ..tunnel(1) };
    assert_eq!(agent.claim("mine", private), Ok(true));
    assert!(is_closed(&agent));
    assert_eq!(agent.claim("mine", tunnel(1)), Ok(true));
    assert!(!is_closed(&agent));
    let theirs = Claim { endpoint: private, ..claim("theirs", 1, 1) };
    overhear(&agent, &b, change(FIRST_CLAIM, 150, Content::Claim(Arc::new(theirs))));
    assert!(is_closed(&agent), "at whatever agent");
}

#[test]
fn a_tunnel_is_not_open_while_the_agent_that_closes_it_starts_again() {
    let (agent, b) = with_names(Restored::default());
    overhear(&agent, &b, change(FIRST_CLAIM + 7, 150, Content::Claim(Arc::new(closing()))));
    // The next start's records are heard before its rules.
    say(&agent, &again(2), &[], &[]);
    assert!(is_closed_by_name(&agent));
    advance(CLOSED_FOR / 2);
    overhear(&agent, &again(2), change(FIRST_CLAIM, 150, Content::Claim(Arc::new(closing()))));
    advance(CLOSED_FOR);
    agent.collect_changes();
    assert!(is_closed_by_name(&agent), "it says so now");
    say(&agent, &again(3), &[], &[]);
    advance(CLOSED_FOR.saturating_sub(Duration::from_secs(1)));
    agent.collect_changes();
    assert!(is_closed_by_name(&agent));
    advance(Duration::from_secs(1));
    agent.collect_changes();
    assert!(!is_closed_by_name(&agent), "it was started without the rule");
}

fn is_closed_by_name(agent: &Agent) -> bool {
    agent.endpoint("mine").expect("it is claimed here").private
}

#[test]
fn a_tunnel_is_not_open_while_an_agent_starts_and_has_not_heard_who_closes_it() {
    let (agent, b) = with_names(Restored::default());
    agent.use_journal();
    agent.take_batch();
    overhear(&agent, &b, change(FIRST_CLAIM + 7, 150, Content::Claim(Arc::new(closing()))));
    let kept = |agent: &Agent| agent.take_batch().claims.into_iter().collect::<Vec<_>>();
    let journal = kept(&agent);
    assert_eq!(journal, [(closing().key(), Some(Arc::new(closing())))]);

    let restored = Restored { leases: KeptLeases::default(), claims: vec![closing()], ..Restored::default() };
    let after = with_quota(Quota::default(), restored);
    after.use_journal();
    attach(&after, "1", 1);
    assert!(after.endpoint(&hash()).unwrap().private, "before any peer is heard");
    assert!(
        !after.collected().iter().any(|change| change.cell.content == Content::Claim(Arc::new(closing())))
    );
    say(&after, &b, &[], &[closing()]);
    advance(2 * CLOSED_FOR);
    after.collect_changes();
    assert!(after.is_private(tunnel(1).tunnel));
    kept(&after);
    unsay(&after, &b, FIRST_CLAIM);
    assert_eq!(kept(&after), [(closing().key(), None)], "and the journal forgets it");

    let alone = with_quota(Quota::default(), Restored { claims: vec![closing()], ..Restored::default() });
    alone.use_journal();
    advance(CLOSED_FOR);
    alone.collect_changes();
    assert!(!alone.is_private(tunnel(1).tunnel), "nobody says so");
    assert!(kept(&alone).contains(&(closing().key(), None)));
}
