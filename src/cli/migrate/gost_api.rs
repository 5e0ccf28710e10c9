//! gost's Web API, as far as a migration needs it: which plugins its services use, and another plugin behind a name.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::import::store::password_of;
use crate::cli::words::plain_lines;

/// gost answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: the configuration of a gost.
const MAX_BODY: usize = 16 << 20;

/// Where a gost's Web API is, and who may use it.
#[derive(Clone)]
pub(super) struct GostApi {
    place: String,
    /// The path prefix.
    root: String,
    login: Option<Zeroizing<String>>,
}

/// A kind of plugin, by its names in gost's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Sd,
    Ingress,
}

impl Kind {
    /// What is this kind's of a thing for both.
    pub(super) fn of<T>(self, [sd, ingress]: &[T; 2]) -> &T {
        match self {
            Self::Sd => sd,
            Self::Ingress => ingress,
        }
    }

    /// Its list, and the key of a handler's metadata that names one.
    pub(super) fn names(self) -> [&'static str; 2] {
        match self {
            Self::Sd => ["sds", "sd"],
            Self::Ingress => ["ingresses", "ingress"],
        }
    }
}

impl fmt::Display for GostApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.place, self.root)
    }
}

impl GostApi {
    pub(super) fn new(url: &str, user: Option<&str>, password: Option<&Path>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().context("it is no URL")?;
        ensure!(uri.scheme_str() == Some("http"), "it is no http://HOST:PORT of gost's Web API");
        let authority = uri.authority().context("it has no host")?;
        ensure!(
            !authority.as_str().contains('@'),
            "a user goes to --gost-api-user, and a password to --gost-api-password-file"
        );
        let login = match (user, password) {
            (None, None) => None,
            (user, password) => {
                let password = match password {
                    Some(file) => password_of(file).context("--gost-api-password-file")?,
                    None => Zeroizing::new(std::env::var("GOSSD_GOST_API_PASSWORD").unwrap_or_default()),
                };
                Some(Zeroizing::new(format!("{}:{}", user.unwrap_or_default(), *password)))
            }
        };
        let port = authority.port_u16().unwrap_or(80);
        let place = format!("{}:{port}", authority.host());
        Ok(Self { place, root: uri.path().trim_end_matches('/').to_owned(), login })
    }

    /// A name for a file about this gost.
    pub(super) fn file_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        format!("{}{}", self.place, self.root).chars().map(plain).collect()
    }

    /// The configuration that gost runs with.
    pub(super) async fn config(&self) -> anyhow::Result<Value> {
        let text = self.ask(Method::GET, "/config", Bytes::new()).await?;
        serde_json::from_slice(&text).context("what answers is not gost's Web API: it sends no JSON")
    }

    /// Puts a plugin behind a name that there is. gost also says yes to what it did not understand, and then has no plugin at
    /// all: so it is asked what it has.
    pub(super) async fn put(&self, kind: Kind, name: &str, entry: &Value) -> anyhow::Result<()> {
        let [list, _] = kind.names();
        let spelled: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let path = format!("/config/{list}/{}", spelled.replace('+', "%20"));
        self.ask(Method::PUT, &path, serde_json::to_vec(entry)?.into()).await?;
        let config = self.config().await?;
        let is_there = entries(&config, kind).iter().any(|one| one["name"] == name && is_same(one, entry));
        ensure!(is_there, "gost at {self} took {name}, and does not have it");
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let asked = timeout(PATIENCE, self.exchange(method, path, body)).await;
        asked
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}")))
            .with_context(|| format!("gost's Web API at {self}"))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let connected = TcpStream::connect(&self.place).await;
        let stream = connected.context("nobody answers; is `api` in gost's configuration?")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.root))
            .header(header::HOST, &self.place)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(login) = &self.login {
            request = request
                .header(header::AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(login.as_bytes())));
        }
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let text = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let text = text.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        match status {
            StatusCode::OK => Ok(text),
            StatusCode::UNAUTHORIZED => {
                bail!("it wants a user and a password: --gost-api-user, --gost-api-password-file")
            }
            other => {
                let said: Option<Value> = serde_json::from_slice(&text).ok();
                let said = said.as_ref().and_then(|said| said["msg"].as_str()).unwrap_or_default();
                bail!("{other} {}", plain_lines(said))
            }
        }
    }
}

/// A plugin that a service uses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Used {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Its entry in the configuration, with its name.
    pub(super) entry: Value,
    /// The first service that uses it.
    pub(super) service: String,
}

impl Used {
    /// Where its plugin is; none if it has no plugin.
    pub(super) fn addr(&self) -> Option<&str> {
        self.entry["plugin"]["addr"].as_str()
    }
}

/// Whether two entries have the same plugin: gost tells more of it than it was told.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    let is_secure = |entry: &Value| entry["plugin"]["tls"]["secure"].as_bool().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry["plugin"][key].as_str().unwrap_or_default().to_owned();
    let is_same = |key: &&str| text(one, key) == text(other, key);
    ["type", "addr", "token"].iter().all(is_same) && is_secure(one) == is_secure(other)
}

fn entries(config: &Value, kind: Kind) -> &[Value] {
    let [list, _] = kind.names();
    config[list].as_array().map_or(&[], |entries| entries)
}

/// The plugins that a value of a handler's metadata names, whose keys gost reads in upper or lower case. Each of several entrypoints
/// may have an ingress of its own.
fn named<'a>(key: &str, value: &'a Value) -> Vec<(Kind, &'a str)> {
    let name = value.as_str().filter(|name| !name.is_empty());
    match (&*key.to_ascii_lowercase(), name) {
        ("sd", Some(name)) => vec![(Kind::Sd, name)],
        ("ingress", Some(name)) => vec![(Kind::Ingress, name)],
        ("entrypoints", _) => {
            let each = value.as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
            each.filter(|(key, _)| key.eq_ignore_ascii_case("ingress"))
                .flat_map(|(key, value)| named(key, value))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The plugins that the services of a configuration use, each once. Names that no list has are an error.
pub(super) fn used(config: &Value) -> anyhow::Result<Vec<Used>> {
    let mut used: Vec<Used> = Vec::new();
    let services = config["services"].as_array().map_or(&[][..], |services| services);
    for service in services {
        let metadata = service["handler"]["metadata"].as_object();
        for (kind, name) in metadata.into_iter().flatten().flat_map(|(key, value)| named(key, value)) {
            let [list, key] = kind.names();
            if used.iter().any(|one| one.kind == kind && one.name == name) {
                continue;
            }
            let service = service["name"].as_str().unwrap_or("?").to_owned();
            let entry = entries(config, kind).iter().find(|entry| entry["name"] == name);
            let entry = entry.with_context(|| {
                format!("service {service} uses {key} {name}, which `{list}` does not have")
            })?;
            used.push(Used { kind, name: name.into(), entry: entry.clone(), service });
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_services_use_is_found_by_name_once() {
        let metadata = json!({"sd": "sd-0", "ingress": "ingress-0", "entrypoint": ":8420"});
        let handler = json!({"type": "tunnel", "metadata": metadata});
        let config = json!({
            "services": [{"name": "one", "handler": handler}, {"name": "two", "handler": handler}, {"name": "web"}],
            "sds": [{"name": "other"}, {"name": "sd-0", "plugin": {"type": "grpc", "addr": "10.0.0.1:8000"}}],
            "ingresses": [{"name": "ingress-0"}],
        });
        let used = used(&config).unwrap();
        let told: Vec<_> = used.iter().map(|one| (one.kind, &*one.name, one.addr(), &*one.service)).collect();
        let want =
            [(Kind::Sd, "sd-0", Some("10.0.0.1:8000"), "one"), (Kind::Ingress, "ingress-0", None, "one")];
        assert_eq!(told, want);
        let several = json!({
            "services": [{"name": "one", "handler": {"metadata": {
                "SD": "sd-0",
                "entrypoints": [{"addr": ":8420", "ingress": "ingress-0"}, {"addr": ":8421", "Ingress": "ingress-1"}],
            }}}],
            "sds": [{"name": "sd-0"}],
            "ingresses": [{"name": "ingress-0"}, {"name": "ingress-1"}],
        });
        let names: Vec<_> = super::used(&several).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["sd-0", "ingress-0", "ingress-1"]);
        let lost = json!({"services": [{"name": "one", "handler": {"metadata": {"sd": "sd-1"}}}]});
        assert!(super::used(&lost).unwrap_err().to_string().contains("sd-1"));
    }

    #[test]
    fn an_api_is_a_place_and_a_path() {
        let api = |url| GostApi::new(url, None, None);
        assert_eq!(api("http://127.0.0.1:18080/api/").unwrap().to_string(), "http://127.0.0.1:18080/api");
        assert_eq!(api("http://gost").unwrap().to_string(), "http://gost:80");
        for wrong in ["127.0.0.1:18080", "https://127.0.0.1", "http://a:b@c", ""] {
            assert!(api(wrong).is_err(), "{wrong}");
        }
    }
}
