//! What the programs that measure gossd have in common.

pub mod table;

/// Counts are far smaller than what a float has digits for.
#[expect(clippy::cast_precision_loss, reason = "figures for a table")]
pub fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}
