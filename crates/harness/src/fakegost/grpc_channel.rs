//! A gRPC channel that fails and recovers like grpc-go's, which differs from tonic's. Each address that fails has a
//! back-off of its own. The addresses of a name are tried in order, at the latest a quarter of a second apart. When all
//! have failed, every call fails at once, until a dial in the background succeeds. Knows nothing of the calls.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::body::Body;
use tonic::codegen::{Service, http};

use crate::grpc_connection::{GrpcConnection, GrpcResponse, Unsent};
use crate::resolve::resolve;

/// grpc-go's back-off: one second, then 1.6 times the last, with 20 % jitter except at the first.
const FIRST_BACKOFF: f64 = 1.0;
const BACKOFF_FACTOR: f64 = 1.6;
const JITTER: f64 = 0.2;
const MAX_BACKOFF: f64 = 120.0;
/// After how long the next address is tried while this one is still being dialled.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Why a call fails without having been sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the channel is broken: {0}")]
pub(crate) struct ChannelError(String);

/// Like one `grpc.ClientConn`.
#[derive(Clone)]
pub(crate) struct GrpcChannel {
    /// `HOST:PORT`, also the authority of calls.
    target: Arc<str>,
    state: Arc<watch::Sender<ChannelState>>,
    /// The call that finds the channel idle dials.
    dialling: Arc<Mutex<()>>,
}

#[derive(Clone)]
enum ChannelState {
    /// Not connected; the next call dials.
    Idle,
    Connecting,
    Ready(GrpcConnection),
    /// All addresses failed: calls fail until one is connected.
    Failing(ChannelError),
}

impl GrpcChannel {
    pub(crate) fn new(target: &str) -> Self {
        let state = Arc::new(watch::Sender::new(ChannelState::Idle));
        Self { target: target.into(), state, dialling: Arc::default() }
    }

    /// Sends a call. A call that a closing connection did not process is sent over the next one.
    pub(crate) async fn send(&self, mut request: http::Request<Body>) -> Result<GrpcResponse, tonic::Status> {
        loop {
            let connection =
                self.connection().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
            match connection.send(request).await {
                Ok(answer) => return Ok(answer),
                Err(Unsent::Failed(status)) => return Err(status),
                Err(Unsent::NotTaken(again)) => {
                    request = *again;
                    self.ended(&connection);
                }
            }
        }
    }

    async fn connection(&self) -> Result<GrpcConnection, ChannelError> {
        let mut states = self.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                ChannelState::Ready(connection) => return Ok(connection),
                ChannelState::Failing(why) => return Err(why),
                ChannelState::Connecting => drop(states.changed().await),
                ChannelState::Idle => self.start(),
            }
        }
    }

    fn start(&self) {
        let _one = self.dialling.lock().expect("no panic holds it");
        if matches!(*self.state.borrow(), ChannelState::Idle) {
            self.state.send_replace(ChannelState::Connecting);
            tokio::spawn(self.clone().connect());
        }
    }

    /// Dials until a connection is there, however long that takes.
    async fn connect(self) {
        let addresses = match resolve(&self.target).await {
            Ok(addresses) => addresses,
            Err(error) => {
                // The name has no address. grpc-go resolves it again after another back-off.
                self.state.send_replace(ChannelState::Failing(ChannelError(format!("{error:#}"))));
                sleep(Duration::from_secs_f64(FIRST_BACKOFF)).await;
                self.state.send_replace(ChannelState::Idle);
                return;
            }
        };
        let tried = addresses.into_iter().map(|address| AddressState::new(address.to_string())).collect();
        let connection = match first_pass(tried).await {
            Ok(connection) => connection,
            Err((failed, why)) => {
                self.state.send_replace(ChannelState::Failing(why));
                let mut dials: FuturesUnordered<_> =
                    failed.into_iter().map(AddressState::dial_for_ever).collect();
                dials.next().await.expect("a name has an address")
            }
        };
        let (channel, ending) = (self.clone(), connection.clone());
        self.state.send_replace(ChannelState::Ready(connection));
        tokio::spawn(async move {
            ending.ended().await;
            channel.ended(&ending);
        });
    }

    fn ended(&self, connection: &GrpcConnection) {
        self.state.send_if_modified(|state| {
            let is_current = matches!(state, ChannelState::Ready(current) if current.is(connection));
            if is_current {
                *state = ChannelState::Idle;
            }
            is_current
        });
    }
}

/// One address, and how often it has failed.
struct AddressState {
    at: String,
    failures: u32,
    /// When it may be dialled again.
    not_before: Instant,
}

impl AddressState {
    fn new(address: String) -> Self {
        Self { at: address, failures: 0, not_before: Instant::now() }
    }

    /// One attempt. Until the server's preface arrives, it may take as long as the back-off after it.
    async fn dial(mut self) -> Result<GrpcConnection, (Self, ChannelError)> {
        let backoff = backoff(self.failures);
        let dialled = timeout(backoff, GrpcConnection::dial(&self.at)).await;
        let error = match dialled {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => format!("{}: {error:#}", self.at),
            Err(_) => format!("{}: no preface in {backoff:?}", self.at),
        };
        self.failures += 1;
        self.not_before = Instant::now() + backoff;
        Err((self, ChannelError(error)))
    }

    async fn dial_for_ever(mut self) -> GrpcConnection {
        loop {
            sleep_until(self.not_before).await;
            match self.dial().await {
                Ok(connection) => return connection,
                Err((failed, _)) => self = failed,
            }
        }
    }
}

/// How long an attempt may take, and the back-off after it.
fn backoff(failures: u32) -> Duration {
    let steps = i32::try_from(failures).unwrap_or(i32::MAX);
    let backoff = (FIRST_BACKOFF * BACKOFF_FACTOR.powi(steps)).min(MAX_BACKOFF);
    let jitter = if failures == 0 { 1.0 } else { rand::random_range(1.0 - JITTER..1.0 + JITTER) };
    Duration::from_secs_f64(backoff * jitter)
}

/// Dials the addresses in order: the next one at once after a failure, or in parallel after a while.
async fn first_pass(
    addresses: Vec<AddressState>,
) -> Result<GrpcConnection, (Vec<AddressState>, ChannelError)> {
    let mut waiting = addresses.into_iter();
    let mut dials = FuturesUnordered::new();
    dials.extend(waiting.next().map(AddressState::dial));
    let mut failed = Vec::new();
    loop {
        let next = sleep(NEXT_ADDRESS);
        let ended = tokio::select! {
            ended = dials.next() => ended,
            () = next, if waiting.len() > 0 => None,
        };
        let why = match ended {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err((address, why))) => {
                failed.push(address);
                Some(why)
            }
            None => None,
        };
        dials.extend(waiting.next().map(AddressState::dial));
        if dials.is_empty() {
            return Err((failed, why.unwrap_or_else(|| ChannelError("no address".into()))));
        }
    }
}

impl Service<http::Request<Body>> for GrpcChannel {
    type Response = GrpcResponse;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<GrpcResponse, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let uri = format!("http://{}{path}", channel.target);
            *request.uri_mut() = uri.parse().map_err(|_| tonic::Status::internal("no URI"))?;
            channel.send(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_rises_to_two_minutes() {
        assert_eq!(backoff(0), Duration::from_secs(1));
        for (failures, base) in [(1, 1.6), (2, 2.56), (9, 68.7), (11, 120.0), (1_000, 120.0)] {
            let (least, most) = (base * (1.0 - JITTER) - 0.1, base * (1.0 + JITTER) + 0.1);
            let drawn = backoff(failures).as_secs_f64();
            assert!((least..=most).contains(&drawn), "{failures}: {drawn}");
        }
    }
}
