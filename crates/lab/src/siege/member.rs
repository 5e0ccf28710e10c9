//! A holder of the key that takes a live agent's name, with another identity.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use gossd_core::link::frame::{self, Sealed};
use gossd_core::link::keyring::Keyring;
use gossd_core::link::noise::{Handshake, Identity};
use gossd_core::link::wire::{self, Introduction, Kind, Ping};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::attacks::{AttackReport, Orders};
use super::puppet::{push, record_cell};

/// Addresses that it uses in turn: each is answered at a bounded pace.
const ADDRESSES: u8 = 32;
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_millis(20);
/// The name that it takes: a live peer's.
const NAME: &str = "peer";

/// Handshake after handshake, each with frames in the session that the agent does not grant.
pub(crate) async fn attack(orders: &Orders) -> anyhow::Result<AttackReport> {
    let keyring = Keyring::parse(orders.key.as_deref().context("a key")?)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let id = keyring.sealing();
    let key = keyring.for_cluster(gossd::config::DEFAULT_CLUSTER).remove(&id).context("a keyring has it")?;
    let mut sockets = Vec::new();
    for n in 1..=ADDRESSES {
        sockets.push(UdpSocket::bind(SocketAddr::from(([127, 3, 0, n], 0))).await?);
    }
    let identity = Identity::new(&rand::random());
    let (mut report, end) = (AttackReport::default(), orders.end());
    let mut buffer = [0; 2_048];
    let lie = push(1, 9, &[(1, record_cell(9, ["x", "t", "n", "10.6.6.6:666"]))]);
    let ping = wire::encode(&Ping { nonce: Some(1), told: 9, revision: 0, lost: 0, ran: 0 });
    for (index, socket) in (1..).zip(sockets.iter().cycle()) {
        if tokio::time::Instant::now() >= end || report.sent >= orders.frames {
            break;
        }
        let (begun, first) = Handshake::begin(&key, &identity, rand::random());
        transmit(socket, orders.gossip, &frame::hello((id, &key), index, &first, None), &mut report).await?;
        let mut begun = Some(begun);
        while let Ok(Ok((len, _))) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await {
            report.answered += len as u64;
            let Ok(Sealed::Reply { index: theirs, to, second, .. }) = frame::read(&buffer[..len]) else {
                continue;
            };
            let Some(begun) = begun.take_if(|_| to == index) else { continue };
            let (addr, uptime_ms) = (socket.local_addr()?, 3_600_000);
            let introduction =
                Introduction { name: NAME, generation: u64::MAX / 2, addr, uptime_ms, version: "0.1.0" };
            let Ok((mut channel, third, _)) = begun.prove(second, &wire::encode(&introduction)) else {
                break;
            };
            transmit(socket, orders.gossip, &frame::proof(&key, theirs, &third), &mut report).await?;
            for (kind, payload) in [(Kind::Ping, &ping), (Kind::Push, &lie)] {
                let (counter, encrypted) = channel.encrypt(&wire::pack(kind, payload));
                transmit(socket, orders.gossip, &frame::data(theirs, counter, &encrypted), &mut report)
                    .await?;
            }
            break;
        }
    }
    tokio::time::sleep(PATIENCE).await;
    for socket in &sockets {
        while let Ok((len, _)) = socket.try_recv_from(&mut buffer) {
            report.answered += len as u64;
        }
    }
    Ok(report)
}

async fn transmit(
    socket: &UdpSocket,
    to: SocketAddr,
    frame: &[u8],
    report: &mut AttackReport,
) -> std::io::Result<()> {
    socket.send_to(frame, to).await?;
    report.sent += 1;
    report.sent_bytes += frame.len() as u64;
    Ok(())
}
