//! Asks an agent who it is, without joining: the first half of a handshake. Its answer proves that it has the key, and that
//! UDP gets through in both directions.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use gossd_core::link::frame::{self, Sealed};
use gossd_core::link::joins::TurnedAway;
use gossd_core::link::keyring::{KeyId, Keyring};
use gossd_core::link::noise::{ClusterKey, Handshake, Identity};
use gossd_core::link::wire::{self, Introduction};

/// How long an answer is waited for, by UDP and by TCP.
const PATIENCE: Duration = Duration::from_secs(1);
/// The question may be lost, and is repeated after this.
const AGAIN: Duration = Duration::from_millis(250);

/// An agent that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    /// Its name.
    pub name: String,
    /// Its start: by its own clock, in milliseconds since 1970, as a rule.
    pub generation: u64,
    /// For how long it has run.
    pub uptime: Duration,
    /// The version of its program.
    pub program: String,
    /// Where it wants frames sent.
    pub addr: SocketAddr,
    /// How long its answer took.
    pub trip: Duration,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAnswer {
    /// It has the key, and is of the cluster.
    Met(Probed),
    /// It says, without proof, that it will not talk to us.
    TurnedAway(TurnedAway),
    /// Nothing came back.
    Silent,
}

/// Asks by UDP, with each of our keys. An error means that we cannot send there at all.
pub(crate) async fn ask(addr: SocketAddr, keyring: &Keyring, cluster: &str) -> std::io::Result<ProbeAnswer> {
    let mut answer = ProbeAnswer::Silent;
    for (id, key) in keyring.for_cluster(cluster) {
        answer = ask_with(addr, id, &key).await?;
        if answer != ProbeAnswer::TurnedAway(TurnedAway::UnknownKey) {
            break;
        }
    }
    Ok(answer)
}

/// Whether TCP connects.
pub(crate) async fn connects(addr: SocketAddr) -> bool {
    timeout(PATIENCE, TcpStream::connect(addr)).await.is_ok_and(|connected| connected.is_ok())
}

async fn ask_with(addr: SocketAddr, id: KeyId, key: &ClusterKey) -> std::io::Result<ProbeAnswer> {
    let any: SocketAddr = if addr.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    let index = rand::random();
    let (mut handshake, first) = Handshake::begin(key, &Identity::new(&rand::random()), rand::random());
    let mut hello = frame::hello((id, key), index, &first, None);
    let mut sent = Instant::now();
    let end = sent + PATIENCE;
    let mut buffer = vec![0; 2_048];
    let mut turned_away = None;
    while Instant::now() < end {
        // A port that refuses is reported at the next call, and may be open at the one after.
        let _ = socket.send(&hello).await;
        let again = end.min(Instant::now() + AGAIN);
        while let Ok(received) = timeout_at(again, socket.recv(&mut buffer)).await {
            let Ok(len) = received else { break };
            match frame::read(&buffer[..len]) {
                Ok(Sealed::Reply { to, second, .. }) if to == index => match handshake.prove(second, &[]) {
                    Ok((_, _, introduction)) => {
                        let met = read(&introduction, sent.elapsed());
                        return Ok(met.map_or(ProbeAnswer::Silent, ProbeAnswer::Met));
                    }
                    Err((unmoved, _)) => handshake = unmoved,
                },
                Ok(Sealed::Cookie { to, cookie, code, coded })
                    if to == index && key.is_code_of(&code, coded) =>
                {
                    hello = frame::hello((id, key), index, &first, Some(&cookie));
                    sent = Instant::now();
                }
                Ok(Sealed::Refusal { to, why }) if to == index => turned_away = TurnedAway::from_number(why),
                Err(frame::FrameError::Version) => turned_away = Some(TurnedAway::OtherVersion),
                _ => {}
            }
        }
        timeout_at(again, std::future::pending::<()>()).await.unwrap_or_default();
    }
    Ok(turned_away.map_or(ProbeAnswer::Silent, ProbeAnswer::TurnedAway))
}

fn read(introduction: &[u8], trip: Duration) -> Option<Probed> {
    let Introduction { name, generation, addr, uptime_ms, version } = wire::decode(introduction).ok()?;
    let uptime = Duration::from_millis(uptime_ms);
    Some(Probed { name: name.into(), generation, uptime, program: version.into(), addr, trip })
}
