//! The seam between the meaning of a call and its encoding: each protocol is an adapter, and no other part of the
//! plugin knows a protocol. An adapter translates, and waits for nothing.

use axum::Router;
use axum::body::Body;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Uri};

use super::call::{Call, Outcome, Reply, Verb};
use super::content::{Answer, MAX_MESSAGE};
use super::{CallError, Program, grpc, http};

/// The protocols in which gost calls, most specific first: the last one takes every other call.
const ADAPTERS: [&dyn Adapter; 2] = [&grpc::Grpc, &http::Http];

/// A protocol.
pub(super) trait Adapter: Sync {
    /// The protocol's name in metrics.
    fn word(&self) -> &'static str;

    /// Whether a call is in this protocol, whatever its path.
    fn takes(&self, headers: &HeaderMap) -> bool;

    /// Longest body: a message of [`MAX_MESSAGE`], and what is around it.
    fn max_body(&self) -> usize;

    /// What a call is; none if it is not made to a plugin.
    fn verb(&self, method: &Method, path: &str) -> Option<Verb>;

    /// The token of a call.
    fn token<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]>;

    /// The program that calls.
    fn program(&self, headers: &HeaderMap) -> Program;

    /// Takes a call apart.
    fn call<'a>(&self, verb: Verb, head: &'a Parts, body: &'a [u8]) -> Result<Call<'a>, Unserved>;

    /// The answer to a call.
    fn answer(&self, answered: &Result<Reply, CallError>) -> Answer;

    /// The answer to a call that no plugin answers.
    fn turn_away(&self, why: Unserved) -> Answer;

    /// How a call to one of the [`others`] ended.
    fn outcome(&self, response: &Answer) -> Outcome;
}

/// Why no plugin answers a call.
#[derive(Clone, Debug)]
pub(super) enum Unserved {
    /// The agent has not read its journal yet.
    Starting,
    /// The request body did not arrive in time.
    TooSlow,
    /// The request body is over [`Adapter::max_body`].
    TooLong,
    /// The request body ended before its end.
    Broken,
    /// The message is compressed.
    Compressed,
    /// The request body is not what the protocol says; why not.
    Malformed(String),
    /// No plugin is at this path, or none of its calls has this method.
    Elsewhere(Method, Uri),
    /// It is no call of gost's but a web page's.
    WebPage(Forged),
}

/// How a web page's request was recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forged {
    /// By headers that only browsers send.
    Browser,
    /// By a host that is not this one.
    Host,
}

impl Unserved {
    /// For the caller, who may be an operator.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Starting => "this agent is starting and has not read its journal yet".into(),
            Self::TooSlow => "the body did not arrive in time".into(),
            Self::TooLong => format!("the body is over {MAX_MESSAGE} bytes"),
            Self::Broken => "the body ended early".into(),
            Self::Compressed => "the message is compressed: no encoding was offered".into(),
            Self::Malformed(why) => why.clone(),
            Self::WebPage(Forged::Browser) => {
                "a browser sent this, and gost's plugins are for gost: web pages are refused".into()
            }
            Self::WebPage(Forged::Host) => {
                "the host of this URL is not known to be this one: use an IP address, localhost or a name without a dot, \
                 set --plugin-host on the agent, or use tokens".into()
            }
            Self::Elsewhere(_, uri) => format!("nothing is served at {}", uri.path()),
        }
    }
}

/// The protocol of a call.
pub(super) fn of(headers: &HeaderMap) -> &'static dyn Adapter {
    let [others @ .., last] = &ADAPTERS;
    *others.iter().find(|adapter| adapter.takes(headers)).unwrap_or(last)
}

/// What the protocols serve beside the plugins: to a call that is none of gost's.
pub(super) async fn others() -> Router {
    grpc::others().await.fallback(elsewhere)
}

/// Answers where the plugins are, in the caller's protocol.
async fn elsewhere(method: Method, uri: Uri, headers: HeaderMap) -> axum::http::Response<Body> {
    of(&headers).turn_away(Unserved::Elsewhere(method, uri)).map(|content| content.into_bytes().into())
}
