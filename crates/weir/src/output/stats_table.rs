//! Sums of requests in columns under a header.

use std::io::{self, Write};

use weir_core::record::StatsRecord;
use weir_core::text;

use super::Out;
use super::cell::{BAD, BOLD, Cell, Columns, DIM, WARN};

/// The last one is named after what the sums are by.
const NAMES: [&str; 10] =
    ["SERVICE", "PROTOCOL", "REQUESTS", "RATE", "ERRORS", "P50", "P95", "P99", "MAX", "NO ANSWER"];

/// Sums come all at once, at the end: they wait for each other, so that all
/// columns are as wide as they must be from the header on.
pub(super) struct StatsTable {
    color: bool,
    rows: Vec<[Cell; 11]>,
    last_name: String,
}

impl StatsTable {
    pub(super) fn new(color: bool) -> Self {
        Self { color, rows: Vec::new(), last_name: String::new() }
    }

    pub(super) fn push(&mut self, stats: &StatsRecord) {
        self.last_name = if stats.by == "service" { String::new() } else { stats.by.to_uppercase() };
        self.rows.push(row(&|| Cell::new(self.color), stats));
    }

    /// Writes what was pushed since the last time.
    pub(super) fn write(&mut self, out: &mut Out) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let Some(first) = rows.first() else { return Ok(()) };
        let names = NAMES.into_iter().chain([self.last_name.as_str()]);
        let mut header: Vec<Cell> = names.map(|name| Cell::new(self.color).styled(BOLD, name)).collect();
        for (name, cell) in header.iter_mut().zip(first) {
            name.align_as(cell);
        }
        let mut columns = Columns::new(&[0; 10], 1);
        columns.fit(&header);
        for row in &rows {
            columns.fit(row);
        }
        writeln!(out, "{}", columns.line(&header))?;
        rows.iter().try_for_each(|row| writeln!(out, "{}", columns.line(row)))
    }
}

fn row(cell: &impl Fn() -> Cell, stats: &StatsRecord) -> [Cell; 11] {
    let latency = |us: Option<u64>| match us {
        Some(us) => cell().right().plain(&text::duration_us(us)),
        None => cell().right().styled(DIM, "-"),
    };
    let count = |style, count: u64| match count {
        0 => cell().right().styled(DIM, "0"),
        count => cell().right().styled(style, &text::count(count)),
    };
    let service = match (&stats.service, stats.other) {
        (Some(service), _) => cell().plain(service),
        (None, true) => cell().styled(DIM, "other"),
        (None, false) => cell().styled(DIM, "-"),
    };
    [
        service,
        cell().plain(&stats.protocol.unwrap_or("-").to_uppercase()),
        cell().right().plain(&text::count(stats.requests)),
        cell().right().plain(&stats.rate_per_s.map_or_else(|| "-".to_owned(), rate)),
        count(BAD, stats.errors),
        latency(stats.p50_us),
        latency(stats.p95_us),
        latency(stats.p99_us),
        latency(stats.max_us),
        count(WARN, stats.no_response),
        match &stats.group {
            Some(group) => cell().plain(group),
            None if stats.by == "service" || stats.other => cell(),
            None => cell().styled(DIM, "-"),
        },
    ]
}

/// With three digits that matter: `0.25/s`, `51.0/s`, `1,204/s`.
fn rate(per_s: f64) -> String {
    match per_s {
        ..10.0 => format!("{per_s:.2}/s"),
        10.0..100.0 => format!("{per_s:.1}/s"),
        // Float to integer saturates, and turns NaN into 0: both are meant.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        _ => format!("{}/s", text::count(per_s.round() as u64)),
    }
}
