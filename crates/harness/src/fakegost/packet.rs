//! Sends whole IPv4 packets that were captured on their way. Knows nothing of the reason.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

/// `IPPROTO_RAW`: each send is a whole packet, header included.
const RAW: i32 = 255;
/// The flag "more fragments", in the 16 bits that end in the fragment's offset.
const MORE: u16 = 0x2000;

/// Sends packets with a mark, so that rules can recognize them.
pub(crate) struct Sender {
    socket: Socket,
    mtu: usize,
}

impl Sender {
    pub(crate) fn new(mark: u32, mtu: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
        socket.set_mark(mark)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, mtu })
    }

    /// Sends a packet unchanged, in fragments if it is longer than the MTU.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let to = destination(packet).ok_or(io::ErrorKind::InvalidData)?;
        let to = SocketAddrV4::new(to, 0).into();
        for fragment in fragments(packet, self.mtu).ok_or(io::ErrorKind::InvalidData)? {
            self.socket.send_to(&fragment, &to)?;
        }
        Ok(())
    }
}

/// The packet with another id, so that a copy's fragments are not mixed with the original's.
pub(crate) fn renumbered(mut packet: Vec<u8>) -> Vec<u8> {
    if let Some(id) = packet.get_mut(4) {
        *id ^= 0x80;
    }
    packet
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?))
}

/// The packet itself, or its fragments. The kernel does not fragment raw packets, but fills in their lengths and
/// checksums.
fn fragments(packet: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    if packet.len() <= mtu {
        return Some(vec![packet.to_vec()]);
    }
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let (header, payload) = packet.split_at_checked(header_len)?;
    let piece = mtu.checked_sub(header_len)? / 8 * 8;
    if header_len < 20 || piece == 0 {
        return None;
    }
    let pieces = payload.chunks(piece).enumerate();
    pieces.map(|(n, chunk)| fragment(header, n * piece, chunk, payload.len())).collect()
}

fn fragment(header: &[u8], offset: usize, chunk: &[u8], whole: usize) -> Option<Vec<u8>> {
    let mut fragment = [header, chunk].concat();
    let more = if offset + chunk.len() < whole { MORE } else { 0 };
    let flags = u16::try_from(offset / 8).ok()? | more;
    fragment.get_mut(6..8)?.copy_from_slice(&flags.to_be_bytes());
    Some(fragment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_packet_is_cut_at_multiples_of_eight_bytes() {
        let mut packet = vec![0x45; 20];
        packet.extend((0..250).map(|n: u8| n));
        let fragments = fragments(&packet, 120).unwrap();
        let field = |f: &[u8]| u16::from_be_bytes([f[6], f[7]]);
        let fields: Vec<_> = fragments.iter().map(|f| (f.len(), field(f))).collect();
        assert_eq!(fields, [(116, MORE), (116, MORE | 0x0c), (78, 0x18)]);
        let payload: Vec<_> = fragments.iter().flat_map(|f| &f[20..]).copied().collect();
        assert_eq!(payload, packet[20..]);
    }

    #[test]
    fn what_is_no_packet_is_not_cut() {
        assert_eq!(fragments(&[0; 2_000], 1_500), None);
        assert_eq!(destination(&[0; 3]), None);
    }
}
