//! `/take-over`: an agent takes over from the one that runs, without a moment in which gost is refused, and without a
//! change lost. The two meet at the control socket, where the connection leaves HTTP (`Upgrade`):
//!
//! ```text
//! successor                          predecessor
//!   POST /take-over ────────────────▶  goes on serving
//!   ◀───────────── 101, and no HTTP ──
//!   meet ───────────────────────────▶
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

use std::io;
use std::time::Duration;

use tokio::time::timeout;

/// The protocol that the connection changes to.
pub(crate) const PROTOCOL: &str = "gossd-take-over";

/// How long one side waits for the other's next line, the reading of a large journal included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest snapshot: an agent's largest quota, and as much again.
const MAX_SNAPSHOT: u64 = 1 << 30;

/// A successor's first byte after HTTP. The sockets are sent after it, because an HTTP client reads ahead, and what it
/// reads without asking for descriptors loses them.
const MEET: u8 = b'\n';
/// A successor's line when its predecessor is to stop.
const GO: &str = "go";
/// A successor's line when it serves.
const SERVING: &str = "serving";
/// Precedes the reason when it does not.
const FAILED: &str = "failed ";

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, step).await?
}
