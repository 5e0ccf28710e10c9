//! How people read numbers: counts and times; and texts of others.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `1 record`, `2 records`.
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Seconds, as exactly as anybody wants to know.
#[expect(clippy::cast_possible_truncation, reason = "seconds of a life; `as` saturates")]
pub(super) fn time(seconds: f64) -> String {
    let whole = seconds.round() as i64;
    match whole {
        ..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min", whole / 60),
        7_200..172_800 => format!("{} h", whole / 3_600),
        _ => format!("{} d", whole / 86_400),
    }
}

/// Milliseconds of a round trip; `-` before one was measured.
pub(super) fn round_trip(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

/// An error and its causes, none of them twice: many an error quotes its cause.
pub(super) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = text + ": " + &cause;
        }
    }
    text
}

/// A text that someone else wrote, as one line that cannot steer a terminal, nor look like another text.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_unseen(c) { '\u{fffd}' } else { c }).collect()
}

/// The same for a text of several lines.
pub(super) fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// A text with every character that nobody sees, or that only a terminal understands, as JSON escapes it: `\u202e`. Line
/// ends, tabs and colours stay. In a JSON text it stays the same text.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| is_unseen(c) || ('\u{80}'..='\u{9f}').contains(&c);
    if text.is_ascii() || !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a text cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether a character takes no room, or changes the direction or the end of a line: what is read is then not what is there.
fn is_unseen(c: char) -> bool {
    matches!(c,
        // The soft hyphen, the Arabic letter mark, the Mongolian vowel separator.
        '\u{ad}' | '\u{61c}' | '\u{180e}'
        // Zero width, and marks of direction.
        | '\u{200b}'..='\u{200f}'
        // Ends of lines and paragraphs, and changes of direction.
        | '\u{2028}'..='\u{202e}'
        // The word joiner and other invisible operators, isolated directions, deprecated format characters.
        | '\u{2060}'..='\u{206f}'
        // The byte order mark, annotations, and tags.
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| count(n, "record")), ["0 records", "1 record", "2 records"]);
    }

    #[test]
    fn times_are_as_exact_as_they_are_short() {
        for (seconds, said) in [
            (0.0, "0.0 s"),
            (2.46, "2.5 s"),
            (9.6, "10 s"),
            (119.4, "119 s"),
            (120.0, "2 min"),
            (7_199.0, "119 min"),
            (7_200.0, "2 h"),
            (172_800.0, "2 d"),
            (1e300, "106751991167300 d"),
        ] {
            assert_eq!(time(seconds), said);
        }
        assert_eq!([None, Some(0.412), Some(41.6)].map(round_trip), ["-", "0.41 ms", "42 ms"]);
    }

    #[test]
    fn nobody_elses_text_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[31m\nb\u{9b}ü"), "a\u{fffd}[31m\u{fffd}b\u{fffd}ü");
        assert_eq!(plain_lines("a\u{1b}\nb\r\u{202e}c"), "a\u{fffd}\nb\u{fffd}\u{fffd}c");
    }

    /// Of every kind of character that makes a text look like another.
    const UNSEEN: [char; 16] = [
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{202a}',
        '\u{202e}',
        '\u{2028}',
        '\u{2029}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{feff}',
        '\u{ad}',
        '\u{61c}',
        '\u{85}',
        '\u{9b}',
        '\u{e0041}',
    ];

    #[test]
    fn what_nobody_sees_is_shown() {
        for c in UNSEEN {
            let text = format!("ab{c}cd");
            assert_eq!(plain(&text), "ab\u{fffd}cd", "{:x}", u32::from(c));
            let json = serde_json::json!({ "name": text }).to_string();
            let shown = visible(&json);
            assert!(!shown.contains(c) && shown.contains("ab\\u"), "{shown}");
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read["name"], *text, "it is the same text");
        }
        let kept = "\u{1b}[31mrot\u{1b}[0m\t地鼠 ü\n";
        assert_eq!(visible(kept), kept, "colours, line ends and other languages stay");
    }
}
