//! The files for containers fit together: the Dockerfile, `examples/compose`, and the commands in the manual.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::process::gossd;
use serde::Deserialize;
use serde_norway::Value;

const DOCKERFILE: &str = include_str!("../Dockerfile");
const MANUAL: &str = include_str!("../docs/containers.md");
/// The configuration of every gost here, wherever it is mounted from.
const GOST_FILE: &str = "/gost.yml";

// The part of Compose's format that is used here. Compose would refuse or ignore a key with another spelling.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    #[serde(rename = "x-gossd")]
    _gossd: Value,
    #[serde(rename = "x-host")]
    _host: Value,
    #[serde(rename = "x-environment")]
    _environment: Value,
    #[serde(rename = "x-gost")]
    _gost: Value,
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Option<VolumeSettings>>,
    secrets: BTreeMap<String, Secret>,
}

/// None is needed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeSettings {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    build: Option<PathBuf>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    cap_drop: Vec<String>,
    #[serde(default)]
    security_opt: Vec<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    restart: Option<String>,
    healthcheck: Option<Healthcheck>,
    network_mode: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    depends_on: Option<DependsOn>,
    #[serde(default)]
    profiles: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Healthcheck {
    disable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    file: PathBuf,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DependsOn {
    Started(Vec<String>),
    When(BTreeMap<String, Condition>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    condition: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose")
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn compose() -> Compose {
    let mut tree: Value = serde_norway::from_str(&read("compose.yaml")).expect("YAML");
    tree.apply_merge().expect("merges of what is there");
    serde_norway::from_value(tree).expect("what Compose knows")
}

impl Service {
    /// The source of a path in the container.
    fn mounted(&self, at: &str) -> Option<&str> {
        self.volumes.iter().find_map(|volume| match volume.split(':').collect::<Vec<_>>()[..] {
            [source, target] | [source, target, "ro"] if target == at => Some(source),
            _ => None,
        })
    }

    /// The published ports on this machine, and their ports in the container.
    fn ports(&self) -> Vec<(u16, u16)> {
        let parse = |port: &String| {
            let port = port.strip_prefix("127.0.0.1:").expect("nobody else's business");
            let (outer, inner) = port.split_once(':').expect("two");
            (outer.parse().expect("a port"), inner.parse().expect("a port"))
        };
        self.ports.iter().map(parse).collect()
    }
}

/// The output of `gossd gost-config` with the service's variables; fails if a variable is invalid.
fn gost_config(service: &Service) -> String {
    let output = gossd().arg("gost-config").envs(&service.environment).output().expect("gossd runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Every variable that a verb of gossd knows.
fn variables(verb: &str) -> BTreeSet<String> {
    let help = gossd().args([verb, "--help"]).output().expect("gossd runs");
    assert!(help.status.success(), "gossd {verb}");
    let help = String::from_utf8(help.stdout).expect("text");
    let named = help.split("[env:").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    named.map(|name| name.trim().to_owned()).collect()
}

fn port(addr: &str) -> u16 {
    addr.rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {addr}"))
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    let found = path.iter().try_fold(value, |value, key| match key.parse::<usize>() {
        Ok(n) => value.get(n),
        Err(_) => value.get(*key),
    });
    found.and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {path:?} in {value:?}"))
}

#[test]
fn each_host_is_a_network_with_a_gossd_and_a_gost_in_it() {
    let compose = compose();
    let known = variables("run");
    assert!(known.len() >= 9);
    let server: Value = serde_norway::from_str(&read("server.yml")).expect("YAML");
    let entrypoint = port(text(&server, &["services", "0", "handler", "metadata", "entrypoint"]));

    let mut outer = BTreeSet::new();
    for host in ["a", "b", "c"] {
        let agent = &compose.services[&format!("gossd-{host}")];
        for variable in agent.environment.keys() {
            assert!(known.contains(variable), "{variable} is not of gossd run");
        }
        assert!(
            read("server.yml").ends_with(&format!("\n{}", gost_config(agent))),
            "server.yml is as printed"
        );
        let said = |variable: &str| &*agent.environment[variable];
        let address = format!("host-{host}");
        assert_eq!((said("GOSSD_NAME"), said("GOSSD_ADVERTISE_HOST")), (host, &*address));
        assert_eq!((said("GOSSD_HOLD"), agent.restart.as_deref()), ("true", Some("unless-stopped")));
        assert_eq!(said("GOSSD_JOIN"), "host-a:8002,host-b:8002,host-c:8002");
        let [key, token] = &agent.secrets[..] else { panic!("two secrets") };
        assert_eq!(said("GOSSD_KEY_FILE"), format!("/run/secrets/{key}"));
        assert_eq!(said("GOSSD_ADMIN_TOKEN_FILE"), format!("/run/secrets/{token}"));
        assert!(compose.secrets.contains_key(key) && compose.secrets.contains_key(token));
        assert_eq!(agent.build.as_deref(), Some(Path::new("../..")));
        assert!(
            agent.read_only && agent.cap_drop == ["ALL"] && agent.security_opt == ["no-new-privileges:true"]
        );
        let holder = &compose.services[&address];
        assert_eq!((&*holder.image, &holder.command[..]), (&*agent.image, &["hold".to_owned()][..]));
        assert_eq!(holder.environment, BTreeMap::from([("GOSSD_NAME".to_owned(), host.to_owned())]));
        assert!(holder.network_mode.is_none() && holder.restart == agent.restart);
        assert!(
            holder.healthcheck.as_ref().is_some_and(|check| check.disable),
            "nothing there answers the image's"
        );
        assert!(
            holder.read_only
                && holder.cap_drop == agent.cap_drop
                && holder.security_opt == agent.security_opt
        );
        assert!(agent.command.is_empty() && agent.ports.is_empty());
        assert_eq!(agent.network_mode, Some(format!("service:{address}")));
        let Some(DependsOn::Started(first)) = &agent.depends_on else { panic!("its network comes first") };
        assert_eq!(first[..], [&*address]);
        let journal = agent.mounted("/data").expect("a journal that outlives the container");
        assert!(compose.volumes.contains_key(journal) && journal.ends_with(host));
        let [visitors, page] = holder.ports()[..] else { panic!("two ports") };
        assert_eq!((visitors.1, page.1), (entrypoint, port(said("GOSSD_ADMIN"))));
        assert!(outer.insert(visitors.0) && outer.insert(page.0), "another host's");

        let gost = &compose.services[&format!("gost-{host}")];
        assert_eq!(gost.network_mode, agent.network_mode, "not its agent's, which may be replaced");
        assert_eq!(gost.mounted(GOST_FILE), Some("./server.yml"));
        assert!(gost.ports.is_empty(), "they are the network's");
        let Some(DependsOn::When(first)) = &gost.depends_on else { panic!("its agent comes first") };
        assert_eq!(first[&format!("gossd-{host}")].condition, "service_healthy");
    }
    assert_eq!((compose.services.len(), compose.volumes.len(), compose.secrets.len()), (12, 3, 2));
}

#[test]
fn the_client_knows_every_host_and_shows_its_web_service() {
    let compose = compose();
    let client = &compose.services["client"];
    assert!(client.network_mode.is_none() && client.ports.is_empty() && client.environment.is_empty());
    let Some(DependsOn::Started(first)) = &client.depends_on else { panic!("the servers come first") };
    assert_eq!(first[..], ["gost-a", "gost-b", "gost-c"]);

    let gost: Value = serde_norway::from_str(&read("client.yml")).expect("YAML");
    let server: Value = serde_norway::from_str(&read("server.yml")).expect("YAML");
    let tunnel = port(text(&server, &["services", "0", "addr"]));
    let nodes = gost["chains"][0]["hops"][0]["nodes"].as_sequence().expect("a list");
    let addrs: Vec<_> = nodes.iter().map(|node| text(node, &["addr"]).to_owned()).collect();
    assert_eq!(addrs, ["a", "b", "c"].map(|host| format!("host-{host}:{tunnel}")));
    for node in nodes {
        assert_eq!(
            (text(node, &["connector", "type"]), text(node, &["name"])),
            ("tunnel", text(node, &["addr"]).split_once(':').expect("a port").0)
        );
        assert_eq!(text(node, &["dialer", "type"]), text(&server, &["services", "0", "listener", "type"]));
        let id = text(node, &["connector", "metadata", "tunnel.id"]);
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    }
    assert_eq!(text(&gost, &["chains", "0", "name"]), text(&gost, &["services", "1", "listener", "chain"]));
    let target = text(&gost, &["services", "1", "forwarder", "nodes", "0", "addr"]);
    assert_eq!(target, text(&gost, &["services", "0", "addr"]));
    let shown = text(&gost, &["services", "0", "handler", "metadata", "dir"]);
    let source = client.mounted(shown).expect("it is mounted");
    assert!(!read(&format!("{source}/index.html")).is_empty());
}

#[test]
fn every_file_that_is_mounted_is_there() {
    let compose = compose();
    let mut found = 0;
    for (name, service) in &compose.services {
        for volume in service.volumes.iter().filter(|volume| volume.starts_with('.')) {
            let source = volume.split(':').next().expect("a path");
            assert!(folder().join(source).exists(), "{name}: {source}");
            assert!(volume.ends_with(":ro"), "{name}: {volume}");
            found += 1;
        }
        if service.image != "gossd" && service.profiles.is_empty() {
            assert!(service.image.starts_with("gogost/gost:3."), "a version that does not change");
            assert_eq!(service.command, ["-C", GOST_FILE]);
            assert!(service.mounted(GOST_FILE).is_some());
        }
    }
    assert_eq!(found, 9);
    // Except the secrets: the reader of the manual makes them, and they must not be committed.
    for (secret, maker) in [("key", "docker run --rm gossd keygen"), ("token", "openssl rand -hex 32")] {
        let file = folder().join(&compose.secrets[secret].file);
        let made = format!(
            "{maker} | sudo install -g 65532 -m 640 /dev/stdin {}\n",
            file.file_name().expect("a name").display()
        );
        assert!(walk().contains(&made), "{made}");
        let ignored = format!("/examples/compose/{secret}");
        assert!(include_str!("../.gitignore").lines().any(|line| line == ignored));
    }
}

#[test]
fn prometheus_scrapes_every_agent_and_grafana_asks_prometheus() {
    let compose = compose();
    let agents = compose.services.iter().filter(|(name, _)| name.starts_with("gossd-"));
    let scraped: BTreeSet<String> = agents
        .map(|(_, agent)| {
            let network = agent.network_mode.as_deref().and_then(|mode| mode.strip_prefix("service:"));
            format!("{}:{}", network.expect("a network"), port(&agent.environment["GOSSD_METRICS"]))
        })
        .collect();
    let scrape: Value = serde_norway::from_str(&read("prometheus.yml")).expect("YAML");
    let targets = &scrape["scrape_configs"][0]["static_configs"][0]["targets"];
    let targets: BTreeSet<String> = serde_norway::from_value(targets.clone()).expect("a list");
    assert_eq!((targets.len(), &targets), (3, &scraped));
    // The alerts and the dashboard speak of this job.
    assert_eq!(text(&scrape, &["scrape_configs", "0", "job_name"]), "gossd");
    let rules = text(&scrape, &["rule_files", "0"]);
    let prometheus = &compose.services["prometheus"];
    assert!(prometheus.mounted(&format!("/etc/prometheus/{rules}")).is_some());
    let source: Value = serde_norway::from_str(&read("grafana.yml")).expect("YAML");
    assert_eq!(text(&source, &["datasources", "0", "url"]), "http://prometheus:9090");
    let grafana = &compose.services["grafana"];
    let dashboard = &grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(grafana.mounted(dashboard), Some("../grafana/gossd.json"));
    for service in [prometheus, grafana] {
        assert_eq!(service.profiles, ["monitoring"], "not for whoever only tries tunnels");
        assert!(service.image.contains(':') && !service.image.ends_with(":latest"));
    }
}

/// The commands in the manual.
fn walk() -> &'static str {
    let walk = MANUAL.split_once("<!-- compose -->\n```sh\n").expect("the walk is there").1;
    walk.split_once("```").expect("its end").0
}

#[test]
fn the_manual_names_hosts_and_services_that_are_there() {
    let compose = compose();
    let gost: Value = serde_norway::from_str(&read("client.yml")).expect("YAML");
    let host = text(&gost, &["services", "1", "addr"]).strip_suffix(":0").expect("a host name").to_owned();
    let ports = ["a", "b", "c"].map(|host| compose.services[&format!("host-{host}")].ports()[0].0);
    let mut visited: Vec<u16> = Vec::new();
    for line in walk().lines() {
        if let Some(url) = line.strip_prefix(&format!("curl -H 'Host: {host}' http://127.0.0.1:")) {
            visited.push(url.strip_suffix('/').and_then(|port| port.parse().ok()).expect("a port"));
        } else if let Some(command) = line.strip_prefix("docker compose ") {
            if let [verb @ ("kill" | "start"), service] = command.split(' ').collect::<Vec<_>>()[..] {
                assert!(compose.services.contains_key(service), "{verb} {service}");
            }
        } else {
            assert!(!line.contains("curl"), "{line}");
        }
    }
    assert_eq!(visited, [ports[0], ports[1], ports[2], ports[1], ports[2], ports[0]]);
    assert!(walk().starts_with("cd examples/compose\n"));
}

#[test]
fn the_image_says_only_what_gossd_knows() {
    let stage = &DOCKERFILE[DOCKERFILE.find("\nFROM scratch\n").expect("the last stage")..];
    let line = |start: &str| {
        let mut lines = stage.lines().filter_map(|line| line.strip_prefix(start)).map(str::trim);
        let line = lines.next().unwrap_or_else(|| panic!("no {start}"));
        assert!(lines.next().is_none(), "one {start}");
        line
    };
    let variables = variables("run");
    for setting in line("ENV ").split(' ') {
        let (variable, path) = setting.split_once('=').expect("a value");
        if variable == "MALLOC_ARENA_MAX" {
            // As in the systemd unit: fewer arenas of the allocator.
            let unit = include_str!("../examples/systemd/gossd.service");
            assert!(unit.contains(&format!("\nEnvironment={setting}\n")));
            continue;
        }
        assert!(variables.contains(variable), "{variable}");
        assert!(path == "/data" || path.starts_with("/data/"), "{path} can be written");
    }
    assert_eq!(line("VOLUME "), "/data");
    assert_eq!(line("USER "), "65532:65532");
    assert_eq!(line("ENTRYPOINT "), "[\"/gossd\"]");
    assert_eq!(line("CMD "), "[\"run\"]");
    assert!(line("HEALTHCHECK ").ends_with("CMD [\"/gossd\", \"healthcheck\"]"));
    assert!(self::variables("healthcheck").contains("GOSSD_CONTROL"), "it asks where the image says");
    // scripts/docker-test.sh makes this stage from programs that were built outside.
    let copies = stage.lines().filter(|line| line.starts_with("COPY ")).count();
    assert_eq!(stage.matches("COPY --from=build ").count(), copies);
    assert_eq!(stage.matches("FROM ").count(), 1);
}

/// The Compose tools of this machine, of which there may be none.
#[test]
fn the_image_can_be_built_of_what_its_context_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).unwrap();
    let context: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(context.contains(&"Cargo.lock"), "{context:?}");
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").args(context).arg(folder.path()).current_dir(root).status();
    assert!(copied.unwrap().success());
    // Crates of other platforms may not be here.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let read = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &platform])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn compose_takes_it() {
    let tools: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    for tool in tools {
        let command = |args: &[&str]| {
            let mut command = Command::new(tool[0]);
            command.args(&tool[1..]).args(args).current_dir(folder()).stdin(Stdio::null());
            command.output().ok()
        };
        if !command(&["version"]).is_some_and(|output| output.status.success()) {
            println!("{tool:?} is not installed");
            continue;
        }
        let output = command(&["-f", "compose.yaml", "config", "--quiet"]).expect("it runs");
        assert!(output.status.success(), "{tool:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
