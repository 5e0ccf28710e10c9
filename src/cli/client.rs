//! How the verbs ask a running agent: HTTP to its admin listener, with patience and bounds, and one clear line when
//! nobody answers or somebody else does. Knows nothing of what the reports say.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use clap::Args;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{table, words};
use crate::config::DEFAULT_ADMIN;
use gossd_core::address::Entrypoint;

/// A host that takes longer to connect to is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// An agent answers from memory: whatever is asked takes less.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: all that is said of a tunnel with 100,000 records is shorter.
const MAX_BODY: usize = 64 << 20;
/// Longest refusal that is repeated.
const MAX_REFUSAL: usize = 200;

/// Which agent is asked, and how its answer is printed.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The agent's admin listener
    #[arg(long, env = "GOSSD_ADMIN", value_name = "ADDR", default_value = DEFAULT_ADMIN, value_parser = parse_place)]
    admin: Place,
    /// The agent's configuration file, for its `admin`
    #[arg(long, env = "GOSSD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, as the agent says it
    #[arg(long)]
    pub(super) json: bool,
}

/// `host:port` of an admin listener, as it is reached.
#[derive(Clone, Debug)]
pub(super) struct Place(String);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReport {
    /// Nobody is there, or nobody says anything.
    #[error(
        "no agent answers at {admin} ({why}): is gossd running (`systemctl status gossd`)? If its admin listener is \
         elsewhere, say so with --admin"
    )]
    Silent {
        /// Who was asked.
        admin: String,
        /// What the system says.
        why: String,
    },
    /// Somebody else is there, or a gossd of another time.
    #[error(
        "what answers at {admin} is not the admin listener of this version of gossd ({why}): set --admin"
    )]
    Foreign {
        /// Who was asked.
        admin: String,
        /// What was wrong with the answer.
        why: String,
    },
    /// The question makes no sense to it.
    #[error("the agent at {admin} says: {why}")]
    Refused {
        /// Who was asked.
        admin: String,
        /// Its words.
        why: String,
    },
}

/// An answer: what it says, and as it came.
#[derive(Debug)]
pub(super) struct Reply<T> {
    /// What it says.
    pub(super) report: T,
    text: Bytes,
}

/// One agent's admin listener.
pub(super) struct AdminClient {
    admin: Place,
    http: Client<HttpConnector, Empty<Bytes>>,
}

impl Asked {
    /// Asks for one report.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Reply<T>> {
        let runtime = runtime()?;
        let reply = runtime.block_on(self.client().get(path));
        // A resolver that does not answer must not hold the end up.
        runtime.shutdown_background();
        Ok(reply?)
    }

    /// Prints a report as it was asked for: for people, or as JSON.
    pub(super) fn show<T>(&self, reply: &Reply<T>, page: impl Fn(&T) -> String) -> anyhow::Result<()> {
        let text = if self.json { reply.json(table::is_watched()) } else { page(&reply.report) };
        table::print(&text).context("cannot print")
    }

    /// The agent that is meant.
    pub(super) fn client(&self) -> AdminClient {
        AdminClient::new(self.admin.clone())
    }
}

impl<T> Reply<T> {
    /// Its JSON: on one line as it came, or laid out.
    fn json(&self, laid_out: bool) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let value = serde_json::from_str::<serde_json::Value>(&text).ok().filter(|_| laid_out);
        value.map_or_else(|| format!("{}\n", text.trim_end()), |value| format!("{value:#}\n"))
    }
}

impl AdminClient {
    /// Of an agent on this host that listens there.
    pub(super) fn at(listener: SocketAddr) -> Self {
        Self::new(Place(beside(listener).to_string()))
    }

    fn new(admin: Place) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        // No connection is kept: the next question may come after a restart of the agent.
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { admin, http }
    }

    /// Where it is asked.
    pub(super) fn admin(&self) -> &str {
        &self.admin.0
    }

    /// Asks for one report.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, NoReport> {
        let asked = async {
            let text = self.read(self.request(path, None).await?).await?;
            let report = serde_json::from_slice(&text).map_err(|error| self.foreign(&error))?;
            Ok(Reply { report, text })
        };
        timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(self.silent(format!("no answer within {PATIENCE:?}"))))
    }

    /// Opens a stream of events, those after a certain one.
    pub(super) async fn open(&self, path: &str, after: &str) -> Result<Body, NoReport> {
        let opened = timeout(PATIENCE, self.request(path, Some(after))).await;
        let answer = opened.unwrap_or_else(|_| Err(self.silent(format!("no answer within {PATIENCE:?}"))))?;
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_none_or(|kind| !kind.starts_with("text/event-stream")) {
            return Err(self.foreign(&"it sends no events"));
        }
        Ok(answer.into_body())
    }

    async fn request(&self, path: &str, after: Option<&str>) -> Result<Response<Body>, NoReport> {
        let mut request = Request::get(format!("http://{}{path}", self.admin.0));
        // Whatever name leads to it, the agent takes this one: others are how a page elsewhere would come.
        request = request.header(header::HOST, "localhost");
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Empty::new()).map_err(|error| self.foreign(&error))?;
        let answer = self.http.request(request).await.map_err(|error| self.failed(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.map(Body::new)),
            StatusCode::BAD_REQUEST => Err(self.refused(answer.map(Body::new)).await),
            other => Err(self.foreign(&other)),
        }
    }

    async fn read(&self, answer: Response<Body>) -> Result<Bytes, NoReport> {
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        body.map(Collected::to_bytes).map_err(|error| self.failed(&*error))
    }

    async fn refused(&self, answer: Response<Body>) -> NoReport {
        match self.read(answer).await {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                let why = text.trim().chars().take(MAX_REFUSAL).collect::<String>();
                NoReport::Refused { admin: self.admin.0.clone(), why: words::plain(&why) }
            }
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
        NoReport::Silent { admin: self.admin.0.clone(), why }
    }

    fn foreign(&self, why: &dyn std::fmt::Display) -> NoReport {
        NoReport::Foreign { admin: self.admin.0.clone(), why: words::plain(&why.to_string()) }
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

fn parse_place(text: &str) -> Result<Place, String> {
    if text == "none" {
        return Err("the agent has no admin listener to ask".into());
    }
    let text = if text.starts_with(':') { format!("127.0.0.1{text}") } else { text.to_owned() };
    Entrypoint::parse(&text).map_err(|e| format!("it {e}"))?;
    Ok(Place(text.parse().map_or(text, |listener| beside(listener).to_string())))
}

/// An error and what it comes from: its outer layers only say that something went wrong.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_asked_where_a_process_of_this_host_reaches_it() {
        for (told, reached) in [
            ("127.0.0.1:8001", "127.0.0.1:8001"),
            ("0.0.0.0:8001", "127.0.0.1:8001"),
            ("[::]:8001", "[::1]:8001"),
            (":8001", "127.0.0.1:8001"),
            ("gost-1.example.org:8001", "gost-1.example.org:8001"),
        ] {
            assert_eq!(parse_place(told).unwrap().0, reached);
        }
        for (told, why) in [("none", "no admin listener"), ("127.0.0.1", "host:port"), ("a:0", "port 0")] {
            assert!(parse_place(told).unwrap_err().contains(why), "{told}");
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
        let client = AdminClient::at(mute.local_addr().unwrap());
        let told = client.get::<()>("/status.json").await.unwrap_err();
        assert!(matches!(told, NoReport::Silent { .. }), "{told}");
        let told = client.open("/events", "1-1").await.unwrap_err();
        assert!(matches!(told, NoReport::Silent { .. }), "{told}");
    }

    #[test]
    fn a_question_may_have_any_characters() {
        assert_eq!(path("/p", &[("name", "a&b= ü"), ("limit", "1")]), "/p?name=a%26b%3D+%C3%BC&limit=1");
    }
}
