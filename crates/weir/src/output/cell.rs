//! Cells and columns of text.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use weir_core::endpoint::{Endpoint, Identity};
use weir_core::record::Translated;
use weir_core::text::escape;

/// Containers.
const NAME: Style = AnsiColor::Cyan.on_default();
/// Ports.
const PORT: Style = AnsiColor::Yellow.on_default();
/// As it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// Broken or missing.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// Not worth a look yet.
pub(super) const DIM: Style = Style::new().dimmed();
/// Headers.
pub(super) const BOLD: Style = Style::new().bold();

/// A wider cell moves the rest of its own line, not the column for ever.
/// Holds `world/[IPv6]:port`.
const COLUMN_WIDTH_MAX: usize = 60;

/// Text in one column, perhaps coloured. Whatever is put in is escaped for the
/// terminal, so nothing from the wire gets around that.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    color: bool,
    painted: String,
    /// In characters: nearly all names are ASCII, and those that are wider or
    /// narrower than that on a terminal only stand out of their column.
    width: usize,
    /// Spaces to the cell on the left.
    gap: usize,
    align_right: bool,
}

impl Cell {
    pub(super) fn new(color: bool) -> Self {
        Self { color, painted: String::new(), width: 0, gap: 2, align_right: false }
    }

    pub(super) fn gap(mut self, gap: usize) -> Self {
        self.gap = gap;
        self
    }

    pub(super) fn right(mut self) -> Self {
        self.align_right = true;
        self
    }

    /// On the side of its column where that cell stands.
    pub(super) fn align_as(&mut self, other: &Self) {
        self.align_right = other.align_right;
    }

    pub(super) fn plain(self, text: &str) -> Self {
        self.styled(Style::new(), text)
    }

    pub(super) fn styled(mut self, style: Style, text: &str) -> Self {
        let text = escape(text);
        self.width += text.chars().count();
        if self.color {
            // Writing to a String cannot fail.
            let _ = write!(self.painted, "{style}{text}{style:#}");
        } else {
            self.painted.push_str(&text);
        }
        self
    }

    /// Two spaces between parts of one cell, none before the first.
    pub(super) fn part(self, style: Style, text: &str) -> Self {
        let cell = if self.is_empty() { self } else { self.plain("  ") };
        cell.styled(style, text)
    }

    /// Time of day.
    pub(super) fn time(self, zone: &TimeZone, time: Timestamp, digits: usize) -> Self {
        let local = zone.to_datetime(time);
        let nanoseconds = format!("{:09}", local.subsec_nanosecond());
        let fraction = nanoseconds.get(..digits).unwrap_or(&nanoseconds);
        self.plain(&format!("{:02}:{:02}:{:02}.{fraction}", local.hour(), local.minute(), local.second()))
    }

    /// `shop/web:43122`.
    pub(super) fn endpoint(self, end: &Endpoint) -> Self {
        let whole = end.to_string();
        let port = end.port.map(|port| format!(":{port}")).unwrap_or_default();
        let name = whole.strip_suffix(port.as_str()).unwrap_or(&whole);
        let style = match end.identity {
            Identity::Container(_) => NAME,
            Identity::Host | Identity::World(_) | Identity::Virtual | Identity::Group => Style::new(),
        };
        let cell = self.styled(style, name);
        if port.is_empty() { cell } else { cell.plain(":").styled(PORT, port.trim_start_matches(':')) }
    }

    /// Who was asked and, if another answers, who that is: `web:8080 ⇒ api:80`; with
    /// whom that one takes for its client, where that is somebody else.
    pub(super) fn server(self, asking: &Endpoint, asked: &Endpoint, translated: Option<&Translated>) -> Self {
        let cell = self.endpoint(asked);
        let Some(Translated { client, server }) = translated else { return cell };
        let cell = cell.styled(WARN, " ⇒ ");
        match (client.ip, client.port) == (asking.ip, asking.port) {
            true => cell.endpoint(server),
            false => cell.plain(&client.ip.to_string()).port(client.port).plain(" → ").endpoint(server),
        }
    }

    /// `:80`; nothing where there is no port.
    pub(super) fn port(self, port: Option<u16>) -> Self {
        match port {
            Some(port) => self.plain(":").styled(PORT, &port.to_string()),
            None => self,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.width == 0
    }

    /// As it is, outside of any column.
    pub(super) fn into_line(self) -> String {
        self.painted
    }
}

/// Widths that grow with what is shown, so that lines stand under each other
/// and nothing is ever cut.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    widths: Vec<usize>,
    /// By which multiple columns grow.
    step: usize,
}

impl Columns {
    pub(super) fn new(widths: &[usize], step: usize) -> Self {
        Self { widths: widths.to_vec(), step }
    }

    /// Makes room for these cells. Says whether a column had to grow.
    pub(super) fn fit(&mut self, cells: &[Cell]) -> bool {
        let mut grew = false;
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            if cell.width > *width && cell.width <= COLUMN_WIDTH_MAX {
                *width = cell.width.next_multiple_of(self.step);
                grew = true;
            }
        }
        grew
    }

    /// The cells in their columns, without spaces at the end and without a
    /// newline. Cells beyond the last column are as wide as they are.
    pub(super) fn line(&self, cells: &[Cell]) -> String {
        let mut line = String::with_capacity(160);
        let mut spaces = 0;
        let widths = self.widths.iter().copied().chain(std::iter::repeat(0));
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            // A column in which nothing ever stood is none.
            if cell.is_empty() && width == 0 {
                continue;
            }
            let padding = width.saturating_sub(cell.width);
            spaces += if index == 0 { 0 } else { cell.gap };
            if cell.is_empty() {
                spaces += padding;
                continue;
            }
            let (before, after) = if cell.align_right { (padding, 0) } else { (0, padding) };
            line.extend(std::iter::repeat_n(' ', spaces + before));
            line.push_str(&cell.painted);
            spaces = after;
        }
        line
    }
}
