//! Places to join at that do not answer: why, as far as can be told, and for whom. Told once on this host, where the cause
//! mostly is, and again every hour.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::join::{JoinPoint, JoinsResolved};
use super::remembered::Places;
use crate::sentence::{Sentence, sentence};
use gossd_core::link::Peer;
use gossd_core::link::joins::{JoinState, Joins, TurnedAway};

/// An agent that is there answers within a second, also on a busy host.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is still so is logged again after this.
const AGAIN: Duration = Duration::from_secs(3_600);
/// How often it is looked at.
const PACE: Duration = Duration::from_secs(1);
/// A port that is open is connected to in less time, in any region.
const DIAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Minder {
    pub(super) places: Places,
    pub(super) resolved: watch::Receiver<JoinsResolved>,
    pub(super) states: watch::Receiver<Joins>,
    /// The live peers.
    pub(super) peers: watch::Receiver<Vec<Peer>>,
    /// Where our own gossip is bound.
    pub(super) ours: SocketAddr,
}

/// A point that does not answer.
struct Unanswered {
    since: Instant,
    /// What was logged, and when.
    told: Option<(Sentence, Instant)>,
}

/// What came of a TCP connection to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JoinDialled {
    Connected,
    Refused,
    NoAnswer,
}

impl Minder {
    /// Looks after the points for ever. What is wrong is told to `unanswered`, a sentence for each point.
    pub(super) async fn run(self, unanswered: watch::Sender<Vec<Sentence>>) -> anyhow::Result<()> {
        let mut waiting: HashMap<JoinPoint, Unanswered> = HashMap::new();
        let mut is_alone = false;
        loop {
            let points = self.places.points().borrow().clone();
            waiting.retain(|point, _| points.contains(point));
            let mut wrong = Vec::new();
            if self.is_alone(&points) {
                let text = sentence!(
                    "no peer yet, and every --join is this agent itself: name an agent of another host, unless others are to join here"
                );
                if !std::mem::replace(&mut is_alone, true) {
                    tracing::warn!("{text}");
                }
                wrong.push(text);
            } else {
                is_alone = false;
            }
            for point in points {
                let states = self.states_of(&point);
                if states.iter().any(|(_, state)| matches!(state, JoinState::Answered | JoinState::Ourselves))
                {
                    if waiting.remove(&point).is_some_and(|waited| waited.told.is_some()) {
                        tracing::info!("{} answers now", self.named(&point));
                    }
                    continue;
                }
                let now = Instant::now();
                let entry = waiting.entry(point.clone()).or_insert(Unanswered { since: now, told: None });
                if entry.since.elapsed() < PATIENCE {
                    continue;
                }
                let (who, why) = (self.named(&point), self.why(&states).await);
                let text = sentence!("{who} has not answered: {why}");
                let is_news =
                    entry.told.as_ref().is_none_or(|(told, at)| *told != text || at.elapsed() >= AGAIN);
                if is_news {
                    tracing::warn!("{text}");
                    entry.told = Some((text.clone(), now));
                }
                wrong.push(text);
            }
            unanswered.send_if_modified(|told| std::mem::replace(told, wrong.clone()) != wrong);
            sleep(PACE).await;
        }
    }

    /// Whether there is nobody to join at but this agent.
    fn is_alone(&self, points: &[JoinPoint]) -> bool {
        let is_ours = |point| {
            let states = self.states_of(point);
            !states.is_empty() && states.iter().all(|(_, state)| *state == JoinState::Ourselves)
        };
        self.peers.borrow().is_empty() && !points.is_empty() && points.iter().all(is_ours)
    }

    /// How a person knows the point.
    fn named(&self, point: &JoinPoint) -> Sentence {
        let (remembered, configured) = (self.places.remembered(), self.places.configured());
        let remembered = remembered.borrow();
        let mut remembered = remembered.iter();
        let name = remembered.find(|(_, address)| JoinPoint::from(**address) == *point).map(|(name, _)| name);
        match name.filter(|_| !configured.borrow().contains(point)) {
            Some(name) => sentence!(
                "{name} at {point}, which was a peer before this start (if it will not come back: gossd forget {name}),"
            ),
            None => sentence!("--join {point}"),
        }
    }

    /// The addresses of a point, and how it went with each.
    fn states_of(&self, point: &JoinPoint) -> Vec<(SocketAddr, JoinState)> {
        let (resolved, states) = (self.resolved.borrow(), self.states.borrow());
        let addrs = resolved.get(point).into_iter().flatten();
        addrs.map(|addr| (*addr, states.get(addr).copied().unwrap_or(JoinState::Silent))).collect()
    }

    /// Why nobody answers there, with what to do. What somebody there said counts more than silence.
    async fn why(&self, states: &[(SocketAddr, JoinState)]) -> Sentence {
        let turned_away = states.iter().find_map(|(addr, state)| match state {
            JoinState::TurnedAway(why) => Some((*addr, *why)),
            _ => None,
        });
        if let Some((addr, why)) = turned_away {
            return turned(addr, why);
        }
        let Some((addr, _)) = states.first() else {
            return sentence!("the name does not resolve; it is tried again every 5 s");
        };
        if let Some(why) = self.cannot_reach(*addr) {
            return why;
        }
        let dialled = match timeout(DIAL, TcpStream::connect(addr)).await {
            Ok(Ok(_)) => JoinDialled::Connected,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => JoinDialled::Refused,
            Ok(Err(_)) | Err(_) => JoinDialled::NoAnswer,
        };
        silent(*addr, dialled)
    }

    /// Why our own sockets cannot reach an address at all.
    fn cannot_reach(&self, addr: SocketAddr) -> Option<Sentence> {
        let ours = self.ours;
        if ours.ip().is_loopback() && !addr.ip().to_canonical().is_loopback() {
            return Some(sentence!(
                "our gossip is bound to {ip}, which reaches this host only: --gossip has to name an address of the network, \
                 or none",
                ip = ours.ip()
            ));
        }
        if ours.is_ipv4() && addr.is_ipv6() && addr.ip().to_canonical().is_ipv6() {
            return Some(sentence!(
                "{addr} is IPv6, and our gossip is bound to {ours}: --gossip '[::]:{port}' has both",
                port = ours.port()
            ));
        }
        None
    }
}

fn turned(addr: SocketAddr, why: TurnedAway) -> Sentence {
    match why {
        TurnedAway::UnknownKey => sentence!(
            "the agent at {addr} does not have the key of this one: both need the same --key-file (`gossd keys list` shows \
             the keys of each)"
        ),
        TurnedAway::OtherCluster => sentence!("the agent at {addr} has the same key and another --cluster"),
        TurnedAway::OtherVersion => {
            sentence!("the agent at {addr} is of a version whose gossip is another: upgrade the older one")
        }
    }
}

fn silent(addr: SocketAddr, dialled: JoinDialled) -> Sentence {
    let port = addr.port();
    match dialled {
        JoinDialled::Connected => sentence!(
            "{addr} answers by TCP and not by UDP: open UDP port {port} in both directions, or is it another program?"
        ),
        JoinDialled::Refused => {
            sentence!("nothing listens at {addr}: does gossd run there, with this port as its --gossip?")
        }
        JoinDialled::NoAnswer => sentence!(
            "no answer from {addr}, by UDP or TCP: is the address right, and are UDP and TCP port {port} open on the way?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::remembered::Remembered;
    use super::*;

    fn minder(ours: &str) -> Minder {
        Minder {
            places: Places::new(vec!["192.0.2.1:8002".parse().unwrap()], Remembered::new()),
            resolved: watch::channel(JoinsResolved::new()).1,
            states: watch::channel(Joins::new()).1,
            peers: watch::channel(Vec::new()).1,
            ours: ours.parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn each_cause_is_told_with_what_to_do_about_it() {
        let addr: SocketAddr = "192.0.2.1:8002".parse().unwrap();
        let why = |state| async move { minder("0.0.0.0:8002").why(&[(addr, state)]).await };
        for (turned_away, part) in [
            (TurnedAway::UnknownKey, "--key-file"),
            (TurnedAway::OtherCluster, "--cluster"),
            (TurnedAway::OtherVersion, "upgrade"),
        ] {
            let text = why(JoinState::TurnedAway(turned_away)).await;
            assert!(text.contains(part) && text.contains("192.0.2.1"), "{text}");
        }
        assert!(minder("0.0.0.0:8002").why(&[]).await.contains("does not resolve"));
        assert!(minder("127.0.0.1:8002").why(&[(addr, JoinState::Silent)]).await.contains("this host only"));
        let six = "[2001:db8::1]:8002".parse().unwrap();
        assert!(
            minder("0.0.0.0:8002").why(&[(six, JoinState::Silent)]).await.contains("--gossip '[::]:8002'")
        );
    }

    #[test]
    fn whoever_is_to_join_nobody_but_itself_is_told_so() {
        let points: Vec<JoinPoint> = ["a:1", "b:1"].map(|point| point.parse().unwrap()).into();
        let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 1));
        for (states, is_alone) in [
            ([JoinState::Ourselves, JoinState::Ourselves], true),
            ([JoinState::Ourselves, JoinState::Silent], false),
            ([JoinState::Answered, JoinState::Ourselves], false),
        ] {
            let resolved = points.iter().cloned().zip([vec![at(1)], vec![at(2)]]).collect();
            let minder = Minder {
                resolved: watch::channel(resolved).1,
                states: watch::channel([at(1), at(2)].into_iter().zip(states).collect()).1,
                ..minder("0.0.0.0:8002")
            };
            assert_eq!(minder.is_alone(&points), is_alone, "{states:?}");
            assert!(!minder.is_alone(&[]) && !minder.is_alone(&["c:1".parse().unwrap()]));
            let owner = gossd_core::record::Owner { name: "b".parse().unwrap(), generation: 1 };
            let met = watch::channel(vec![Peer { owner, addr: at(3) }]).1;
            assert!(!Minder { peers: met, ..minder }.is_alone(&points), "others have joined here");
        }
    }

    #[test]
    fn a_point_is_named_as_the_operator_knows_it() {
        let remembered = [("a", "192.0.2.1:8002"), ("b", "192.0.2.2:8002")];
        let remembered = remembered.map(|(name, at)| (name.parse().unwrap(), at.parse().unwrap()));
        let places = Places::new(vec!["192.0.2.1:8002".parse().unwrap()], remembered.into());
        let minder = Minder { places, ..minder("0.0.0.0:8002") };
        let named = |point: &str| minder.named(&point.parse().unwrap()).to_string();
        assert_eq!(named("192.0.2.1:8002"), "--join 192.0.2.1:8002", "also if it was a peer before");
        assert!(named("192.0.2.2:8002").contains("gossd forget b"));
    }

    #[tokio::test]
    async fn silence_is_told_apart_by_what_tcp_says() {
        // Its own host: no other test gets the port when it is free again.
        let listener = std::net::TcpListener::bind("127.0.7.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let minder = minder("127.0.0.1:1");
        assert!(minder.why(&[(open, JoinState::Silent)]).await.contains("not by UDP"));
        drop(listener);
        assert!(minder.why(&[(open, JoinState::Silent)]).await.contains("nothing listens"));
    }
}
