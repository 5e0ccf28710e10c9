//! What is watched all the time: answers, by a visitor that asks any agent for any tunnel; and figures, each of which
//! has a bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt as _;
use tokio::time::{interval, sleep, timeout};

use super::agent::{self, Figures};
use super::chaos::Seat;
use super::model::{GetAnswer, ListedRecord, SoakModel, UNSURE, count};
use super::wire::{self, HttpClient};
use gossd_lab::float;

/// Metrics that have a bound in a second metric: the fill of every table.
const TABLES: [&str; 2] = ["gossd_table_entries", "gossd_gossip_entries"];
/// Bytes of a record and of a released id in a journal, with their share of the tree.
const JOURNAL_EACH: [f64; 2] = [220.0, 60.0];
/// A file may be mostly free space: it may have this many times the size of its content.
const JOURNAL_FREE: f64 = 8.0;
/// The size that any journal may have.
const JOURNAL_LEAST: f64 = 2e6;

/// Asks one question after the other, for ever.
pub(crate) async fn visit(model: Arc<SoakModel>, seats: Vec<Seat>, pause: Duration) -> anyhow::Result<()> {
    let mut clients: Vec<HttpClient> =
        seats.iter().map(|seat| HttpClient::new(seat.with(|agent| agent.plugin))).collect();
    let mut pace = interval(pause);
    loop {
        pace.tick().await;
        let agent = rand::rng().random_range(0..seats.len());
        let tunnel = rand::rng().random_range(0..model.len());
        let asked = Instant::now();
        let Ok(answer) = clients[agent].call(&question(&model, tunnel)).await else { continue };
        count(&model.tally.gets);
        match serde_json::from_str::<GetAnswer>(&answer.body) {
            Ok(said) => {
                if let Some(wrong) = model.judge(agent, tunnel, asked, &said.services) {
                    let why = explain(&model, &seats[agent], tunnel).await;
                    let others = others(&model, &seats, tunnel).await;
                    let log = seats[agent].with(|agent| agent.log(12));
                    let lasted = lasts(&model, &mut clients[agent], agent, tunnel, asked).await;
                    model.accuse(format!(
                        "{wrong}; it lasted for {lasted}; it says why: {why}; agents list, one after the other: {others}; it \
                         logged last:\n{log}"
                    ));
                }
            }
            Err(error) => model.accuse(format!("agent {agent} answers {}: {error}", answer.body)),
        }
    }
}

/// How long an answer stays wrong, at most as long as a change may take.
async fn lasts(
    model: &SoakModel,
    client: &mut HttpClient,
    agent: usize,
    tunnel: usize,
    since: Instant,
) -> String {
    let mut pace = interval(Duration::from_millis(50));
    while since.elapsed() < UNSURE {
        pace.tick().await;
        let asked = Instant::now();
        let Ok(answer) = client.call(&question(model, tunnel)).await else { continue };
        let Ok(said) = serde_json::from_str::<GetAnswer>(&answer.body) else { continue };
        if model.judge(agent, tunnel, asked, &said.services).is_none() {
            return format!("{:?}", since.elapsed());
        }
    }
    "longer than it was looked at".into()
}

/// The answers of all agents, to explain a wrong answer.
async fn others(model: &SoakModel, seats: &[Seat], tunnel: usize) -> String {
    let mut all = Vec::new();
    for seat in seats {
        let answer = HttpClient::new(seat.with(|agent| agent.plugin)).call(&question(model, tunnel)).await;
        all.push(answer.map_or_else(|error| error.to_string(), |answer| answer.body));
    }
    all.join(" ")
}

/// An agent's own explanation of its answer.
async fn explain(model: &SoakModel, seat: &Seat, tunnel: usize) -> String {
    let request = wire::get(&format!("/explain.json?name={}", model.name(tunnel)));
    let answer = HttpClient::new(seat.with(|agent| agent.admin)).call(&request).await;
    answer.map_or_else(|error| error.to_string(), |answer| answer.body)
}

fn question(model: &SoakModel, tunnel: usize) -> String {
    wire::get(&format!("/sd?name={}", model.name(tunnel)))
}

/// An agent's whole directory: its answers to a Get for every tunnel.
async fn directory(model: &SoakModel, seat: &Seat) -> anyhow::Result<Vec<Vec<ListedRecord>>> {
    let questions: Vec<String> = (0..model.len()).map(|tunnel| question(model, tunnel)).collect();
    let answers = HttpClient::new(seat.with(|agent| agent.plugin)).calls(&questions).await?;
    let services =
        |body: &str| anyhow::Ok(serde_json::from_str::<GetAnswer>(body).context("services")?.services);
    answers.iter().map(|answer| services(&answer.body)).collect()
}

/// Waits until every agent's directory equals the truth. Returns how long that took.
pub(crate) async fn agree(model: &SoakModel, seats: &[Seat], patience: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        let mut differences = Vec::new();
        for (n, seat) in seats.iter().enumerate() {
            differences.extend(model.differences(n, &directory(model, seat).await?));
        }
        if differences.is_empty() {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience {
            for difference in differences.iter().take(10) {
                eprintln!("{difference}");
            }
            anyhow::bail!("{} differences after {patience:?}", differences.len());
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// The figures of every agent; `None` for one that does not run.
pub(crate) async fn sample(model: &SoakModel, seats: &[Seat]) -> Vec<Option<Figures>> {
    let mut all = Vec::new();
    for (n, seat) in seats.iter().enumerate() {
        let Some(pid) = seat.pid() else {
            all.push(None);
            continue;
        };
        let (admin, journal) = seat.with(|agent| (agent.admin, agent.journal()));
        let read = timeout(Duration::from_secs(5), agent::read(pid, admin)).await.ok().flatten();
        let figures = read.map(|mut figures| {
            // In bytes, as in the file system.
            figures.metrics.insert("journal".into(), float(journal));
            figures
        });
        if let Some(figures) = &figures {
            judge(model, n, figures);
        }
        all.push(figures);
    }
    all
}

fn judge(model: &SoakModel, agent: usize, figures: &Figures) {
    for table in TABLES {
        for (key, held) in figures.metrics.iter().filter(|(key, _)| key.starts_with(&format!("{table}{{"))) {
            let most = figures.metrics.get(&key.replacen(table, &format!("{table}_max"), 1));
            if most.is_none_or(|most| held > most) {
                model.accuse(format!("agent {agent}: {key} is {held}, and may be {most:?}"));
            }
        }
    }
    let released = figures.of("gossd_table_entries", "released");
    let holds = JOURNAL_EACH[0] * (kept(figures) - released) + JOURNAL_EACH[1] * released;
    let most = JOURNAL_LEAST + JOURNAL_FREE * holds;
    let journal = figures.sum("journal");
    if journal > most {
        model.accuse(format!("agent {agent}: its journal has {journal} bytes, and may have {most}"));
    }
}

/// The number of a journal's entries: live and lapsed records, and released ids.
pub(crate) fn kept(figures: &Figures) -> f64 {
    figures.of("gossd_records", "self")
        + figures.sum("gossd_records_lapsed")
        + figures.of("gossd_table_entries", "released")
}

/// Samples for this long. Returns the mean of each agent's figures over the second half.
pub(crate) async fn measure(
    model: &SoakModel,
    seats: &[Seat],
    time: Duration,
    every: Duration,
) -> anyhow::Result<Vec<Figures>> {
    let begun = Instant::now();
    let mut late: Vec<Vec<Figures>> = vec![Vec::new(); seats.len()];
    while begun.elapsed() < time || late.iter().any(Vec::is_empty) {
        sleep(every).await;
        let half = begun.elapsed() >= time / 2;
        for (figures, late) in sample(model, seats).await.into_iter().zip(&mut late) {
            late.extend(figures.filter(|_| half));
        }
        for seat in seats {
            seat.with(agent::SoakAgent::is_well)?;
        }
        anyhow::ensure!(begun.elapsed() < time + Duration::from_secs(60), "an agent does not answer");
    }
    Ok(late.iter().map(|samples| mean(samples)).collect())
}

fn mean(samples: &[Figures]) -> Figures {
    let count = float(samples.len());
    let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
    for (key, value) in samples.iter().flat_map(|figures| &figures.metrics) {
        *metrics.entry(key.clone()).or_default() += value / count;
    }
    let of = |figure: fn(&Figures) -> f64| samples.iter().map(figure).sum::<f64>() / count;
    Figures { memory: of(|figures| figures.memory), files: of(|figures| figures.files), metrics }
}
