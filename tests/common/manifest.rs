//! Objects for Kubernetes: what a manifest has, and what is in a pod of this project.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize as _;
use serde_json::Value;

/// The objects of a file.
pub(crate) struct Manifest {
    pub(crate) objects: Vec<Value>,
}

/// The pods of a `StatefulSet`: two sidecars, a container, and volumes.
pub(crate) struct Pod<'a> {
    pub(crate) set: &'a Value,
}

impl Manifest {
    pub(crate) fn read(yaml: &str) -> Self {
        let documents = serde_norway::Deserializer::from_str(yaml);
        let objects = documents.map(|document| Value::deserialize(document).expect("YAML"));
        Self { objects: objects.filter(|object| !object.is_null()).collect() }
    }

    /// All objects of a kind.
    pub(crate) fn of(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| text(object, &["kind"]) == kind).collect()
    }

    /// The only one of this kind and name.
    pub(crate) fn object(&self, kind: &str, name: &str) -> &Value {
        let mut found =
            self.of(kind).into_iter().filter(|object| text(object, &["metadata", "name"]) == name);
        let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
        assert!(found.next().is_none(), "one {kind} {name}");
        object
    }

    pub(crate) fn pods(&self) -> Vec<Pod<'_>> {
        self.of("StatefulSet").into_iter().map(|set| Pod { set }).collect()
    }
}

impl Pod<'_> {
    pub(crate) fn template(&self) -> &Value {
        at(self.set, &["spec", "template"])
    }

    pub(crate) fn spec(&self) -> &Value {
        at(self.template(), &["spec"])
    }

    /// The container of this name in a list of this length.
    fn container(&self, kind: &str, name: &str, many: usize) -> &Value {
        let containers = list(self.spec(), &[kind]);
        assert_eq!(containers.len(), many, "{kind}");
        containers.iter().find(|container| text(container, &["name"]) == name).expect("a container")
    }

    pub(crate) fn holder(&self) -> &Value {
        self.container("initContainers", "hold", 2)
    }

    pub(crate) fn agent(&self) -> &Value {
        self.container("initContainers", "gossd", 2)
    }

    pub(crate) fn gost(&self) -> &Value {
        self.container("containers", "gost", 1)
    }

    pub(crate) fn containers(&self) -> [&Value; 3] {
        [self.holder(), self.agent(), self.gost()]
    }

    /// The volume that is mounted at this path of a container, or the claim for it.
    pub(crate) fn mounted(&self, container: &Value, path: &str) -> &Value {
        let mounts = list(container, &["volumeMounts"]);
        let mount = mounts.iter().find(|mount| text(mount, &["mountPath"]) == path);
        let name = text(mount.unwrap_or_else(|| panic!("nothing at {path}")), &["name"]);
        let claims = self.set.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
        let volumes = list(self.spec(), &["volumes"]).iter().filter(|volume| text(volume, &["name"]) == name);
        let claims = claims.into_iter().flatten().filter(|claim| text(claim, &["metadata", "name"]) == name);
        let all: Vec<&Value> = volumes.chain(claims).collect();
        assert_eq!(all.len(), 1, "{name}");
        all[0]
    }

    /// The names of the pods.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = text(self.set, &["metadata", "name"]);
        let many = at(self.set, &["spec", "replicas"]).as_u64().expect("a number");
        (0..many).map(|ordinal| format!("{name}-{ordinal}")).collect()
    }
}

/// A container's arguments, filled in like Kubernetes does for a pod of this name and address.
pub(crate) fn args(container: &Value, name: &str, address: &str) -> Vec<String> {
    let known = BTreeMap::from([("POD_NAME", name), ("POD_IP", address)]);
    let set: BTreeSet<&str> = list(container, &["env"]).iter().map(|env| text(env, &["name"])).collect();
    let args = list(container, &["args"]).iter().map(|arg| arg.as_str().expect("text"));
    let filled = args.map(|arg| match arg.split_once("=$(") {
        Some((flag, variable)) => {
            let variable = variable.strip_suffix(')').expect("a variable");
            assert!(set.contains(variable), "{variable} is not set");
            format!("{flag}={}", known[variable])
        }
        None => arg.to_owned(),
    });
    filled.collect()
}

/// The agent's flags in a pod named gost-0.
pub(crate) fn flags(agent: &Value) -> Vec<String> {
    let args = args(agent, "gost-0", "10.0.0.1");
    assert_eq!(args[0], "run");
    args[1..].to_vec()
}

pub(crate) fn value<'a>(flags: &'a [String], flag: &str) -> &'a str {
    let mut values = flags.iter().filter_map(|said| said.strip_prefix(flag)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no {flag}"))
}

pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| {
        value.get(*key).unwrap_or_else(|| panic!("no {key} of {path:?} in {value:?}"))
    })
}

pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_else(|| panic!("no text at {path:?} in {value:?}"))
}

pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().unwrap_or_else(|| panic!("no list at {path:?} in {value:?}"))
}
