//! gost's HTTP plugin client, byte for byte like the recording of the real one: its headers and their order, the
//! connections that Go keeps, and the calls that Go loses on them.

use std::sync::Mutex;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http_wire::{HttpMessage, Unsized};
use crate::plugin::{AgentAddress, ServiceFields};
use crate::resolve::resolve;

/// Go's transport keeps this many idle connections per host.
const MAX_IDLE: usize = 2;

/// Both plugins. Each has an HTTP client of its own, so they share no connections.
pub(crate) struct HttpPlugin {
    sd: GoHttpClient,
    ingress: GoHttpClient,
    service: String,
}

#[derive(Deserialize)]
struct ServicesBody {
    #[serde(default)]
    services: Option<Vec<ServiceFields>>,
}

/// A body of `null` leaves gost's pointer to its services empty. gost then uses the pointer, and crashes.
const CRASH: &[u8] = b"null";

/// Fields in gost's order.
#[derive(Serialize)]
struct RuleBody<'a> {
    service: &'a str,
    host: &'a str,
    endpoint: &'a str,
}

#[derive(Deserialize)]
struct EndpointBody {
    endpoint: String,
}

#[derive(Deserialize)]
struct Confirmed {
    ok: bool,
}

impl HttpPlugin {
    pub(crate) fn new(reach: &AgentAddress) -> Self {
        let AgentAddress { agent, token, service } = reach.clone();
        let (agent, query) = agent.split_once('?').unwrap_or((&agent, ""));
        let client = |path| GoHttpClient {
            agent: agent.into(),
            path,
            query: query.into(),
            token: token.clone(),
            idle: Mutex::default(),
        };
        Self { sd: client("/sd"), ingress: client("/ingress"), service }
    }

    /// Register, Renew or Deregister. gost does not read the answer's body; if there is one, Go closes the connection.
    pub(crate) async fn write(&self, method: &str, service: &ServiceFields) -> anyhow::Result<()> {
        let body = serde_json::to_string(service)?;
        self.sd.write(method, &body, Body::Unread).await.map(drop)
    }

    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<Vec<ServiceFields>> {
        let answer = self.sd.get(&[("name", name)]).await?;
        if answer.body.trim_ascii() == CRASH {
            eprintln!("panic: nil pointer: the agent answered null");
            std::process::exit(2);
        }
        let services: ServicesBody = serde_json::from_slice(&answer.body)?;
        Ok(services.services.unwrap_or_default())
    }

    pub(crate) async fn get_rule(&self, host: &str) -> anyhow::Result<String> {
        let answer = self.ingress.get(&[("host", host), ("service", &self.service)]).await?;
        let endpoint: EndpointBody = serde_json::from_slice(&answer.body)?;
        Ok(endpoint.endpoint)
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) -> anyhow::Result<bool> {
        let body = serde_json::to_string(&RuleBody { service: &self.service, host, endpoint })?;
        let answer = self.ingress.write("PUT", &body, Body::Read).await?;
        let done: Confirmed = serde_json::from_slice(&answer.body)?;
        Ok(done.ok)
    }
}

/// What gost does with the body of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Read,
    Unread,
}

/// One `http.Client` of Go's.
struct GoHttpClient {
    agent: String,
    path: &'static str,
    /// The query after the path; may be empty.
    query: String,
    token: Option<String>,
    /// The connection used last is at the end, and is used first.
    idle: Mutex<Vec<TcpStream>>,
}

impl GoHttpClient {
    /// Go never repeats a write on a kept connection that broke: the call is lost.
    async fn write(&self, method: &str, body: &str, what: Body) -> anyhow::Result<HttpMessage> {
        let mut stream = match self.kept() {
            Some(stream) => stream,
            None => self.dial().await?,
        };
        let len = format!("Content-Length: {}\r\n", body.len());
        let target =
            if self.query.is_empty() { self.path.into() } else { format!("{}?{}", self.path, self.query) };
        let answer = call(&mut stream, &self.request(method, &target, &len, body)).await?;
        self.done(stream, answer, what)
    }

    /// Go repeats a GET for every kept connection that turns out closed.
    async fn get(&self, query: &[(&str, &str)]) -> anyhow::Result<HttpMessage> {
        let own = form_urlencoded::parse(self.query.as_bytes());
        let mut pairs: Vec<_> =
            own.chain(query.iter().map(|(key, value)| ((*key).into(), (*value).into()))).collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        // The two characters that Go encodes differently.
        let query = query.replace('*', "%2A").replace("%7E", "~");
        let request = self.request("GET", &format!("{}?{query}", self.path), "", "");
        while let Some(mut stream) = self.kept() {
            if let Ok(answer) = call(&mut stream, &request).await {
                return self.done(stream, answer, Body::Read);
            }
        }
        let mut stream = self.dial().await?;
        let answer = call(&mut stream, &request).await?;
        self.done(stream, answer, Body::Read)
    }

    fn request(&self, method: &str, target: &str, len: &str, body: &str) -> String {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\n{len}{token}\
             Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{body}",
            self.agent
        )
    }

    /// Only 200 is success. A reusable connection is kept, at most two.
    fn done(&self, stream: TcpStream, answer: HttpMessage, what: Body) -> anyhow::Result<HttpMessage> {
        let status = answer.head.status()?;
        let read = answer.body.is_empty() || (what == Body::Read && status == 200);
        let mut idle = self.idle.lock().expect("no panic holds it");
        if read && !answer.is_last() && idle.len() < MAX_IDLE {
            idle.push(stream);
        }
        drop(idle);
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer.body).trim());
        Ok(answer)
    }

    /// A kept connection that is still open. One that was closed, or that has sent something unasked, is dropped.
    fn kept(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().expect("no panic holds it");
        std::iter::from_fn(|| idle.pop()).find(|stream| {
            let silent = stream.try_read(&mut [0]);
            silent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        })
    }

    /// The first of the agent's addresses that accepts. Go sets no timeout here.
    async fn dial(&self) -> anyhow::Result<TcpStream> {
        let mut refused = anyhow::anyhow!("no address");
        for address in resolve(&self.agent).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => refused = anyhow::Error::new(error).context(address),
            }
        }
        Err(refused)
    }
}

/// One exchange on a connection; the request is sent in one piece. If the connection breaks, the request is lost.
async fn call(stream: &mut TcpStream, request: &str) -> anyhow::Result<HttpMessage> {
    stream.write_all(request.as_bytes()).await.context("writing")?;
    let mut unread = Vec::new();
    let Some(answer) = HttpMessage::read(stream, &mut unread, Unsized::ToTheEnd).await? else {
        bail!("EOF instead of an answer");
    };
    ensure!(unread.is_empty(), "bytes beyond the answer");
    Ok(answer)
}
