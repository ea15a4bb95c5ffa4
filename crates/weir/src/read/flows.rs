//! From captured packets to flows: the table that `weir observe` has, with a
//! tracker in the place of the kernel, and the capture's time.

use weir_core::event::Event;
use weir_core::flow::{Report, TRACKED_FLOWS_MAX, Table, Totals, Tracker};
use weir_core::frame::{Body, Packet};
use weir_core::loss::TallyReason;
use weir_core::record::FlowEvent;

/// What is idle takes 30 s at the least.
const SWEEP_INTERVAL_NS: u64 = 5_000_000_000;

#[derive(Default)]
pub(super) struct Flows {
    table: Table,
    tracker: Tracker,
    /// The newest packet's.
    now_ns: u64,
    next_sweep_ns: u64,
}

impl Flows {
    /// Counts a packet.
    ///
    /// # Errors
    /// Why it is in no flow.
    pub(super) fn packet(
        &mut self,
        packet: &Packet<'_>,
        length_bytes: u32,
        time_ns: u64,
        told: &mut impl FnMut(Report<'_>),
    ) -> Result<(), TallyReason> {
        if matches!(packet.body, Body::Stray) {
            return Err(TallyReason::FragmentUnjoined);
        }
        self.pass_time(time_ns, told);
        let Self { table, tracker, .. } = self;
        let step = tracker.packet(packet, length_bytes, time_ns);
        if step.is_table_full {
            return Err(TallyReason::TableFull);
        }
        match &step.opened {
            Some(Event::Open(open)) => {
                let Ok(()) = table.opened(open, tracker, told);
            }
            Some(Event::Reopen(open, before)) => {
                let Ok(()) = table.reopened(open, before, tracker, told);
            }
            _ => {}
        }
        if let Some(close) = &step.closed {
            table.closed(close);
        }
        Ok(())
    }

    /// Lets the time pass until then, in the steps in which it passes live: so that what
    /// ends meanwhile ends at the time that it has live.
    fn pass_time(&mut self, time_ns: u64, told: &mut impl FnMut(Report<'_>)) {
        self.now_ns = self.now_ns.max(time_ns);
        let Self { table, tracker, now_ns, next_sweep_ns } = self;
        while !table.is_empty() && *next_sweep_ns <= *now_ns {
            end_closed(table, tracker, *next_sweep_ns, told);
            let Ok(()) = table.sweep(*next_sweep_ns, TRACKED_FLOWS_MAX as u64, false, tracker, told);
            *next_sweep_ns = next_sweep_ns.saturating_add(SWEEP_INTERVAL_NS);
        }
        end_closed(table, tracker, *now_ns, told);
        if table.is_empty() {
            *next_sweep_ns = now_ns.saturating_add(SWEEP_INTERVAL_NS);
        }
    }

    /// Tells of the flows that have no end in the files, if they have more than was told
    /// at their beginning, and gives the sums.
    pub(super) fn finish(&mut self, told: &mut impl FnMut(Report<'_>)) -> Totals {
        let Self { table, tracker, now_ns, .. } = self;
        let Ok(totals) = table.tell_all(*now_ns, tracker, &mut |report| {
            let packets =
                report.entry.directions.iter().map(|direction| direction.points[0].counters.packets);
            if report.event != FlowEvent::Update || packets.sum::<u64>() > 1 {
                told(report);
            }
        });
        totals
    }
}

/// Ends connections at the times at which they are due, the last of them at `now_ns`.
fn end_closed(table: &mut Table, tracker: &mut Tracker, now_ns: u64, told: &mut impl FnMut(Report<'_>)) {
    while let Some(due_ns) = table.next_end_ns().filter(|due_ns| *due_ns <= now_ns) {
        let Ok(()) = table.end_closed(due_ns, tracker, told);
    }
}
