//! Ports and sockets: free, or in whose hands. They are bound, and let go again.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::{Finding, Severity, files};
use crate::cli::client::{Client, NoReport};
use crate::config::Config;
use crate::net::transport;
use crate::ops::report::StatusReport;
use crate::plugin::http;

/// A listener that `gossd run` would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    check: &'static str,
    flag: &'static str,
    address: SocketAddr,
    /// Without it, the agent would run nevertheless.
    may_give_way: bool,
}

/// Who has a port that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PortHolder {
    /// Another listener of the same agent, by its flag.
    Itself(&'static str),
    /// The agent with the same name: it runs already.
    Running,
    /// An agent with another name.
    Agent(String),
    /// An agent that has no admin listener where this one would have it.
    SomeAgent,
    /// Perhaps this agent, which runs already: TLS hides it.
    Perhaps,
    Unknown,
}

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let ports = ports(config);
    let bound = bind(&ports);
    let running = running(config).await;
    let mut found = Vec::new();
    for (port, bound) in ports.iter().zip(bound) {
        let holder = match &bound {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                holder(port, &ports, config, running.as_ref()).await
            }
            _ => PortHolder::Unknown,
        };
        found.push(judge(port, &bound, &holder));
    }
    let runs = running.is_some_and(|status| status.name == config.name.as_str());
    let socket = |check, path: &Option<_>, bad| path.as_deref().map(|path| socket(check, path, runs, bad));
    found.extend(socket("plugin socket", &config.plugin_socket, Severity::Fail));
    found.extend(socket("control socket", &config.control, Severity::Warn));
    found
}

fn ports(config: &Config) -> Vec<Port> {
    let port = |check, flag, address| Port { check, flag, address, may_give_way: false };
    let plugin = config.plugin.iter().map(|address| port("plugin", "--plugin", *address));
    let gossip = port("gossip", "--gossip", config.gossip);
    let admin = config
        .admin
        .map(|address| Port { may_give_way: config.admin_may_give_way, ..port("admin", "--admin", address) });
    let metrics = config.metrics.map(|address| port("metrics", "--metrics", address));
    plugin.chain([gossip]).chain(admin).chain(metrics).collect()
}

/// Binds all at once, as a start would, and lets them go.
fn bind(ports: &[Port]) -> Vec<io::Result<()>> {
    let gossip = |port: &Port| transport::bind(port.address).map(|bound| Box::new(bound) as Box<dyn Send>);
    let tcp = |port: &Port| TcpListener::bind(port.address).map(|bound| Box::new(bound) as Box<dyn Send>);
    let bound: Vec<_> =
        ports.iter().map(|port| if port.check == "gossip" { gossip(port) } else { tcp(port) }).collect();
    bound.into_iter().map(|bound| bound.map(drop)).collect()
}

/// The agent that answers where this one's admin listener would be; or, if that tells nothing without a token, at its
/// control socket.
async fn running(config: &Config) -> Option<StatusReport> {
    let admin = Client::at(config.admin?).with_token_of(config.admin_token_file.as_deref()).ok()?;
    match admin.get("/status.json").await {
        Ok(reply) => Some(reply.report),
        Err(NoReport::Refused(..)) => {
            Some(Client::Control(config.control.clone()?).get("/status.json").await.ok()?.report)
        }
        Err(_) => None,
    }
}

async fn holder(port: &Port, all: &[Port], config: &Config, running: Option<&StatusReport>) -> PortHolder {
    let twin = all.iter().find(|other| *other != port && overlap(other.address, port.address));
    if let Some(twin) = twin {
        return PortHolder::Itself(twin.flag);
    }
    let is_agents = match port.check {
        "plugin" => answers_plugin_calls(port.address, config).await,
        "gossip" => running.is_some_and(|status| ends_with_port(&status.address, port.address.port())),
        _ => running.is_some(),
    };
    match (is_agents, running) {
        (false, Some(status)) if config.tls.is_some() && status.name == config.name.as_str() => {
            PortHolder::Perhaps
        }
        (false, _) => PortHolder::Unknown,
        (true, None) => PortHolder::SomeAgent,
        (true, Some(status)) if status.name == config.name.as_str() => PortHolder::Running,
        (true, Some(status)) => PortHolder::Agent(status.name.clone()),
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let either_is_any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || either_is_any)
}

fn ends_with_port(address: &str, port: u16) -> bool {
    address.rsplit_once(':').is_some_and(|(_, found)| found.parse() == Ok(port))
}

/// Whether a gossd's plugin is there. Not found out with TLS, which needs the certificate's name.
async fn answers_plugin_calls(address: SocketAddr, config: &Config) -> bool {
    let path = format!("{}?name=gossd-check", http::PATH);
    match Client::at(address).get::<Value>(&path).await {
        Ok(reply) => reply.report["services"].is_array(),
        Err(NoReport::Refused(_, why)) => config.token_file.is_some() && why.contains("token"),
        Err(_) => false,
    }
}

fn judge(port: &Port, bound: &io::Result<()>, holder: &PortHolder) -> Finding {
    let Port { check, flag, address, may_give_way } = port;
    let number = address.port();
    let error = match bound {
        Ok(()) => return Finding::ok(check, format!("{address} is free")),
        Err(error) => error,
    };
    let text = match (error.kind(), holder) {
        (ErrorKind::AddrInUse, PortHolder::Perhaps) => {
            let text = "taken, as it seems by this agent, which is running: with TLS that cannot be told";
            return Finding::warn(check, format!("{address} is {text}"));
        }
        (ErrorKind::AddrInUse, PortHolder::Running) => {
            return Finding::ok(check, format!("{address} is in the hands of this agent, which is running"));
        }
        (ErrorKind::AddrInUse, PortHolder::Itself(other)) => {
            format!("{address} is {other} as well: change one")
        }
        (ErrorKind::AddrInUse, PortHolder::Agent(name)) => {
            format!("{address} is taken by the agent {name}: set {flag} to another, or stop that")
        }
        (ErrorKind::AddrInUse, PortHolder::SomeAgent) => {
            format!("{address} is taken by a gossd: set {flag} to another, or stop that")
        }
        (ErrorKind::AddrInUse, PortHolder::Unknown) => format!(
            "{address} is taken: `ss -tulnp 'sport = :{number}'` as root tells by whom; stop that, or set {flag}"
        ),
        (ErrorKind::PermissionDenied, _) => {
            format!(
                "{address}: this user may not have a port as low as {number}; set {flag} to one from 1024 on"
            )
        }
        (ErrorKind::AddrNotAvailable, _) => {
            format!("{address}: this host has no such address; set {flag} to one that `ip address` lists")
        }
        _ => format!("{address}: {error}"),
    };
    if *may_give_way {
        return Finding::warn(check, format!("{text}. The agent would run without it"));
    }
    Finding::fail(check, text)
}

/// A Unix socket, which replaces one that nobody listens on.
fn socket(check: &'static str, path: &Path, runs: bool, bad: Severity) -> Finding {
    let place = path.display();
    let text = if UnixStream::connect(path).is_ok() {
        if runs {
            return Finding::ok(check, format!("{place} is in the hands of this agent, which is running"));
        }
        format!("a process listens on {place}: stop it, or choose another path")
    } else if path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket()) {
        format!("{place} is there and no socket: remove it, or choose another path")
    } else if let Err(error) = files::may_write(path.parent().unwrap_or(path)) {
        format!("cannot make {place} ({error}): let this user, or choose another path")
    } else {
        return Finding::ok(check, place);
    };
    Finding { check, verdict: bad, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Port = Port {
        check: "plugin",
        flag: "--plugin",
        address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80),
        may_give_way: false,
    };

    #[test]
    fn a_port_that_cannot_be_had_comes_with_the_reason_and_what_to_do() {
        use ErrorKind::{AddrInUse, AddrNotAvailable, InvalidInput, PermissionDenied};
        for (kind, holder, verdict, text) in [
            (AddrInUse, PortHolder::Running, Severity::Ok, "127.0.0.1:80 is in the hands of this agent"),
            (
                AddrInUse,
                PortHolder::Perhaps,
                Severity::Warn,
                "127.0.0.1:80 is taken, as it seems by this agent",
            ),
            (
                AddrInUse,
                PortHolder::Itself("--admin"),
                Severity::Fail,
                "127.0.0.1:80 is --admin as well: change one",
            ),
            (
                AddrInUse,
                PortHolder::Agent("b".into()),
                Severity::Fail,
                "127.0.0.1:80 is taken by the agent b: set --plugin",
            ),
            (AddrInUse, PortHolder::SomeAgent, Severity::Fail, "127.0.0.1:80 is taken by a gossd"),
            (
                AddrInUse,
                PortHolder::Unknown,
                Severity::Fail,
                "127.0.0.1:80 is taken: `ss -tulnp 'sport = :80'`",
            ),
            (PermissionDenied, PortHolder::Unknown, Severity::Fail, "127.0.0.1:80: this user may not"),
            (
                AddrNotAvailable,
                PortHolder::Unknown,
                Severity::Fail,
                "127.0.0.1:80: this host has no such address",
            ),
            (InvalidInput, PortHolder::Unknown, Severity::Fail, "127.0.0.1:80: invalid input"),
        ] {
            let found = judge(&PORT, &Err(kind.into()), &holder);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.text.starts_with(text), "{found:?}");
            let unasked = judge(&Port { may_give_way: true, ..PORT }, &Err(kind.into()), &holder);
            assert_ne!(unasked.verdict, Severity::Fail, "nobody asked for it");
        }
        assert_eq!(judge(&PORT, &Ok(()), &PortHolder::Unknown).text, "127.0.0.1:80 is free");
    }

    #[test]
    fn two_listeners_cannot_share_a_port() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (a, b, overlaps) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(overlap(address(a), address(b)), overlaps, "{a} {b}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_found_and_a_free_one_is_free_again() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = Config {
            plugin: vec![taken.local_addr().unwrap()],
            gossip: gone,
            ..Config::loopback("a".parse().unwrap())
        };
        let ports = ports(&config);
        let kinds =
            || bind(&ports).into_iter().map(|bound| bound.err().map(|e| e.kind())).collect::<Vec<_>>();
        assert_eq!(kinds(), [Some(ErrorKind::AddrInUse), None]);
        assert_eq!(kinds(), [Some(ErrorKind::AddrInUse), None], "it was let go");
    }

    #[test]
    fn a_socket_is_free_unless_somebody_listens_or_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/s.sock");
        let verdict = |path: &Path, runs| socket("plugin socket", path, runs, Severity::Fail).verdict;
        assert_eq!(verdict(&path, false), Severity::Ok);
        assert!(!folder.path().join("new").exists());
        let path = folder.path().join("s.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!((verdict(&path, false), verdict(&path, true)), (Severity::Fail, Severity::Ok));
        drop(listener);
        assert_eq!(verdict(&path, false), Severity::Ok, "a dead one is replaced");
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(verdict(&folder.path().join("file"), false), Severity::Fail);
        assert_eq!(verdict(&folder.path().join("file/s.sock"), false), Severity::Fail);
    }
}
