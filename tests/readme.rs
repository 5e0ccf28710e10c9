//! What the README says to type works as typed, and prints what it says.

use std::path::Path;
use std::process::Command;

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
