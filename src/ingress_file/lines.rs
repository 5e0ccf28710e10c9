//! The content of the file: a line for every host name that leads to a tunnel here. gost's own lookup in these lines
//! finds what `GetRule` would answer. Knows no disk.
//!
//! At a line that is not two words, even a comment or an empty line, gost's loader ends the whole gost process. So
//! there is none. The loader knows no ingress domains, no reserved names and no capitals. Therefore each name is listed
//! in every spelling, in lower case, and a reserved name below somebody's wildcard has a line that leads nowhere.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::plugin::{By, Ingress, Names};
use gossd_core::hostname::{Endpoint, TunnelId};

/// Most lines: the hash hosts of 100,000 tunnels, and as many claims. gost reads all of them every second.
pub(super) const MAX_LINES: usize = 200_000;
/// Most bytes: enough for that many lines of ordinary names.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// DNS's longest host name, and its longest label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// gost takes this for no tunnel: it answers as for a name without a rule.
const NOWHERE: &str = "-";

/// The second word of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineTarget {
    Tunnel(Endpoint),
    Nowhere,
}

/// The lines by their first word: a host, or `*.` and a host. gost also uses a wildcard for the host itself.
pub(super) type Lines = BTreeMap<String, LineTarget>;

/// What the file should contain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) text: String,
    pub(super) lines: usize,
    /// Names that do not fit, and wildcards that would lead other names to a wrong tunnel.
    pub(super) left_out: usize,
}

/// How much the file may contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLimits {
    pub(super) lines: usize,
    pub(super) bytes: usize,
}

impl FileLimits {
    pub(super) const USUAL: Self = Self { lines: MAX_LINES, bytes: MAX_BYTES };
}

/// A line with its priority: the operator's rules first, lines of a former start last.
type Wanted = (Origin, LineTarget);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Configured,
    Claimed,
    Hash,
    Former,
}

pub(super) struct Lister {
    ingress: Ingress,
    bounds: FileLimits,
    /// A label that nobody can have claimed: it shows where unclaimed names below a wildcard lead.
    label: String,
}

impl Lister {
    pub(super) fn new(ingress: Ingress, bounds: FileLimits) -> Self {
        let [a, b] = rand::random::<[u128; 2]>();
        // No hash host has this form: those are digits only.
        let mut label = format!("x{a:032x}{b:032x}");
        label.truncate(MAX_LABEL);
        Self { ingress, bounds, label }
    }

    /// What the file should contain now. A line of `former`, from an earlier start, stays until its name is known here;
    /// then it is removed from `former`.
    pub(super) fn list(&self, names: &Names, former: &mut Lines) -> Listing {
        let (mut wanted, mut left_out) = self.known(names);
        let may_stay = |host: &str, target: &LineTarget| match (target, names.naming.key(host)) {
            (LineTarget::Tunnel(found), Ok(key)) => names.may_have(&key, found.tunnel),
            _ => true,
        };
        former.retain(|host, target| !wanted.contains_key(host) && may_stay(host, target));
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
        self.withhold(names, &mut lines);
        Listing { lines: lines.len(), left_out: left_out.len() + astray.len(), text: text(&lines) }
    }

    /// Every name that leads to a tunnel here, and the wildcards that lines cannot express.
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
                    // A claimed wildcard above reserved names: gost would use it for those names too, and `GetRule`
                    // would not.
                    left_out.push(spelling);
                    continue;
                }
                let origin = match found.by {
                    By::Configured => Origin::Configured,
                    By::Claimed => Origin::Claimed,
                    By::Hash => Origin::Hash,
                };
                wanted.insert(spelling, (origin, LineTarget::Tunnel(found.endpoint)));
            }
        }
        (wanted, left_out)
    }

    /// A name to which only this line's rule applies.
    fn a_name_of(&self, spelling: &str) -> Option<String> {
        let Some(suffix) = spelling.strip_prefix("*.") else { return Some(spelling.into()) };
        let room = MAX_NAME.checked_sub(suffix.len() + 1)?.min(self.label.len());
        self.label.get(..room).filter(|label| !label.is_empty()).map(|label| format!("{label}.{suffix}"))
    }

    /// The target of a former start, private if its tunnel is private now.
    fn closed(&self, target: LineTarget) -> LineTarget {
        match target {
            LineTarget::Tunnel(Endpoint { tunnel, private }) => {
                let private = private || self.ingress.agent().is_private(tunnel);
                LineTarget::Tunnel(Endpoint { tunnel, private })
            }
            LineTarget::Nowhere => LineTarget::Nowhere,
        }
    }

    /// Gives a line of its own to each name that a wildcard would lead to a tunnel which cannot have it.
    fn withhold(&self, names: &Names, lines: &mut Lines) {
        for name in names.naming.withheld().chain(without_right(names, lines)) {
            let wanted = self.ingress.explain(&name).map(|found| LineTarget::Tunnel(found.endpoint));
            if lookup(lines, &name).unwrap_or(LineTarget::Nowhere) != wanted.unwrap_or(LineTarget::Nowhere) {
                lines.insert(name, wanted.unwrap_or(LineTarget::Nowhere));
            }
        }
    }
}

/// Names under which a claimed wildcard stands whose tunnel may not have the name itself.
fn without_right(names: &Names, lines: &Lines) -> Vec<String> {
    let claimed = lines.iter().filter_map(|(line, target)| match target {
        LineTarget::Tunnel(found) => Some((line.strip_prefix("*.")?, found.tunnel)),
        LineTarget::Nowhere => None,
    });
    let is_without = |(name, tunnel): &(&str, TunnelId)| {
        let fixed = names.naming.key(&format!("*.{name}")).is_ok_and(|rule| names.fixed.contains_key(&rule));
        !fixed && names.naming.key(name).is_ok_and(|key| !names.may_have(&key, *tunnel))
    };
    claimed.filter(is_without).map(|(name, _)| name.to_owned()).collect()
}

/// What gost finds for a host, in gost's order.
fn lookup(lines: &Lines, host: &str) -> Option<LineTarget> {
    let own = lines.get(host);
    own.or_else(|| suffixes(host).find_map(|suffix| lines.get(&format!("*.{suffix}")))).copied()
}

/// The host, and what follows each of its dots.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |rest| Some(rest.split_once('.')?.1))
}

/// The names that do not fit: those of the lowest priority, the last ones by name.
fn surplus(wanted: &BTreeMap<String, Wanted>, bounds: FileLimits) -> Vec<String> {
    let size = |host: &String, target: LineTarget| host.len() + target.to_string().len() + 2;
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

/// The wildcards above names that are left out: they would lead those names to a wrong tunnel.
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

/// The lines that a former start wrote. Everything else in the file is ignored.
pub(super) fn parse(text: &str) -> Lines {
    let line = |line: &str| {
        let (host, endpoint) = line.split_once(' ')?;
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        // A line that leads nowhere is not kept: the current settings decide about its name.
        let target = LineTarget::Tunnel(Endpoint::parse(endpoint)?);
        is_host.then(|| (host.to_owned(), target))
    };
    text.lines().filter_map(line).take(MAX_LINES).collect()
}

impl fmt::Display for LineTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(endpoint) => endpoint.fmt(f),
            Self::Nowhere => f.write_str(NOWHERE),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
