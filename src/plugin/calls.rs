//! One call from its head to the last byte of its answer: noted in the connection's progress, and bounded in time.
//! Knows no path and no meaning.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::adapter::{Forged, Unserved};
use super::bounds::{Bounds, Closed};
use super::gate::Gate;
use super::metrics::{Labels, Meter};
use super::progress::{CallInFlight, Progress};
use super::{Caller, adapter};
use crate::rejected::Reason;
use crate::web_page::{self, OwnNames};

/// How much of a foreign host name is logged.
const MAX_SHOWN: usize = 100;
/// Answers are sent in pieces of this size, so that a client that stops reading in the middle is noticed.
const PIECE: usize = 16 << 10;

/// The calls of one connection.
pub(super) struct Calls {
    pub(super) gate: Gate,
    /// The routes that serve the calls, once the gate is open.
    pub(super) app: OnceCell<TowerToHyperService<Router>>,
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
    async fn app(&self) -> Option<&TowerToHyperService<Router>> {
        let app = || async { self.gate.app().await.map(TowerToHyperService::new).ok_or(()) };
        self.app.get_or_try_init(app).await.ok()
    }

    /// Whether a web page made the request, which is counted then.
    fn forged(&self, request: &Request) -> Option<Forged> {
        let (headers, uri) = (request.headers(), request.uri());
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

/// Serves one call. Every answer comes from memory, so a call that takes long is waiting for its own body. This is no
/// axum layer, because a layer would box and move every call.
pub(super) async fn follow(calls: Arc<Calls>, mut request: Request) -> Response {
    let started = Instant::now();
    let mut call = calls.progress.call(started.into_std());
    let adapter = adapter::of(request.headers());
    let labels = Labels::of(adapter, &request);
    let version = request.version();
    request.extensions_mut().insert(calls.caller);
    let forged = calls.forged(&request);
    // A browser is answered at once: it is none of those that wait for a starting agent.
    let app = if forged.is_some() { None } else { calls.app().await };
    let mut response = match app {
        Some(app) => in_time(started + calls.bounds.patience, app.call(request)).await.map_or_else(
            || {
                calls.meter.closed.count(Closed::SlowBody);
                adapter.turn_away(Unserved::TooSlow)
            },
            |Ok(response)| response,
        ),
        None => adapter.turn_away(forged.map_or(Unserved::Starting, Unserved::WebPage)),
    };
    let ended = Instant::now();
    calls.meter.observe(&labels.with(adapter.outcome(&response)), ended.duration_since(started));
    let age = call.answered(ended.into_std(), adapter.is_served(&response));
    if age >= calls.bounds.guest && calls.gate.is_for_home(calls.caller) {
        send_home(&calls.progress, version, &mut response);
    }
    response.map(|body| Body::new(WatchedBody { body, piece: Bytes::new(), call }))
}

/// What a future gives before a deadline. Most give it at once, and need no timer.
async fn in_time<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        Poll::Ready(given) => Some(given),
        Poll::Pending => timeout_at(deadline, future).await.ok(),
    }
}

/// Closes a connection after its answer, so that the caller dials anew and reaches its own agent first. An HTTP/1
/// caller learns it from a header, because closing the connection would lose a call that is on its way; HTTP/2 has a
/// frame for it.
fn send_home(progress: &Progress, version: Version, response: &mut Response) {
    if version == Version::HTTP_2 {
        progress.wind_down();
    } else {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A response body that notes when the client stops reading it.
struct WatchedBody {
    body: Body,
    /// The rest of a frame that is too large for one piece.
    piece: Bytes,
    call: CallInFlight,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.piece.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                self.call.pause();
                return Poll::Pending;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.piece = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.call.offer();
        let len = self.piece.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let held = self.piece.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}
