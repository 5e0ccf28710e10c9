//! Calls as text that is the same in every run: ids, ports and program versions are replaced by names.

use std::collections::HashMap;

/// Names for what differs in each run, in order of appearance.
#[derive(Default)]
pub(crate) struct Names {
    /// Texts with fixed names, such as addresses.
    known: Vec<(String, String)>,
    ids: HashMap<String, String>,
}

/// The length of an id, 8-4-4-4-12.
const ID: usize = 36;

impl Names {
    pub(crate) fn know(&mut self, text: impl Into<String>, name: impl Into<String>) {
        self.known.push((text.into(), name.into()));
    }

    /// Replaces what differs by names.
    pub(crate) fn apply(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, name) in &self.known {
            text = text.replace(known, name);
        }
        let mut named = String::new();
        let mut rest = &*text;
        while let Some(next) = rest.chars().next() {
            if let Some(id) = rest.get(..ID).filter(|id| is_id(id)) {
                let number = self.ids.len() + 1;
                let name = self.ids.entry(id.to_owned()).or_insert_with(|| format!("<id {number}>"));
                named.push_str(name);
                rest = &rest[ID..];
            } else {
                named.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        named
    }
}

fn is_id(text: &str) -> bool {
    let dash = |at| [8, 13, 18, 23].contains(&at);
    text.bytes().enumerate().all(|(at, byte)| if dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

/// The requests of the older recording, with names.
pub(crate) fn of_capture(text: &str) -> Vec<String> {
    let parts = text.split("--- connection ").skip(1);
    let requests = parts.filter_map(|part| part.split_once('\n').map(|(_, request)| request.trim()));
    normal(requests.filter(|request| !request.is_empty()).map(str::to_owned))
}

/// Service discovery requests without what differs between two runs: the number of Renews, and addresses.
pub(crate) fn normal(requests: impl Iterator<Item = String>) -> Vec<String> {
    let mut names = Names::default();
    let requests = requests.map(|request| {
        let lines = request.lines().map(|line| match line.strip_prefix("Host: ") {
            Some(_) => "Host: <agent>".to_owned(),
            None => line.to_owned(),
        });
        let request = names.apply(&lines.collect::<Vec<_>>().join("\n"));
        match request.split_once("\"address\":\"127.") {
            Some((before, _)) => format!("{before}\"address\":\"<entrypoint>\"}}"),
            None => request,
        }
    });
    let mut all: Vec<String> = requests.collect();
    // How many Renews come in a row, and whether before or after a Get, depends on the clock alone.
    let mut renews = 0;
    all.retain(|request| {
        renews += usize::from(request.starts_with("PUT"));
        !request.starts_with("PUT") || renews == 1
    });
    all
}
