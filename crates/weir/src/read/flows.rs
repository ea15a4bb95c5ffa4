//! From captured packets to flows: the table that `weir observe` has, with a
//! tracker in the place of the kernel, and the capture's time.

use std::time::Duration;

use weir_core::event::Event;
use weir_core::flow::{InOrder, Report, Table, Totals, Tracker};
use weir_core::frame::{Body, Packet};
use weir_core::loss::TallyReason;
use weir_core::record::FlowEvent;

/// What is idle takes 30 s at the least.
const SWEEP_INTERVAL_NS: u64 = 5_000_000_000;

/// Flows, told when they begin, while they live if that is wanted, and when they end.
#[derive(Default)]
pub(super) struct Flows {
    table: Table,
    tracker: Tracker,
    /// The newest packet's.
    now_ns: u64,
    next_sweep_ns: u64,
    updates: Option<Updates>,
}

/// Reports of living flows.
struct Updates {
    every_ns: u64,
    next_ns: u64,
}

impl Flows {
    /// For so many flows at a time; `updates` is how often living ones are told.
    pub(super) fn new(room: Option<u32>, updates: Option<Duration>) -> Self {
        let room = room.and_then(|flows| usize::try_from(flows).ok());
        Self {
            tracker: room.map(Tracker::with_room).unwrap_or_default(),
            updates: updates.map(|every| Updates {
                every_ns: u64::try_from(every.as_nanos()).unwrap_or(u64::MAX),
                next_ns: 0,
            }),
            ..Self::default()
        }
    }

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
        let now_ns = self.now_ns;
        while !self.table.is_empty() {
            let update_ns = self.updates.as_ref().map_or(u64::MAX, |updates| updates.next_ns);
            let due_ns = self.next_sweep_ns.min(update_ns);
            if due_ns > now_ns {
                break;
            }
            self.end_closed(due_ns, told);
            self.sweep(due_ns, told);
            if due_ns == self.next_sweep_ns {
                self.next_sweep_ns = due_ns.saturating_add(SWEEP_INTERVAL_NS);
            }
            if due_ns == update_ns {
                self.update(due_ns, told);
            }
        }
        self.end_closed(now_ns, told);
        // Live, too, nobody looks at an empty table.
        if self.table.is_empty() {
            self.next_sweep_ns = now_ns.saturating_add(SWEEP_INTERVAL_NS);
            if let Some(updates) = &mut self.updates {
                updates.next_ns = now_ns.saturating_add(updates.every_ns);
            }
        }
    }

    /// Ends connections at the times at which they are due, the last of them at `until_ns`.
    fn end_closed(&mut self, until_ns: u64, told: &mut impl FnMut(Report<'_>)) {
        let Self { table, tracker, .. } = self;
        while let Some(due_ns) = table.next_end_ns().filter(|due_ns| *due_ns <= until_ns) {
            let Ok(()) = table.end_closed(due_ns, tracker, told);
        }
    }

    /// Ends what is idle.
    fn sweep(&mut self, at_ns: u64, told: &mut impl FnMut(Report<'_>)) {
        let Self { table, tracker, .. } = self;
        let room = tracker.room() as u64;
        let Ok(()) = table.sweep(at_ns, room, false, tracker, told);
    }

    /// Tells of what lives and has news.
    fn update(&mut self, at_ns: u64, told: &mut impl FnMut(Report<'_>)) {
        let Self { table, tracker, updates, now_ns, .. } = self;
        let room = tracker.room() as u64;
        let Ok(()) = table.sweep(at_ns, room, true, &mut InOrder(tracker), told);
        if let Some(updates) = updates {
            // Until now no packet comes: at the times between there is no news.
            let passed = now_ns.saturating_sub(at_ns) / updates.every_ns.max(1);
            updates.next_ns = at_ns.saturating_add(updates.every_ns.saturating_mul(passed.saturating_add(1)));
        }
    }

    /// Tells of the flows that have no end in the files, if they have more than was told
    /// at their beginning, and gives the sums.
    pub(super) fn finish(&mut self, told: &mut impl FnMut(Report<'_>)) -> Totals {
        let Self { table, tracker, now_ns, .. } = self;
        let Ok(totals) = table.tell_all(*now_ns, &mut InOrder(tracker), &mut |report| {
            let packets =
                report.entry.directions.iter().map(|direction| direction.points[0].counters.packets);
            if report.event != FlowEvent::Update || packets.sum::<u64>() > 1 {
                told(report);
            }
        });
        totals
    }
}
