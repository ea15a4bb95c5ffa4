//! Records as comma-separated values, for spreadsheets and for programs that
//! want rows. The columns are documented in `docs/records.md`, against which a
//! test holds those here.

use std::io;

use csv::{Writer, WriterBuilder};
use serde_json::Value;
use weir_core::record::Record;
use weir_core::text::escape;

use super::{Out, Sink, json, summary};

/// What a cell must not begin with: spreadsheets take it for a formula and
/// calculate, also in a file that somebody else's request has filled.
const FORMULA_STARTS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Fields of an end, each a column.
const END: [&str; 7] = ["ip", "port", "container", "container_id", "image", "service", "name"];

const FLOW: &[&str] = &[
    "kind",
    "time",
    "id",
    "event",
    "client",
    "server",
    "protocol",
    "icmp_type",
    "state",
    "verdict",
    "rule",
    "translated",
    "midstream",
    "start",
    "duration_ms",
    "sent_packets",
    "sent_bytes",
    "received_packets",
    "received_bytes",
    "sent_delivered_packets",
    "received_delivered_packets",
    "rtt_us",
    "retransmits",
    "resets",
    "zero_windows",
    "icmp_errors",
    "tcp_flags",
    "interfaces",
];

const PACKET: &[&str] = &[
    "kind",
    "time",
    "source",
    "destination",
    "protocol",
    "icmp_type",
    "interface",
    "direction",
    "length_bytes",
    "payload_bytes",
    "tcp_flags",
    "tcp_seq",
    "tcp_ack",
    "tcp_window",
];

const REQUEST: &[&str] = &[
    "kind",
    "time",
    "flow",
    "client",
    "server",
    "rule",
    "translated",
    "protocol",
    "operation",
    "target",
    "status",
    "ok",
    "error",
    "request_bytes",
    "response_bytes",
    "latency_us",
    "total_us",
    "matched",
    "capture",
    "attributes",
    "revealed",
];

const STATS: &[&str] = &[
    "kind",
    "time",
    "by",
    "service",
    "protocol",
    "group",
    "other",
    "requests",
    "rate_per_s",
    "errors",
    "no_response",
    "no_request",
    "p50_us",
    "p95_us",
    "p99_us",
    "max_us",
    "request_bytes",
    "response_bytes",
];

/// Rows under a header.
pub(super) struct Csv {
    rows: Writer<Out>,
    /// The columns of the header that was written last.
    header: Option<&'static [&'static str]>,
}

impl Csv {
    pub(super) fn new(out: Out) -> Self {
        // A header of another kind has other columns.
        Self { rows: WriterBuilder::new().flexible(true).from_writer(out), header: None }
    }

    fn row(&mut self, fields: &'static [&'static str], record: &Record) -> io::Result<()> {
        if self.header != Some(fields) {
            self.rows.write_record(columns(fields)).map_err(cause)?;
            self.header = Some(fields);
        }
        let value = serde_json::to_value(record)?;
        for field in fields {
            let value = value.get(field);
            if is_end(field) {
                for part in END {
                    self.cell(value.and_then(|end| end.get(part)))?;
                }
            } else {
                self.cell(value)?;
            }
        }
        self.rows.write_record(None::<&[u8]>).map_err(cause)
    }

    fn cell(&mut self, value: Option<&Value>) -> io::Result<()> {
        let text = match value {
            None => String::new(),
            Some(Value::String(text)) => harmless(text),
            Some(value) => json::text(value)?,
        };
        self.rows.write_field(text).map_err(cause)
    }
}

impl Sink for Csv {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Flow(_) => self.row(FLOW, record),
            Record::Packet(_) => self.row(PACKET, record),
            Record::Request(_) => self.row(REQUEST, record),
            Record::Stats(_) => self.row(STATS, record),
            // It is no row like the others; but losses are never kept secret.
            Record::Summary(record) => {
                self.rows.flush()?;
                summary::write(&mut io::stderr().lock(), false, record)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.rows.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.rows.flush()
    }
}

/// As the destination said it: a closed pipe stays one.
fn cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn is_end(field: &str) -> bool {
    matches!(field, "client" | "server" | "source" | "destination")
}

/// The header for these fields.
fn columns(fields: &[&str]) -> Vec<String> {
    let mut columns = Vec::new();
    for field in fields {
        if is_end(field) {
            columns.extend(END.iter().map(|part| format!("{field}_{part}")));
        } else {
            columns.push((*field).to_owned());
        }
    }
    columns
}

/// The text without what a terminal would obey, and not a formula.
fn harmless(text: &str) -> String {
    let text = escape(text);
    if text.starts_with(FORMULA_STARTS) { format!("'{text}") } else { text.into_owned() }
}
