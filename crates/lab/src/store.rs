//! What gossd is compared with: a minimal plugin that keeps its records in Redis, as gost's own does: a hash for each tunnel, with
//! a field for each connector, which expires a minute after the last Renew. The redis-server (Debian: redis-server) is started
//! and ended here.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use gossd::plugin::grpc::generated as proto;
use prost::Message as _;
use rand::seq::SliceRandom as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, AsyncConnectionConfig};

use crate::calls::bare::{self, framed};
use crate::process::free_address;

/// For how many seconds a record stays without a Renew: the plugin's default.
pub(crate) const EXPIRY: i64 = 60;
/// For how long the plugin waits for Redis: go-redis's default.
const PATIENCE: Duration = Duration::from_secs(3);

/// A record as the plugin keeps it in a field.
#[derive(serde::Serialize, serde::Deserialize)]
struct RedisRecord {
    id: String,
    name: String,
    node: String,
    network: String,
    address: String,
}

#[derive(Clone)]
struct Plugin {
    redis: MultiplexedConnection,
    /// In seconds.
    expiry: i64,
}

/// Serves Get and Renew over gRPC, and Get and Register over HTTP. Records expire after so many seconds.
pub(crate) async fn serve(redis: MultiplexedConnection, expiry: i64) -> anyhow::Result<SocketAddr> {
    let app = Router::new()
        .route("/proto.SD/Get", post(get_by_grpc))
        .route("/proto.SD/Renew", post(renew_by_grpc))
        .route("/sd", get(get_by_http).post(register_by_http))
        .with_state(Plugin { redis, expiry });
    bare::serve(app).await
}

async fn get_by_grpc(State(plugin): State<Plugin>, body: Bytes) -> Response<Body> {
    let answer = async {
        let request = proto::GetServiceRequest::decode(body.get(5..).unwrap_or_default())?;
        let services = records(plugin.redis, &request.name).await?.into_iter();
        let services = services.map(|RedisRecord { id, name, node, network, address }| proto::Service {
            id,
            name,
            node,
            network,
            address,
        });
        anyhow::Ok(proto::GetServiceReply { services: services.collect() })
    };
    bare::grpc(framed(&answer.await.expect("Redis answers")))
}

async fn renew_by_grpc(State(mut plugin): State<Plugin>, body: Bytes) -> Response<Body> {
    let answer = async {
        let request = proto::RenewRequest::decode(body.get(5..).unwrap_or_default())?;
        let service = request.service.context("a service")?;
        let ok: bool = plugin.redis.expire(key(&service.name), plugin.expiry).await?;
        anyhow::Ok(proto::RenewReply { ok })
    };
    bare::grpc(framed(&answer.await.expect("Redis answers")))
}

#[derive(serde::Deserialize)]
struct Named {
    name: String,
}

async fn get_by_http(
    State(plugin): State<Plugin>,
    Query(Named { name }): Query<Named>,
) -> Result<String, StatusCode> {
    let answer = async {
        anyhow::Ok(serde_json::json!({ "services": records(plugin.redis, &name).await? }).to_string())
    };
    answer.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn register_by_http(State(plugin): State<Plugin>, body: String) -> Result<&'static str, StatusCode> {
    let registered = async { register(plugin, serde_json::from_str(&body)?).await };
    registered.await.map(|()| r#"{"ok":true}"#).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn records(mut redis: MultiplexedConnection, tunnel: &str) -> anyhow::Result<Vec<RedisRecord>> {
    let found: Vec<(String, String)> = redis.hgetall(key(tunnel)).await?;
    let mut records =
        found.iter().map(|(_, value)| serde_json::from_str(value)).collect::<Result<Vec<_>, _>>()?;
    records.shuffle(&mut rand::rng());
    Ok(records)
}

async fn register(mut plugin: Plugin, record: RedisRecord) -> anyhow::Result<()> {
    let (key, value) = (key(&record.name), serde_json::to_string(&record)?);
    let mut both = redis::pipe();
    both.hset(&key, &record.id, value).ignore().expire(&key, plugin.expiry).ignore();
    Ok(both.query_async(&mut plugin.redis).await?)
}

pub(crate) fn key(tunnel: &str) -> String {
    format!("gost:sd:{tunnel}")
}

/// A connection to the Redis at an address.
pub(crate) async fn connect(redis: SocketAddr) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let client = redis::Client::open(format!("redis://{redis}/"))?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// A redis-server, ended when this is dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Redis {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let addr = free_address();
        let mut command = Command::new("redis-server");
        command.args(["--bind", &addr.ip().to_string(), "--save", "", "--port", &addr.port().to_string()]);
        let child = command
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server (Debian: apt-get install redis-server)")?;
        let started = Self { child, addr };
        for _ in 0..100 {
            if connect(addr).await.is_ok() {
                return Ok(started);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("redis-server does not answer")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
