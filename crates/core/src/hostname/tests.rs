//! The table of claims in scenarios: which claim wins, and what becomes of those of this agent and of those that it remembers.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::own::CLOSED_FOR;
use super::upkeep::{BATCH, MAX_AWAY, MAX_IDLE, PROBATION};
use super::*;
use crate::record::Owner;
use crate::slot::{Content, FIRST_CLAIM, Slot, Write};

const NOTHING: TunnelSighting = TunnelSighting { alive: false, here: false, elsewhere: None, rival: None };
const ALIVE: TunnelSighting = TunnelSighting { alive: true, ..NOTHING };
const HERE: TunnelSighting = TunnelSighting { here: true, ..ALIVE };

fn owner(name: &str) -> Arc<Owner> {
    Arc::new(Owner { name: name.parse().unwrap(), generation: 1 })
}

fn empty() -> Claims {
    Claims::new(&owner("us"))
}

/// This agent states a claim.
fn stating(claim: &Arc<Claim>) -> Claims {
    let mut claims = empty();
    assert!(claims.state(claim).unwrap().is_some());
    claims
}

/// This agent remembers a claim.
fn remembering(claim: &Arc<Claim>) -> Claims {
    let mut claims = empty();
    claims.remember(Instant::now(), claim);
    claims
}

fn hold(claims: &mut Claims, by: &str, slot: Slot, claim: &Arc<Claim>) {
    claims.change(&owner(by), slot, None, Some(claim));
}

fn release(claims: &mut Claims, by: &str, slot: Slot, claim: &Arc<Claim>) {
    claims.change(&owner(by), slot, Some(claim), None);
}

fn winner(claims: &Claims) -> Option<TunnelId> {
    claims.winner("x").map(|endpoint| endpoint.tunnel)
}

fn check(claims: &mut Claims, most: usize, found: TunnelSighting) -> Vec<Write> {
    let keys = claims.take_turns();
    keys.iter().filter_map(|key| claims.check(key, found, most)).collect()
}

fn times(claims: &mut Claims, checks: u8, found: TunnelSighting) -> Vec<Write> {
    (0..checks).flat_map(|_| check(claims, usize::MAX, found)).collect()
}

fn contents(writes: Vec<Write>) -> Vec<Content> {
    writes.into_iter().map(|write| write.content).collect()
}

#[test]
fn the_earliest_claim_wins_and_of_two_at_once_the_lower_tunnel_in_any_order() {
    let all = [claim("x", 3, 5), claim("x", 2, 5), claim("x", 1, 6)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut claims = empty();
        for at in order {
            hold(&mut claims, "a", at, &all[at as usize]);
        }
        assert_eq!(winner(&claims), Some(tunnel(2)));
        assert_eq!(claims.next_clock(), 7);
        release(&mut claims, "a", 1, &all[1]);
        assert_eq!(winner(&claims), Some(tunnel(3)), "the next one moves up");
    }
}

#[test]
fn a_claim_that_several_state_counts_from_its_first_and_is_private_if_any_closes_it() {
    let mut claims = empty();
    hold(&mut claims, "a", 1, &claim("x", 1, 9));
    hold(&mut claims, "b", 1, &claim("x", 2, 8));
    assert_eq!(winner(&claims), Some(tunnel(2)));
    let endpoint = Endpoint { tunnel: tunnel(1), private: true };
    hold(&mut claims, "c", 1, &Arc::new(Claim { host: "x".into(), endpoint, clock: 3 }));
    assert_eq!(claims.winner("x"), Some(endpoint));
    release(&mut claims, "b", 1, &claim("x", 2, 8));
    release(&mut claims, "c", 1, &claim("x", 1, 3));
    assert_eq!(claims.winner("x"), Some(Endpoint { private: false, ..endpoint }));
    release(&mut claims, "a", 1, &claim("x", 1, 9));
    assert!(claims.is_empty() && claims.winner("x").is_none());
}

#[test]
fn a_tunnel_that_any_claim_closes_is_private_under_all_its_names() {
    let mut claims = empty();
    let tunnel = TunnelId::parse("4d21094e-b74c-4916-86c1-d9fa36ea677b").unwrap();
    let of_tunnel = |host: &str, private| {
        Arc::new(Claim { host: host.into(), endpoint: Endpoint { tunnel, private }, clock: 5 })
    };
    hold(&mut claims, "a", 1, &of_tunnel("shop", false));
    hold(&mut claims, "a", 2, &of_tunnel(".example.org", false));
    hold(&mut claims, "a", 3, &claim("other", 9, 1));
    let private = |claims: &Claims| {
        let [shop, wild, other] =
            ["shop", ".example.org", "other"].map(|host| claims.winner(host).unwrap().private);
        [shop, wild, claims.endpoint_of(tunnel).private, other]
    };
    assert_eq!(private(&claims), [false; 4]);
    let closing = Arc::new(Claim::closing(tunnel));
    hold(&mut claims, "b", 7, &closing);
    hold(&mut claims, "c", 8, &closing);
    assert_eq!((private(&claims), claims.private()), ([true, true, true, false], 1));
    assert_eq!((claims.len(), claims.next_clock()), (3, 6), "it is no claim on a host");
    release(&mut claims, "b", 7, &closing);
    assert_eq!(private(&claims), [true, true, true, false], "the other still closes it");
    hold(&mut claims, "a", 4, &of_tunnel("late", true));
    release(&mut claims, "c", 8, &closing);
    assert_eq!(private(&claims), [true, true, true, false], "and so does a claim on a host");
    release(&mut claims, "a", 4, &of_tunnel("late", true));
    assert_eq!((private(&claims), claims.private()), ([false; 4], 0));
}

#[test]
fn a_remembered_claim_goes_when_an_owner_states_it() {
    let x = claim("x", 1, 4);
    let mut claims = remembering(&x);
    claims.remember(Instant::now(), &x);
    assert_eq!((winner(&claims), claims.len()), (Some(tunnel(1)), 1));
    hold(&mut claims, "a", 1, &x);
    claims.remember(Instant::now(), &x);
    assert_eq!(claims.len(), 1, "it is stated");
    release(&mut claims, "a", 1, &x);
    assert_eq!(winner(&claims), None);
}

#[test]
fn a_claim_is_remembered_when_its_last_owner_is_gone() {
    let (x, now) = (claim("x", 1, 4), Instant::now());
    let mut claims = empty();
    hold(&mut claims, "a", 1, &x);
    hold(&mut claims, "b", 2, &claim("x", 1, 5));
    claims.lose(now, &owner("a"), 2, &x);
    claims.lose(now, &owner("c"), 1, &x);
    assert_eq!((claims.len(), claims.checked()), (2, 0), "not theirs");
    claims.lose(now, &owner("a"), 1, &x);
    assert_eq!((claims.claimed(&x.key()), claims.checked()), (Some(5), 0), "another states it");
    claims.lose(now, &owner("b"), 2, &x);
    assert_eq!((winner(&claims), claims.len(), claims.checked()), (Some(tunnel(1)), 1, 1));
}

#[test]
fn a_claim_is_stated_once() {
    let x = claim("x", 1, 4);
    let mut claims = stating(&x);
    assert_eq!(claims.state(&x).unwrap(), None);
    assert_eq!((claims.stated(), claims.bytes()), (1, x.size()));
    assert_eq!(claims.take_touched().len(), 1);
    assert_eq!(claims.touched(), 0);
    let private = Arc::new(Claim { endpoint: Endpoint { private: true, ..x.endpoint }, ..(*x).clone() });
    let write = claims.state(&private).unwrap().unwrap();
    assert_eq!(write.content, Content::Claim(private));
    assert_eq!((claims.stated(), claims.bytes(), claims.len()), (1, x.size(), 1));
    assert!(claims.withdraw(&x.key()).is_some() && claims.withdraw(&x.key()).is_none());
    assert_eq!((claims.stated(), claims.bytes(), claims.kept(&x.key())), (0, 0, None));
}

#[test]
fn what_comes_back_of_this_agents_own_claims_changes_nothing() {
    let x = claim("x", 1, 4);
    let mut claims = stating(&x);
    hold(&mut claims, "us", FIRST_CLAIM, &x);
    release(&mut claims, "us", FIRST_CLAIM, &x);
    claims.lose(Instant::now(), &owner("us"), FIRST_CLAIM, &x);
    assert_eq!((claims.len(), claims.stated(), claims.states(&x.key())), (1, 1, true));
}

#[test]
fn a_name_is_kept_for_an_hour_without_a_record_and_then_free() {
    let x = claim("x", 1, 4);
    let mut claims = stating(&x);
    assert!(times(&mut claims, MAX_IDLE - 1, NOTHING).is_empty());
    assert!(times(&mut claims, 3, ALIVE).is_empty(), "a record anywhere starts the hour anew");
    assert!(times(&mut claims, MAX_IDLE - 1, NOTHING).is_empty());
    assert_eq!(contents(times(&mut claims, 1, NOTHING)), [Content::Empty]);
    assert!(!claims.states(&x.key()) && claims.pace().is_none());
}

#[test]
fn a_remembered_claim_is_stated_once_nobody_else_states_it() {
    let x = claim("x", 1, 4);
    let mut claims = remembering(&x);
    hold(&mut claims, "b", 1, &x);
    assert!(times(&mut claims, 3, NOTHING).is_empty() && !claims.states(&x.key()));

    let mut claims = remembering(&x);
    hold(&mut claims, "b", 1, &claim("x", 1, 9));
    let stated = contents(times(&mut claims, 1, NOTHING));
    assert_eq!(stated, [Content::Claim(x.clone())], "another may state it with a later clock");
    assert!(claims.kept(&x.key()).is_some(), "and it is journaled");

    let mut full = remembering(&x);
    assert!(check(&mut full, 0, NOTHING).is_empty(), "not over the quota");
    hold(&mut full, "b", 1, &x);
    assert_eq!(times(&mut full, 1, HERE).len(), 1, "or where its tunnel is");
}

#[test]
fn an_inherited_claim_has_its_hour_and_no_more() {
    let x = claim("x", 1, 4);
    let mut claims = remembering(&x);
    let freed = times(&mut claims, MAX_IDLE, NOTHING);
    assert_eq!(freed.len(), 2, "stated, and taken back");
    assert!(!claims.states(&x.key()));
}

#[test]
fn a_remembered_claim_that_others_took_back_is_forgotten() {
    let x = claim("x", 1, 4);
    let mut claims = remembering(&x);
    hold(&mut claims, "b", 1, &x);
    release(&mut claims, "b", 1, &x);
    assert!(check(&mut claims, 9, HERE).is_empty());
    assert_eq!((claims.len(), claims.checked()), (0, 0));
    assert_eq!(claims.touched(), 0, "it never was in the journal");
}

#[test]
fn a_claim_made_too_soon_gives_way_once_if_it_would_win() {
    for (ours, theirs, yields) in [(1, 60, true), (61, 60, false)] {
        let x = claim("x", 1, ours);
        let mut claims = stating(&x);
        claims.note_young(&x.key());
        assert_eq!(claims.yield_to(&claim("y", 2, theirs), 61), None, "another host");
        assert_eq!(claims.yield_to(&claim("x", 1, theirs), 61), None, "its own tunnel");
        let write = claims.yield_to(&claim("x", 2, theirs), 61);
        assert_eq!(write.map(|write| write.content), yields.then(|| Content::Claim(claim("x", 1, 61))));
        assert_eq!(claims.yield_to(&claim("x", 2, 99), 100), None, "and only once");
    }
    let x = claim("x", 1, 1);
    let mut claims = stating(&x);
    claims.note_young(&x.key());
    claims.grow_up();
    assert_eq!(claims.yield_to(&claim("x", 2, 60), 61), None);
}

#[test]
fn a_claim_is_left_to_the_agent_that_has_the_tunnel_now() {
    let mut claims = stating(&claim("x", 1, 4));
    let later = TunnelSighting { elsewhere: Some(5), ..ALIVE };
    assert!(times(&mut claims, 2, later).is_empty(), "not to a later claim");
    let both = TunnelSighting { elsewhere: Some(4), ..HERE };
    assert!(times(&mut claims, 2, both).is_empty(), "not while it is here too");
    let there = TunnelSighting { elsewhere: Some(4), ..ALIVE };
    assert!(
        times(&mut claims, MAX_AWAY - 1, there).is_empty(),
        "nor before the other could have lost it too"
    );
    assert!(times(&mut claims, 1, ALIVE).is_empty());
    assert!(times(&mut claims, MAX_AWAY - 1, there).is_empty());
    assert_eq!(times(&mut claims, 1, there).len(), 1);
}

#[test]
fn the_tunnels_first_claim_counts_wherever_it_is_stated() {
    let mut claims = stating(&claim("x", 1, 9));
    hold(&mut claims, "b", 1, &claim("x", 1, 4));
    assert_eq!(contents(times(&mut claims, 1, HERE)), [Content::Claim(claim("x", 1, 4))]);
}

#[test]
fn a_claim_from_the_journal_yields_to_a_tunnel_that_lives_unless_its_own_does() {
    let restored = || {
        let mut claims = empty();
        assert_eq!(claims.restore(Instant::now(), vec![(*claim("x", 1, 4)).clone()]).len(), 1);
        assert_eq!(claims.touched(), 0);
        claims
    };
    let later = TunnelSighting { rival: Some(5), ..NOTHING };
    assert_eq!(times(&mut restored(), 1, later).len(), 1);
    let concurrent = TunnelSighting { rival: Some(4), ..NOTHING };
    assert!(times(&mut restored(), 2, concurrent).is_empty(), "a loser that it knew of is no reason");
    let mut claims = restored();
    times(&mut claims, PROBATION, TunnelSighting { rival: Some(5), ..HERE });
    assert!(times(&mut claims, 1, later).is_empty(), "it has its hour like any other");
}

#[test]
fn every_claim_has_its_turn_once_a_lap_in_short_goes() {
    for count in [1_u32, 59, 61, 7_000, 20_000] {
        let mut claims = empty();
        for n in 0..count {
            claims.state(&claim(&n.to_string(), u128::from(n), 1)).unwrap();
        }
        let pace = claims.pace().unwrap();
        let goes = LAP.as_nanos().div_ceil(pace.as_nanos());
        let seen = RefCell::new(BTreeSet::new());
        let most = (0..goes).map(|_| {
            let before = seen.borrow().len();
            seen.borrow_mut().extend(claims.take_turns());
            seen.borrow().len() - before
        });
        assert!(most.max().unwrap() <= BATCH);
        assert_eq!(seen.borrow().len(), count as usize);
    }
}

#[test]
fn what_the_operators_rules_close_is_stated_for_as_long_as_they_do() {
    let mut claims = stating(&claim("x", 1, 4));
    claims.take_touched();
    let tunnels = [1, 2, 3].map(tunnel);
    let closing = |tunnel| Content::Claim(Arc::new(Claim::closing(tunnel)));
    let stated = contents(claims.close(&tunnels[..2].iter().copied().collect()));
    assert_eq!(stated, [closing(tunnels[0]), closing(tunnels[1])]);
    assert!(claims.close(&tunnels[..2].iter().copied().collect()).is_empty(), "once");
    let stated = contents(claims.close(&tunnels[1..].iter().copied().collect()));
    assert_eq!(stated, [Content::Empty, closing(tunnels[2])]);
    assert_eq!((claims.len(), claims.stated()), (1, 1), "they are no claims on hosts");
    assert_eq!(claims.touched(), 0, "the flags state them again after a restart");
}

#[test]
fn what_others_close_is_kept_for_the_next_start() {
    let (mut claims, now) = (empty(), Instant::now());
    let closing = Arc::new(Claim::closing(tunnel(1)));
    let key = closing.key();
    hold(&mut claims, "b", 1, &closing);
    assert_eq!(claims.take_touched(), [key.clone()].into());
    let kept = claims.kept(&key).unwrap();
    hold(&mut claims, "c", 1, &closing);
    release(&mut claims, "b", 1, &closing);
    assert_eq!(claims.touched(), 0, "once");
    release(&mut claims, "c", 1, &closing);
    assert_eq!((claims.take_touched(), claims.kept(&key)), ([key.clone()].into(), None));

    let mut after = empty();
    assert!(after.restore(now, vec![(*kept).clone()]).is_empty(), "it is not ours to state");
    assert!(after.is_empty() && after.kept(&key).is_some());
    assert_eq!(after.next_deadline(), Some(now + CLOSED_FOR));
    after.open_due(now + CLOSED_FOR);
    assert_eq!((after.take_touched(), after.kept(&key), after.next_deadline()), ([key].into(), None, None));
}

#[test]
fn the_capacity_of_a_peak_is_given_back() {
    let mut claims = empty();
    let all: Vec<_> = (0..10_000)
        .map(|n| {
            let endpoint = Endpoint { tunnel: tunnel(n), private: true };
            Arc::new(Claim { host: n.to_string().into(), endpoint, clock: 1 })
        })
        .collect();
    for claim in &all {
        assert!(claims.state(claim).unwrap().is_some());
    }
    for claim in &all[10..] {
        assert!(claims.withdraw(&claim.key()).is_some());
    }
    assert!(claims.capacity() >= 20_000);
    claims.give_back();
    assert!(claims.capacity() < 200 && claims.len() == 10 && claims.checked() == 10, "{}", claims.capacity());
}
