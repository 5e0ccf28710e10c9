//! The page in Chinese: every sentence that an agent can make has a Chinese one, which the browser shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::browser::{Browser, Scheme};
use crate::common::gost::FakeGost;
use crate::common::nobody;
use crate::common::process::Process;
use crate::page::browser;
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
const MARK: &str = "sentence!(";
/// What a Chinese engineer writes in Latin letters. The rest of what is not Chinese are names, numbers, flags, paths and commands.
const TERMS: [&str; 12] =
    ["agent", "gost", "gossd", "gossip", "journal", "UDP", "TCP", "HTTP", "gRPC", "IPv6", "MiB", "ms"];

/// Sentences that are made of several, as agents make them.
const COMPOSED: [(&str, &str); 10] = [
    (
        "a, b and c are dead: 2 records are hidden, so tunnels that are attached nowhere else are answered with 503, unless their \
         gost takes connections from here. Start gossd there; if it runs, `gossd check --join ADDRESS` tells what is in the way; \
         `gossd forget` what will not come back",
        "a, b和c已失效：2条记录被隐藏，因此没有接入其他主机的隧道会返回503，除非其gost接受来自本机的连接。请在那里启动gossd；如果它正在运行，\
         gossd check --join ADDRESS会指出阻碍所在；不会再回来的请执行gossd forget",
    ),
    (
        "b, c, d, e, f and 3 more are silent: 1 record is listed last",
        "b, c, d, e, f及另外3个没有消息：1条记录排在最后",
    ),
    (
        "b and c cannot reach our entrypoint 10.0.0.1:8420: those of b are refused, and nothing answers those of c, so visitors \
         there are sent to it last, and may wait for 15 s. Bind gost's entrypoint to an address that other hosts reach, not to \
         loopback, and look whether gost listens. Open its TCP port in the firewalls of this host and of those on the way; or \
         set --advertise-host to an address at which these hosts reach this one",
        "b和c无法连接本机的入口点10.0.0.1:8420：b的拨号被拒绝，c的拨号没有应答，因此那里的访问端最后才会被送到该入口点，\
         且可能要等待15 s。让gost入口点监听其他主机能到达的地址，而不是回环地址，并确认gost正在监听。在本机和沿途的防火墙上开放其TCP端口；\
         或将--advertise-host设为这些主机能到达本机的地址",
    ),
    (
        "a visitor here cannot be sent to b: a dial of its gost's entrypoint [::1]:8420 is not answered, so its records come \
         behind those that work. Open its TCP port in the firewalls between the two hosts; or set --advertise-host of b to an \
         address at which this host reaches it",
        "本机的访问端无法被送往b：对其gost入口点[::1]:8420的拨号没有应答，因此它的记录排在可用的记录之后。\
         在两台主机之间的防火墙上开放其TCP端口；或将b的--advertise-host设为本机能到达的地址",
    ),
    (
        "--join 10.0.0.2:8002 has not answered: nothing listens at 10.0.0.2:8002: does gossd run there, with this port as its \
         --gossip?",
        "--join 10.0.0.2:8002没有应答：10.0.0.2:8002上没有程序在监听：gossd是否在那里运行，其--gossip是否使用该端口？",
    ),
    (
        "b at 10.0.0.2:8002, which was a peer before this start (if it will not come back: gossd forget b), has not answered: the \
         agent at 10.0.0.2:8002 has the same key and another --cluster",
        "本次启动前的对等节点b（位于10.0.0.2:8002；如果它不会再回来：gossd forget b）没有应答：位于10.0.0.2:8002的agent密钥相同，\
         但--cluster不同",
    ),
    (
        "the journal: cannot write /var/lib/gossd/a.journal: No space left on device (os error 28)",
        "journal：无法写入/var/lib/gossd/a.journal：No space left on device (os error 28)",
    ),
    (
        "the ingress file: cannot write /f: it exists and is no file: this user must be able to create files in that folder, and \
         the disk must have room",
        "主机名文件：无法写入/f：它已存在，但不是文件：当前用户必须能在该目录中创建文件，且磁盘要有空间",
    ),
    (
        "9 messages from b were rejected, the last ones slots that cannot be: it is broken, or somebody else has its key",
        "b的9条消息被拒绝，最近的是不合法的槽位：它有故障，或者别人持有它的密钥",
    ),
    (
        "draining: peers do not list what is registered here, this host uses it; `gossd drain --undo` ends it",
        "正在排空：对等节点不列出在本机注册的记录，本机仍使用它们；gossd drain --undo结束排空",
    ),
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file of the sources")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        match path.extension() {
            None if path.is_dir() => sources(&path, found),
            Some(end) if end == "rs" => found.push(path),
            _ => {}
        }
    }
}

/// The value of a string literal, without its first quotation mark.
fn literal(text: &str) -> String {
    let (mut value, mut letters) = (String::new(), text.chars().peekable());
    while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
        match (letter, letters.peek()) {
            ('\\', Some('\n')) => while letters.next_if(|next| next.is_whitespace()).is_some() {},
            ('\\', _) => value.extend(letters.next()),
            _ => value.push(letter),
        }
    }
    value
}

/// The names of a template's holes, in their order.
fn holes(template: &str) -> Vec<&str> {
    template.split('{').skip(1).map(|rest| rest.split_once('}').expect("a hole ends").0).collect()
}

/// The templates of all sentences that the sources mark, without the formats of their holes; but for tests.
fn marked() -> BTreeSet<String> {
    let (root, mut files) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), Vec::new());
    sources(&root, &mut files);
    let mut found = BTreeSet::new();
    for file in files {
        let text = read(&file);
        let product = text.split_once("#[cfg(test)]\nmod tests {").map_or(&*text, |(product, _)| product);
        assert!(
            !product.contains("Sentence::marked(") || file.ends_with("sentence.rs"),
            "{} makes an unmarked sentence",
            file.display()
        );
        for rest in product.split(MARK).skip(1) {
            let rest = rest.trim_start().strip_prefix('"').expect("the macro takes a plain literal");
            let template = literal(rest);
            let bare = holes(&template).into_iter().filter_map(|hole| hole.split_once(':'));
            let bare = bare.fold(template.clone(), |all, (name, format)| {
                all.replace(&format!("{{{name}:{format}}}"), &format!("{{{name}}}"))
            });
            found.insert(bare);
        }
    }
    found
}

/// The page's table: English and Chinese templates.
fn table() -> BTreeMap<String, String> {
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/page.html"));
    let table = page.split_once("const SENTENCES = ").expect("the page has the table").1;
    let table = table.split_once(";\n").expect("it ends").0;
    let all: BTreeMap<String, String> = serde_json::from_str(table).expect("it is JSON");
    assert_eq!(table.matches("\n  \"").count(), all.len(), "an entry is there twice");
    all
}

/// A template whose holes are filled: the first one with `@1`.
fn filled(template: &str, order: &[&str]) -> String {
    let names = holes(template);
    names.iter().fold(template.to_owned(), |all, name| {
        let at = order.iter().position(|hole| hole == name).expect("a hole of the other language");
        all.replace(&format!("{{{name}}}"), &format!("@{}", at + 1))
    })
}

#[test]
fn every_sentence_of_an_agent_has_a_chinese_one_with_the_same_holes() {
    let (marked, table) = (marked(), table());
    assert!(marked.len() > 90, "only {} were found", marked.len());
    let missing: Vec<_> = marked.iter().filter(|template| !table.contains_key(*template)).collect();
    assert!(missing.is_empty(), "the page has no Chinese for {missing:#?}");
    let old: Vec<_> = table.keys().filter(|template| !marked.contains(*template)).collect();
    assert!(old.is_empty(), "no agent makes {old:#?}");
    for (english, chinese) in &table {
        let [english_holes, chinese_holes] = [english, chinese].map(|text| BTreeSet::from_iter(holes(text)));
        assert_eq!(english_holes, chinese_holes, "{english}");
        assert!(english_holes.iter().all(|hole| !hole.is_empty()), "a hole without a name: {english}");
    }
}

/// English words in a text: letters in a row that are no term, flag or path.
fn english_words(text: &str) -> Vec<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-/".contains(letter));
    let words = words.filter(|word| !word.starts_with("--") && !word.starts_with('/'));
    let is_word = |word: &&str| word.chars().filter(char::is_ascii_alphabetic).count() > 1;
    words.filter(is_word).filter(|word| !TERMS.contains(word)).collect()
}

/// What the page, in Chinese, shows for problems with these texts; what stays English is marked.
fn shown(browser: &mut Browser, texts: &[&str]) -> Vec<(String, String)> {
    let problems: Vec<_> =
        texts.iter().map(|text| json!({ "kind": "join", "severity": "warn", "text": text })).collect();
    let problems = json!(problems);
    browser.run(&format!(
        "window.asked ??= window.fetch; window.fetch = async (path, ...more) => {{
           const answer = await window.asked(path, ...more);
           return path === 'status.json' ? Response.json({{ ...await answer.json(), problems: {problems} }}) : answer;
         }}"
    ));
    let count = format!("document.querySelectorAll('.alerts li').length === {}", texts.len());
    browser.until(SOON, &count);
    let all = browser.value(
        "[...document.querySelectorAll('.alerts li')].map((item) => {
           const bare = item.cloneNode(true);
           bare.querySelectorAll('code').forEach((code) => code.remove());
           return [item.textContent + (item.querySelector('[lang]') ? ' (English)' : ''), bare.textContent];
         })",
    );
    serde_json::from_value(all).expect("pairs of texts")
}

fn open_in_chinese(browser: &mut Browser, agent: &Process) {
    browser.resize(1280, 800, Scheme::Light);
    browser.open(&format!("http://{}/", agent.admin));
    browser.until(SOON, "document.querySelector('[data-language]')");
    browser.click("[data-language]");
    browser.until(SOON, "document.documentElement.lang === 'zh-CN'");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_shows_every_sentence_in_chinese() {
    let Some(mut browser) = browser() else { return };
    let a = Process::start("a", &[]);
    open_in_chinese(&mut browser, &a);

    let table = table();
    // What has no letters of its own only joins sentences.
    let has_letters =
        |(english, _): &(String, String)| english.contains(|letter: char| letter.is_ascii_alphabetic());
    let filled: Vec<(String, String)> = table
        .iter()
        .map(|(english, chinese)| (filled(english, &holes(english)), filled(chinese, &holes(english))))
        .filter(has_letters)
        .collect();
    let (english, chinese): (Vec<&str>, Vec<&str>) =
        filled.iter().map(|(english, chinese)| (&**english, &**chinese)).chain(COMPOSED).unzip();
    for (chinese, (found, bare)) in chinese.iter().zip(shown(&mut browser, &english)) {
        assert_eq!(found, chinese.replace('`', ""));
        let quoted = bare.contains("os error");
        assert!(quoted || english_words(&bare).is_empty(), "{:?} in {found}", english_words(&bare));
    }

    // What the explanation's own tests expect.
    let explain = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/explain.rs"));
    let tests = explain.split_once("#[cfg(test)]").expect("it has tests").1;
    let quoted =
        tests.split('\n').filter(|line| !line.contains("starts_with")).collect::<Vec<_>>().join("\n");
    let expected: BTreeSet<String> =
        quoted.split('"').skip(1).step_by(2).map(literal).filter(|text| text.contains(' ')).collect();
    assert!(expected.len() > 15, "{expected:#?}");
    let sentences: Vec<&str> = expected.iter().map(String::as_str).collect();
    for (found, bare) in shown(&mut browser, &sentences) {
        assert!(!found.contains("English") && english_words(&bare).is_empty(), "{found}");
    }

    let [(unknown, _)] = &shown(&mut browser, &["a sentence that no agent makes"])[..] else { panic!("one") };
    assert_eq!(unknown, "a sentence that no agent makes (English)");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_chinese_reads_no_english_sentence_of_a_dead_peer_and_a_refused_dial() {
    let Some(mut browser) = browser() else { return };
    let a = Process::start("a", &["--lease-ttl", "5"]);
    let join = a.gossip.to_string();
    let [b, mut c] = ["b", "c"].map(|name| Process::start(name, &["--lease-ttl", "5", "--join", &join]));
    let mut gost = FakeGost::start("gost-b", b.plugin).await;
    open_in_chinese(&mut browser, &a);
    browser.until(SOON, "document.querySelectorAll('#rows .alive').length === 3");
    c.kill();
    let nowhere = nobody();
    browser.value("location.hash = '#tunnel=unreached'");
    let told = "[...document.querySelectorAll('.alerts li')].map(({ textContent }) => textContent).join()";
    let all_told = format!("(({told}).includes('c已失效：没有记录') && ({told}).includes('无法被送往b：'))");
    for _ in 0..100 {
        gost.register_as("nowhere", "unreached", &nowhere.to_string()).await;
        a.get("unreached").await;
        if browser.value(&all_told) == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    browser.until(SOON, &all_told);
    let why =
        "document.querySelector('.open .candidate')?.textContent.includes('它的入口点拒绝来自本机的连接')";
    browser.until(SOON, why);
    browser.until(SOON, "document.getElementById('verdict').textContent === '3个agent中有2个保持联系；有1台主机报告无法连接的入口点'");
    assert_eq!(browser.texts("[lang=en]"), [""; 0]);
    for sentence in browser.texts(".alerts li, #verdict, .open .verdict, .open .candidate p:first-of-type") {
        let plain = sentence.replace("gossd forget", "").replace("gossd check --join ADDRESS", "");
        assert!(english_words(&plain).is_empty(), "{:?} in {sentence}", english_words(&plain));
    }
    assert_eq!(browser.complaints(), [""; 0]);
}
