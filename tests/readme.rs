//! The commands in the README and the manual work as typed and print what is shown; the Chinese editions say the same;
//! every link leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::client;
use crate::common::process::{Process, gossd};

const README: &str = include_str!("../README.md");
const REFERENCE: &str = include_str!("../docs/reference.md");
/// Pages whose tables of figures are in English only. The second page consists of such tables.
const FIGURES: &str = "docs/figures.md";
const SCENARIOS: &str = "docs/scenarios.md";
/// What holds the English pages' promises, which the Chinese ones translate.
const PROMISES: &str = "docs/promises.md";

/// The code block that follows a marker comment.
fn block(page: &'static str, marker: &str) -> &'static str {
    let after = page.split_once(&format!("<!-- {marker} -->\n```")).expect("the marker is there").1;
    let body = after.split_once('\n').expect("a block").1;
    body.split_once("\n```").expect("its end").0
}

#[test]
fn the_three_agent_walk_works_as_typed() {
    // The README's commands, and those of the reference for the same three agents before they end.
    let (start, plugin, end) =
        (block(README, "walk"), block(REFERENCE, "plugin walk"), block(README, "walk ends"));
    let walk = [start, plugin, end].join("\n");
    assert!(walk.matches("curl").count() >= 4 && walk.matches("gossd run").count() == 3);
    assert!(
        start
            .ends_with("gossd members --name a\ngossd explain c9ef8f8c-d687-4dca-be7a-1467b6565404 --name a"),
        "{start}"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let program = Path::new(env!("CARGO_BIN_EXE_gossd")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("PATH"));
    // Job control numbers the agents, as in an interactive shell; the trap ends them in any case.
    let script = format!("set -m\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{walk}\nwait\n");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&directory)
        .env("PATH", path)
        .env("HOME", directory.path())
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("STATE_DIRECTORY")
        .env_remove("RUNTIME_DIRECTORY")
        .output()
        .expect("bash runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    // The agents print their addresses before the first answer.
    let printed: Vec<String> =
        stdout.lines().skip_while(|line| !line.starts_with('{')).map(untimed).collect();
    let shown = [block(README, "walk prints"), block(REFERENCE, "plugin walk prints")].join("\n");
    let shown: Vec<String> = shown.lines().map(untimed).collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed, shown, "standard output was:\n{stdout}\nstandard error was:\n{stderr}");
    assert_eq!(stdout.matches("plugin http://127.0.0.1:80").count(), 3, "{stdout}");
}

/// A line with the same word for every time, such as `0.24 ms`, and for the key's id, and one blank between words.
fn untimed(line: &str) -> String {
    let is_unit = |word: &&str| ["ms", "s"].contains(word);
    let mut kept = Vec::new();
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let is_time = word.parse::<f64>().is_ok() && words.next_if(is_unit).is_some();
        let is_key = word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
        kept.push(if is_time {
            "TIME"
        } else if is_key {
            "KEY"
        } else {
            word
        });
    }
    kept.join(" ")
}

#[test]
fn every_flag_is_in_the_table_and_the_table_has_no_other() {
    let help =
        Command::new(env!("CARGO_BIN_EXE_gossd")).args(["run", "--help"]).output().expect("gossd runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let flag = |line: &str| -> Option<String> {
        let at = line.find("--")?;
        Some(line[at..].split(|c: char| c != '-' && !c.is_ascii_lowercase()).next()?.to_owned())
    };
    let mut real: Vec<_> =
        help.lines().filter(|line| line.trim_start().starts_with("--")).filter_map(flag).collect();
    let section = REFERENCE.split_once("## Flags of `gossd run`").expect("the section").1;
    let section = section.split_once("\n## ").expect("its end").0;
    let mut told: Vec<_> =
        section.lines().filter(|line| line.starts_with("| `--")).filter_map(flag).collect();
    real.sort();
    told.sort();
    assert!(told.len() >= 9);
    assert_eq!(told, real);
}

#[test]
fn every_verb_is_in_the_table_and_the_table_has_no_other() {
    let help = String::from_utf8(gossd().arg("--help").output().expect("gossd runs").stdout).expect("text");
    let list = help.split_once("Commands:\n").expect("a list").1;
    // Two blanks before a verb, more before the rest of its text.
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let verbs =
        lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|verb| !verb.is_empty());
    let real: BTreeSet<&str> = verbs.filter(|verb| *verb != "help").collect();
    assert!(real.len() >= 15, "{real:?}");
    let told = first_column("| verb | what it prints or does |");
    let told: BTreeSet<&str> = told.iter().filter_map(|code| code.split(' ').nth(1)).collect();
    assert_eq!(told, real);
}

/// The words in backquotes in the first column of a table.
fn first_column(header: &str) -> BTreeSet<String> {
    let table = REFERENCE.split_once(header).expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    cells.flat_map(code).map(str::to_owned).collect()
}

/// The words in backquotes.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

async fn ask(agent: &Process, path: &str) -> (u16, String) {
    let client = client().build().expect("a client");
    let answer = client.get(format!("http://{}{path}", agent.admin)).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, if path == "/events" { String::new() } else { answer.text().await.expect("text") })
}

#[tokio::test]
async fn every_path_is_documented_and_answers_where_it_is_documented() {
    let agent = Process::start("a", &[]);
    let told = first_column("| path | what |");
    for path in &told {
        let query = if path == "/explain.json" { "?name=t" } else { "" };
        assert_eq!(ask(&agent, &format!("{path}{query}")).await.0, 200, "{path}");
    }
    let socket = first_column("| path, on the control socket only | what |");
    for path in &socket {
        assert_eq!(ask(&agent, path).await.0, 403, "{path}");
    }
    let (status, text) = ask(&agent, "/elsewhere").await;
    assert_eq!(status, 404);
    let paths = text.split([' ', ',', ';']).filter(|word| word.starts_with('/'));
    let paths: BTreeSet<String> = paths.map(str::to_owned).collect();
    assert!(paths.len() >= 16);
    assert_eq!(&told | &socket, paths, "it says what there is: {text}");
}

#[tokio::test]
async fn every_metric_is_in_the_table_and_the_table_has_no_other() {
    let agent = Process::start("a", &[]);
    let (_, text) = ask(&agent, "/metrics").await;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    // By the names in queries, which are those of the samples.
    let real: BTreeSet<String> = families.map(|(family, _)| family.to_owned()).collect();
    assert!(real.len() >= 20);
    let told = first_column("| metric | what |");
    assert_eq!(told, real);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        assert!(told.contains(name) || part.is_some_and(|name| told.contains(name)), "{line}");
    }
}

#[test]
fn every_exit_code_is_in_the_table_and_happens_and_the_table_has_no_other() {
    let agent = Process::start("a", &[]);
    let admin = agent.admin.to_string();
    let ends = |args: &[&str]| gossd().args(args).output().expect("gossd runs").status.code();
    let happens = [
        ends(&["status", "--admin", &admin]),
        ends(&["status", "--admin", "127.0.0.1:1"]),
        ends(&["status", "--no-such-flag"]),
        ends(&["get", "nobody", "--admin", &admin]),
    ];
    let table = REFERENCE.split_once("| exit code | when").expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told: Vec<Option<i32>> = rows.map(|row| row.split('|').nth(1)?.trim().parse().ok()).collect();
    assert_eq!(told, happens);
    let help = String::from_utf8(gossd().arg("--help").output().expect("gossd runs").stdout).expect("text");
    let help = help.split_once("Exit codes:").expect("it tells them").1.trim().lines();
    assert_eq!(help.map(|line| line.split_whitespace().next()?.parse().ok()).collect::<Vec<_>>(), told);
}

/// The part of a page that is the same in every language.
#[derive(Default)]
struct Outline {
    /// The number signs of each heading.
    headings: Vec<String>,
    /// Each fenced block after its language; shell blocks without comments, which may be translated.
    blocks: Vec<String>,
    /// Each row of a table: the code and the numbers in its first cell. For a head, as many dashes as columns.
    rows: Vec<String>,
    /// Of each section, how many points its lists have, and what it says in code: nobody translates that.
    sections: Vec<(usize, BTreeSet<String>)>,
}

impl Outline {
    fn of(readme: &str) -> Self {
        let mut outline = Self::default();
        let mut lines = readme.lines();
        while let Some(line) = lines.next() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                let body = lines.by_ref().take_while(|line| line.trim_start() != "```");
                outline.blocks.push(shown(language, body));
            } else if line.starts_with('#') {
                outline.headings.push(line.chars().take_while(|c| *c == '#').collect());
            } else if line.starts_with("|---") {
                outline.rows.push(line.to_owned());
            } else if let Some(row) = line.strip_prefix('|') {
                outline.rows.push(names(row.split('|').next().unwrap_or_default().trim()));
            }
        }
        outline.sections = sections(readme);
        outline
    }
}

fn sections(readme: &str) -> Vec<(usize, BTreeSet<String>)> {
    let text = without_blocks(readme);
    let section = |text: &str| {
        let points = text.lines().filter(|line| line.starts_with("- ")).count();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (points, code(&words).map(str::to_owned).collect())
    };
    text.split("\n#").map(section).collect()
}

/// A block as in both languages: shell without its comments, anything else byte for byte.
fn shown<'a>(language: &'a str, body: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> =
        if language == "sh" { body.filter_map(without_comment).collect() } else { body.collect() };
    format!("{language}\n{}", lines.join("\n"))
}

/// A shell line up to its comment; `None` for a comment alone.
fn without_comment(line: &str) -> Option<&str> {
    let command = line.split(" # ").next()?.trim_end();
    (!command.trim_start().starts_with('#')).then_some(command)
}

/// The untranslated part of a row's first cell.
fn names(cell: &str) -> String {
    let is_number = cell.parse::<u32>().is_ok();
    if is_number { cell.to_owned() } else { code(cell).collect::<Vec<_>>().join(" ") }
}

/// Fails at the first difference, and shows only that.
fn assert_same<T: PartialEq + std::fmt::Debug>(chinese: &[T], english: &[T]) {
    for (chinese, english) in chinese.iter().zip(english) {
        assert_eq!(chinese, english, "the Chinese edition's, then the English one's");
    }
    assert_eq!(chinese.len(), english.len(), "one edition has more");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// The pages in a folder.
fn pages(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Each page in both languages: the Chinese one, then the English one.
fn editions() -> Vec<[PathBuf; 2]> {
    let manual = pages(&root().join("docs/zh-CN")).into_iter().map(|chinese| {
        let english = root().join("docs").join(chinese.file_name().expect("a name"));
        [chinese, english]
    });
    let readme = ["README.zh-CN.md", "README.md"].map(|name| root().join(name));
    [readme].into_iter().chain(manual).collect()
}

#[test]
fn both_languages_say_the_same() {
    let mut of_both = pages(&root().join("docs"));
    let (mut headings, mut blocks, mut rows) = (0, 0, 0);
    for [chinese_page, english_page] in editions() {
        println!("{}", chinese_page.display());
        let [chinese, english] = [&chinese_page, &english_page].map(|page| Outline::of(&read(page)));
        assert_same(&chinese.blocks, &english.blocks);
        if english_page == root().join(FIGURES) {
            assert!(chinese.rows.is_empty(), "its tables are the English page's");
        } else {
            assert_same(&chinese.rows, &english.rows);
        }
        assert_eq!(chinese.headings, english.headings);
        assert_same(&chinese.sections, &english.sections);
        headings += english.headings.len();
        blocks += english.blocks.len();
        rows += english.rows.len();
        of_both.remove(&english_page);
    }
    assert!(headings >= 40 && blocks >= 25 && rows >= 150, "{headings} {blocks} {rows}");
    assert_eq!(of_both, BTreeSet::from([SCENARIOS, PROMISES].map(|page| root().join(page))));
}

#[test]
fn a_readme_is_read_in_three_minutes() {
    for page in ["README.md", "README.zh-CN.md"] {
        let length = read(&root().join(page)).len();
        assert!(length <= 9000, "{page} has {length} bytes");
    }
}

/// The command lines of `gossd` in a page's shell blocks, without redirections, job control and comments.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().expect("its text"));
    let lines: Vec<String> = blocks
        .flat_map(|block| block.replace("\\\n", "").lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let ends = [" # ", " > ", ")", " |", " &", ";"];
    let starts = |line: &str| {
        line.strip_prefix("(umask 077; ").unwrap_or(line).strip_prefix("gossd ").map(str::to_owned)
    };
    lines
        .iter()
        .filter_map(|line| starts(line))
        .map(|line| {
            let end = ends.iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len());
            line[..end].trim().to_owned()
        })
        .collect()
}

#[test]
fn every_command_of_the_manual_has_flags_that_there_are() {
    let mut found = 0;
    for page in editions().into_iter().flatten() {
        for line in commands(&read(&page)) {
            let words = line.split_whitespace().chain(["--help"]);
            let output = gossd().args(words).output().expect("gossd runs");
            assert!(
                output.status.success(),
                "{}: gossd {line}: {}",
                page.display(),
                String::from_utf8_lossy(&output.stderr)
            );
            found += 1;
        }
    }
    assert!(found >= 30, "{found}");
    let wrong = gossd().args(["run", "--no-such-flag", "--help"]).output().expect("gossd runs");
    assert!(!wrong.status.success(), "help does not hide a wrong flag");
}

/// A page without its fenced blocks, which are no Markdown.
fn without_blocks(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// The targets of the links and pictures of a page, except for other sites.
fn links(page: &Path) -> Vec<String> {
    let text = without_blocks(&read(page));
    let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    links.filter(|link| !link.starts_with("https://")).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = without_blocks(&read(page));
    let headings = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_what_is_there() {
    let mut from: BTreeSet<PathBuf> = editions().into_iter().flatten().collect();
    from.extend(pages(&root().join("docs")));
    from.extend(["CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)));
    let (mut found, mut found_anchors) = (0, 0);
    for page in &from {
        for link in links(page) {
            let (path, anchor) =
                link.split_once('#').map_or((&*link, None), |(path, anchor)| (path, Some(anchor)));
            let folder = page.parent().expect("a folder");
            let to = if path.is_empty() { page.clone() } else { folder.join(path) };
            assert!(to.exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&to).contains(anchor), "{}: {link}", page.display());
                found_anchors += 1;
            }
            found += 1;
        }
    }
    assert!(found >= 100 && found_anchors >= 30, "{found} {found_anchors}");
}

#[test]
fn the_figures_are_measured_by_programs_that_are_there() {
    let page = read(&root().join(FIGURES));
    let (laboratory, manifest) = ("crates/lab/src/main.rs", "crates/lab/Cargo.toml");
    let [verbs, programs] = [laboratory, manifest].map(|path| read(&root().join(path)));
    let mut measured: BTreeSet<&str> = BTreeSet::new();
    for command in page.lines().filter_map(|line| line.split_once(" --package gossd-lab --bin ")) {
        let words: Vec<&str> = command.1.split(' ').collect();
        assert!(programs.contains(&format!("name = \"{}\"", words[0])), "{words:?}");
        if words[0] == "gossd-lab" {
            let (first, rest) = words[2].split_at(1);
            let args = format!("({}::{}{rest}Args)", words[2], first.to_uppercase());
            assert!(verbs.contains(&args), "{words:?}");
        }
        measured.insert(words[if words[0] == "gossd-lab" { 2 } else { 0 }]);
    }
    assert!(measured.len() >= 7, "{measured:?}");
    let scripts = page.lines().filter(|line| line.starts_with("scripts/"));
    let scripts: BTreeSet<&str> = scripts.filter_map(|line| line.split(' ').next()).collect();
    assert!(scripts.len() >= 2 && scripts.iter().all(|script| root().join(script).exists()), "{scripts:?}");
    assert!(!page.contains("--example"), "nothing is measured by an example");
}

#[test]
fn the_index_lists_every_page_of_the_manual() {
    for (folder, readme) in [("docs", "README.md"), ("docs/zh-CN", "README.zh-CN.md")] {
        let folder = root().join(folder);
        let index = folder.join("README.md");
        let listed: BTreeSet<PathBuf> = links(&index).iter().map(|link| folder.join(link)).collect();
        for page in pages(&folder).into_iter().filter(|page| *page != index) {
            assert!(listed.contains(&page), "{} is not in the index", page.display());
            let text = read(&page);
            let purpose = text.lines().nth(2).expect("a sentence that says what the page is for");
            assert!(text.starts_with("# ") && purpose.starts_with(char::is_alphabetic), "{}", page.display());
        }
        let from_readme: Vec<PathBuf> =
            links(&root().join(readme)).iter().map(|link| root().join(link)).collect();
        assert!(from_readme.contains(&index), "{readme} leads to the index");
    }
}
