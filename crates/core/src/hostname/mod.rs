//! Host names: how a name is spelled ([`Naming`]), where it leads ([`Endpoint`]), and which tunnel has a right to it
//! ([`Claim`]). The claims of all owners are in one index, those of this agent in [`ClaimTable`], too.

mod claim;
mod claims;
mod endpoint;
mod index;
mod naming;

pub use self::claim::{Claim, ClaimKey, Clock, MAX_CLOCK};
pub use self::claims::{ClaimTable, GRACE, LAP, Look, Looked, MAX_REMEMBERED};
pub use self::endpoint::{Endpoint, HashHost, TunnelId};
pub use self::index::Hosts;
pub use self::naming::Naming;

#[cfg(test)]
pub(super) use self::claim::tests::{claim, tunnel};
