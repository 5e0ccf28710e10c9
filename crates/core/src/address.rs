//! Where a tunnel's gost can be dialled: parsing gost's `entrypoint` string and completing it to an address
//! that other hosts can use. Never resolves a name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::check_field;

/// `host:port` as gost wrote it; the host may be missing (`:8420`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrypoint {
    host: Host,
    port: u16,
    /// The IP address as written, if it is loopback: of use to this host only.
    loopback: Option<IpAddr>,
}

/// The host part of an [`Entrypoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nothing that another host could dial: empty, `0.0.0.0`, `[::]`, loopback, `localhost`.
    Unusable,
    /// An IP address.
    Ip(IpAddr),
    /// A host name, kept as written.
    Name(Box<str>),
}

/// Why a string is not an [`Entrypoint`]. The record is refused; nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// gost sends its `entrypoint` option verbatim, so an empty one means the option is not set.
    #[error("is empty: set `entrypoint` in gost's tunnel service, for example `entrypoint: :8420`")]
    Empty,
    /// No port, or a colon too many.
    #[error("is not host:port (an IPv6 host needs brackets)")]
    NotHostPort,
    /// `:0` means that gost chose a port which it does not report.
    #[error("has port 0: give gost's `entrypoint` a fixed port")]
    PortZero,
    /// Something that is not a number from 1 to 65535.
    #[error("has a port that is not a number from 1 to 65535")]
    BadPort,
    /// A host that can be neither an IP address nor a name.
    #[error("has a host that is neither an IP address nor a host name")]
    BadHost,
}

impl Entrypoint {
    /// Parses `host:port`, `[v6]:port` or `:port`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let (host, port) = split(text)?;
        let loopback = text.rsplit_once(':').and_then(|(ip, _)| ip.trim_matches(['[', ']']).parse().ok());
        let loopback = loopback.map(|ip: IpAddr| ip.to_canonical()).filter(IpAddr::is_loopback);
        Ok(Self { host, port: parse_port(port)?, loopback })
    }

    /// The host part.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The loopback address on which it listens, if it does.
    pub fn loopback(&self) -> Option<IpAddr> {
        self.loopback
    }

    /// The address other hosts can dial: this one, with an unusable host replaced by `reachable`.
    pub fn completed(&self, reachable: &Host) -> Address {
        let host = if self.host == Host::Unusable { reachable } else { &self.host };
        host.at(self.port)
    }
}

impl Host {
    /// Parses a bare host: an IP address (IPv6 without brackets) or a name.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::from_ip(ip));
        }
        if text.eq_ignore_ascii_case("localhost") || text.eq_ignore_ascii_case("localhost.") {
            return Ok(Self::Unusable);
        }
        if text.is_empty() || !text.chars().all(is_name_char) {
            return Err(AddressError::BadHost);
        }
        Ok(Self::Name(text.into()))
    }

    /// A port of it.
    pub fn at(&self, port: u16) -> Address {
        match self {
            Self::Ip(IpAddr::V4(ip)) => SocketAddrV4::new(*ip, port).into(),
            host => format!("{host}:{port}").into(),
        }
    }

    /// An IP address, or [`Host::Unusable`] where it means nothing to another host.
    pub fn from_ip(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_loopback() { Self::Unusable } else { Self::Ip(ip) }
    }

    /// A host to advertise: taken as given, loopback and `localhost` too, for agents that share one machine.
    pub fn advertised(text: &str) -> Result<Self, AddressError> {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Err(AddressError::BadHost),
            Ok(ip) => Ok(Self::Ip(ip.to_canonical())),
            Err(_) if !text.is_empty() && text.chars().all(is_name_char) => Ok(Self::Name(text.into())),
            Err(_) => Err(AddressError::BadHost),
        }
    }
}

/// As in an address: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable => Ok(()),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `host:port`, or nothing, in 16 bytes; one of IPv4 takes no allocation besides.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(AddressForm);

const _: () = assert!(size_of::<Address>() == 16, "every record has one");

/// Each text has one form, so equal forms are equal texts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum AddressForm {
    V4(SocketAddrV4),
    Other(Arc<str>),
}

/// Nowhere.
impl Default for Address {
    fn default() -> Self {
        "".into()
    }
}

impl Address {
    /// Whether it is nowhere.
    pub fn is_empty(&self) -> bool {
        self.text_len() == 0
    }

    /// Whether it can be an entrypoint that gost registered, completed or not.
    pub fn is_entrypoint(&self) -> bool {
        match &self.0 {
            AddressForm::V4(v4) => v4.port() != 0,
            AddressForm::Other(text) => check_field("", text).is_ok() && Entrypoint::parse(text).is_ok(),
        }
    }

    /// The address of IPv4 and port that it is, if it is one.
    pub fn v4(&self) -> Option<SocketAddrV4> {
        match self.0 {
            AddressForm::V4(v4) => Some(v4),
            AddressForm::Other(_) => None,
        }
    }

    /// The IP address and port that it is, if it is no name.
    pub fn socket(&self) -> Option<SocketAddr> {
        match &self.0 {
            AddressForm::V4(v4) => Some((*v4).into()),
            AddressForm::Other(text) => text.parse().ok(),
        }
    }

    /// The bytes of its text.
    pub fn text_len(&self) -> usize {
        match &self.0 {
            AddressForm::V4(v4) => {
                let digits = |n: u16| n.checked_ilog10().unwrap_or(0) as usize + 1;
                let bytes = v4.ip().octets().map(|byte| digits(byte.into()) + 1);
                bytes.iter().sum::<usize>() + digits(v4.port())
            }
            AddressForm::Other(text) => text.len(),
        }
    }
}

/// An address as it is encoded. A variant is never changed, only added.
#[derive(Serialize, Deserialize)]
enum EncodedAddress<'a> {
    /// The 4 bytes of the IP address, the 2 of the port.
    V4([u8; 4], [u8; 2]),
    Text(&'a str),
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = match &self.0 {
            AddressForm::V4(v4) => EncodedAddress::V4(v4.ip().octets(), v4.port().to_be_bytes()),
            AddressForm::Other(text) => EncodedAddress::Text(text),
        };
        encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match EncodedAddress::deserialize(deserializer)? {
            EncodedAddress::V4(ip, port) => SocketAddrV4::new(ip.into(), u16::from_be_bytes(port)).into(),
            EncodedAddress::Text(text) => text.into(),
        })
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        // Without an allocation for those that are spelled as they would be here; there is no other spelling of a
        // port than with leading zeros, and none at all of an IP address.
        let port = text.rsplit_once(':').map_or("", |(_, port)| port);
        match text.parse::<SocketAddrV4>() {
            Ok(v4) if !port.starts_with('0') => v4.into(),
            _ => Self(AddressForm::Other(text.into())),
        }
    }
}

impl From<SocketAddrV4> for Address {
    fn from(v4: SocketAddrV4) -> Self {
        Self(AddressForm::V4(v4))
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl PartialEq<str> for Address {
    fn eq(&self, text: &str) -> bool {
        let other = Self::from(text);
        *self == other
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AddressForm::V4(v4) => v4.fmt(f),
            AddressForm::Other(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// An IPv4 address as such, also if it is written as one of IPv6, as a dual-stack socket does.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddrV4::new(v4, addr.port()).into(),
        // With its scope.
        IpAddr::V6(_) => addr,
    }
}

fn split(text: &str) -> Result<(Host, &str), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or(AddressError::NotHostPort)?;
        let ip: Ipv6Addr = host.parse().map_err(|_| AddressError::BadHost)?;
        return Ok((Host::from_ip(ip.into()), port));
    }
    let (host, port) = text.split_once(':').ok_or(AddressError::NotHostPort)?;
    if port.contains(':') {
        return Err(AddressError::NotHostPort);
    }
    let host = if host.is_empty() { Host::Unusable } else { Host::parse(host)? };
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) => Err(AddressError::PortZero),
        Ok(port) if digits => Ok(port),
        _ => Err(AddressError::BadPort),
    }
}

/// Letters of any script are let through: a resolver may know names that this page does not.
fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '.' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        for text in [
            "10.0.0.1:80",
            "0.0.0.0:1",
            "255.255.255.255:65535",
            "10.0.0.1:080",
            "10.0.0.1:0",
            "10.0.0.01:80",
            "10.0.0.1",
            "[fd00::1]:80",
            "gost-1.example.org:80",
            "",
        ] {
            let address = Address::from(text);
            assert_eq!((address.to_string().as_str(), address.text_len()), (text, text.len()));
            assert!(address == *text);
        }
    }

    fn completed(text: &str, reachable: &str) -> String {
        Entrypoint::parse(text).unwrap().completed(&Host::parse(reachable).unwrap()).to_string()
    }

    #[test]
    fn a_host_nobody_else_can_dial_is_replaced() {
        for text in [
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "127.0.0.1:80",
            "127.9.9.9:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "localhost:80",
            "LOCALHOST.:80",
        ] {
            assert_eq!(completed(text, "10.0.0.1"), "10.0.0.1:80", "{text}");
            assert_eq!(completed(text, "fd00::1"), "[fd00::1]:80", "{text}");
            assert_eq!(completed(text, "a.example"), "a.example:80", "{text}");
        }
    }

    #[test]
    fn a_usable_host_is_kept() {
        for (text, want) in [
            ("192.168.7.1:8420", "192.168.7.1:8420"),
            ("[2001:db8::7]:8420", "[2001:db8::7]:8420"),
            ("[::ffff:10.1.1.1]:80", "10.1.1.1:80"),
            ("gost-1.example.org:80", "gost-1.example.org:80"),
            ("gost_1:65535", "gost_1:65535"),
        ] {
            assert_eq!(completed(text, "10.0.0.1"), want);
        }
    }

    #[test]
    fn what_is_not_an_address_says_why() {
        use AddressError::{BadHost, BadPort, Empty, NotHostPort, PortZero};
        for (text, want) in [
            ("", Empty),
            ("host", NotHostPort),
            ("::1:80", NotHostPort),
            ("fd00::1", NotHostPort),
            ("[fd00::1]", NotHostPort),
            ("[fd00::1%eth0]:80", BadHost),
            ("[host]:80", BadHost),
            ("ho st:80", BadHost),
            ("http://host:80", NotHostPort),
            ("a/b:80", BadHost),
            (":0", PortZero),
            ("host:00", PortZero),
            ("host:", BadPort),
            ("host:+80", BadPort),
            ("host:65536", BadPort),
            ("host:http", BadPort),
        ] {
            assert_eq!(Entrypoint::parse(text), Err(want), "{text}");
        }
    }
}
