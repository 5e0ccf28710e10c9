//! Questions for detours and their answers. What they mean is the agent's matter: the link carries them between agents that
//! have a session, and says who answered.

use std::time::Instant;

use super::wire::{self, Kind, Malformed, OfferedGost};
use super::{Link, LinkEffects, Peer, ReplicaStore};
use crate::address::Address;
use crate::agent::{Detour, News, Offer, Seek};
use crate::record::{Owner, check_field};

impl Link {
    /// Asks peers; those that are not live are not asked.
    pub fn handle_seeks(&mut self, seeks: &[Seek]) -> LinkEffects {
        for Seek { to, id, tunnel } in seeks {
            let addr = self.live().find(|peer| peer.owner.name == *to).map(|peer| peer.addr);
            if let Some(addr) = addr {
                self.send(Kind::Seek, &wire::encode(&wire::Seek { id: *id, tunnel: *tunnel }), addr);
            }
        }
        self.take_effects()
    }

    pub(super) fn take_seek(
        &mut self,
        now: Instant,
        peer: &Peer,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let wire::Seek { id, tunnel } = self.read(payload)?;
        let offer = replicas.offer(now, &peer.owner, tunnel);
        self.send(Kind::Offer, &encode(id, &offer), peer.addr);
        Ok(())
    }

    pub(super) fn take_offer(
        &mut self,
        now: Instant,
        by: Owner,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let offer: wire::Offer<'_> = self.read(payload)?;
        let id = offer.id;
        let offer = decode(&offer)?;
        replicas.apply(now, News::Offered { by, id, offer });
        Ok(())
    }
}

fn encode(id: u64, offer: &Offer) -> Vec<u8> {
    let (node, address);
    let gost = if let Offer::Detour(detour) = offer {
        (node, address) = (detour.node.text(), detour.address.to_string());
        Some(OfferedGost { node: &node, address: &address })
    } else {
        None
    };
    wire::encode(&wire::Offer { id, reaches: *offer != Offer::Nothing, gost })
}

/// The offer, if it can be what an agent said.
fn decode(offer: &wire::Offer<'_>) -> Result<Offer, Malformed> {
    let OfferedGost { node, address } = match (offer.reaches, &offer.gost) {
        (true, Some(gost)) => gost,
        (true, None) => return Ok(Offer::NoGost),
        (false, None) => return Ok(Offer::Nothing),
        (false, Some(_)) => return Err(Malformed),
    };
    let is_field = !node.is_empty() && [node, address].iter().all(|field| check_field("", field).is_ok());
    if !is_field {
        return Err(Malformed);
    }
    let detour = Detour { node: (*node).into(), address: Address::from(*address) };
    if detour.address.is_entrypoint() { Ok(Offer::Detour(detour)) } else { Err(Malformed) }
}
