//! What one tunnel can take of an agent's host names and records, and what gives way when there is no room.

use super::*;
use crate::quota::{MAX_TUNNEL_CLAIMS, MAX_TUNNEL_RECORDS, MAX_UNATTACHED_CLAIMS};

/// Claims names in a loop. How many the tunnel got, and why no more.
fn claim_all(agent: &Agent, number: usize, prefix: &str) -> (usize, Full) {
    for n in 0.. {
        if let Err(full) = agent.claim(&format!("{prefix}-{n}"), tunnel(number)) {
            return (n, full);
        }
    }
    unreachable!("numbers have no end")
}

#[test]
fn a_tunnel_has_a_share_of_the_names_and_a_small_one_without_a_record() {
    let agent = agent();
    let few = MAX_UNATTACHED_CLAIMS;
    assert_eq!(claim_all(&agent, 0, "x"), (few, Full::TunnelClaims(few)));
    attach(&agent, "1", 0);
    let many = MAX_TUNNEL_CLAIMS;
    assert_eq!(claim_all(&agent, 0, "y"), (many - few, Full::TunnelClaims(many)));
    assert_eq!(agent.claim("x-0", tunnel(0)), Ok(true), "it has that one already");
    assert_eq!(agent.claim("z", tunnel(1)), Ok(true), "another tunnel has its own share");
    detach(&agent, "1");
    assert_eq!(leads_to(&agent, "y-7"), Some(0), "what it has stays for a while");
    assert_eq!(agent.claim("w", tunnel(0)), Err(Full::TunnelClaims(few)));
    attach(&agent, "2", 2);
    agent.claim("x-0", tunnel(2)).unwrap();
    assert_eq!(leads_to(&agent, "x-0"), Some(0), "a name is its first tunnel's");
}

#[test]
fn a_name_that_is_given_back_counts_no_more() {
    let agent = with_quota(Quota::default(), Restored::default());
    for n in 0..10 * MAX_UNATTACHED_CLAIMS {
        let host = format!("x-{n}");
        assert_eq!(agent.claim(&host, tunnel(0)), Ok(true), "{n}");
        let key = ClaimKey { host: host.as_str().into(), tunnel: tunnel(0).tunnel };
        assert!(agent.lock().directory.claims.withdraw(&key).is_some());
    }
    assert_eq!(agent.lock().directory.claims.stated_of(tunnel(0).tunnel), 0);
}

#[test]
fn names_that_nobody_serves_give_way_to_others_and_served_ones_do_not() {
    let agent = with_quota(Quota { claims: 3, ..Quota::default() }, Restored::default());
    attach(&agent, "1", 0);
    agent.claim("served", tunnel(0)).unwrap();
    agent.claim("one", tunnel(1)).unwrap();
    agent.claim("two", tunnel(1)).unwrap();
    assert_eq!(agent.claim("three", tunnel(1)), Err(Full::Claims(3)), "not to its own tunnel's");
    assert_eq!(agent.claim("new", tunnel(2)), Ok(true));
    assert_eq!((leads_to(&agent, "served"), leads_to(&agent, "new")), (Some(0), Some(2)));
    assert_eq!(agent.counts().own_claims, 3);
    for n in 0..2 {
        assert_eq!(agent.claim(&format!("more-{n}"), tunnel(0)), Ok(true));
    }
    assert_eq!(agent.claim("last", tunnel(2)), Err(Full::Claims(3)), "all are served");
}

#[test]
fn a_tunnel_has_a_share_of_the_records() {
    let agent = agent();
    let most = MAX_TUNNEL_RECORDS;
    for n in 0..most {
        attach(&agent, &n.to_string(), 0);
    }
    let register = |id: &str| agent.register(HERE, Holding { record: record(id, 0), dial: "".into() });
    assert_eq!(register("more"), Err(Full::TunnelRecords(most)));
    assert_eq!(register("7"), Ok(()), "it has that one already");
    attach(&agent, "other", 1);
    detach(&agent, "7");
    assert_eq!(register("more"), Ok(()), "one has made room");
    assert_eq!(agent.counts().own_records, most + 1);
}

#[test]
fn a_late_renew_revives_nothing_of_a_tunnel_that_has_its_share() {
    let agent = agent();
    attach(&agent, "late", 0);
    advance(LEASE_TTL);
    agent.collect_changes();
    for n in 0..MAX_TUNNEL_RECORDS {
        attach(&agent, &n.to_string(), 0);
    }
    let heal = super::super::super::Heal { dial: &|_| String::new(), fallback: None };
    let draft = Draft { id: "late", name: "t", node: "n", network: "", address: "" };
    assert_eq!(agent.renew(HERE, draft, &heal), Err(Full::TunnelRecords(MAX_TUNNEL_RECORDS)));
    detach(&agent, "7");
    renew(&agent, "late");
    assert_eq!(agent.counts().own_records, MAX_TUNNEL_RECORDS);
}
