//! Where records go: lines for people, JSON and CSV for programs.

mod cell;
mod compact;
mod csv;
mod flow_cells;
mod json;
mod packet_cells;
mod request_cells;
mod stats_table;
mod summary;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use weir_core::record::Record;

use compact::Compact;
use csv::Csv;
use json::{Array, Lines};
use table::Table;

/// How records are written (`-o`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line a record, local time of day, human units
    #[default]
    Compact,
    /// The same in columns under a header
    Table,
    /// One JSON array of all records
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values under a header; the summary goes to standard error
    Csv,
}

impl Format {
    /// Whether a program reads it, which wants everything, and not a person.
    #[must_use]
    pub fn is_for_programs(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl | Self::Csv)
    }
}

/// Takes records one by one. What it was given reaches its destination at
/// [`Sink::flush`] or [`Sink::finish`] at the latest.
pub trait Sink: Send {
    /// Takes one record.
    ///
    /// # Errors
    /// As the destination's writer: a closed pipe, a full disk.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Sends on what is still held back.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn flush(&mut self) -> io::Result<()>;

    /// Ends the output properly, and sends it on. To be called once, after the
    /// last record, also when the command was interrupted: without it a JSON
    /// array has no end.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn finish(&mut self) -> io::Result<()>;
}

/// A sink that writes to `out`, which needs no buffer of its own. `color` is
/// for terminals, and only for the formats that people read. Times of day are
/// those of the system's time zone.
#[must_use]
pub fn sink(format: Format, color: bool, out: Box<dyn Write + Send>) -> Box<dyn Sink> {
    sink_in(TimeZone::system(), format, color, out)
}

/// As [`sink`], with times of day of that time zone.
pub(crate) fn sink_in(
    zone: TimeZone,
    format: Format,
    color: bool,
    out: Box<dyn Write + Send>,
) -> Box<dyn Sink> {
    let buffered = |out| BufWriter::with_capacity(64 * 1024, out);
    match format {
        Format::Compact => Box::new(Compact::new(zone, color, buffered(out))),
        Format::Table => Box::new(Table::new(zone, color, buffered(out))),
        Format::Json => Box::new(Array::new(out)),
        Format::Jsonl => Box::new(Lines::new(out)),
        Format::Csv => Box::new(Csv::new(buffered(out))),
    }
}

/// What sinks write to, but for those of JSON.
type Out = BufWriter<Box<dyn Write + Send>>;
