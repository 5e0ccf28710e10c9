//! What the programs that measure gossd share.

pub mod table;

/// Counts are far below 2^53, so this is exact.
#[expect(clippy::cast_precision_loss, reason = "figures for a table")]
pub fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}
