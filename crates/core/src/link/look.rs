//! What there is to do for peers when time passes: pings for those that are due, and a judgement of all. That costs as much as
//! there are peers, so it is done seldom where they are many, however many frames come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::gauges::Gauge;
use super::judge::Findings;
use super::ping::Nearness;
use super::{Link, Peer, ReplicaStore};
use crate::agent::News;

/// A peer not heard for this long gets no pushes: they would only be repeated in vain. Its first frame
/// afterwards starts an exchange that brings it up to date.
pub(super) const SILENT: Duration = Duration::from_secs(5);
/// A peer not heard for this long, of the time in which we ran ourselves, is suspect: hosts die within 3 s.
pub const SUSPECT: Duration = Duration::from_millis(2_600);
/// A peer not heard for this long, of the time in which we ran ourselves, is doubted. It costs nothing but order, so it may
/// be soon: whoever lives has failed to answer a dozen questions by then.
pub(super) const DOUBTED: Duration = Duration::from_millis(1_200);
/// And after this long it is sent a Hello as well: it may be another start, which does not know our session. Not before:
/// a Hello costs a handshake, and on a lossy network two pings in a row are often lost.
const ANOTHER: Duration = Duration::from_millis(1_400);
/// A session that is older is renewed when its peer is pinged next.
const REKEY: Duration = Duration::from_secs(3_600);
/// Least time between two looks: of 500 peers a thousand pings are due every second, and no hurry is in any.
const PAUSE: Duration = Duration::from_millis(10);
/// Least time between two judgements of all peers, for each of them: it keeps their cost the same however many there are.
const PAUSE_OF_EACH: Duration = Duration::from_micros(50);
/// And the most that this comes to: so much later may somebody be doubted.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Most time between two looks.
const STEP: Duration = Duration::from_millis(200);

impl Link {
    /// When there is something to do for a peer, at the latest a [`STEP`] after we last saw the clock.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let step = self.ran.last.map(|at| at + STEP);
        let due = [self.pings.next_deadline(), self.judge_at, step].into_iter().flatten().min()?;
        Some(self.looked.map_or(due, |looked| due.max(looked + PAUSE)))
    }

    /// Pings whoever is due for it, and judges all peers if that is due.
    pub(super) fn look(&mut self, now: Instant, ran: Instant, replicas: &mut dyn ReplicaStore) {
        self.looked = Some(now);
        self.handshakes.forget(now);
        self.rotate_cookies(now);
        let next = self.judged.map_or(now, |judged| judged + pause_among(self.peers.table.len()));
        if next <= now || self.judge_at.is_some_and(|at| at <= now) {
            (self.judged, self.judge_at) = (Some(now), None);
            self.judge(now, ran, replicas);
        } else {
            self.judge_by(next);
        }
        let Self { pings, peers, .. } = self;
        for due in pings.due(now, |addr| peers.find_nearness(ran, addr)) {
            match due.near {
                Nearness::Stranger | Nearness::Lost => self.greet(now, due.to),
                Nearness::Heard | Nearness::Watched | Nearness::Far | Nearness::Asked => {
                    self.ping(now, due.to, due.ask);
                    self.renew_session(now, due.to);
                }
                Nearness::Doubtful => {
                    self.ping(now, due.to, due.ask);
                    let silence = self.peers.silence(ran, due.to);
                    if silence.is_some_and(|silence| silence >= ANOTHER) && self.pings.provoked(now, due.to) {
                        self.hello(now, due.to);
                    }
                }
            }
        }
    }

    /// What costs as much as there are peers: doubts, suspects and forgets those for whom it is time.
    fn judge(&mut self, now: Instant, ran: Instant, replicas: &mut dyn ReplicaStore) {
        let Findings {
            recovered,
            doubted,
            suspects,
            forgotten,
            approached,
            has_alarms,
            is_replanned,
            are_fewer,
        } = self.peers.judge(now, ran, &self.pings);
        if is_replanned {
            self.judge_by(now + pause_among(self.peers.table.len()));
        }
        if are_fewer {
            self.retarget(now);
        }
        for owner in recovered {
            replicas.apply(now, News::Heard { owner, trip: None });
        }
        if has_alarms {
            self.alarm(now);
        }
        for owner in doubted {
            self.counters.doubt();
            replicas.apply(now, News::Doubted { owner });
        }
        for (owner, silence) in suspects {
            self.counters.suspect();
            replicas.apply(now, News::Silent { owner, silence });
        }
        self.forget(now, forgotten, replicas);
        for (addr, near) in approached {
            self.pings.approached(now, addr, near);
        }
        self.tell_address(now);
        self.give_keys(now, ran);
        self.report_peers();
        self.gauge();
    }

    /// Whoever is at an address is pinged at another one, or ourselves, unless frames come from there: somebody may throw a Hello
    /// back.
    pub(super) fn met_elsewhere(&mut self, now: Instant, addr: SocketAddr) {
        if self.peers.nearness(self.ran.now.unwrap_or(now), addr) == Nearness::Stranger {
            self.pings.met_elsewhere(now, addr);
        }
    }

    /// All peers are to be judged then, or before.
    pub(super) fn judge_by(&mut self, at: Instant) {
        self.judge_at = Some(self.judge_at.map_or(at, |before| before.min(at)));
    }

    /// Keys of sessions are not used for long: the agent whose name comes first begins anew.
    fn renew_session(&mut self, now: Instant, addr: SocketAddr) {
        let session = self.peers.to(addr);
        let is_old = session.is_some_and(|session| now.saturating_duration_since(session.since) > REKEY);
        if is_old
            && self.peers.at(addr).is_some_and(|name| self.us().owner.name < *name)
            && self.pings.provoked(now, addr)
        {
            self.greet(now, addr);
        }
    }

    /// Begins a handshake at an address, and at the one that frames of whoever is there came from last.
    fn greet(&mut self, now: Instant, addr: SocketAddr) {
        self.hello(now, addr);
        let via = self.peers.route(addr);
        if via != addr {
            self.hello(now, via);
        }
    }

    fn gauge(&self) {
        let ((peers, sessions, recent), (targets, pings)) = (self.peers.len(), self.pings.len());
        for (gauge, level) in [
            (Gauge::Sessions, sessions),
            (Gauge::Recent, recent),
            (Gauge::Targets, targets),
            (Gauge::Pings, pings),
            (Gauge::Contests, self.contests.len()),
            (Gauge::Peers, peers),
            (Gauge::Handshakes, self.handshakes.len()),
            (Gauge::Questions, self.repairs.len()),
            (Gauge::Pushes, self.pusher.waiting()),
        ] {
            self.counters.gauges.set(gauge, level);
        }
    }

    /// The admitted peers whose frames arrive.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        let ran = self.ran.now;
        let is_live = move |at| ran.is_none_or(|ran| is_live(ran, at));
        self.peers.met().filter(move |(_, at)| is_live(*at)).map(|(peer, _)| peer)
    }

    /// Reports the live peers if they changed.
    pub(super) fn report_peers(&mut self) {
        if !self.live().eq(&self.reported) {
            self.reported = self.live().cloned().collect();
            self.effects.peers = Some(self.reported.clone());
        }
    }
}

/// Least time between two judgements of so many peers.
fn pause_among(peers: usize) -> Duration {
    (PAUSE_OF_EACH * u32::try_from(peers).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

/// Whether a peer whose last frame came at that time is sent pushes.
pub(super) fn is_live(ran: Instant, at: Instant) -> bool {
    ran.saturating_duration_since(at) < SILENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_peers_are_judged_at_every_look_and_many_as_often_as_costs_the_same() {
        assert!(pause_among(200) <= PAUSE);
        assert_eq!([1_000, 2_000, 5_000].map(|peers| pause_among(peers).as_millis()), [50, 100, 100]);
    }
}
