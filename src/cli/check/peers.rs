//! The agents to join: whether each answers, has the same key and cluster, and what is wrong on the way. Nothing joins.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;

use super::Finding;
use crate::config::Config;
use crate::net::JoinPoint;
use crate::net::probe::{self, ProbeAnswer, Probed};
use gossd_core::link::joins::TurnedAway;
use gossd_core::rank::Order;

const CHECK: &str = "peer";
/// Clocks this far apart are worth a word: logs of several hosts cannot be compared. Nothing else depends on them.
const APART: Duration = Duration::from_secs(60);
/// A round trip as to another part of the world.
const FAR: Duration = Duration::from_millis(30);

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    ask_all(config).await.into_iter().map(|(finding, _)| finding).collect()
}

/// Each, and whether an agent answered that has the key and is of the cluster.
pub(in crate::cli) async fn ask_all(config: &Config) -> Vec<(Finding, bool)> {
    let resolved = join_all(config.join.iter().map(JoinPoint::resolve)).await;
    let addrs = resolved.into_iter().flatten().filter(|addr| is_of_family(config.gossip, *addr));
    let addrs = addrs.collect::<std::collections::BTreeSet<_>>();
    join_all(addrs.into_iter().map(|addr| examine_one(config, addr))).await
}

/// Whether a socket there has an address's family; what is wrong if not, [`super::network`] says.
fn is_of_family(gossip: SocketAddr, addr: SocketAddr) -> bool {
    !(gossip.is_ipv4() && addr.ip().to_canonical().is_ipv6())
}

async fn examine_one(config: &Config, addr: SocketAddr) -> (Finding, bool) {
    if config.gossip.ip().is_loopback() && !addr.ip().to_canonical().is_loopback() {
        let text = format!("--gossip {} reaches this host only, and {addr} is another one", config.gossip);
        return (Finding::fail(CHECK, text), false);
    }
    let (asked, tcp) =
        tokio::join!(probe::ask(addr, &config.keyring, &config.cluster), probe::connects(addr));
    match asked {
        Ok(answer) => {
            let is_other = matches!(&answer, ProbeAnswer::Met(peer) if peer.name != config.name.as_str());
            (judge(config, addr, &answer, tcp), is_other)
        }
        Err(error) => {
            (Finding::fail(CHECK, format!("{addr} cannot be reached from this host: {error}")), false)
        }
    }
}

fn judge(config: &Config, addr: SocketAddr, answer: &ProbeAnswer, tcp: bool) -> Finding {
    let port = addr.port();
    match answer {
        ProbeAnswer::Met(peer) if peer.name == config.name.as_str() => {
            // The agent itself may run already, and be among its own --join.
            Finding::warn(
                CHECK,
                format!(
                    "{addr} is an agent named {}, like this one: another host's needs another --name",
                    peer.name
                ),
            )
        }
        ProbeAnswer::Met(peer) if !tcp => Finding::warn(
            CHECK,
            format!(
                "{}; but TCP port {port} does not answer: what is large would go in pieces by UDP, slowly",
                met(addr, peer)
            ),
        ),
        ProbeAnswer::Met(peer) => match behind(peer).filter(|behind| *behind > APART) {
            Some(behind) => Finding::warn(
                CHECK,
                format!("{}; its clock is {} s behind this one", met(addr, peer), behind.as_secs()),
            ),
            None if peer.trip >= FAR && config.locality.zone.is_empty() && config.order == Order::Random => {
                Finding::warn(
                    CHECK,
                    format!(
                        "{}, {} ms away, and this agent has no --zone: with one on each host, a visitor is sent to a gost of its own zone if there is one",
                        met(addr, peer),
                        peer.trip.as_millis()
                    ),
                )
            }
            None => Finding::ok(CHECK, met(addr, peer)),
        },
        ProbeAnswer::TurnedAway(why) => Finding::fail(
            CHECK,
            match why {
                TurnedAway::UnknownKey => {
                    format!(
                        "the agent at {addr} does not have the key of this one: both need the same --key-file"
                    )
                }
                TurnedAway::OtherCluster => {
                    format!("the agent at {addr} has the same key and another --cluster")
                }
                TurnedAway::OtherVersion => {
                    format!("the agent at {addr} is of a version whose gossip is another")
                }
            },
        ),
        ProbeAnswer::Silent if tcp => Finding::warn(
            CHECK,
            format!(
                "{addr} answers by TCP and not by UDP: open UDP port {port} in both directions, or is it another program?"
            ),
        ),
        ProbeAnswer::Silent => Finding::warn(
            CHECK,
            format!(
                "nobody answers at {addr}, by UDP or TCP: does gossd run there, and is port {port} open?"
            ),
        ),
    }
}

fn met(addr: SocketAddr, peer: &Probed) -> String {
    let elsewhere =
        if peer.addr == addr { String::new() } else { format!(" (it wants frames at {})", peer.addr) };
    format!("{} at {addr}{elsewhere} answers: gossd {}, the same key and cluster", peer.name, peer.program)
}

/// How far its clock is behind ours, at least; none if it may be right. Its generation is the time of its start, or some
/// minutes later, because each start is above the ones before: so a clock that is ahead cannot be told from that.
fn behind(peer: &Probed) -> Option<Duration> {
    #[expect(clippy::disallowed_methods, reason = "to be compared with another host's, for people")]
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    ours.checked_sub(Duration::from_millis(peer.generation) + peer.uptime)
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use gossd_core::locality::Locality;

    fn peer(name: &str) -> Probed {
        #[expect(clippy::disallowed_methods, reason = "a clock that goes right")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let addr = "192.0.2.1:8002".parse().unwrap();
        let generation = u64::try_from(now.as_millis()).unwrap() - 5_000;
        Probed {
            name: name.into(),
            generation,
            uptime: Duration::from_secs(5),
            program: "0.1.0".into(),
            addr,
            trip: Duration::from_millis(2),
        }
    }

    #[test]
    fn what_a_peer_says_is_judged_by_whether_the_agent_could_join_it() {
        let default = || Config::loopback("a".parse().unwrap());
        let config = default();
        let addr = "192.0.2.1:8002".parse().unwrap();
        let late = Probed { generation: peer("b").generation - 3_600_000, ..peer("b") };
        let far = Probed { trip: Duration::from_millis(182), ..peer("b") };
        let zone = Locality { zone: "eu".into(), ..Locality::default() };
        for settled in [Config { locality: zone, ..default() }, Config { order: Order::Nearest, ..default() }]
        {
            assert_eq!(judge(&settled, addr, &ProbeAnswer::Met(far.clone()), true).verdict, Severity::Ok);
        }
        for (answer, tcp, severity, part) in [
            (ProbeAnswer::Met(peer("b")), true, Severity::Ok, "b at 192.0.2.1:8002 answers: gossd 0.1.0"),
            (ProbeAnswer::Met(far), true, Severity::Warn, "182 ms away, and this agent has no --zone"),
            (ProbeAnswer::Met(peer("b")), false, Severity::Warn, "TCP port 8002 does not answer"),
            (ProbeAnswer::Met(late), true, Severity::Warn, "is 3600 s behind"),
            (ProbeAnswer::Met(peer("a")), true, Severity::Warn, "like this one"),
            (ProbeAnswer::TurnedAway(TurnedAway::UnknownKey), true, Severity::Fail, "the same --key-file"),
            (ProbeAnswer::TurnedAway(TurnedAway::OtherCluster), true, Severity::Fail, "another --cluster"),
            (ProbeAnswer::Silent, true, Severity::Warn, "not by UDP"),
            (ProbeAnswer::Silent, false, Severity::Warn, "nobody answers"),
        ] {
            let found = judge(&config, addr, &answer, tcp);
            assert_eq!(found.verdict, severity, "{answer:?}");
            assert!(found.text.contains(part), "{}", found.text);
        }
    }
}
