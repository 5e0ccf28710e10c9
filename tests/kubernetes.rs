//! The files for Kubernetes fit together, and contain nothing that gossd does not understand.

use std::collections::BTreeSet;

use crate::common::process::gossd;
use serde::Deserialize as _;
use serde_norway::Value;

const MANIFEST: &str = include_str!("../examples/kubernetes/gost.yaml");

/// Every document of the manifest.
fn documents() -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(MANIFEST);
    documents.map(|document| Value::deserialize(document).expect("YAML")).collect()
}

fn document(kind: &str, name: &str) -> Value {
    let is =
        |document: &Value| text(document, &["kind"]) == kind && text(document, &["metadata", "name"]) == name;
    let mut found = documents().into_iter().filter(is);
    let document = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "one {kind} {name}");
    document
}

fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| {
        value.get(*key).unwrap_or_else(|| panic!("no {key} of {path:?} in {value:?}"))
    })
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_else(|| panic!("no text at {path:?} in {value:?}"))
}

fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_sequence().unwrap_or_else(|| panic!("no list at {path:?} in {value:?}"))
}

/// The parts of a pod: its two containers and its volumes.
struct Pod {
    set: Value,
}

impl Pod {
    fn read() -> Self {
        Self { set: document("StatefulSet", "gost") }
    }

    fn template(&self) -> &Value {
        at(&self.set, &["spec", "template"])
    }

    fn spec(&self) -> &Value {
        at(self.template(), &["spec"])
    }

    /// The container of this name in a list of this length.
    fn container(&self, kind: &str, name: &str, many: usize) -> &Value {
        let containers = list(self.spec(), &[kind]);
        assert_eq!(containers.len(), many, "{kind}");
        containers.iter().find(|container| text(container, &["name"]) == name).expect("a container")
    }

    fn holder(&self) -> &Value {
        self.container("initContainers", "hold", 2)
    }

    fn agent(&self) -> &Value {
        self.container("initContainers", "gossd", 2)
    }

    fn gost(&self) -> &Value {
        self.container("containers", "gost", 1)
    }

    /// The volume that is mounted at this path of a container.
    fn mounted(&self, container: &Value, path: &str) -> &Value {
        let mounts = list(container, &["volumeMounts"]);
        let mount = mounts.iter().find(|mount| text(mount, &["mountPath"]) == path);
        let name = text(mount.unwrap_or_else(|| panic!("nothing at {path}")), &["name"]).to_owned();
        let volumes = list(self.spec(), &["volumes"]);
        volumes.iter().find(|volume| text(volume, &["name"]) == name).expect("a volume")
    }
}

/// The agent's flags, filled in like Kubernetes does for one pod.
fn flags(agent: &Value) -> Vec<String> {
    let args: Vec<&str> = list(agent, &["args"]).iter().map(|arg| arg.as_str().expect("text")).collect();
    assert_eq!(args[0], "run");
    let variables: BTreeSet<&str> = list(agent, &["env"]).iter().map(|env| text(env, &["name"])).collect();
    let filled = args[1..].iter().map(|arg| match arg.split_once("=$(") {
        Some((flag, variable)) => {
            let variable = variable.strip_suffix(')').expect("a variable");
            assert!(variables.contains(variable), "{variable} is not set");
            format!("{flag}={}", if variable == "POD_IP" { "10.0.0.1" } else { "gost-0" })
        }
        None => (*arg).to_owned(),
    });
    filled.collect()
}

fn value<'a>(flags: &'a [String], flag: &str) -> &'a str {
    let mut values = flags.iter().filter_map(|said| said.strip_prefix(flag)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no {flag}"))
}

#[test]
fn every_document_is_one_that_kubernetes_knows() {
    let kinds: Vec<String> = documents()
        .iter()
        .map(|document| format!("{} {}", text(document, &["apiVersion"]), text(document, &["kind"])))
        .collect();
    assert_eq!(kinds, ["v1 Service", "v1 Service", "v1 ConfigMap", "apps/v1 StatefulSet"]);
}

#[test]
fn the_agent_accepts_its_flags_and_gost_gets_what_it_prints_for_them() {
    let pod = Pod::read();
    let flags = flags(pod.agent());
    let help = gossd().args(["run", "--help"]).output().expect("gossd runs");
    let help = String::from_utf8(help.stdout).expect("text");
    for flag in &flags {
        let name = flag.split('=').next().expect("a flag");
        assert!(
            help.lines()
                .any(|line| line.trim_start().starts_with(&format!("{name} ")) || line.trim() == name),
            "{name} is not of gossd run"
        );
    }
    let leaves = flags.contains(&"--leave-on-stop".into());
    assert!(
        !leaves,
        "replaced, it is told to stop as well, and its records have to stay; of a pod that goes, gost ends first"
    );
    assert_eq!((value(&flags, "--name"), value(&flags, "--advertise-host")), ("gost-0", "10.0.0.1"));

    let printed = gossd().arg("gost-config").args(&flags).output().expect("gossd runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let map = document("ConfigMap", "gost");
    assert_eq!(text(&map, &["data", "gost.yml"]), String::from_utf8_lossy(&printed.stdout));
    let gost = pod.gost();
    let volume = pod.mounted(gost, "/etc/gost");
    assert_eq!(text(volume, &["configMap", "name"]), "gost");
    assert_eq!(list(gost, &["args"])[1].as_str(), Some("/etc/gost/gost.yml"));
}

#[test]
fn agents_join_where_the_headless_service_shows_them() {
    let pod = Pod::read();
    let flags = flags(pod.agent());
    let (name, port) = value(&flags, "--join").split_once(':').expect("a port");
    let service = document("Service", name);
    assert_eq!(text(&service, &["spec", "clusterIP"]), "None");
    assert_eq!(at(&service, &["spec", "publishNotReadyAddresses"]).as_bool(), Some(true));
    assert_eq!(text(&pod.set, &["spec", "serviceName"]), name);
    for ports in [list(&service, &["spec", "ports"]), list(pod.agent(), &["ports"])] {
        let number = |of: &Value| of.get("port").or(of.get("containerPort")).and_then(Value::as_u64);
        let protocols: BTreeSet<_> = ports
            .iter()
            .filter(|of| number(of).map(|n| n.to_string()).as_deref() == Some(port))
            .map(|of| text(of, &["protocol"]))
            .collect();
        assert_eq!(protocols, BTreeSet::from(["TCP", "UDP"]));
    }
}

#[test]
fn both_services_choose_the_pods_and_name_their_ports() {
    let pod = Pod::read();
    let labels = at(pod.template(), &["metadata", "labels"]);
    assert_eq!(at(&pod.set, &["spec", "selector", "matchLabels"]), labels);
    for name in ["gost", "gossd"] {
        assert_eq!(at(&document("Service", name), &["spec", "selector"]), labels);
    }
    let gost: Value =
        serde_norway::from_str(text(&document("ConfigMap", "gost"), &["data", "gost.yml"])).expect("YAML");
    let service = &list(&gost, &["services"])[0];
    let listens = [
        ("tunnel", text(service, &["addr"])),
        ("entrypoint", text(service, &["handler", "metadata", "entrypoint"])),
    ];
    let public = document("Service", "gost");
    for ((name, addr), target) in listens.into_iter().zip(list(&public, &["spec", "ports"])) {
        assert_eq!(text(target, &["targetPort"]), name);
        let port = list(pod.gost(), &["ports"]).iter().find(|port| text(port, &["name"]) == name);
        let number = at(port.expect("a port"), &["containerPort"]).as_u64().expect("a number");
        assert_eq!(format!(":{number}"), addr);
    }
}

#[test]
fn the_key_is_where_the_agent_looks_and_may_read_it() {
    let pod = Pod::read();
    let agent = pod.agent();
    let flags = flags(agent);
    let (folder, file) = value(&flags, "--key-file").rsplit_once('/').expect("a folder");
    let secret = text(pod.mounted(agent, folder), &["secret", "secretName"]);
    let made = format!(
        "#   kubectl create secret generic {secret} --from-literal={file}=\"$(docker run --rm gossd keygen)\"\n"
    );
    assert!(MANIFEST.contains(&made), "nobody is told to type {made}");
    assert!(
        !documents().iter().any(|document| text(document, &["kind"]) == "Secret"),
        "a key that everybody knows"
    );
    let group = at(pod.spec(), &["securityContext", "fsGroup"]);
    assert_eq!(group, at(agent, &["securityContext", "runAsGroup"]));
    assert!(MANIFEST.contains("defaultMode: 0440 }"), "its group may read it");
}

#[test]
fn a_container_that_does_nothing_else_keeps_the_listeners_of_the_agent() {
    let pod = Pod::read();
    let (holder, agent) = (pod.holder(), pod.agent());
    assert_eq!(list(pod.spec(), &["initContainers"])[0], *holder, "it comes first");
    let args: Vec<_> = list(holder, &["args"]).iter().filter_map(Value::as_str).collect();
    assert_eq!(args[0], "hold");
    let flags = flags(agent);
    assert!(flags.contains(&"--hold".into()));
    assert_eq!(args[1].replace("$(POD_NAME)", "gost-0"), format!("--name={}", value(&flags, "--name")));
    for same in ["image", "restartPolicy", "securityContext"] {
        assert_eq!(at(holder, &[same]), at(agent, &[same]), "{same}: each wants the other to be of its user");
    }
    assert!(holder.get("startupProbe").is_none() && holder.get("volumeMounts").is_none());
}

#[test]
fn the_image_runs_as_it_was_made_to() {
    let dockerfile = include_str!("../Dockerfile");
    let pod = Pod::read();
    let agent = pod.agent();
    assert_eq!(text(agent, &["restartPolicy"]), "Always", "a sidecar: before gost, and until gost has ended");
    let user = at(agent, &["securityContext", "runAsUser"]).as_u64().expect("a number");
    assert!(dockerfile.contains(&format!("\nUSER {user}:{user}\n")));
    assert!(dockerfile.contains("\nVOLUME /data\n") && dockerfile.contains("GOSSD_DATA_DIR=/data"));
    pod.mounted(agent, "/data");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let words: Vec<_> =
            list(agent, &[probe, "exec", "command"]).iter().filter_map(Value::as_str).collect();
        assert!(dockerfile.contains(&format!("ENTRYPOINT [\"{}\"]", words[0])));
        let known = gossd().args(&words[1..]).arg("--help").output().expect("gossd runs");
        assert!(known.status.success(), "{words:?}");
    }
}
