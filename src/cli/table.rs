//! What people read: aligned columns without borders, whole rows in a colour, and standard output that may be a
//! terminal, a file or gone. Knows nothing of what is in the columns.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table as Layout, presets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::words::{plain, visible};

/// It works.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Somebody should look at it.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// It does not work.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// Of less interest.
pub(super) const DIM: Style = Style::new().dimmed();
/// A title.
pub(super) const TITLE: Style = Style::new().bold();
/// Nothing special.
pub(super) const USUAL: Style = Style::new();

/// A text in a style, for [`print()`].
pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Rows of texts. No text is ever broken.
pub(super) struct TextTable {
    titles: Vec<&'static str>,
    numbers: Vec<usize>,
    rows: Vec<(Style, Vec<String>)>,
}

impl TextTable {
    /// Columns with these titles.
    pub(super) fn new(titles: &[&'static str]) -> Self {
        Self { titles: titles.into(), numbers: Vec::new(), rows: Vec::new() }
    }

    /// Which columns have numbers: these are aligned at the right.
    pub(super) fn with_numbers(mut self, columns: &[usize]) -> Self {
        self.numbers = columns.into();
        self
    }

    /// One more row, with a text for each column.
    pub(super) fn row(&mut self, style: Style, cells: &[&str]) {
        self.rows.push((style, cells.iter().map(|cell| plain(cell)).collect()));
    }

    /// A line for the titles and for every row.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut layout = Layout::new();
        layout.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        layout.set_header(&self.titles).add_rows(self.rows.iter().map(|(_, cells)| cells));
        for (at, column) in layout.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.numbers.contains(&at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let styles = std::iter::once(TITLE).chain(self.rows.iter().map(|(style, _)| *style));
        let lines = layout.lines().zip(styles);
        lines.map(|(line, style)| painted(style, line.trim_end())).collect()
    }

    /// All lines as one text.
    pub(super) fn text(&self) -> String {
        self.lines().into_iter().map(|line| line + "\n").collect()
    }
}

/// Prints a text, in colours only on a terminal whose user wants them. A reader may leave before the end.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    unless_closed(stdout.write_all(visible(text).as_bytes()).and_then(|()| stdout.flush()))
}

/// Empties the terminal.
pub(super) fn clear() -> io::Result<()> {
    print("\u{1b}[H\u{1b}[2J\u{1b}[3J")
}

/// Whether somebody watches standard output.
pub(super) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// Waits until nobody reads standard output any more, or for so long. Files and terminals always have a reader.
pub(super) fn is_left_within(most: Option<Duration>) -> bool {
    let stdout = io::stdout();
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    loop {
        // No event is asked for, so only a hangup or an error ends this early: they are always reported.
        match poll(&mut [PollFd::new(&stdout, PollFlags::empty())], most.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            found => return found != Ok(0),
        }
    }
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text looks like without its colours.
    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_are_aligned_and_numbers_end_at_one_place() {
        let mut table = TextTable::new(&["NAME", "RECORDS", "ADDRESS"]).with_numbers(&[1]);
        table.row(USUAL, &["a", "9", "10.0.0.1:8002"]);
        table.row(USUAL, &["böses", "1234", ""]);
        let want = "\
NAME   RECORDS  ADDRESS
a            9  10.0.0.1:8002
böses     1234
";
        assert_eq!(bare(&table.text()), want);
    }

    #[test]
    fn a_row_stays_one_line_whatever_is_in_it() {
        let mut table = TextTable::new(&["TUNNEL"]);
        table.row(USUAL, &[&"x".repeat(300)]);
        table.row(USUAL, &["a\nb"]);
        assert_eq!(bare(&table.text()), format!("TUNNEL\n{}\na\u{fffd}b\n", "x".repeat(300)));
    }

    #[test]
    fn a_row_has_its_colour_from_end_to_end() {
        let mut table = TextTable::new(&["A", "B"]);
        table.row(BAD, &["a", "b"]);
        assert_eq!(table.lines()[1], format!("{BAD}a  b{BAD:#}"));
    }
}
