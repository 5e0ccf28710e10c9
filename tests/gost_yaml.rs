//! Every YAML for gost: the output of `gossd gost-config`, the blocks in the README and the manual, and
//! `examples/gost`. Each has only keys that gost knows, and each of its plugins is called as gost would call it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::process::{Process, gossd};
use crate::services::ingress_client::IngressClient;
use crate::services::sd_client::SdClient;
use gossd::plugin::grpc::generated::{GetRuleRequest, GetServiceRequest};
use serde::Deserialize;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};

const README: &str = include_str!("../README.md");
const MANUAL: &str = include_str!("../docs/gost.md");
const TUTORIAL: &str = include_str!("../docs/gost-ha.md");
const FROM_FRP: &str = include_str!("../docs/from-frp.md");
/// The name in the certificate of every agent here.
const NAME: &str = "gost-1.example.org";
/// The token in the manual.
const TOKEN: &str = "0b7c1f0e5d7a4c9f8e21d3a6b5947c10";

// The part of gost's format that is used here. gost would ignore a key with another spelling.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gost {
    services: Vec<Service>,
    #[serde(default)]
    chains: Vec<Chain>,
    #[serde(default)]
    ingresses: Vec<IngressEntry>,
    #[serde(default)]
    sds: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    addr: String,
    handler: Handler,
    listener: Listener,
    forwarder: Option<Forwarder>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Handler {
    r#type: String,
    chain: Option<String>,
    #[serde(default)]
    metadata: HandlerMetadata,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandlerMetadata {
    entrypoint: String,
    ingress: String,
    sd: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listener {
    r#type: String,
    chain: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forwarder {
    nodes: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    name: String,
    addr: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    name: String,
    hops: Vec<Hop>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hop {
    name: String,
    selector: Option<Selector>,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Selector {
    strategy: String,
    max_fails: u32,
    fail_timeout: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    name: String,
    addr: SocketAddr,
    connector: Connector,
    dialer: Dialer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connector {
    r#type: String,
    metadata: ConnectorMetadata,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectorMetadata {
    #[serde(rename = "tunnel.id")]
    tunnel_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dialer {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    plugin: Plugin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IngressEntry {
    name: String,
    plugin: Option<Plugin>,
    reload: Option<String>,
    file: Option<FileLoader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLoader {
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    r#type: String,
    addr: String,
    token: Option<String>,
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Tls {
    secure: bool,
    server_name: Option<String>,
}

impl Gost {
    fn parse(text: &str) -> Self {
        serde_norway::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
    }

    /// The plugins of a server that uses both.
    fn plugins(&self) -> [(Asked, &Plugin); 2] {
        let (entry, sd) = self.entries();
        assert!(entry.file.is_none() && entry.reload.is_none());
        [(Asked::Ingress, entry.plugin.as_ref().expect("a plugin")), (Asked::Sd, sd)]
    }

    /// How a server finds the tunnel of a host name, and how it finds the tunnel.
    fn entries(&self) -> (&IngressEntry, &Plugin) {
        let [service] = &self.services[..] else { panic!("one tunnel service") };
        assert_eq!((&*service.handler.r#type, &*service.listener.r#type), ("tunnel", "tcp"));
        assert_ne!(service.handler.metadata.entrypoint, service.addr);
        let ([ingress], [sd]) = (&self.ingresses[..], &self.sds[..]) else { panic!("one of each") };
        let Handler { metadata, .. } = &service.handler;
        assert_eq!((&ingress.name, &sd.name), (&metadata.ingress, &metadata.sd), "those that are there");
        assert!(self.chains.is_empty() && service.forwarder.is_none());
        (ingress, &sd.plugin)
    }
}

// A gost's calls.

#[derive(Clone, Copy, Debug)]
enum Asked {
    Sd,
    Ingress,
}

/// The files for an agent's flags, in a folder of their own.
struct Files {
    folder: tempfile::TempDir,
    certificate: String,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let certificate = made.cert.pem();
        for (name, text) in [
            ("cert.pem", &*certificate),
            ("key.pem", &made.signing_key.serialize_pem()),
            ("tokens", &format!("# today's\n{TOKEN}\nyesterdays\n")),
        ] {
            crate::common::write_secret(&folder.path().join(name), text);
        }
        Self { folder, certificate }
    }

    /// A flag and the path of its file.
    fn flag(&self, flag: &str, name: &str) -> [String; 2] {
        [flag.to_owned(), self.folder.path().join(name).to_str().expect("text").to_owned()]
    }
}

/// Calls as the plugin section configures; panics if that fails, or if its token is not needed.
async fn ask(asked: Asked, plugin: &Plugin, files: &Files) {
    for token in [plugin.token.as_deref(), None] {
        let is_taken = match &*plugin.r#type {
            "http" => is_taken_over_http(asked, plugin, token, files).await,
            "grpc" => is_taken_over_grpc(asked, plugin, token, files).await,
            other => panic!("gost has no plugin type {other}"),
        };
        assert_eq!(is_taken, token.is_some() || plugin.token.is_none(), "{asked:?} at {}", plugin.addr);
    }
}

async fn is_taken_over_http(asked: Asked, plugin: &Plugin, token: Option<&str>, files: &Files) -> bool {
    let root = reqwest::Certificate::from_pem(files.certificate.as_bytes()).expect("PEM");
    let mut client = crate::common::client().add_root_certificate(root);
    let mut url: reqwest::Url = plugin.addr.parse().expect("a URL");
    assert_eq!(url.scheme() == "https", plugin.tls.is_some());
    if let Some(Tls { secure, server_name }) = &plugin.tls {
        assert_eq!(*secure, server_name.is_some());
        client = client.danger_accept_invalid_certs(!secure);
        // gost calls an address and checks another name; this client can only call a name.
        if let Some(name) = server_name {
            let addr = url.socket_addrs(|| None).expect("an address")[0];
            client = client.resolve(name, addr);
            url.set_host(Some(name)).expect("a host");
        }
    }
    let query = match asked {
        Asked::Sd => [("name", "t")],
        Asked::Ingress => [("host", "h")],
    };
    url.query_pairs_mut().extend_pairs(query);
    let mut request = client.build().expect("a client").get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    match request.send().await.expect("an answer").status().as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

async fn is_taken_over_grpc(asked: Asked, plugin: &Plugin, token: Option<&str>, files: &Files) -> bool {
    let addr = match &plugin.tls {
        _ if plugin.addr.starts_with("unix:") => plugin.addr.clone(),
        None => format!("http://{}", plugin.addr),
        Some(_) => format!("https://{}", plugin.addr),
    };
    let mut endpoint = Endpoint::from_shared(addr).expect("an address");
    if let Some(Tls { secure, server_name }) = &plugin.tls {
        assert_eq!(*secure, server_name.is_some());
        // This client always checks, which is stricter than a gost that does not.
        let name = server_name.as_deref().unwrap_or(NAME);
        let trust = Certificate::from_pem(&files.certificate);
        let tls = ClientTlsConfig::new().ca_certificate(trust).domain_name(name);
        endpoint = endpoint.tls_config(tls).expect("a configuration");
    }
    let channel = endpoint.connect().await.expect("the agent listens there");
    let answer = match asked {
        Asked::Sd => {
            let call = with_token(GetServiceRequest { name: "t".into() }, token);
            SdClient::new(channel).get(call).await.map(drop)
        }
        Asked::Ingress => {
            let call = with_token(GetRuleRequest { host: "h".into(), ..GetRuleRequest::default() }, token);
            IngressClient::new(channel).get_rule(call).await.map(drop)
        }
    };
    match answer {
        Ok(()) => true,
        Err(status) if status.code() == Code::Unauthenticated => false,
        Err(status) => panic!("{status}"),
    }
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut call = Request::new(message);
    if let Some(token) = token {
        call.metadata_mut().insert("token", token.parse().expect("ASCII"));
    }
    call
}

// What is printed.

/// The output of `gossd gost-config`.
fn printed(flags: &[String], folder: &Path) -> String {
    let output = gossd().arg("gost-config").args(flags).current_dir(folder).output().expect("gossd runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{flags:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn gost_can_do_what_is_printed_for_it() {
    let files = Files::new();
    let token = files.flag("--token-file", "tokens");
    let [certificate, key] = [files.flag("--tls-cert", "cert.pem"), files.flag("--tls-key", "key.pem")];
    let tls = [certificate, key].concat();
    let mut asked = 0;
    for (n, flags) in [vec![], token.to_vec(), tls.clone(), [&tls[..], &token].concat()].iter().enumerate() {
        let flags = [&flags[..], &files.flag("--plugin-socket", &format!("{n}.sock"))].concat();
        let agent = Process::start("a", &flags.iter().map(String::as_str).collect::<Vec<_>>());
        for more in [
            "",
            "--type=http",
            "--via=unix",
            "--advertise-host=gost-1.example.org",
            "--type=http --server-name=gost-1.example.org --advertise-host=other.example.org",
        ] {
            let plugin = format!("--plugin={}", agent.plugin);
            let more = more.split_whitespace().map(str::to_owned).chain([plugin]);
            let text = printed(&flags.iter().cloned().chain(more).collect::<Vec<_>>(), files.folder.path());
            let gost = Gost::parse(&text);
            for (kind, plugin) in gost.plugins() {
                let is_socket = plugin.addr.starts_with("unix:");
                assert_eq!(plugin.tls.is_some(), n >= 2 && !is_socket, "{text}");
                assert_eq!(plugin.token.as_deref(), (n % 2 == 1).then_some(TOKEN), "{text}");
                ask(kind, plugin, &files).await;
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 40);
}

#[tokio::test]
async fn gost_can_read_the_file_that_is_printed_for_it() {
    const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    let files = Files::new();
    let file = files.folder.path().join("hosts");
    let rule = format!("www.example.org={TUNNEL}");
    let flags = ["--ingress-file", file.to_str().expect("text"), "--ingress-rule", &rule];
    let agent = Process::start("a", &flags);
    let plugin = format!("--plugin={}", agent.plugin);
    let flags: Vec<_> = flags.into_iter().chain(["--ingress=file", &*plugin]).map(str::to_owned).collect();
    let gost = Gost::parse(&printed(&flags, files.folder.path()));
    let (entry, sd) = gost.entries();
    ask(Asked::Sd, sd, &files).await;
    assert!(entry.plugin.is_none(), "gost would not read the file beside a plugin");
    assert_eq!(entry.reload.as_deref(), Some("1s"), "gost would read it only once");
    let path = &entry.file.as_ref().expect("a file").path;
    let holds = || fs::read_to_string(path).is_ok_and(|text| text == format!("www.example.org {TUNNEL}\n"));
    crate::common::eventually(Duration::from_secs(20), "the agent writes there", holds).await;
}

#[test]
fn a_key_that_gost_does_not_know_is_noticed() {
    let text =
        printed(&["--tls-cert=c".into(), "--tls-key=k".into(), "--server-name=n".into()], Path::new("/"));
    let file = printed(&["--ingress=file".into(), "--ingress-file=/hosts".into()], Path::new("/"));
    let all = [text, file];
    for text in &all {
        Gost::parse(text);
    }
    for key in
        ["entrypoint", "ingresses", "sds", "plugin", "addr", "secure", "serverName", "reload", "file", "path"]
    {
        let text = all.iter().find(|text| text.contains(&format!("{key}:"))).expect("it is printed");
        let (known, unknown) = (format!("{key}:"), format!("{key}s:"));
        assert!(text.contains(&known), "{key}");
        assert!(serde_norway::from_str::<Gost>(&text.replace(&known, &unknown)).is_err(), "{unknown}");
    }
}

#[test]
fn the_manual_shows_what_is_printed() {
    let files = Files::new();
    let pages = [MANUAL, TUTORIAL].map(|page| page.split("<!-- gossd gost-config").skip(1));
    let blocks: Vec<_> = pages.into_iter().flatten().collect();
    assert!(blocks.len() >= 5, "found {}", blocks.len());
    for block in blocks {
        let (flags, block) = block.split_once("-->\n```yaml\n").expect("a YAML block");
        let (shown, _) = block.split_once("```").expect("its end");
        let flags: Vec<_> = flags.split_whitespace().map(str::to_owned).collect();
        assert_eq!(shown, printed(&flags, files.folder.path()), "{flags:?}");
        Gost::parse(shown).plugins();
    }
}

#[test]
fn the_readme_shows_the_plugins_of_what_is_printed() {
    let shown = README.split_once("<!-- part of gossd gost-config -->\n```yaml\n").expect("a YAML block").1;
    let shown = shown.split_once("```").expect("its end").0;
    assert_eq!(shown.matches("plugin:").count(), 2);
    let printed = printed(&[], Path::new("/"));
    let lines = printed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let printed: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert!(printed.ends_with(shown), "{printed}");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let ended = |flags: &[&str]| gossd().arg("gost-config").args(flags).output().expect("gossd runs");
    for flags in
        [&["--via", "unix"][..], &["--ingress", "file"], &["--plugin", "127.0.0.1:0"], &["--type", "redis"]]
    {
        let output = ended(flags);
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{flags:?}");
    }
    let output = ended(&["--token-file", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1), "no fault of the command line");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent"));
}

#[test]
fn neither_keys_nor_folders_of_the_agent_are_looked_at() {
    let flags =
        "--key-file /nonexistent --data-dir /nonexistent --tls-cert /nonexistent --tls-key /nonexistent";
    let flags: Vec<_> = flags.split(' ').map(str::to_owned).collect();
    Gost::parse(&printed(&flags, Path::new("/"))).plugins();
}

// What is shipped.

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The command in a comment of an example, without `gossd`.
fn command<'a>(text: &'a str, verb: &str) -> Vec<&'a str> {
    let start = format!("#   gossd {verb} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect("the command is there");
    line.split(' ').collect()
}

#[tokio::test]
async fn the_example_servers_and_clients_fit_together() {
    let files = Files::new();
    let mut found: Vec<_> = fs::read_dir(examples().join("gost")).expect("a folder").collect();
    found.sort_by_key(|entry| entry.as_ref().expect("an entry").file_name());
    let mut agents: Vec<(String, Process)> = Vec::new();
    let (mut servers, mut clients, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for entry in found {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("text");
        let gost = Gost::parse(&text);
        let file = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        assert!(text.contains(&format!("#   gost -C {file}\n")), "{file} says how it is run");
        if file.starts_with("client") {
            clients.push((gost, text));
            continue;
        }
        let flags = command(&text, "gost-config");
        let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
        assert!(text.ends_with(&printed(&flags, files.folder.path())), "{file} is what {flags:?} prints");

        let run = command(&text, "run");
        let given = |flag: &str| run.iter().position(|f| *f == flag).map(|at| run[at + 1].to_owned());
        let (plugin, join) = (given("--plugin").expect("it is given"), given("--join"));
        let peer = agents.first().map(|(_, agent)| ["--join".to_owned(), agent.gossip.to_string()]);
        let peer: Vec<_> = peer.iter().flatten().map(String::as_str).collect();
        assert_eq!(run.len(), 6 + peer.len(), "{run:?} is these and nothing else");
        let agent = Process::start(&given("--name").expect("it is given"), &peer);
        for (asked, told) in gost.plugins() {
            assert!(told.addr.contains(&plugin), "{} is where the agent listens, {plugin}", told.addr);
            let addr = told.addr.replace(&plugin, &agent.plugin.to_string());
            let moved = Plugin { r#type: told.r#type.clone(), addr, token: None, tls: None };
            ask(asked, &moved, &files).await;
            types.push(told.r#type.clone());
        }
        assert_eq!(join.is_none(), agents.is_empty(), "the first has nobody to join at");
        if let Some(join) = join {
            assert_eq!(join, agents[0].0, "it joins where the first one gossips");
        }
        agents.push((given("--gossip").expect("it is given"), agent));
        servers.push(gost);
    }
    assert_eq!((servers.len(), clients.len()), (2, 2));
    assert_eq!(types, ["grpc", "grpc", "http", "http"]);

    let port = |addr: &str| addr.rsplit_once(':').expect("a port").1.to_owned();
    let tunnels: Vec<_> = servers.iter().map(|gost| port(&gost.services[0].addr)).collect();
    let entries = servers.iter().map(|gost| port(&gost.services[0].handler.metadata.entrypoint));
    let entries: Vec<_> = entries.collect();
    for (n, (gost, text)) in clients.iter().enumerate() {
        let ([service], [chain]) = (&gost.services[..], &gost.chains[..]) else { panic!("one of each") };
        assert_eq!((&*service.handler.r#type, &*service.listener.r#type), ("rtcp", "rtcp"));
        assert_eq!(service.listener.chain.as_ref(), Some(&chain.name));
        let node = &chain.hops[0].nodes[0];
        assert_eq!((&*node.connector.r#type, &*node.dialer.r#type), ("tunnel", "tcp"));
        assert_eq!(node.addr.port().to_string(), tunnels[n], "each has a server of its own");
        let target = &service.forwarder.as_ref().expect("a target").nodes[0];
        let target_port = port(&target.addr);
        assert!(text.contains(&format!("#   python3 -m http.server {target_port} --bind")));
        let host = service.addr.strip_suffix(":0").expect("a host name");
        let visit = format!("#   curl -H 'Host: {host}' http://127.0.0.1:{}/\n", entries[1 - n]);
        assert!(text.contains(&visit), "a visitor comes to the other server: {visit}");
        let names = [&service.name, &chain.hops[0].name, &node.name, &target.name];
        assert!(names.iter().all(|name| !name.is_empty()));
    }
    let [one, two] = [0, 1].map(|n| &clients[n].0.chains[0].hops[0].nodes[0].connector.metadata.tunnel_id);
    assert!([one, two].iter().all(|id| uuid::Uuid::parse_str(id).is_ok()), "{one}, {two}");
    assert_ne!(one, two);
    assert_ne!(clients[0].0.services[0].addr, clients[1].0.services[0].addr);
}

#[tokio::test]
async fn the_example_of_a_configuration_file_is_understood() {
    let files = Files::new();
    let path = examples().join("gossd.toml");
    let text = fs::read_to_string(&path).expect("text");
    let path = path.to_str().expect("text");
    Gost::parse(&printed(&["--config".to_owned(), path.to_owned()], files.folder.path())).plugins();

    // A setting that is commented out also counts.
    let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let shown = |line: &str| line.strip_prefix("# ").filter(|rest| is_setting(rest)).map(str::to_owned);
    let all: Vec<_> = text.lines().map(|line| shown(line).unwrap_or_else(|| line.to_owned())).collect();
    assert!(all.iter().filter(|line| is_setting(line)).count() >= 11, "{all:?}");
    fs::write(files.folder.path().join("all.toml"), all.join("\n")).expect("a file");
    let everything = printed(&["--config=all.toml".to_owned()], files.folder.path());
    for (_, plugin) in Gost::parse(&everything).plugins() {
        assert_eq!(plugin.token.as_deref(), Some(TOKEN));
        assert_eq!(plugin.tls.as_ref().and_then(|tls| tls.server_name.as_deref()), Some("10.0.0.1"));
    }

    let key = files.folder.path().join("key");
    crate::common::write_secret(&key, gossd().arg("keygen").output().expect("gossd runs").stdout);
    let key = key.to_str().expect("text");
    let agent = Process::start("a", &["--config", path, "--key-file", key]);
    for (host, endpoint) in [
        ("www.example.org", "4d21094e-b74c-4916-86c1-d9fa36ea677b"),
        ("a.shop.example.org", "ac74d9dd-3125-442a-a7c1-f9e49e05faca"),
        ("db.example.org", "$9a5b2c1e-3f60-4c55-8a3e-0d1c7e0f4b21"),
        ("example.org", ""),
    ] {
        let channel = Endpoint::from_shared(format!("http://{}", agent.plugin)).expect("an address");
        let channel = channel.connect().await.expect("it listens");
        let call = GetRuleRequest { host: host.into(), ..GetRuleRequest::default() };
        let answer = IngressClient::new(channel).get_rule(call).await;
        assert_eq!(answer.expect("an answer").into_inner().endpoint, endpoint, "{host}");
    }
}

/// An example, by its path in the repository.
fn example(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every block for gost and gossd in the guides is a file of the examples, or is printed by gossd, or is a part of such a file.
#[test]
fn the_guides_show_the_examples() {
    for (page, least) in [(TUTORIAL, 3), (FROM_FRP, 3)] {
        let mut shown = 0;
        for block in page.split("<!-- examples/").skip(1) {
            let (path, block) = block.split_once(" -->\n```").expect("a block");
            let (language, block) = block.split_once('\n').expect("a language");
            let (block, _) = block.split_once("```").expect("its end");
            assert_eq!(block, example(&format!("examples/{path}")), "{path}");
            assert!(path.ends_with(if language == "yaml" { ".yml" } else { language }), "{path}");
            shown += 1;
        }
        let unmarked = page.split("\n```yaml\n").filter(|before| !before.ends_with(" -->")).count();
        assert_eq!(unmarked, 1, "only what follows the last block");
        assert!(shown >= least, "{shown}");
    }
}

/// The two clients of the guides know both hosts, and a port of a host leads into the tunnel of one of them.
#[test]
fn the_examples_of_the_guides_fit_together() {
    let [client, ssh, port] = ["client", "ssh-client", "port"]
        .map(|name| Gost::parse(&example(&format!("examples/gost-ha/{name}.yml"))));
    let hosts = ["a", "b"].map(|name| {
        let flags = ["--config".to_owned(), format!("examples/gost-ha/{name}.toml")];
        assert_eq!(printed(&flags, Path::new(env!("CARGO_MANIFEST_DIR"))), printed(&[], Path::new("/")));
        let table: toml::Table = example(&flags[1]).parse().expect("TOML");
        table["advertise-host"].as_str().expect("an address").to_owned()
    });
    let server = Gost::parse(&printed(&[], Path::new("/")));
    let tunnel_port = &server.services[0].addr;
    let only = |gost: &Gost| gost.chains[0].hops[0].nodes[0].connector.metadata.tunnel_id.clone();
    for gost in [&client, &ssh] {
        let hop = &gost.chains[0].hops[0];
        let nodes: Vec<_> = hop.nodes.iter().map(|node| node.addr.to_string()).collect();
        assert_eq!(nodes, hosts.clone().map(|host| format!("{host}{tunnel_port}")));
        assert!(hop.nodes.iter().all(|node| node.connector.metadata.tunnel_id == only(gost)));
        let selector = hop.selector.as_ref().expect("how a server is chosen");
        assert_eq!((&*selector.strategy, selector.max_fails, &*selector.fail_timeout), ("fifo", 1, "10s"));
        assert_eq!(gost.services[0].listener.chain.as_ref(), Some(&gost.chains[0].name));
        assert!(gost.services[0].addr.ends_with(":0") && !gost.services[0].addr.contains('.'));
    }
    assert_ne!(only(&client), only(&ssh));
    assert_eq!(only(&port), only(&ssh));
    let [service] = &port.services[..] else { panic!("one service") };
    assert_eq!(service.handler.chain.as_ref(), Some(&port.chains[0].name));
    let name = |addr: &str| addr.split(':').next().expect("a name").to_owned();
    let target = &service.forwarder.as_ref().expect("a target").nodes[0];
    assert_eq!(name(&target.addr), name(&ssh.services[0].addr));
    assert!(port.chains[0].hops[0].nodes[0].addr.to_string().ends_with(tunnel_port));
}
