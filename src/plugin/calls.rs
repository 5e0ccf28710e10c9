//! One call from its head to the last byte of its answer: noted in the connection's progress, and bounded in time.
//! Knows no path and no meaning.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use axum::body::{Bytes, HttpBody};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::Service as _;
use hyper::{Method, Request, Response, Version};
use tokio::time::{Instant, timeout_at};

use super::adapter::{Adapter, Forged, Unserved};
use super::bounds::{Bounds, Closed};
use super::call::{Outcome, Verb};
use super::content::{self, Answer, Content, WatchedBody};
use super::gate::{Gate, ReadyAgent};
use super::metrics::Meter;
use super::progress::Progress;
use super::{Caller, Plugin, Program, adapter};
use crate::rejected::{Reason, RejectedCounts};
use crate::web_page::{self, OwnNames};

/// How much of a foreign host name is logged.
const MAX_SHOWN: usize = 100;

/// The calls of one connection.
pub(super) struct Calls {
    pub(super) gate: Gate,
    pub(super) caller: Caller,
    pub(super) progress: Arc<Progress>,
    pub(super) meter: Meter,
    pub(super) bounds: Bounds,
    /// The names of this host, if a call may name no other.
    pub(super) names: Option<Arc<OwnNames>>,
    /// The host that the first call named, and that is one of them: a gost names the same in every call.
    pub(super) known: OnceLock<Box<[u8]>>,
}

impl Calls {
    /// Who answers this call.
    async fn ready(&self, head: &Parts) -> Result<&ReadyAgent, Unserved> {
        // A browser is answered at once: it is none of those that wait for a starting agent.
        match self.forged(head) {
            Some(forged) => Err(Unserved::WebPage(forged)),
            None => self.gate.ready().await.ok_or(Unserved::Starting),
        }
    }

    /// Whether a web page made the request, which is counted then.
    fn forged(&self, Parts { headers, uri, .. }: &Parts) -> Option<Forged> {
        let rejected = &self.meter.rejected;
        if web_page::is_of_a_browser(headers) {
            rejected.count(Reason::WebPage, || {
                tracing::warn!(
                    "a web page tried to call the plugin, and was refused. With --token-file, or with --plugin-socket alone, \
                     no page can try"
                );
            });
            return Some(Forged::Browser);
        }
        let names = self.names.as_ref()?;
        let known = self.known.get().map(|host| &**host);
        let foreign = web_page::hosts(headers, uri).find(|host| known != Some(*host) && !names.has(host));
        let Some(foreign) = foreign else {
            if known.is_none() {
                self.known.get_or_init(|| web_page::hosts(headers, uri).next().unwrap_or_default().into());
            }
            return None;
        };
        rejected.count(Reason::Host, || {
            let host = String::from_utf8_lossy(&foreign[..foreign.len().min(MAX_SHOWN)]).into_owned();
            tracing::warn!(
                host,
                "a plugin call named a host that is not known to be this one, and was refused: it may be a web page's. If \
                 gost calls so, set --plugin-host to that name, or use --token-file"
            );
        });
        Some(Forged::Host)
    }
}

/// Serves one call. Every answer comes from memory, so a call that takes long is waiting for its own body.
pub(super) async fn follow(calls: Arc<Calls>, request: Request<Incoming>) -> Response<WatchedBody> {
    let started = Instant::now();
    let mut call = calls.progress.call(started.into_std());
    let (head, body) = request.into_parts();
    let (version, is_head) = (head.version, head.method == Method::HEAD);
    let adapter = adapter::of(&head.headers);
    let verb = adapter.verb(&head.method, head.uri.path());
    let (outcome, mut response) = match calls.ready(&head).await {
        Ok(ready) => {
            let deadline = started + calls.bounds.patience;
            let given = if let Some(verb) = verb {
                in_time(
                    deadline,
                    pin!(answer_to(
                        (&ready.plugin, &calls.meter.rejected),
                        calls.caller,
                        adapter,
                        verb,
                        &head,
                        body
                    )),
                )
                .await
            } else {
                in_time(
                    deadline,
                    pin!(other(ready, &calls.meter.rejected, adapter, Request::from_parts(head, body))),
                )
                .await
            };
            given.unwrap_or_else(|| {
                calls.meter.closed.count(Closed::SlowBody);
                (Outcome::Slow, adapter.turn_away(Unserved::TooSlow))
            })
        }
        Err(why) => (Outcome::Refused, adapter.turn_away(why)),
    };
    let ended = Instant::now();
    calls.meter.observe(adapter, verb, outcome, ended.duration_since(started));
    let age = call.answered(ended.into_std(), outcome.is_served());
    if age >= calls.bounds.guest && calls.gate.is_for_home(calls.caller) {
        send_home(&calls.progress, version, &mut response);
    }
    if is_head && let Some(length) = response.body_mut().cut() {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(|content| WatchedBody::new(content, call))
}

/// Answers one of gost's calls.
async fn answer_to<B>(
    (plugin, rejected): (&Plugin, &RejectedCounts),
    caller: Caller,
    adapter: &dyn Adapter,
    verb: Verb,
    head: &Parts,
    body: B,
) -> (Outcome, Answer)
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>>,
{
    let token = adapter.token(&head.headers);
    let answered = if let Err(refusal) = plugin.tokens.admit(token) {
        // The body is not kept, but it has to come before gost can use its connection again.
        content::discard(body, adapter.max_body()).await;
        rejected.count(Reason::Token, || {
            tracing::warn!("a plugin call was refused, so visitors of its gost are, too: {refusal}");
        });
        Err(refusal.into())
    } else {
        let body = content::read(body, adapter.max_body()).await;
        match body.as_deref().map_err(Clone::clone).and_then(|body| adapter.call(verb, head, body)) {
            Ok(call) => plugin.answer(caller, adapter.program(&head.headers), token, call).await,
            Err(why) => {
                let is_gosts = adapter.program(&head.headers) == Program::Gost;
                if is_gosts && matches!(why, Unserved::Malformed(_) | Unserved::Elsewhere(..)) {
                    misdirected(rejected, &head.method, head.uri.path(), &why.text());
                }
                return (Outcome::Refused, adapter.turn_away(why));
            }
        }
    };
    (Outcome::of(&answered), adapter.answer(&answered))
}

/// Answers a call that is none of gost's.
async fn other(
    ready: &ReadyAgent,
    rejected: &RejectedCounts,
    adapter: &dyn Adapter,
    request: Request<Incoming>,
) -> (Outcome, Answer) {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let is_gosts = adapter.program(request.headers()) == Program::Gost;
    let Ok(response) = ready.others.call(request).await;
    let response = response.map(Content::stream);
    let outcome = adapter.outcome(&response);
    // Whoever asks for the health of a service by a wrong name is no gost.
    if is_gosts && !uri.path().starts_with("/grpc.") && outcome != Outcome::Done {
        misdirected(rejected, &method, uri.path(), "nothing is served there");
    }
    (outcome, response)
}

/// Counts a call that means something else than what is served where it came, as by a `plugin.addr` that is wrong.
fn misdirected(rejected: &RejectedCounts, method: &Method, path: &str, why: &str) {
    rejected.count(Reason::Path, || {
        let path: String = path.chars().take(MAX_SHOWN).collect();
        tracing::warn!(
            %method, path,
            "a plugin call was refused: {why}. If gost makes it, `plugin.addr` in its configuration is not what `gossd \
             gost-config` prints: http://HOST:PORT/sd for `sds`, http://HOST:PORT/ingress for `ingresses`, and HOST:PORT for gRPC"
        );
    });
}

/// What a future gives before a deadline. Most give it at once, and need no timer.
async fn in_time<F: Future>(deadline: Instant, mut future: Pin<&mut F>) -> Option<F::Output> {
    match poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        Poll::Ready(given) => Some(given),
        Poll::Pending => timeout_at(deadline, future).await.ok(),
    }
}

/// Closes a connection after its answer, so that the caller dials anew and reaches its own agent first. An HTTP/1
/// caller learns it from a header, because closing the connection would lose a call that is on its way; HTTP/2 has a
/// frame for it.
fn send_home(progress: &Progress, version: Version, response: &mut Answer) {
    if version == Version::HTTP_2 {
        progress.wind_down();
    } else {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The answer to a whole request, as a fuzzer asks.
#[cfg(feature = "fuzz")]
pub async fn answer(plugin: &Plugin, caller: Caller, request: Request<Bytes>) -> Response<Bytes> {
    let (head, body) = request.into_parts();
    let adapter = adapter::of(&head.headers);
    let body = http_body_util::Full::new(body);
    let response = match adapter.verb(&head.method, head.uri.path()) {
        Some(verb) => {
            answer_to((plugin, &RejectedCounts::default()), caller, adapter, verb, &head, body).await.1
        }
        None => adapter.turn_away(Unserved::Elsewhere(head.method, head.uri)),
    };
    response.map(Content::into_bytes)
}
