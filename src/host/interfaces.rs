//! The addresses of this host's interfaces, as the kernel tells them. A bind would not tell: with
//! `net.ipv4.ip_nonlocal_bind=1`, as keepalived has it, any address can be bound.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

// Of rtnetlink(7).
const GET_ADDRESSES: u16 = 22;
const NEW_ADDRESS: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A request for all of them.
const DUMP: u16 = 0x301;
/// Bytes of a message's header, and of what is before the attributes of an address.
const HEADER: usize = 16;
const ABOUT: usize = 8;
/// The address of the interface, where it differs from that of the other end.
const LOCAL: u16 = 2;
const ADDRESS: u16 = 1;
/// Not to be used yet, or not at all, because another host may have it.
const UNUSABLE: u8 = 0x40 | 0x08;
/// Beyond this scope, an address is known on one link only, or in one host.
const LINK: u8 = 253;
/// The kernel sends at most 32 kB at once.
const BUFFER: usize = 32 << 10;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InterfaceAddress {
    interface: u32,
    ip: IpAddr,
    /// Whether other links know it.
    is_global: bool,
}

/// All addresses of this host; an error where the kernel does not tell, as in a sandbox without `AF_NETLINK`.
pub(crate) fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    Ok(dump()?.into_iter().map(|address| address.ip).collect())
}

/// Those that other hosts can dial, of IPv4 first, and of each in the order of the interfaces.
pub(super) fn dialable() -> Vec<IpAddr> {
    let mut found = dump().unwrap_or_default();
    found.retain(|address| address.is_global && !address.ip.is_loopback());
    found.sort_by_key(|address| (address.ip.is_ipv6(), address.interface));
    found.into_iter().map(|address| address.ip).collect()
}

/// The addresses of one interface, those first that other hosts can dial; nothing if there is no such interface.
pub(super) fn of_interface(name: &str) -> io::Result<Vec<IpAddr>> {
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
        .or_else(|_| rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None))?;
    let Ok(index) = name_to_index(&any, name) else { return Ok(Vec::new()) };
    let mut found: Vec<_> = dump()?.into_iter().filter(|address| address.interface == index).collect();
    // Without the scope, an address of a link cannot be dialled.
    found.retain(|address| address.is_global || address.ip.is_loopback());
    Ok(found.into_iter().map(|address| address.ip).collect())
}

fn dump() -> io::Result<Vec<InterfaceAddress>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    loop {
        // The kernel answers while it is asked: there is nothing to wait for.
        let (len, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        if read(&buffer[..len], &mut found)? {
            return Ok(found);
        }
    }
}

fn request() -> [u8; HEADER + ABOUT] {
    let mut request = [0; HEADER + ABOUT];
    request[0] = 24;
    request[..4].copy_from_slice(&24_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&GET_ADDRESSES.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request
}

/// Takes the messages of one answer. Whether the last one was among them.
fn read(mut answer: &[u8], found: &mut Vec<InterfaceAddress>) -> io::Result<bool> {
    while let Some((len, kind)) = header(answer) {
        let Some(message) = answer.get(HEADER..len) else { break };
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(io::ErrorKind::Unsupported.into()),
            NEW_ADDRESS => found.extend(read_address(message)),
            _ => {}
        }
        answer = answer.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn header(answer: &[u8]) -> Option<(usize, u16)> {
    let len = u32::from_ne_bytes(answer.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    Some((usize::try_from(len).ok().filter(|len| *len >= HEADER)?, kind))
}

fn read_address(message: &[u8]) -> Option<InterfaceAddress> {
    let [_, _, flags, scope, index @ ..] = *message.first_chunk::<ABOUT>()?;
    let mut attributes = &message[ABOUT..];
    let mut ip = None;
    while let Some(head) = attributes.first_chunk::<4>() {
        let (len, kind) = (u16::from_ne_bytes([head[0], head[1]]), u16::from_ne_bytes([head[2], head[3]]));
        let len = usize::from(len);
        let Some(value) = attributes.get(4..len) else { break };
        match kind {
            LOCAL => ip = ip_of(value).or(ip),
            ADDRESS => ip = ip.or(ip_of(value)),
            _ => {}
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    let is_usable = flags & UNUSABLE == 0;
    let interface = u32::from_ne_bytes(index);
    ip.filter(|_| is_usable).map(|ip| InterfaceAddress { interface, ip, is_global: scope < LINK })
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|v4| Ipv4Addr::from(v4).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|v6| Ipv6Addr::from(v6).into())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_loopback_and_no_documentation_address() {
        let all = addresses().unwrap();
        assert!(all.contains(&Ipv4Addr::LOCALHOST.into()), "{all:?}");
        assert!(!all.contains(&IpAddr::from([192, 0, 2, 1])), "{all:?}");
        assert_eq!(of_interface("lo").unwrap().first(), Some(&Ipv4Addr::LOCALHOST.into()));
        assert_eq!(of_interface("no-such").unwrap(), Vec::<IpAddr>::new());
    }

    #[test]
    fn an_answer_that_makes_no_sense_ends_nothing() {
        let mut found = Vec::new();
        for answer in [&[][..], &[1; 3], &[0; 64], &[255; 64]] {
            assert!(read(answer, &mut found).is_ok_and(|done| !done));
        }
        let mut cut = request();
        cut[4..6].copy_from_slice(&NEW_ADDRESS.to_ne_bytes());
        for len in 0..cut.len() {
            let _ = read(&cut[..len], &mut found);
        }
        assert!(found.is_empty());
    }
}
