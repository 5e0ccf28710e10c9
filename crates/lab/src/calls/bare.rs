//! What an agent is compared with: handlers on the same libraries that return the same bytes and do nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use axum::routing::{get, post};
use gossd::plugin::grpc::generated as proto;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::TcpListener;

/// Recorded answers of an agent.
#[derive(Clone)]
pub(crate) struct Answers {
    /// The answer to a Get over HTTP.
    pub get: Bytes,
    /// The answer to a Get over gRPC: the message with its prefix.
    pub get_grpc: Bytes,
}

/// Serves recorded answers. Returns the address.
pub(crate) async fn serve_recorded(answers: Answers) -> anyhow::Result<SocketAddr> {
    let sd = get(|State(answers): State<Answers>| async move {
        ([(header::CONTENT_TYPE, "application/json")], answers.get)
    });
    let app = Router::new()
        .route("/sd", sd.put(|_: Bytes| async {}))
        .route(
            "/proto.SD/Get",
            post(|State(answers): State<Answers>, _: Bytes| async move { grpc(answers.get_grpc) }),
        )
        .route("/proto.SD/Renew", post(|_: Bytes| async { grpc(framed(&proto::RenewReply { ok: true })) }))
        .with_state(answers);
    serve(app).await
}

/// A message in gRPC's framing.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or_default().to_be_bytes());
    framed.extend_from_slice(&encoded);
    framed.into()
}

pub(crate) fn grpc(message: Bytes) -> Response<Body> {
    let trailers =
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

pub(crate) async fn serve(app: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let builder = Arc::new(auto::Builder::new(TokioExecutor::new()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (builder, app) = (builder.clone(), app.clone());
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let service = TowerToHyperService::new(app);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}
