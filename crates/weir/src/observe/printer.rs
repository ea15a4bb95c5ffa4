//! From reports to records.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_core::event::PacketSeen;
use weir_core::filter::Filter;
use weir_core::flow::{Report, Totals};
use weir_core::loss::{EventLosses, Tallies};
use weir_core::record::{FlowEvent, Record, SummaryRecord};
use weir_core::scene::Scene;

use crate::cli::ObserveArgs;
use crate::error::Error;
use crate::outlet::Outlet;

/// From reports to the outlet.
pub(super) struct Printer {
    outlet: Outlet,
    packets: bool,
    /// Whether flows that outlive weir get a last record: programs want their
    /// counters, a person would have to read a line for each.
    leftovers: bool,
    finishing: bool,
}

impl Printer {
    pub(super) fn new(filter: Filter, arguments: &ObserveArgs) -> Self {
        Self {
            outlet: arguments.output.outlet(filter),
            packets: arguments.packets,
            leftovers: arguments.output.format.is_for_programs(),
            finishing: false,
        }
    }

    pub(super) fn filter(&self) -> &Filter {
        self.outlet.filter()
    }

    pub(super) fn is_done(&self) -> bool {
        self.outlet.is_done()
    }

    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.outlet.check()
    }

    pub(super) fn flow(&mut self, scene: &mut Scene, report: Report<'_>) {
        let leftover = self.finishing && report.event == FlowEvent::Update;
        if self.packets || self.is_done() || (leftover && !self.leftovers) {
            return;
        }
        self.outlet.record(Record::Flow(scene.flow_record(report)));
    }

    pub(super) fn packet(&mut self, scene: &mut Scene, packet: &PacketSeen) {
        if !self.is_done() {
            self.outlet.record(Record::Packet(scene.packet_record(packet)));
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
        let interfaces = scene.interface_counters(in_flows.chain(in_none));
        self.outlet.finish(|records| SummaryRecord {
            time: jiff::Timestamp::now(),
            duration_ms: (duration.as_micros() as f64) / 1_000.0,
            flows: totals.flows,
            packets: totals.counted.packets,
            bytes: totals.counted.bytes,
            requests: None,
            records,
            not_flows,
            not_parsed: BTreeMap::new(),
            lost,
            interfaces,
        });
    }

    pub(super) fn flush(&mut self) {
        self.outlet.flush();
    }
}
