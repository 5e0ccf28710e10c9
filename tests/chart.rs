//! The Helm chart, made into objects by Helm itself: they are what Kubernetes knows and what gossd understands, for any sensible
//! values; others are refused; and pods as they are described find each other, behind the network policy as well.
//! `scripts/chart.sh` fetches Helm and Kubernetes' schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::eventually;
use crate::common::manifest::{Manifest, Pod, args, at, flags, list, text, value};
use crate::common::netns::{NetHost, Network};
use crate::common::process::gossd;
use serde_json::{Value, json};

const RULES: &str = include_str!("../examples/prometheus/gossd.rules.yml");
const MANIFEST: &str = include_str!("../examples/kubernetes/gost.yaml");
const VALUES: &str = include_str!("../examples/kubernetes/chart/values.yaml");
const VALUES_SCHEMA: &str = include_str!("../examples/kubernetes/chart/values.schema.json");
/// gossd's user in its image.
const USER: u32 = 65532;
/// What `--max-bytes` needs by default, in MiB: `docs/containers.md` has it.
const ENOUGH: u64 = 1305;
/// For agents to find each other: other tests take the cores.
const LONG: Duration = Duration::from_secs(20);
/// The oldest Kubernetes that the chart allows, and the newest.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// Sets of values that are to work, by what they show.
const SETS: [(&str, &str); 8] = [
    ("defaults", ""),
    ("one pod", "replicas: 1"),
    (
        "five pods that keep what they know",
        "{replicas: 5, journal: {persistent: true, storageClassName: fast}}",
    ),
    ("a key of another name", "key: {secretName: my.keys, file: gossip.key}"),
    (
        "zones",
        "zones: [{name: a}, {name: b, zone: eu-central-1b, replicas: 2, weight: 50}, {name: c, weight: 0}]",
    ),
    ("the nodes' zones", "{zoneFromNode: true, gossd: {metricsHost: 0.0.0.0}}"),
    ("nothing that can be left out", NOTHING),
    ("everything", EVERYTHING),
];
const NOTHING: &str = "
podDisruptionBudget: {enabled: false}
gossd: {resources: null}
hold: {resources: {}}
gost: {resources: {}, stopDelay: 0}
";
const EVERYTHING: &str = r#"
fullnameOverride: tunnels
replicas: 2
imagePullSecrets: [{name: registry}]
serviceAccountName: gost
priorityClassName: high
affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
  {weight: 1, podAffinityTerm: {topologyKey: rack, labelSelector: {matchLabels: {app.kubernetes.io/name: gossd}}}}]}}
nodeSelector: {disk: ssd}
tolerations: [{key: edge, operator: Exists}]
spread: {hosts: DoNotSchedule, zones: DoNotSchedule}
podAnnotations: {a: b}
podLabels: {c: d}
updateStrategy: OnDelete
extraVolumes: [{name: certificates, secret: {secretName: certificates}}]
gossd:
  image: {repository: registry.example.org/gossd, tag: "1"}
  args: [--order=nearest, --weight=50, --zone=eu-1, --ingress-domain=example.org, "--join=agents.example.org:8002"]
  volumeMounts: [{name: certificates, mountPath: /certificates, readOnly: true}]
gost:
  tunnelPort: 9421
  entrypointPort: 9420
  volumeMounts: [{name: certificates, mountPath: /certificates, readOnly: true}]
journal: {persistent: true, whenDeleted: Delete, whenScaled: Delete, accessModes: [ReadWriteOncePod]}
service: {type: LoadBalancer, externalTrafficPolicy: Local, annotations: {e: f}, entrypointPort: 8080}
podDisruptionBudget: {maxUnavailable: 50%}
networkPolicy:
  enabled: true
  tunnelFrom: [{ipBlock: {cidr: 203.0.113.0/24}}]
  visitorsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]
  extraIngress: [{from: [{ipBlock: {cidr: 10.9.0.0/16}}], ports: [{port: 8002, protocol: UDP}, {port: 8002}]}]
  extraEgress: [{to: [{ipBlock: {cidr: 10.9.0.0/16}}]}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
"#;

/// Values that are to be refused, and a word of why.
const BAD: [(&str, &str); 20] = [
    ("replica: 3", "replica"),
    ("replicas: 0", "replicas"),
    ("replicas: three", "replicas"),
    ("zones: [{replicas: 2}]", "name"),
    ("zones: [{name: EU_1}]", "name"),
    ("zones: [{name: a, weight: 101}]", "weight"),
    ("zones: [{name: a}, {name: a}]", "two of the name a"),
    ("{zones: [{name: a}], zoneFromNode: true}", "not both"),
    ("{zones: [{name: a}], gossd: {args: [--zone=b]}}", "--zone=b"),
    ("key: {secretName: My_Key}", "secretName"),
    ("gossd: {args: [--name=a]}", "args"),
    ("gossd: {args: [--leave-on-stop]}", "args"),
    ("gossd: {args: ['--order nearest']}", "args"),
    ("gossd: {resources: {limits: {memory: much}}}", "memory"),
    ("gost: {entrypointPort: 80}", "entrypointPort"),
    ("gost: {tunnelPort: 8000}", "tunnelPort"),
    ("{gost: {config: 'a: b', configSecret: c}}", "the one or the other"),
    ("podDisruptionBudget: {maxUnavailable: 0}", "maxUnavailable"),
    ("journal: {accessModes: [ReadWriteMany]}", "accessModes"),
    ("fullnameOverride: a-name-that-is-far-too-long-for-the-pods-of-a-stateful-set", "too long"),
];

/// Of each kind, what checks its objects.
type Schemas = BTreeMap<&'static str, Vec<jsonschema::Validator>>;

/// Helm 3 and 4, and Kubernetes' schemas.
struct Tools {
    folder: PathBuf,
    kubernetes: Vec<(&'static str, Value)>,
}

/// Nothing, and the reason printed, where `scripts/chart.sh` did not fetch them.
fn tools() -> Option<Tools> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../chart");
    let schema = |version| Some((version, fs::read(folder.join(format!("kubernetes-{version}.json"))).ok()?));
    let Some(schemas) = KUBERNETES.map(schema).into_iter().collect::<Option<Vec<_>>>() else {
        println!(
            "SKIPPED: no Helm at {}: scripts/chart.sh; nothing has shown that the chart is right",
            folder.display()
        );
        return None;
    };
    let kubernetes = schemas
        .into_iter()
        .map(|(version, schema)| (version, serde_json::from_slice(&schema).expect("JSON")));
    Some(Tools { kubernetes: kubernetes.collect(), folder })
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes/chart")
}

impl Tools {
    /// What this Helm makes of the chart and these values for this Kubernetes, or why it does not.
    fn text(&self, helm: &str, chart: &Path, values: &str, kubernetes: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, values).expect("it can be written");
        let mut command = Command::new(self.folder.join(helm));
        command.args(["template", "gost"]).arg(chart).args([
            "--namespace",
            "edge",
            "--kube-version",
            kubernetes,
        ]);
        let output = command.arg("--values").arg(file.path()).output().expect("Helm runs");
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).expect("text"));
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn manifest(&self, values: &str) -> Manifest {
        Manifest::read(
            &self.text("helm-4", &chart(), values, "1.37").unwrap_or_else(|why| panic!("{values}: {why}")),
        )
    }

    /// What is wrong with a chart, for some sets of values.
    fn faults(&self, schemas: &Schemas, chart: &Path, sets: &[(&str, &str)]) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, values) in sets {
            let made = ["helm-3", "helm-4"].map(|helm| self.text(helm, chart, values, "1.30"));
            let [Ok(three), Ok(four)] = made else {
                faults.extend(made.into_iter().filter_map(Result::err).map(|why| format!("{name}: {why}")));
                continue;
            };
            let (three, manifest) = (Manifest::read(&three), Manifest::read(&four));
            let same = three.objects.iter().all(|object| manifest.objects.contains(object));
            if !same || three.objects.len() != manifest.objects.len() {
                faults.push(format!("{name}: Helm 3 and Helm 4 do not agree"));
            }
            for object in &manifest.objects {
                faults.extend(invalid(schemas, object).into_iter().map(|why| format!("{name}: {why}")));
            }
            for pod in manifest.pods() {
                faults.extend(unrestricted(&pod).into_iter().map(|why| format!("{name}: {why}")));
            }
            faults.extend(astray(&manifest).into_iter().map(|why| format!("{name}: {why}")));
        }
        faults
    }

    /// How an object of a kind is checked: by the schemas of each Kubernetes, or those of the operator of Prometheus.
    fn schemas(&self) -> Schemas {
        let kinds = [
            ("Service", "core.v1.Service"),
            ("ConfigMap", "core.v1.ConfigMap"),
            ("StatefulSet", "apps.v1.StatefulSet"),
            ("PodDisruptionBudget", "policy.v1.PodDisruptionBudget"),
            ("NetworkPolicy", "networking.v1.NetworkPolicy"),
        ];
        let of = |path: &str| {
            let validators = self.kubernetes.iter().map(|(_, schema)| {
                let mut schema = schema.clone();
                schema["$ref"] = format!("#/$defs/io.k8s.api.{path}").into();
                jsonschema::validator_for(&schema).expect("a schema")
            });
            validators.collect()
        };
        let mut schemas: BTreeMap<_, Vec<_>> = kinds.map(|(kind, path)| (kind, of(path))).into();
        for (kind, schema) in operators() {
            schemas.insert(kind, vec![jsonschema::validator_for(&schema).expect("a schema")]);
        }
        schemas
    }
}

/// Those parts of the operator's definitions, of monitoring.coreos.com/v1, that the chart uses.
fn operators() -> [(&'static str, Value); 2] {
    let of = |kind: &str, spec: Value| {
        let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        json!({
            "type": "object",
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "additionalProperties": false,
            "properties": {
                "apiVersion": { "const": "monitoring.coreos.com/v1" },
                "kind": { "const": kind },
                "metadata": {
                    "type": "object",
                    "required": ["name"],
                    "properties": { "name": { "type": "string" }, "labels": texts },
                    "additionalProperties": false
                },
                "spec": spec
            }
        })
    };
    let exactly = |required: Value, properties: Value| json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false });
    let word = json!({ "type": "string", "minLength": 1 });
    let texts = json!({ "type": "object", "additionalProperties": word });
    let span = json!({ "type": "string", "pattern": "^(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?$" });
    let relabel = exactly(
        json!([]),
        json!({ "sourceLabels": { "type": "array", "items": { "type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$" } }, "separator": word, "targetLabel": word, "regex": word, "replacement": word, "action": word }),
    );
    let endpoint = exactly(
        json!([]),
        json!({ "port": word, "interval": span, "relabelings": { "type": "array", "items": relabel } }),
    );
    let monitor = exactly(
        json!(["endpoints", "selector"]),
        json!({ "jobLabel": word, "selector": exactly(json!(["matchLabels"]), json!({ "matchLabels": texts })), "endpoints": { "type": "array", "items": endpoint } }),
    );
    let rule = exactly(
        json!(["expr"]),
        json!({ "alert": word, "expr": word, "for": span, "labels": texts, "annotations": texts }),
    );
    let group = exactly(
        json!(["name"]),
        json!({ "name": word, "rules": { "type": "array", "minItems": 1, "items": rule } }),
    );
    let rules =
        exactly(json!(["groups"]), json!({ "groups": { "type": "array", "minItems": 1, "items": group } }));
    [("ServiceMonitor", of("ServiceMonitor", monitor)), ("PrometheusRule", of("PrometheusRule", rules))]
}

/// What Kubernetes would say of an object.
fn invalid(schemas: &Schemas, object: &Value) -> Vec<String> {
    let kind = text(object, &["kind"]);
    let Some(validators) = schemas.get(kind) else { return vec![format!("{kind} is none that is known")] };
    let errors = validators.iter().flat_map(|validator| validator.iter_errors(object));
    errors.map(|error| format!("{kind}: {} {error}", error.instance_path())).collect()
}

/// What the Pod Security Standard "restricted" forbids, and a bit more: no container writes to its own file system, or has the
/// token of a service account.
fn unrestricted(pod: &Pod<'_>) -> Vec<String> {
    let spec = pod.spec();
    let mut faults = Vec::new();
    let mut hold = |holds: bool, why: String| {
        if !holds {
            faults.push(why);
        }
    };
    let security = &spec["securityContext"];
    hold(security["runAsNonRoot"] == true, "a pod may run as root".into());
    hold(security["runAsUser"] == USER && security["fsGroup"] == USER, "not gossd's user".into());
    hold(security["seccompProfile"]["type"] == "RuntimeDefault", "any system call".into());
    hold(spec["automountServiceAccountToken"] == false, "a token".into());
    hold(spec["enableServiceLinks"] == false, "variables of services".into());
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        hold(spec.get(shared).is_none(), shared.into());
    }
    for volume in list(spec, &["volumes"]) {
        let known = ["configMap", "secret", "emptyDir"];
        hold(
            known.iter().any(|kind| volume.get(kind).is_some()),
            format!("{volume} is no volume for everybody"),
        );
    }
    for container in pod.containers() {
        let (name, security) = (text(container, &["name"]), &container["securityContext"]);
        hold(security["allowPrivilegeEscalation"] == false, format!("{name} may get privileges"));
        hold(security["readOnlyRootFilesystem"] == true, format!("{name} may write"));
        hold(security["capabilities"] == json!({ "drop": ["ALL"] }), format!("{name} has capabilities"));
        for changed in ["privileged", "runAsUser", "runAsNonRoot", "seccompProfile"] {
            hold(security.get(changed).is_none(), format!("{name} has its own {changed}"));
        }
    }
    faults
}

/// What does not lead to the pods, or to anything.
fn astray(manifest: &Manifest) -> Vec<String> {
    let mut faults = Vec::new();
    let pods = manifest.pods();
    let chosen =
        |selector: &Value| pods.iter().all(|pod| is_within(selector, &pod.template()["metadata"]["labels"]));
    let selectors = [
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("NetworkPolicy", "/spec/ingress/0/from/0/podSelector/matchLabels"),
        ("NetworkPolicy", "/spec/egress/0/to/0/podSelector/matchLabels"),
    ];
    for (kind, path) in selectors {
        for object in manifest.of(kind) {
            if !object.pointer(path).is_some_and(chosen) {
                faults.push(format!("{kind}: {path} does not choose the pods"));
            }
        }
    }
    for monitor in manifest.of("ServiceMonitor") {
        let is_meant = |service: &&&Value| {
            is_within(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"])
        };
        let services = manifest.of("Service");
        let meant: Vec<_> = services.iter().filter(is_meant).collect();
        let port = &monitor["spec"]["endpoints"][0]["port"];
        let has_port =
            |service: &&Value| list(service, &["spec", "ports"]).iter().any(|of| of["name"] == *port);
        if meant.len() != 1
            || !has_port(meant[0])
            || meant[0]["metadata"]["labels"]["app.kubernetes.io/name"] != "gossd"
        {
            faults.push("ServiceMonitor: it has no service, or a job that no alert asks for".into());
        }
    }
    let names: Vec<String> = pods.iter().flat_map(Pod::names).collect();
    if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        faults.push(format!("two pods, and agents, of one name: {names:?}"));
    }
    for pod in &pods {
        let labels = &pod.template()["metadata"]["labels"];
        let own = &pod.set["spec"]["selector"]["matchLabels"];
        let others = pods.iter().filter(|other| is_within(own, &other.template()["metadata"]["labels"]));
        if !is_within(own, labels) || others.count() != 1 {
            faults.push("StatefulSet: it does not choose its own pods alone".into());
        }
        let key = pod.mounted(pod.agent(), "/etc/gossd");
        if key["secret"]["defaultMode"] != 0o440 {
            faults.push("the key can be read by others, or not by its group".into());
        }
        pod.mounted(pod.agent(), "/data");
        pod.mounted(pod.gost(), "/etc/gost");
        let grace = pod.spec()["terminationGracePeriodSeconds"].as_u64().unwrap_or_default();
        let delay = pod
            .gost()
            .pointer("/lifecycle/preStop/sleep/seconds")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        if grace < delay + 10 {
            faults.push(format!("a gost that waits for {delay} s, and gossd, are killed after {grace} s"));
        }
    }
    faults
}

/// Whether labels have all of these.
fn is_within(these: &Value, labels: &Value) -> bool {
    let these = these.as_object().expect("labels");
    !these.is_empty() && these.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[test]
fn what_the_chart_makes_is_valid_restricted_and_fits_together() {
    let Some(tools) = tools() else { return };
    assert_eq!(tools.faults(&tools.schemas(), &chart(), &SETS), Vec::<String>::new());
    for helm in ["helm-3", "helm-4"] {
        let lint = Command::new(tools.folder.join(helm)).args(["lint", "--strict"]).arg(chart()).output();
        let lint = lint.expect("Helm runs");
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
        let old = tools.text(helm, &chart(), "", "1.29").expect_err("it has no stop that waits");
        assert!(old.contains("incompatible with Kubernetes v1.29"), "{old}");
    }
}

/// The checks above can fail.
#[test]
fn a_broken_chart_is_noticed() {
    let Some(tools) = tools() else { return };
    let (schemas, sets) = (tools.schemas(), [SETS[4], SETS[7]]);
    assert_eq!(tools.faults(&schemas, &chart(), &sets), Vec::<String>::new());
    let breaks = [
        ("statefulset.yaml", "startupProbe:", "startUpProbe:", "startUpProbe"),
        ("statefulset.yaml", "defaultMode: 288", "defaultMode: 420", "the key can be read by others"),
        ("statefulset.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
        (
            "statefulset.yaml",
            "minReadySeconds: {{ .Values.minReadySeconds }}",
            "minReadySeconds: soon",
            "minReadySeconds",
        ),
        ("statefulset.yaml", "gossd/zone: {{ . }}", "gossd/zone: any", "its own pods alone"),
        ("statefulset.yaml", "(printf \"%s-%s\" $name $zone.name)", "$name", "of one name"),
        ("_helpers.tpl", "{ drop: [ALL] }", "{ add: [NET_ADMIN] }", "has capabilities"),
        ("services.yaml", "clusterIP: None", "clusterIp: None", "clusterIp"),
        (
            "services.yaml",
            "app.kubernetes.io/component: agents",
            "app.kubernetes.io/component: others",
            "ServiceMonitor",
        ),
        ("networkpolicy.yaml", "podSelector:", "podselector:", "NetworkPolicy"),
        ("servicemonitor.yaml", "port: metrics", "port: metric", "ServiceMonitor"),
        (
            "poddisruptionbudget.yaml",
            "matchLabels:\n",
            "matchLabels:\n      a: b\n",
            "does not choose the pods",
        ),
    ];
    for (file, from, to, why) in breaks {
        let folder = tempfile::tempdir().expect("a folder");
        let broken = folder.path().join("chart");
        // With what its link leads to.
        assert!(Command::new("cp").arg("-rL").arg(chart()).arg(&broken).status().expect("cp runs").success());
        let path = broken.join("templates").join(file);
        let template = fs::read_to_string(&path).expect("a template");
        assert!(template.contains(from), "{from} in {file}");
        fs::write(&path, template.replace(from, to)).expect("it can be written");
        let faults = tools.faults(&schemas, &broken, &sets);
        assert!(faults.iter().any(|fault| fault.contains(why)), "{file} with {to:?}: {faults:?}");
    }
}

#[test]
fn bad_values_are_refused_with_a_word_of_why() {
    let Some(tools) = tools() else { return };
    let schema: Value = serde_json::from_str(VALUES_SCHEMA).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let mut by_schema = 0;
    for (values, why) in BAD {
        for helm in ["helm-3", "helm-4"] {
            let refused = tools.text(helm, &chart(), values, "1.37").expect_err(values);
            assert!(refused.contains(why), "{values}: {refused}");
        }
        let values: Value = serde_norway::from_str(values).expect("YAML");
        by_schema += usize::from(!validator.is_valid(&values));
    }
    assert!(by_schema >= 14, "the schema refuses {by_schema}");
}

/// Holds values against the rules for them, and lists those that have no values below them.
fn walk(values: &Value, schema: &Value, path: &str, leaves: &mut Vec<String>) {
    let Some(rules) = schema.get("properties").and_then(Value::as_object) else {
        return leaves.push(path.to_owned());
    };
    assert_eq!(schema["additionalProperties"], false, "{path}");
    let values = values.as_object().expect("values");
    let names = |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
    let mut expected = names(rules);
    expected.remove("global");
    assert_eq!(names(values), expected, "{path}");
    for (name, value) in values {
        walk(value, &rules[name], &format!("{path}.{name}"), leaves);
    }
}

/// No value is without a rule, no rule without a value, and none without an effect.
#[test]
fn the_schema_has_every_value_and_no_other() {
    let defaults: Value = serde_norway::from_str(VALUES).expect("YAML");
    let schema: Value = serde_json::from_str(VALUES_SCHEMA).expect("JSON");
    let templates = fs::read_dir(chart().join("templates")).expect("a folder");
    let templates: String =
        templates.map(|file| fs::read_to_string(file.expect("a file").path()).expect("text")).collect();
    let mut leaves = Vec::new();
    walk(&defaults, &schema, "", &mut leaves);
    assert!(leaves.len() >= 50, "{leaves:?}");
    // An image and a policy are read through a variable.
    let read = |leaf: &str| {
        let short = leaf.strip_prefix(".networkPolicy").map(|rest| format!("$policy{rest}"));
        let short = short.or_else(|| leaf.strip_prefix(".gossd.image").map(|rest| format!("$image{rest}")));
        templates.contains(&format!(".Values{leaf}")) || short.is_some_and(|short| templates.contains(&short))
    };
    for leaf in leaves {
        assert!(read(&leaf), "nothing comes of {leaf}");
    }
}

#[test]
fn every_agent_accepts_its_flags_and_every_gost_fits_it() {
    let Some(tools) = tools() else { return };
    for (name, values) in SETS {
        let manifest = tools.manifest(values);
        let maps = manifest.of("ConfigMap");
        for pod in manifest.pods() {
            let flags = flags(pod.agent());
            let ports =
                list(pod.gost(), &["ports"]).iter().map(|port| at(port, &["containerPort"]).to_string());
            let ports: Vec<String> = ports.collect();
            // A node may have a zone or none.
            for zone in ["", "eu-central-1a"] {
                let has_zone = list(pod.agent(), &["env"]).iter().any(|env| env["name"] == "GOSSD_ZONE");
                let mut command = gossd();
                command.arg("gost-config").args(&flags);
                command.args([
                    "--tunnel-addr",
                    &format!(":{}", ports[0]),
                    "--entrypoint",
                    &format!(":{}", ports[1]),
                ]);
                if has_zone {
                    command.env("GOSSD_ZONE", zone);
                }
                let printed = command.output().expect("gossd runs");
                assert!(printed.status.success(), "{name}: {}", String::from_utf8_lossy(&printed.stderr));
                assert_eq!(
                    text(maps[0], &["data", "gost.yml"]),
                    String::from_utf8_lossy(&printed.stdout),
                    "{name}"
                );
            }
            let joined = value(&flags, "--join").strip_suffix(":8002").expect("its port");
            let service = manifest.object("Service", joined);
            assert_eq!(text(service, &["spec", "clusterIP"]), "None");
            let probed = list(pod.agent(), &["ports"]).iter().find(|port| port["name"] == "metrics");
            assert!(
                value(&flags, "--metrics")
                    .ends_with(&format!(":{}", probed.expect("a port")["containerPort"]))
            );
        }
    }
}

#[test]
fn zones_are_told_to_agents_and_to_the_scheduler() {
    let Some(tools) = tools() else { return };
    let manifest = tools.manifest(SETS[4].1);
    let zones = manifest.pods().into_iter().map(|pod| {
        let flags = flags(pod.agent());
        let weight = flags.iter().find_map(|flag| flag.strip_prefix("--weight="));
        format!("{} {} {}", value(&flags, "--zone"), weight.unwrap_or("-"), pod.names().join(" "))
    });
    assert_eq!(
        zones.collect::<Vec<_>>(),
        ["a - gost-a-0", "eu-central-1b 50 gost-b-0 gost-b-1", "c 0 gost-c-0"]
    );
    for pod in manifest.pods() {
        let node = pod.spec()["nodeSelector"]["topology.kubernetes.io/zone"].as_str();
        assert_eq!(node, Some(value(&flags(pod.agent()), "--zone")));
    }
}

/// An agent that is held up is taken for dead, and one with too little memory holds less than it was asked to.
#[test]
fn an_agent_has_memory_enough_and_no_limit_of_processor_time() {
    let Some(tools) = tools() else { return };
    let manifest = tools.manifest("");
    let pod = &manifest.pods()[0];
    for container in pod.containers() {
        let resources = &container["resources"];
        assert!(resources["requests"]["cpu"].is_string() && resources["requests"]["memory"].is_string());
        assert!(resources.pointer("/limits/cpu").is_none());
    }
    let limit = text(pod.agent(), &["resources", "limits", "memory"]);
    let limit: u64 = limit.strip_suffix("Mi").and_then(|number| number.parse().ok()).expect("MiB");
    assert!(limit >= ENOUGH);
    for page in ["docs/containers.md", "docs/zh-CN/containers.md"] {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("a page");
        assert!(page.contains(&format!("{ENOUGH} MiB")));
    }
}

#[test]
fn the_manifest_is_what_the_chart_makes_of_its_defaults() {
    let Some(_) = tools() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/chart.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..");
    let made =
        Command::new(script).arg("--manifest").env("CARGO_TARGET_DIR", folder).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = String::from_utf8(made.stdout).expect("text");
    assert_eq!(
        made, MANIFEST,
        "scripts/chart.sh --manifest > FILE, and put that in the place of examples/kubernetes/gost.yaml"
    );
}

#[test]
fn the_version_is_that_of_the_program() {
    let chart: Value =
        serde_norway::from_str(&fs::read_to_string(chart().join("Chart.yaml")).expect("a file"))
            .expect("YAML");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for page in ["docs/containers.md", "docs/zh-CN/containers.md"] {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("a page");
        assert!(page.contains(&format!("\ndocker build -t gossd:{} .", env!("CARGO_PKG_VERSION"))));
    }
}

#[test]
fn the_alerts_are_those_of_the_example() {
    let Some(tools) = tools() else { return };
    let manifest = tools.manifest(EVERYTHING);
    let rules: Value = serde_norway::from_str(RULES).expect("YAML");
    let rule = manifest.object("PrometheusRule", "tunnels");
    assert_eq!(rule["spec"], rules);
    assert!(RULES.contains("up{job=\"gossd\"}"), "the monitor gives this job");
    for object in [rule, manifest.object("ServiceMonitor", "tunnels")] {
        assert_eq!(object["metadata"]["labels"]["release"], "prometheus");
    }
}

#[test]
fn what_the_notes_say_can_be_typed() {
    let Some(tools) = tools() else { return };
    // Helm 3 asks a cluster first.
    let mut command = Command::new(tools.folder.join("helm-4"));
    command.args(["install", "gost", "--dry-run=client", "--namespace", "edge", "--set", "zones[0].name=a"]);
    let output = command.arg(chart()).env("KUBECONFIG", "/dev/null").output().expect("Helm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).expect("text");
    let notes = output.split_once("\nNOTES:\n").expect("notes").1;
    let verbs = notes.split("kubectl -n edge exec gost-a-0 -c gossd -- /gossd ").skip(1);
    let verbs: Vec<&str> = verbs.map(|rest| rest.split_whitespace().next().expect("a verb")).collect();
    assert_eq!(verbs, ["members", "status", "forget"], "{notes}");
    for verb in verbs {
        assert!(gossd().args([verb, "--help"]).output().expect("gossd runs").status.success(), "{verb}");
    }
    assert!(notes.contains("create secret generic gossd-key --from-file=key=/dev/stdin"), "{notes}");
    assert!(notes.starts_with("A gost with its gossd, "), "{notes}");
}

/// A pod, as far as gossd can tell: its user, variables and address, and volumes with the owners and modes that the kubelet gives.
struct Running {
    host: NetHost,
    name: String,
    address: String,
    program: PathBuf,
    data: PathBuf,
    containers: Vec<Child>,
}

impl Running {
    /// Starts both sidecars.
    fn start(pod: &Pod<'_>, name: &str, host: NetHost, address: &str, folder: &Path, key: &str) -> Self {
        let root = folder.join(name);
        let (secret, data) = (root.join("etc"), root.join("data"));
        let version = secret.join("..2026_11_29");
        for folder in [&root, &secret, &data, &version] {
            fs::create_dir(folder).expect("a folder");
        }
        // A Secret: links to files of root's, with the mode that the volume says, and the pod's group.
        let mode = at(pod.mounted(pod.agent(), "/etc/gossd"), &["secret", "defaultMode"])
            .as_u64()
            .expect("a number");
        let file = version.join("key");
        fs::write(&file, key).expect("it can be written");
        fs::set_permissions(&file, Permissions::from_mode(u32::try_from(mode).expect("a mode")))
            .expect("we are root");
        symlink("..2026_11_29", secret.join("..data")).expect("a link");
        symlink("..data/key", secret.join("key")).expect("a link");
        // A volume: a folder of root's that the group may write to, and so may everybody, if it is an emptyDir. A disk has one of
        // its own besides.
        fs::create_dir(data.join("lost+found")).expect("a folder");
        fs::set_permissions(&data, Permissions::from_mode(0o2777)).expect("we are root");
        for path in [&file, &version, &data] {
            chown(path, None, Some(USER)).expect("we are root");
        }
        let program = folder.join("gossd");
        let mut running =
            Self { host, name: name.into(), address: address.into(), program, data, containers: Vec::new() };
        for container in [pod.holder(), pod.agent()] {
            let args = args(container, name, address)
                .into_iter()
                .map(|arg| arg.replace("--key-file=/etc/gossd", &format!("--key-file={}", secret.display())));
            let child = running.command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            running.containers.push(child.expect("it starts"));
        }
        running
    }

    /// gossd in that pod.
    fn command(&self) -> Command {
        let mut command = self.host.command("setpriv");
        let user = USER.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--groups", &user]);
        command.args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]).arg(&self.program);
        // As the image has them.
        let image = include_str!("../Dockerfile");
        assert!(image.contains("\nENV GOSSD_DATA_DIR=/data GOSSD_CONTROL=/data/gossd.sock "));
        command.env_clear().env("PATH", std::env::var_os("PATH").expect("a path"));
        command.env("GOSSD_DATA_DIR", &self.data).env("GOSSD_CONTROL", self.data.join("gossd.sock"));
        command
    }

    /// `kubectl exec POD -c gossd -- /gossd ARGS`.
    fn exec(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The agents that it has as alive, and the zones of those that have one.
    fn alive(&self) -> BTreeMap<String, Option<String>> {
        let status: Value = serde_json::from_str(&self.exec(&["members", "--json"])).unwrap_or_default();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let alive = members.iter().filter(|member| member["state"] == "alive");
        alive
            .map(|member| {
                let zone = member["zone"].as_str().map(str::to_owned);
                (member["name"].as_str().expect("a name").to_owned(), zone)
            })
            .collect()
    }

    /// The status of a probe, asked by somebody.
    fn probe(&self, by: &NetHost, path: &str) -> String {
        let url = format!("http://{}:8003{path}", self.address);
        by.output("curl", &["-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", &url])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for container in &mut self.containers {
            let _ = container.kill();
            let _ = container.wait();
        }
    }
}

/// Whether a TCP connection comes through: to nobody who listens, it is refused, and what a policy drops is not answered.
fn reaches(from: &NetHost, to: &str, port: u16) -> bool {
    let dial = format!("exec 3<>/dev/tcp/{to}/{port} && echo connected");
    let said = from.output("timeout", &["1", "bash", "-c", &format!("{{ {dial}; }} 2>&1")]);
    said.contains("connected") || said.contains("refused")
}

/// A network policy as a host's packet filter.
fn filter(policy: &Value, pods: &[String]) -> String {
    let pods = pods.join(", ");
    let chain = |peers: &str, side: &str| {
        let rules = list(policy, &["spec", peers]).iter().flat_map(|rule| {
            let side = match rule.get(if peers == "ingress" { "from" } else { "to" }) {
                None => String::new(),
                Some(peers) if peers[0].get("podSelector").is_some() => format!("ip {side} {{ {pods} }} "),
                // All pods are where this is.
                Some(peers) if peers[0] == json!({ "namespaceSelector": {} }) => {
                    format!("ip {side} 10.78.0.0/16 ")
                }
                Some(peers) => format!("ip {side} {} ", text(&peers[0], &["ipBlock", "cidr"])),
            };
            let ports = list(rule, &["ports"]).iter().map(move |port| {
                format!(
                    "{side}{} dport {} accept; ",
                    text(port, &["protocol"]).to_lowercase(),
                    at(port, &["port"])
                )
            });
            ports.collect::<Vec<_>>()
        });
        rules.collect::<String>()
    };
    let chains = [("ingress", "saddr", "input", "iif"), ("egress", "daddr", "output", "oif")].map(|(peers, side, hook, lo)| {
        format!(
            "chain {hook}s {{ type filter hook {hook} priority 0; policy drop; {lo} lo accept; ct state established,related accept; {} }}\n",
            chain(peers, side)
        )
    });
    format!("table inet wall {{\n{}}}\n", chains.concat())
}

/// Three pods of two zones, behind the chart's network policy, with what the kubelet would give them.
#[tokio::test]
async fn pods_find_each_other_behind_the_network_policy_and_one_alone_serves() {
    let Some(tools) = tools() else { return };
    let Some(mut network) = Network::new() else { return };
    let manifest = tools.manifest(
        "{zones: [{name: a, replicas: 2}, {name: b}], networkPolicy: {enabled: true, tunnelFrom: [{ipBlock: {cidr: 198.51.100.0/24}}]}}",
    );
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
    // Where the pods' user may read it.
    fs::copy(env!("CARGO_BIN_EXE_gossd"), folder.path().join("gossd")).expect("it can be copied");
    let key = String::from_utf8(gossd().arg("keygen").output().expect("gossd runs").stdout).expect("text");

    let sets = manifest.pods();
    let pods: Vec<(&Pod<'_>, String)> =
        sets.iter().flat_map(|pod| pod.names().into_iter().map(move |name| (pod, name))).collect();
    let addresses: Vec<String> = (1..=pods.len()).map(|n| format!("10.78.0.{n}")).collect();
    let policy = filter(manifest.object("NetworkPolicy", "gost"), &addresses);
    // The headless service, which the same name is of.
    let service = value(&flags(pods[0].0.agent()), "--join").replace(":8002", "");
    let names: Vec<String> = addresses.iter().map(|address| format!("{address} {service}\n")).collect();
    let hosts: Vec<NetHost> = addresses
        .iter()
        .enumerate()
        .map(|(n, address)| {
            let host = network.host(&format!("p{n}"), &[&format!("{address}/16")]);
            host.names(&names.concat());
            let rules = folder.path().join("policy");
            fs::write(&rules, &policy).expect("it can be written");
            host.output("nft", &["-f", rules.to_str().expect("text")]);
            assert!(
                host.output("nft", &["list", "ruleset"]).contains("policy drop"),
                "nft filters here: {policy}"
            );
            host
        })
        .collect();
    let prometheus = network.host("prom", &["10.78.1.1/16"]);
    let start = |n: usize| {
        let (pod, name) = &pods[n];
        Running::start(pod, name, hosts[n].clone(), &addresses[n], folder.path(), &key)
    };

    // One that is alone is not ready by its own word, but serves: the others may never come.
    let alone = start(0);
    eventually(LONG, "it lives", || alone.probe(&prometheus, "/livez") == "200").await;
    assert_eq!(alone.probe(&prometheus, "/readyz"), "503");
    assert!(alone.exec(&["healthcheck"]).contains("serving"), "{}", alone.exec(&["healthcheck"]));

    let others = [start(1), start(2)];
    let zone = |zone: &str| Some(zone.to_owned());
    let all: BTreeMap<_, _> =
        pods.iter().map(|(pod, name)| (name.clone(), zone(value(&flags(pod.agent()), "--zone")))).collect();
    for pod in others.iter().chain([&alone]) {
        eventually(LONG, "it has all of them", || pod.alive() == all).await;
        eventually(LONG, "it is ready", || pod.probe(&prometheus, "/readyz") == "200").await;
        let kept = fs::read_dir(&pod.data).expect("a folder").count();
        assert!(kept >= 3, "{} keeps its journal and its identity", pod.name);
    }

    // What the policy lets through: visitors and metrics from everywhere, entrypoints of each other, and nothing else.
    let to = &addresses[1];
    assert!(reaches(&prometheus, to, 8003) && reaches(&prometheus, to, 8420) && reaches(&hosts[0], to, 8420));
    assert!(reaches(&hosts[0], to, 8002) && !reaches(&prometheus, to, 8002), "agents alone");
    assert!(!reaches(&prometheus, to, 8421), "clients are elsewhere");
    assert!(
        !reaches(&hosts[0], to, 8000)
            && !reaches(&hosts[0], to, 8001)
            && !reaches(&hosts[0], "10.78.1.1", 8420)
    );
}
