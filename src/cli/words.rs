//! How people read numbers: counts and times; and texts of others.

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

/// A text that someone else wrote, as one line that cannot steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
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
    }
}
