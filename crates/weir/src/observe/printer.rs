//! From reports to the output: which records, how many, and what happens when
//! nobody takes them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use weir_core::event::PacketSeen;
use weir_core::filter::Filter;
use weir_core::flow::{Report, Totals};
use weir_core::loss::{EventLosses, Tallies};
use weir_core::record::{FlowEvent, Record, SummaryRecord};
use weir_core::scene::Scene;

use crate::cli::ObserveArgs;
use crate::error::Error;
use crate::output::{Format, Sink};

/// The last station of the pipeline.
pub(super) struct Printer {
    filter: Filter,
    sink: Box<dyn Sink>,
    packets: bool,
    /// Whether flows that outlive weir get a last record: programs want their
    /// counters, a person would have to read a line for each.
    leftovers: bool,
    count: Option<u64>,
    last: Option<usize>,
    kept: VecDeque<Record>,
    printed: u64,
    finishing: bool,
    failure: Option<io::Error>,
    /// The reader of the output has gone (`weir observe | head`).
    unread: bool,
}

impl Printer {
    pub(super) fn new(filter: Filter, sink: Box<dyn Sink>, arguments: &ObserveArgs) -> Self {
        Self {
            filter,
            sink,
            packets: arguments.packets,
            leftovers: matches!(arguments.output, Format::Json | Format::Jsonl),
            count: arguments.count,
            last: arguments.last.and_then(|last| usize::try_from(last).ok()),
            kept: VecDeque::new(),
            printed: 0,
            finishing: false,
            failure: None,
            unread: false,
        }
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn is_done(&self) -> bool {
        self.unread || self.failure.is_some() || self.count.is_some_and(|count| self.printed >= count)
    }

    /// A closed pipe is a reader that has enough: no failure, but the end.
    pub(super) fn check(&mut self) -> Result<(), Error> {
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

    pub(super) fn flow(&mut self, scene: &mut Scene, report: Report<'_>) {
        let leftover = self.finishing && report.event == FlowEvent::Update;
        if self.packets || self.is_done() || (leftover && !self.leftovers) {
            return;
        }
        let record = Record::Flow(scene.flow_record(report));
        self.record(record);
    }

    pub(super) fn packet(&mut self, scene: &mut Scene, packet: &PacketSeen) {
        if !self.is_done() {
            self.record(Record::Packet(scene.packet_record(packet)));
        }
    }

    fn record(&mut self, record: Record) {
        if !self.filter.matches(&record) {
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

    /// From now on updates are of flows that outlive weir.
    pub(super) fn begin_finish(&mut self) {
        self.finishing = true;
    }

    pub(super) fn summary(
        &mut self,
        scene: &Scene,
        totals: &Totals,
        tallies: &Tallies,
        losses: &EventLosses,
        duration: Duration,
    ) {
        let kept = std::mem::take(&mut self.kept);
        for record in &kept {
            self.write(record);
        }
        let mut not_flows = BTreeMap::new();
        let mut lost = BTreeMap::new();
        for ((_, reason), counters) in tallies {
            let counts = if reason.is_loss() { &mut lost } else { &mut not_flows };
            *counts.entry(reason.name()).or_default() += counters.packets;
        }
        let names_evicted = ("dns_names_evicted", scene.directory.names_evicted());
        for (name, count) in losses.named().into_iter().chain([names_evicted]) {
            if count > 0 {
                lost.insert(name, count);
            }
        }
        let in_flows = totals.hooks.iter().map(|(hook, counters)| (*hook, *counters));
        let in_none = tallies.iter().map(|((hook, _), counters)| (*hook, *counters));
        let summary = SummaryRecord {
            time: jiff::Timestamp::now(),
            duration_ms: (duration.as_micros() as f64) / 1_000.0,
            flows: totals.flows,
            packets: totals.counted.packets,
            bytes: totals.counted.bytes,
            records: if self.last.is_some() { kept.len() as u64 } else { self.printed },
            not_flows,
            lost,
            interfaces: scene.interface_counters(in_flows.chain(in_none)),
        };
        self.write(&Record::Summary(summary));
        if self.failure.is_none() && !self.unread {
            self.failure = self.sink.finish().err();
        }
    }

    pub(super) fn flush(&mut self) {
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
