//! The public suffix list, behind one function. Knows nothing of tunnels.

use std::cmp::Ordering;

/// The rules of the list, by the domain that they are below: a line for each domain, `DOMAIN:LABEL LABEL …`, with lines and
/// labels in the order of their bytes. The first domain is the root, which has no name. International labels are in Punycode.
/// The list is publicsuffix.org's, under the Mozilla Public License 2.0. `tests/list.rs` writes the file from the rules of the
/// crate `psl`, and holds it against that crate.
const LIST: &str = include_str!("list.txt");

const LINES: usize = lines();

/// Where each line begins, and where the last one ends.
static STARTS: [u32; LINES + 1] = starts();

/// Whether strangers register names below a name: whether a rule of the list makes it a suffix as a whole, `co.uk` and
/// `github.io` as well as `com`. The name is ASCII in lower case, without a dot at its end. A name whose ending the list does
/// not know is none.
pub fn is_public(name: &str) -> bool {
    let (label, domain) = name.split_once('.').unwrap_or((name, ""));
    let domain_of = |&start: &u32| LIST[start as usize..].split_once(':').unwrap_or_default().0;
    let Ok(found) = STARTS[..LINES].binary_search_by_key(&domain, domain_of) else { return false };
    let [start, end] = [found, found + 1].map(|line| STARTS[line] as usize);
    let labels = &LIST[start + domain.len() + 1..end - 1];
    let is_exception = || labels.split(' ').any(|rule| rule.strip_prefix('!') == Some(label));
    has(labels, label) || has(labels, "*") && !is_exception()
}

/// Whether a label is among those of a line.
fn has(labels: &str, label: &str) -> bool {
    let mut labels = labels.as_bytes();
    while !labels.is_empty() {
        let (before, after) = labels.split_at(labels.len() / 2);
        let start = before.iter().rposition(|&b| b == b' ').map_or(0, |space| space + 1);
        let end = before.len() + after.iter().position(|&b| b == b' ').unwrap_or(after.len());
        labels = match label.as_bytes().cmp(&labels[start..end]) {
            Ordering::Less => &labels[..start.saturating_sub(1)],
            Ordering::Equal => return true,
            Ordering::Greater => labels.get(end + 1..).unwrap_or_default(),
        };
    }
    false
}

const fn lines() -> usize {
    let (mut lines, mut at) = (0, 0);
    while at < LIST.len() {
        lines += (LIST.as_bytes()[at] == b'\n') as usize;
        at += 1;
    }
    lines
}

#[expect(clippy::cast_possible_truncation, reason = "the list has some 100 kB")]
const fn starts() -> [u32; LINES + 1] {
    let mut starts = [0; LINES + 1];
    let (mut line, mut at) = (1, 0);
    while line < starts.len() {
        at += 1;
        if LIST.as_bytes()[at - 1] == b'\n' {
            starts[line] = at as u32;
            line += 1;
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_told_from_domains_below_them_and_from_names_that_nobody_registers() {
        for name in ["com", "co.uk", "github.io", "anything.ck", "xn--p1ai", "xn--55qx5d.cn"] {
            assert!(is_public(name), "{name}");
        }
        for name in
            ["example.com", "foo.github.io", "www.ck", "internal", "app.internal", "test", "", ".", "a..com"]
        {
            assert!(!is_public(name), "{name}");
        }
    }
}
