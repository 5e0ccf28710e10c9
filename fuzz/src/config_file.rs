//! Configuration files: an accepted one sets the flags that its lines name, and a refused one gets a reason.

use std::str;

use gossd::cli::flags_of_file;

/// More lines are seldom useful, and each is compared with all flags.
const LINES: usize = 6;

pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if text.lines().count() > LINES {
        return;
    }
    match flags_of_file(text) {
        Ok(told) => told.iter().for_each(|(id, flags)| flag(text, id, flags)),
        Err(why) => {
            assert!(why.contains("line "), "it says where: {why}");
            assert!(why.len() < 400 + 4 * text.len(), "it is short: {why}");
        }
    }
}

fn flag(text: &str, id: &str, flags: &[String]) {
    let key = id.replace('_', "-");
    assert!(key != "config" && key != "help");
    assert!(text.contains(key.as_bytes()[0] as char), "{key} was said");
    let name = format!("--{key}");
    for flag in flags {
        let value = flag.strip_prefix(&name).unwrap_or_else(|| panic!("{flag:?} says {name}"));
        assert!(value.is_empty() || value.starts_with('='), "{flag:?}");
    }
    assert_eq!(text.lines().count() == 0, flags.is_empty() && text.is_empty());
}
