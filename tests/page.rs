//! The page in a real browser, with real agents: what an operator sees, finds and is warned of, and that strangers who
//! choose names can do nothing there.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::browser::{Browser, Scheme};
use crate::common::gost::FakeGost;
use crate::common::nobody;
use crate::common::process::Process;
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);
/// Suspicion comes after 2.5 s of silence.
const NOTICED: Duration = Duration::from_secs(5);
const AT_TWO: &str = "c9ef8f8c-d687-4dca-be7a-1467b6565404";
const AT_A: &str = "1f0c7b52-3a52-4a5e-9d0c-6f9f6a1f2a11";
const AT_C: &str = "7d1f5a0e-0c5b-4d0a-8a3c-2b8f6f0e9c22";

/// Three agents, each with a gost, and a browser on the page of the first.
struct Operator {
    browser: Browser,
    agents: [Process; 3],
    gosts: [FakeGost; 3],
}

/// A browser, unless this test is to run without.
pub(crate) fn browser() -> Option<Browser> {
    if std::env::var_os("GOSSD_SKIP_BROWSER").is_some_and(|skip| skip == "1") {
        let words = "\n!! SKIPPED: the page was opened in no browser (GOSSD_SKIP_BROWSER=1)\n";
        // Written past the capture of the test harness.
        std::io::stderr().write_all(words.as_bytes()).expect("standard error");
        return None;
    }
    let browser = Browser::start();
    assert!(browser.is_some(), "no Chromium: apt-get install chromium, or set GOSSD_SKIP_BROWSER=1");
    browser
}

impl Operator {
    /// Opens the page; `None` without a browser.
    async fn arrive() -> Option<Self> {
        let mut browser = browser()?;
        let a = Process::start("a", &[]);
        let join = a.gossip.to_string();
        let [b, c] = ["b", "c"].map(|name| Process::start(name, &["--join", &join]));
        let mut gosts = [
            FakeGost::start("gost-a", a.plugin).await,
            FakeGost::start("gost-b", b.plugin).await,
            FakeGost::start("gost-c", c.plugin).await,
        ];
        gosts[0].register("at-a", AT_A).await;
        gosts[1].register("one-at-b", AT_TWO).await;
        gosts[2].register("two-at-c", AT_TWO).await;
        gosts[2].register("at-c", AT_C).await;
        browser.resize(1280, 800, Scheme::Light);
        browser.open(&format!("http://{}/", a.admin));
        let mut operator = Self { browser, agents: [a, b, c], gosts };
        operator.sees("#legend", "3 alive");
        operator.sees("#found", "3 tunnels");
        operator.sees("#verdict", "nobody reports an entrypoint that it cannot reach");
        Some(operator)
    }

    fn sees(&mut self, selector: &str, text: &str) -> Duration {
        self.sees_within(SOON, selector, text)
    }

    /// Waits until an element that the selector finds contains a text.
    fn sees_within(&mut self, deadline: Duration, selector: &str, text: &str) -> Duration {
        let (selector, text) = (json!(selector), json!(text));
        let found = format!("[...document.querySelectorAll({selector})]");
        self.browser
            .until(deadline, &format!("{found}.some((element) => element.textContent.includes({text}))"))
    }

    /// Waits until a selector finds this many elements.
    fn counts(&mut self, selector: &str, count: usize) {
        let selector = json!(selector);
        self.browser.until(SOON, &format!("document.querySelectorAll({selector}).length === {count}"));
    }

    /// Opens a tunnel, or the tunnel of a host, as a link to it does.
    fn follows_link(&mut self, name: &str) {
        let name = json!(name);
        self.browser.value(&format!("location.hash = '#tunnel=' + encodeURIComponent({name})"));
        let open = format!("document.querySelector('.open > button')?.dataset.ask === {name}");
        self.browser.until(SOON, &format!("{open} && document.querySelector('.open .candidate')"));
    }

    /// Opens a view, by its tab.
    fn turns_to(&mut self, tab: &str) {
        self.browser.value(&format!("document.querySelector('#tabs [data-key={tab}]').click()"));
        self.browser.until(SOON, &format!("!document.getElementById('tab-{tab}').hidden"));
    }

    /// Checks that the console is empty, that nothing ran that should not, and that no other address was requested.
    fn leaves_in_peace(&mut self) {
        assert_eq!(self.browser.complaints(), [""; 0]);
        let page = format!("http://{}/", self.agents[0].admin);
        let mut elsewhere = self.browser.requests();
        elsewhere.retain(|url| !url.starts_with(&page) && !url.starts_with("data:") && url != "about:blank");
        assert_eq!(elsewhere, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_three_agents_a_tunnel_and_where_its_visitors_are_sent() {
    let Some(mut operator) = Operator::arrive().await else { return };
    operator.turns_to("agents");
    assert_eq!(operator.browser.texts(".picture .agent .name"), ["b", "c", "a"]);
    operator
        .browser
        .until(SOON, "[...document.querySelectorAll('.rtt')].every((rtt) => / ms$/.test(rtt.textContent))");
    let rows = operator.browser.texts("#rows tr");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows[0].starts_with("a (this one)") && rows.iter().all(|row| row.contains("alive")), "{rows:?}");
    assert!(rows.iter().all(|row| row.contains(env!("CARGO_PKG_VERSION"))), "{rows:?}");
    operator.browser.value("document.querySelector('#picture .agent[data-key=b]').focus()");
    operator.browser.press("Enter");
    operator.sees("#tab-agent h2", "b");
    operator.sees("#tab-agent .its", AT_TWO);
    let link = operator.browser.value("location.hash");
    assert_eq!(link, "#agent=b");

    operator.turns_to("tunnels");
    operator.browser.click("#text");
    operator.browser.insert("c9ef");
    operator.counts(".tunnel", 1);
    operator.sees("#found", "1 tunnel");
    for _ in 0..4 {
        operator.browser.press("Tab");
    }
    operator.browser.press("Enter");
    operator.counts(".candidate", 2);
    let mut shown = operator.browser.texts(".candidate .address");
    let mut listed = operator.agents[0].get(AT_TWO).await;
    shown.sort();
    listed.sort();
    assert_eq!(shown, listed);
    assert_eq!(operator.browser.texts(".candidate .rank"), ["1.", "2."]);

    let link = operator.browser.value("location.href").as_str().unwrap().to_owned();
    assert!(link.ends_with(&format!("/#tunnel={AT_TWO}")), "{link}");
    operator.browser.open(&link);
    operator.counts(".open .candidate", 2);
    operator.follows_link(AT_A);
    operator.sees(".candidate", "lapses in");
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_on_top_within_five_seconds_and_its_records_are_last_without_a_reload() {
    let Some(mut operator) = Operator::arrive().await else { return };
    operator.follows_link(AT_TWO);
    operator.browser.value("window.unloaded = false");
    operator.agents[2].kill();
    let took = operator.sees_within(NOTICED, ".alerts .warn", "c is silent");
    println!("noticed after {took:?}");
    operator.sees("#legend", "1 suspect");
    operator.sees(".picture .agent.suspect", "c");
    operator.sees("#changes", "c is suspect");
    operator.sees(".candidate:nth-child(2)", "at  c suspect");
    let first = "document.querySelector('.alerts').getBoundingClientRect().bottom";
    let others = "document.querySelector('main').getBoundingClientRect().top";
    assert_eq!(operator.browser.value(&format!("{first} < {others}")), true);
    assert_eq!(operator.browser.value("document.title"), "▲ 1 · a · gossd");

    operator.gosts[1].deregister("one-at-b", AT_TWO).await;
    operator.counts(".candidate", 1);
    operator.sees("#changes .change", AT_TWO);
    assert_eq!(operator.browser.value("window.unloaded"), false);
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entrypoint_that_this_host_does_not_reach_is_on_top_in_the_matrix_and_among_the_changes() {
    let Some(mut operator) = Operator::arrive().await else { return };
    let nowhere = nobody();
    operator.gosts[2].register_as("nowhere", "unreached", &nowhere.to_string()).await;
    operator.follows_link("unreached");
    for _ in 0..40 {
        operator.agents[0].get("unreached").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    operator
        .sees(".alerts .warn", &format!("cannot be sent to c: a dial of its gost's entrypoint {nowhere}"));
    operator.sees("#unreached", &nowhere.to_string());
    assert_eq!(
        operator.browser.texts("#unreached tr > :nth-child(-n+4)"),
        ["a", &nowhere.to_string(), "c", "refused"]
    );
    operator.sees("#changes", &format!("{nowhere} of c is not reached by a"));
    operator.sees(".open .candidate", "its entrypoint refuses connections from here");
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_agent_is_gone_says_since_when_and_goes_on_when_it_is_back() {
    let Some(mut operator) = Operator::arrive().await else { return };
    operator.gosts[1].register("heard", "a tunnel that is heard of").await;
    operator.sees("#changes", "a tunnel that is heard of");
    operator.browser.value("window.unloaded = false");
    operator.agents[0].kill();
    operator.sees(".alerts .bad", "Connection to the agent lost since ");
    operator.sees(".badge.bad", "no answer");
    operator.agents[0].restart();
    operator.sees("#changes", "Some changes were missed");
    operator.gosts[0].reconnect_to(operator.agents[0].plugin);
    operator.gosts[0].register("at-a-again", AT_A).await;
    operator.counts(".alerts li", 0);
    operator.gosts[0].register("later", "a tunnel of the agent that is back").await;
    operator.sees("#changes .change", "a tunnel of the agent that is back");
    assert_eq!(operator.browser.value("window.unloaded"), false);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnel_names_of_strangers_are_shown_as_text_and_run_nothing() {
    let long = "w".repeat(512);
    let names = [
        "<img src=x onerror=alert(1)>",
        "\"><script>alert(1)</script>",
        "javascript:alert(1)",
        "__proto__",
        "constructor",
        "a+b&c=d#e %41",
        "\u{202e}backwards",
        &long,
    ];
    let Some(mut operator) = Operator::arrive().await else { return };
    let mut stranger = FakeGost::start("<svg onload=alert(2)>", operator.agents[1].plugin).await;
    for (n, name) in names.into_iter().enumerate() {
        stranger.register(&format!("</span><script>alert({n})</script>"), name).await;
    }
    operator.counts(".tunnel", 3 + names.len());
    let shown = operator.browser.texts(".tunnel > button > .data");
    assert!(names.iter().all(|name| shown.iter().any(|shown| shown == name)), "{shown:?}");
    for name in names {
        operator.follows_link(name);
        operator.sees(".open .candidate", "instance <svg onload=alert(2)>");
        assert_eq!(operator.browser.texts(".open > button > .data"), [name]);
    }
    operator.browser.click("#text");
    operator.browser.insert(names[0]);
    operator.counts(".tunnel:not(.open)", 1);
    operator.sees("#changes", names[0]);
    assert_eq!(operator.browser.value("document.querySelectorAll('img, [onload], [onerror]').length"), 0);
    assert_eq!(operator.browser.value("document.scripts.length"), 1);
    operator.leaves_in_peace();

    let careless =
        "try { document.body.insertAdjacentHTML('beforeend', '<b>'); 'written' } catch (e) { e.name }";
    assert_eq!(
        operator.browser.value(careless),
        "TypeError",
        "a careless page would be stopped by its policy"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_are_read_at_most_twice_a_second_and_what_the_operator_marked_stays_marked() {
    let Some(mut operator) = Operator::arrive().await else { return };
    operator.follows_link(AT_TWO);
    operator.browser.value("document.querySelector('.open > button').focus()");
    let address = "getSelection().selectAllChildren(document.querySelector('.candidate .address'))";
    operator.browser.value(address);
    let readings = |operator: &mut Operator| {
        operator.browser.requests().iter().filter(|url| url.ends_with("/status.json")).count()
    };
    let (before, start) = (readings(&mut operator), Instant::now());
    for n in 0..1000 {
        operator.gosts[1].register(&format!("crowd-{n}"), &format!("crowd-{n:04}")).await;
    }
    operator.sees("#found", "100 of 1,003: search for the rest");
    operator.counts("#changes .change", 200);
    let (read, took) = (readings(&mut operator) - before, start.elapsed());
    assert!(read as u128 <= took.as_millis() / 500 + 2, "{read} readings in {took:?}");

    let marked = operator.browser.value("getSelection().toString()");
    assert_eq!(marked.as_str(), Some(operator.browser.texts(".candidate .address")[0].as_str()));
    assert_eq!(operator.browser.value("document.activeElement.dataset.ask"), AT_TWO);
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_explained_from_the_search_box() {
    let Some(mut operator) = Operator::arrive().await else { return };
    let (host, agreed) = operator.gosts[1].bind("with-host", AT_TWO, "www").await;
    assert!(agreed && host == "www");
    operator.browser.click("#text");
    operator.browser.insert("www");
    operator.sees("#offer button", "Explain “www” as a host name");
    operator.browser.press("Enter");
    operator.counts(".open .candidate", 3);
    operator.sees(".open .why", &format!("Tunnel {AT_TWO}"));
    operator.counts("#offer button", 0);
    operator.turns_to("hosts");
    operator.sees("#hosts tr", "www");
    operator.sees("#hosts tr", AT_TWO);
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_fits_a_desk_and_a_phone_by_day_and_by_night() {
    let Some(mut operator) = Operator::arrive().await else { return };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    operator.follows_link(AT_TWO);
    operator.agents[2].kill();
    operator.sees(".alerts .warn", "c is silent");
    let mut pages = Vec::new();
    for (width, height) in [(1280, 800), (360, 740)] {
        for scheme in [Scheme::Light, Scheme::Dark] {
            operator.browser.resize(width, height, scheme);
            let wide = format!("document.documentElement.scrollWidth > {width}");
            assert_eq!(operator.browser.value(&wide), false, "{width} {scheme:?} scrolls sideways");
            pages.push(operator.browser.value("getComputedStyle(document.body).backgroundColor"));
            let file = format!("{width}x{height}-{scheme:?}.png").to_lowercase();
            operator.browser.picture(&folder.join(file));
        }
    }
    assert!(pages[0] != pages[1] && pages[..2] == pages[2..], "{pages:?}");
    println!("pictures are in {}", folder.display());
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_the_page_sees_what_was_before_and_can_stop_it() {
    let Some(mut operator) = Operator::arrive().await else { return };
    operator.sees("#changes .change", AT_TWO);
    operator.sees("#live", "0 since ");
    operator.browser.click("#pause");
    operator.sees("#pause", "Resume");
    operator.gosts[1].register("later", "while it is paused").await;
    operator.sees("#live", "1 new");
    assert!(operator.browser.texts("#changes").iter().all(|text| !text.contains("while it is paused")));
    operator.browser.click("#pause");
    operator.sees("#changes .change", "while it is paused");
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_chinese_gets_the_page_in_chinese() {
    let Some(mut operator) = Operator::arrive().await else { return };
    operator.browser.click("[data-language]");
    operator.sees("#tunnels-head", "隧道");
    assert_eq!(operator.browser.value("document.documentElement.lang"), "zh-CN");
    operator.follows_link(AT_TWO);
    operator.sees(".candidate", "连接器");
    let page = format!("http://{}/", operator.agents[0].admin);
    operator.browser.open(&page);
    operator.sees("[data-language]", "English");
    operator.browser.click("[data-language]");
    operator.sees("#tunnels-head", "Tunnels");
    operator.leaves_in_peace();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_alone_says_what_to_do_first() {
    let Some(mut browser) = browser() else { return };
    let a = Process::start("a", &[]);
    browser.resize(1280, 800, Scheme::Light);
    browser.open(&format!("http://{}/", a.admin));
    let sees = |browser: &mut Browser, text: &str| {
        let text = json!(text);
        browser.until(SOON, &format!("document.getElementById('start').textContent.includes({text})"));
    };
    sees(&mut browser, &format!("addr: \"http://{}/sd\"", a.plugin));
    sees(&mut browser, "gossd invite");
    assert!(browser.texts("#start [data-copy]").len() == 2);
    let mut gost = FakeGost::start("gost", a.plugin).await;
    gost.register("1", AT_A).await;
    browser.until(SOON, "document.getElementById('start').hidden");
    assert_eq!(browser.complaints(), [""; 0]);
}
