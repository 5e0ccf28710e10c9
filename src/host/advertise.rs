//! The setting `--advertise-host`.

use std::fmt;
use std::str::FromStr;

use gossd_core::address::{AddressError, Host};

/// Under which host, and which port of the gossip, other hosts reach this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// The host, for gossip and for gosts' entrypoints.
    pub host: AdvertisedHost,
    /// The port of the gossip as peers see it, where something forwards another one to it. Entrypoints have their own.
    pub port: Option<u16>,
}

/// The host of an [`Advertise`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdvertisedHost {
    /// An IP address or a name.
    Host(Host),
    /// The address of the interface with this name.
    Interface(Box<str>),
}

/// `HOST`, `HOST:PORT`, `%INTERFACE` or `%INTERFACE:PORT`. No host name begins with `%`, so an interface cannot be taken for
/// one.
impl FromStr for Advertise {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(interface) = text.strip_prefix('%') {
            let (name, port) = match interface.rsplit_once(':') {
                Some((name, port)) => (name, Some(parse_port(port)?)),
                None => (interface, None),
            };
            // As the kernel has them.
            let is_name = (1..16).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != '%');
            return if is_name {
                Ok(Self { host: AdvertisedHost::Interface(name.into()), port })
            } else {
                Err(AddressError::BadHost)
            };
        }
        let host = |text: &str| Host::advertised(text).map(AdvertisedHost::Host);
        if let Ok(host) = host(text) {
            return Ok(Self { host, port: None });
        }
        if let Some((ip, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let port = if rest.is_empty() {
                None
            } else {
                Some(parse_port(rest.strip_prefix(':').ok_or(AddressError::NotHostPort)?)?)
            };
            return Ok(Self { host: host(ip)?, port });
        }
        match text.split_once(':') {
            Some((name, port)) if !port.contains(':') => {
                Ok(Self { host: host(name)?, port: Some(parse_port(port)?) })
            }
            _ => Err(AddressError::BadHost),
        }
    }
}

impl From<Host> for Advertise {
    fn from(host: Host) -> Self {
        Self { host: AdvertisedHost::Host(host), port: None }
    }
}

/// Without the port.
impl fmt::Display for AdvertisedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Interface(name) => write!(f, "%{name}"),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if is_number && port > 0 => Ok(port),
        _ => Err(AddressError::BadPort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_an_interface_is_no_host() {
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:9002", "10.0.0.1", Some(9002)),
            ("a.example.org", "a.example.org", None),
            ("a.example.org:9002", "a.example.org", Some(9002)),
            ("2001:db8::1", "[2001:db8::1]", None),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:9002", "[2001:db8::1]", Some(9002)),
            ("localhost", "localhost", None),
            ("eth0", "eth0", None),
            ("%eth0", "%eth0", None),
            ("%eth0.7:9002", "%eth0.7", Some(9002)),
        ] {
            let read: Advertise = text.parse().unwrap();
            assert_eq!((read.host.to_string(), read.port), (host.into(), port), "{text}");
            assert_eq!(matches!(read.host, AdvertisedHost::Interface(_)), text.starts_with('%'));
        }
    }

    #[test]
    fn what_is_no_host_says_why() {
        use AddressError::{BadHost, BadPort, NotHostPort};
        for (text, why) in [
            ("", BadHost),
            ("0.0.0.0", BadHost),
            ("[::]:9002", BadHost),
            (":9002", BadHost),
            ("a:0", BadPort),
            ("a:x", BadPort),
            ("a:70000", BadPort),
            ("[2001:db8::1]9002", NotHostPort),
            ("a b", BadHost),
            ("%", BadHost),
            ("%an-interface-with-a-long-name", BadHost),
            ("%eth0:0", BadPort),
        ] {
            assert_eq!(text.parse::<Advertise>(), Err(why), "{text}");
        }
    }
}
