//! What is known of a flow beside its entry: what was reported of it, and what of the entry is its own.

use super::Report;
use crate::endpoint::Identity;
use crate::flow::{FlowEntry, FlowKey, FlowState, Side};
use crate::record::{FlowEvent, State};

/// One flow, as it was reported.
pub(super) struct Row {
    pub(super) first_ns: u64,
    pub(super) incarnation: u32,
    /// Packets that were in the last report, to see whether there is news.
    pub(super) reported_packets: u64,
    /// How the entry stood when an earlier connection with this key ended.
    pub(super) base: Option<Box<FlowEntry>>,
    pub(super) ends: [Option<Identity>; 2],
    /// The end was announced; waiting for what is still on its way.
    pub(super) ending: bool,
}

impl Row {
    pub(super) fn new(first_ns: u64, incarnation: u32, base: Option<Box<FlowEntry>>) -> Self {
        Self { first_ns, incarnation, reported_packets: 0, base, ends: [None, None], ending: false }
    }

    pub(super) fn update(&mut self, key: FlowKey, entry: &FlowEntry, report: &mut impl FnMut(Report<'_>)) {
        let packets = counted_packets(&self.own_part(entry));
        if packets != self.reported_packets {
            self.report(key, entry, (FlowEvent::Update, state_of(entry.state), entry.last_ns), report);
        }
    }

    /// Returns what of the entry belongs to this connection.
    pub(super) fn report(
        &mut self,
        key: FlowKey,
        entry: &FlowEntry,
        (event, state, time_ns): (FlowEvent, State, u64),
        report: &mut impl FnMut(Report<'_>),
    ) -> FlowEntry {
        let own = self.own_part(entry);
        self.reported_packets = counted_packets(&own);
        report(Report {
            id: key.connection_id(self.first_ns),
            event,
            state,
            time_ns,
            key,
            entry: own,
            ends: &mut self.ends,
        });
        own
    }

    pub(super) fn own_part(&self, entry: &FlowEntry) -> FlowEntry {
        let mut own = *entry;
        let Some(base) = &self.base else { return own };
        own.resets = entry.resets.saturating_sub(base.resets);
        own.icmp_errors = entry.icmp_errors.saturating_sub(base.icmp_errors);
        for side in [Side::Low, Side::High] {
            let direction = &mut own.directions[side.index()];
            let before = &base.directions[side.index()];
            direction.retransmits = direction.retransmits.saturating_sub(before.retransmits);
            direction.zero_windows = direction.zero_windows.saturating_sub(before.zero_windows);
            for (point, earlier) in direction.points.iter_mut().zip(&before.points) {
                point.counters = point.counters.since(earlier.counters);
            }
        }
        own
    }
}

pub(super) fn counted_packets(entry: &FlowEntry) -> u64 {
    entry.directions.iter().map(|direction| direction.points[0].counters.packets).sum()
}

/// What an opening shows. A short connection may have ended by the time its
/// entry is read; that is for its last report to say.
pub(super) fn opening_state(entry: &FlowEntry) -> State {
    let answered = entry.rtt_us.is_some() || entry.midstream || entry.state == FlowState::Established;
    if answered { State::Established } else { State::New }
}

pub(super) fn state_of(state: FlowState) -> State {
    match state {
        FlowState::New => State::New,
        FlowState::Established => State::Established,
        FlowState::Closing => State::Closing,
        FlowState::Closed => State::Closed,
        FlowState::Reset => State::Reset,
    }
}
