//! Gosts and their clients as processes, simulated or real, with the same settings. Killed when dropped.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::agent::Kind;

/// The token of the story's agents.
pub(crate) const TOKEN: &str = "only-for-tests";

#[derive(Clone, Debug)]
pub(crate) enum Program {
    Simulated,
    Real(PathBuf),
}

/// The settings of a gost.
pub(crate) struct Gost<'a> {
    pub(crate) kind: Kind,
    pub(crate) agent: SocketAddr,
    /// The query in the address of its sd plugin.
    pub(crate) query: &'a str,
    pub(crate) token: bool,
    pub(crate) entrypoint: &'a str,
    pub(crate) tunnel: &'a str,
}

pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Program {
    fn simulated() -> Command {
        Command::new(env!("CARGO_BIN_EXE_fakegost"))
    }

    fn real(path: &Path, folder: &Path) -> Command {
        let mut command = Command::new(path);
        // gost writes a certificate there.
        command.env("HOME", folder);
        command
    }

    pub(crate) fn gost(&self, name: &str, folder: &Path, gost: &Gost<'_>) -> Running {
        let Gost { kind, agent, query, token, entrypoint, tunnel } = gost;
        let mut command;
        match self {
            Self::Simulated => {
                command = Self::simulated();
                let agent = format!("{agent}{query}");
                command.args(["gost", "--plugin", &kind.to_string(), "--agent", &agent, "--ttl", "1"]);
                command.args(["--entrypoint", entrypoint, "--tunnel", tunnel]);
                if *token {
                    command.args(["--token", TOKEN]);
                }
            }
            Self::Real(path) => {
                command = Self::real(path, folder);
                let file = folder.join(format!("{name}.yml"));
                let addr = |path: &str| match kind {
                    Kind::Http => format!("http://{agent}/{path}"),
                    Kind::Grpc => agent.to_string(),
                };
                let mut text = format!(
                    "services:\n- name: tunnel\n  addr: {tunnel}\n  handler:\n    type: tunnel\n    metadata:\n      \
                     entrypoint: {entrypoint}\n      ingress: ingress-0\n      sd: sd-0\n      tunnel.ttl: 1s\n  \
                     listener:\n    type: tcp\n"
                );
                for (list, name, path) in
                    [("ingresses", "ingress-0", "ingress".to_owned()), ("sds", "sd-0", format!("sd{query}"))]
                {
                    let token = if *token { format!("    token: {TOKEN}\n") } else { String::new() };
                    let addr = addr(&path);
                    write!(
                        text,
                        "{list}:\n- name: {name}\n  plugin:\n    type: {kind}\n    addr: {addr}\n{token}"
                    )
                    .expect("a text takes everything");
                }
                std::fs::write(&file, text).expect("a file");
                command.arg("-C").arg(file);
            }
        }
        Running::start(command)
    }

    /// Starts a client that wants a host name, with a target that answers `hello`.
    pub(crate) fn client(&self, folder: &Path, at: &str, tunnel: &str, host: &str) -> Vec<Running> {
        match self {
            Self::Simulated => {
                let mut command = Self::simulated();
                command
                    .args(["client", "--server", at, "--tunnel", tunnel, "--host", host, "--say", "hello"]);
                vec![Running::start(command)]
            }
            Self::Real(path) => {
                let target = free_address();
                let mut serve = Self::simulated();
                serve.args(["target", "--listen", &target, "--say", "hello"]);
                let mut command = Self::real(path, folder);
                command.args(["-L", &format!("rtcp://{host}:0/{target}")]);
                command.args(["-F", &format!("tunnel+tcp://{at}?tunnel.id={tunnel}")]);
                vec![Running::start(serve), Running::start(command)]
            }
        }
    }
}

/// An address of this host where nobody listens, and nobody else will: a port that the system gave and took back can be
/// another story's by now. The system gives none of these.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let at = format!("127.0.0.1:{}", NEXT.fetch_add(1, Ordering::Relaxed));
        if std::net::TcpListener::bind(&at).is_ok() {
            return at;
        }
    }
}
