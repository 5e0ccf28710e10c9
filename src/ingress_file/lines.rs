//! What stands in the file: a line for every host name that leads to a tunnel here, so that gost's own lookup in them
//! gives what `GetRule` would answer. Knows no disk.
//!
//! gost's loader ends the whole gost process at a line that is not two words: a comment, an empty line. So there is
//! none. It knows no ingress domains, no reserved names and no capitals: names are there in every spelling, in lower
//! case, and a reserved name below somebody's wildcard has a line that leads nowhere.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::plugin::{By, Ingress, Names};
use gossd_core::hostname::Endpoint;
use gossd_core::hostname::Naming;

/// Most lines: the hash hosts of 100,000 tunnels, and as many claims. gost reads them all every second.
pub(super) const MAX_LINES: usize = 200_000;
/// Most bytes: enough for as many lines of usual names.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// The longest name of a host, and the longest part of it between dots: DNS's.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What gost takes for no tunnel: it answers as for a name without a rule.
const NOWHERE: &str = "-";

/// Where a line leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tunnel(Endpoint),
    Nowhere,
}

/// The lines, by their first word: a host, or `*.` and a host. gost reads a wildcard for its own host, too.
pub(super) type Lines = BTreeMap<String, Target>;

/// What the file should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) text: String,
    pub(super) lines: usize,
    /// Names for which there is no room, or whose wildcard would lead other names astray.
    pub(super) left_out: usize,
}

/// How much may stand in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) lines: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    pub(super) const USUAL: Self = Self { lines: MAX_LINES, bytes: MAX_BYTES };
}

/// A line, and how much it is wanted: what the operator said comes first, what is only remembered last.
type Wanted = (Origin, Target);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Configured,
    Claimed,
    Hash,
    Former,
}

/// Lists.
pub(super) struct Lister {
    ingress: Ingress,
    bounds: Bounds,
    /// A label that nobody can have claimed, to find out where the other names below a wildcard lead.
    label: String,
}

impl Lister {
    pub(super) fn new(ingress: Ingress, bounds: Bounds) -> Self {
        let [a, b] = rand::random::<[u128; 2]>();
        // No hash host: those have digits only.
        let mut label = format!("x{a:032x}{b:032x}");
        label.truncate(MAX_LABEL);
        Self { ingress, bounds, label }
    }

    /// What the file should be now. Lines of `former`, from an earlier start, stay while nothing is known of their names;
    /// those that are known are taken from it.
    pub(super) fn list(&self, names: &Names, former: &mut Lines) -> Listing {
        let (mut wanted, mut left_out) = self.known(names);
        former.retain(|host, _| !wanted.contains_key(host));
        for (host, target) in &*former {
            wanted.insert(host.clone(), (Origin::Former, self.closed(*target)));
        }
        left_out.extend(surplus(&wanted, self.bounds));
        for host in &left_out {
            wanted.remove(host);
        }
        let astray = astray(&wanted, &left_out);
        for host in &astray {
            wanted.remove(host);
        }
        let mut lines: Lines = wanted.into_iter().map(|(host, (_, target))| (host, target)).collect();
        self.withhold(&names.naming, &mut lines);
        Listing { lines: lines.len(), left_out: left_out.len() + astray.len(), text: text(&lines) }
    }

    /// Every name that leads to a tunnel here, and the wildcards that no lines can tell.
    fn known(&self, names: &Names) -> (BTreeMap<String, Wanted>, Vec<String>) {
        let (mut wanted, mut left_out) = (BTreeMap::new(), Vec::new());
        let fixed = names.fixed.keys().cloned();
        let claimed = self.ingress.agent().claimed_hosts().into_iter().map(|host| host.to_string());
        let hashes = self.ingress.agent().hash_hosts().into_iter().map(|host| host.to_string());
        for key in fixed.chain(claimed).chain(hashes) {
            for spelling in names.naming.spellings(&key) {
                let Some(asked) = self.a_name_of(&spelling) else { continue };
                let Some(found) = self.ingress.explain(&asked).filter(|found| found.rule == key) else {
                    continue;
                };
                let is_wildcard = key.starts_with('.');
                if is_wildcard
                    && found.by != By::Configured
                    && !names.naming.allows(&key, found.endpoint.tunnel)
                {
                    // Claimed where other names are reserved: it covers names that it does not count for here.
                    left_out.push(spelling);
                    continue;
                }
                let origin = match found.by {
                    By::Configured => Origin::Configured,
                    By::Claimed => Origin::Claimed,
                    By::Hash => Origin::Hash,
                };
                wanted.insert(spelling, (origin, Target::Tunnel(found.endpoint)));
            }
        }
        (wanted, left_out)
    }

    /// A name that has no rule but that of a line.
    fn a_name_of(&self, spelling: &str) -> Option<String> {
        let Some(suffix) = spelling.strip_prefix("*.") else { return Some(spelling.into()) };
        let room = MAX_NAME.checked_sub(suffix.len() + 1)?.min(self.label.len());
        self.label.get(..room).filter(|label| !label.is_empty()).map(|label| format!("{label}.{suffix}"))
    }

    /// A former start's target, private if its tunnel is by now.
    fn closed(&self, target: Target) -> Target {
        match target {
            Target::Tunnel(Endpoint { tunnel, private }) => {
                let private = private || self.ingress.agent().is_private(tunnel);
                Target::Tunnel(Endpoint { tunnel, private })
            }
            Target::Nowhere => Target::Nowhere,
        }
    }

    /// Gives the names that no tunnel gets lines of their own where a wildcard would lead them to one.
    fn withhold(&self, naming: &Naming, lines: &mut Lines) {
        for name in naming.withheld() {
            let wanted = self.ingress.explain(&name).map(|found| Target::Tunnel(found.endpoint));
            if lookup(lines, &name).unwrap_or(Target::Nowhere) != wanted.unwrap_or(Target::Nowhere) {
                lines.insert(name, wanted.unwrap_or(Target::Nowhere));
            }
        }
    }
}

/// What gost finds for a host, in its own order.
fn lookup(lines: &Lines, host: &str) -> Option<Target> {
    let own = lines.get(host);
    own.or_else(|| suffixes(host).find_map(|suffix| lines.get(&format!("*.{suffix}")))).copied()
}

/// A host, and what follows each of its dots.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |rest| Some(rest.split_once('.')?.1))
}

/// The names for which there is no room: those that are wanted least, the last ones of them.
fn surplus(wanted: &BTreeMap<String, Wanted>, bounds: Bounds) -> Vec<String> {
    let size = |host: &String, target: Target| host.len() + target.to_string().len() + 2;
    let bytes: usize = wanted.iter().map(|(host, (_, target))| size(host, *target)).sum();
    if wanted.len() <= bounds.lines && bytes <= bounds.bytes {
        return Vec::new();
    }
    let mut ranked: Vec<_> = wanted.iter().map(|(host, (origin, target))| (*origin, host, *target)).collect();
    ranked.sort_unstable_by_key(|(origin, host, _)| (*origin, *host));
    let mut room = bounds.bytes;
    let fits = ranked.iter().take(bounds.lines).take_while(|(_, host, target)| {
        let rest = room.checked_sub(size(host, *target));
        room = rest.unwrap_or_default();
        rest.is_some()
    });
    let fits = fits.count();
    ranked.into_iter().skip(fits).map(|(_, host, _)| host.clone()).collect()
}

/// The wildcards above names that are left out: they would lead those names to a tunnel that is not theirs.
fn astray(wanted: &BTreeMap<String, Wanted>, left_out: &[String]) -> HashSet<String> {
    let above = left_out.iter().flat_map(|host| suffixes(host.trim_start_matches("*.")));
    above.map(|suffix| format!("*.{suffix}")).filter(|wildcard| wanted.contains_key(wildcard)).collect()
}

fn text(lines: &Lines) -> String {
    let mut text = String::with_capacity(lines.len() * 64);
    for (host, target) in lines {
        text.push_str(host);
        text.push(' ');
        text.push_str(&target.to_string());
        text.push('\n');
    }
    text
}

/// The lines of a file that a former start wrote. What else is in it is no line.
pub(super) fn parse(text: &str) -> Lines {
    let line = |line: &str| {
        let (host, endpoint) = line.split_once(' ')?;
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        // A name that led nowhere did so for what the operator says now, if at all.
        let target = Target::Tunnel(Endpoint::parse(endpoint)?);
        is_host.then(|| (host.to_owned(), target))
    };
    text.lines().filter_map(line).take(MAX_LINES).collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(endpoint) => endpoint.fmt(f),
            Self::Nowhere => f.write_str(NOWHERE),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
