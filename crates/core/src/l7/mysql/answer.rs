//! How an answer goes on, packet by packet.
//!
//! Whether EOF packets end lists of columns was agreed upon at the beginning; it
//! shows in the packets' lengths too, so that only the end of the answer to a
//! preparation depends on having seen that.

use smol_str::SmolStr;

use super::command::Kind;
use super::wire::{self, Done, Failure, Reader};

/// As much as is looked at of what may say how it went.
const END_BYTES_MAX: usize = 4 * 1024;
/// The number of columns, and whether they are told.
const COUNT_BYTES_MAX: usize = 10;
/// What a preparation's answer begins with.
const PREPARED_BYTES: usize = 12;

/// What was agreed upon that matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    pub(super) tracks_state: bool,
    /// Whether EOF packets end lists of columns; `None`: not known.
    pub(super) sends_eof: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The first packet of the answer or of a further result.
    First,
    /// Parameters of a statement, then its columns.
    Parameters {
        left: u64,
        columns: u64,
    },
    ParametersEnd {
        columns: u64,
    },
    /// Columns of a statement.
    Prepared {
        left: u64,
    },
    PreparedEnd,
    /// Columns of a result.
    Columns {
        left: u64,
    },
    ColumnsEnd,
    Rows,
}

/// What has come of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    kind: Kind,
    expect: Expect,
    pub(super) rows: u64,
    pub(super) has_rows: bool,
    pub(super) affected: Option<u64>,
    pub(super) warnings: u64,
    /// Flags, of the last packet that had some.
    pub(super) status: Option<u16>,
    /// The number of the statement that was prepared, and of its parameters.
    pub(super) statement: Option<(u32, u16)>,
    pub(super) schema: Option<SmolStr>,
    pub(super) failure: Option<Failure>,
    /// The server wants a file: the numbers of packets jump.
    pub(super) wants_file: bool,
}

/// Where an answer stands after a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Whole,
    /// This is not an answer of its kind.
    Broken,
}

impl Answer {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            expect: match kind {
                Kind::Rows => Expect::Rows,
                _ => Expect::First,
            },
            rows: 0,
            has_rows: kind == Kind::Rows,
            affected: None,
            warnings: 0,
            status: None,
            statement: None,
            schema: None,
            failure: None,
            wants_file: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether what comes next is a row, or the end of all rows.
    pub(super) fn is_in_rows(&self) -> bool {
        self.expect == Expect::Rows
    }

    /// Whether, among rows, a packet that begins so is one, however long it is.
    pub(super) fn begins_row(first: u8) -> bool {
        first < 0xfe
    }

    /// How much is looked at of a packet that begins with this byte. Nothing
    /// more of rows, columns and challenges.
    pub(super) fn bytes_seen(&self, first: u8) -> usize {
        match (self.expect, first) {
            (_, 0xff) | (Expect::First, 0x00) => END_BYTES_MAX,
            _ if matches!(self.kind, Kind::Login | Kind::Text) => 1,
            (_, 0xfe) => END_BYTES_MAX,
            (Expect::First, _) => COUNT_BYTES_MAX,
            _ => 1,
        }
    }

    /// Takes a packet of `length` bytes, of which `body` is seen.
    pub(super) fn packet(&mut self, length: usize, body: &[u8], agreed: Agreed) -> Progress {
        let Some(first) = body.first().copied() else {
            // Nobody sends an empty packet but for the end of a longer one.
            return if self.kind == Kind::Text { Progress::Whole } else { Progress::Broken };
        };
        if first == 0xff {
            self.failure = wire::failure(body);
            return if self.failure.is_some() { Progress::Whole } else { Progress::More };
        }
        match self.expect {
            Expect::First => self.first(first, length, body, agreed),
            Expect::Parameters { left, columns } => {
                let left = left.saturating_sub(1);
                self.expect = if left > 0 {
                    Expect::Parameters { left, columns }
                } else {
                    Expect::ParametersEnd { columns }
                };
                self.end_definitions(agreed)
            }
            Expect::ParametersEnd { columns } => {
                self.expect = columns_of_statement(columns);
                if wire::is_eof(length, first) {
                    return if columns == 0 { Progress::Whole } else { Progress::More };
                }
                // There are none: this is the first column.
                self.packet(length, body, agreed)
            }
            Expect::Prepared { left } => {
                self.expect = columns_of_statement(left.saturating_sub(1));
                self.end_definitions(agreed)
            }
            Expect::PreparedEnd => {
                if wire::is_eof(length, first) {
                    Progress::Whole
                } else {
                    Progress::Broken
                }
            }
            Expect::Columns { left } => {
                self.expect = if left > 1 { Expect::Columns { left: left - 1 } } else { Expect::ColumnsEnd };
                Progress::More
            }
            Expect::ColumnsEnd if wire::is_eof(length, first) => {
                let done = wire::done(length, body, agreed.tracks_state);
                let waits =
                    self.kind == Kind::Results { cursor: true } && done.status & wire::CURSOR_EXISTS != 0;
                self.expect = Expect::Rows;
                if waits {
                    return self.done(done);
                }
                Progress::More
            }
            Expect::ColumnsEnd | Expect::Rows => {
                self.expect = Expect::Rows;
                if first == 0xfe && length < wire::PACKET_BYTES_MAX {
                    let progress = self.done(wire::done(length, body, agreed.tracks_state));
                    self.expect = Expect::First;
                    return progress;
                }
                self.rows += 1; // at most one for each packet
                Progress::More
            }
        }
    }

    fn first(&mut self, first: u8, length: usize, body: &[u8], agreed: Agreed) -> Progress {
        let done = || wire::done(length, body, agreed.tracks_state);
        match (self.kind, first) {
            (Kind::Login, 0x00) => self.done(done()),
            (Kind::Login, _) => Progress::More,
            (Kind::Text | Kind::Stream, _) => Progress::Whole,
            (Kind::Prepared, 0x00) => self.prepared(length, body, agreed),
            (Kind::Unknown, 0x00) if length == PREPARED_BYTES && body.get(9) == Some(&0) => {
                self.prepared(length, body, agreed)
            }
            (Kind::Plain | Kind::Results { .. } | Kind::Unknown, 0x00 | 0xfe) => self.done(done()),
            (Kind::Columns, 0xfe) => self.done(done()),
            (Kind::Columns, _) => Progress::More,
            (Kind::Results { .. } | Kind::Unknown, 0xfb) => {
                self.wants_file = true;
                Progress::More
            }
            (Kind::Results { .. } | Kind::Unknown, _) => self.columns(length, body),
            (Kind::Prepared | Kind::Plain | Kind::Rows, _) => Progress::Broken,
        }
    }

    /// How many columns a result has; that they are left out may stand after it.
    fn columns(&mut self, length: usize, body: &[u8]) -> Progress {
        let mut reader = Reader::new(body);
        let count = reader.number();
        let size = body.len() - reader.rest.len();
        let told = match length.checked_sub(size) {
            Some(0) => true,
            Some(1) => reader.byte() != Some(0),
            _ => return Progress::Broken,
        };
        match count {
            Some(left @ 1..=0xffff) => {
                self.has_rows = true;
                self.expect = if told { Expect::Columns { left } } else { Expect::ColumnsEnd };
                Progress::More
            }
            _ => Progress::Broken,
        }
    }

    fn prepared(&mut self, length: usize, body: &[u8], agreed: Agreed) -> Progress {
        let mut reader = Reader::new(body.get(1..).unwrap_or_default());
        let (Some(number), Some(columns), Some(parameters)) = (reader.long(), reader.short(), reader.short())
        else {
            return Progress::Broken;
        };
        let _filler = reader.byte();
        self.warnings += u64::from(reader.short().unwrap_or_default());
        self.statement = Some((number, parameters));
        let left_out = length > PREPARED_BYTES && reader.byte() == Some(0);
        if left_out || columns == 0 && parameters == 0 {
            return Progress::Whole;
        }
        let columns = u64::from(columns);
        self.expect = match u64::from(parameters) {
            0 => columns_of_statement(columns),
            left => Expect::Parameters { left, columns },
        };
        self.end_definitions(agreed)
    }

    /// After a parameter or column of a statement: whether that was all.
    fn end_definitions(&mut self, agreed: Agreed) -> Progress {
        match (self.expect, agreed.sends_eof) {
            (Expect::ParametersEnd { columns: 0 } | Expect::PreparedEnd, Some(false) | None) => {
                Progress::Whole
            }
            _ => Progress::More,
        }
    }

    /// The end of a result, after which another one may come.
    fn done(&mut self, done: Done) -> Progress {
        // What ends rows counts them in no version.
        if let Some(affected) = done.affected.filter(|_| self.expect == Expect::First) {
            let sum = self.affected.unwrap_or(0);
            self.affected = Some(sum.saturating_add(affected));
        }
        self.warnings += done.warnings;
        self.status = Some(done.status);
        self.schema = done.schema.or(self.schema.take());
        let goes_on = done.status & wire::MORE_RESULTS != 0 && matches!(self.kind, Kind::Results { .. });
        if goes_on { Progress::More } else { Progress::Whole }
    }
}

/// So many columns of a statement are still to come.
fn columns_of_statement(left: u64) -> Expect {
    if left > 0 { Expect::Prepared { left } } else { Expect::PreparedEnd }
}
