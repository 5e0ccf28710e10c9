//! The bodies of calls and of their answers.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{HeaderMap, Response};

use super::adapter::Unserved;
use super::progress::CallInFlight;

/// Longest message of a call: a hundred times gost's.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// Answers are sent in pieces of this size, so that a client that stops reading in the middle is noticed.
const PIECE: usize = 16 << 10;

/// Reads a call's body whole, up to so many bytes.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, Unserved>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unserved::TooLong),
        Err(_) => Err(Unserved::Broken),
    }
}

/// Reads a call's body and keeps nothing, up to so many bytes.
pub(super) async fn discard<B>(body: B, limit: usize)
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let mut body = pin!(Limited::new(body, limit));
    while let Some(Ok(_)) = body.frame().await {}
}

/// An answer.
pub(super) type Answer = Response<Content>;

/// The body of an answer.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// What is there at once; the rest of a piece of `stream`.
    bytes: Bytes,
    /// Makes the headers behind the bytes.
    trailers: Option<fn() -> HeaderMap>,
    /// What other services than the plugins say, in their time.
    stream: Option<Body>,
}

impl Content {
    /// An answer that ends with its bytes.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    /// Bytes, and headers behind them.
    pub(super) fn with_trailers(bytes: impl Into<Bytes>, trailers: fn() -> HeaderMap) -> Self {
        Self { bytes: bytes.into(), trailers: Some(trailers), stream: None }
    }

    /// What another service says.
    pub(super) fn stream(body: Body) -> Self {
        Self { stream: Some(body), ..Self::default() }
    }

    /// Takes the answer away from its head, which was all that was asked for; how long it would have been. Another service has
    /// done so itself.
    pub(super) fn cut(&mut self) -> Option<usize> {
        let Self { bytes, stream, .. } = std::mem::take(self);
        stream.is_none().then_some(bytes.len())
    }

    /// All of an answer that ends with its bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// A response body that notes when the client stops reading it.
pub(super) struct WatchedBody {
    content: Content,
    call: CallInFlight,
}

impl WatchedBody {
    pub(super) fn new(content: Content, call: CallInFlight) -> Self {
        Self { content, call }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { content, call } = &mut *self;
        if content.bytes.is_empty()
            && let Some(stream) = &mut content.stream
        {
            let Poll::Ready(frame) = Pin::new(stream).poll_frame(context) else {
                call.pause();
                return Poll::Pending;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => content.bytes = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        } else if content.bytes.is_empty() {
            return Poll::Ready(content.trailers.take().map(|trailers| Ok(Frame::trailers(trailers()))));
        }
        call.offer();
        let len = content.bytes.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(content.bytes.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        let Content { bytes, trailers, stream } = &self.content;
        bytes.is_empty() && trailers.is_none() && stream.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// Exact if nothing comes behind the bytes.
    fn size_hint(&self) -> SizeHint {
        let Content { bytes, trailers, stream } = &self.content;
        let held = bytes.len() as u64;
        let rest = stream.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper().filter(|_| trailers.is_none()) {
            hint.set_upper(upper + held);
        }
        hint
    }
}
