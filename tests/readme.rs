//! What the README says to type works as typed, and prints what it says; the Chinese edition says the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::common::client;
use crate::common::process::{Process, gossd};

const README: &str = include_str!("../README.md");
const CHINESE: &str = include_str!("../README.zh-CN.md");

/// The code block that follows a marker comment.
fn block(marker: &str) -> &'static str {
    let after = README.split_once(&format!("<!-- {marker} -->\n```")).expect("the marker is there").1;
    let body = after.split_once('\n').expect("a block").1;
    body.split_once("\n```").expect("its end").0
}

#[test]
fn the_three_agent_walk_works_as_typed() {
    let walk = block("walk");
    assert!(walk.matches("curl").count() >= 4 && walk.matches("gossd run").count() == 3);
    let directory = tempfile::tempdir().expect("a directory");
    let program = Path::new(env!("CARGO_BIN_EXE_gossd")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("PATH"));
    // Job control gives each agent its number, as in an interactive shell; the trap ends them whatever happens.
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
    let printed: Vec<&str> = stdout.lines().filter(|line| line.starts_with('{')).collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed.join("\n"), block("walk prints"), "standard error was:\n{stderr}");
    assert_eq!(stdout.matches("plugin http://127.0.0.1:80").count(), 3, "{stdout}");
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
    let section = README.split_once("## Flags of `gossd run`").expect("the section").1;
    let section = section.split_once("\n## ").expect("its end").0;
    let mut told: Vec<_> =
        section.lines().filter(|line| line.starts_with("| `--")).filter_map(flag).collect();
    real.sort();
    told.sort();
    assert!(told.len() >= 9);
    assert_eq!(told, real);
}

/// The words in backquotes in the first column of a table.
fn first_column(header: &str) -> BTreeSet<String> {
    let table = README.split_once(header).expect("the table is there").1;
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
async fn every_path_of_the_admin_listener_is_told_and_answers() {
    let agent = Process::start("a", &[]);
    let told = first_column("| path | what |");
    for path in &told {
        let query = if path == "/explain.json" { "?name=t" } else { "" };
        assert_eq!(ask(&agent, &format!("{path}{query}")).await.0, 200, "{path}");
    }
    let routes = include_str!("../src/admin/mod.rs").split(".route(\"").skip(1);
    let routes: BTreeSet<String> =
        routes.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
    assert!(routes.len() >= 8);
    assert_eq!(told, routes);
    let (status, text) = ask(&agent, "/elsewhere").await;
    assert_eq!(status, 404);
    assert!(told.iter().all(|path| text.contains(path)), "it says what there is: {text}");
}

#[tokio::test]
async fn every_metric_is_in_the_table_and_the_table_has_no_other() {
    let agent = Process::start("a", &[]);
    let (_, text) = ask(&agent, "/metrics").await;
    let real = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let real: BTreeSet<String> = real.map(str::to_owned).collect();
    assert!(real.len() >= 20);
    assert_eq!(first_column("| metric | what |"), real);
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
    let table = README.split_once("| exit code | when").expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told: Vec<Option<i32>> = rows.map(|row| row.split('|').nth(1)?.trim().parse().ok()).collect();
    assert_eq!(told, happens);
    let help = String::from_utf8(gossd().arg("--help").output().expect("gossd runs").stdout).expect("text");
    let help = help.split_once("Exit codes:").expect("it tells them").1.trim().lines();
    assert_eq!(help.map(|line| line.split_whitespace().next()?.parse().ok()).collect::<Vec<_>>(), told);
}

/// What of a README is the same in every language.
#[derive(Default)]
struct Outline {
    /// The number signs of each heading.
    headings: Vec<String>,
    /// Each fenced block after its language; those of shell without comments, which may be translated.
    blocks: Vec<String>,
    /// Each row of a table: the code and the numbers in its first cell. Under a head, as many dashes as columns.
    rows: Vec<String>,
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
        outline
    }
}

/// A block as both languages have it: shell without its comments, anything else byte for byte.
fn shown<'a>(language: &'a str, body: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> =
        if language == "sh" { body.filter_map(without_comment).collect() } else { body.collect() };
    format!("{language}\n{}", lines.join("\n"))
}

/// A shell line up to its comment; None if it is nothing else.
fn without_comment(line: &str) -> Option<&str> {
    let command = line.split(" # ").next()?.trim_end();
    (!command.trim_start().starts_with('#')).then_some(command)
}

/// What a first cell names that is not translated.
fn names(cell: &str) -> String {
    let is_number = cell.parse::<u32>().is_ok();
    if is_number { cell.to_owned() } else { code(cell).collect::<Vec<_>>().join(" ") }
}

/// Fails at the first difference, and shows only that.
fn assert_same(chinese: &[String], english: &[String]) {
    for (chinese, english) in chinese.iter().zip(english) {
        assert_eq!(chinese, english, "the Chinese edition's, then the English one's");
    }
    assert_eq!(chinese.len(), english.len(), "one edition has more");
}

#[test]
fn both_languages_say_the_same() {
    let (chinese, english) = (Outline::of(CHINESE), Outline::of(README));
    assert!(english.headings.len() >= 15 && english.blocks.len() >= 15 && english.rows.len() >= 80);
    assert_same(&chinese.blocks, &english.blocks);
    assert_same(&chinese.rows, &english.rows);
    assert_eq!(chinese.headings, english.headings);
}
