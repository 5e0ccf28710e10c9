//! Serves the admin listener's connections, a bounded number of them, none of which can hold anything up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Admin, routes};

/// Connections at a time: operators, scrapers and probes of one host. More are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves for ever. No error of a connection ends it.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) -> anyhow::Result<()> {
    let app = routes(admin);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(app.clone());
        tasks.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
            // Its errors are the reader's.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

/// Answers whoever asked by an address or as `localhost`. A page elsewhere whose own name was made to lead here
/// would ask by that name.
pub(super) async fn only_by_address(request: Request, next: Next) -> Response {
    let asked = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if asked.is_none_or(is_address) {
        return next.run(request).await;
    }
    let text = "ask by an IP address or as localhost: other names could lead a browser's pages here\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn is_address(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_answered() {
        for host in ["127.0.0.1:8001", "10.0.0.1", "[::1]:8001", "[::1]", "localhost:8001", "LOCALHOST"] {
            assert!(is_address(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example:1", ""]
        {
            assert!(!is_address(host), "{host}");
        }
    }
}
