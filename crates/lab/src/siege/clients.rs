//! Malicious clients of the plugin's port.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::attacks::{Attack, AttackReport, Orders};
use super::{frames, network};

/// Connections of attacks that keep each connection busy.
const FEW: u64 = 16;
const GET: &[u8] = b"GET /sd?name=t HTTP/1.1\r\nHost: a\r\n\r\n";
/// A tick of attacks that send as much as they may.
const TICK: Duration = Duration::from_millis(10);
/// Calls, streams or frames per connection and tick: some 30,000 a second in all.
const OF_TICK: u32 = 20;

pub(crate) async fn attack(orders: &Orders) -> anyhow::Result<AttackReport> {
    let to = orders.plugin;
    match orders.attack {
        Attack::PluginConnections => {
            network::hold(orders, to, orders.connections, |_| Vec::new(), None).await
        }
        Attack::Slowloris => {
            let begun = |_| b"PUT /sd HTTP/1.1\r\nX-".to_vec();
            network::hold(orders, to, orders.connections / 10, begun, Some(b"a")).await
        }
        Attack::HalfClosed => half_closed(orders).await,
        attack => {
            let mut busy = JoinSet::new();
            for n in 0..FEW {
                let (end, stream) = (orders.end(), network::from(n, to).await?);
                busy.spawn(keep_busy(attack, stream, to, n, end));
            }
            let mut all = AttackReport::default();
            while let Some(report) = busy.join_next().await {
                let AttackReport { sent, answered, .. } = report?;
                (all.sent, all.answered) = (all.sent + sent, all.answered + answered);
            }
            Ok(all)
        }
    }
}

/// Sends a request, closes its sending side, and waits.
async fn half_closed(orders: &Orders) -> anyhow::Result<AttackReport> {
    let (mut report, end) = (AttackReport::default(), orders.end());
    let mut pace = orders.pace(orders.connections / 2, 1);
    let mut held = Vec::new();
    while Instant::now() < end && report.sent < orders.connections / 2 {
        pace.tick().await;
        let mut stream = network::from(report.sent, orders.plugin).await?;
        let asked = if report.sent.is_multiple_of(2) { GET } else { &GET[..20] };
        let _ = stream.write_all(asked).await;
        let _ = stream.shutdown().await;
        held.push(stream);
        report.sent += 1;
    }
    let mut buffer = [0; 4_096];
    for mut stream in held {
        while let Ok(Ok(len @ 1..)) = timeout(Duration::from_millis(1), stream.read(&mut buffer)).await {
            report.answered += len as u64;
        }
    }
    Ok(report)
}

/// Sends until the end; when the connection is closed, on a new one.
async fn keep_busy(
    attack: Attack,
    mut stream: TcpStream,
    to: std::net::SocketAddr,
    n: u64,
    end: Instant,
) -> AttackReport {
    let (mut report, mut begun, mut next) = (AttackReport::default(), true, 1);
    let mut pace = tokio::time::interval(TICK);
    let mut buffer = vec![0; 65_536];
    while Instant::now() < end {
        pace.tick().await;
        let (bytes, count) = batch(attack, begun, &mut next);
        begun = false;
        let written = timeout_at(end.min(Instant::now() + TICK), stream.write_all(&bytes)).await;
        report.sent += u64::from(count);
        let mut closed = matches!(written, Ok(Err(_)));
        loop {
            if attack == Attack::NeverReads {
                break;
            }
            match stream.try_read(&mut buffer) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(len) => report.answered += len as u64,
                Err(error) => {
                    closed |= error.kind() != std::io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        // Half of a batch may be written: after it, the rest would be invalid.
        let cut = written.is_err() && attack != Attack::NeverReads;
        if (closed || cut)
            && let Ok(fresh) = network::from(n, to).await
        {
            (stream, begun, next) = (fresh, true, 1);
        }
    }
    report
}

/// The bytes to send in a tick, and how many calls, streams or frames they are. `next` is the number of the next
/// stream.
fn batch(attack: Attack, begun: bool, next: &mut u32) -> (Vec<u8>, u32) {
    let mut bytes = match attack {
        Attack::RapidReset | Attack::SettingsFlood if begun => frames::hello(),
        Attack::HugeHeaders if begun => b"GET /sd HTTP/1.1\r\n".to_vec(),
        _ => Vec::new(),
    };
    match attack {
        Attack::HugeHeaders => {
            let line = format!("X-{next}: {}\r\n", "x".repeat(1_000));
            *next += 1;
            bytes.extend(line.repeat(4).into_bytes());
            return (bytes, 4);
        }
        Attack::RapidReset => {
            for _ in 0..OF_TICK {
                bytes.extend(frames::get(*next, "/sd?name=t"));
                bytes.extend(frames::frame(frames::RST_STREAM, 0, *next, &8_u32.to_be_bytes()));
                *next += 2;
            }
        }
        Attack::SettingsFlood => {
            for n in 0..OF_TICK {
                let ping = n.is_multiple_of(2);
                let kind = if ping { frames::PING } else { frames::SETTINGS };
                bytes.extend(frames::frame(kind, 0, 0, if ping { &[7; 8] } else { &[] }));
            }
        }
        _ => bytes.extend(GET.repeat(OF_TICK as usize)),
    }
    (bytes, OF_TICK)
}
