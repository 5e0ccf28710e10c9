//! Every name in the table of gost's facts exists: items of the simulated gost, scenarios and tests.

use std::fs;
use std::path::{Path, PathBuf};

const TABLE: &str = include_str!("../FACTS.md");

/// One fact.
struct Row<'a> {
    fact: &'a str,
    simulated: &'a str,
    recorded: &'a str,
    noticed_by: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let lines = TABLE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fact |"));
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [fact, simulated, recorded, noticed_by] = cells[..] else { panic!("four cells: {line}") };
        Row { fact, simulated, recorded, noticed_by }
    };
    lines.map(row).collect()
}

/// The names in backticks.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The folder of the harness.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The folder of gossd.
fn root() -> PathBuf {
    here().join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `FILE: ITEM`: both exist.
fn assert_there(folder: &Path, name: &str) {
    let (file, item) = name.split_once(": ").unwrap_or_else(|| panic!("no FILE: ITEM: {name}"));
    let text = read(&folder.join(file));
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    assert!(words.any(|word| word == item), "{file} has no {item}");
}

/// The names of all scenarios.
fn scenarios() -> Vec<String> {
    let files = fs::read_dir(here().join("src/scenarios")).expect("a folder");
    let text: String = files.map(|file| read(&file.expect("a file").path())).collect();
    let named = text.split("Scenario::new(").skip(1).filter_map(|after| after.split('"').nth(1));
    named.map(str::to_owned).collect()
}

#[test]
fn the_simulated_gost_has_what_the_table_says() {
    for row in rows() {
        let names = names(row.simulated);
        assert!(!names.is_empty() || row.simulated == "not simulated", "{}", row.fact);
        for name in names {
            assert_there(&here().join("src/fakegost"), name);
        }
        assert!(row.recorded.starts_with("yes") || row.recorded == "no", "{}", row.fact);
    }
}

#[test]
fn somebody_notices_each_fact() {
    let scenarios = scenarios();
    assert!(scenarios.len() > 30, "{scenarios:?}");
    for row in rows() {
        let names = names(row.noticed_by);
        assert!(!names.is_empty() || row.noticed_by.starts_with("none: "), "{}", row.fact);
        for name in names {
            if name.contains(": ") {
                assert_there(&root(), name);
            } else {
                assert!(scenarios.iter().any(|scenario| scenario == name), "no scenario {name}");
            }
        }
    }
}

#[test]
fn the_table_is_not_empty() {
    assert!(rows().len() > 40);
    assert!(rows().iter().filter(|row| row.recorded.starts_with("yes")).count() > 20);
}
