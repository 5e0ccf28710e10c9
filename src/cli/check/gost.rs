//! gost's own configuration: whether its tunnel handlers use plugins, and whether these lead to this agent, with a token that it
//! takes. gost itself says little of a plugin that refuses it, and its visitors get an error.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

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
const UNIX: &str = "unix://";

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
    token: Option<String>,
    tls: Option<Value>,
}

/// What keeps the file from being read is found where host names are looked for in it.
pub(super) fn examine(config: &Config, path: &Path) -> Vec<Finding> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let Ok(Gost { services, ingresses, sds }) = serde_norway::from_str(&text) else { return Vec::new() };
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
    for (_, _, entries, path) in &kinds {
        let with_plugin = entries.iter().flatten().filter_map(|entry| Some((entry, entry.plugin.as_ref()?)));
        found.extend(with_plugin.map(|(Entry { name, .. }, plugin)| match plugin.misses(config, path) {
            Some(why) => Finding::fail(CHECK, format!("{name} {why}: `gossd gost-config` prints what fits")),
            None => match tokens.admit(plugin.token.as_deref().map(str::as_bytes)) {
                Ok(()) => Finding::ok(CHECK, format!("{name} calls {}", plugin.addr())),
                Err(refusal) => Finding::fail(CHECK, format!("{name} would be refused: {refusal}")),
            },
        }));
    }
    found
}

impl Service {
    /// Which plugin its tunnel handler does not use. `is_here` says whether the file has a list of them.
    fn lacks(&self, key: &str, list: &str, there: &[&str], is_here: bool) -> Option<Finding> {
        let handler = self.handler.as_ref().filter(|handler| handler.r#type.as_deref() == Some(TUNNEL))?;
        let service = self.name.as_deref().unwrap_or("a service without a name");
        let named = handler.metadata.as_ref().and_then(|metadata| metadata.get(key)?.as_str());
        match named {
            None => {
                let text = format!(
                    "{service}: the metadata of its tunnel handler has no `{key}`, so gost does not ask this agent: `gossd \
                     gost-config` prints what fits"
                );
                Some(Finding::warn(CHECK, text))
            }
            Some(named) if is_here && !there.contains(&named) => Some(Finding::fail(
                CHECK,
                format!("{service}: its `{key}` is {named}, which `{list}` has not"),
            )),
            Some(_) => None,
        }
    }
}

impl Plugin {
    fn addr(&self) -> &str {
        self.addr.as_deref().unwrap_or_default()
    }

    /// In which way it does not lead to this agent; over HTTP, to this path.
    fn misses(&self, config: &Config, path: &str) -> Option<String> {
        let addr = self.addr();
        if let Some(socket) = addr.strip_prefix(UNIX) {
            let ours = config.plugin_socket.as_deref();
            return (ours != Some(Path::new(socket))).then(|| match ours {
                Some(ours) => format!("calls {addr}, and --plugin-socket is {}", ours.display()),
                None => format!("calls {addr}, and there is no --plugin-socket"),
            });
        }
        let is_http = self.r#type.as_deref() == Some("http");
        let spelled = if addr.contains("://") { addr.to_owned() } else { format!("http://{addr}") };
        let Ok(uri) = spelled.parse::<Uri>() else {
            return Some(format!("has an addr that is none: {addr:?}"));
        };
        let Some(port) = uri.port_u16() else {
            return Some(format!("has an addr without a port: {addr:?}"));
        };
        if is_http && uri.path() != path {
            return Some(format!("calls {addr}, whose path is not {path}"));
        }
        let is_tls = if is_http { uri.scheme() == Some(&Scheme::HTTPS) } else { self.tls.is_some() };
        if is_tls != config.tls.is_some() {
            let (does, wants) = if is_tls { ("with", "no") } else { ("without", "a") };
            return Some(format!("calls {does} TLS, and the agent has {wants} --tls-cert"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let is_ours = config.plugin.iter().any(|ours| {
            let is_there = ours.ip().is_unspecified() || host.is_none_or(|host| host == ours.ip());
            is_there && (ours.port() == port || ours.port() == 0)
        });
        (!is_ours).then(|| {
            let ours: Vec<String> = config.plugin.iter().map(ToString::to_string).collect();
            format!("calls {addr}, and --plugin is {}", ours.join(", "))
        })
    }
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
            ("http://127.0.0.1:8000/sd", "", "an addr that is none"),
            ("http://127.0.0.1:8000/sd", "unix:///run/gossd/a.sock", "there is no --plugin-socket"),
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
    }
}
