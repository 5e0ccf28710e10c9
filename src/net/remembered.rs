//! The peers of an earlier start: where they were, so that this one finds them without `--join`, and by their names, so that an
//! operator is told of those that are not there. One that left, or that an operator had forgotten, is no longer among them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::sync::watch;

use super::join::JoinPoint;
use gossd_core::record::AgentName;

/// Addresses of gossip by names.
pub type Remembered = BTreeMap<AgentName, SocketAddr>;

/// Where peers are looked for: where the operator says, and where they were.
#[derive(Clone, Debug)]
pub(super) struct Places {
    configured: watch::Sender<Vec<JoinPoint>>,
    remembered: watch::Sender<Remembered>,
    /// Both.
    points: watch::Sender<Vec<JoinPoint>>,
}

impl Places {
    pub(super) fn new(configured: Vec<JoinPoint>, remembered: Remembered) -> Self {
        let places = Self {
            configured: watch::Sender::new(configured),
            remembered: watch::Sender::new(remembered),
            points: watch::Sender::new(Vec::new()),
        };
        places.compose();
        places
    }

    pub(super) fn configure(&self, configured: Vec<JoinPoint>) {
        self.configured.send_replace(configured);
        self.compose();
    }

    /// Whether the name was one of them.
    pub(super) fn forget(&self, name: &AgentName) -> bool {
        let was_there = self.remembered.send_if_modified(|remembered| remembered.remove(name).is_some());
        if was_there {
            self.compose();
        }
        was_there
    }

    pub(super) fn points(&self) -> watch::Receiver<Vec<JoinPoint>> {
        self.points.subscribe()
    }

    pub(super) fn configured(&self) -> watch::Receiver<Vec<JoinPoint>> {
        self.configured.subscribe()
    }

    pub(super) fn remembered(&self) -> watch::Receiver<Remembered> {
        self.remembered.subscribe()
    }

    fn compose(&self) {
        let mut all = self.configured.borrow().clone();
        for point in self.remembered.borrow().values().copied().map(JoinPoint::from) {
            if !all.contains(&point) {
                all.push(point);
            }
        }
        self.points.send_replace(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_looked_for_only_where_the_operator_says_so() {
        let [b, c]: [SocketAddr; 2] = ["10.0.0.2:8002", "10.0.0.3:8002"].map(|text| text.parse().unwrap());
        let names: [AgentName; 2] = ["b", "c"].map(|text| text.parse().unwrap());
        let remembered = Remembered::from([(names[0].clone(), b), (names[1].clone(), c)]);
        let places = Places::new(vec![b.into()], remembered);
        assert_eq!(*places.points().borrow(), [b.into(), c.into()], "each once");
        assert!(places.forget(&names[0]) && places.forget(&names[1]) && !places.forget(&names[1]));
        assert_eq!(*places.points().borrow(), [b.into()]);
        places.configure(Vec::new());
        assert!(places.points().borrow().is_empty());
    }
}
