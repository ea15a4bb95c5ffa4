//! The end of every pipeline: which records go out, how many, and what happens
//! when nobody takes them.

use std::collections::VecDeque;
use std::io;

use weir_core::filter::Filter;
use weir_core::record::{Record, SummaryRecord};
use weir_core::stats::Stats;

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
    /// Requests are summed up, and not written.
    stats: Option<Stats>,
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
            stats: None,
            printed: 0,
            failure: None,
            unread: false,
        }
    }

    /// The same, but requests are summed up: their sums are what is written, at
    /// the end.
    pub(crate) fn summing_up(self, stats: Stats) -> Self {
        Self { stats: Some(stats), ..self }
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
        match (&mut self.stats, self.last) {
            (Some(stats), _) => {
                if let Record::Request(request) = &record {
                    stats.add(request);
                }
            }
            (None, Some(last)) => {
                if self.kept.len() == last {
                    self.kept.pop_front();
                }
                self.kept.push_back(record);
            }
            (None, None) => self.write(&record),
        }
    }

    /// Writes what was kept or summed up, and the summary; `summary` gets the number of
    /// records before it.
    pub(crate) fn finish(&mut self, summary: impl FnOnce(u64) -> SummaryRecord) {
        let kept = std::mem::take(&mut self.kept);
        for record in &kept {
            self.write(record);
        }
        let stats = self.stats.take();
        let records = match &stats {
            Some(stats) => stats.len() as u64,
            None if self.last.is_some() => kept.len() as u64,
            None => self.printed,
        };
        let summary = summary(records);
        for record in stats.iter().flat_map(|stats| stats.records(summary.time, summary.duration_ms)) {
            self.write(&Record::Stats(Box::new(record)));
        }
        self.write(&Record::Summary(Box::new(summary)));
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
