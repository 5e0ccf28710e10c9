//! How the verbs ask a running agent: HTTP to its admin listener or its control socket, with patience and bounds, and one
//! clear line when nobody answers or somebody else does. Knows nothing of what is in the reports.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::words;
use crate::ops::report::ErrorReport;
use crate::plugin::token;
use gossd_core::address::Entrypoint;

/// A host that takes longer to connect to is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// An agent answers from memory, and waits for its peers for half of this at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: the explanation of a tunnel with 100,000 records is shorter.
const MAX_BODY: usize = 64 << 20;

/// Asks one agent, at its admin listener or its control socket. Every request has a connection of its own: the next one may
/// come after a restart of the agent.
#[derive(Clone, Debug)]
pub(super) enum Client {
    /// At `host:port`, with a token if the listener requires one.
    Admin(String, Option<AdminToken>),
    /// At a path.
    Control(PathBuf),
}

/// A token that is sent and never printed.
#[derive(Clone)]
pub(super) struct AdminToken(Arc<Zeroizing<String>>);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(place, _) => f.write_str(place),
            Self::Control(path) => path.display().fmt(f),
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReport {
    /// Nobody listens there.
    #[error("no agent answers at {0} ({1}): {hint}", hint = .0.if_silent())]
    Absent(Client, io::Error),
    /// Nobody answers, in time or to the end.
    #[error("no agent answers at {0} ({1}): {hint}", hint = .0.if_silent())]
    Silent(Client, String),
    /// Another program answers, or another version of gossd.
    #[error("what answers at {0} ({1}) is not {hint}", hint = .0.if_foreign())]
    Foreign(Client, String),
    /// The agent does not answer that, or does not do it.
    #[error("the agent at {0} says: {1}")]
    Refused(Client, String),
}

/// An answer: the report in it, and its text.
#[derive(Debug)]
pub(super) struct Reply<T> {
    /// The report.
    pub(super) report: T,
    text: Bytes,
}

impl<T> Reply<T> {
    /// A report made of this one.
    pub(super) fn as_part<P: Serialize>(&self, part: impl Fn(&T) -> P) -> anyhow::Result<Reply<P>> {
        let report = part(&self.report);
        let text = serde_json::to_vec(&report)?.into();
        Ok(Reply { report, text })
    }

    /// The JSON, on one line as it came or laid out.
    pub(super) fn json(&self, is_laid_out: bool) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let value = serde_json::from_str::<serde_json::Value>(&text).ok().filter(|_| is_laid_out);
        value.map_or_else(|| format!("{}\n", text.trim_end()), |value| format!("{value:#}\n"))
    }
}

impl Client {
    /// Asks an agent on this host whose admin listener is there.
    pub(super) fn at(listener: SocketAddr) -> Self {
        Self::Admin(beside(listener).to_string(), None)
    }

    /// The same, with the first token of a file, if there is a file.
    pub(super) fn with_token_of(self, file: Option<&Path>) -> anyhow::Result<Self> {
        match (self, file) {
            (Self::Admin(place, _), Some(file)) => {
                let token = token::first(file).context("--admin-token-file")?;
                Ok(Self::Admin(place, Some(AdminToken(Arc::new(token)))))
            }
            (client, _) => Ok(client),
        }
    }

    /// Whether somebody listens there, and takes connections of this user.
    pub(super) async fn is_there(&self) -> bool {
        let connected = async {
            match self {
                Self::Admin(place, _) => TcpStream::connect(place).await.map(drop),
                Self::Control(path) => UnixStream::connect(path).await.map(drop),
            }
        };
        // One that does not take connections in time is there all the same, and what is asked of it will say so.
        timeout(CONNECT, connected).await.map_or(true, |connected| connected.is_ok())
    }

    /// Asks for a report.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, NoReport> {
        self.report(Method::GET, path, Bytes::new()).await
    }

    /// Asks for a report, on a change if the method is POST.
    pub(super) async fn report<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Reply<T>, NoReport> {
        self.in_time(async {
            let answer = self.ask(method, path, &[], body).await?;
            let text = self.read(answer).await?;
            let report = serde_json::from_slice(&text).map_err(|error| self.foreign(&error))?;
            Ok(Reply { report, text })
        })
        .await
    }

    /// Asks for a text, whatever is in it.
    pub(super) async fn text(&self, path: &str) -> Result<String, NoReport> {
        self.in_time(async {
            let text = self.read(self.ask(Method::GET, path, &[], Bytes::new()).await?).await?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        })
        .await
    }

    /// Opens a stream of events, those after a certain one.
    pub(super) async fn open(&self, path: &str, after: Option<&str>) -> Result<Body, NoReport> {
        let headers: Vec<_> = after.map(|after| ("last-event-id", after)).into_iter().collect();
        let answer = self.in_time(self.ask(Method::GET, path, &headers, Bytes::new())).await?;
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_none_or(|kind| !kind.starts_with("text/event-stream")) {
            return Err(self.foreign(&"it sends no events"));
        }
        Ok(Body::new(answer.into_body()))
    }

    /// Asks the control socket to go on in another protocol: the connection after HTTP.
    pub(super) async fn upgrade(&self, path: &str, protocol: &str) -> Result<UnixStream, NoReport> {
        self.in_time(async {
            let headers = [("connection", "upgrade"), ("upgrade", protocol)];
            let answer = self.ask(Method::POST, path, &headers, Bytes::new()).await?;
            let upgraded = hyper::upgrade::on(answer).await.map_err(|error| self.failed(&error))?;
            let parts = upgraded.downcast::<TokioIo<UnixStream>>();
            Ok(parts.map_err(|_| self.foreign(&"it is no Unix socket"))?.io.into_inner())
        })
        .await
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, NoReport>>) -> Result<T, NoReport> {
        timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(self.silent(format!("no answer within {PATIENCE:?}"))))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, NoReport> {
        // Whatever name leads to the agent, it takes this one: others are how a web page elsewhere would come.
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Self::Admin(_, Some(token)) = self {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", **token.0));
        }
        let request = request.body(Full::new(body)).map_err(|error| self.foreign(&error))?;
        let answer = match self {
            Self::Admin(place, _) => {
                let connected = timeout(CONNECT, TcpStream::connect(place)).await;
                self.send(connected.unwrap_or_else(|late| Err(late.into())), request).await?
            }
            Self::Control(path) => self.send(UnixStream::connect(path).await, request).await?,
        };
        match answer.status() {
            StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => Ok(answer),
            StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::CONFLICT
            | StatusCode::SERVICE_UNAVAILABLE => Err(self.refused(answer).await),
            other => Err(self.foreign(&other)),
        }
    }

    async fn send<S>(
        &self,
        connected: io::Result<S>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, NoReport>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = connected.map_err(|error| NoReport::Absent(self.clone(), error))?;
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| self.failed(&error))?;
        // It ends with the answer's body.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|error| self.failed(&error))
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Bytes, NoReport> {
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        body.map(Collected::to_bytes).map_err(|error| self.failed(&*error))
    }

    async fn refused(&self, answer: Response<Incoming>) -> NoReport {
        let status = answer.status();
        match self.read(answer).await.map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(ErrorReport { error })) => NoReport::Refused(self.clone(), words::plain_lines(&error)),
            Ok(Err(_)) => self.foreign(&status),
            Err(error) => error,
        }
    }

    /// A connection that broke is an agent that is not there, or not any more.
    fn failed(&self, error: &(dyn Error + 'static)) -> NoReport {
        let why = causes(error).last().map(ToString::to_string).unwrap_or_default();
        let broke = causes(error).any(|cause| {
            let http = cause.downcast_ref::<hyper::Error>();
            cause.is::<io::Error>() || http.is_some_and(hyper::Error::is_incomplete_message)
        });
        if broke { self.silent(why) } else { self.foreign(&why) }
    }

    fn silent(&self, why: String) -> NoReport {
        NoReport::Silent(self.clone(), why)
    }

    fn foreign(&self, why: &dyn fmt::Display) -> NoReport {
        NoReport::Foreign(self.clone(), words::plain(&why.to_string()))
    }

    fn if_foreign(&self) -> &'static str {
        match self {
            Self::Admin(..) => "the admin listener of this version of gossd: set --admin",
            Self::Control(_) => "the control socket of this version of gossd: set --control",
        }
    }

    fn if_silent(&self) -> &'static str {
        match self {
            Self::Admin(..) => {
                "is gossd running (`systemctl status gossd`)? If its admin listener is elsewhere, set --admin"
            }
            Self::Control(_) => "is `gossd run` running, as this user, with this --name?",
        }
    }
}

/// One thread: a verb waits for one answer.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// `path?key=value&...`, spelled as a URL wants it.
pub(super) fn path(path: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

/// Where a process on the same host reaches a listener.
pub(super) fn beside(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip().to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// The value of `--admin`, for those who ask an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminAddress {
    /// The agent has no admin listener.
    None,
    /// `host:port`.
    At(String),
}

/// Reads an [`AdminAddress`], also as `gossd run` prints it: a URL.
pub(super) fn parse_admin(text: &str) -> Result<AdminAddress, String> {
    if text == "none" {
        return Ok(AdminAddress::None);
    }
    let bare = text.strip_prefix("http://").map_or(text, |rest| rest.trim_end_matches('/'));
    let place = if bare.starts_with(':') { format!("127.0.0.1{bare}") } else { bare.to_owned() };
    Entrypoint::parse(&place).map_err(|e| format!("it {e}"))?;
    Ok(AdminAddress::At(place.parse().map_or(place, |listener| beside(listener).to_string())))
}

/// An error and its sources: the outer layers only name the step that went wrong.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_asked_where_a_process_of_this_host_reaches_it() {
        for (admin, reached) in [
            ("127.0.0.1:8001", "127.0.0.1:8001"),
            ("0.0.0.0:8001", "127.0.0.1:8001"),
            ("[::]:8001", "[::1]:8001"),
            (":8001", "127.0.0.1:8001"),
            ("gost-1.example.org:8001", "gost-1.example.org:8001"),
            ("http://127.0.0.1:8001/", "127.0.0.1:8001"),
        ] {
            assert_eq!(parse_admin(admin).unwrap(), AdminAddress::At(reached.into()));
        }
        assert_eq!(parse_admin("none"), Ok(AdminAddress::None));
        for (admin, why) in [("127.0.0.1", "host:port"), ("a:0", "port 0")] {
            assert!(parse_admin(admin).unwrap_err().contains(why), "{admin}");
        }
    }

    #[test]
    fn json_is_as_it_came_or_laid_out_in_the_same_order() {
        let reply = Reply { report: (), text: Bytes::from_static(br#"{"b":1,"a":[2]}"#) };
        assert_eq!(reply.json(false), "{\"b\":1,\"a\":[2]}\n");
        assert_eq!(reply.json(true), "{\n  \"b\": 1,\n  \"a\": [\n    2\n  ]\n}\n");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_not_waited_for_for_ever() {
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::at(mute.local_addr().unwrap());
        let error = client.get::<()>("/status.json").await.unwrap_err();
        assert!(matches!(error, NoReport::Silent(..)), "{error}");
        let error = client.open("/events", Some("1-1")).await.unwrap_err();
        assert!(matches!(error, NoReport::Silent(..)), "{error}");
    }

    #[test]
    fn a_question_may_have_any_characters() {
        assert_eq!(path("/p", &[("name", "a&b= ü"), ("limit", "1")]), "/p?name=a%26b%3D+%C3%BC&limit=1");
    }
}
