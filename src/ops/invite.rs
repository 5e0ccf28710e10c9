//! `/invite`: the line with which another host joins, [`Invite`]. On the control socket only, because it has the keys.

use axum::extract::State;
use axum::http::StatusCode;

use super::report::InviteReport;
use super::routes::{Answered, Failure, Shared, json};
use crate::invite::Invite;

pub(super) async fn invite(State(ops): Shared) -> Answered {
    let keyring = ops.cluster.keyring();
    if keyring.is_public() {
        let text = "this cluster has no key, so it cannot leave this host: `(umask 077; gossd keygen > key)`, then start this agent \
                    with --key-file key";
        return Err(Failure(StatusCode::CONFLICT, text.into()));
    }
    let own = ops.outside.about.host.borrow().gossip;
    let others = ops.cluster.peers_now().into_iter().map(|peer| peer.addr);
    let addresses = [own].into_iter().chain(others).map(Into::into).collect();
    let invite =
        Invite { addresses, cluster: ops.outside.about.cluster.clone(), keyring: (*keyring).clone() };
    tracing::warn!("told by gossd invite: the keys of this cluster were given out, in an invite");
    Ok(json(&InviteReport {
        invite: invite.line().to_string(),
        is_local: own.ip().to_canonical().is_loopback(),
    }))
}
