//! How much memory this process may have: the limits of its control groups, versions 1 and 2, and of the process itself. An
//! agent that would hold more is killed, reads its journal at the next start, and is killed again; so it holds less.
//! Knows nothing of what is held.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use crate::sentence::{Sentence, sentence};
use gossd_core::quota::{Quota, Share};

/// What an agent takes that holds nothing: the program, its threads, and buffers of connections.
const FIXED: u64 = 24 << 20;
/// Address space that is taken and not used: stacks of threads, and the room that the allocator sets aside for them.
const UNUSED_ADDRESSES: u64 = 192 << 20;
/// What one byte of records and rules takes, with that byte: itself, its slot and its entry in tables, 3, measured; reckoned, half as
/// much again while tables double and the journal's file is written anew; the rest is for what the allocator does not give back.
const EACH: u64 = 5;
/// The least that is worth a start.
const LEAST: u64 = 1 << 20;

/// A limit on the memory of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// Bytes that an agent can count on.
    pub(crate) bytes: u64,
    /// Bytes below the limit that no agent can use.
    reserve: u64,
    /// Where the limit is set, for people.
    pub(crate) place: String,
}

/// What an agent under a limit may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What was asked for fits. The second number is how many bytes of other owners do.
    Enough(usize),
    /// Less: so many bytes of its own, and so many of other owners.
    Less(usize, usize),
    /// Nothing: an agent does not even start.
    None,
}

impl MemoryLimit {
    /// The lowest limit of this process, if there is any.
    pub(crate) fn of_this_process() -> Option<Self> {
        let groups = of_control_groups(Path::new("/"));
        let own = |resource, flag: &str, reserve: u64| {
            let bytes = getrlimit(resource).current?.saturating_sub(reserve);
            let place = sentence!("the process's own limit, `ulimit -{flag}`").to_string();
            Some(Self { bytes, reserve, place })
        };
        let addresses = own(Resource::As, "v", UNUSED_ADDRESSES);
        let data = own(Resource::Data, "d", 0);
        groups.into_iter().chain(addresses).chain(data).min_by_key(|limit| limit.bytes)
    }

    /// What an agent may hold that was asked to hold so much.
    pub(crate) fn room(&self, quota: &Quota) -> Room {
        let free = self.bytes.saturating_sub(FIXED);
        if free < EACH * LEAST {
            return Room::None;
        }
        let asked = quota.bytes as u64;
        let own = asked.min(free / EACH);
        // Others' bytes take little more than they count.
        let others = free.saturating_sub(2 * own) / 5 * 4;
        let sizes =
            [own, others.max(Share::FLOOR as u64)].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if own == asked { Room::Enough(sizes[1]) } else { Room::Less(sizes[0], sizes[1]) }
    }

    /// What is wrong with a limit under which so much was asked for, and the remedy.
    pub(crate) fn complaint(&self, asked: usize, room: &Room) -> Option<Sentence> {
        let (limit, place) = (mib(self.bytes.saturating_add(self.reserve)), &self.place);
        let enough = |bytes: u64| mib(bytes.saturating_mul(EACH).saturating_add(FIXED + self.reserve)) + 1;
        let (enough, least) = (enough(asked as u64), enough(LEAST));
        match room {
            Room::Enough(_) => None,
            Room::Less(bytes, _) => Some(sentence!(
                "this process may have {limit} MiB of memory ({place}), too little for --max-bytes {asked}, so it is {bytes}: \
                 raise the limit to {enough} MiB, or set --max-bytes {bytes}"
            )),
            Room::None => Some(sentence!(
                "this process may have {limit} MiB of memory ({place}), too little for any agent: raise the limit to \
                 {enough} MiB, or at least to {least} MiB with a lower --max-bytes"
            )),
        }
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// The lowest memory limit of a process's control groups and those above them, on a system whose files are below a root.
fn of_control_groups(root: &Path) -> Option<MemoryLimit> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| of_group(root, line, &mounts));
    limits.min_by_key(|limit| limit.bytes)
}

/// The limits of a group, a line `ID:CONTROLLERS:PATH`, and of the groups above it.
fn of_group(root: &Path, line: &str, mounts: &str) -> Vec<MemoryLimit> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (kind, file) = match controllers {
        "" => ("cgroup2", "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            ("cgroup", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let Some((top, mount)) = mounts.lines().find_map(|mount| mounted(mount, kind)) else { return Vec::new() };
    // In a container, the path may be one of the host's, of which only the container's part is mounted.
    let below = path.strip_prefix(top).unwrap_or(path).trim_start_matches('/');
    let top = root.join(mount.trim_start_matches('/'));
    let folders = Path::new(below).ancestors().map(|folder| top.join(folder));
    folders.filter_map(|folder| limit(root, &folder.join(file))).collect()
}

/// The root and the place of a mount that is of a kind, and if that is version 1, has the memory controller.
fn mounted<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let (mount, of) = line.split_once(" - ")?;
    let mut of = of.split(' ');
    let has_memory =
        of.next()? == kind && (kind == "cgroup2" || of.nth(1)?.split(',').any(|option| option == "memory"));
    let mut fields = mount.split(' ').skip(3);
    has_memory.then_some((fields.next()?, fields.next()?))
}

/// What a file says, unless that is no limit: version 2 writes `max`, version 1 a number that no machine has.
fn limit(root: &Path, file: &PathBuf) -> Option<MemoryLimit> {
    const NONE: u64 = 1 << 60;
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok().filter(|bytes| *bytes < NONE)?;
    let shown = Path::new("/").join(file.strip_prefix(root).unwrap_or(file));
    Some(MemoryLimit { bytes, reserve: 0, place: shown.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const V2: &str = "24 1 0:21 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    const V1: &str = "33 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      34 32 0:30 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";

    #[test]
    fn the_lowest_limit_of_the_own_group_and_those_above_counts() {
        for (files, found) in [
            (&[][..], None),
            (&[("sys/fs/cgroup/memory.max", "max\n")], None),
            (&[("sys/fs/cgroup/memory.max", "1000\n")], Some((1_000, "/sys/fs/cgroup/memory.max"))),
            (
                &[
                    ("sys/fs/cgroup/system.slice/gossd.service/memory.max", "4096\n"),
                    ("sys/fs/cgroup/memory.max", "max\n"),
                ],
                Some((4_096, "/sys/fs/cgroup/system.slice/gossd.service/memory.max")),
            ),
            (
                &[
                    ("sys/fs/cgroup/system.slice/gossd.service/memory.max", "4096\n"),
                    ("sys/fs/cgroup/system.slice/memory.max", "2048\n"),
                ],
                Some((2_048, "/sys/fs/cgroup/system.slice/memory.max")),
            ),
        ] {
            let own = [("proc/self/cgroup", "0::/system.slice/gossd.service\n"), ("proc/self/mountinfo", V2)];
            let root = system(&[&own[..], files].concat());
            let limit = of_control_groups(root.path());
            let found = found.map(|(bytes, place)| MemoryLimit { bytes, reserve: 0, place: place.into() });
            assert_eq!(limit, found, "{files:?}");
        }
    }

    #[test]
    fn version_1_and_its_path_of_the_host_are_understood_in_a_container() {
        let own = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab/gossd\n0::/\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/gossd/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ];
        let root = system(&own);
        let limit = of_control_groups(root.path()).unwrap();
        assert_eq!((limit.bytes, &*limit.place), (128 << 20, "/sys/fs/cgroup/memory/memory.limit_in_bytes"));
        assert_eq!(of_control_groups(&root.path().join("nonexistent")), None);
    }

    #[test]
    fn an_agent_holds_what_its_memory_has_room_for_and_says_so() {
        let quota = Quota { bytes: 256 << 20, ..Quota::default() };
        let limit = |mib: u64| MemoryLimit { bytes: mib << 20, reserve: 0, place: "somewhere".into() };
        assert!(matches!(limit(2_048).room(&quota), Room::Enough(others) if others > 256 << 20));
        assert_eq!(limit(2_048).complaint(quota.bytes, &limit(2_048).room(&quota)), None);
        for (mib, bytes) in [(512, 102_341_017), (128, 21_810_380), (31, 1_468_006)] {
            let Room::Less(own, others) = limit(mib).room(&quota) else { panic!("{mib} MiB") };
            assert_eq!(own, bytes);
            assert!((FIXED + 2 * own as u64 + others as u64) >> 20 <= mib, "{mib} MiB: {own}, {others}");
            let told = limit(mib).complaint(quota.bytes, &Room::Less(own, others)).unwrap();
            for part in
                [&format!("{mib} MiB of memory (somewhere)"), &format!("--max-bytes {own}"), "1305 MiB"]
            {
                assert!(told.contains(part), "{told}");
            }
            let again = Quota { bytes: own, ..quota };
            assert!(matches!(limit(mib).room(&again), Room::Enough(_)), "what it advises is enough");
        }
        assert_eq!(limit(26).room(&quota), Room::None);
        let told = limit(26).complaint(quota.bytes, &Room::None).unwrap();
        assert!(told.contains("at least to 30 MiB"), "{told}");
    }

    #[test]
    fn what_a_limit_counts_and_nobody_uses_is_part_of_the_remedy() {
        let addresses = MemoryLimit { bytes: 0, reserve: UNUSED_ADDRESSES, place: "`ulimit -v`".into() };
        assert_eq!(addresses.room(&Quota::default()), Room::None);
        let told = addresses.complaint(Quota::default().bytes, &Room::None).unwrap();
        for part in ["may have 192 MiB", "to 1497 MiB", "at least to 222 MiB"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
