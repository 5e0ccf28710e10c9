//! Hosts as network namespaces on one switch, for what only another address, or none, can show. Needs root and `ip`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::process::gossd;

/// Namespaces are the machine's: each test has its own.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A switch, and hosts that are connected to it. Removed when dropped.
pub(crate) struct Network {
    prefix: String,
    names: Vec<String>,
    folder: TempDir,
}

/// A host.
#[derive(Clone)]
pub(crate) struct NetHost {
    namespace: String,
    name: String,
    folder: PathBuf,
}

/// An agent on a host; killed when dropped.
pub(crate) struct NetAgent {
    host: NetHost,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Network {
    /// Nothing, and the reason printed, where this machine does not let us.
    pub(crate) fn new() -> Option<Self> {
        let prefix = format!("gs{:x}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().expect("a folder");
        let mut network = Self { prefix, names: Vec::new(), folder };
        let switch = network.namespace("switch");
        if !run("ip", &["netns", "add", &switch]).is_some_and(|made| made.status.success()) {
            println!(
                "SKIPPED: this needs root and `ip netns`; nothing has shown what happens when addresses change"
            );
            return None;
        }
        network.names.push("switch".into());
        must("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        must("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        super::write_secret(
            &network.folder.path().join("key"),
            gossd().arg("keygen").output().expect("runs").stdout,
        );
        Some(network)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A host with these addresses, its cable plugged in.
    pub(crate) fn host(&mut self, name: &str, addresses: &[&str]) -> NetHost {
        let (namespace, switch) = (self.namespace(name), self.namespace("switch"));
        must("ip", &["netns", "add", &namespace]);
        self.names.push(name.into());
        let host = NetHost { namespace, name: name.into(), folder: self.folder.path().to_owned() };
        host.ip(&["link", "set", "lo", "up"]);
        host.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", &switch]);
        must("ip", &["-n", &switch, "link", "set", "dev", name, "master", "br0", "up"]);
        host.ip(&["link", "set", "eth0", "up"]);
        for address in addresses {
            host.add(address);
        }
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let namespace = self.namespace(name);
            run("ip", &["netns", "del", &namespace]);
            // Where `ip netns exec` finds files that a namespace has of its own.
            let _ = fs::remove_dir_all(Path::new("/etc/netns").join(&namespace));
        }
    }
}

impl NetHost {
    /// `ip` on that host.
    pub(crate) fn ip(&self, args: &[&str]) {
        must("ip", &[&["-n", &*self.namespace], args].concat());
    }

    /// What its `/etc/hosts` says, from now on. The first time, before anything runs there.
    pub(crate) fn names(&self, text: &str) {
        let folder = Path::new("/etc/netns").join(&self.namespace);
        fs::create_dir_all(&folder).expect("we are root");
        fs::write(folder.join("hosts"), text).expect("we are root");
    }

    pub(crate) fn add(&self, address: &str) {
        // Nobody else has it: there is nothing to wait for.
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.ip(&[&["address", "add", address, "dev", "eth0"], nodad].concat());
    }

    pub(crate) fn remove(&self, address: &str) {
        self.ip(&["address", "del", address, "dev", "eth0"]);
    }

    /// A program there, not started yet.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Runs a program there. Its standard output, whatever it came to.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).stdin(Stdio::null()).output().expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `gossd` there, with the cluster's key.
    pub(crate) fn check(&self, flags: &[&str]) -> String {
        self.examine(flags, true)
    }

    /// The same, perhaps without the key.
    pub(crate) fn examine(&self, flags: &[&str], with_key: bool) -> String {
        let key = self.folder.join("key");
        let mut args = vec!["check", "--data-dir", "none"];
        if with_key {
            args.extend(["--key-file", key.to_str().expect("text")]);
        }
        args.extend(flags);
        self.output(env!("CARGO_BIN_EXE_gossd"), &args)
    }

    /// Starts an agent with the host's name and the default addresses.
    pub(crate) fn agent(&self, flags: &[&str]) -> NetAgent {
        let socket = self.folder.join(format!("{}.sock", self.name));
        let mut child = self
            .command(env!("CARGO_BIN_EXE_gossd"))
            .args([
                "run",
                "--name",
                &self.name,
                "--data-dir",
                "none",
                "--log-level",
                "gossd=debug",
                "--key-file",
            ])
            .arg(self.folder.join("key"))
            .arg("--control")
            .arg(socket)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let log = follow(child.stderr.take().expect("piped"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it prints");
        assert!(line.starts_with("plugin "), "no agent: {}", log.lock().expect("text"));
        NetAgent { host: self.clone(), child, log }
    }

    /// Calls the plugin of the agent there, on a connection that closes at once.
    pub(crate) fn register(&self, id: &str, tunnel: &str, entrypoint: &str) {
        let body = format!(
            r#"{{"id":"{id}","name":"{tunnel}","node":"node at {entrypoint}","network":"tcp","address":"{entrypoint}"}}"#
        );
        let code = self.output(
            "curl",
            &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", &body, "http://127.0.0.1:8000/sd"],
        );
        assert_eq!(code, "200", "{id}");
    }

    /// The addresses that its gost would get, in order.
    pub(crate) fn get(&self, tunnel: &str) -> Vec<String> {
        let text =
            self.output("curl", &["-s", "-m", "5", &format!("http://127.0.0.1:8000/sd?name={tunnel}")]);
        let Ok(answer) = serde_json::from_str::<Value>(&text) else { return Vec::new() };
        let services = answer["services"].as_array().cloned().unwrap_or_default();
        services.iter().map(|service| service["address"].as_str().expect("text").to_owned()).collect()
    }

    pub(crate) fn status(&self) -> Value {
        let text = self.output("curl", &["-s", "-m", "5", "http://127.0.0.1:8001/status.json"]);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Where a live peer is, as that host's agent has it.
    pub(crate) fn place_of(&self, agent: &str) -> Option<String> {
        let status = self.status();
        let member = status["members"].as_array()?.iter().find(|member| member["name"] == agent)?;
        (member["state"] == "alive").then(|| member["address"].as_str().map(str::to_owned))?
    }
}

impl NetAgent {
    /// Its log so far.
    pub(crate) fn said(&self) -> String {
        self.log.lock().expect("text").clone()
    }

    /// How many lines of the log have this.
    pub(crate) fn times(&self, what: &str) -> usize {
        self.said().lines().filter(|line| line.contains(what)).count()
    }
}

impl Drop for NetAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.host.name, self.said());
        }
    }
}

fn follow(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::<Mutex<String>>::default();
    let told = text.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            *told.lock().expect("text") += &(line + "\n");
        }
    });
    text
}

fn run(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).stdin(Stdio::null()).output().ok()
}

fn must(program: &str, args: &[&str]) {
    let output = run(program, args).expect("it is installed");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
