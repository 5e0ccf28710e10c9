//! What is watched all the time: answers, by a visitor who asks any agent for any tunnel; and figures, each of which has
//! a bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt as _;
use tokio::time::{interval, sleep, timeout};

use super::agent::{self, Figures};
use super::chaos::Seat;
use super::model::{Model, Service, Services, UNSURE, count};
use super::wire::{self, Client};
use gossd_lab::float;

/// Bounds of an agent, each under its value: every table that says how full it is, and how full it may be.
const TABLES: [&str; 2] = ["gossd_table_entries", "gossd_gossip_entries"];
/// Bytes of a record and of a released id in a journal, trees included.
const JOURNAL_EACH: [f64; 2] = [220.0, 60.0];
/// A file may be mostly free: it may have that many times what it holds.
const JOURNAL_FREE: f64 = 8.0;
/// Bytes of any journal.
const JOURNAL_LEAST: f64 = 2e6;

/// Asks one thing after the other, for ever.
pub(crate) async fn visit(model: Arc<Model>, seats: Vec<Seat>, pause: Duration) -> anyhow::Result<()> {
    let mut clients: Vec<Client> =
        seats.iter().map(|seat| Client::new(seat.with(|agent| agent.plugin))).collect();
    let mut pace = interval(pause);
    loop {
        pace.tick().await;
        let agent = rand::rng().random_range(0..seats.len());
        let tunnel = rand::rng().random_range(0..model.len());
        let asked = Instant::now();
        let Ok(answer) = clients[agent].call(&question(&model, tunnel)).await else { continue };
        count(&model.tally.gets);
        match serde_json::from_str::<Services>(&answer.body) {
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

/// How long an answer stays wrong; looked at for as long as any change may take.
async fn lasts(model: &Model, client: &mut Client, agent: usize, tunnel: usize, since: Instant) -> String {
    let mut pace = interval(Duration::from_millis(50));
    while since.elapsed() < UNSURE {
        pace.tick().await;
        let asked = Instant::now();
        let Ok(answer) = client.call(&question(model, tunnel)).await else { continue };
        let Ok(said) = serde_json::from_str::<Services>(&answer.body) else { continue };
        if model.judge(agent, tunnel, asked, &said.services).is_none() {
            return format!("{:?}", since.elapsed());
        }
    }
    "longer than it was looked at".into()
}

/// What all agents say, for whoever looks into a wrong answer.
async fn others(model: &Model, seats: &[Seat], tunnel: usize) -> String {
    let mut all = Vec::new();
    for seat in seats {
        let answer = Client::new(seat.with(|agent| agent.plugin)).call(&question(model, tunnel)).await;
        all.push(answer.map_or_else(|error| error.to_string(), |answer| answer.body));
    }
    all.join(" ")
}

/// What an agent says about its own answer.
async fn explain(model: &Model, seat: &Seat, tunnel: usize) -> String {
    let request = wire::get(&format!("/explain.json?name={}", model.name(tunnel)));
    let answer = Client::new(seat.with(|agent| agent.admin)).call(&request).await;
    answer.map_or_else(|error| error.to_string(), |answer| answer.body)
}

fn question(model: &Model, tunnel: usize) -> String {
    wire::get(&format!("/sd?name={}", model.name(tunnel)))
}

/// An agent's whole directory: the answer to a Get of every tunnel.
async fn directory(model: &Model, seat: &Seat) -> anyhow::Result<Vec<Vec<Service>>> {
    let questions: Vec<String> = (0..model.len()).map(|tunnel| question(model, tunnel)).collect();
    let answers = Client::new(seat.with(|agent| agent.plugin)).calls(&questions).await?;
    let services =
        |body: &str| anyhow::Ok(serde_json::from_str::<Services>(body).context("services")?.services);
    answers.iter().map(|answer| services(&answer.body)).collect()
}

/// Waits until every agent's directory is what is true; how long that took.
pub(crate) async fn agree(model: &Model, seats: &[Seat], patience: Duration) -> anyhow::Result<Duration> {
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

/// The figures of every agent; none of one that does not run.
pub(crate) async fn sample(model: &Model, seats: &[Seat]) -> Vec<Option<Figures>> {
    let mut all = Vec::new();
    for (n, seat) in seats.iter().enumerate() {
        let Some(pid) = seat.pid() else {
            all.push(None);
            continue;
        };
        let (admin, journal) = seat.with(|agent| (agent.admin, agent.journal()));
        let read = timeout(Duration::from_secs(5), agent::read(pid, admin)).await.ok().flatten();
        let figures = read.map(|mut figures| {
            // In bytes, as the file is.
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

fn judge(model: &Model, agent: usize, figures: &Figures) {
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

/// What a journal keeps: live and lapsed records, and released ids.
pub(crate) fn kept(figures: &Figures) -> f64 {
    figures.of("gossd_records", "self")
        + figures.sum("gossd_records_lapsed")
        + figures.of("gossd_table_entries", "released")
}

/// Samples for that long; the means of each agent's figures over the last half.
pub(crate) async fn measure(
    model: &Model,
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
            seat.with(agent::Agent::is_well)?;
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
