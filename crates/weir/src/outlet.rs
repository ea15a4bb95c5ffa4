//! The end of every pipeline: which records go out, how many, and what happens
//! when nobody takes them.

use std::collections::VecDeque;
use std::io;

use weir_core::filter::Filter;
use weir_core::record::{Record, SummaryRecord};

use crate::error::Error;
use crate::output::Sink;

/// Filters and counts records, and writes them to a sink.
pub(crate) struct Outlet {
    filter: Filter,
    sink: Box<dyn Sink>,
    /// `--count`: so many and no more.
    count: Option<u64>,
    /// `--last`: so many, at the end.
    last: Option<usize>,
    kept: VecDeque<Record>,
    printed: u64,
    failure: Option<io::Error>,
    /// The reader of the output has gone (`weir observe | head`).
    unread: bool,
}

impl Outlet {
    pub(crate) fn new(filter: Filter, sink: Box<dyn Sink>, count: Option<u64>, last: Option<u32>) -> Self {
        Self {
            filter,
            sink,
            count,
            last: last.and_then(|last| usize::try_from(last).ok()),
            kept: VecDeque::new(),
            printed: 0,
            failure: None,
            unread: false,
        }
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether further records would go nowhere.
    pub(crate) fn is_done(&self) -> bool {
        self.unread || self.failure.is_some() || self.count.is_some_and(|count| self.printed >= count)
    }

    /// A closed pipe is a reader that has enough: no failure, but the end.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.failure.take() {
            None => Ok(()),
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(())
            }
            Some(error) => {
                self.unread = true;
                Err(Error::Output(error))
            }
        }
    }

    /// Writes the record, or keeps it for later, if it is wanted.
    pub(crate) fn record(&mut self, record: Record) {
        if self.is_done() || !self.filter.matches(&record) {
            return;
        }
        self.printed += 1;
        match self.last {
            Some(last) => {
                if self.kept.len() == last {
                    self.kept.pop_front();
                }
                self.kept.push_back(record);
            }
            None => self.write(&record),
        }
    }

    /// Writes what was kept, and the summary; `summary` gets the number of
    /// records before it.
    pub(crate) fn finish(&mut self, summary: impl FnOnce(u64) -> SummaryRecord) {
        let kept = std::mem::take(&mut self.kept);
        for record in &kept {
            self.write(record);
        }
        let records = if self.last.is_some() { kept.len() as u64 } else { self.printed };
        self.write(&Record::Summary(summary(records)));
        if self.failure.is_none() && !self.unread {
            self.failure = self.sink.finish().err();
        }
    }

    pub(crate) fn flush(&mut self) {
        if self.failure.is_none() && !self.unread {
            self.failure = self.sink.flush().err();
        }
    }

    fn write(&mut self, record: &Record) {
        if self.failure.is_none() && !self.unread {
            self.failure = self.sink.write(record).err();
        }
    }
}
