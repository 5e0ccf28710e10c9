//! Agents as processes: started on ports that the system chooses, ended by signal, started again as they were.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Connection, call, request};
use super::nobody;

/// Variables of a service manager, under which the test itself may run.
const SUPERVISION: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The program, without variables that the test's environment has for it.
pub(crate) fn gossd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gossd"));
    let not_ours = |name: &str| name.starts_with("GOSSD_") || SUPERVISION.contains(&name);
    for (variable, _) in std::env::vars().filter(|(name, _)| not_ours(name)) {
        command.env_remove(variable);
    }
    command
}

/// A new key file in a folder.
pub(crate) fn new_key(folder: &Path) -> String {
    let made = gossd().arg("keygen").output().expect("gossd runs").stdout;
    let path = folder.join("key");
    super::write_secret(&path, made);
    path.to_str().expect("text").to_owned()
}

/// A running `gossd run`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stderr: Stderr,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    pub plugin: SocketAddr,
    pub gossip: SocketAddr,
    pub admin: SocketAddr,
    /// With --metrics.
    pub metrics: Option<SocketAddr>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {:?} said:\n{}", self.flags, self.stderr.all());
        }
    }
}

impl Process {
    /// An agent on free ports without a journal. It may start again on them: nobody else gets them meanwhile.
    pub(crate) fn start(name: &str, flags: &[&str]) -> Self {
        Self::start_in(name, &[], flags)
    }

    /// The same with these variables.
    pub(crate) fn start_in(name: &str, variables: &[(&str, &str)], flags: &[&str]) -> Self {
        let [plugin, gossip, admin] = std::array::from_fn(|_| nobody().to_string());
        let defaults = [
            ("--plugin", &*plugin),
            ("--gossip", &gossip),
            ("--admin", &admin),
            ("--data-dir", "none"),
            ("--log-level", "gossd=debug"),
        ];
        let mut all = vec!["--name", name];
        all.extend(
            defaults
                .iter()
                .filter(|(flag, _)| !flags.contains(flag))
                .flat_map(|(flag, value)| [*flag, *value]),
        );
        all.extend(flags);
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::run(all.into_iter().map(str::to_owned).collect(), variables.collect())
    }

    /// An agent whose journal and control socket are in a folder.
    pub(crate) fn keeping(name: &str, folder: &Path, flags: &[&str]) -> Self {
        let socket = folder.join(format!("{name}.sock"));
        let (folder, socket) = (folder.to_str().expect("text"), socket.to_str().expect("text"));
        let kept = ["--data-dir", folder, "--control", socket];
        Self::start(name, &[&kept[..], flags].concat())
    }

    fn run(flags: Vec<String>, variables: Vec<(String, String)>) -> Self {
        let mut child = gossd()
            .arg("run")
            .args(&flags)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gossd starts");
        let mut stderr = Stderr::of(child.stderr.take().expect("piped"));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = |label: &str| {
            let line = lines.next().and_then(Result::ok)?;
            // With --log-format json, an object a line.
            let line = match serde_json::from_str::<serde_json::Value>(&line) {
                Ok(object) => {
                    let told = |what: &&String| !matches!(&***what, "timestamp" | "level");
                    let (what, place) = object.as_object()?.iter().find(|(what, _)| told(what))?;
                    format!("{what} {}", place.as_str()?)
                }
                Err(_) => line,
            };
            line.strip_prefix(label).map(str::to_owned)
        };
        let said = [line("plugin "), line("gossip "), line("admin http://")];
        let [Some(plugin), Some(gossip), Some(admin)] = said else {
            panic!("no agent: {}", stderr.all());
        };
        let has_metrics = flags.iter().any(|flag| flag == "--metrics");
        let metrics = has_metrics.then(|| line("metrics http://").expect("it says where"));
        let metrics = metrics.map(|at| at.trim_end_matches("/metrics").parse().expect("an address"));
        let plugin = plugin.trim_start_matches("http://").trim_start_matches("https://");
        let plugin = plugin.trim_end_matches("/sd").parse().expect("an address");
        let [gossip, admin] = [gossip, admin].map(|addr| addr.parse().expect("an address"));
        Self { child, stderr, flags, variables, plugin, gossip, admin, metrics }
    }

    /// Kills it with SIGKILL, and starts it again on the same ports.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Starts it again on the same ports.
    pub(crate) fn restart(&mut self) {
        *self = Self::run(self.again(&[]), self.variables.clone());
    }

    /// A process with the same flags, except for some, that takes over from this one, and has taken over when this
    /// returns.
    pub(crate) fn successor(&self, other: &[(&str, &str)]) -> Self {
        Self::run(self.taking_over(other), self.variables.clone())
    }

    /// A successor that fails to start. Returns its exit code and output.
    pub(crate) fn failing_successor(&self, other: &[(&str, &str)]) -> (Option<i32>, String) {
        let output = gossd().arg("run").args(self.taking_over(other)).output().expect("gossd starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn taking_over(&self, other: &[(&str, &str)]) -> Vec<String> {
        let mut flags = self.again(other);
        flags.push("--take-over".into());
        flags
    }

    /// Its flags, with the ports that it has, and some replaced.
    fn again(&self, other: &[(&str, &str)]) -> Vec<String> {
        let mut flags = self.flags.clone();
        flags.retain(|flag| flag != "--take-over");
        let [plugin, gossip, admin] =
            [self.plugin, self.gossip, self.admin].map(|address| address.to_string());
        let ports = [("--plugin", &*plugin), ("--gossip", &*gossip), ("--admin", &*admin)];
        for (flag, value) in ports.iter().chain(other) {
            match flags.iter().position(|given| given == flag) {
                Some(at) => (*value).clone_into(&mut flags[at + 1]),
                None => flags.extend([(*flag).to_owned(), (*value).to_owned()]),
            }
        }
        flags
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits until it has ended by itself. Returns its exit status and its log.
    pub(crate) fn ended(&mut self, deadline: Duration) -> (ExitStatus, String) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.stderr.all());
            }
            assert!(start.elapsed() < deadline, "it did not end within {deadline:?}");
            std::thread::yield_now();
        }
    }

    /// Its log so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.so_far()
    }

    /// Stops it, as what is killed may not have written its last lines. Returns its log.
    pub(crate) fn log(mut self) -> String {
        if self.child.try_wait().expect("a child").is_none() {
            self.signal("-TERM");
        }
        self.ended(Duration::from_secs(20)).1
    }

    /// Waits until its journal has everything.
    pub(crate) async fn is_kept(&self) {
        let start = Instant::now();
        let ask = request("GET", "/metrics", "");
        while !call(self.admin, &ask).await.body.contains("\ngossd_journal_pending 0.0\n") {
            assert!(start.elapsed() < Duration::from_secs(20), "the journal is not written");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The addresses that it answers for a tunnel name, in order.
    pub(crate) async fn get(&self, name: &str) -> Vec<String> {
        get(&mut Connection::open(self.plugin).await, name).await
    }
}

/// The addresses that an agent answers for a tunnel name, over an existing connection.
pub(crate) async fn get(connection: &mut Connection, name: &str) -> Vec<String> {
    let answer = connection.call(&request("GET", &format!("/sd?name={name}"), "")).await.json();
    let services = answer["services"].as_array().expect("a list");
    services.iter().map(|s| s["address"].as_str().expect("text").to_owned()).collect()
}

/// Standard error, read as it comes.
struct Stderr {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Stderr {
    fn of(pipe: ChildStderr) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let told = text.clone();
        let read = move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                *told.lock().expect("no panic holds it") += &(line + "\n");
            }
        };
        Self { text, reader: Some(std::thread::spawn(read)) }
    }

    fn so_far(&self) -> String {
        self.text.lock().expect("no panic holds it").clone()
    }

    /// The whole text, once the process has ended.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it only reads");
        }
        self.so_far()
    }
}
