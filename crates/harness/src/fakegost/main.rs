//! `fakegost`: what runs beside the agents in the tests in containers. It plays gost, tunnel clients and visitors, and
//! breaks the network and the disk under them. One static binary, one verb per container.
//!
//! Every verb ends at once on SIGTERM, without goodbye, as gost does; only what it changed in the kernel is put
//! back. It knows nothing of how gossd decides: of the crate it uses the gRPC bindings alone. Which of gost's habits it
//! has stands in `FACTS.md`.

mod bind;
mod block;
mod client;
mod connector;
mod crowd;
mod disk;
mod entrypoint;
mod fate;
mod get;
mod gost;
mod grpc_channel;
mod grpc_connection;
mod http_wire;
mod iptables;
mod line;
mod link;
mod lookup;
mod packet;
mod plugin;
mod plugin_grpc;
mod plugin_http;
mod resolve;
mod rule_file;
#[path = "../services.rs"]
#[rustfmt::skip]
#[allow(clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications, reason = "as a program wrote it")]
mod services;
mod stdout;
mod target;
mod tunnel;
mod visitor;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A gost to play with, and what breaks its world.
#[derive(Debug, Parser)]
enum FakegostVerb {
    /// Wait for ever: own a network namespace
    Pause,
    /// Play gost
    Gost(gost::GostArgs),
    /// Play a tunnel client with a web target built in
    Client(client::ClientArgs),
    /// Answer web requests, behind a real gost's tunnel client
    Target(target::TargetArgs),
    /// Play a gost with many tunnels that nobody visits
    Crowd(crowd::CrowdArgs),
    /// Ask an agent once where a tunnel is
    Lookup(lookup::LookupArgs),
    /// Play visitors: one JSON line per request
    Visitor(visitor::VisitorArgs),
    /// Lose, delay, reorder and duplicate this namespace's outgoing packets
    Link(link::LinkArgs),
    /// Drop packets of one kind, one way
    Block(block::BlockArgs),
    /// Fill the file system that a path is on
    Fill { path: PathBuf },
    /// Remove what `fill` filled it with
    Free { path: PathBuf },
    /// Exit with 0 if a URL answers 200
    Get { url: String },
}

fn main() -> ExitCode {
    let verb = FakegostVerb::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.expect("a runtime needs no more than any process has").block_on(run(verb));
    // Not by returning, because the runtime would wait for name resolutions.
    match ran {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("fakegost: {error:#}");
            std::process::exit(1)
        }
    }
}

async fn run(verb: FakegostVerb) -> anyhow::Result<()> {
    match verb {
        FakegostVerb::Link(args) => link::run(&args, ended()?).await,
        FakegostVerb::Block(args) => block::run(&args, ended()?).await,
        FakegostVerb::Gost(args) => gost::run(args).await,
        other => {
            let ended = ended()?;
            tokio::select! {
                ran = play(other) => ran,
                () = ended => Ok(()),
            }
        }
    }
}

async fn play(verb: FakegostVerb) -> anyhow::Result<()> {
    match verb {
        FakegostVerb::Client(args) => client::run(args).await,
        FakegostVerb::Target(args) => target::run(args).await,
        FakegostVerb::Crowd(args) => crowd::run(args).await,
        FakegostVerb::Lookup(args) => lookup::run(args).await,
        FakegostVerb::Visitor(args) => visitor::run(args).await,
        FakegostVerb::Fill { path } => disk::fill(&path),
        FakegostVerb::Free { path } => disk::free(&path),
        FakegostVerb::Get { url } => get::run(&url).await,
        FakegostVerb::Pause | FakegostVerb::Gost(_) | FakegostVerb::Link(_) | FakegostVerb::Block(_) => {
            std::future::pending().await
        }
    }
}

/// Completes at SIGTERM or SIGINT. Both have a handler from the start, because the first process of a container has no
/// default action for them.
fn ended() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
