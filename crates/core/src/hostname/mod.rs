//! Host names: how a name is spelled ([`Naming`]), where it leads ([`Endpoint`]), and which tunnel has a right to it
//! ([`Claim`]). The claims of all owners are in one table ([`Claims`]).

mod claim;
mod claims;
mod endpoint;
mod naming;
mod own;
mod policy;
mod public;
mod upkeep;

pub use self::claim::{Claim, ClaimKey, Clock, MAX_CLOCK};
pub use self::claims::Claims;
pub use self::endpoint::{Endpoint, HashHost, TunnelId};
pub use self::naming::Naming;
pub use self::policy::{ClaimPolicy, PolicyError};
pub use self::public::Unclaimable;
pub use self::upkeep::{GRACE, LAP, MAX_REMEMBERED, TunnelSighting};

#[cfg(test)]
pub(super) use self::claim::tests::{claim, tunnel};
#[cfg(test)]
pub(super) use self::own::CLOSED_FOR;
#[cfg(test)]
mod tests;
