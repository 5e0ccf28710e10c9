//! A bad link: every packet that leaves this network namespace may be lost, delayed, reordered or duplicated. For
//! kernels without netem: packets come here through a netfilter queue. Never on loopback.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use nfq::{Message, Queue, Verdict};
use serde_json::json;

use crate::fate::{Fates, OddsArgs, PacketFate};
use crate::iptables::{PacketRule, Rules, mtu, words};
use crate::packet::{Sender, renumbered};
use crate::stdout::{say, say_json};

/// Most packets that wait at a time; more are lost.
const MAX_HELD: usize = 16_384;
/// Most packets that the kernel queues between two reads; it drops more.
const MAX_QUEUED: u32 = 4_096;
/// How often the queue is read: the library cannot wait for it and for a timer at once.
const LOOK: Duration = Duration::from_millis(1);
/// The mark of a packet that has waited, so that it is not queued again.
const MARK: u32 = 0x6f57;
/// The queues to try: one per `link` in the same namespace.
const QUEUES: std::ops::Range<u16> = 10..26;

#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    odds: OddsArgs,
    /// Only packets to these addresses
    #[arg(long, default_value = "all", value_name = "IP,IP|all", value_parser = destinations)]
    to: Destinations,
    /// Only what goes to or comes from this port, by UDP and by TCP
    #[arg(long)]
    port: Option<u16>,
}

/// Addresses; none means all.
#[derive(Clone, Debug)]
struct Destinations(Vec<Ipv4Addr>);

fn destinations(text: &str) -> Result<Destinations, std::net::AddrParseError> {
    let addresses = text.split(',').filter(|&part| part != "all").map(str::parse);
    addresses.collect::<Result<_, _>>().map(Destinations)
}

/// Handles packets until `ended`. Among several links, the first whose rule matches a packet handles it.
pub(crate) async fn run(args: &LinkArgs, ended: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (queue, number) = open()?;
    let link = BadLink::new(args, queue, number)?;
    let rules = Rules::append(args.rules(number))?;
    let (stop, stopped) = channel::<()>();
    let mut treating = tokio::task::spawn_blocking(move || link.treat(&stopped));
    say("ready");
    let done = tokio::select! {
        done = &mut treating => Some(done),
        () = ended => None,
    };
    // Removed before the queue: no packet may wait for a verdict that never comes.
    rules.remove();
    drop(stop);
    let done = match done {
        Some(done) => done,
        None => treating.await,
    };
    let counts = done.context("treating packets")??;
    say_json(&counts.json());
    Ok(())
}

fn open() -> anyhow::Result<(Queue, u16)> {
    for number in QUEUES {
        let mut queue = Queue::open().context("opening a netfilter queue")?;
        match queue.bind(number) {
            Ok(()) => return Ok((queue, number)),
            // Another `link` uses this queue.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ResourceBusy) => {}
            Err(error) => return Err(error).context("binding a netfilter queue"),
        }
    }
    bail!("no netfilter queue is free")
}

impl LinkArgs {
    fn rules(&self, queue: u16) -> Vec<PacketRule> {
        let mark = format!("{MARK:#x}");
        let queue = queue.to_string();
        let kinds: Vec<Vec<String>> = match self.port {
            None => vec![Vec::new()],
            Some(port) => ["-p udp --dport", "-p tcp --dport", "-p tcp --sport"]
                .map(|kind| format!("{kind} {port}").split(' ').map(str::to_owned).collect())
                .into(),
        };
        let to_queue = |kind: &[String], to: &[&str]| {
            let kind: Vec<&str> = kind.iter().map(String::as_str).collect();
            let mark = ["-m", "mark", "!", "--mark", &*mark];
            // With `--queue-bypass`, packets are accepted without a reader: if this program is killed, the link works
            // normally again.
            let target = ["-j", "NFQUEUE", "--queue-num", &*queue, "--queue-bypass"];
            let spec = words(&[&["!", "-o", "lo"], &kind[..], to, &mark, &target].concat());
            PacketRule { table: "filter", chain: "OUTPUT", spec }
        };
        let of_kind = |kind: &Vec<String>| -> Vec<PacketRule> {
            match &self.to.0[..] {
                [] => vec![to_queue(kind, &[])],
                to => to.iter().map(|ip| to_queue(kind, &["-d", &ip.to_string()])).collect(),
            }
        };
        kinds.iter().flat_map(of_kind).collect()
    }
}

/// Numbers of packets, by what happened.
#[derive(Default)]
struct PacketCounts {
    seen: u64,
    lost: u64,
    overtaken: u64,
    duplicated: u64,
    /// Lost because too many waited.
    too_many: u64,
    /// Lost because the kernel did not send them.
    not_sent: u64,
    most_held: usize,
}

impl PacketCounts {
    fn json(&self) -> serde_json::Value {
        let Self { seen, lost, overtaken, duplicated, too_many, not_sent, most_held } = self;
        json!({"seen": seen, "lost": lost, "overtaken": overtaken, "duplicated": duplicated,
            "too_many": too_many, "not_sent": not_sent, "most_held": most_held})
    }
}

/// The owner of the queue. A delayed packet waits here as bytes and is sent when its time has come. Waiting in the
/// kernel, it would fill the sender's socket buffer, and the sender would notice the delay.
struct BadLink {
    queue: Queue,
    fates: Fates,
    /// By time, and at equal times by arrival.
    waiting: BTreeMap<(Instant, u64), Vec<u8>>,
    arrivals: u64,
    sender: Sender,
    counts: PacketCounts,
}

impl BadLink {
    fn new(args: &LinkArgs, mut queue: Queue, number: u16) -> anyhow::Result<Self> {
        queue.set_queue_max_len(number, MAX_QUEUED)?;
        queue.set_nonblocking(true);
        let sender = Sender::new(MARK, mtu()).context("opening a raw socket")?;
        let (fates, waiting, counts) = (args.odds.fates(), BTreeMap::new(), PacketCounts::default());
        Ok(Self { queue, fates, waiting, arrivals: 0, sender, counts })
    }

    fn treat(mut self, stopped: &Receiver<()>) -> anyhow::Result<PacketCounts> {
        loop {
            self.take()?;
            let next = self.release(Instant::now());
            let pause = next.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
            if stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        // Packets that still wait are accepted, not lost.
        self.take()?;
        while let Some((_, packet)) = self.waiting.pop_first() {
            self.send(&packet);
        }
        Ok(self.counts)
    }

    /// Reads the packets that the kernel has queued.
    fn take(&mut self) -> anyhow::Result<()> {
        loop {
            match self.queue.recv() {
                Ok(message) => self.decide(message)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading the queue"),
            }
        }
    }

    fn decide(&mut self, mut message: Message) -> anyhow::Result<()> {
        let fate = self.fates.next();
        self.counts.seen += 1;
        self.counts.lost += u64::from(fate.lost);
        self.counts.overtaken += u64::from(fate.overtaken && !fate.lost);
        let verdict = match fate {
            PacketFate { lost: true, .. } => Verdict::Drop,
            PacketFate { delay: Duration::ZERO, copy_after: None, .. } => Verdict::Accept,
            _ => {
                self.hold(&fate, message.get_payload());
                Verdict::Drop
            }
        };
        message.set_verdict(verdict);
        self.queue.verdict(message).context("a verdict")
    }

    fn hold(&mut self, fate: &PacketFate, packet: &[u8]) {
        let now = Instant::now();
        self.wait_until(now + fate.delay, packet.to_vec());
        if let Some(after) = fate.copy_after {
            self.counts.duplicated += 1;
            self.wait_until(now + after, renumbered(packet.to_vec()));
        }
    }

    fn wait_until(&mut self, due: Instant, packet: Vec<u8>) {
        if self.waiting.len() >= MAX_HELD {
            self.counts.too_many += 1;
            return;
        }
        self.waiting.insert((due, self.arrivals), packet);
        self.arrivals += 1;
        self.counts.most_held = self.counts.most_held.max(self.waiting.len());
    }

    /// Sends the packets that are due. Returns when the next one is.
    fn release(&mut self, now: Instant) -> Option<Instant> {
        while let Some(next) = self.waiting.first_entry() {
            let (due, _) = *next.key();
            if due > now {
                return Some(due);
            }
            let packet = next.remove();
            self.send(&packet);
        }
        None
    }

    fn send(&mut self, packet: &[u8]) {
        if let Err(error) = self.sender.send(packet) {
            // Only the first is logged; all are counted.
            if self.counts.not_sent == 0 {
                eprintln!("fakegost: a packet of {} bytes is not sent: {error}", packet.len());
            }
            self.counts.not_sent += 1;
        }
    }
}
