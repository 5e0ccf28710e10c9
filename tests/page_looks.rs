//! How the page looks to everybody: for a cluster of one and of sixty, without and with five thousand tunnels, on a desk, a
//! tablet and a phone, by day and by night; and to those who do not see it, by the rules of axe-core.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::browser::{Browser, Scheme};
use crate::common::http::{Connection, request};
use crate::common::{TestCluster, record};
use crate::page::browser;
use gossd_core::connection::Caller;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const SIZES: [(u32, u32); 3] = [(1440, 900), (768, 1024), (390, 844)];
const TABS: [&str; 4] = ["tunnels", "hosts", "agents", "changes"];

/// A name as long as names may be, which differs from others in the middle.
fn long_name(n: usize) -> String {
    format!("gost-entry-point-{n:02}-of-the-third-rack-in-frankfurt.example.org")
}

/// The same, which differs at the end, or at the begin; as wide as letters are.
fn other_name(n: usize) -> String {
    if n.is_multiple_of(2) {
        format!("WWWWWWWWWWWWWWWWWWWW-MMMMMMMMMMMMMMMM-{n:02}")
    } else {
        format!("{n:02}-gost-eu-central-1-frankfurt.example.org")
    }
}

/// A cluster with so many tunnels, evenly attached; some names are as long as they may be.
async fn cluster(agents: usize, tunnels: usize) -> TestCluster {
    let cluster = TestCluster::start(agents, |n, config| {
        config.name = match n {
            0 => "a".into(),
            n if n % 5 == 0 => long_name(n),
            n => format!("gost-{n}"),
        }
        .parse()
        .expect("a name");
        config.admin = (n == 0).then(|| "127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    for n in 0..tunnels {
        let tunnel = format!("{n:08x}-8f8c-4dca-be7a-1467b6565404");
        let at = &cluster.agents[n % agents];
        at.agent()
            .register(Caller::local(1), record(&format!("{n:08x}-c892-42b3-8b74-88ab6455d33a"), &tunnel))
            .expect("room");
        if n < 10 {
            let host = format!("shop-{n}.example.org");
            let body = json!({ "host": host, "endpoint": tunnel }).to_string();
            let set = Connection::open(at.plugin).await.call(&request("PUT", "/ingress", &body)).await;
            assert_eq!(set.status(), 200);
        }
    }
    cluster.all_hold(SOON, "every agent has every record", tunnels).await;
    cluster
}

fn open(browser: &mut Browser, cluster: &TestCluster) {
    let admin = cluster.agents[0].admin.expect("it has one");
    browser.resize(1440, 900, Scheme::Light);
    browser.open(&format!("http://{admin}/"));
    let rows = cluster.agents.len().min(50);
    let agents = format!("document.querySelectorAll('#rows tr').length === {rows}");
    browser.until(SOON, &agents);
}

fn turn_to(browser: &mut Browser, tab: &str) {
    browser.value(&format!("document.querySelector('#tabs [data-key={tab}]').click()"));
    browser.until(SOON, &format!("!document.getElementById('tab-{tab}').hidden"));
}

/// Elements whose text is cut off, or outside of the screen's width, as far as a person has to read them.
const CUT: &str = "[...document.querySelectorAll('td, th, h1, h2, .badge, .alerts span, .figures dd, .tunnel > button, .candidate, #tabs a')]
    .filter((element) => element.checkVisibility())
    .filter((element) => {
      const box = element.getBoundingClientRect();
      return box.right > document.documentElement.clientWidth + 1 || box.left < -1 || element.scrollWidth > element.clientWidth + 1
        && getComputedStyle(element).display !== 'inline';
    })
    .map((element) => element.textContent)";

/// Looks at a page in every size and by day and night, and keeps the pictures.
fn look(browser: &mut Browser, name: &str) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    for (width, height) in SIZES {
        for scheme in [Scheme::Light, Scheme::Dark] {
            browser.resize(width, height, scheme);
            let wide = format!("document.documentElement.scrollWidth > {width}");
            assert_eq!(browser.value(&wide), false, "{name} {width} scrolls sideways");
            assert_eq!(browser.value(CUT), json!([]), "{name} {width}: cut off");
            browser.picture(&folder.join(format!("{name}-{width}-{scheme:?}.png").to_lowercase()));
        }
    }
    browser.resize(1440, 900, Scheme::Light);
}

/// axe-core's program, which `scripts/check.sh` fetches from the package registry of Python.
fn axe() -> Option<String> {
    let path = std::env::var_os("GOSSD_AXE")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../axe/axe.min.js"), PathBuf::from);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        println!(
            "SKIPPED: axe-core is not at {}; nothing has shown that the page keeps its rules",
            path.display()
        );
    }
    text
}

/// Everything that axe-core finds to be wrong, whatever its weight.
fn violations(browser: &mut Browser) -> Vec<String> {
    let found = browser.value(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(
           ({ id, impact, help, nodes }) => ({ id, impact, help, at: nodes.slice(0, 3).map(({ html }) => html) })))",
    );
    let found = found.as_array().expect("a list");
    found.iter().map(Value::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_alone_without_a_tunnel() {
    let Some(mut browser) = browser() else { return };
    let cluster = cluster(1, 0).await;
    open(&mut browser, &cluster);
    browser.until(SOON, "!document.getElementById('start').hidden");
    look(&mut browser, "first-run");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_agents_with_ten_tunnels() {
    let Some(mut browser) = browser() else { return };
    let cluster = cluster(3, 10).await;
    open(&mut browser, &cluster);
    for tab in TABS {
        turn_to(&mut browser, tab);
        look(&mut browser, &format!("three-{tab}"));
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_agents_with_five_thousand_tunnels_of_whom_one_is_dead() {
    let Some(mut browser) = browser() else { return };
    let mut cluster = cluster(60, 5_000).await;
    open(&mut browser, &cluster);
    // The one with a long name.
    let lost = cluster.agents.remove(30);
    drop(lost);
    browser
        .until(SOON, "document.querySelector('#rows tr:first-child .suspect, #rows tr:first-child .dead')");
    turn_to(&mut browser, "agents");
    let first = browser.texts("#rows tr:first-child")[0].clone();
    assert!(
        first.contains(&long_name(30)) && first.contains("silent"),
        "those in trouble are first: {first}"
    );
    look(&mut browser, "sixty-agents");
    assert_eq!(browser.texts("#rows tr").len(), 50, "the others are one click away");
    assert_eq!(browser.texts("#agents-more button"), ["10 more agents"]);
    browser.value("document.querySelector('#agents-more button').click()");
    assert_eq!(browser.texts("#rows tr").len(), 60);
    assert_eq!(browser.texts("#agents-more button"), [""; 0]);
    turn_to(&mut browser, "tunnels");
    browser.until(SOON, "document.getElementById('found').textContent.includes('5,000')");
    browser.value("document.querySelector('.tunnel > button').click()");
    browser.until(SOON, "document.querySelector('.open .candidate')");
    look(&mut browser, "sixty-tunnels");
    browser.value(&format!("location.hash = '#agent={}'", long_name(30)));
    browser.until(SOON, "document.querySelector('#tab-agent .its .tunnel')");
    look(&mut browser, "sixty-agent");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// A provider's names differ in the middle; the picture has room for half of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_tells_names_apart_is_not_cut_out_of_the_picture() {
    let Some(mut browser) = browser() else { return };
    let cluster = TestCluster::start(12, |n, config| {
        config.name = if n < 6 { long_name(n) } else { other_name(n) }.parse().expect("a name");
        config.admin = (n == 0).then(|| "127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    open(&mut browser, &cluster);
    turn_to(&mut browser, "agents");
    for (width, height) in SIZES {
        browser.resize(width, height, Scheme::Light);
        browser.until(SOON, "document.querySelectorAll('.picture .agent .name').length === 12");
        let labels = browser.texts(".picture .agent .name");
        let different: BTreeSet<&String> = labels.iter().collect();
        assert_eq!(different.len(), labels.len(), "{width}: {labels:?}");
        let outside = "[...document.querySelectorAll('.picture text')].filter((text) => { const box = text.getBoundingClientRect();
           const card = document.getElementById('picture').getBoundingClientRect();
           return box.left < card.left - 1 || box.right > card.right + 1 }).map((text) => text.textContent)";
        assert_eq!(browser.value(outside), json!([]), "{width}: outside of the picture");
    }
    look(&mut browser, "long-names");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_keeps_the_rules_of_accessibility() {
    let (Some(axe), Some(mut browser)) = (axe(), browser()) else { return };
    let mut cluster = cluster(3, 10).await;
    let mut wrong = Vec::new();
    browser.bypass_policy();
    open(&mut browser, &cluster);
    drop(cluster.agents.remove(2));
    browser.until(SOON, "document.querySelector('.alerts .warn')");
    for scheme in [Scheme::Light, Scheme::Dark] {
        for (width, height) in [SIZES[0], SIZES[2]] {
            browser.resize(width, height, scheme);
            for tab in TABS.into_iter().chain(["agent", "explained"]) {
                match tab {
                    "agent" => drop(browser.value("location.hash = '#agent=gost-2'")),
                    "explained" => {
                        browser.value("location.hash = '#tunnel=00000001-8f8c-4dca-be7a-1467b6565404'");
                        browser.until(SOON, "document.querySelector('.open .candidate')");
                    }
                    tab => turn_to(&mut browser, tab),
                }
                browser.run(&axe);
                let found = violations(&mut browser);
                wrong.extend(found.into_iter().map(|found| format!("{tab} {width} {scheme:?}: {found}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    browser.value("document.body.append(document.createElement('img'))");
    assert!(!violations(&mut browser).is_empty(), "an image without a text would be found");
}
