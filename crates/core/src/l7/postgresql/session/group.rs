//! What is answered by one `ReadyForQuery`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::l7::postgresql::statement::Statement;
use crate::l7::postgresql::wire;
use crate::l7::{Attribute, Exchange, Gap, Part};
use crate::record::Capture;

/// A simple query, or steps up to a `Sync`.
#[derive(Default)]
pub(super) struct Group {
    /// Those that are not answered.
    pub(super) entries: VecDeque<Entry>,
    /// The message that ends it on the client's side, if it has come.
    pub(super) sync: Option<Part>,
    /// A step has failed.
    pub(super) failed: bool,
    /// An [`Entry::Whole`] ends it.
    pub(super) is_whole: bool,
    /// Why it is not certain that these are its answers, if so.
    pub(super) doubt: Capture,
}

/// What has an answer of its own.
pub(super) enum Entry {
    Parse(Work),
    Bind(Work),
    Describe(Work),
    Close,
    Execute(Work),
    /// Answered up to `ReadyForQuery`.
    Whole(Work),
    /// The client's data for a `COPY`; has none.
    CopyData,
}

/// Something that is done with a statement, and how it went.
pub(super) struct Work {
    pub(super) statement: Arc<Statement>,
    pub(super) request: Option<Part>,
    pub(super) response: Option<Part>,
    pub(super) rows: u64,
    pub(super) returns_rows: bool,
    /// The server says that it did the opposite of `COMMIT`.
    pub(super) rolled_back: bool,
    /// Rows that were changed, as the server says.
    pub(super) affected: Option<u64>,
    pub(super) outcome: Option<Result<&'static str, Box<wire::Error>>>,
    pub(super) capture: Capture,
}

impl Group {
    pub(super) fn whole(work: Work) -> Self {
        let sync = work.request;
        Self { entries: VecDeque::from([Entry::Whole(work)]), sync, is_whole: true, ..Self::default() }
    }

    /// It is not certain that these are its answers.
    pub(super) fn doubt(&mut self, why: Capture) {
        self.doubt = why;
        self.entries.iter_mut().for_each(|entry| entry.doubt(why));
    }

    /// Passes over copied data that nobody asked for: the server does so too.
    /// Tells how many entries that was.
    pub(super) fn skip_copied(&mut self) -> usize {
        let mut count = 0;
        while matches!(self.entries.front(), Some(Entry::CopyData)) {
            self.entries.pop_front();
            count += 1;
        }
        count
    }
}

impl Entry {
    pub(super) fn work_mut(&mut self) -> Option<&mut Work> {
        match self {
            Self::Parse(work)
            | Self::Bind(work)
            | Self::Describe(work)
            | Self::Execute(work)
            | Self::Whole(work) => Some(work),
            Self::Close | Self::CopyData => None,
        }
    }

    /// It is not certain which answers are its own.
    pub(super) fn doubt(&mut self, why: Capture) {
        if let Some(work) = self.work_mut() {
            work.capture = work.capture.max(why);
        }
    }

    /// What is told of it if it has no answer.
    pub(super) fn execution(self) -> Option<Work> {
        match self {
            Self::Execute(work) | Self::Whole(work) => Some(work),
            Self::Parse(_) | Self::Bind(_) | Self::Describe(_) | Self::Close | Self::CopyData => None,
        }
    }
}

impl Work {
    pub(super) fn new(statement: Arc<Statement>, request: Part, gap: Option<Gap>) -> Self {
        let mut work = Self {
            statement,
            request: Some(request),
            response: None,
            rows: 0,
            returns_rows: false,
            rolled_back: false,
            affected: None,
            outcome: None,
            capture: Capture::Complete,
        };
        work.note(gap);
        work
    }

    pub(super) fn without_request(self) -> Self {
        Self { request: None, ..self }
    }

    pub(super) fn note(&mut self, gap: Option<Gap>) {
        if let Some(gap) = gap {
            let mut exchange = Exchange { capture: self.capture, ..Exchange::default() };
            exchange.note_gap(gap);
            self.capture = exchange.capture;
        }
    }

    /// What was done, in the server's words: `INSERT 0 5`, `SELECT 1`.
    pub(super) fn tag(&mut self, tag: &[u8]) {
        self.rolled_back |= tag == b"ROLLBACK";
        let mut words = tag.split(|byte| *byte == b' ');
        let command = words.next().unwrap_or_default();
        let number: Option<u64> =
            words.next_back().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let Some(number) = number else { return };
        match command {
            b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE" | b"COPY" => {
                *self.affected.get_or_insert(0) += number;
            }
            b"SELECT" | b"FETCH" => self.returns_rows |= number == 0,
            _ => {}
        }
    }

    pub(super) fn sizes(&self, exchange: &mut Exchange) {
        if self.returns_rows {
            exchange.set(Attribute::DbResponseReturnedRows, self.rows);
        }
        if let Some(affected) = self.affected {
            exchange.set(Attribute::DbAffectedRows, affected);
        }
    }
}
