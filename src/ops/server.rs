//! Serves the connections of the admin listener and of the control socket: a bounded number of each, none of which can
//! delay anything else, or keep others out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::serve::Listener;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Ops;
use super::access::Access;
use super::connections::{AdminConnections, ConnectionPlace, ImpatientStream};
use super::routes::routes;

/// How long the head of a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes what a connection leads to, once its last answer is sent: an extension of every request.
pub(super) type Then = mpsc::Sender<BoxFuture<'static, ()>>;

/// Serves for ever. No error of a connection ends it. Whoever connects to the control socket may change the agent.
pub(crate) async fn serve<L: Listener>(ops: Arc<Ops>, mut listener: L, access: Access) -> anyhow::Result<()> {
    let app = routes(ops, &access);
    let is_control = matches!(access, Access::Control);
    let connections = Arc::new(AdminConnections::default());
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await;
        while tasks.try_join_next().is_some() {}
        if let Some(place) = connections.open() {
            tasks.spawn(connection(app.clone(), stream, place, is_control));
        }
    }
}

async fn connection<S>(app: Router, stream: S, place: ConnectionPlace, is_control: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (then, mut next) = mpsc::channel(1);
    let app = TowerToHyperService::new(app);
    let (streams, open) = (place.streams(), place.connection.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert::<Then>(then.clone());
        request.extensions_mut().insert(streams.clone());
        open.asked();
        let (answer, open) = (app.call(request), open.clone());
        async move {
            let answer = answer.await;
            open.answered();
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    // A change that has begun is made to its end, even if the client has gone meanwhile.
    http.half_close(is_control);
    let io = TokioIo::new(ImpatientStream::new(stream));
    tokio::select! {
        // Its errors are the client's.
        _ = http.serve_connection(io, service).with_upgrades() => {}
        () = place.connection.closing() => {}
    }
    if let Ok(then) = next.try_recv() {
        then.await;
    }
}
