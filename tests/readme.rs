//! What the README says to type works as typed, and prints what it says.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::client;
use common::process::Process;

const README: &str = include_str!("../README.md");

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
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
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
