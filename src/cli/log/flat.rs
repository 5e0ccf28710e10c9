//! A line of the log as one flat JSON object: the time, the level, the message, whose log it is, and the event's own fields.
//! Texts stay texts, numbers numbers; a list of plain words is a list.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::wall_clock;

/// Makes such lines for one agent.
#[derive(Clone, Debug)]
pub(super) struct Flat {
    /// The agent's name.
    pub(super) agent: String,
}

impl Flat {
    /// A line that is no event.
    pub(super) fn line(&self, level: &str, message: &str) -> String {
        Value::Object(self.head(level, Some(message))).to_string()
    }

    fn head(&self, level: &str, message: Option<&str>) -> Map<String, Value> {
        let at = wall_clock::spell(wall_clock::now());
        let mut fields = Map::new();
        fields.insert("timestamp".into(), at.into());
        fields.insert("level".into(), level.into());
        fields.extend(message.map(|message| ("message".to_owned(), message.into())));
        fields.insert("agent".into(), self.agent.clone().into());
        fields.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        fields
    }
}

impl<S, N> FormatEvent<S, N> for Flat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let message = fields.0.remove("message");
        let mut line = self.head(event.metadata().level().as_str(), message.as_ref().and_then(Value::as_str));
        line.extend(fields.0);
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match words(&text) {
            Some(list) => self.put(field, list),
            None => self.put(field, text),
        }
    }
}

/// The items of `[a, b]` and `{a, b}`, if they are plain words.
fn words(text: &str) -> Option<Vec<String>> {
    let inner = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let list = inner('[', ']').or_else(|| inner('{', '}'))?;
    if list.is_empty() {
        return Some(Vec::new());
    }
    let words: Vec<String> = list.split(", ").map(|word| word.trim_matches('"').to_owned()).collect();
    let is_plain =
        |word: &String| !word.is_empty() && !word.contains(['"', '[', ']', '{', '}', ' ', '(', ')']);
    words.iter().all(is_plain).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_words_is_a_list_and_all_else_is_a_text() {
        assert_eq!(words("[94582df7, 53d3bb53]"), Some(vec!["94582df7".into(), "53d3bb53".into()]));
        assert_eq!(words("{\"10.0.0.1:80\"}"), Some(vec!["10.0.0.1:80".into()]));
        assert_eq!(words("[]"), Some(vec![]));
        for text in ["text", "[a, Some(1)]", "Point { x: 1 }", "[\"two words\"]", "[a"] {
            assert_eq!(words(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_event_is_a_line_of_the_same_kind() {
        let line: Value = serde_json::from_str(&Flat { agent: "a".into() }.line("ERROR", "x\ny")).unwrap();
        let told = [&line["level"], &line["message"], &line["agent"]];
        assert_eq!(told, ["ERROR", "x\ny", "a"]);
        assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')));
    }
}
