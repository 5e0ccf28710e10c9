//! `gossd check` finds what would keep an agent from working, names the remedy, and leaves no trace.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::netns::Network;
use crate::common::process::{Process, gossd};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::link::keyring::Keyring;
use serde_json::Value;

/// The output, and the exit code.
fn check(folder: &Path, flags: &[&str]) -> (String, i32) {
    let control = folder.join("run/gossd.sock");
    let mut command = gossd();
    command
        .args(["check", "--name", "a", "--data-dir"])
        .arg(folder.join("data"))
        .arg("--control")
        .arg(control);
    for (flag, address) in
        [("--plugin", "127.0.0.1:0"), ("--gossip", "127.0.0.1:0"), ("--admin", "127.0.0.1:0")]
    {
        if !flags.contains(&flag) {
            command.args([flag, address]);
        }
    }
    let output = command.args(flags).output().expect("gossd runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).expect("text"), output.status.code().expect("it ended by itself"))
}

/// The first line about a check.
fn line<'a>(text: &'a str, check: &str) -> &'a str {
    let about = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(check));
    text.lines().find(about).unwrap_or_else(|| panic!("nothing about {check}: {text}"))
}

#[test]
fn a_good_host_passes_every_check_and_is_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, gossd().arg("keygen").output().unwrap().stdout).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let (text, code) =
        check(folder.path(), &["--key-file", key.to_str().unwrap(), "--join", "localhost:8002"]);
    assert_eq!(code, 0, "{text}");
    let checks = [
        "settings",
        "key file",
        "data folder",
        "plugin",
        "gossip",
        "admin",
        "control socket",
        "join",
        "clock",
    ];
    for check in checks {
        assert!(line(&text, check).starts_with("ok "), "{text}");
    }
    assert!(line(&text, "peer").starts_with("warn"), "nobody is there: {text}");
    assert_eq!(text.lines().count(), checks.len() + 2, "and the advertised host: {text}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing but the key is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_to_join_are_asked_whether_they_have_the_key_and_nothing_joins() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, gossd().args(["keys", "generate"]).output().unwrap().stdout).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    };
    let (key, other) = (file("key"), file("other"));
    let mut config = Config::loopback("b".parse().unwrap());
    config.keyring = Keyring::parse(&fs::read_to_string(&key).unwrap()).unwrap();
    let peer = Daemon::start(config).await.unwrap();
    let join = peer.gossip.to_string();
    for (key, cluster, verdict, part) in [
        (&key, "default", "ok ", format!("b at {join} answers: gossd {}", env!("CARGO_PKG_VERSION"))),
        (&other, "default", "FAIL", "does not have the key of this one".into()),
        (&key, "other", "FAIL", "has the same key and another --cluster".into()),
    ] {
        let flags = ["--key-file", key.to_str().unwrap(), "--cluster", cluster, "--join", &join];
        let (text, code) = tokio::task::block_in_place(|| check(folder.path(), &flags));
        let peer = line(&text, "peer");
        assert!(peer.starts_with(verdict) && peer.contains(&part), "{text}");
        assert_eq!(code, i32::from(verdict == "FAIL"), "{text}");
    }
    assert_eq!((peer.peers(), peer.counts().agents), (0, 1), "nobody joined");
}

#[test]
fn failing_checks_are_found_at_once_the_worst_first() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "no folder").unwrap();
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, "0b7c1f0e5d7a4c9f8e21d3a6b5947c10\n").unwrap();
    fs::set_permissions(&tokens, Permissions::from_mode(0o644)).unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let flags = [
        "--plugin",
        &taken,
        "--gossip",
        "0.0.0.0:0",
        "--key-file",
        "/nonexistent",
        "--join",
        "no-such-host.invalid:1",
        "--token-file",
        tokens.to_str().unwrap(),
        "--advertise-host",
        "192.0.2.1",
    ];
    let (text, code) = check(folder.path(), &flags);
    assert_eq!(code, 1, "{text}");
    for (check, told) in [
        ("key file", "--key-file /nonexistent: cannot be read"),
        ("token file", "(mode 0644): `chmod 600 "),
        ("data folder", "set --data-dir"),
        ("plugin", "`ss -tulnp"),
        ("join", "no-such-host.invalid:1 does not resolve"),
    ] {
        let line = line(&text, check);
        assert!(line.starts_with("FAIL  ") && line.contains(told), "{line}");
    }
    let warned = line(&text, "advertise host");
    assert!(warned.starts_with("warn  ") && warned.contains("`nc -vz 192.0.2.1 "), "{warned}");
    let verdicts: Vec<&str> = text.lines().map(|line| &line[..4]).collect();
    let mut sorted = verdicts.clone();
    sorted.sort_by_key(|verdict| ["FAIL", "warn", "ok  "].iter().position(|word| word == verdict));
    assert_eq!(verdicts, sorted);

    let (json, code) = check(folder.path(), &[&flags[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["ok"], code), (&false.into(), 1));
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), verdicts.len());
    assert_eq!(checks[0]["verdict"], "fail");
}

#[test]
fn a_running_agent_is_distinguished_from_another_and_from_a_stranger() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("run/gossd.sock");
    let run = |name: &str| Process::start(name, &["--control", control.to_str().unwrap()]);
    let flags = |agent: &Process| {
        let places = [agent.plugin, agent.gossip, agent.admin].map(|address| address.to_string());
        let [plugin, gossip, admin] = places;
        ["--plugin".into(), plugin, "--gossip".into(), gossip, "--admin".into(), admin]
    };
    let examined = |agent: &Process| {
        let flags = flags(agent);
        check(folder.path(), &flags.each_ref().map(String::as_str))
    };
    let (text, code) = examined(&run("a"));
    assert_eq!(code, 0, "{text}");
    for check in ["plugin", "gossip", "admin", "control socket"] {
        let line = line(&text, check);
        assert!(line.starts_with("ok ") && line.contains("this agent, which is running"), "{line}");
    }
    let (text, code) = examined(&run("b"));
    assert_eq!(code, 1, "{text}");
    for check in ["plugin", "gossip", "admin"] {
        let line = line(&text, check);
        assert!(line.starts_with("FAIL  ") && line.contains("taken by the agent b"), "{line}");
    }
    assert!(line(&text, "control socket").starts_with("warn  "), "{text}");
    let other = Process::start("c", &[]);
    let (text, _) = check(folder.path(), &["--plugin", &other.plugin.to_string()]);
    assert!(line(&text, "plugin").contains("taken by a gossd"), "{text}");
}

#[test]
fn the_file_of_host_names_has_to_be_written_and_to_be_what_gost_reads() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let (file, gost) = (folder.path().join("hosts"), folder.path().join("gost.yml"));
    let (file, gost) = (file.to_str().unwrap(), gost.to_str().unwrap());
    let print = |flags: &[&str]| {
        let output = gossd().arg("gost-config").args(flags).output().expect("gossd runs");
        fs::write(gost, output.stdout).unwrap();
    };
    print(&["--ingress", "file", "--ingress-file", file]);
    let (text, code) = check(folder.path(), &["--ingress-file", file, "--gost-config", gost]);
    assert_eq!(code, 0, "{text}");
    assert!(line(&text, "ingress file").starts_with("ok "), "{text}");
    assert!(line(&text, "gost's ingress").contains(&format!("reads {file} every 1s")), "{text}");
    let (text, code) = check(folder.path(), &["--gost-config", gost]);
    assert_eq!(code, 1, "{text}");
    assert!(line(&text, "gost's ingress").contains("which nobody writes: add --ingress-file"), "{text}");
    print(&[]);
    let (text, code) = check(folder.path(), &["--ingress-file", file, "--gost-config", gost]);
    assert_eq!(code, 0, "{text}");
    assert!(line(&text, "gost's ingress").starts_with("warn  "), "{text}");
    let (text, code) = check(folder.path(), &["--ingress-file", "/nonexistent/hosts"]);
    assert_eq!(code, 1, "{text}");
    assert!(line(&text, "ingress file").contains("/nonexistent is no folder: make it"), "{text}");
}

#[test]
fn contradictions_are_found() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, about, told) in [
        (&["--gossip", "0.0.0.0:0"][..], "settings", "needs a key"),
        (&["--plugin", "127.0.0.1:4711", "--admin", "127.0.0.1:4711"], "admin", "is --plugin as well"),
        (
            &["--ingress-rule", "a.b=4d21094e-b74c-4916-86c1-d9fa36ea677b", "--ingress-domain", "?"],
            "settings",
            "--ingress",
        ),
    ] {
        let (text, code) = check(folder.path(), flags);
        assert_eq!(code, 1, "{text}");
        let line = line(&text, about);
        assert!(line.starts_with("FAIL  ") && line.contains(told), "{text}");
    }
    let file = folder.path().join("gossd.toml");
    fs::write(&file, "\nlease = 3").unwrap();
    let output = gossd().arg("check").arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("line 2: lease: there is no such setting"), "{said}");
}

/// The line that tells what is wrong with a set-up, on the host where it is: of a check, begin and part.
const SET_UPS: [(&str, &[&str], &str, &str, &str); 8] = [
    ("no key", &["--key-file="], "settings", "FAIL", "there is no --key-file"),
    ("another key", &["--key-file=other"], "peer", "FAIL", "does not have the key of this one"),
    ("another cluster", &["--cluster=staging"], "peer", "FAIL", "the same key and another --cluster"),
    ("UDP closed", &[], "peer", "warn", "answers by TCP and not by UDP: open UDP port 8002"),
    ("TCP closed", &[], "peer", "warn", "TCP port 8002 does not answer"),
    (
        "IPv4 beside IPv6",
        &["--gossip=0.0.0.0:8002", "--join=[fd66::1]:8002"],
        "join",
        "FAIL",
        "of IPv6, and --gossip 0.0.0.0:8002",
    ),
    (
        "a wrong advertised host",
        &["--advertise-host=10.66.0.99"],
        "advertise host",
        "warn",
        "is no address of this host",
    ),
    ("a taken name", &["--name=a"], "peer", "warn", "an agent named a, like this one"),
];

#[test]
fn each_wrong_set_up_is_named_in_one_line_on_the_host_that_is_wrong() {
    let Some(mut network) = Network::new() else { return };
    let a = network.host("a", &["10.66.0.1/24", "fd66::1/64"]);
    let b = network.host("b", &["10.66.0.2/24", "fd66::2/64"]);
    let _agent = a.agent(&["--advertise-host", "10.66.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let other = crate::common::process::new_key(folder.path());
    let asked = |flags: &[&str]| {
        let flags: Vec<String> = flags
            .iter()
            .map(|flag| flag.replace("--key-file=other", &format!("--key-file={other}")))
            .collect();
        let has = |flag: &str| flags.iter().any(|given| given.starts_with(flag));
        let mut all: Vec<&str> =
            flags.iter().map(String::as_str).filter(|flag| *flag != "--key-file=").collect();
        if !has("--join") {
            all.push("--join=10.66.0.1:8002");
        }
        if !has("--name") {
            all.push("--name=b");
        }
        b.examine(&all, !has("--key-file"))
    };
    let right = asked(&[]);
    assert!(line(&right, "peer").starts_with("ok  ") && !right.contains("FAIL"), "{right}");
    let local = asked(&["--gossip=127.0.0.1:8002"]);
    assert!(line(&local, "peer").contains("reaches this host only"), "{local}");
    for (what, flags, about, verdict, part) in SET_UPS {
        let wall = match what {
            "UDP closed" => "udp dport 8002 drop",
            "TCP closed" => "tcp dport 8002 drop",
            _ => "",
        };
        if !wall.is_empty() {
            a.output("nft", &[&format!("add table inet wall; add chain inet wall in {{ type filter hook input priority 0; }}; add rule inet wall in {wall}")]);
            assert!(a.output("nft", &["list", "ruleset"]).contains(wall), "nft filters here");
        }
        let said = asked(flags);
        let told = line(&said, about);
        assert!(told.starts_with(verdict) && told.contains(part), "{what}: {said}");
        let wrong = said.lines().filter(|line| !line.starts_with("ok  ")).count();
        assert_eq!(wrong, 1, "{what}, and nothing else: {said}");
        if !wall.is_empty() {
            a.output("nft", &["delete table inet wall"]);
        }
    }
}
