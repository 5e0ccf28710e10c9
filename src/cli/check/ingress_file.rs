//! The file of host names: whether the agent can write it and gost can read it; and whether gost's own configuration reads
//! the file that the agent writes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{self, Path, PathBuf};

use rustix::process::getegid;
use serde::Deserialize;
use serde_norway::Value;

use super::{Finding, files};
use crate::cli::paths;

const FILE: &str = "ingress file";
const GOST: &str = "gost's ingress";

/// The permission bits by which the group and all others may enter a folder.
const GROUP_ENTERS: u32 = 0o010;
const OTHERS_ENTER: u32 = 0o001;
/// The bit by which new files get the folder's group.
const SET_GROUP: u32 = 0o2000;

pub(super) fn examine(written: Option<&Path>, gost: Option<&Path>) -> Vec<Finding> {
    let file = written.map(file);
    let entries = gost.map(|gost| entries(gost, written)).into_iter().flatten();
    file.into_iter().chain(entries).collect()
}

fn file(path: &Path) -> Finding {
    let shown = path.display();
    if path.is_relative() {
        return Finding::warn(FILE, format!("{shown} depends on where gossd starts: begin it with /"));
    }
    let Some(folder) = path.parent().filter(|_| !path.is_dir()) else {
        return Finding::fail(FILE, format!("{shown} is a folder: add the file's name"));
    };
    let there = folder.display();
    if !folder.is_dir() {
        return Finding::fail(FILE, format!("{there} is no folder: make it, for this user to make files in"));
    }
    if let Err(error) = files::try_write(folder) {
        let text = format!("cannot write in {there} ({error}): let this user, or set --ingress-file");
        return Finding::fail(FILE, text);
    }
    if paths::is_for_one_run(folder) {
        let text = format!(
            "systemd removes {there} when gossd stops, and the names go from gost: choose a folder that stays, or set \
             RuntimeDirectoryPreserve=yes"
        );
        return Finding::warn(FILE, text);
    }
    let group = group(path, folder);
    if let Some(closed) = folder.ancestors().find(|folder| !lets_in(folder, group)) {
        let closed = closed.display();
        let text = format!("group {group} cannot enter {closed}: a gost of another user cannot read {shown}");
        return Finding::warn(FILE, text);
    }
    Finding::ok(FILE, format!("{shown}, for a gost of this user or of group {group}"))
}

/// The group of the file, or the group that it will get.
fn group(path: &Path, folder: &Path) -> u32 {
    let folder = fs::metadata(folder).ok().filter(|folder| folder.permissions().mode() & SET_GROUP != 0);
    fs::metadata(path).ok().or(folder).map_or_else(|| getegid().as_raw(), |found| found.gid())
}

fn lets_in(folder: &Path, group: u32) -> bool {
    fs::metadata(folder).is_ok_and(|found| {
        let mode = found.permissions().mode();
        mode & OTHERS_ENTER != 0 || (mode & GROUP_ENTERS != 0 && found.gid() == group)
    })
}

// The part of gost's configuration that is about host names.

#[derive(Deserialize)]
struct Gost {
    services: Option<Vec<GostService>>,
    ingresses: Option<Vec<GostIngress>>,
}

#[derive(Deserialize)]
struct GostService {
    handler: Option<Handler>,
}

#[derive(Deserialize)]
struct Handler {
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct GostIngress {
    name: String,
    plugin: Option<Value>,
    reload: Option<Value>,
    file: Option<GostFile>,
}

#[derive(Deserialize)]
struct GostFile {
    path: String,
}

fn entries(config: &Path, written: Option<&Path>) -> Vec<Finding> {
    let fail = |why: String| vec![Finding::fail(GOST, format!("{}: {why}", config.display()))];
    let text = match fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) => return fail(error.to_string()),
    };
    let gost: Gost = match serde_norway::from_str(&text) {
        Ok(gost) => gost,
        Err(error) => return fail(error.to_string()),
    };
    let used = gost.used();
    if used.is_empty() {
        return fail("it has no ingresses: `gossd gost-config` prints some".into());
    }
    used.into_iter().map(|entry| entry.judge(written)).collect()
}

impl Gost {
    /// The entries that services use; all entries if the services are in another file.
    fn used(self) -> Vec<GostIngress> {
        let handlers = self.services.into_iter().flatten().filter_map(|service| service.handler?.metadata);
        let named: Vec<String> = handlers.flat_map(|metadata| ingresses(&metadata)).collect();
        let is_used = |entry: &GostIngress| named.is_empty() || named.contains(&entry.name);
        self.ingresses.into_iter().flatten().filter(is_used).collect()
    }
}

/// The names of a handler's ingresses: its own and those of further entrypoints.
fn ingresses(metadata: &Value) -> Vec<String> {
    let more = metadata.get("entrypoints").and_then(Value::as_sequence).into_iter().flatten();
    let all = std::iter::once(metadata).chain(more);
    all.filter_map(|entry| entry.get("ingress")?.as_str().map(str::to_owned)).collect()
}

impl GostIngress {
    fn judge(&self, written: Option<&Path>) -> Finding {
        let name = &self.name;
        let read = self.file.as_ref().map(|file| Path::new(&file.path));
        match (&self.plugin, read, written) {
            (Some(_), Some(read), _) => {
                let read = read.display();
                Finding::fail(
                    GOST,
                    format!("{name} has a plugin, so gost never reads {read}: remove one of them"),
                )
            }
            (Some(_), None, Some(written)) => {
                let text = format!(
                    "{name} asks its plugin, so gost does not read {}: `gossd gost-config --ingress file`",
                    written.display()
                );
                Finding::warn(GOST, text)
            }
            (Some(_), None, None) => Finding::ok(GOST, format!("{name} asks its plugin")),
            (None, None, _) => Finding::warn(GOST, format!("{name} has neither a plugin nor a file")),
            (None, Some(read), None) => {
                let read = read.display();
                Finding::fail(
                    GOST,
                    format!("{name} reads {read}, which nobody writes: add --ingress-file {read}"),
                )
            }
            (None, Some(read), Some(written)) => self.judge_file(read, written),
        }
    }

    fn judge_file(&self, read: &Path, written: &Path) -> Finding {
        let (name, shown) = (&self.name, read.display());
        if real(read) != real(written) {
            return Finding::fail(
                GOST,
                format!("{name} reads {shown}, and gossd writes {}", written.display()),
            );
        }
        match self.reload.as_ref().and_then(period) {
            Some(period) => Finding::ok(GOST, format!("{name} reads {shown} every {period}")),
            None => Finding::fail(GOST, format!("{name} reads {shown} only once: add `reload: 1s`")),
        }
    }
}

/// A path without links and dots, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let whole = path::absolute(path).unwrap_or_else(|_| path.into());
    let folder = whole.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(whole.file_name()).map(|(folder, name)| folder.join(name)).unwrap_or(whole)
}

/// A time that is not zero, as Go writes it or in nanoseconds.
fn period(reload: &Value) -> Option<String> {
    let text = match reload {
        Value::String(text) => text.clone(),
        Value::Number(number) => format!("{number} ns"),
        _ => return None,
    };
    text.contains(|c: char| ('1'..='9').contains(&c)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_needs_a_folder_that_gossd_writes_in_and_gost_can_enter() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir(&folder).unwrap();
        mode(root.path(), 0o755);
        let found = |path: &Path| (file(path).verdict, file(path).text);
        for (rights, verdict, text) in [
            (0o755, Severity::Ok, "for a gost of this user or of group"),
            (0o750, Severity::Ok, "for a gost of this user or of group"),
            (0o700, Severity::Warn, "cannot read"),
        ] {
            mode(&folder, rights);
            let (found, told) = found(&folder.join("hosts"));
            assert_eq!(found, verdict, "{told}");
            assert!(told.contains(text), "{told}");
        }
        for (path, verdict, text) in [
            (Path::new("hosts"), Severity::Warn, "hosts depends on where gossd starts"),
            (&folder, Severity::Fail, "is a folder"),
            (&folder.join("gone/hosts"), Severity::Fail, "gone is no folder: make it"),
        ] {
            let (found, told) = found(path);
            assert_eq!(found, verdict, "{told}");
            assert!(told.contains(text), "{told}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "it is as it was");
        // Only root may change the owner of a file.
        if std::os::unix::fs::chown(&folder, None, Some(65_534)).is_ok() {
            mode(&folder, 0o750);
            assert_eq!(found(&folder.join("hosts")).0, Severity::Warn, "the file would be of another group");
            mode(&folder, 0o2750);
            let (verdict, told) = found(&folder.join("hosts"));
            assert_eq!(verdict, Severity::Ok, "{told}");
            assert!(told.ends_with("of group 65534"), "{told}");
        }
    }

    #[test]
    fn what_gost_reads_has_to_be_what_gossd_writes() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gost.yml");
        let services = "services: [{name: s, handler: {type: tunnel, metadata: {ingress: i}}}]\n";
        let other = "- {name: other, file: {path: /elsewhere}}\n";
        let written = Path::new("/var/lib/gossd/hosts");
        for (entry, written, verdict, text) in [
            (
                "reload: 1s, file: {path: /var/lib/gossd/hosts}",
                Some(written),
                Severity::Ok,
                "i reads /var/lib/gossd/hosts every 1s",
            ),
            (
                "reload: 1000000000, file: {path: /var/lib/gossd/./hosts}",
                Some(written),
                Severity::Ok,
                "every 1000000000 ns",
            ),
            (
                "file: {path: /var/lib/gossd/hosts}",
                Some(written),
                Severity::Fail,
                "only once: add `reload: 1s`",
            ),
            ("reload: 0s, file: {path: /var/lib/gossd/hosts}", Some(written), Severity::Fail, "only once"),
            (
                "reload: 1s, file: {path: /hosts}",
                Some(written),
                Severity::Fail,
                "i reads /hosts, and gossd writes /var/lib/gossd/hosts",
            ),
            (
                "reload: 1s, file: {path: /hosts}",
                None,
                Severity::Fail,
                "nobody writes: add --ingress-file /hosts",
            ),
            (
                "plugin: {type: grpc, addr: x}, file: {path: /hosts}",
                Some(written),
                Severity::Fail,
                "never reads /hosts",
            ),
            (
                "plugin: {type: grpc, addr: x}",
                Some(written),
                Severity::Warn,
                "does not read /var/lib/gossd/hosts",
            ),
            ("plugin: {type: grpc, addr: x}", None, Severity::Ok, "i asks its plugin"),
            ("rules: []", None, Severity::Warn, "neither a plugin nor a file"),
        ] {
            let yaml = format!("{services}ingresses:\n- {{name: i, {entry}}}\n{other}");
            fs::write(&config, yaml).unwrap();
            let found = entries(&config, written);
            let [finding] = &found[..] else { panic!("{found:?}") };
            assert_eq!(finding.verdict, verdict, "{entry}: {finding:?}");
            assert!(finding.text.contains(text), "{entry}: {finding:?}");
        }
        let more = "services: [{handler: {metadata: {entrypoints: [{ingress: other}]}}}]\ningresses:\n";
        for (text, verdicts) in [
            (format!("ingresses:\n{other}"), &[Severity::Fail][..]),
            (format!("{more}- {{name: i}}\n{other}"), &[Severity::Fail]),
            ("ingresses:\n".into(), &[Severity::Fail]),
            (format!("ingresses:\n{other}{other}"), &[Severity::Fail, Severity::Fail]),
            ("- [".into(), &[Severity::Fail]),
        ] {
            fs::write(&config, &text).unwrap();
            let found: Vec<_> = entries(&config, Some(written)).iter().map(|found| found.verdict).collect();
            assert_eq!(found, verdicts, "{text}");
        }
        assert_eq!(entries(Path::new("/nonexistent"), None)[0].verdict, Severity::Fail);
    }
}
