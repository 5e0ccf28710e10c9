//! `gossd demo`: three agents in this process, with made-up gosts, tunnels and visitors, so that the page has something to
//! show. Everything is on loopback, on free ports, and in memory.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rand::{Rng as _, RngExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use super::{client, table};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::net::keyfile;
use gossd_core::link::keyring::Keyring;

/// The hosts.
const HOSTS: [&str; 3] = ["paris", "osaka", "lima"];
/// What visitors ask for; each is a tunnel of its own.
const SITES: [&str; 8] = ["shop", "blog", "wiki", "git", "chat", "mail", "api", "cdn"];
/// Between two visitors.
const VISIT: Duration = Duration::from_millis(40);
/// Between two Renews of a record.
const RENEW: Duration = Duration::from_secs(4);
/// Between two clients that move to another host.
const MOVE: Duration = Duration::from_secs(3);
/// Between two gosts that crash, and how long each is away.
const CRASH: (Duration, Duration) = (Duration::from_secs(25), Duration::from_secs(5));

pub(super) fn demo() -> anyhow::Result<()> {
    let runtime = client::runtime()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run() => ended,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for ctrl-c"),
        }
    });
    runtime.shutdown_background();
    ended
}

async fn run() -> anyhow::Result<()> {
    let keyring = Keyring::parse(&keyfile::generate().line())?;
    let mut agents = Vec::new();
    for name in HOSTS {
        let config = Config {
            admin: Some((Ipv4Addr::LOCALHOST, 0).into()),
            keyring: keyring.clone(),
            join: agents.iter().map(|agent: &Daemon| agent.gossip.into()).collect(),
            ..Config::loopback(name.parse()?)
        };
        agents.push(Daemon::start(config).await?);
    }
    let admins: Vec<SocketAddr> = agents.iter().filter_map(|agent| agent.admin).collect();
    let [first, others @ ..] = &admins[..] else { anyhow::bail!("no agent has a page") };
    let others: Vec<String> = others.iter().map(|admin| format!("http://{admin}/")).collect();
    table::print(&format!(
        "{} agents with {} made-up tunnels and visitors:  http://{first}/\n\
         the other agents:  {}\n\
         ask them:          gossd members --admin {first};  gossd explain {}.example.org --admin {first}\n\
         Clients move, and a gost crashes from time to time. Nothing is written to disk; ctrl-c ends it.\n",
        HOSTS.len(),
        SITES.len(),
        others.join("  "),
        SITES[0],
    ))?;
    let plugins: Vec<SocketAddr> = agents.iter().map(|agent| agent.plugin).collect();
    let mut tasks = JoinSet::new();
    tasks.spawn(visit(plugins.clone()));
    tasks.spawn(serve(plugins));
    let [one, two, three] = &mut agents[..] else { anyhow::bail!("there are three agents") };
    tokio::select! {
        ended = tasks.join_next() => match ended {
            Some(ended) => ended?,
            None => Ok(()),
        },
        fault = one.fault() => Err(fault),
        fault = two.fault() => Err(fault),
        fault = three.fault() => Err(fault),
    }
}

/// A gost, as far as an agent sees one: an entrypoint, a plugin connection, and connectors.
struct MadeUpGost {
    plugin: SocketAddr,
    node: String,
    entrypoint: SocketAddr,
    connectors: Vec<Connector>,
    calls: Calls,
    /// Ends the entrypoint when it is dropped.
    _answering: JoinSet<()>,
}

/// A client of a tunnel that is connected.
struct Connector {
    id: String,
    site: usize,
}

/// A kept-alive connection to a plugin.
struct Calls(SendRequest<Full<Bytes>>);

impl Calls {
    async fn to(plugin: SocketAddr) -> anyhow::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(plugin).await?)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn call(&mut self, method: Method, target: &str, body: String) -> anyhow::Result<()> {
        self.0.ready().await?;
        let request = Request::builder().method(method).uri(target).header(header::HOST, "localhost");
        let answer = self.0.send_request(request.body(Full::new(body.into()))?).await?;
        answer.into_body().collect().await?;
        Ok(())
    }
}

impl MadeUpGost {
    async fn start(plugin: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let entrypoint = listener.local_addr()?;
        let mut answering = JoinSet::new();
        answering.spawn(answer(listener));
        let calls = Calls::to(plugin).await?;
        Ok(Self { plugin, node: uuid(), entrypoint, connectors: Vec::new(), calls, _answering: answering })
    }

    async fn say(&mut self, method: Method, connector: &Connector) -> anyhow::Result<()> {
        let body = json!({
            "id": connector.id, "name": tunnel(connector.site), "node": self.node, "network": "tcp",
            "address": self.entrypoint.to_string(),
        });
        self.calls.call(method, "/sd", body.to_string()).await
    }

    async fn attach(&mut self, site: usize) -> anyhow::Result<()> {
        let connector = Connector { id: uuid(), site };
        self.say(Method::POST, &connector).await?;
        let rule = json!({ "host": host(site), "endpoint": tunnel(site) });
        self.calls.call(Method::PUT, "/ingress", rule.to_string()).await?;
        self.connectors.push(connector);
        Ok(())
    }

    async fn detach(&mut self, at: usize) -> anyhow::Result<usize> {
        let connector = self.connectors.swap_remove(at);
        self.say(Method::DELETE, &connector).await?;
        Ok(connector.site)
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        for connector in std::mem::take(&mut self.connectors) {
            self.say(Method::PUT, &connector).await?;
            self.connectors.push(connector);
        }
        Ok(())
    }
}

/// Clients come, move and reconnect; a gost crashes and is started again.
async fn serve(plugins: Vec<SocketAddr>) -> anyhow::Result<()> {
    let mut gosts = Vec::new();
    for plugin in plugins {
        gosts.push(MadeUpGost::start(plugin).await?);
    }
    for site in 0..SITES.len() {
        gosts[site % HOSTS.len()].attach(site).await?;
        if site % 3 == 0 {
            gosts[(site + 1) % HOSTS.len()].attach(site).await?;
        }
    }
    let (mut renew, mut moves) = (interval(RENEW), interval(MOVE));
    let mut crash = Instant::now() + CRASH.0;
    loop {
        tokio::select! {
            _ = renew.tick() => for gost in &mut gosts { gost.renew().await?; },
            _ = moves.tick() => {
                let [from, to] = [rand::rng().random_range(0..gosts.len()), rand::rng().random_range(0..gosts.len())];
                if from != to && !gosts[from].connectors.is_empty() {
                    let site = gosts[from].detach(0).await?;
                    gosts[to].attach(site).await?;
                }
            }
            () = tokio::time::sleep_until(crash) => {
                crash += CRASH.0;
                let gost = gosts.swap_remove(rand::rng().random_range(0..gosts.len()));
                let (plugin, sites) = (gost.plugin, gost.connectors.iter().map(|connector| connector.site));
                let sites: Vec<usize> = sites.collect();
                drop(gost);
                sleep(CRASH.1).await;
                let mut again = MadeUpGost::start(plugin).await?;
                for site in sites {
                    again.attach(site).await?;
                }
                gosts.push(again);
            }
        }
    }
}

/// Visitors come to any host.
async fn visit(plugins: Vec<SocketAddr>) -> anyhow::Result<()> {
    let mut calls = Vec::new();
    for plugin in plugins {
        calls.push(Calls::to(plugin).await?);
    }
    let mut visits = interval(VISIT);
    loop {
        visits.tick().await;
        let site = rand::rng().random_range(0..SITES.len());
        let at = rand::rng().random_range(0..calls.len());
        calls[at].call(Method::GET, &format!("/ingress?host={}", host(site)), String::new()).await?;
        calls[at].call(Method::GET, &format!("/sd?name={}", tunnel(site)), String::new()).await?;
    }
}

/// Answers whoever dials: an agent's probe, mostly.
async fn answer(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut asked = [0; 1_024];
        if stream.read(&mut asked).await.is_ok_and(|len| len > 0) {
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
}

fn host(site: usize) -> String {
    format!("{}.example.org", SITES[site])
}

/// The same for every run.
fn tunnel(site: usize) -> String {
    let start = 0x9e37_79b9_usize.wrapping_mul(site + 1) & 0xffff_ffff;
    format!("{start:08x}-0000-4000-8000-00000000{:04x}", site + 1)
}

fn uuid() -> String {
    let [a, b] = [rand::rng().next_u64(), rand::rng().next_u64()];
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}
