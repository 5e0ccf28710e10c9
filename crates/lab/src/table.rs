//! The output of a measurement: tables for people, or one JSON object per row for programs.

use serde_json::{Map, Number, Value};

/// The format of the output.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    json: bool,
}

impl Out {
    /// JSON for programs, or tables for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a line that is no row; with JSON, on standard error.
    pub fn say(self, line: &str) {
        if self.json { eprintln!("{line}") } else { println!("{line}") }
    }

    /// Starts a table with these columns. Its heading is printed at once, each row as soon as it is complete.
    pub fn table<const N: usize>(self, columns: [Column; N]) -> Table<N> {
        let table = Table { out: self, columns };
        if !self.json {
            println!("{}", table.line(Column::heading));
        }
        table
    }
}

/// A column. Its key consists of words with underscores, the unit last, such as `p99_ms`, `bytes_per_s`. JSON uses the
/// key, and the heading is made from it.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// The key, and the width.
    Text(&'static str, usize),
    /// The key, and the digits after the point in a table.
    Number(&'static str, usize),
}

impl Column {
    fn key(self) -> &'static str {
        match self {
            Self::Text(key, _) | Self::Number(key, _) => key,
        }
    }

    fn heading(self) -> String {
        self.key().replace("_per_", "/").replace('_', " ")
    }

    fn aligned(self, text: &str) -> String {
        match self {
            Self::Text(_, width) => format!("{text:<width$}"),
            Self::Number(..) => format!("{text:>width$}", width = self.heading().len().max(8)),
        }
    }
}

/// A value of a row.
#[derive(Clone, Debug)]
pub enum TableCell {
    /// A text, which may also stand in a column of numbers.
    Text(String),
    /// A number in the unit of its column.
    Number(f64),
}

impl From<&str> for TableCell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for TableCell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

macro_rules! counts {
    ($($kind:ty),*) => { $(impl From<$kind> for TableCell {
        fn from(count: $kind) -> Self {
            Self::Number(crate::float(count))
        }
    })* };
}
counts!(u32, u64, usize);

/// See [`Out::table`].
#[derive(Clone, Copy, Debug)]
pub struct Table<const N: usize> {
    out: Out,
    columns: [Column; N],
}

impl<const N: usize> Table<N> {
    /// Prints a row.
    pub fn row(&self, cells: [TableCell; N]) {
        println!("{}", if self.out.json { self.object(cells) } else { self.shown(cells) });
    }

    fn shown(&self, cells: [TableCell; N]) -> String {
        let mut cells = cells.into_iter();
        self.line(|column| match (cells.next(), column) {
            (Some(TableCell::Number(number)), Column::Number(_, digits)) => format!("{number:.digits$}"),
            (Some(TableCell::Number(number)), Column::Text(..)) => number.to_string(),
            (Some(TableCell::Text(text)), _) => text,
            (None, _) => String::new(),
        })
    }

    fn object(&self, cells: [TableCell; N]) -> String {
        let value = |cell| match cell {
            TableCell::Text(text) => Value::from(text),
            // A whole number gets no fraction.
            TableCell::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                number.to_string().parse().map_or(Value::Null, Value::Number)
            }
            TableCell::Number(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        };
        let pairs = self.columns.iter().zip(cells).map(|(column, cell)| (column.key().into(), value(cell)));
        Value::Object(pairs.collect::<Map<_, _>>()).to_string()
    }

    fn line(&self, mut text: impl FnMut(Column) -> String) -> String {
        let cells = self.columns.iter().map(|column| column.aligned(&text(*column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: bool) -> Table<3> {
        let columns =
            [Column::Text("call", 6), Column::Number("bytes_per_s", 0), Column::Number("p99_ms", 2)];
        Out::new(json).table(columns)
    }

    #[test]
    fn a_row_is_aligned_under_its_heading_and_an_object_with_units_in_its_keys() {
        let cells = || ["Get".into(), 1234.0.into(), 0.126.into()];
        let people = table(false);
        assert_eq!(people.line(Column::heading), "call     bytes/s    p99 ms");
        assert_eq!(people.shown(cells()), "Get         1234      0.13");
        assert_eq!(table(true).object(cells()), r#"{"call":"Get","bytes_per_s":1234,"p99_ms":0.126}"#);
    }

    #[test]
    fn what_is_no_number_is_null() {
        let cells = ["Get".into(), f64::NAN.into(), "-".into()];
        assert_eq!(table(true).object(cells.clone()), r#"{"call":"Get","bytes_per_s":null,"p99_ms":"-"}"#);
        assert_eq!(table(false).shown(cells), "Get          NaN         -");
    }
}
