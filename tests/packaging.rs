//! The output of `gossd` for packages: completions that shells can read, and manual pages with every verb and flag.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::eventually;
use crate::common::gost::FakeGost;
use crate::common::process::{Process, gossd, new_key};

const SOON: Duration = Duration::from_secs(20);

/// What the program prints.
fn said(args: &[&str]) -> String {
    let output = gossd().args(args).output().expect("gossd runs");
    assert!(output.status.success(), "gossd {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Every verb that `gossd --help` lists.
fn verbs() -> Vec<String> {
    let help = said(&["--help"]);
    let list = help.split_once("Commands:\n").expect("a list").1;
    let names =
        list.lines().take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    let verbs: Vec<_> = names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    assert!(verbs.len() >= 8 && verbs.contains(&"run".into()), "{verbs:?}");
    verbs.into_iter().filter(|verb| verb != "help").collect()
}

/// Every flag that a verb's help lists.
fn flags(verb: &str) -> BTreeSet<String> {
    let help = said(&[verb, "--help"]);
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    flags.map(str::to_owned).collect()
}

#[test]
fn each_shell_can_read_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("script");
        fs::write(&path, said(&["completions", shell])).expect("a file");
        let Ok(output) = Command::new(shell).arg("-n").arg(&path).output() else {
            assert_ne!(shell, "bash", "bash is there");
            println!("SKIPPED: {shell} is not installed; nothing has shown that it can read its completions");
            continue;
        };
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What bash offers behind these words, with these variables for gossd.
fn completed(words: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    fs::write(&script, said(&["completions", "bash"])).expect("a file");
    let program = Path::new(env!("CARGO_BIN_EXE_gossd")).parent().expect("a folder");
    let asked = format!(
        "PATH={}:$PATH; . {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; \
         _clap_complete_gossd gossd \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        program.display(),
        script.display()
    );
    let output = Command::new("bash").args(["-c", &asked]).envs(variables.iter().copied()).output();
    let output = output.expect("bash runs");
    let said = String::from_utf8(output.stdout).expect("text");
    said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    for (words, want) in [
        ("gossd heal", "healthcheck"),
        ("gossd run --key-f", "--key-file"),
        ("gossd run --order n", "nearest"),
        ("gossd keys rem", "remove"),
    ] {
        assert_eq!(completed(words, &[]), [want], "{words}");
    }
    let flags: BTreeSet<String> = completed("gossd run --", &[]).into_iter().collect();
    for flag in self::flags("run") {
        assert!(flags.contains(&flag), "{flag} is not among {flags:?}");
    }
}

#[tokio::test]
async fn bash_completes_what_the_running_agent_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("gossd")).expect("a folder");
    let runtime = folder.path().to_str().expect("text");
    let elsewhere = [("XDG_RUNTIME_DIR", runtime), ("HOME", runtime), ("XDG_STATE_HOME", runtime)];
    let (key, tunnel) = (new_key(folder.path()), "4d21094e-b74c-4916-86c1-d9fa36ea677b");
    let rule = format!("shop.example.org={tunnel}");
    let a = Process::start_in("a1", &elsewhere, &["--key-file", &key]);
    let join = a.gossip.to_string();
    let mut b =
        Process::start_in("b1", &elsewhere, &["--key-file", &key, "--join", &join, "--ingress-rule", &rule]);
    let mut gost = FakeGost::start("n", a.plugin).await;
    gost.register("c23d4f42-c892-42b3-8b74-88ab6455d33a", tunnel).await;
    let completed = |words: &str| completed(words, &elsewhere);
    // An agent that stands for the others does not know all of it at once.
    eventually(SOON, "all agents know the tunnel", || completed("gossd explain 4d2") == [tunnel]).await;
    assert_eq!(completed("gossd get sho"), ["shop.example.org"]);
    assert_eq!(completed("gossd status --name ''"), ["a1", "b1"]);
    assert_eq!(completed("gossd services --agent b"), ["b1"]);
    assert_eq!(completed("gossd watch b"), ["b1"]);
    let ids = completed("gossd keys use ''");
    let is_id = |word: &String| word.len() == 8 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
    assert!(is_id(&ids[0]) && ids[1..].iter().all(|word| word.starts_with("--")), "one key: {ids:?}");
    assert!(completed("gossd forget b").is_empty(), "it lives");
    b.kill();
    // Nobody to ask is no error on the screen.
    drop((a, b));
    assert!(completed("gossd explain 4d2").is_empty());
}

#[test]
fn nothing_in_the_program_can_be_broken_on_purpose() {
    let lines_with = |text: &str| {
        let program = env!("CARGO_BIN_EXE_gossd");
        let output = Command::new("grep").args(["-a", "-c", text, program]).output().expect("grep runs");
        let lines = String::from_utf8_lossy(&output.stdout).trim().parse::<u32>();
        lines.expect("a number of lines")
    };
    assert!(lines_with("GOSSD_LEASE_TTL") > 0, "variables are found like this");
    assert_eq!(lines_with("GOSSD_TEST_"), 0, "tests have a program of their own");
}

#[test]
fn the_manual_has_a_page_for_every_verb() {
    let page = plain(&said(&["man"]));
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("man/man1");
    said(&["man", "--dir", folder.to_str().expect("text")]);
    let read = |name: &str| plain(&fs::read_to_string(folder.join(name)).expect("a page"));
    assert_eq!(read("gossd.1"), page);
    for verb in verbs() {
        assert!(page.contains(&format!("gossd-{verb}(1)")), "{verb}");
        let page = read(&format!("gossd-{verb}.1"));
        for flag in flags(&verb) {
            assert!(page.contains(&flag), "gossd-{verb}(1) has no {flag}");
        }
        for section in ["EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(page.contains(section), "gossd-{verb}(1) has no {section}");
        }
    }
    for page in fs::read_dir(&folder).expect("a folder") {
        let page = page.expect("a page").file_name().into_string().expect("text");
        let known =
            |verb: &String| page == format!("gossd-{verb}.1") || page.starts_with(&format!("gossd-{verb}-"));
        assert!(page == "gossd.1" || verbs().iter().any(known), "{page} is no verb's");
    }
    let error = gossd().args(["man", "--dir", "/dev/null/man"]).output().expect("gossd runs");
    assert_eq!(error.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&error.stderr).contains("/dev/null/man"));
}

/// A page's text as a reader sees its words.
fn plain(roff: &str) -> String {
    ["\\fB", "\\fI", "\\fR"].iter().fold(roff.replace("\\-", "-"), |text, font| text.replace(font, ""))
}
