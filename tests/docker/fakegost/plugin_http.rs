//! gost's HTTP plugin client, byte for byte like the recording of the real one: its headers and their order, the
//! connections that Go keeps, and the calls that Go loses on them.

use std::sync::Mutex;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::http_wire::{Answer, call};
use crate::plugin::{SERVICE, Service};

/// Idle connections that Go's transport keeps per host.
const MAX_IDLE: usize = 2;

/// Both plugins; each has an HTTP client of its own, so connections are not shared.
pub(crate) struct HttpPlugin {
    sd: Client,
    ingress: Client,
}

#[derive(Deserialize)]
struct Services {
    services: Vec<Service>,
}

/// In gost's order of fields.
#[derive(Serialize)]
struct Rule<'a> {
    service: &'a str,
    host: &'a str,
    endpoint: &'a str,
}

#[derive(Deserialize)]
struct Endpoint {
    endpoint: String,
}

#[derive(Deserialize)]
struct Done {
    ok: bool,
}

impl HttpPlugin {
    pub(crate) fn new(agent: &str, token: Option<&str>) -> Self {
        let client = |path| Client {
            agent: agent.into(),
            path,
            token: token.map(str::to_owned),
            idle: Mutex::default(),
        };
        Self { sd: client("/sd"), ingress: client("/ingress") }
    }

    /// Register, Renew or Deregister. gost does not read the answer's body: if there is one, Go closes.
    pub(crate) async fn write(&self, method: &str, service: &Service) -> anyhow::Result<()> {
        let body = serde_json::to_string(service)?;
        self.sd.write(method, &body, Body::Unread).await.map(drop)
    }

    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<Vec<Service>> {
        let answer = self.sd.get(&[("name", name)]).await?;
        let services: Services = serde_json::from_slice(&answer.body)?;
        Ok(services.services)
    }

    pub(crate) async fn get_rule(&self, host: &str) -> anyhow::Result<String> {
        let answer = self.ingress.get(&[("host", host), ("service", SERVICE)]).await?;
        let endpoint: Endpoint = serde_json::from_slice(&answer.body)?;
        Ok(endpoint.endpoint)
    }

    pub(crate) async fn set_rule(&self, host: &str, endpoint: &str) -> anyhow::Result<bool> {
        let body = serde_json::to_string(&Rule { service: SERVICE, host, endpoint })?;
        let answer = self.ingress.write("PUT", &body, Body::Read).await?;
        let done: Done = serde_json::from_slice(&answer.body)?;
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
struct Client {
    agent: String,
    path: &'static str,
    token: Option<String>,
    /// The one used last is at the end, and is used first.
    idle: Mutex<Vec<TcpStream>>,
}

impl Client {
    /// Go never repeats these on a kept connection that broke: the call is lost.
    async fn write(&self, method: &str, body: &str, what: Body) -> anyhow::Result<Answer> {
        let mut stream = self.connection().await?;
        let len = format!("Content-Length: {}\r\n", body.len());
        let request = self.request(method, self.path, &len, body);
        let answer = call(&mut stream, &request).await?;
        let read = what == Body::Read || answer.body.is_empty();
        self.done(stream, &answer, read)?;
        Ok(answer)
    }

    /// Go repeats a GET once if the kept connection had been closed meanwhile.
    async fn get(&self, query: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        // The two characters in which Go's encoding differs.
        let query = query.replace('*', "%2A").replace("%7E", "~");
        let request = self.request("GET", &format!("{}?{query}", self.path), "", "");
        let mut kept = self.kept();
        if let Some(stream) = &mut kept
            && let Ok(answer) = call(stream, &request).await
        {
            self.done(kept.expect("it was there"), &answer, true)?;
            return Ok(answer);
        }
        let mut stream = self.dial().await?;
        let answer = call(&mut stream, &request).await?;
        self.done(stream, &answer, true)?;
        Ok(answer)
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

    /// Success is exactly 200. A connection of use is kept, at most two of them.
    fn done(&self, stream: TcpStream, answer: &Answer, read: bool) -> anyhow::Result<()> {
        let mut idle = self.idle.lock().expect("no panic holds it");
        if read && !answer.closing && idle.len() < MAX_IDLE {
            idle.push(stream);
        }
        drop(idle);
        ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
        Ok(())
    }

    async fn connection(&self) -> anyhow::Result<TcpStream> {
        match self.kept() {
            Some(stream) => Ok(stream),
            None => self.dial().await,
        }
    }

    /// A kept connection that was not seen closed. One that was, or says something unasked, is dropped.
    fn kept(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().expect("no panic holds it");
        std::iter::from_fn(|| idle.pop()).find(|stream| {
            let silent = stream.try_read(&mut [0]);
            silent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        })
    }

    async fn dial(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(&self.agent).await.with_context(|| self.agent.clone())?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
