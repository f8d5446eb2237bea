//! What is shown: styles, tables, times and sizes. Text of others is shown without what would steer the terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Text with a style, which the stream takes away where there are no colours.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if style == PLAIN { text.to_owned() } else { format!("{style}{text}{style:#}") }
}

/// Standard output.
pub(crate) fn out() -> impl Write {
    anstream::AutoStream::auto(io::stdout().lock())
}

/// One line on standard output.
pub(crate) fn say(line: &str) -> io::Result<()> {
    writeln!(out(), "{line}")
}

/// One value as a line of JSON.
pub(crate) fn say_json<T: Serialize>(value: &T) -> io::Result<()> {
    say(&serde_json::to_string(value).map_err(io::Error::other)?)
}

/// A line for whoever sits in front of it, on standard error.
pub(crate) fn note(line: &str) {
    // Without a standard error nobody is there to be told.
    let _ = writeln!(anstream::stderr(), "{}", paint(DIM, line));
}

/// Whether somebody can be asked.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Text of others without control characters.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if is_shown(character) {
            plain.push(character);
        } else {
            let _ = write!(plain, "{}", character.escape_default());
        }
    }
    plain
}

/// Neither a control character nor one that turns the direction of text.
pub(crate) fn is_shown(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table: a row of headings, then rows; the first columns are text, the others numbers.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    /// How many columns are text, and begin on the left.
    texts: usize,
    last_is_text: bool,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cell(pub(crate) String, pub(crate) Style);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), PLAIN)
    }
}

impl Table {
    pub(crate) fn new(texts: usize, headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), texts, last_is_text: false, rows: Vec::new() }
    }

    /// The last column is text too.
    pub(crate) fn last_is_text(mut self) -> Self {
        self.last_is_text = true;
        self
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().map(|Cell(text, style)| Cell(plain(&text), style)).collect());
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count());
            cells.chain([self.headings[column].chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..self.headings.len()).map(width).collect();
        let headings = self.headings.iter().map(|heading| Cell((*heading).to_owned(), DIM)).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (column, Cell(text, style)) in row.iter().enumerate() {
                let gap = widths[column] - text.chars().count();
                let is_last = column + 1 == row.len();
                let is_text = column < self.texts || (is_last && self.last_is_text);
                let (before, after) = if is_text { (0, gap) } else { (gap, 0) };
                line.extend(std::iter::repeat_n(' ', before));
                line.push_str(&paint(*style, text));
                if !is_last {
                    line.extend(std::iter::repeat_n(' ', after + 2));
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A count, with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 message`, `2 messages`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// A time span in its largest unit.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// [`span`], of milliseconds; `-` without any.
pub(crate) fn millis(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| span(Duration::from_millis(millis)))
}

/// How long ago a moment was, given in milliseconds since 1970.
pub(crate) fn ago(moment: Option<u64>) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    millis(moment.map(|moment| (now.as_millis() as u64).saturating_sub(moment)))
}

/// Bytes, in their largest unit.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = format!("{bytes} B");
    let mut size = bytes as f64;
    for unit in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        shown = format!("{size:.1} {unit}");
    }
    shown
}

/// A moment, as RFC 3339 in UTC.
pub(crate) fn moment(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn numbers_are_aligned_on_the_right() {
        let mut table = Table::new(1, &["stream", "kept", "rate"]);
        table.row(["orders.created".into(), "12,345".into(), "0".into()]);
        table.row(["a\u{1b}[2Jb".into(), Cell("7".to_owned(), RED), "1.5".into()]);
        let mut shown = Vec::new();
        table.write(&mut anstream::StripStream::new(&mut shown)).unwrap();
        expect![[r#"
            stream            kept  rate
            orders.created  12,345     0
            a\u{1b}[2Jb          7   1.5
        "#]]
        .assert_eq(&String::from_utf8(shown).unwrap());
    }

    #[test]
    fn quantities_are_short() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([size(5), size(2_048), size(5 << 30)], ["5 B", "2.0 KiB", "5.0 GiB"]);
        let spans = [7, 119_999, 120_000, 7_200_000, 400_000_000].map(|ms| millis(Some(ms)));
        assert_eq!(spans, ["7ms", "119s", "2m", "2h", "4d"]);
        assert_eq!([counted(1, "message"), counted(2, "message")], ["1 message", "2 messages"]);
    }
}
