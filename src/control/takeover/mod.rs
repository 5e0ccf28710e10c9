//! An agent takes over from the one that runs: without a moment in which gost is refused, and without a change lost. The
//! two meet at the control socket:
//!
//! ```text
//! successor                          predecessor
//!   take over ──────────────────────▶  goes on serving
//!   ◀───────────────────── sockets ──
//!   (its configuration, files, addresses)
//!   takes connections; calls wait
//!   go ─────────────────────────────▶  takes no more calls, finishes those in flight,
//!                                      closes its journal
//!   ◀──────────────────── snapshot ──
//!   reads, opens the journal, serves
//!   serving ────────────────────────▶  ends
//! ```
//!
//! Whatever fails on the right before `serving`, the predecessor goes on, from its own snapshot and with its own sockets:
//! the same way as a successor.

pub(crate) mod predecessor;
pub(crate) mod successor;

use std::time::Duration;

/// How long one side waits for the other's next word, the reading of a large journal included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest snapshot: an agent's largest quota, and as much again.
const MAX_SNAPSHOT: u64 = 1 << 30;

/// What a successor says when its predecessor is to stop.
const GO: &str = "go";
/// What it says when it serves.
const SERVING: &str = "serving";
/// What stands before the reason when it does not.
const FAILED: &str = "failed ";
