//! Where an agent is, and how much it is to be used: what its operator says, and every peer orders answers by.

use serde::{Deserialize, Serialize};

/// Longest name of a zone, in bytes.
pub const MAX_ZONE: usize = 64;
/// The weight of an agent whose operator says nothing, and the highest one.
pub const MAX_WEIGHT: u8 = 100;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locality {
    /// Agents of one's own zone come first; empty for none.
    pub zone: Box<str>,
    /// How often it comes first among its equals, beside others: 0 to [`MAX_WEIGHT`]. One of 0 is a backup, used if there is
    /// nobody else.
    pub weight: u8,
}

impl Default for Locality {
    fn default() -> Self {
        Self { zone: "".into(), weight: MAX_WEIGHT }
    }
}

impl Locality {
    /// Whether it can be what an agent wrote.
    pub(super) fn is_plausible(&self) -> bool {
        self.weight <= MAX_WEIGHT && is_zone(&self.zone)
    }

    /// Whether an agent there is in the same zone. Agents without one are in none.
    pub fn is_near(&self, other: &Self) -> bool {
        !self.zone.is_empty() && self.zone == other.zone
    }
}

/// Whether a text can be the name of a zone: at most [`MAX_ZONE`] bytes, without blanks and control characters. Empty is none.
pub fn is_zone(text: &str) -> bool {
    text.len() <= MAX_ZONE && text.chars().all(|char| char.is_alphanumeric() || "-._:/".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_no_zone_is_near_nobody() {
        let at = |zone: &str| Locality { zone: zone.into(), ..Locality::default() };
        assert!(at("eu").is_near(&at("eu")));
        assert!(!at("eu").is_near(&at("us")) && !at("eu").is_near(&at("")) && !at("").is_near(&at("")));
    }

    #[test]
    fn a_locality_of_a_stranger_is_bounded() {
        let of = |zone: &str, weight| Locality { zone: zone.into(), weight }.is_plausible();
        assert!(of("", 0) && of("eu-central-1.a", MAX_WEIGHT) && of("北京", 1));
        assert!(!of("", MAX_WEIGHT + 1) && !of(&"z".repeat(MAX_ZONE + 1), 1));
        assert!(!of("a b", 1) && !of("a\n", 1) && !of("\u{202e}a", 1));
    }
}
