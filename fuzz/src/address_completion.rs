//! Entrypoints as gost's users write them: an accepted one can be dialled from any host at the same port.

use std::net::{IpAddr, Ipv4Addr};
use std::str;
use std::sync::Arc;

use gossd::plugin::Reach;
use gossd_core::address::{Address, Entrypoint, Host};
use gossd_core::agent::Restored;
use gossd_core::lease::{Holding, KeptLeases};
use gossd_core::record::{MAX_FIELD, Network, Record};

/// Three lines: the entrypoint, the host that replaces addresses that nobody can dial, and another such host.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (text, reachable, other) = (line(), line(), line());
    as_it_was(text);
    let reachable = Host::advertised(reachable).unwrap_or(Host::Ip(Ipv4Addr::new(192, 0, 2, 1).into()));
    let other = Host::advertised(other).unwrap_or(Host::Ip(Ipv4Addr::new(198, 51, 100, 7).into()));
    if let Ok(entrypoint) = Entrypoint::parse(text) {
        complete(text, &entrypoint, &reachable, &other);
    }
    assert_eq!(text.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()), is_unspecified(text));
}

fn as_it_was(text: &str) {
    let address = Address::from(text);
    assert_eq!((address.to_string().as_str(), address.text_len()), (text, text.len()));
    assert_eq!(address.is_empty(), text.is_empty());
    assert!(address == *text);
    if let Some(v4) = address.v4() {
        assert_eq!(v4.to_string(), text);
    }
    assert_eq!(address.socket(), text.parse().ok());
}

fn is_unspecified(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() && Host::advertised(text).is_err()
}

fn complete(text: &str, entrypoint: &Entrypoint, reachable: &Host, other: &Host) {
    assert_ne!(entrypoint.port(), 0);
    if let Some(ip) = entrypoint.loopback() {
        assert!(ip.is_loopback() && *entrypoint.host() == Host::Unusable);
    }
    let completed = entrypoint.completed(reachable).to_string();
    assert!(completed.len() <= text.len().max(MAX_FIELD) + reachable.to_string().len());
    let again = Entrypoint::parse(&completed).expect("what was completed is an address");
    assert_eq!(again.port(), entrypoint.port());
    let given = if *entrypoint.host() == Host::Unusable { reachable } else { entrypoint.host() };
    if is_usable(given) {
        assert_eq!(again.host(), given, "{text:?} became {completed:?}");
        assert_eq!(again.completed(other).to_string(), completed, "complete is complete");
    }
    if *entrypoint.host() != Host::Unusable {
        assert_eq!(completed, entrypoint.completed(other).to_string(), "what others can dial is kept");
    }
    moved(&completed, &again, other);
}

/// A host that may stand in an address. The operator's own setting may be loopback.
fn is_usable(host: &Host) -> bool {
    Host::parse(host.to_string().trim_matches(['[', ']'])).is_ok_and(|parsed| parsed == *host)
}

/// The agent's host has another address now: the addresses of its own gosts change with it, and no others.
fn moved(completed: &str, entrypoint: &Entrypoint, to: &Host) {
    let reach = Reach::new(Some(to.clone()), Ipv4Addr::LOCALHOST.into(), None);
    let port = entrypoint.port();
    for (dial, want) in [
        (format!("127.0.0.1:{port}"), format!("{to}:{port}")),
        (format!("192.0.2.9:{port}"), completed.to_owned()),
        (String::new(), completed.to_owned()),
    ] {
        let [id, name, node] = ["1", "t", "n"].map(Into::into);
        let record = Record { id, name, node, network: Network::Tcp, address: completed.into() };
        let held = vec![Holding { record: Arc::new(record), dial: dial.as_str().into() }];
        let mut restored =
            Restored { leases: KeptLeases { held, ..KeptLeases::default() }, ..Restored::default() };
        reach.returned(&mut restored);
        let address = restored.leases.held[0].record.address.to_string();
        assert_eq!(address, want, "{completed} with {dial:?}");
    }
}
