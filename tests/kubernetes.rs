//! The manifest for Kubernetes fits together, and contains nothing that gossd does not understand. It is what the chart makes
//! of its defaults: `chart.rs` holds that.

use std::collections::BTreeSet;

use crate::common::manifest::{Manifest, Pod, at, flags, list, text, value};
use crate::common::process::gossd;
use serde_json::Value;

const MANIFEST: &str = include_str!("../examples/kubernetes/gost.yaml");

fn manifest() -> Manifest {
    Manifest::read(MANIFEST)
}

/// The pods of the only `StatefulSet`.
fn pod(manifest: &Manifest) -> Pod<'_> {
    Pod { set: manifest.object("StatefulSet", "gost") }
}

#[test]
fn every_document_is_one_that_kubernetes_knows() {
    let manifest = manifest();
    let kinds: BTreeSet<String> = manifest
        .objects
        .iter()
        .map(|object| format!("{} {}", text(object, &["apiVersion"]), text(object, &["kind"])))
        .collect();
    let known = ["v1 Service", "v1 ConfigMap", "apps/v1 StatefulSet", "policy/v1 PodDisruptionBudget"];
    assert_eq!(kinds, known.map(str::to_owned).into());
    assert_eq!(manifest.objects.len(), 5);
}

#[test]
fn the_agent_accepts_its_flags_and_gost_gets_what_it_prints_for_them() {
    let manifest = manifest();
    let pod = pod(&manifest);
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
    let map = manifest.object("ConfigMap", "gost");
    assert_eq!(text(map, &["data", "gost.yml"]), String::from_utf8_lossy(&printed.stdout));
    let gost = pod.gost();
    let volume = pod.mounted(gost, "/etc/gost");
    assert_eq!(text(volume, &["configMap", "name"]), "gost");
    assert_eq!(list(gost, &["args"])[1].as_str(), Some("/etc/gost/gost.yml"));
}

#[test]
fn agents_join_where_the_headless_service_shows_them() {
    let manifest = manifest();
    let pod = pod(&manifest);
    let flags = flags(pod.agent());
    let (name, port) = value(&flags, "--join").split_once(':').expect("a port");
    let service = manifest.object("Service", name);
    assert_eq!(text(service, &["spec", "clusterIP"]), "None");
    assert_eq!(at(service, &["spec", "publishNotReadyAddresses"]).as_bool(), Some(true));
    assert_eq!(text(pod.set, &["spec", "serviceName"]), name);
    for ports in [list(service, &["spec", "ports"]), list(pod.agent(), &["ports"])] {
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
    let manifest = manifest();
    let pod = pod(&manifest);
    let labels = at(pod.template(), &["metadata", "labels"]);
    assert_eq!(at(pod.set, &["spec", "selector", "matchLabels"]), labels);
    for name in ["gost", "gost-gossd"] {
        assert_eq!(at(manifest.object("Service", name), &["spec", "selector"]), labels);
    }
    let map = manifest.object("ConfigMap", "gost");
    let gost: Value = serde_norway::from_str(text(map, &["data", "gost.yml"])).expect("YAML");
    let service = &list(&gost, &["services"])[0];
    let listens = [
        ("tunnel", text(service, &["addr"])),
        ("entrypoint", text(service, &["handler", "metadata", "entrypoint"])),
    ];
    let public = manifest.object("Service", "gost");
    for ((name, addr), target) in listens.into_iter().zip(list(public, &["spec", "ports"])) {
        assert_eq!(text(target, &["targetPort"]), name);
        let port = list(pod.gost(), &["ports"]).iter().find(|port| text(port, &["name"]) == name);
        let number = at(port.expect("a port"), &["containerPort"]).as_u64().expect("a number");
        assert_eq!(format!(":{number}"), addr);
    }
}

#[test]
fn the_key_is_where_the_agent_looks_and_may_read_it() {
    let manifest = manifest();
    let pod = pod(&manifest);
    let agent = pod.agent();
    let flags = flags(agent);
    let (folder, file) = value(&flags, "--key-file").rsplit_once('/').expect("a folder");
    let volume = pod.mounted(agent, folder);
    let secret = text(volume, &["secret", "secretName"]);
    let made = format!(
        "# docker run --rm {} keygen | kubectl create secret generic {secret} --from-file={file}=/dev/stdin\n",
        text(agent, &["image"])
    );
    assert!(MANIFEST.replace("#   ", "# ").contains(&made), "nobody is told to type {made}");
    assert!(manifest.of("Secret").is_empty(), "a key that everybody knows");
    let security = at(pod.spec(), &["securityContext"]);
    assert_eq!(at(security, &["fsGroup"]), at(security, &["runAsGroup"]));
    assert_eq!(at(volume, &["secret", "defaultMode"]), 0o440, "its group may read it, and nobody else");
}

#[test]
fn a_container_that_does_nothing_else_keeps_the_listeners_of_the_agent() {
    let manifest = manifest();
    let pod = pod(&manifest);
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
    let manifest = manifest();
    let pod = pod(&manifest);
    let agent = pod.agent();
    assert_eq!(text(agent, &["restartPolicy"]), "Always", "a sidecar: before gost, and until gost has ended");
    let user = at(pod.spec(), &["securityContext", "runAsUser"]).as_u64().expect("a number");
    assert!(dockerfile.contains(&format!("\nUSER {user}:{user}\n")));
    assert!(dockerfile.contains("\nVOLUME /data\n") && dockerfile.contains("GOSSD_DATA_DIR=/data"));
    pod.mounted(agent, "/data");
    assert!(list(agent, &["args"]).contains(&Value::from("--metrics=[::]:8003")));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(text(agent, &[probe, "httpGet", "path"]), "/livez", "{probe}");
        assert_eq!(text(agent, &[probe, "httpGet", "port"]), "metrics", "{probe}");
    }
    let port = list(agent, &["ports"]).iter().find(|port| text(port, &["name"]) == "metrics");
    assert_eq!(at(port.expect("a port"), &["containerPort"]), 8003);
}
