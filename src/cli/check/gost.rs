//! gost's own configuration: whether its tunnel handlers use plugins, and whether these lead to this agent, with a token that it
//! takes. gost itself says little of a plugin that refuses it, and its visitors get an error.

use std::fs;
use std::net::IpAddr;
use std::path::{self, Path};

use axum::http::Uri;
use axum::http::uri::Scheme;
use serde::Deserialize;
use serde_norway::Value;

use super::Finding;
use crate::config::Config;
use crate::plugin::{Tokens, http};

const CHECK: &str = "gost's plugins";
/// The handler that is for tunnels.
const TUNNEL: &str = "tunnel";
/// How gost names a Unix socket.
const SOCKETS: [&str; 2] = ["unix://", "unix:"];
/// How a gRPC target may begin.
const RESOLVERS: [&str; 2] = ["dns:///", "passthrough:///"];

#[derive(Deserialize)]
struct Gost {
    services: Option<Vec<Service>>,
    ingresses: Option<Vec<Entry>>,
    sds: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Service {
    name: Option<String>,
    handler: Option<Handler>,
}

#[derive(Deserialize)]
struct Handler {
    r#type: Option<String>,
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    plugin: Option<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    r#type: Option<String>,
    addr: Option<String>,
    /// gost takes a number, too.
    token: Option<Value>,
    tls: Option<Value>,
}

pub(super) fn examine(config: &Config, path: &Path) -> Vec<Finding> {
    let Ok(text) = fs::read_to_string(path) else {
        // That is found where host names are looked for in it.
        return Vec::new();
    };
    let Gost { services, ingresses, sds } = match serde_norway::from_str(&text) {
        Ok(gost) => gost,
        Err(error) => {
            let text =
                format!("{} is not understood, so its plugins are not examined: {error}", path.display());
            return vec![Finding::warn(CHECK, text)];
        }
    };
    let tokens = config.token_file.as_deref().and_then(|file| Tokens::open(file).ok());
    let tokens = tokens.map(|(tokens, _)| tokens).unwrap_or_default();
    let kinds = [("sd", "sds", sds, http::PATH), ("ingress", "ingresses", ingresses, http::INGRESS_PATH)];
    let mut found = Vec::new();
    for service in services.iter().flatten() {
        found.extend(kinds.iter().filter_map(|(key, list, entries, _)| {
            let names = entries.iter().flatten().map(|entry| &*entry.name);
            service.lacks(key, list, &names.collect::<Vec<_>>(), entries.is_some())
        }));
    }
    for (key, _, entries, path) in &kinds {
        let used: Vec<&str> = services.iter().flatten().flat_map(|service| service.uses(key)).collect();
        let is_used = |entry: &&Entry| services.is_none() || used.contains(&&*entry.name);
        let used = entries.iter().flatten().filter(is_used);
        let with_plugin = used.filter_map(|entry| Some((&entry.name, entry.plugin.as_ref()?)));
        found.extend(with_plugin.map(|(name, plugin)| match plugin.misses(config, path) {
            Some(why) => Finding::fail(CHECK, format!("{name} {why}: `gossd gost-config` prints what fits")),
            None => match tokens.admit(plugin.token().as_deref().map(str::as_bytes)) {
                Ok(()) => Finding::ok(CHECK, format!("{name} calls {}", plugin.addr())),
                Err(refusal) => Finding::fail(CHECK, format!("{name} would be refused: {refusal}")),
            },
        }));
    }
    found
}

impl Service {
    fn metadata(&self) -> Option<&Value> {
        self.handler.as_ref()?.metadata.as_ref()
    }

    /// The entries that its handler names, for itself and for further entrypoints.
    fn uses(&self, key: &str) -> Vec<&str> {
        let Some(metadata) = self.metadata() else { return Vec::new() };
        let more = metadata.get("entrypoints").and_then(Value::as_sequence).into_iter().flatten();
        let all = std::iter::once(metadata).chain(more);
        all.filter_map(|of| of.get(key)?.as_str()).collect()
    }

    /// Which plugin its tunnel handler does not use. `is_here` says whether the file has a list of them.
    fn lacks(&self, key: &str, list: &str, there: &[&str], is_here: bool) -> Option<Finding> {
        self.handler.as_ref().filter(|handler| handler.r#type.as_deref() == Some(TUNNEL))?;
        let service = self.name.as_deref().unwrap_or("a service without a name");
        match self.uses(key).as_slice() {
            [] => {
                let text = format!(
                    "{service}: the metadata of its tunnel handler has no `{key}`, so gost does not ask this agent: `gossd \
                     gost-config` prints what fits"
                );
                Some(Finding::warn(CHECK, text))
            }
            used => {
                let unknown = used.iter().find(|used| is_here && !there.contains(used))?;
                Some(Finding::fail(
                    CHECK,
                    format!("{service}: its `{key}` is {unknown}, which `{list}` has not"),
                ))
            }
        }
    }
}

impl Plugin {
    fn addr(&self) -> &str {
        self.addr.as_deref().unwrap_or_default()
    }

    fn token(&self) -> Option<String> {
        match self.token.as_ref()? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// In which way it does not lead to this agent; over HTTP, to this path.
    fn misses(&self, config: &Config, path: &str) -> Option<String> {
        let addr = self.addr();
        if self.r#type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("http")) {
            return misses_http(config, addr, path);
        }
        if let Some(socket) = SOCKETS.iter().find_map(|scheme| addr.strip_prefix(scheme)) {
            // gost-config prints it as it is from everywhere.
            let ours = config
                .plugin_socket
                .as_deref()
                .map(|ours| path::absolute(ours).unwrap_or_else(|_| ours.into()));
            return (ours.as_deref() != Some(Path::new(socket))).then(|| match ours {
                Some(ours) => format!("calls {addr}, and --plugin-socket is {}", ours.display()),
                None => format!("calls {addr}, and there is no --plugin-socket"),
            });
        }
        let target = RESOLVERS.iter().find_map(|scheme| addr.strip_prefix(scheme)).unwrap_or(addr);
        if target.contains('/') {
            return Some(format!(
                "calls {addr:?} over gRPC, whose addr is HOST:PORT; over HTTP, it needs `type: http`"
            ));
        }
        let Some((host, port)) =
            target.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)))
        else {
            return Some(format!("has an addr without a port: {addr:?}"));
        };
        misses_tls(config, self.tls.is_some()).or_else(|| misses_listener(config, addr, host, port))
    }
}

fn misses_http(config: &Config, addr: &str, path: &str) -> Option<String> {
    let uri = addr.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
    let scheme = uri.as_ref().and_then(Uri::scheme);
    let Some((uri, is_tls)) = uri.as_ref().zip(scheme.map(|scheme| *scheme == Scheme::HTTPS)) else {
        return Some(format!("has an addr that is no URL: {addr:?}"));
    };
    if uri.path() != path {
        return Some(format!("calls {addr}, whose path is not {path}"));
    }
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let host = uri.host().unwrap_or_default();
    misses_tls(config, is_tls).or_else(|| misses_listener(config, addr, host, port))
}

fn misses_tls(config: &Config, is_tls: bool) -> Option<String> {
    let (does, has) = if is_tls { ("with", "no") } else { ("without", "a") };
    (is_tls != config.tls.is_some()).then(|| format!("calls {does} TLS, and the agent has {has} --tls-cert"))
}

/// A name may be any address.
fn misses_listener(config: &Config, addr: &str, host: &str, port: u16) -> Option<String> {
    let host = host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|host| host.to_canonical());
    let is_ours = config.plugin.iter().any(|ours| {
        let ip = ours.ip().to_canonical();
        let is_there = ip.is_unspecified() || host.is_none_or(|host| host == ip || host.is_unspecified());
        is_there && (ours.port() == port || ours.port() == 0)
    });
    (!is_ours).then(|| {
        let ours: Vec<String> = config.plugin.iter().map(ToString::to_string).collect();
        format!("calls {addr}, and --plugin is {}", ours.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    const FITS: &str = r#"
services:
- name: tunnel
  handler:
    type: tunnel
    metadata: {ingress: ingress-0, sd: sd-0}
ingresses:
- name: ingress-0
  plugin: {type: http, addr: "http://127.0.0.1:8000/ingress"}
sds:
- name: sd-0
  plugin: {type: http, addr: "http://127.0.0.1:8000/sd"}
"#;

    /// What is wrong with a configuration, for an agent with such settings.
    fn wrong(yaml: &str, config: &Config) -> Vec<(Severity, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gost.yml");
        fs::write(&path, yaml).unwrap();
        let found = examine(config, &path).into_iter().filter(|finding| finding.verdict != Severity::Ok);
        found.map(|finding| (finding.verdict, finding.text)).collect()
    }

    fn agent() -> Config {
        Config { plugin: vec!["127.0.0.1:8000".parse().unwrap()], ..Config::loopback("a".parse().unwrap()) }
    }

    #[test]
    fn a_plugin_has_to_lead_to_the_agent() {
        assert_eq!(wrong(FITS, &agent()), []);
        for (from, to, why) in [
            ("8000/sd", "9999/sd", "--plugin is 127.0.0.1:8000"),
            ("127.0.0.1:8000/sd", "10.0.0.9:8000/sd", "--plugin is 127.0.0.1:8000"),
            ("8000/sd", "8000/ingress", "whose path is not /sd"),
            ("8000/ingress", "8000", "whose path is not /ingress"),
            (
                "http://127.0.0.1:8000/sd",
                "https://127.0.0.1:8000/sd",
                "with TLS, and the agent has no --tls-cert",
            ),
            ("http://127.0.0.1:8000/sd", "", "no URL"),
            ("http://127.0.0.1:8000/sd", "unix:///run/gossd/a.sock", "no URL"),
            ("http://127.0.0.1:8000/sd", "127.0.0.1:8000/sd", "no URL"),
            (
                "type: http, addr: \"http://127.0.0.1:8000/sd",
                "addr: \"http://127.0.0.1:8000/sd",
                "it needs `type: http`",
            ),
        ] {
            let found = wrong(&FITS.replace(from, to), &agent());
            let [(Severity::Fail, text)] = &*found else { panic!("{to}: {found:?}") };
            assert!(text.contains(why) && text.contains("`gossd gost-config`"), "{text}");
        }
        let grpc = FITS.replace("type: http", "type: grpc").replace("http://", "");
        let grpc = grpc.replace("/sd\"", "\"").replace("/ingress\"", "\"");
        assert_eq!(wrong(&grpc, &agent()), []);
        let named = grpc.replace("127.0.0.1:8000", "gossd-agent:8000");
        assert_eq!(wrong(&named, &agent()), [], "a name may be any address");
        assert_eq!(wrong(&named.replace(":8000", ":8001"), &agent()).len(), 2);
        let target = grpc.replace("\"127", "\"dns:///127").replace("type: grpc, ", "");
        assert_eq!(wrong(&target, &agent()), [], "the type is gRPC by default");
        let socket = grpc.replace("127.0.0.1:8000", "unix:///run/gossd/a.sock");
        assert_eq!(wrong(&socket, &agent()).len(), 2, "there is none");
        let there = Config { plugin_socket: Some("/run/gossd/a.sock".into()), ..agent() };
        assert_eq!(wrong(&socket, &there), []);
    }

    #[test]
    fn a_token_has_to_be_one_that_the_agent_takes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "right\n").unwrap();
        let config = Config { token_file: Some(file.path().into()), ..agent() };
        let [none, wrong_one, right] = ["", ", token: wrong", ", token: right"]
            .map(|token| wrong(&FITS.replace("/sd\"}", &format!("/sd\"{token}}}")), &config));
        assert_eq!((none.len(), wrong_one.len(), right.len()), (2, 2, 1), "that of ingress has none");
        assert!(none.iter().all(|(_, text)| text.contains("requires a token")), "{none:?}");
        assert!(wrong_one.iter().any(|(_, text)| text.contains("not in the agent's --token-file")));
    }

    #[test]
    fn a_tunnel_handler_has_to_use_the_plugins() {
        let found = wrong(&FITS.replace(", sd: sd-0", ""), &agent());
        assert!(matches!(&*found, [(Severity::Warn, text)] if text.contains("has no `sd`")), "{found:?}");
        let found = wrong(&FITS.replace("sd: sd-0", "sd: sd-1"), &agent());
        assert!(
            matches!(&*found, [(Severity::Fail, text)] if text.contains("which `sds` has not")),
            "{found:?}"
        );
        assert_eq!(
            wrong(&FITS.replace("type: tunnel", "type: relay").replace(", sd: sd-0", ""), &agent()),
            []
        );
        let unused =
            format!("{FITS}- name: old\n  plugin: {{type: http, addr: \"http://127.0.0.1:1/sd\"}}\n");
        assert_eq!(wrong(&unused, &agent()), [], "nobody uses it");
        assert!(matches!(&*wrong("sds: 1", &agent()), [(Severity::Warn, _)]));
    }
}
